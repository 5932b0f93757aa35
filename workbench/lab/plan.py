"""Audit plans: what is to be asked, written down before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from evals import SUITES
from probes import INSTRUMENTS
from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.core.finding import Plan
from workbench.lab.settings import overlay
from workbench.reports.parts import Identity

_FOLDER = resources.files("workbench.plans")
DEFAULT = "town"


def names() -> list[str]:
    """The shipped plans."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def read_plan(plan: str | Path | Mapping[str, Any] | Plan, settings: Mapping[str, Any] | None = None) -> Plan:
    """A shipped plan by name, a YAML file, or values, with ``settings`` laid over it; every name in it is checked.

    Raises UnknownName, MissingFile, CorruptFile, BadValue.
    """
    if isinstance(plan, Plan):
        values: dict[str, Any] = plan.model_dump(mode="json")
    elif isinstance(plan, Mapping):
        values = dict(plan)
    else:
        values = _file(str(plan))
    made = Plan.parse(overlay(values, settings or {}), what="the plan")
    for kind, catalog, asked in (("suite", SUITES, made.suites), ("instrument", INSTRUMENTS, made.instruments)):
        for name in asked:
            if name not in catalog:
                raise UnknownName(kind, name, catalog, where=f"in plan '{made.name}'")
    if unknown := sorted(set(made.settings) - {*made.suites, *made.instruments}):
        raise UnknownName("suite or instrument of this plan", unknown[0], [*made.suites, *made.instruments], where="under 'settings'")
    if made.reference == made.model:
        raise BadValue("reference", made.reference, "another model than the audited one")
    Identity.parse({"part": "audited", "name": made.model} | dict(made.about), what=f"'about' of plan '{made.name}'")
    return made


def _file(text: str) -> dict[str, Any]:
    if text in names():
        content = (_FOLDER / f"{text}.yaml").read_text(encoding="utf-8")
    elif Path(text).is_file():
        content = Path(text).read_text(encoding="utf-8")
    elif "/" in text or text.endswith((".yaml", ".yml")):
        raise MissingFile(text, "plan file", do=f"Shipped plans: {', '.join(names())}.")
    else:
        raise UnknownName("plan", text, names(), hint="A plan of your own is a YAML file.")
    try:
        values = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise CorruptFile(text, "a YAML file", f"it is not: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise CorruptFile(text, "a YAML file with the fields of a plan", f"it holds a {type(values).__name__}")
    return values
