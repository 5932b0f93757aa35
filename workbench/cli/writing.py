"""How commands that end in a report write and show it: copies, other forms, and the evidence bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.cli.output import show
from workbench.core.errors import UsageError

if TYPE_CHECKING:
    from workbench.lab.audit import Audit


def can_be_written(bundle: str, key: str) -> None:
    """Raises UsageError for a key without a bundle and for a bundle that is there already, before anything is computed."""
    from workbench.lab.evidence import unwritten

    if key and not bundle:
        raise UsageError("--key signs a bundle. Say where it goes with --bundle FILE.")
    if bundle:
        unwritten(bundle)


def write_and_show(found: Audit, forms: Mapping[str, str], *, out: str, language: str, bundle: str, key: str) -> None:
    """Copy a report to ``out``, write it in other ``forms`` (files by form; those without a file are left out) and as a signed bundle, and
    show where all of it lies."""
    from workbench.lab.evidence import write_bundle
    from workbench.lab.rendering import write_forms
    from workbench.lab.reporting import copied

    if out:
        found = copied(found, out)
    wanted = {name: file for name, file in forms.items() if file}
    if out and language != "en":
        wanted["html"] = str(found.html)
    written = {name: str(place) for name, place in write_forms(found.report, wanted, language=language).items()}
    document = {"run": found.run, "report": str(found.html), "json": str(found.json), "digest": found.report.digest(),
                "findings": [finding.model_dump(mode="json") for finding in found.findings], "forms": written}  # fmt: skip
    lines = (*found.lines(), *(f"{name:<8}{place}" for name, place in written.items()))
    if not bundle:
        show(document, lines)
        return
    signed = write_bundle(found.run, bundle, key=key)
    show(document | {"bundle": signed.facts()}, (*lines, *signed.lines()))
