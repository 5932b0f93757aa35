"""Audit plans: what is to be asked, written down before anything is asked."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from evals import SUITES
from probes import INSTRUMENTS
from workbench.core.errors import BadValue, MissingFile, UnknownName
from workbench.core.finding import Plan
from workbench.core.spec import canonical_json
from workbench.core.written import fields_in, text_of
from workbench.lab.failures import FAILURES
from workbench.lab.mitigation.methods import MENDABLE, SPECS
from workbench.lab.settings import overlay
from workbench.reports.parts import Identity

_FOLDER = resources.files("workbench.plans")
DEFAULT = "town"


def names() -> list[str]:
    """The shipped plans."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def read_plan(plan: str | Path | Mapping[str, Any] | Plan, settings: Mapping[str, Any] | None = None, added: Sequence[str] = ()) -> Plan:
    """A shipped plan by name, a YAML file, or values, with ``settings`` laid over it; every name in it is checked.

    ``added`` are suites and instruments asked for beyond it: what they find is exploratory. Raises UnknownName, MissingFile, CorruptFile,
    BadValue.
    """
    if isinstance(plan, Plan):
        values: dict[str, Any] = plan.model_dump(mode="json")
    elif isinstance(plan, Mapping):
        values = dict(plan)
    else:
        values = _file(str(plan))
    made = _with_changes(values, overlay(values, settings or {}))
    for name in added:
        made = _with(made, name)
    for kind, catalog, asked in (("suite", SUITES, made.suites), ("instrument", INSTRUMENTS, made.instruments)):
        for name in asked:
            if name not in catalog:
                raise UnknownName(kind, name, catalog, where=f"in plan '{made.name}'")
    if unknown := sorted(set(made.settings) - {*made.suites, *made.instruments}):
        raise UnknownName("suite or instrument of this plan", unknown[0], [*made.suites, *made.instruments], where="under 'settings'")
    _check_family(made)
    if made.reference == made.model:
        raise BadValue("reference", made.reference, "another model than the audited one")
    Identity.parse({"part": "audited", "name": made.model} | dict(made.about), what=f"'about' of plan '{made.name}'")
    return made


def command_of(plan: Plan) -> str:
    """The command that carries out this plan again: of a shipped one with what was changed and added, else of the bundle's own copy."""
    if plan.name not in names():
        return "workbench audit plan.json  # as the evidence bundle has it"
    values = plan.model_dump(mode="json")
    words = ["workbench", "audit", plan.name]
    for name in plan.changed:
        plain = values[name] if name in values else _empty(name)
        bare = isinstance(plain, str) and yaml.safe_load(plain) == plain  # else it would be read as a number, a list …
        words += ["--set", f"{name}={plain if bare else canonical_json(plain)}"]
    for name in plan.added:
        words += ["--add", name]
    return shlex.join(words)


def _empty(name: str) -> Any:
    """The value of a field that stands at its default, which is left out of what is written."""
    default = Plan.model_fields[name].default
    return list(default) if isinstance(default, tuple) else default


def _with_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Plan:
    """The plan as it will be carried out; where it has fields that its file has otherwise, they are named beside the file's digest."""
    made = Plan.parse(after, what="the plan")
    if before == after or not {"name", "model"} <= set(before):
        return made
    file = Plan.parse(before, what="the plan")
    names = tuple(sorted(name for name in Plan.model_fields if getattr(file, name) != getattr(made, name)))
    return made.model_copy(update={"changed": names, "file": file.digest()}) if names else made


def _with(plan: Plan, name: str) -> Plan:
    """The plan with a suite or instrument more, marked as added."""
    if name in (*plan.suites, *plan.instruments):
        raise BadValue("what is added to the plan", name, "something that it does not ask already")
    if name not in (*SUITES, *INSTRUMENTS):
        raise UnknownName("suite or instrument", name, (*SUITES, *INSTRUMENTS), where="to add to the plan")
    kind = "suites" if name in SUITES else "instruments"
    return plan.model_copy(update={kind: (*getattr(plan, kind), name), "added": (*plan.added, name)})


def _check_family(plan: Plan) -> None:
    """Claims, slices, margins and floors name what the plan asks; margins and floors name fields that there are."""
    asked = [*plan.suites, *plan.instruments]
    for claim in plan.claims:
        if claim.of not in asked or claim.of in plan.added:
            raise UnknownName(
                "suite or instrument of this plan", claim.of, [n for n in asked if n not in plan.added], where="under 'claims'"
            )
    for one in plan.slices:
        if one.of not in plan.suites:
            raise UnknownName("suite of this plan", one.of, plan.suites, where="under 'slices'")
    for name in plan.internals:
        if name not in plan.suites or name not in FAILURES:
            raise UnknownName(
                "suite", name, [one for one in FAILURES if one in plan.suites], where="of this plan whose failure can be located"
            )
    for one in plan.mitigations:
        if one.of not in plan.suites or one.of not in MENDABLE:
            known = [name for name in MENDABLE if name in plan.suites]
            raise UnknownName("suite", one.of, known, where="of this plan whose failure a mitigation can be tried on")
        SPECS[one.method].parse(one.settings, what=f"settings of mitigation '{one.method}'")
    for word, stated in (("margin", plan.margins), ("floor", plan.floors)):
        for where in stated:
            of, _, field = where.partition(".")
            if of not in plan.suites:
                raise UnknownName("suite of this plan", of, plan.suites, where=f"under '{word}s'")
            fields = SUITES.load(of).spec.model_fields
            if (field or word) not in fields:
                raise UnknownName("field", field or word, fields, where=f"of suite '{of}', under '{word}s'")


def _file(text: str) -> dict[str, Any]:
    if text in names():
        content = (_FOLDER / f"{text}.yaml").read_text(encoding="utf-8")
    elif Path(text).exists():
        content = text_of(Path(text), "a plan file")
    elif "/" in text or text.endswith((".yaml", ".yml")):
        raise MissingFile(text, "plan file", do=f"Shipped plans: {', '.join(names())}.")
    else:
        raise UnknownName("plan", text, names(), hint="A plan of your own is a YAML file.")
    return fields_in(content, text, "a plan")
