"""The encoder-decoder: its numbers against a slow twin, padding and order, pasts, parts of a run, and what is refused.

What holds for every family (sites, edits, rows, files) is in ``test_every_family``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.reference.seq2seq import PlainPair
from workbench.blocks import decoder
from workbench.core.batch import IGNORE, SequenceBatch
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.core.protocol import Resume, Trace, Zero
from workbench.core.tolerance import agree, gap
from workbench.families.seq2seq import Seq2Seq, Seq2SeqConfig

SMALL: dict[str, Any] = {"n_layers_encoder": 1, "n_layers_decoder": 2, "d_model": 12, "n_heads": 2, "d_mlp": 10, "d_vocab": 13, "n_ctx": 9}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "published": {
        "norm_placement": "post", "embed_norm": True, "positions": "learned", "reserved": 2, "scale_embed": True, "logits_bias": True,
    },
    "untied": {"tied": False, "act": "swiglu", "positions": "learned", "logits_bias": True},
    "post": {"norm_placement": "post", "act": "relu", "rope_base": 50.0, "n_layers_encoder": 2, "n_layers_decoder": 1},
}  # fmt: skip


def build(name_or_fields: str | dict[str, Any] = "plain", *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Seq2Seq:
    """A model with weights of spread about 0.3: attention is far from uniform, norms from 1, biases from 0."""
    fields = CONFIGS[name_or_fields] if isinstance(name_or_fields, str) else name_or_fields
    model = Seq2Seq(Seq2SeqConfig.parse({**SMALL, **fields}), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model.to(dtype).eval()


def given(rows: int = 3, source: int = 6, length: int = 5, *, padded: bool = True) -> SequenceBatch:
    ids = torch.randint(0, SMALL["d_vocab"], (rows, source + length), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(source) < source - 2 * torch.arange(rows).unsqueeze(1)
    return SequenceBatch(ids[:, :source], ids[:, source:], ids[:, source:].roll(-1, 1), mask if padded else None)


def logits(trace: Trace) -> torch.Tensor:
    assert trace.logits is not None
    return trace.logits


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_site_equals_the_slow_twin(name: str, dtype: torch.dtype) -> None:
    model, batch = build(name, dtype=dtype), given()
    trace = model.run(batch, capture="*")
    with torch.no_grad():
        expected = PlainPair(model).of(batch.source, batch.tokens, batch.mask)
    assert list(trace.at) == list(model.sites())
    assert trace.at.keys() == expected.keys()
    odd = {site for site in expected if not agree(trace[site], expected[site].to(dtype), "activation")}
    assert odd == set()
    assert agree(logits(model.run(batch)), expected["unembed.hook_logits"], "logits")  # the fused kernel


def test_the_twin_notices_a_wrong_model() -> None:
    model, batch = build(), given()
    expected = PlainPair(model).of(batch.source, batch.tokens, None)["unembed.hook_logits"]
    assert not agree(logits(model.run(batch)), expected, "logits")  # padding that is read
    right = logits(model.run(batch))
    with torch.no_grad():
        model.decoder.stack.blocks[1].get_parameter("cross_attn.k.weight").mul_(1.001)
    assert not agree(logits(model.run(batch)), right, "logits")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_padding_of_the_source_changes_nothing(name: str) -> None:
    model, batch = build(name), given()
    expected = logits(model.run(batch))
    assert batch.mask is not None
    other = torch.where(batch.mask, batch.source, (batch.source + 3) % SMALL["d_vocab"])
    assert torch.equal(logits(model.run(replace(batch, source=other))), expected)
    for row in range(3):  # a row without its padding
        length = int(batch.mask[row].sum())
        alone = SequenceBatch(batch.source[row : row + 1, :length], batch.tokens[row : row + 1])
        assert agree(logits(model.run(alone)), expected[row : row + 1], "logits")
    assert gap(logits(model.run(replace(batch, mask=None))), expected) > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_a_later_token_changes_no_earlier_logits_and_a_source_token_all(name: str) -> None:
    model, batch = build(name), given(padded=False)
    expected = logits(model.run(batch))
    for place in range(5):
        tokens = batch.tokens.clone()
        tokens[:, place] = (tokens[:, place] + 1) % SMALL["d_vocab"]
        found = logits(model.run(replace(batch, tokens=tokens)))
        assert torch.equal(found[:, :place], expected[:, :place])
        assert (found[:, place:] - expected[:, place:]).abs().amax((0, 2)).min() > 1e-6
    source = batch.source.clone()
    source[:, -1] = (source[:, -1] + 1) % SMALL["d_vocab"]
    assert (logits(model.run(replace(batch, source=source))) - expected).abs().amax(-1).min() > 1e-6


def test_which_logits() -> None:
    model, batch = build("published"), given()
    whole = logits(model.run(batch))
    assert agree(logits(model.run(batch, logits="last")), whole[:, -1:], "logits")
    assert agree(logits(model.run(batch, logits=[0, -2])), whole[:, [0, 3]], "logits")
    by_row = torch.tensor([[1], [0], [4]])
    assert agree(logits(model.run(batch, logits=by_row, capture="unembed.hook_in")), whole[torch.arange(3)[:, None], by_row], "logits")
    assert model.run(batch, logits=None).logits is None


def test_the_loss_is_the_mean_of_what_is_predicted() -> None:
    model, batch = build("published"), given()
    assert batch.targets is not None
    targets = torch.where(torch.arange(5) < torch.tensor([[5], [2], [0]]), batch.targets, IGNORE)
    total, count = model.loss(replace(batch, targets=targets))
    logprobs = logits(model.run(batch)).log_softmax(-1)
    expected = -sum(logprobs[b, p, targets[b, p]] for b in range(3) for p in range(5) if targets[b, p] != IGNORE)
    assert count == 7
    assert float(total.detach()) == pytest.approx(float(expected), rel=1e-12)
    for wrong in (None, targets[:, :4]):
        with pytest.raises(BadValue, match="the batch's targets"):
            model.loss(replace(batch, targets=wrong))


# --- a past -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_past_and_rest_equal_the_whole_without_the_encoder(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build(name, dtype=dtype), given()
    whole = model.run(batch, capture="decoder.blocks.*")
    for cut in (1, 3):
        past = model.run(replace(batch, tokens=batch.tokens[:, :cut]), cache=True, logits=None).past
        assert (past.length, past.batch, len(past.memory)) == (cut, 3, model.config.n_layers_decoder)
        with monkeypatch.context() as patch:
            patch.setattr(type(model.encoder), "forward", lambda *a, **k: pytest.fail("the encoder was run again"))
            rest = SequenceBatch(batch.source, batch.tokens[:, cut:])
            heard = [site for site in whole.at if "cross_attn.hook_k" not in site and "cross_attn.hook_v" not in site]
            trace = model.run(rest, resume=Resume(past=past), cache=True, capture=heard)
        assert agree(logits(trace), logits(whole)[:, cut:], "logits")
        assert trace.past.length == 5
        for site in (f"decoder.blocks.0.{part}.hook_pattern" for part in ("attn", "cross_attn")):
            assert agree(trace[site], whole[site][:, :, cut:], "activation")
        again = trace.past.rows([2, 0]).first(cut)  # immutable values: rows and lengths can be taken
        found = logits(model.run(SequenceBatch(batch.source[[2, 0]], rest.tokens[[2, 0]]), resume=Resume(past=again)))
        assert agree(found, logits(whole)[[2, 0], cut:], "logits")


def test_one_past_or_one_source_serves_many_rows() -> None:
    model, batch = build(), given(4, padded=False)
    source = batch.source[:1]
    mask = torch.tensor([[True] * 4 + [False] * 2])
    lead = SequenceBatch(source, batch.tokens[:1, :2], mask=mask)
    past = model.run(lead, cache=True).past
    shared = model.run(SequenceBatch(source, batch.tokens[:, 2:]), resume=Resume(past=past))
    tokens = torch.cat([batch.tokens[:1, :2].expand(4, -1), batch.tokens[:, 2:]], 1)
    expected = logits(model.run(SequenceBatch(source.expand(4, -1), tokens, mask=mask.expand(4, -1))))
    assert agree(logits(shared), expected[:, 2:], "logits")
    assert agree(logits(model.run(SequenceBatch(source, tokens, mask=mask))), expected, "logits")


def test_an_edited_past_is_stored_edited_with_its_memory() -> None:
    model, batch = build(), given()
    for edit in (Zero("encoder.blocks.0.hook_mlp_out"), Zero("decoder.blocks.1.cross_attn.hook_v", at={"key": 0})):
        past = model.run(replace(batch, tokens=batch.tokens[:, :3]), cache=True, edit=[edit]).past
        rest = logits(model.run(SequenceBatch(batch.source, batch.tokens[:, 3:]), resume=Resume(past=past)))
        assert agree(rest, logits(model.run(batch, edit=[edit]))[:, 3:], "logits")
        assert not agree(rest, logits(model.run(batch))[:, 3:], "logits")


def test_a_past_that_forgot_its_padding_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask of the source travels with the past; without it padding would be read, and the rest of a run would differ."""
    model, batch = build(), given()
    past = model.run(replace(batch, tokens=batch.tokens[:, :3]), cache=True).past
    rest = SequenceBatch(batch.source, batch.tokens[:, 3:])
    right = logits(model.run(rest, resume=Resume(past=past)))
    assert agree(logits(model.run(replace(rest, mask=batch.mask), resume=Resume(past=past))), right, "logits")
    assert not agree(logits(model.run(rest, resume=Resume(past=replace(past, seen=None)))), right, "logits")
    monkeypatch.setattr(decoder, "replace", lambda value, **changes: value)
    forgetful = model.run(replace(batch, tokens=batch.tokens[:, :3]), cache=True).past
    assert not agree(logits(model.run(rest, resume=Resume(past=forgetful))), right, "logits")


def test_pasts_that_make_no_sense_say_so() -> None:
    model, batch = build(), given()
    past = model.run(replace(batch, tokens=batch.tokens[:, :3]), cache=True).past
    x, at = torch.zeros(3, 6, 12, dtype=torch.float64), "encoder.blocks.0.hook_resid_pre"
    assert batch.mask is not None
    rest = replace(batch, mask=None)
    cases: list[tuple[SequenceBatch, Resume, str]] = [
        (rest, Resume(past=replace(past, memory=())), "the `past` of a Trace of this model, with its memory"),
        (rest, Resume(past=3), "resume.past is 'int'"),
        (rest, Resume(past=past.rows([0, 1])), "rows of resume.past is 2"),
        (rest, Resume(past=past, start=at, residual=x), "resume.start is .*within the decoder: the past stands for the encoder"),
        (rest, Resume(past=past, stop=at), "resume.stop is .*within the decoder"),
        (replace(batch, mask=~batch.mask), Resume(past=past), "left out, or the one the past was made with"),
        (replace(rest, tokens=torch.zeros(3, 7, dtype=torch.long)), Resume(past=past), "number of tokens is 10"),
    ]
    for wrong, resume, words in cases:
        with pytest.raises(BadValue, match=words):
            model.run(wrong, resume=resume)
    with pytest.raises(BadValue, match="lies before its start or after its stop"):
        model.run(rest, capture="encoder.hook_embed", resume=Resume(past=past.first(1)))
    with pytest.raises(BadValue, match="the past would lack layers"):
        model.run(batch, cache=True, resume=Resume(stop="decoder.blocks.0.hook_resid_mid"))


# --- parts of a run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["published", "plain"])
def test_starting_or_stopping_anywhere_equals_the_whole(name: str) -> None:
    model, batch = build(name), given()
    whole, names = model.run(batch, capture="*"), list(model.sites())
    for site in (site for site in names if "hook_resid_" in site):
        later, before = names[names.index(site) :], names[: names.index(site) + 1]
        part = model.run(batch, capture=later, resume=Resume(start=site, residual=whole[site]))
        assert agree(logits(part), logits(whole), "logits"), site
        assert {s for s in later if not agree(part[s], whole[s], "activation")} == set()
        with pytest.raises(BadValue, match="lies before its start or after its stop"):
            model.run(batch, capture="encoder.hook_embed", resume=Resume(start=site, residual=whole[site]))
        part = model.run(batch, capture=before, resume=Resume(stop=site))
        assert part.logits is None
        assert {s for s in before if not agree(part[s], whole[s], "activation")} == set()


def test_from_one_stack_into_the_other() -> None:
    model, batch = build(), given()
    first, last = "encoder.blocks.0.hook_resid_mid", "decoder.blocks.1.hook_resid_mid_cross"
    whole = model.run(batch, capture=[first, last])
    part = model.run(batch, capture=last, resume=Resume(start=first, residual=whole[first], stop=last))
    assert agree(part[last], whole[last], "activation")
    with pytest.raises(BadValue, match="at or after resume.start"):
        model.run(batch, resume=Resume(start=last, residual=whole[last], stop=first))


def test_the_source_alone_is_enough_for_the_encoder() -> None:
    model, batch = build(), given(padded=False)
    site = "encoder.blocks.0.hook_resid_post"
    expected = model.run(batch, capture=site)[site]
    assert torch.equal(model.run(batch.source, capture=site, resume=Resume(stop=site))[site], expected)
    start = "encoder.blocks.0.hook_resid_mid"
    middle = model.run(batch, capture=start)[start]
    found = model.run(None, capture=site, resume=Resume(start=start, residual=middle, stop=site))[site]
    assert agree(found, expected, "activation")
    for wrong in (batch.source, None, "text"):
        with pytest.raises(BadValue, match=r"the batch is .*a SequenceBatch"):
            model.run(wrong)


def test_inputs_that_make_no_sense_say_so() -> None:
    model, batch = build(), given()
    none = torch.zeros(3, 6, dtype=torch.bool)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"source": batch.source + 13}, "a token id"),
        ({"tokens": batch.tokens - 13}, "a token id"),
        ({"source": torch.zeros(3, 10, dtype=torch.long), "mask": None}, "number of tokens is 10, but it must be at most 9"),
        ({"tokens": torch.zeros(3, 10, dtype=torch.long)}, "number of tokens is 10, but it must be at most 9"),
        ({"tokens": batch.tokens[:2]}, "the rows of tokens is 2, but it must be 3, as the source has"),
        ({"mask": none[:, :4]}, "the batch's mask"),
        ({"mask": none}, "all padding"),
        ({"source": batch.source.double()}, "dtype of the token ids"),
    ]
    for changes, words in cases:
        with pytest.raises(BadValue, match=words):
            model.run(replace(batch, **changes))
    for name, resume in (("positions", Resume(positions=torch.zeros(1, 5).long())), ("mask", Resume(mask=torch.ones(1, 5, 5).bool()))):
        with pytest.raises(BadValue, match=rf"resume\.{name} is 'given'.*left out for a seq2seq model"):
            model.run(batch, resume=resume)
    with pytest.raises(UnknownName, match="no residual site"):
        model.run(batch, resume=Resume(stop="encoder.blocks.0.hook_resid_mid_cross"))


# --- weights, names, configs --------------------------------------------------------------------------------


def test_weights_have_the_fields_names_and_shapes() -> None:
    model = build("published")
    shapes = {
        "encoder.blocks.0.attn.W_Q": (2, 12, 6), "decoder.blocks.1.attn.W_O": (2, 6, 12), "decoder.blocks.0.cross_attn.W_K": (2, 12, 6),
        "decoder.blocks.0.cross_attn.b_V": (2, 6), "decoder.blocks.0.ln3.w": (12,), "encoder.blocks.0.mlp.W_in": (12, 10),
        "encoder.W_E": (13, 12), "decoder.W_E": (13, 12), "encoder.W_pos": (9, 12), "decoder.W_pos": (9, 12), "W_U": (12, 13),
        "b_U": (13,), "encoder.ln_embed.w": (12,), "decoder.ln_embed.b": (12,),
    }  # fmt: skip
    for name, shape in shapes.items():
        assert tuple(model.weight(name).shape) == shape, name
    assert torch.equal(model.weight("W_U"), model.weight("encoder.W_E").T)
    assert model.weight("b_U").abs().min() > 0
    untied = build("untied")
    assert not torch.equal(untied.weight("encoder.W_E"), untied.weight("decoder.W_E"))
    assert build().weight("b_U").abs().max() == 0
    assert tuple(build().weight("encoder.ln_final.w").shape) == (12,)
    with pytest.raises(UnknownName, match="no weight 'W_E'"):
        model.weight("W_E")


def test_places_are_named_and_padding_is_not() -> None:
    model, batch = build(), given()
    assert model.places(batch)[1] == ["0", "1", "2", "3", "", ""]
    assert model.places(batch, "decoder")[1] == list("01234")


def test_every_field_of_the_config_matters() -> None:
    """A field that changes nothing would be a promise not kept."""
    base: dict[str, Any] = {**SMALL, "positions": "rope", "tied": False}
    batch = given()
    other = {
        "n_layers_encoder": 2, "n_layers_decoder": 1, "d_model": 16, "n_heads": 3, "d_mlp": 9, "norm_placement": "post",
        "embed_norm": True, "act": "relu", "positions": "learned", "rope_base": 10.0, "scale_embed": True, "logits_bias": True,
        "tied": True, "norm_eps": 0.5, "init_std": 0.2,
    }  # fmt: skip
    assert set(other) | {"d_vocab", "n_ctx", "dropout", "reserved"} == set(Seq2SeqConfig.model_fields)
    expected = logits(build(base).run(batch))
    for name, value in other.items():
        assert not torch.allclose(logits(build({**base, name: value}).run(batch)), expected), name
    learned = {**base, "positions": "learned"}
    assert not torch.allclose(logits(build({**learned, "reserved": 2}).run(batch)), logits(build(learned).run(batch)))
    dropping = build({**base, "dropout": 0.5}).train()
    assert len({float(dropping.loss(batch)[0].detach()) for _ in range(3)}) == 3
    assert float(dropping.eval().loss(batch)[0].detach()) == float(build(base).loss(batch)[0].detach())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n_heads": 5}, r"n_heads must divide d_model \(12\), and it is 5"),
        ({"n_heads": 4}, "must be even for rotary positions, and it is 3"),
        ({"reserved": 2}, "reserved must be 0 without a table of positions"),
        ({"n_layers_decoder": 0}, "n_layers_decoder"),
        ({"norm_placement": "none"}, "norm_placement"),
    ],
)
def test_configs_that_cannot_be(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Seq2SeqConfig.parse({**SMALL, **fields})
