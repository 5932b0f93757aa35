"""Calibration in place: a model at hand, the user's texts, and cards that hold for that model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from workbench.calibration import spike
from workbench.calibration.code import code_digest
from workbench.calibration.spike import Spiked, SpikeSpec, Windows
from workbench.core.errors import UnknownName
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.lab.calibrate import Calibrated, examined, grid_of, kept
from workbench.lab.harvesting import CorpusSpec, texts_of
from workbench.lab.record import recorded
from workbench.lab.refs import domain_of, load, reference_of
from workbench.store.runs import Store


def spike_in(
    ref: str | HookedModel, tools: Sequence[str] = (), *, data: str | Sequence[str] = "own", settings: Mapping[str, Any] | None = None,
    grid: Mapping[str, Any] | Literal["quick"] | None = None, store: Store | None = None, progress: Progress = silent, resume: str = "auto",
) -> Calibrated:  # fmt: skip
    """Plant known doses into copies of a model and examine ``tools`` (default: every attribution) on them; a card each, kept in the home.

    ``data``: ``own``, a public text, a file with one text a line, or texts; ``settings``: fields of ``SpikeSpec``; ``grid`` as in
    ``calibrate``. Raises Incompatible, UnknownName, BadValue and MissingData before anything is trained.
    """
    store = store if store is not None else Store.open()
    name = reference_of(ref, store)
    model: Any = load(ref, store=store, progress=progress)
    spike.check(model)
    spec = SpikeSpec.parse(dict(settings or {}), what="the spike")
    exam = spike.exam_of(model, name, domain_of(name, store))
    chosen = list(tools) or list(exam.tools(model.family))
    for tool in chosen:
        if tool not in exam.tools(model.family):
            raise UnknownName("tool of the spike-in", tool, exam.tools(model.family), hint=exam.question)
    whole = grid_of(exam, grid)
    texts = texts_of(CorpusSpec.parse({"data": data}), name, store) if isinstance(data, str) else data
    windows = Windows.of([model.tokenizer.encode(text) for text in texts], spec.window)
    todo = [(model.family, tool) for tool in dict.fromkeys(chosen)]
    plan = {"exam": exam.name, "model": name, "tools": [tool for _, tool in todo], "grid": whole.model_dump(mode="json"),
            "spike": spec.model_dump(mode="json"), "windows": windows.digest(),
            "code": {tool: code_digest(tool) for _, tool in todo}}  # fmt: skip

    def source(family: str, tool: str, dose: float, seed: int) -> tuple[Any, Spiked]:
        planted = spike.plan(model, windows, spec, dose, seed)
        return spike.spiked(model, planted), planted

    with recorded(store, "calibrate", plan, name, resume=resume, provenance={"model_digest": model.digest()}) as run:
        found = examined(exam, whole, todo, run, source, store=store, progress=progress)
        words = f"; planted into {name} ({model.digest()[:12]})"
        cards = kept(exam, whole, found, run, store=store, stem=f"spike-{model.digest()[:12]}", words=words)
    return Calibrated(run, cards, ())
