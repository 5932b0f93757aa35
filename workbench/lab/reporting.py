"""Reports that are stored: found, checked, copied."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from workbench.core.errors import StoreError, UsageError
from workbench.lab.audit import Audit, report_of
from workbench.store.runs import Store


def stored_report(run: str = "last", *, store: Store | None = None) -> Audit:
    """The report of an audit, read back and checked; ``last`` is the newest finished audit."""
    store = store if store is not None else Store.open(create=False)
    if run == "last":
        audits = store.runs.list(kind="audit", status="done")
        if not audits:
            raise UsageError("There is no finished audit yet. `workbench audit` makes one.")
        run = audits[0].id
    return report_of(run, store=store)


def copied(found: Audit, folder: str | Path) -> Audit:
    """Copy both files into ``folder``, which is made if need be."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        targets = [Path(shutil.copyfile(source, place / source.name)) for source in (found.html, found.json)]
    except OSError as error:
        raise StoreError(f"The report could not be copied to '{place}'", error.strerror or str(error)) from error
    return replace(found, html=targets[0], json=targets[1])
