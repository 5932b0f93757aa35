"""The scalar as a function of embeddings, on every family, against one plain run a version; and what stands where one was removed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from probes import prefixes
from probes.asked import ask
from probes.gradient_once import GradientSpec, gradient_at_input
from probes.removal import replacement_of
from tests.families.models import build
from tests.probes.standin import StandIn
from tests.probes.test_places import tiny
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs, silent

STACKS = [
    ("gpt", ""), ("bert", ""), ("vit", ""), ("clip", "text"), ("clip", "image"), ("dalle", ""), ("imagen", "denoiser"),
    ("seq2seq", "encoder"), ("seq2seq", "decoder"), ("whisper", "encoder"), ("whisper", "decoder"),
]  # fmt: skip


def question(family: str, stack: str) -> tuple[Any, Inputs, GradientSpec]:
    model, batch = tiny(family)
    count, first = len(next(iter(vars(batch).values()))), 10 if family == "dalle" else 0
    targets, foils = torch.arange(count) % 3 + first, (torch.arange(count) + 1) % 3 + first
    inputs = Inputs(batch.tokens if family == "gpt" else batch, targets=targets, foils=foils)
    return model, inputs, GradientSpec(stack=stack, quantity="logit-difference", tokens_a_pass=24)


@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_edited_versions_are_what_one_run_each_gives(family: str, stack: str) -> None:
    model, inputs, spec = question(family, stack)
    asked = ask(model, inputs, spec)
    _, _, x, gradient, value = gradient_at_input(model, inputs, spec, silent)
    assert torch.allclose(asked.value, value.double(), atol=1e-12)
    assert torch.equal(asked.x.cpu(), x.cpu())
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, len(asked), (9,), generator=draw)
    assert torch.allclose(asked.gradients(rows, asked.x[rows]), gradient[rows], atol=1e-12)
    kept = torch.rand(9, asked.items.width, generator=draw) > 0.4
    kept[3], kept[5], rows[5] = True, kept[4], rows[4]
    start = torch.randn(asked.x.shape, generator=draw, dtype=asked.x.dtype)
    found = asked.kept_values(rows, kept, start)
    alone = [asked.values(rows[k : k + 1], torch.where(kept[k, :, None], asked.x[rows[k]], start[rows[k]])[None]) for k in range(9)]
    assert torch.allclose(found, torch.cat(alone), atol=1e-10)
    assert found[3] == asked.value[rows[3]]


@pytest.mark.parametrize("stack", ["text", "image"])
def test_copies_of_a_batch_whose_items_answer_one_another_do_not_answer_each_other(stack: str) -> None:
    model, batch = tiny("clip")
    inputs = Inputs(batch, targets=torch.arange(len(batch.tokens)))
    narrow, wide = (
        ask(model, inputs, GradientSpec(stack=stack, quantity="logprob", tokens_a_pass=tokens)) for tokens in (1, 100_000)
    )  # one copy a run; all copies in one run
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, len(wide), (17,), generator=draw)
    edited = torch.randn(17, *wide.x.shape[1:], generator=draw, dtype=wide.x.dtype)
    assert torch.allclose(wide.values(rows, edited), narrow.values(rows, edited), atol=1e-12)
    assert torch.allclose(wide.gradients(rows, edited), narrow.gradients(rows, edited), atol=1e-12)
    alone = [narrow.values(rows[k : k + 1], edited[k : k + 1]) for k in range(17)]
    assert torch.allclose(wide.values(rows, edited), torch.cat(alone), atol=1e-12)


def test_equal_versions_run_once_and_untouched_ones_not_at_all() -> None:
    class Counting(StandIn):
        rows = 0

        def run(self, batch: Any, **rest: Any) -> Any:
            Counting.rows += len(batch)
            return super().run(batch, **rest)

    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]])
    asked = ask(Counting(), Inputs(ids, lengths=torch.tensor([4, 3]), targets=torch.tensor([1, 2])), GradientSpec())
    Counting.rows = 0
    kept = torch.tensor([[1, 0, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 0]]).bool()
    asked.kept_values(torch.tensor([0, 0, 0, 1, 1, 1]), kept, torch.zeros_like(asked.x))
    assert Counting.rows == 2  # what is past the end of an item makes no other version of it


def test_what_is_removed_is_replaced_as_named() -> None:
    model, inputs, spec = question("bert", "")
    asked = ask(model, inputs, spec)
    zero, mean, token = (
        found for found, _ in (replacement_of(asked, "zero"), replacement_of(asked, "mean"), replacement_of(asked, "token", 3))
    )
    assert (zero == 0).all()
    assert torch.allclose(mean[0, 0], asked.x[asked.features].mean(0))
    assert torch.equal(mean[0, 0], mean[1, 2])
    assert torch.allclose(token[0, 0], model.weight("W_E")[3])
    with pytest.raises(BadValue, match="left out for the filler 'zero'"):
        replacement_of(asked, "zero", 3)
    with pytest.raises(BadValue, match="filler_id"):
        replacement_of(asked, "token", -1)
    with pytest.raises(BadValue, match="offers no mask or padding id"):
        replacement_of(ask(StandIn(), Inputs(torch.ones(1, 3).long(), targets=torch.tensor([1])), GradientSpec()), "token")
    vit = ask(*question("vit", ""))
    with pytest.raises(BadValue, match="'zero' or 'mean' where positions are not"):
        replacement_of(vit, "token", 3)


# --- what versions share ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["plain", "grouped", "one_kv", "post", "attention_only_bare"])
@pytest.mark.parametrize("position", [None, 2])
def test_shared_beginnings_change_no_number(config: str, position: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "ENOUGH", 8)
    model, draw = build(config, dtype=torch.float64), torch.Generator().manual_seed(1)
    ids, lengths = torch.randint(0, 17, (4, 10), generator=draw), torch.tensor([10, 3, 9, 6])
    asked = ask(model, Inputs(ids, lengths=lengths, targets=torch.arange(4)), GradientSpec(position=position, tokens_a_pass=150))
    rows, kept = torch.randint(0, 4, (90,), generator=draw), torch.rand(90, 10, generator=draw) > 0.3
    start = torch.randn(asked.x.shape, generator=draw, dtype=torch.float64)
    found = prefixes.prefix_values(asked, rows, kept, start)
    plain = asked.values(rows, torch.where(kept[..., None], asked.x[rows], start[rows]))
    assert torch.allclose(found, plain, atol=1e-11)
    assert torch.allclose(asked.kept_values(rows, kept, start), plain, atol=1e-11)


def test_stages_cover_every_position_once() -> None:
    for count, shortest, longest in [(1, 1, 1), (1, 5, 9), (400, 3, 3), (4000, 64, 64), (4000, 1, 64)]:
        edges = prefixes.cuts(count, shortest, longest)
        assert edges[0] == 0
        assert edges[-1] == longest
        assert all(a < b for a, b in itertools.pairwise(edges))
        assert edges[-2] < shortest  # so that every version is read in the last stage
    assert len(prefixes.cuts(4000, 64, 64)) == prefixes.STAGES + 1


class Counted:
    """A model that counts the tokens it is run on."""

    def __init__(self, model: Any) -> None:
        self.model, self.tokens = model, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def run(self, batch: Any, **rest: Any) -> Any:
        self.tokens += batch.numel()
        return self.model.run(batch, **rest)


def test_fewer_tokens_are_run_than_one_run_a_version_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "ENOUGH", 8)
    counted: Any = Counted(build(dtype=torch.float64))
    asked = ask(counted, Inputs(torch.arange(12)[None], targets=torch.tensor([3])), GradientSpec())
    counted.tokens = 0
    found = asked.kept_values(torch.zeros(12).long(), ~torch.eye(12, dtype=torch.bool), torch.zeros_like(asked.x))
    assert torch.isfinite(found).all()
    assert counted.tokens < 0.65 * 12 * 12  # half, and what the stages are coarse by
    counted.tokens = 0
    early = ask(counted, Inputs(torch.arange(12)[None], targets=torch.tensor([3])), GradientSpec(position=2))
    counted.tokens = 0
    early.kept_values(torch.zeros(12).long(), ~torch.eye(12, dtype=torch.bool), torch.zeros_like(asked.x))
    assert counted.tokens <= 1 + 3 * 3  # nothing behind the position that is read
