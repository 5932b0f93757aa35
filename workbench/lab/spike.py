"""Calibration in place: a model at hand, the user's texts, and cards that hold for that model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from workbench.calibration import spike, spike_direction
from workbench.calibration.code import code_digest
from workbench.calibration.spike import SpikeSpec, Windows
from workbench.calibration.spike_direction import DirectionSpikeSpec
from workbench.core.errors import UnknownName
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.lab.calibrate import Calibrated, examined, grid_of, kept
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
    """Plant known doses into copies of a model and examine ``tools`` on them; a card each, kept in the home. Attributions (default of a
    decoder) are asked about a token that decides the next one, probes (default of an encoder) about a direction of words.

    ``data``: ``own``, a public text, a file with one text a line, or texts; ``settings``: fields of ``SpikeSpec`` or, of a direction,
    ``DirectionSpikeSpec``; ``grid`` as in ``calibrate``. Raises Incompatible, UnknownName, BadValue and MissingData before anything is
    trained.
    """
    store = store if store is not None else Store.open()
    name = reference_of(ref, store)
    model: Any = load(ref, store=store, progress=progress)
    way, form = _way(model, tools)
    way.check(model)
    spec = form.parse(dict(settings or {}), what="the spike")
    exam = way.exam_of(model, name, domain_of(name, store))
    chosen = list(tools) or list(exam.tools(model.family))
    for tool in chosen:
        if tool not in exam.tools(model.family):
            raise UnknownName("tool of the spike-in", tool, exam.tools(model.family), hint=f"{exam.question} Probes are asked apart.")
    whole = grid_of(exam, grid)
    texts = texts_of(CorpusSpec.parse({"data": data}), name, store) if isinstance(data, str) else data
    windows = Windows.of([model.tokenizer.encode(texts[number]) for number in range(min(len(texts), TEXTS))], spec.window)
    way.plan(model, windows, spec, whole.doses[0], whole.seeds[0])  # what cannot be planted is refused before a run begins
    todo = [(model.family, tool) for tool in dict.fromkeys(chosen)]
    plan = {"exam": exam.name, "model": name, "tools": [tool for _, tool in todo], "grid": whole.model_dump(mode="json"),
            "spike": spec.model_dump(mode="json"), "windows": windows.digest(),
            "code": {tool: code_digest(tool) for _, tool in todo}}  # fmt: skip

    def source(family: str, tool: str, dose: float, seed: int) -> tuple[Any, Any]:
        planted = way.plan(model, windows, spec, dose, seed)
        return way.spiked(model, planted), planted

    with recorded(store, "calibrate", plan, name, resume=resume, provenance={"model_digest": model.digest()}) as run:
        found = examined(exam, whole, todo, run, source, store=store, progress=progress)
        words = f"; planted into the model {model.digest()[:12]}{way.WORDS}"
        cards = kept(exam, whole, found, run, store=store, stem=f"spike-{model.digest()[:12]}", words=words, about=model.digest())
    return Calibrated(run, cards, ())


def _way(model: HookedModel, tools: Sequence[str]) -> tuple[Any, type[SpikeSpec] | type[DirectionSpikeSpec]]:
    """What plants, and its spec: a direction for tools that fit to labels and for a model that predicts no next token, else a token."""
    if set(tools) & set(spike_direction.TOOLS) or (not tools and model.family == "bert"):
        return spike_direction, DirectionSpikeSpec
    return spike, SpikeSpec
