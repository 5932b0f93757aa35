"""Under what circumstances a report was written: its models in words, and by which code and packages. Kept beside the report.

What a sceptic's own program is tells whether it must find the same bytes or the same numbers: ``source_digest`` is over the source files
that a report comes from, and the packages are those that numbers, Parquet files and drawings depend on.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any, TypeVar

from workbench.core.errors import CorruptFile, MissingFile
from workbench.core.result import Provenance
from workbench.core.spec import Spec, canonical_json
from workbench.lab.audit_findings import Described

Subject = TypeVar("Subject", bound=Spec)
CIRCUMSTANCES = "circumstances.json"
DRAWING = ("altair", "vl-convert-python", "jinja2", "pandas", "xarray", "pyarrow")
_OURS = ("workbench/core", "workbench/data/worlds", "workbench/reports", "workbench/calibration", "workbench/lab", "probes", "evals")
_KINDS = (".py", ".j2", ".css", ".yaml", ".json")


@cache
def source_digest() -> str:
    """sha256 over every source file of ours that the numbers, words and layout of a report come from, by name."""
    whole = hashlib.sha256()
    root = Path(str(resources.files("workbench"))).parent
    for package in _OURS:
        for path in sorted(p for p in (root / package).rglob("*") if p.suffix in _KINDS and p.is_file()):
            whole.update(f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def environment(here: Provenance) -> dict[str, Any]:
    """The code and packages of this process, beside those of ``here``."""
    versions = {name: metadata.version(name) for name in DRAWING if _installed(name)}
    return {
        "code": here.code, "source": source_digest(), "packages": {**here.packages, **versions}, "python": platform.python_version(),
        "machine": platform.machine(), "system": platform.system(),
    }  # fmt: skip


def circumstances(subjects: Sequence[Spec], here: Provenance) -> str:
    """The text that is kept beside a report."""
    return canonical_json({"subjects": [s.model_dump(mode="json") for s in subjects], "environment": environment(here)})


def read(folder: Path) -> tuple[list[Described], Mapping[str, Any]]:
    """Models and environment of the audit's report in a run's folder. Raises MissingFile and CorruptFile."""
    return read_as(Described, folder)


def read_as(kind: type[Subject], folder: Path) -> tuple[list[Subject], Mapping[str, Any]]:
    """The same, of the report of any run: each of its subjects as ``kind``."""
    place = folder / CIRCUMSTANCES
    if not place.is_file():
        raise MissingFile(place, "note of the circumstances", do="The report was made by an older version; run it again to bundle it.")
    try:
        whole = json.loads(place.read_text(encoding="utf-8"))
        return [kind.parse(one, what=CIRCUMSTANCES) for one in whole["subjects"]], whole["environment"]
    except (ValueError, KeyError, TypeError):
        raise CorruptFile(place, "the note of the circumstances", "it is not") from None


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
