"""Many edited runs at once against one run an edit: every family, every site, any selection; and sweeps broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.families.models import CONFIGS, build, configs, tokens
from tests.families.test_every_family import tiny
from tests.reference.sweeping import one_by_one
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue, EmptySelection, UnknownName
from workbench.core.protocol import Add, Apply, Edit, FromTrace, Mean, Replace, Scale, Trace, Zero
from workbench.core.sites import Site
from workbench.core.tolerance import gap
from workbench.engine import sweep as engine
from workbench.engine.sweep import Sweep, prepare, sweep
from workbench.families import FAMILIES

SLOW = pytest.mark.slow
EXACT = 1e-12


def summed(logits: Tensor) -> Tensor:
    """A metric that notices every logit it is given: one number a row (a column, where rows are answers to each other)."""
    weights = torch.linspace(1.0, 2.0, logits[0].numel(), dtype=logits.dtype).reshape(logits.shape[1:])
    return (logits * weights).flatten(1).sum(1)


def cells_of(source: Trace, draw: torch.Generator, each: int = 1) -> list[Edit]:
    """Cells at every captured site: a whole one, and one or more at random places of its axes, of every kind of edit."""
    pick = lambda n: int(torch.randint(n, (1,), generator=draw))  # noqa: E731
    out: list[Edit] = []
    for name, value in source.at.items():
        axes = source.sites[name].axes
        out.append(FromTrace(name, trace=source))
        for _ in range(each):
            chosen = [word for word in axes[1:] if word not in ("one",) and pick(2)] or [axes[-1]]
            at: dict[str, Any] = {word: pick(value.shape[axes.index(word)]) for word in chosen}
            if "pos" in axes and pick(2):
                at["pos"] = slice(pick(value.shape[axes.index("pos")]), None)
            kinds: list[Edit] = [
                FromTrace(name, trace=source, at=at), Zero(name, at=at), Scale(name, factor=1.5, at=at), Mean(name, at=at),
                Add(name, value=torch.tensor(0.7, dtype=value.dtype), at=at), Apply(name, fn=lambda old, site: old + old.abs(), at=at),
            ]  # fmt: skip
            few = name.endswith(("hook_scale", "hook_attn_scores"))  # no division by zero, no infinity less infinity
            out.append(kinds[2 * pick(2) if few else pick(len(kinds))])
    return out


def other(batch: Any) -> Any:
    """The batch with its rows in another order: something to take activations from."""
    return batch.flip(0) if isinstance(batch, Tensor) else batch.rows(list(range(len(next(iter(vars(batch).values())))))[::-1])


def check(model: Any, batch: Any, cells: Sequence[Any], logits: Any = "all", positions: Tensor | None = None, **options: Any) -> None:
    found = sweep(model, batch, cells, summed, logits=logits, **options)
    expected = one_by_one(model, batch, cells, summed, positions)
    assert gap(found, expected) <= EXACT, [i for i in range(len(cells)) if gap(found[i], expected[i]) > EXACT]


# --- equal to one run an edit ---------------------------------------------------------------------------------


TESTED = ("gpt", "seq2seq", "clip", "vit")


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name in TESTED else pytest.mark.full) for name in FAMILIES])
def test_every_site_of_every_family(name: str) -> None:
    model, batch = tiny(name)
    source = model.run(other(batch), capture="*")
    every = cells_of(source, torch.Generator().manual_seed(1))
    cells = every[1::2] + every[::8]  # a part of every site, and the whole of every fourth
    if not engine._by_position(model.sites()):
        check(model, batch, cells)
        return
    rows, width = model.run(batch).logits.shape[:2]
    check(model, batch, cells, "last", torch.full((rows, 1), width - 1))
    check(model, batch, cells[::8])


OTHERS = [(name, rows) for name in sorted(CONFIGS) for rows in (1, 3) if (name, rows) != ("plain", 3)]
KINDS = [("plain", 3), *(pytest.param(*one, marks=SLOW if one[0] == "one_kv" else pytest.mark.full) for one in OTHERS)]


@pytest.mark.parametrize(("name", "rows"), KINDS)
def test_every_kind_of_decoder_from_ids(name: str, rows: int) -> None:
    model = build(name, dtype=torch.float64)
    ids, others = tokens(model, rows, 7), tokens(model, rows, 7, seed=9)
    cells = cells_of(model.run(others, capture="*"), torch.Generator().manual_seed(2))
    check(model, ids, cells, "last", torch.full((rows, 1), 6))
    each = torch.tensor([[6, 2], [3, 5], [4, 4]])[:rows]
    check(model, ids, cells, each, each)


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(configs(), st.integers(1, 3), st.integers(1, 8), st.data())
def test_any_selection_of_any_decoder(fields: dict[str, Any], rows: int, length: int, data: st.DataObject) -> None:
    model = build(fields, dtype=torch.float64)
    ids, others = tokens(model, rows, length), tokens(model, rows, length, seed=9)
    every = cells_of(model.run(others, capture="*"), torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    some = data.draw(st.lists(st.sampled_from(range(len(every))), min_size=1, max_size=12))
    cells: list[Any] = [every[i] for i in some]
    if len(cells) > 2:
        pair = [one for one in cells[:2] if not str(one.site).endswith("hook_normalized")]  # which go with no reader's input
        cells = [*([pair] if pair else []), *cells[2:]]  # two edits in one run
    count = data.draw(st.integers(1, 3))
    asked = torch.tensor([[data.draw(st.integers(0, length - 1)) for _ in range(count)] for _ in range(rows)])
    least = engine.prepare(model, ids, cells, logits=asked).estimate  # the smallest memory that is not refused: one cell at a time
    check(model, ids, cells, asked, asked, memory=data.draw(st.sampled_from([1 << 30, least.held + least.cell])))


def test_float32_within_the_table() -> None:
    model = build("plain")
    ids = tokens(model, 2, 7)
    cells = cells_of(model.run(tokens(model, 2, 7, seed=9), capture="*"), torch.Generator().manual_seed(3))
    read = lambda logits: logits[:, -1]  # noqa: E731
    assert gap(sweep(model, ids, cells, read), one_by_one(model, ids, cells, read)) <= 2e-6


def test_segments_are_not_crossed() -> None:
    """Rows of several documents: no past stands for them, and the sweep is still right."""
    model, batch = tiny("gpt")
    assert isinstance(batch, TokenBatch)
    assert not prepare(model, batch, [Zero("blocks.0.hook_mlp_out")]).reuses
    check(model, batch, [Zero("blocks.1.attn.hook_z", at={"pos": 5, "head": 1}), Zero("blocks.0.hook_resid_pre", at={"pos": 2})])


def test_a_model_that_cannot_start_in_the_middle_is_run_whole() -> None:
    model = build("plain", dtype=torch.float64)

    class Plain:
        family, config, tokenizer, abilities = model.family, model.config, None, frozenset({"logits", "edit"})
        sites, weight, digest = model.sites, model.weight, model.digest

        def run(self, batch: Any, **options: Any) -> Trace:
            assert options.get("resume") is None or not any(vars(options["resume"]).values())
            return model.run(batch, **options)

    check(Plain(), tokens(model, 2, 6), [Zero("blocks.1.hook_mlp_out", at={"pos": 3}), Zero("hook_embed", at={"pos": 0})])


# --- what is saved ----------------------------------------------------------------------------------------------


class Counted:
    """A model seen through glass that counts what it is asked to run."""

    def __init__(self, model: Any) -> None:
        self._model, self.work, self.runs, self.logits = model, 0, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, batch: Any, **options: Any) -> Trace:
        trace = self._model.run(batch, **options)
        resume = options.get("resume")
        given = resume.residual if resume is not None and resume.residual is not None else batch
        self.runs, self.work = self.runs + 1, self.work + given.shape[0] * given.shape[1]
        self.logits += 0 if trace.logits is None else trace.logits.shape[0] * trace.logits.shape[1]
        return trace


def test_prefixes_are_not_run_again_and_logits_only_where_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ENOUGH", 1)
    model: Any = Counted(build("plain", dtype=torch.float64))
    ids = tokens(model._model, 1, 10)
    source = model._model.run(tokens(model._model, 1, 10, seed=9), capture="*")
    cells = [FromTrace("blocks.0.hook_resid_pre", trace=source, at={"pos": p}) for p in range(10)]
    found = sweep(model, ids, cells, summed)
    # the unedited run and its tail, then for each position the rest of the row, and its last position after the last attention
    assert model.work == 10 + 1 + sum(range(1, 11)) + 10
    assert model.logits == 1 + 1 + 10
    assert gap(found, one_by_one(model._model, ids, cells, summed, torch.tensor([[9]]))) <= EXACT


def test_a_batch_grows_by_the_cells_that_start_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ENOUGH", 1)
    model: Any = Counted(build("plain", dtype=torch.float64))
    ids, source = tokens(model._model, 1, 10), model._model.run(tokens(model._model, 1, 10, seed=9), capture="*")
    sites = ("blocks.1.hook_resid_pre", "blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid")  # in no order
    cells = [FromTrace(site, trace=source, at={"pos": p}) for site in sites for p in range(10)]
    ready = prepare(model, ids, cells)
    assert [len(chunk) for chunk in ready.chunks(ready.cells)] == [3] * 10
    model.work = model.runs = model.logits = 0
    found = dict(ready.results(summed))
    # of each position's cells one runs a whole layer, two its MLP, three the last; then their last positions
    assert model.work == sum((1 + 2 + 3) * (10 - p) for p in range(10)) + 3 * 10
    assert model.runs == 3 * 10 + 1
    assert gap(torch.stack([found[k] for k in range(30)]), one_by_one(model._model, ids, cells, summed, torch.tensor([[9]]))) <= EXACT


def test_two_edits_on_either_side_of_where_another_cell_starts() -> None:
    model = build("one_kv", dtype=torch.float64)
    ids, source = tokens(model, 2, 8), model.run(tokens(model, 2, 8, seed=9), capture="*")
    at = lambda site, pos: FromTrace(site, trace=source, at={"pos": pos})  # noqa: E731
    cells = [
        [at("blocks.0.hook_resid_pre", 2), at("blocks.1.hook_resid_pre", 3), at("blocks.1.attn.hook_k", 2)],
        [at("blocks.0.hook_resid_pre", 2), at("blocks.1.hook_attn_in", 4)],
        at("blocks.1.hook_resid_pre", 2),
        at("blocks.1.hook_resid_mid", 7),
        [at("hook_embed", 2), at("blocks.1.attn.hook_z", 7)],
    ]
    check(model, ids, cells, "last", torch.full((2, 1), 7))
    check(model, ids, cells)


def test_an_edit_of_what_a_decoder_embeds_leaves_its_memory_alone() -> None:
    model, batch = tiny("seq2seq")
    width = model.run(batch).logits.shape[1]
    cells = [Zero("decoder.hook_embed", at={"pos": p}) for p in range(1, width)]
    check(model, batch, cells, "last", torch.full((len(batch.tokens), 1), width - 1))


def test_what_no_position_looked_at_can_see_is_not_run() -> None:
    model: Any = Counted(build("plain", dtype=torch.float64))
    ids = tokens(model._model, 2, 8)
    cells = [Zero("blocks.0.hook_resid_pre", at={"pos": p}) for p in (4, 5, 6, 7)]
    ready = prepare(model, ids, cells, logits=[3])
    before = model.runs
    values = dict(ready.results(summed))
    assert model.runs == before
    assert all(torch.equal(value, ready.plain(summed)) for value in values.values())


def test_a_cell_that_puts_back_what_was_there_changes_nothing() -> None:
    model = build("plain", dtype=torch.float64)
    ids = tokens(model, 2, 6)
    own = model.run(ids, capture="*")
    cells = [FromTrace(name, trace=own, at={"pos": 3} if "pos" in site.axes else {}) for name, site in own.sites.items()]
    ready = prepare(model, ids, cells)
    assert max(gap(value, ready.plain(summed)) for _, value in ready.results(summed)) <= EXACT


def test_memory_is_estimated_bounds_the_rows_and_is_said() -> None:
    model: Any = Counted(build("plain", dtype=torch.float64))
    ids = tokens(model._model, 2, 8)
    cells = [Scale("blocks.0.hook_resid_pre", factor=2.0, at={"pos": 0, "d_model": d}) for d in range(16)]
    wide = prepare(model, ids, cells)
    assert wide.estimate.cells == 16
    narrow = prepare(model, ids, cells, memory=wide.estimate.held + 3 * wide.estimate.cell)
    assert narrow.estimate.cells == 3
    assert [len(chunk) for chunk in narrow.chunks(narrow.cells)] == [3, 3, 3, 3, 3, 1]
    said: list[str] = []
    list(narrow.results(summed, progress=lambda done, total, words="": said.append(words)))
    assert set(said) == {str(narrow.estimate)}
    assert "3 edited runs at a time" in said[0]
    with pytest.raises(BadValue, match=r"memory of one edited run is 'about \d+ MiB', but it must be at most 0 MiB"):
        prepare(model, ids, cells, memory=1000)


def test_an_interrupted_sweep_keeps_what_it_has_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TOGETHER", 1)
    monkeypatch.setattr(engine, "ENOUGH", 1)  # cells of one position a run
    model: Any = Counted(build("plain", dtype=torch.float64))
    ids = tokens(model._model, 1, 8)
    cells = [Zero(f"blocks.{layer}.hook_attn_out", at={"pos": p}) for layer in range(2) for p in range(8)]
    kept: dict[int, Tensor] = {}

    def stop(done: int, total: int, words: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(model, ids, cells, summed, progress=stop, kept=kept)
    assert 0 < len(kept) < 16
    early = {index: value.clone() for index, value in kept.items()}
    again: list[int] = []
    found = sweep(model, ids, cells, summed, kept=kept, progress=lambda done, total, words="": again.append(done))
    assert again[0] > len(early)
    assert again[-1] == 16
    assert all(torch.equal(found[index], value) for index, value in early.items())
    assert gap(found, one_by_one(model._model, ids, cells, summed, torch.tensor([[7]]))) <= EXACT


# --- sweeps broken on purpose -----------------------------------------------------------------------------------


def _late(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Sweep.first_of
    monkeypatch.setattr(Sweep, "first_of", lambda self, *given: min(first(self, *given) + 1, self.width - 1))


def _mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_repeated", lambda batch, count: batch.repeat_interleave(count, 0))
    monkeypatch.setattr(Sweep, "_repeated", lambda self, value, count: value.repeat_interleave(count, 0))


def _unshifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweep, "_asked", lambda self, first, count: (self.asked - first - min(first, 1)).clamp(min=0).repeat(count, 1))


def _blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweep, "unmoved", lambda self, cell: cell.first > 2)


def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweep, "_few", lambda self, chunk: self.tail is not None)


BREAKS: list[Callable[[pytest.MonkeyPatch], None]] = [_late, _mixed_up, _unshifted, _blind, _early]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda f: f.__name__)
def test_a_broken_sweep_is_caught(broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("one_kv", dtype=torch.float64)
    ids = tokens(model, 2, 8)
    source = model.run(tokens(model, 2, 8, seed=9), capture="*")
    cells: list[Any] = [FromTrace("blocks.0.hook_resid_mid", trace=source, at={"pos": p}) for p in range(8)]
    cells.append([cells[2], FromTrace("blocks.1.attn.hook_z", trace=source, at={"pos": 7})])
    asked = torch.full((2, 1), 7)
    monkeypatch.setattr(engine, "ENOUGH", 20)  # chunks of two cells, most of which start late
    check(model, ids, cells, asked, asked)
    broken(monkeypatch)
    with pytest.raises((AssertionError, BadValue)):
        check(model, ids, cells, asked, asked)


def test_a_tail_that_is_not_the_whole_story_is_not_taken() -> None:
    """Where what follows the last attention counts positions, the asked ones cannot run alone."""
    model = build("plain", dtype=torch.float64)
    assert prepare(model, tokens(model, 1, 6), [Zero("hook_embed", at={"pos": 2})]).tail == "blocks.1.hook_resid_mid"
    tilted: Any = Counted(model)
    plain = tilted.run

    def run(batch: Any, **options: Any) -> Trace:
        trace = plain(batch, **options)
        start = getattr(options.get("resume"), "start", None)
        return replace(trace, logits=trace.logits + 1) if start == "blocks.1.hook_resid_mid" and trace.logits is not None else trace

    tilted.run = run  # a model whose readout depends on the position
    assert prepare(tilted, tokens(model, 1, 6), [Zero("hook_embed", at={"pos": 2})]).tail is None


# --- bad input --------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_says_so() -> None:
    model = build("plain", dtype=torch.float64)
    ids = tokens(model, 2, 6)
    zero = Zero("blocks.0.hook_mlp_out")
    other_length = model.run(tokens(model, 2, 5), capture="blocks.0.hook_mlp_out")
    bad: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (ids, [], {}, BadValue, "number of cells is 0"),
        (ids, [[]], {}, BadValue, "a cell's edits is 'none'"),
        ("text", [zero], {}, BadValue, "the batch is 'str'"),
        (ids[:0], [zero], {}, BadValue, "at least one row"),
        (ids, [Zero("blocks.5.hook_mlp_out")], {}, EmptySelection, r"'blocks\.5\.hook_mlp_out' matches no site"),
        (ids, [Zero("blocks.0.hook_mlp_out", at={"head": 0})], {}, UnknownName, "no axis 'head'"),
        (ids, [Zero("blocks.0.attn.hook_z", at={"head": 4})], {}, BadValue, r"index on axis 'head' of 'blocks\.0\.attn\.hook_z'"),
        (ids, [Zero("blocks.0.hook_mlp_out", at={"pos": 6})], {}, BadValue, r"positions of an edit is \[6\]"),
        (ids, [Zero("blocks.0.hook_mlp_out", at={"pos": slice(6, None)})], {}, BadValue, r"positions of an edit is \[\]"),
        (ids, [FromTrace("blocks.0.hook_mlp_out", trace=other_length, at={"pos": 0})], {}, BadValue, r"\(2, 5, 16\)"),
        (ids, [FromTrace("blocks.0.hook_mlp_out", trace=other_length, at={"pos": 3})], {}, BadValue, r"\(2, 5, 16\)"),
        (ids, [Replace("blocks.0.hook_mlp_out", value=torch.zeros(2, 6, 7))], {}, BadValue, "one whose value fits"),
        (ids, [Replace("blocks.0.hook_mlp_out", value=torch.tensor(float("nan")), at={"pos": 1})], {}, BadValue, "NaN or infinity"),
        (ids, [zero], {"logits": None}, BadValue, "logits is None"),
        (ids, [zero], {"logits": [6]}, BadValue, "within 0 to 5"),
        (ids, [zero], {"logits": torch.zeros(3, 1).long()}, BadValue, r"positions \[n\] or \[2, n\]"),
    ]
    for batch, cells, options, kind, words in bad:
        with pytest.raises(kind, match=words):
            sweep(model, batch, cells, summed, **options)
    calls = iter(range(99))
    with pytest.raises(BadValue, match=r"shape of the metric with 'blocks\.0\.hook_mlp_out' edited"):
        sweep(model, ids, [zero], lambda logits: logits[0, 0, : 3 + next(calls)])
    with torch.no_grad():
        model.embed.token.weight.fill_(float("nan"))
    with pytest.raises(BadValue, match="metric of the unedited run is 'NaN or infinity'"):
        sweep(model, ids, [zero], summed)


def test_nothing_is_left_on_the_model_and_no_gradients_are_kept() -> None:
    model = build("plain")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = sweep(model, tokens(model, 1, 5), [Zero(Site("blocks.0.hook_mlp_out", ("batch", "pos", "d_model")))], summed)
    assert not found.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
