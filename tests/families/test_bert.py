"""The bert family: numbers against a slow twin, sites, edits, padding, parts of runs, text, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.reference import bert as slow
from workbench.blocks.listen import Listener
from workbench.core.batch import IGNORE, EncoderBatch, TokenBatch
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Add, Apply, FromTrace, HookedModel, Resume, Trace
from workbench.core.sites import Site
from workbench.core.tolerance import agree
from workbench.families import FAMILIES
from workbench.families.bert import BERT, BERTConfig

SMALL: dict[str, Any] = {"n_layers": 2, "d_model": 12, "n_heads": 3, "d_mlp": 20, "d_vocab": 17, "n_ctx": 12, "n_types": 3}
HEADS: dict[str, dict[str, Any]] = {
    "masked": {},
    "sequence": {"head": "sequence", "classes": ("no", "yes"), "act": "relu"},
    "token": {"head": "token", "classes": ("a", "b", "c"), "act": "gelu_tanh"},
    "span": {"head": "span"},
    "regression": {"head": "regression", "classes": ("warmth", "length")},
    "pooler": {"head": "pooler", "act": "quick_gelu"},
    "none": {"head": "none"},
}
SCORED = ("masked", "sequence", "token", "span", "regression")
CHOOSING = ("masked", "sequence", "token")


def build(head: str = "masked", *, dtype: torch.dtype = torch.float64, tokenizer: Any = None) -> BERT:
    """A model with weights large enough that every part of it matters."""
    model = BERT(BERTConfig.parse({**SMALL, **HEADS[head]}), tokenizer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.to(dtype).eval()


def batch(rows: int = 3, length: int = 7) -> EncoderBatch:
    """Rows of which all but the first are padded on the right."""
    generator = torch.Generator().manual_seed(1)
    ids, types = (torch.randint(0, top, (rows, length), generator=generator) for top in (17, 3))
    lengths = torch.tensor([[length], [length - 3], [1]])[:rows]
    return EncoderBatch(ids, mask=torch.arange(length) < lengths, types=types)


def mask_of(given: EncoderBatch) -> Tensor:
    assert given.mask is not None
    return given.mask


def types_of(given: EncoderBatch) -> Tensor:
    assert given.types is not None
    return given.types


def end(model: BERT) -> str:
    """The last site, where a model without logits shows its result."""
    return list(model.sites())[-1]


def result(model: BERT, given: Any, **asked: Any) -> Tensor:
    """The logits, or what stands at the last site where there are none."""
    if "logits" in model.abilities:
        out = model.run(given, **asked).logits
        assert out is not None
        return out
    return model.run(given, **{**asked, "capture": [end(model)]})[end(model)]


def logits(trace: Trace) -> Tensor:
    assert trace.logits is not None
    return trace.logits


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("head", SCORED)
def test_it_equals_its_slow_twin(head: str, dtype: torch.dtype) -> None:
    model, given = build(head, dtype=dtype), batch()
    out = logits(model.run(given))
    for row, (ids, types, mask) in enumerate(zip(given.tokens, types_of(given), mask_of(given), strict=True)):
        wide = slow.logits(build(head), ids, types, mask)
        real = mask if head not in ("sequence", "regression") else ...
        assert agree(out[row][real], wide.to(dtype)[real], "logits")
    wrong = slow.logits(build(head), given.tokens[0], types_of(given)[0].roll(1), mask_of(given)[0])
    assert not agree(out[0], wrong.to(dtype), "logits")  # the comparison sees a type that is another


@pytest.mark.parametrize("head", HEADS)
def test_the_visible_path_equals_the_fused_one(head: str) -> None:
    model, given = build(head), batch()
    seen = model.run(given, capture="*")
    assert agree(seen[end(model)] if seen.logits is None else seen.logits, result(model, given), "logits")


@pytest.mark.parametrize("head", HEADS)
def test_padding_changes_nothing_for_real_tokens(head: str) -> None:
    model, given = build(head), batch()
    mask, by_pos = mask_of(given), head in ("masked", "token", "span", "none")
    out = result(model, given)
    other = replace(given, tokens=torch.where(mask, given.tokens, (given.tokens + 5) % 17))
    again = result(model, other)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = result(model, EncoderBatch(given.tokens[row : row + 1, :length], types=types_of(given)[row : row + 1, :length]))
        assert agree(out[row : row + 1, :length] if by_pos else out[row : row + 1], alone, "logits")
        assert agree(again[row, :length] if by_pos else again[row], out[row, :length] if by_pos else out[row], "logits")
    unmasked = result(model, replace(given, mask=None))
    assert not agree(unmasked[1], out[1], "logits")  # without the mask the padding would be read


def test_nothing_padded_is_the_same_run_with_and_without_a_mask() -> None:
    model, ids = build(), batch(1).tokens
    whole = EncoderBatch(ids, mask=torch.ones_like(ids).bool(), types=torch.zeros_like(ids))
    assert torch.equal(logits(model.run(ids)), logits(model.run(whole)))
    assert torch.equal(logits(model.run(ids.int())), logits(model.run(whole)))


@pytest.mark.parametrize("head", CHOOSING)
def test_the_loss_is_the_sum_over_what_is_predicted(head: str) -> None:
    model, given = build(head), batch()
    out = logits(model.run(given))
    targets = out.argmax(-1).roll(1, 0)
    if head != "sequence":
        targets[:, ::2] = IGNORE
    total, count = model.loss(replace(given, targets=targets))
    flat, wanted = out.reshape(-1, out.shape[-1]).log_softmax(-1), targets.flatten()
    by_hand = [-flat[i, wanted[i]] for i in range(len(wanted)) if wanted[i] != IGNORE]
    assert count == len(by_hand)
    assert agree(total.detach(), torch.stack(by_hand).sum(), "loglik")
    nothing = model.loss(replace(given, targets=torch.full_like(targets, IGNORE)))
    assert (float(nothing[0].detach()), nothing[1]) == (0.0, 0)


@pytest.mark.parametrize("head", SCORED)
def test_every_weight_learns(head: str) -> None:
    model, given = build(head), batch()
    targets = logits(model.run(given)).argmin(-1)
    if head == "span":
        targets = torch.tensor([[2, 5], [0, 1], [0, 0]])
    if head == "regression":
        targets = torch.ones(3, 2, dtype=torch.float64)
    model.loss(replace(given, targets=targets))[0].backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert still == []


def test_the_loss_of_a_span_is_by_hand_that_of_its_ends_among_real_positions() -> None:
    model, given = build("span"), batch()
    targets = torch.tensor([[2, 5], [1, 1], [IGNORE, IGNORE]])
    out, total = logits(model.run(given)), torch.zeros((), dtype=torch.float64)
    for row, length in ((0, 7), (1, 4)):  # the second row is padded after its fourth token
        for end in (0, 1):
            total -= out[row, :length, end].log_softmax(0)[targets[row, end]] / 2
    found, count = model.loss(replace(given, targets=targets))
    assert count == 2
    assert agree(found.detach(), total, "loglik")
    alone = [model.loss(replace(given, targets=targets).rows([row]))[0] for row in range(3)]
    assert agree(found.detach(), torch.stack(alone).sum().detach(), "loglik")
    nothing = model.loss(replace(given, targets=torch.full((3, 2), IGNORE)))
    assert (float(nothing[0].detach()), nothing[1]) == (0.0, 0)


def test_the_loss_of_numbers_is_their_squared_error() -> None:
    model, given = build("regression"), batch()
    targets = torch.randn(3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found, count = model.loss(replace(given, targets=targets))
    by_hand = sum((logits(model.run(given))[row, name] - targets[row, name]) ** 2 for row in range(3) for name in range(2))
    assert isinstance(by_hand, Tensor)
    assert count == 6
    assert agree(found.detach(), by_hand, "loglik")
    one = BERT(BERTConfig.parse({**SMALL, "head": "regression", "classes": ("warmth",)}))
    assert one.loss(replace(given, targets=torch.ones(3, 1)))[1] == 3  # a single number has a loss, as a single class has not


def test_dropout_is_in_training_alone() -> None:
    config = BERTConfig.parse({**SMALL, **HEADS["sequence"], "dropout": 0.5})
    model, given = BERT(config), replace(batch(), targets=torch.tensor([0, 1, 1]))
    calm = model.eval().loss(given)[0]
    assert torch.equal(model.loss(given)[0], calm)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model.loss(given)[0], calm)
    assert torch.equal(logits(model.run(given)), logits(model.eval().run(given)))


# --- sites --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_every_site_has_its_declared_axes_in_the_order_of_a_run(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    plain = Listener.hear

    def noting(self: Listener, site: str, tensor: Tensor) -> Tensor:
        order.append(self._prefix + site)
        return plain(self, site, tensor)

    monkeypatch.setattr(Listener, "hear", noting)
    model = build(head)
    trace = model.run(batch(), capture="*")
    assert order == list(trace.at) == list(model.sites())
    length = {
        "batch": 3, "pos": 7, "query": 7, "key": 7, "head": 3, "kv_head": 3, "d_model": 12, "d_head": 4, "d_mlp": 20, "d_vocab": 17,
        "one": 1, "class": len(model.config.classes) or 2,
    }  # fmt: skip
    for site in model.sites().values():
        assert tuple(trace[site].shape) == tuple(length[word] for word in site.axes), site.name


@pytest.mark.parametrize("head", HEADS)
def test_the_equations(head: str) -> None:
    model = build(head)
    assert model.sites().additive is False
    trace, w = model.run(batch(), capture="*"), model.weight
    embedded = trace["hook_embed"] + trace["hook_pos_embed"] + trace["hook_token_type_embed"]

    def norm(name: str) -> Tensor:
        return trace[f"{name}.hook_normalized"] * w(f"{name}.w") + w(f"{name}.b")

    centred = embedded - embedded.mean(-1, keepdim=True)
    assert agree(trace["ln_embed.hook_normalized"] * trace["ln_embed.hook_scale"], centred, "activation")
    assert agree(trace["blocks.0.hook_resid_pre"], norm("ln_embed"), "activation")
    for i in range(2):
        at = f"blocks.{i}."
        assert agree(trace[at + "hook_resid_mid"], norm(at + "ln1"), "activation")
        assert agree(trace[at + "hook_resid_post"], norm(at + "ln2"), "activation")
        summed = trace[at + "hook_resid_pre"] + trace[at + "hook_attn_out"]
        scaled = trace[at + "ln1.hook_normalized"] * trace[at + "ln1.hook_scale"]
        assert agree(scaled, summed - summed.mean(-1, keepdim=True), "activation")
    stream = trace["blocks.1.hook_resid_post"]
    if head == "masked":
        assert agree(trace["head.hook_pre"], stream @ w("head.W") + w("head.b"), "activation")
        assert agree(trace["unembed.hook_in"], norm("head.ln"), "activation")
    if head in ("sequence", "pooler"):
        assert agree(trace["pooler.hook_pre"], stream[:, 0] @ w("pooler.W") + w("pooler.b"), "activation")
        assert agree(trace["pooler.hook_post"], trace["pooler.hook_pre"].tanh(), "activation")
    if head in ("token", "pooler", "none"):
        assert torch.equal(trace["unembed.hook_in"], stream)
    if head in SCORED:
        assert agree(trace["unembed.hook_logits"], trace["unembed.hook_in"] @ w("W_U") + w("b_U"), "logits")
        assert torch.equal(trace["unembed.hook_logits"], logits(trace))


@pytest.mark.parametrize("head", HEADS)
def test_an_edit_at_every_site_acts_and_patching_with_itself_does_not(head: str) -> None:
    model, given = build(head), batch(2)

    def noise(old: Tensor, site: Site) -> Tensor:
        return old + 0.1 * torch.randn(old.shape, dtype=old.dtype, generator=torch.Generator().manual_seed(0))

    for site in model.sites():
        trace = model.run(given, capture=[site, end(model)])
        clean = trace[end(model)] if trace.logits is None else trace.logits
        same = model.run(given, capture=end(model), edit=[FromTrace(site, trace=trace)])
        assert torch.equal(same[end(model)] if same.logits is None else same.logits, clean), site
        moved = model.run(given, capture=end(model), edit=[Apply(site, fn=noise)])
        away = moved[end(model)] if moved.logits is None else moved.logits
        assert not torch.equal(away, clean), site


@pytest.mark.parametrize("head", SCORED)
def test_gradients_reach_every_site_as_if_it_stood_in_the_run(head: str) -> None:
    model, given = build(head), batch(1)
    generator = torch.Generator().manual_seed(3)
    trace = model.run(given, capture="*", grad=True)
    weights = torch.randn(logits(trace).shape, dtype=torch.float64, generator=generator)
    grads = torch.autograd.grad((logits(trace) * weights).sum(), [trace[site] for site in trace.at])
    for site, grad in zip(trace.at, grads, strict=True):
        move = torch.randn(trace[site].shape, dtype=torch.float64, generator=generator) * 1e-6
        up, down = ((logits(model.run(given, edit=[Add(site, value=sign * move)])) * weights).sum() for sign in (1, -1))
        assert float(up - down) / 2 == pytest.approx(float((grad * move).sum()), rel=2e-4, abs=1e-9), site


@pytest.mark.parametrize("head", HEADS)
def test_starting_and_stopping_anywhere_equals_the_whole(head: str) -> None:
    model, given = build(head), batch()
    whole, names = model.run(given, capture="*"), list(model.sites())
    for site in (name for name in names if "hook_resid_" in name):
        place = names.index(site)
        later = model.run(given, capture=names[place:], resume=Resume(start=site, residual=whole[site]))
        assert [s for s in names[place:] if not agree(later[s], whole[s], "activation")] == []
        assert (later.logits is None) == (head not in SCORED)
        before = model.run(given, capture=names[: place + 1], resume=Resume(stop=site))
        assert [s for s in names[: place + 1] if not agree(before[s], whole[s], "activation")] == []
        assert before.logits is None
    site = "blocks.1.hook_resid_pre"
    bare = model.run(None, capture=end(model), resume=Resume(start=site, residual=whole[site][:1]))  # nothing says what is padding
    assert agree(bare[end(model)], whole[end(model)][:1], "activation")


def test_a_given_mask_is_joined_with_the_padding_and_positions_move() -> None:
    model, given = build(), batch()
    everything = torch.ones(1, 7, 7).bool()
    clean = logits(model.run(given))
    assert agree(logits(model.run(given, resume=Resume(mask=everything))), clean, "logits")
    padded = mask_of(given).unsqueeze(1).expand(-1, 7, -1)
    assert agree(logits(model.run(replace(given, mask=None), resume=Resume(mask=padded))), clean, "logits")
    moved = torch.arange(7).flip(0).unsqueeze(0)
    turned = replace(given, mask=None, tokens=given.tokens.flip(1), types=types_of(given).flip(1))
    straight = logits(model.run(replace(given, mask=None)))
    assert agree(logits(model.run(turned, resume=Resume(positions=moved))).flip(1), straight, "logits")


# --- which logits, text, bad input --------------------------------------------------------------------------


def test_which_logits() -> None:
    model, given = build(), batch()
    whole = logits(model.run(given))
    last = torch.stack([whole[0, 6], whole[1, 3], whole[2, 0]]).unsqueeze(1)  # each row's last real token
    wanted: list[tuple[Any, Tensor]] = [
        ("last", last),
        ([2, 0], whole[:, [2, 0]]),
        (torch.tensor([[1], [0], [-1]]), whole[[0, 1, 2], [1, 0, 6]][:, None]),
    ]
    for asked, expected in wanted:
        for capture in ((), "head.hook_pre", "unembed.hook_logits"):
            trace = model.run(given, logits=asked, capture=capture)
            assert agree(logits(trace), expected, "logits")
            assert all(value.shape[1] == 7 for value in trace.at.values())
    assert model.run(given, logits=None).logits is None
    assert model.run(given, logits=None, capture="unembed.hook_logits")["unembed.hook_logits"].shape == (3, 7, 17)
    rows = build("sequence")
    assert logits(rows.run(given, logits="last")).shape == (3, 2)
    assert rows.run(given, logits=None).logits is None
    for head in ("sequence", "pooler", "none"):
        with pytest.raises(BadValue, match=f"the head {head} has no logits of positions"):
            build(head).run(given, logits=[0])
    for nowhere in ([], [7]):
        with pytest.raises(BadValue, match="at least one|a position of logits is 7"):
            model.run(given, logits=nowhere)


class Letters:
    """A tokenizer of lower-case letters; 'q' pads."""

    vocab_size, bos_id, eos_id, pad_id = 17, None, None, 16

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        return [ord(c) - ord("a") for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i + ord("a")) for i in ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return list(self.decode(ids))

    def digest(self) -> str:
        return "letters"


class Framed(Letters):
    """Letters between 'o' and 'p', a pair with 'p' between."""

    def framed(self, ids: Sequence[int], second: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
        first = [14, *ids, 15]
        more = [*second, 15] if second is not None else []
        return first + more, [0] * len(first) + [1] * len(more)


def test_text() -> None:
    plain, framed = build(tokenizer=Letters()), build(tokenizer=Framed())
    mask = torch.tensor([[True] * 3, [True, False, False]])
    ids = torch.tensor([[1, 0, 3], [4, 16, 16]])
    assert torch.equal(logits(plain.run(["bad", "e"])), logits(plain.run(EncoderBatch(ids, mask=mask))))
    one = EncoderBatch(torch.tensor([[14, 1, 0, 3, 15]]))
    assert torch.equal(logits(framed.run("bad")), logits(framed.run(one)))
    both = EncoderBatch(torch.tensor([[14, 1, 0, 3, 15, 4, 15]]), types=torch.tensor([[0] * 5 + [1, 1]]))
    assert torch.equal(logits(framed.run([("bad", "e")])), logits(framed.run(both)))
    mixed = logits(framed.run([("bad", "e"), "bad"], logits="last"))
    assert agree(mixed[1], logits(framed.run("bad", logits="last"))[0], "logits")  # at its own last token, beside a longer row
    assert logits(framed.run("")).shape == (1, 2, 17)
    with pytest.raises(BadValue, match="does not say how two are joined"):
        plain.run([("bad", "e")])
    with pytest.raises(BadValue, match="a text is ''"):
        plain.run(["bad", ""])
    with pytest.raises(BadValue, match=r"number of tokens is 13, but it must be at most 12.*Nothing is cut short"):
        framed.run("a" * 11)


IDS = torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.full((1, 3), 17), "a token id is 17, but it must be within 0 to 16"),
        (torch.full((1, 3), -1), "a token id is -1"),
        (torch.zeros(1, 13, dtype=torch.long), "number of tokens is 13, but it must be at most 12"),
        (torch.zeros(0, 4, dtype=torch.long), "at least one token"),
        (torch.zeros(4, dtype=torch.long), r"\[batch, pos\]"),
        (torch.zeros(1, 4), "an integer dtype"),
        (None, "the batch is None"),
        ("text", "this model has no tokenizer"),
        ([], "an EncoderBatch, a text"),
        ([("a", "b", "c")], "a list of pairs"),
        (TokenBatch(IDS, IDS), "the batch is 'TokenBatch'"),
        (EncoderBatch(IDS, types=torch.full((2, 3), 3)), "a sentence type is 3, but it must be within 0 to 2"),
        (EncoderBatch(IDS, types=-torch.ones_like(IDS)), "a sentence type is -1"),
        (EncoderBatch(IDS, types=IDS[:, :2]), r"the batch's types is '\(2, 2\)"),
        (EncoderBatch(IDS, types=torch.zeros(2, 3)), "torch.float32"),
        (EncoderBatch(IDS, mask=torch.tensor([[True, True, True], [False, False, False]])), "mask of row 1 is 'all padding'"),
        (EncoderBatch(IDS, mask=torch.ones_like(IDS)), "torch.int64'.* bool"),
        (EncoderBatch(IDS, mask=torch.ones(2, 2).bool()), "the batch's mask"),
    ],
)
def test_batches_that_cannot_be(given: Any, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        build().run(given)


def test_a_pooler_needs_the_first_token_to_be_real() -> None:
    left = EncoderBatch(IDS, mask=torch.tensor([[True, True, True], [False, True, True]]))
    for head in ("sequence", "pooler"):
        with pytest.raises(BadValue, match="padding at a row's first token"):
            build(head).run(left)
    assert logits(build().run(left)).isfinite().all()


def test_losses_that_cannot_be() -> None:
    given = batch()
    for head, targets in (("masked", None), ("masked", torch.zeros(3)), ("sequence", given.tokens), ("token", given.tokens[:, :2])):
        with pytest.raises(BadValue, match=f"the batch's targets.*for the head {head}"):
            build(head).loss(replace(given, targets=targets))
    for head, targets in (("regression", torch.ones(3, 2).long()), ("regression", torch.ones(3)), ("span", torch.ones(3, 2))):
        with pytest.raises(BadValue, match=f"the batch's targets.*for the head {head}"):
            build(head).loss(replace(given, targets=targets))
    for ends in ([5, 2], [2, 7], [IGNORE, 3], [-1, 2]):
        with pytest.raises(BadValue, match="a begin and an end not before it within 0 to 6, or -100 twice"):
            build("span").loss(replace(given, targets=torch.tensor([ends, [0, 0], [0, 0]])))
    with pytest.raises(BadValue, match="a target"):
        build("token").loss(replace(given, targets=torch.full((3, 7), 3)))
    for head in ("pooler", "none"):
        with pytest.raises(Incompatible, match=f"its head is {head}"):
            build(head).loss(given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_heads": 5}, r"n_heads must divide d_model \(12\)"),
        ({"head": "token"}, "classes are named exactly for the heads"),
        ({"classes": ("a", "b")}, "classes are named exactly for the heads"),
        ({"act": "swiglu"}, "act"),
        ({"d_model": "wide"}, "d_model"),
    ],
)
def test_configs_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadValue, match=words):
        BERTConfig.parse({**SMALL, **changes})


def test_parts_that_make_no_sense() -> None:
    model, given = build(), batch()
    for resume, words in (
        (Resume(past=1), "resume.past"),
        (Resume(start="blocks.0.hook_resid_mid"), "start without residual"),
        (Resume(start="blocks.0.hook_resid_mid", residual=torch.zeros(3, 7, 5).double()), "resume.residual"),
        (Resume(mask=torch.ones(1, 7, 6).bool()), "resume.mask"),
        (Resume(positions=torch.full((1, 7), 12)), "a position is 12"),
    ):
        with pytest.raises(BadValue, match=words):
            model.run(given, resume=resume)
    with pytest.raises(BadValue, match="it reads everything at once"):
        model.run(given, cache=True)


def test_the_family() -> None:
    model, given = BERT.tiny()
    assert isinstance(model, HookedModel)
    assert FAMILIES.load("bert") is BERT
    assert model.loss(given)[1] > 0
    again, _ = BERT.tiny()
    assert again.digest() == model.digest()
    assert BERT.tiny(1)[0].digest() != model.digest()
    assert "logits" not in build("none").abilities
    assert "logits" in build("token").abilities
    assert torch.equal(model.weight("W_U"), model.weight("W_E").T)
    assert set(build("pooler").named_weights()) >= {"pooler.W", "pooler.b", "ln_embed.w", "W_token_type", "blocks.1.ln2.b"}
