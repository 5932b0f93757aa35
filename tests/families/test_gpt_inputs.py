"""What a run accepts, which logits it gives, and what it refuses; the config; the digest."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.families.models import SMALL, build, logits, shape, tokens
from workbench.blocks.inputs import chosen, passage
from workbench.core.batch import IGNORE, TokenBatch
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.core.protocol import HookedModel, Resume
from workbench.core.tolerance import agree
from workbench.families import FAMILIES
from workbench.families.gpt import GPT, GPTConfig


class Letters:
    """A tokenizer of lower-case letters; 'q' pads."""

    vocab_size, bos_id, eos_id = 17, None, None

    def __init__(self, pad_id: int | None = 16) -> None:
        self.pad_id = pad_id

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        return [ord(c) - ord("a") for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i + ord("a")) for i in ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return list(self.decode(ids))

    def digest(self) -> str:
        return "letters"


def test_it_is_a_hooked_model_and_in_the_catalogue() -> None:
    model = build("plain")
    assert isinstance(model, HookedModel)
    assert FAMILIES.load("gpt") is GPT
    assert model.abilities == {"logits", "logprobs", "generate", "edit", "grad", "cache", "mask", "weights"}


def test_which_logits() -> None:
    model = build("plain")
    ids = tokens(model, 3, 7)
    whole = logits(model.run(ids))
    same = lambda asked, expected: agree(logits(model.run(ids, logits=asked)), expected, "logits")  # noqa: E731
    assert whole.shape == (3, 7, 17)
    assert model.run(ids, logits=None).logits is None
    assert same("last", whole[:, -1:])
    assert same([5, 0, 5], whole[:, [5, 0, 5]])
    assert same(torch.tensor([2]), whole[:, 2:3])
    assert same([-1, -7], whole[:, [6, 0]])
    by_row = torch.tensor([[0, 1], [2, -1], [4, 4]])
    assert same(by_row, torch.stack([whole[0, [0, 1]], whole[1, [2, 6]], whole[2, [4, 4]]]))
    for asked in ("last", [2, 3], None):  # the sites are whole whatever is asked for
        trace = model.run(ids, logits=asked, capture=["unembed.hook_logits", "ln_final.hook_normalized"])
        assert agree(trace["unembed.hook_logits"], whole, "logits")
        assert trace["ln_final.hook_normalized"].shape == (3, 7, 16)
        assert (trace.logits is None) == (asked is None)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "at least one"),
        ([7], "within 0 to 6"),
        ([-8], "within 0 to 6"),
        (torch.tensor([0.5]), "integer positions"),
        (torch.zeros(2, 1, dtype=torch.long), r"\[n\] or \[3, n\]"),
    ],
)
def test_logits_that_cannot_be(asked: Any, words: str) -> None:
    model = build("plain")
    with pytest.raises(BadValue, match=words):
        model.run(tokens(model, 3, 7), logits=asked)


def test_logits_of_a_wrong_type_say_so_also_without_the_type_checker() -> None:
    plain = inspect.unwrap(chosen)
    given = passage(torch.zeros(1, 3, dtype=torch.long), Resume(), shape(), tokenizer=None, like=torch.zeros(1))
    for asked in ("first", [None], ["a"]):
        with pytest.raises(BadValue, match="'all', 'last', positions or None"):
            plain(asked, given)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.full((1, 3), 17), "a token id is 17, but it must be within 0 to 16"),
        (torch.full((1, 3), -1), "a token id is -1"),
        (torch.zeros(1, 13, dtype=torch.long), "number of tokens is 13, but it must be at most 12"),
        (torch.zeros(1, 0, dtype=torch.long), "at least one token"),
        (torch.zeros(0, 4, dtype=torch.long), "at least one token"),
        (torch.zeros(4, dtype=torch.long), r"\[batch, pos\]"),
        (torch.zeros(1, 4), "an integer dtype"),
        (torch.zeros(1, 4, dtype=torch.bool), "an integer dtype"),
        (None, "token ids"),
        ("text", "this model has no tokenizer"),
        ([], "token ids"),
        ([1, 2], "token ids"),
        ({"ids": 1}, "token ids"),
    ],
)
def test_batches_that_cannot_be(batch: object, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        build("plain").run(batch)


def test_any_integer_dtype_will_do() -> None:
    model = build("plain")
    ids = tokens(model)
    assert torch.equal(logits(model.run(ids.to(torch.int32))), logits(model.run(ids)))


def test_text() -> None:
    model = GPT(shape(), Letters())
    ids = torch.tensor([[1, 0, 3], [4, 16, 16]])
    assert torch.equal(logits(model.run("bad")), logits(model.run(ids[:1])))
    both = model.run(["bad", "e"])
    assert torch.equal(logits(both), logits(model.run(ids)))
    last = logits(model.run(["bad", "e"], logits="last"))
    assert agree(last[:, 0], torch.stack([logits(both)[0, 2], logits(both)[1, 0]]), "logits")  # the last real token, not padding
    with pytest.raises(BadValue, match="a text is ''"):
        model.run(["bad", ""])
    with pytest.raises(BadValue, match="d_vocab is 18, but it must be the tokenizer's 17"):
        GPT(shape({"d_vocab": 18}), Letters())


def test_texts_of_different_lengths_need_a_padding_token() -> None:
    model = GPT(shape(), Letters(pad_id=None))
    assert logits(model.run(["ab", "cd"])).shape == (2, 2, 17)
    with pytest.raises(BadValue, match="this tokenizer has no padding token"):
        model.run(["ab", "c"])


def test_losses_that_cannot_be() -> None:
    model = build("plain")
    ids = tokens(model)
    with pytest.raises(BadValue, match="a target"):
        model.loss(TokenBatch(ids, ids + 17))
    total, count = model.loss(TokenBatch(ids, torch.full_like(ids, IGNORE)))
    assert (float(total.detach()), count) == (0.0, 0)


def test_configs_that_follow() -> None:
    config = GPTConfig(d_vocab=7)
    assert (config.n_kv_heads, config.d_head, config.d_mlp) == (4, 32, 512)
    assert GPTConfig(d_vocab=7, act="swiglu").d_mlp == 344
    assert GPTConfig.model_validate(config.model_dump()) == config
    assert GPTConfig(d_vocab=7, d_model=64).d_mlp == 256


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n_heads": 4, "n_kv_heads": 3}, r"n_kv_heads must divide n_heads \(4\), and it is 3"),
        ({"d_head": 3}, "d_head must be even for rotary positions"),
        ({"n_heads": 0}, "n_heads"),
        ({"d_model": 0}, "d_model"),
        ({"d_model": 2, "n_heads": 4}, "d_head"),
        ({"dropout": 1.0}, "dropout"),
        ({"norm": "batch"}, "norm"),
    ],
)
def test_configs_that_cannot_be(fields: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        GPTConfig.parse({**SMALL, **fields})


def test_unknown_fields_are_offered_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'n_layers'"):
        GPTConfig.parse({**SMALL, "n_layer": 2})


def test_every_field_of_the_config_matters() -> None:
    """A field that changes nothing would be a promise not kept."""
    base = {**SMALL, "n_kv_heads": 2, "positions": "rope", "tied": False}
    model = build(base)
    ids = tokens(model)
    other = {
        "n_layers": 1, "d_model": 32, "n_heads": 2, "n_kv_heads": 4, "d_head": 6, "d_mlp": 9, "norm": "rms", "norm_placement": "post",
        "act": "relu", "positions": "learned", "rope_base": 10.0, "tied": True, "bias": False, "norm_eps": 0.5, "init_std": 0.2,
        "rope_scaling": {"kind": "linear", "factor": 4.0}, "economy": {"window": 2},
    }  # fmt: skip
    assert set(other) | {"d_vocab", "n_ctx", "dropout"} == set(GPTConfig.model_fields)
    for name, value in other.items():
        changed = build({**base, name: value})
        assert not torch.allclose(logits(changed.run(ids)), logits(model.run(ids))), name
    dropping = build({**base, "dropout": 0.5}).train()
    batch = TokenBatch(ids, ids)
    assert len({float(dropping.loss(batch)[0].detach()) for _ in range(3)}) == 3
    assert float(dropping.eval().loss(batch)[0].detach()) == float(build(base).loss(batch)[0].detach())


def test_first_values_depend_on_the_seed_and_the_name_alone() -> None:
    torch.manual_seed(0)
    one = GPT(shape())
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    two, deeper, other = GPT(shape()), GPT(shape({"n_layers": 3})), GPT(shape(), seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.digest() == two.digest()
    assert len({one.digest(), deeper.digest(), other.digest()}) == 3
    assert torch.equal(one.weight("blocks.1.attn.W_Q"), deeper.weight("blocks.1.attn.W_Q"))
    wide = GPT(GPTConfig(n_layers=8, d_model=256, d_vocab=100))
    assert wide.weight("blocks.0.mlp.W_in").std().item() == pytest.approx(0.02, rel=0.02)
    assert wide.weight("blocks.0.mlp.W_out").std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert wide.weight("blocks.7.attn.W_O").std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert (wide.weight("ln_final.w") == 1).all()
    assert (wide.weight("blocks.0.attn.b_Q") == 0).all()


def test_the_digest_sees_weights_config_tokenizer_and_dtype() -> None:
    plain = GPT(shape())
    digests = {plain.digest(), GPT(shape(), Letters()).digest(), GPT(shape({"rope_base": 5.0})).digest()}
    plain.weight("ln_final.b")[3] = 1e-7  # a view into the model
    digests |= {plain.digest(), plain.double().digest()}
    assert len(digests) == 5
