"""Calibration in place: a model at hand, the user's texts, and cards that hold for that model.

What is asked follows from a tool's kind: tools that attribute an answer to tokens are asked about a planted token, probes about a planted
direction of words, suites of memory about planted canaries. Nothing else is planted into a model at hand, and where a tool looks for
something else it is said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.code import code_digest
from workbench.calibration.exam import Exam, Grid
from workbench.calibration.exams import EXAMS
from workbench.calibration.spike_way import Way, Windows
from workbench.calibration.spikes import SPIKES
from workbench.core.errors import BadValue, Incompatible, UnknownName
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.lab import plan as plans
from workbench.lab.calibrate import Calibrated, examined, grid_of, kept, origin, under_floor
from workbench.lab.every_card import cards_of
from workbench.lab.harvesting import CorpusSpec, texts_of
from workbench.lab.record import recorded
from workbench.lab.refs import domain_of, load, reference_of
from workbench.store.runs import Store

TEXTS = 4000
"""How many texts are read, from the first on."""


def spike_in(
    ref: str | HookedModel, tools: Sequence[str] = (), *, data: str | Sequence[str] = "own", settings: Mapping[str, Any] | None = None,
    grid: Mapping[str, Any] | Literal["quick"] | None = None, store: Store | None = None, progress: Progress = silent, resume: str = "auto",
) -> Calibrated:  # fmt: skip
    """Plant known doses into copies of a model and examine ``tools`` on them; a card each, kept in the home. ``tools`` are instruments and
    suites, or audit plans, of which all is asked that can be, and the rest is left out with its reason (default: everything that can be).

    ``data``: ``own``, a public text, a file with one text a line, or texts; ``settings``: fields of the spec of what is planted
    (``SpikeSpec``, ``DirectionSpikeSpec`` or ``CanarySpec``), where one thing is; ``grid`` as in ``calibrate``. Raises Incompatible,
    UnknownName, BadValue and MissingData before anything is trained.
    """
    store = store if store is not None else Store.open()
    name = reference_of(ref, store)
    model: Any = load(ref, store=store, progress=progress)
    chosen, left_out = _chosen(model, tools)
    if settings and len(chosen) > 1:
        raise BadValue("settings", dict(settings), "given for one plant at a time", do=f"Ask apart: {_in_words(chosen)}.")
    texts = texts_of(CorpusSpec.parse({"data": data}), name, store) if isinstance(data, str) else data
    rows = [model.tokenizer.encode(texts[number]) for number in range(min(len(texts), TEXTS))]
    domain, todo = domain_of(name, store), []
    for way, asked in chosen.items():
        todo.append(_prepared(SPIKES.load(way), model, asked, rows, (name, domain), (settings or {}, grid)))
    done = [_carried_out(one, model, name, store=store, progress=progress, resume=resume) for one in todo]
    return replace(cards_of(done), left_out=left_out)


def askable(model: HookedModel) -> dict[str, tuple[str, ...]]:
    """Which tools can be asked of copies of this model, by what is planted for them."""
    ways: dict[str, Way] = {name: SPIKES.load(name) for name in SPIKES}
    out = {name: tuple(t for t in (*INSTRUMENTS, *SUITES) if way.takes(t) and not _objections(way, t, model)) for name, way in ways.items()}
    return {name: tools for name, tools in out.items() if tools}


def why_not(tool: str, model: HookedModel) -> str:
    """Why a tool cannot be asked of copies of this model, or ''."""
    ways: list[Way] = [SPIKES.load(name) for name in SPIKES]
    if own := [way for way in ways if way.takes(tool)]:
        return "; ".join(_objections(own[0], tool, model))
    exams: list[Exam] = [EXAMS.load(name) for name in EXAMS]
    scored = [exam.name for exam in exams if any(tool in exam.tools(family) for family in exam.families)]
    elsewhere = f"it is scored on organisms: `workbench calibrate {tool} --exam {scored[0]}`" if scored else "no exam scores it yet"
    return f"nothing that it looks for is planted into a model at hand, {elsewhere}"


def _objections(way: Way, tool: str, model: HookedModel) -> list[str]:
    """Why a tool of the kind that ``way`` takes is not asked on this model."""
    if against := way.against(model):
        return against
    return INSTRUMENTS.load(tool).explain_incompatibility(model) if tool in INSTRUMENTS else SUITES.load(tool).needs.objections(model)


def _chosen(model: HookedModel, asked: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The tools by what is planted for them, and what plans ask besides, each with the reason why it is left out. Raises UnknownName for a
    name that there is not, Incompatible for a tool that was named, or a plan, that cannot be asked."""
    known = askable(model)
    able = [tool for tools in known.values() for tool in tools]
    if not able:
        clauses = dict.fromkeys(clause for name in SPIKES for clause in SPIKES.load(name).against(model))
        raise Incompatible("spike-in", "this model", list(clauses))
    named = [tool for tool in asked if tool in INSTRUMENTS or tool in SUITES]
    planned = [tool for name in asked if name not in named for tool in _tools_of(name, able)]
    wanted = dict.fromkeys([*named, *planned])
    left = {tool: why_not(tool, model) for tool in wanted if tool not in able}
    if any(tool in left for tool in named) or (wanted and len(left) == len(wanted)):
        reasons = [f"{tool}: {why}" for tool, why in left.items() if tool in named or not named]
        raise Incompatible("spike-in", "this model", reasons, do=f"What can be asked of copies of it: {_in_words(known)}.")
    chosen = {name: tuple(tool for tool in tools if not wanted or tool in wanted) for name, tools in known.items()}
    return {name: tools for name, tools in chosen.items() if tools}, tuple(f"{tool}: {why}" for tool, why in left.items())


def _tools_of(name: str, able: Sequence[str]) -> tuple[str, ...]:
    """What a plan asks, by its name or file. Raises UnknownName for what is no plan either."""
    if name not in plans.names() and not name.endswith((".yaml", ".yml")):
        raise UnknownName("instrument, suite or plan", name, [*able, *plans.names()], where="that can be asked of copies of this model")
    plan = plans.read_plan(name)
    return (*plan.instruments, *plan.suites)


def _in_words(known: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"about {SPIKES.load(name).plants} {', '.join(tools)}" for name, tools in known.items())


@dataclass(frozen=True)
class _Spike:
    """One exam of a model at hand, ready to be carried out."""

    way: Way
    exam: Exam
    grid: Grid
    spec: Any
    windows: Windows
    tools: tuple[str, ...]


def _prepared(
    way: Way, model: Any, tools: tuple[str, ...], rows: Sequence[Sequence[int]], named: tuple[str, str],
    how: tuple[Mapping[str, Any], Mapping[str, Any] | Literal["quick"] | None],
) -> _Spike:  # fmt: skip
    """An exam of which all is refused that cannot be carried out. ``named``: the model's reference and its domain."""
    settings, grid = how
    way.check(model)
    spec = way.spec.parse(dict(settings), what=f"the spike-in of {way.plants}")
    exam = way.exam_of(model, *named)
    whole = grid_of(exam, grid)
    windows = Windows.of(rows, spec.window, way.windows(whole, spec, tools))
    for tool in tools:
        for dose in (whole.doses[0], whole.doses[-1]):
            way.plan(model, windows, spec, tool, dose, whole.seeds[0])
    return _Spike(way, exam, whole, spec, windows, tools)


def _carried_out(one: _Spike, model: Any, name: str, *, store: Store, progress: Progress, resume: str) -> Calibrated:
    """The cards of one exam, in a run of its own."""
    digest, exam = model.digest(), one.exam
    plan = {"exam": exam.name, "model": name, "tools": list(one.tools), "grid": one.grid.model_dump(mode="json"),
            "spike": one.spec.model_dump(mode="json"), "windows": one.windows.digest(),
            "code": {tool: code_digest(tool) for tool in one.tools}, "weights": digest, **origin(exam)}  # fmt: skip

    def source(family: str, tool: str, dose: float, seed: int) -> tuple[Any, Any]:
        planted = one.way.plan(model, one.windows, one.spec, tool, dose, seed)
        return one.way.spiked(model, planted), planted

    with recorded(store, "calibrate", plan, name, resume=resume, provenance={"model_digest": digest}) as run:
        pairs = [(model.family, tool) for tool in one.tools]
        found = examined(exam, one.grid, pairs, run, source, store=store, progress=progress)
        words = f"; planted into the model {digest[:12]}{one.way.words}"
        cards = kept(exam, one.grid, found, run, store=store, stem=f"spike-{digest[:12]}", words=words, about=digest)
    return Calibrated(run, cards, (), under_floor(exam, one.grid, cards))
