"""Deriving a stored result again and comparing digests: the proof behind every number of a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evals import SUITES
from evals.bound import bound
from evals.runner import run_suite
from probes import INSTRUMENTS
from workbench.core.errors import AssayError, BadValue, UnknownName
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.core.result import Result
from workbench.lab.history import HISTORY
from workbench.lab.inputs import InputsSpec, default_inputs, make_inputs
from workbench.lab.refs import load, organism_of
from workbench.lab.run import BATCH, train, with_origin
from workbench.store.records import RunRecord
from workbench.store.runs import Store


@dataclass(frozen=True)
class Recomputed:
    """A stored result beside one computed now. ``differs`` names the parts of the canonical form that are not equal."""

    run: str
    name: str
    stored: str
    found: str
    differs: tuple[str, ...]

    @property
    def same(self) -> bool:
        return self.stored == self.found


def recompute(run: str, name: str, *, store: Store | None = None, progress: Progress = silent) -> Recomputed:
    """Derive result ``name`` of ``run`` again from its model, spec and inputs; nothing is written but what a model needs.

    Raises UnknownName (no such run or result) and AssayError where the inputs or the model are no longer to be had, with the reason.
    """
    store = store if store is not None else Store.open(create=False)
    record = store.runs.get(run)
    stored = store.result(record.id, name)
    found = _again(store, record, stored.result, progress)
    return Recomputed(record.id, name, stored.digest, found.digest(), _difference(stored.result, found))


def _again(store: Store, record: RunRecord, old: Result, progress: Progress) -> Result:
    if old.kind == HISTORY:
        return _trained_again(store, record, progress)
    kind = "suite" if old.kind in SUITES else "instrument"
    ways: Mapping[str, Callable[[HookedModel], Result]] = {
        "suite": lambda model: _evaluated_again(record, old, model, progress),
        "instrument": lambda model: _probed_again(store, record, old, model, progress),
    }
    if old.kind not in SUITES and old.kind not in INSTRUMENTS:
        raise UnknownName("suite or instrument", old.kind, [*SUITES, *INSTRUMENTS], where="that could derive this result")
    ref = old.provenance.model
    if ref.startswith("memory:"):
        raise AssayError(f"This result is of a model that existed only in memory ({ref}), so it cannot be derived again.")
    model = load(ref, store=store, progress=progress)
    if model.digest() != old.provenance.model_digest:
        raise AssayError(
            f"'{ref}' is another model now: its digest is {model.digest()[:12]}…, and the result is of {old.provenance.model_digest[:12]}…."
        )
    return ways[kind](model)


def _evaluated_again(record: RunRecord, old: Result, model: HookedModel, progress: Progress) -> Result:
    suite = SUITES.load(old.kind)
    batch = int(record.spec.get("batch", BATCH))
    spec = suite.spec.parse(old.spec, what=f"stored spec of '{old.kind}'")
    return run_suite(bound(suite, model), model, spec, progress=progress, batch=batch)


def _probed_again(store: Store, record: RunRecord, old: Result, model: HookedModel, progress: Progress) -> Result:
    tool = INSTRUMENTS.load(old.kind)
    given: Any = record.spec.get("inputs")
    if record.kind == "audit":  # an audit asks about the model's own world, as a probe without inputs does
        given = default_inputs(tool, old.provenance.model, store).model_dump(mode="json")
    if not isinstance(given, Mapping) or ("digest" in given and not given.get("own")):
        raise AssayError(f"Run {record.id} does not say how the inputs of '{old.kind}' were made, so its result cannot be derived again.")
    chosen = tool.spec.parse(old.spec, what=f"stored spec of '{old.kind}'")
    organism = organism_of(old.provenance.model, store) if given.get("own") else None
    if organism is not None and organism[0].question is not None:
        asked, _ = organism[0].question(model, organism[1], tool.spec.model_fields)
    else:
        asked = make_inputs(tool, model, InputsSpec.of(given), chosen, store)
    found = tool(model, asked, chosen, progress=progress)
    return with_origin(found, model=old.provenance.model)


def _trained_again(store: Store, record: RunRecord, progress: Progress) -> Result:
    if record.kind != "train":
        raise BadValue("the run", record.kind, "a training, which alone has such a result")
    return train(record.spec, store=store, progress=progress, parent=record.id).history


def _difference(old: Result, new: Result) -> tuple[str, ...]:
    before, after = json.loads(old.canonical()), json.loads(new.canonical())
    out: list[str] = []
    for part in sorted({*before, *after}):
        a, b = before.get(part), after.get(part)
        if a == b:
            continue
        nested = isinstance(a, dict) and isinstance(b, dict)
        out += [f"{part}.{key}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)] if nested else [part]
    return tuple(out)
