"""The one entry that the command line, the pages and Python share: probe, evaluate, train.

Each makes a run in the store, streams into it, and leaves its results, provenance and findings there. All numerics are below.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals import SUITES
from evals.bound import bound
from evals.runner import run_suite
from probes import INSTRUMENTS
from workbench.calibration.cards import card_for, measured, profile_of, shipped
from workbench.core.errors import Incompatible, UsageError
from workbench.core.finding import Finding
from workbench.core.measure import Suite, needs_of
from workbench.core.protocol import Callback, HookedModel, Inputs, Progress, silent
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.lab import encoders  # noqa: F401 (makes the encoders that judges read with known to them)
from workbench.lab.going_on import PHASES, go_back, named
from workbench.lab.history import HISTORY, training_result
from workbench.lab.inputs import InputsSpec, default_inputs, digest_of_inputs, make_inputs
from workbench.lab.measures import MEASURES, MeasuresResult, measures_result
from workbench.lab.rays import parse as check_engine
from workbench.lab.rays import rays
from workbench.lab.recipe import OrganismRecipe, Recipe, TaskRecipe, plan_of, read, training_of
from workbench.lab.record import Interrupted, recorded, unfinished
from workbench.lab.refs import TOWN, checkpoint_of, domain_of, load, organism_of, reference_of, task_of, world_of
from workbench.lab.settings import by_name
from workbench.lab.watch.follow import Following, Watcher, check_watch, world_in
from workbench.lab.watch.metrics import METRICS, Metrics, read_metrics
from workbench.lab.watch.result import WATCHED, watched_result
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store
from workbench.training.checkpoint import load_model
from workbench.training.checkpoint import read as read_checkpoint
from workbench.training.loop import FINAL
from workbench.training.loop import train as train_model
from workbench.training.parallel.world import World, joined

BATCH = 64
CHECK = 0.01
"""The share of a suite's samples whose scores are compared with naive ones."""
Follow = Callable[[str], Callback]
"""The callback for a training's part ('' for the last)."""


# --- evaluate -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` returns: the run's id, a result for each suite, and the findings."""

    run: str
    results: Mapping[str, Result]
    findings: tuple[Finding, ...]


def evaluate(
    suites: str | Sequence[str],
    model: str | HookedModel,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    resume: str = "",
    parent: str = "",
    batch: int = BATCH,
    engine: str = "local",
    **spec: Any,
) -> Evaluation:
    """Run suites on a model. ``spec`` are a suite's fields (one suite), or ``suite={field: value}`` for each of several.

    A suite with a ``world`` gets the one its model was trained on, where that is known. ``batch`` samples are computed and committed
    together. ``resume`` goes on with an interrupted run (``auto``: the newest with this spec), by whichever ``engine`` (``lab.rays``): the
    numbers are the same. Raises UsageError, Incompatible (all suites are checked before the first runs), MissingData, and Interrupted on
    Ctrl-C.
    """
    store = store if store is not None else Store.open()
    ref = reference_of(model, store)
    check_engine(engine)
    chosen, specs, plan = _planned(suites, ref, spec, store, batch)
    for name, suite in chosen.items():  # what is asked is there before a model is loaded, or trained for minutes
        next(iter(suite.samples(specs[name])), None)
    loaded = load(model, store=store, progress=progress)
    for name, suite in chosen.items():
        if reasons := needs_of(suite, specs[name]).objections(loaded):
            raise Incompatible(name, f"'{ref}'", reasons)
    origin = {"model_digest": loaded.digest()}
    with (
        rays(engine, ref, loaded, store) as spread,
        recorded(store, "eval", plan, ref, resume=resume, parent=parent, provenance=origin) as run,
    ):
        results: dict[str, Result] = {}
        for name, suite in chosen.items():
            asked = bound(suite, loaded)
            found = run_suite(asked, loaded, specs[name], store.sink(run, name), progress=progress, batch=batch, check=CHECK, spread=spread)
            store.put_result(run, name, found)
            results[name] = found
        if spread is not None:
            store.event(run, "spread", engine=engine, lost=spread.lost)
        findings = tuple(one for name, suite in chosen.items() for one in suite.findings(results[name], subject=ref))
        store.put_findings(run, findings)
    return Evaluation(run, results, findings)


def unfinished_evaluation(suites: str | Sequence[str], model: str, *, store: Store, batch: int = BATCH, **spec: Any) -> str:
    """The id of the newest run of exactly this evaluation that was interrupted or failed, or ''."""
    ref = reference_of(model, store)
    waiting = unfinished(store, "eval", _planned(suites, ref, spec, store, batch)[2], ref)
    return waiting[0].id if waiting else ""


def _planned(
    suites: str | Sequence[str], ref: str, settings: Mapping[str, Any], store: Store, batch: int
) -> tuple[dict[str, Suite], dict[str, Spec], dict[str, Any]]:
    """The suites, their specs, and the spec of the run."""
    names = [suites] if isinstance(suites, str) else list(dict.fromkeys(suites))
    if not names:
        raise UsageError(f"No suite was named. There are {', '.join(SUITES)}.")
    chosen = {name: SUITES.load(name) for name in names}
    specs = suite_specs(chosen, ref, by_name(names, settings, "suite"), store)
    return chosen, specs, {"suites": {name: one.model_dump(mode="json") for name, one in specs.items()}, "model": ref, "batch": batch}


def suite_specs(
    suites: Mapping[str, Suite], ref: str, settings: Mapping[str, Mapping[str, Any]], store: Store | None = None
) -> dict[str, Spec]:
    """The spec of each suite: its defaults, the model's own world where the suite asks about one, and ``settings`` over both."""
    given = {name: dict(settings.get(name, {})) for name in suites}
    return {
        name: suite.spec.parse({**own_world(suite, given[name], ref, store), **given[name]}, what=f"suite '{name}'")
        for name, suite in suites.items()
    }


def own_world(suite: Suite, given: Mapping[str, Any], ref: str, store: Store | None = None) -> dict[str, Any]:
    """The field of a suite's spec that names the world its model was trained on; none where it asks about no world, or where ``given``
    names one or what stands in its place (the suite's ``instead_of_world``)."""
    instead = any(given.get(name) for name in getattr(suite, "instead_of_world", ()))
    if "world" not in suite.spec.model_fields or "world" in given or instead:
        return {}
    world = world_of(ref, store, getattr(suite, "domain", TOWN))
    return {} if world is None else {"world": world}


# --- probe --------------------------------------------------------------------------------------------------


def probe(
    instrument: str,
    model: str | HookedModel,
    inputs: Inputs | InputsSpec | Mapping[str, Any] | Sequence[str] | str | None = None,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    parent: str = "",
    name: str = "",
    **spec: Any,
) -> Result:
    """Ask one instrument about a model; ``spec`` are its fields.

    ``inputs``: texts, an ``InputsSpec`` or its fields (``{"texts": [...], "targets": [" she"]}``), tensors as ``Inputs``, or None for
    what the instrument asks of the model's own world. Where there are foils, the quantity explained is the difference to them unless
    the spec says otherwise. The result is stored in a run, whose id is ``result.provenance.volatile["run"]``.
    Raises UsageError, Incompatible, BadValue, and Interrupted on Ctrl-C; what an instrument had by then is kept in that run.
    """
    tool = INSTRUMENTS.load(instrument)
    store = store if store is not None else Store.open()
    ref = reference_of(model, store)
    if inputs is not None and not isinstance(inputs, Inputs):
        inputs = InputsSpec.of(inputs)  # before anything is loaded: a misspelt field costs no time
        inputs = inputs.model_copy(update={"model": tuple(reference_of(other, store) for other in inputs.model)})
    own = organism_of(ref, store) if inputs is None else None
    asks = own[0].question if own is not None else None
    task = inputs is None and (asks is not None or task_of(ref, store) is not None)
    contrasts = (inputs is None and not task) or (isinstance(inputs, InputsSpec) and (inputs.foils or inputs.world))
    if "quantity" in tool.spec.model_fields and contrasts:
        spec.setdefault("quantity", "logit-difference")
    chosen = tool.spec.parse(spec, what=f"instrument '{instrument}'")
    loaded = load(model, store=store, progress=progress)
    if reasons := tool.explain_incompatibility(loaded):
        raise Incompatible(instrument, f"'{ref}'", reasons)
    if own is not None and asks is not None:
        given, fields = asks(loaded, own[1], tool.spec.model_fields)
        chosen = tool.spec.parse({**fields, **spec}, what=f"instrument '{instrument}'")
    else:
        given = default_inputs(tool, ref, store) if inputs is None else inputs
    made = given if isinstance(given, Inputs) else make_inputs(tool, loaded, given, chosen, store)
    described: dict[str, Any] = {"digest": digest_of_inputs(made)} if isinstance(given, Inputs) else given.model_dump(mode="json")
    if asks is not None:
        described["own"] = True  # what its organism asks, which can be asked again
    plan = {"instrument": instrument, "spec": chosen.model_dump(mode="json"), "model": ref, "inputs": described}
    with recorded(store, "probe", plan, ref, parent=parent, provenance={"model_digest": loaded.digest()}) as run:
        try:
            found = with_origin(tool(loaded, made, chosen, progress=progress), model=ref, card=beside(instrument, loaded, ref, store))
        except KeyboardInterrupt:
            raise Interrupted(run, "Interrupted before anything was found. The same command asks anew.") from None
        store.put_result(run, name or instrument, found)
        if found.stopped_early:
            raise Interrupted(run, f"Interrupted: `workbench runs show {run}` has what was found until then. The same command asks anew.")
    return with_origin(found, run=run)


def beside(tool: str, model: HookedModel, ref: str, store: Store) -> str:
    """The words of the card that stands beside what ``tool`` finds about this model, or why there is none."""
    return card_for(tool, profile_of(model, domain_of(ref, store, model.family)), (*measured(store.home), *shipped()))[1]


def with_origin(result: Result, *, model: str = "", run: str = "", card: str = "") -> Result:
    """``result`` with its model called by its reference, or with its run or the card beside it noted outside the canonical part."""
    origin = result.provenance
    if model:
        origin = replace(origin, model=model)
    noted = {name: value for name, value in (("run", run), ("card", card)) if value}
    if noted:
        origin = replace(origin, volatile={**origin.volatile, **noted})
    return replace(result, provenance=origin)


# --- train --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """What ``train`` returns: the run's id, the folder of the final checkpoint, the model in it, the history as a result; of a
    task, what the model is worth on held-out items; and what was watched while it trained, where the recipe asks for it. Of several
    processes, those of a ``rank`` above 0 have only trained: their ``run`` is '' and they measured nothing."""

    run: str
    folder: Path
    model: Any
    history: Result
    measures: MeasuresResult | None = None
    watched: Result | None = None
    rank: int = 0


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    settings: Mapping[str, Any] | None = None,
    store: Store | None = None,
    progress: Progress = silent,
    resume: str = "",
    parent: str = "",
    from_step: int | None = None,
    remark: Callable[[str], None] = lambda words: None,
) -> Training:
    """Train by a recipe (a shipped name, a YAML file, or values), with ``settings`` laid over it.

    The model is ``run:ID`` afterwards. ``resume`` goes on from an interrupted run's last checkpoint and ends in the same weights, and
    with ``from_step`` from an earlier one of it: what is newer is set aside. ``remark`` is told what a person should know meanwhile.
    Where the recipe divides the work (``train.parallel``), all processes call this; rank 0 alone has a store.
    """
    if from_step is not None and not resume:
        raise UsageError("Which run should go on from that step? Name it with --resume.")
    wanted = read(recipe, settings)
    check_watch(wanted)
    with joined(training_of(wanted).parallel) as world:
        if world is not None and not world.first:
            return _follow(wanted, world)
        return _lead(wanted, world, store if store is not None else Store.open(), progress, (resume, from_step, parent), remark)


def follows() -> bool:
    """Whether this process is one of several that torchrun started, and not the first: that one keeps the store and reports."""
    return os.environ.get("RANK", "0") != "0"


def _follow(wanted: Recipe, world: World) -> Training:
    """Take part in a training that rank 0 keeps the books of."""
    out = Path(world.told(""))
    model = _trained(wanted, out, None, silent)
    history = training_result(read_checkpoint(out / FINAL).train_state, wanted.name, plan_of(wanted), model)
    return Training("", out / FINAL, model, history, rank=world.rank)


def _lead(
    wanted: Recipe,
    world: World | None,
    store: Store,
    progress: Progress,
    again: tuple[str, int | None, str],
    remark: Callable[[str], None],
) -> Training:
    plan, (resume, from_step, parent) = plan_of(wanted), again
    begun = recorded(
        store, "train", plan, f"recipe:{wanted.name}", resume=resume, parent=parent, provenance={}, again=from_step is not None
    )
    parts = [part for part, _ in wanted.trainings()] if isinstance(wanted, TaskRecipe) else []
    with begun as run, named(run, out := checkpoint_of(store, run), parts, store.home / "runs" / run):
        if from_step is not None:
            store.event(run, "rewound", **go_back(out, parts, from_step))
        if world is not None:
            world.told(str(out))
            store.runs.annotate(run, processes=world.size, parallel=world.spec.model_dump(mode="json"))
        metrics, note = Metrics(store.folder(run) / METRICS), _noting(store, run, remark)
        watcher = Watcher(wanted.watch, world_in(wanted)) if wanted.watch.measures else None
        follow: Follow = lambda part: Following(metrics, note, None if part else watcher, part)  # noqa: E731
        model = _trained(wanted, out, follow, progress)
        state = read_checkpoint(out / FINAL).train_state
        history = training_result(state, wanted.name, plan, model)
        store.put_result(run, HISTORY, history)
        store.runs.annotate(run, model_digest=model.digest())
        measures = None
        if isinstance(wanted, TaskRecipe):
            data = wanted.data_of()
            measures = measures_result(wanted.whole().score(model, data), wanted.name, plan, model)
            store.put_result(run, MEASURES, measures)
        watched = None
        if watcher is not None:
            watch, last = wanted.watch, training_of(wanted)
            due = [s for s in range(state["step"] + 1) if watch.due(s, last.steps, last.save_every, last.validate_every)]
            lines = read_metrics(metrics.path)
            watched = watched_result(lines, watch.measures, due, recipe=wanted.name, plan=plan, model=model)
            store.put_result(run, WATCHED, watched)
    return Training(run, out / FINAL, model, history, measures, watched)


def _trained(recipe: Recipe, out: Path, follow: Follow | None, progress: Progress) -> Any:
    told: Callable[[str], list[Callback]] = lambda part: [follow(part)] if follow is not None else []  # noqa: E731
    if isinstance(recipe, OrganismRecipe):
        return ORGANISMS.load(recipe.organism).build(recipe.full(), out, callbacks=told(""), progress=progress)
    if not (out / FINAL).is_dir():
        ready = recipe.prepare()
        model, rows, validation = ready.model, ready.rows, ready.validation
        trainings = recipe.trainings() if isinstance(recipe, TaskRecipe) else [("", recipe.train)]
        for part, spec in trainings:
            if part:
                model.learn(part)
                train_model(model, rows, spec, out=out / PHASES / part, callbacks=told(part), progress=progress)
                model.learn(model.parts[-1])
            else:
                train_model(model, rows, spec, out=out, validation=validation, callbacks=told(""), progress=progress)
    return load_model(out / FINAL)


def _noting(store: Store, run: str, remark: Callable[[str], None]) -> Callable[[str, Mapping[str, Any]], None]:
    """Validations, checkpoints and looks as events of the run, for whoever follows it; each once, however often the run is resumed."""
    said = {(event.name, event.details.get("part", ""), event.details.get("step")) for event in store.events(run)}

    def note(event: str, facts: Mapping[str, Any]) -> None:
        if event == "changed":
            remark(facts["words"])
        key = event, facts.get("part", ""), facts["step"]
        if key not in said:
            said.add(key)
            store.event(run, event, **facts)

    return note
