"""Norm, rotary, mask, attention, loss and digest against slow twins."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from tests.reference.attention import attention as loops
from tests.reference.attention import turned
from workbench.blocks import losses
from workbench.blocks.attention import Attention
from workbench.blocks.cache import KVCache, joined
from workbench.blocks.digest import weights_digest
from workbench.blocks.init import initialise, linear
from workbench.blocks.losses import next_token_nll
from workbench.blocks.mask import AttentionMask, attention_mask
from workbench.blocks.norm import Norm
from workbench.blocks.rotary import Rotary
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue
from workbench.core.tolerance import TOLERANCES, agree, gap, tolerance

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_norm(kind: str, dtype: torch.dtype) -> None:
    norm = Norm(kind, 6, eps=1e-3, bias=True).to(dtype)  # type: ignore[arg-type]  # one of the two kinds
    with torch.no_grad():
        norm.weight.copy_(noise(6, seed=1))
        if norm.bias is not None:
            norm.bias.copy_(noise(6, seed=2))
    x = noise(2, 3, 6, dtype=dtype) * 5 + 1
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True) if kind == "layer" else wide
    scale = (centred.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt()
    expected = centred / scale * norm.weight.double() + (norm.bias.double() if norm.bias is not None else 0)
    assert agree(norm(x), expected.to(dtype), "activation")
    assert agree(norm.scale(x), scale.to(dtype), "activation")
    readers = x.unsqueeze(2).expand(-1, -1, 3, -1)
    for frozen in (None, norm.scale(x)):
        out = norm.per_reader(readers, frozen)
        assert agree(out, norm(x).unsqueeze(2).expand_as(out), "activation")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rotary_equals_the_loop_and_depends_on_differences_alone(dtype: torch.dtype) -> None:
    x = noise(2, 4, 3, 6, dtype=dtype)
    positions = torch.tensor([[0, 1, 5, 9], [3, 3, 0, 8]])
    out = Rotary.at(positions, 6, n_ctx=10, base=50.0, dtype=dtype).turn(x)
    for b, p, h in itertools.product(range(2), range(4), range(3)):
        assert gap(out[b, p, h], turned(x[b, p, h], int(positions[b, p]), 50.0)) < (1e-12 if dtype == torch.float64 else 1e-6)
    assert torch.allclose(out.norm(dim=-1), x.norm(dim=-1))


def test_a_table_first_made_in_inference_mode_still_serves_gradients() -> None:
    at = torch.tensor([[0, 1]])
    with torch.inference_mode():
        Rotary.at(at, 4, n_ctx=3, base=77.0, dtype=torch.float32)
    x = torch.ones(1, 2, 1, 4, requires_grad=True)
    Rotary.at(at, 4, n_ctx=3, base=77.0, dtype=torch.float32).turn(x).sum().backward()
    assert x.grad is not None


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.integers(1, 5), st.integers(0, 3), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 9))
def test_mask_equals_the_rules_one_by_one(
    query: int, past: int, causal: bool, segmented: bool, padded: bool, given_: bool, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    key, segmented = past + query, segmented and past == 0
    segments = torch.randint(0, 2, (2, query), generator=draw) if segmented else None
    valid = torch.rand(2, key, generator=draw) < 0.6 if padded else None
    given = torch.rand(2, query, key, generator=draw) < 0.6 if given_ else None
    mask = attention_mask(query, past, CPU, causal=causal, segments=segments, valid=valid, given=given)
    shown = mask.shown(query, key, CPU)
    for b, i, j in itertools.product(range(2), range(query), range(key)):
        expected = bool(given[b, i, j]) if given is not None else (not causal or j <= past + i)
        if segments is not None:
            expected = expected and bool(segments[b, i] == segments[b, j])
        if valid is not None:
            expected = expected and bool(valid[b, j])
        found = True if shown is None else bool(shown.expand(2, 1, query, key)[b, 0, i, j])
        assert found == expected, (b, i, j)


def test_no_mask_is_built_where_causal_order_is_all() -> None:
    assert attention_mask(4, 0, CPU) == AttentionMask(causal=True)
    assert attention_mask(1, 9, CPU) == AttentionMask()  # one new token sees all there is
    assert attention_mask(4, 0, CPU, causal=False) == AttentionMask()
    assert attention_mask(2, 3, CPU).allowed is not None


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_attention_equals_loops(n_kv_heads: int) -> None:
    attn = Attention(8, 4, n_kv_heads, 2, bias=True).double()
    initialise(attn, 0, writes=1, std=0.7)
    x, past = noise(2, 3, 8, seed=1), (noise(2, 2, n_kv_heads, 2, seed=2), noise(2, 2, n_kv_heads, 2, seed=3))
    given = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(4)) < 0.6
    given[1, 2] = False
    out, (k, v) = attn(x, attention_mask(3, 2, CPU, given=given), past=past)
    with torch.no_grad():
        q = (x @ attn.q.weight.T + attn.q.bias).unflatten(-1, (4, 2))
        k, v = k.detach(), v.detach()
        assert torch.equal(k[:, :2], past[0])
        assert torch.equal(v[:, :2], past[1])
        twin = lambda keys: loops(q, keys, v, given)[2].flatten(2) @ attn.o.weight.T + attn.o.bias  # noqa: E731
        assert agree(out, twin(k), "attention")
        assert n_kv_heads == 1 or not agree(out, twin(k.flip(2)), "attention")  # heads matched to the wrong groups are caught


def test_caches_are_values() -> None:
    keys, values = noise(1, 3, 2, 4), noise(1, 3, 2, 4, seed=1)
    cache = KVCache(((keys, values),))
    assert (cache.batch, cache.length) == (1, 3)
    assert cache.expand(5).batch == 5
    assert cache.expand(5).layers[0][0].data_ptr() == keys.data_ptr()  # shared, not copied
    assert cache.first(2).length == 2
    longer = joined((keys, values), keys, values)
    assert longer[0].shape[1] == 6
    assert cache.length == 3
    assert joined(None, keys, values)[0] is keys


@pytest.mark.parametrize("cells", [1, 7, 40, 10_000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_loss_in_pieces_equals_the_loss_whole(cells: int, dtype: torch.dtype) -> None:
    x = noise(2, 6, 4, dtype=dtype).requires_grad_()
    matrix = noise(7, 4, seed=1, dtype=dtype).requires_grad_()
    targets = torch.randint(0, 7, (2, 6), generator=torch.Generator().manual_seed(0))
    targets[0, 3:] = IGNORE
    total, count = next_token_nll(x, matrix, targets, cells=cells)
    logs = (x.detach().double() @ matrix.detach().double().T).to(dtype).double().log_softmax(-1)
    chosen = [(r, p) for r in range(2) for p in range(6) if targets[r, p] != IGNORE]
    assert count == len(chosen) == 9
    by_hand = -sum(float(logs[r, p, targets[r, p]]) for r, p in chosen)
    assert float(total.detach()) == pytest.approx(by_hand, rel={torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype])
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    total.backward()
    grads = (x.grad, matrix.grad)
    x.grad = matrix.grad = None
    whole, _ = next_token_nll(x, matrix, targets)
    whole.backward()
    for found, expected in zip(grads, (x.grad, matrix.grad), strict=True):
        assert found is not None
        assert expected is not None
        if dtype != torch.bfloat16:
            assert agree(found, expected, "gradient")
        else:
            assert gap(found, expected) < 4e-2


def test_the_loss_keeps_no_more_logits_than_asked() -> None:
    sizes: list[int] = []
    real = losses._nll
    x, matrix, targets = noise(1, 50, 4).requires_grad_(), noise(10, 4), torch.zeros(1, 50, dtype=torch.long)

    def noting(*args: torch.Tensor) -> torch.Tensor:
        sizes.append(len(args[0]) * len(args[1]))
        return real(*args)

    patch = pytest.MonkeyPatch()
    patch.setattr(losses, "_nll", noting)
    next_token_nll(x, matrix, targets, cells=100)[0].backward()
    patch.undo()
    assert max(sizes) == 100
    assert sum(sizes) == 2 * 500  # made once forward and once more backward


def test_targets_outside_the_vocabulary_are_refused() -> None:
    for bad in (7, -1, -99):
        with pytest.raises(BadValue, match="within 0 to 6, or -100"):
            next_token_nll(noise(1, 2, 4), noise(7, 4), torch.tensor([[0, bad]]))


def test_first_values_leave_the_global_state_alone() -> None:
    state = torch.random.get_rng_state()
    layer = linear(3, 4, bias=True)
    initialise(layer, 0, writes=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert layer.bias.abs().max() == 0


def test_the_weights_digest_sees_names_dtypes_shapes_and_bytes() -> None:
    a = {"x": torch.zeros(2, 3), "y": torch.ones(1)}
    base = weights_digest(a)
    assert weights_digest(dict(reversed(a.items()))) == base
    assert weights_digest({"x": torch.zeros(3, 2).T, "y": torch.ones(1)}) == base  # the layout in memory does not matter
    others = [{"x": a["x"]}, {**a, "x": torch.zeros(3, 2)}, {**a, "x": a["x"].bfloat16()}, {**a, "x": -a["x"]}, {"X": a["x"], "y": a["y"]}]
    assert len({base, *map(weights_digest, others)}) == 6


def test_no_family_is_named_in_a_block() -> None:
    names = re.compile(r"\b(gpt2?|bert|bart|vit|clip|whisper|llama|t5|dit|neox|mistral|gemma|qwen)\b", re.IGNORECASE)

    def offending(text: str) -> list[str]:
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", text)  # papers may be cited where a convention comes from one
        return names.findall(code)

    assert offending("if kind == 'bert': pass") == ["bert"]
    folder = Path(losses.__file__).parent
    assert {path.name: found for path in folder.glob("*.py") if (found := offending(path.read_text()))} == {}
    assert "families" not in "".join(path.read_text() for path in folder.glob("*.py"))


def test_the_table_of_tolerances() -> None:
    assert tolerance(torch.float32, "logits").bound == 2e-6
    assert all(line.reason and line.bound > 0 for line in TOLERANCES.values())
    with pytest.raises(BadValue, match=r"torch\.int64"):
        tolerance(torch.int64, "logits")
    with pytest.raises(BadValue, match="loglik"):
        tolerance(torch.bfloat16, "loglik")
    one, minus = torch.ones(3), torch.tensor([1.0, -torch.inf, 2.0])
    assert agree(minus, minus.clone(), "logits")
    assert gap(one, one[:2]) == gap(minus, one) == gap(torch.full((3,), torch.nan), one) == float("inf")
    assert agree(one * 100, one * 100 + 1e-4, "logits")  # relative to the largest
    assert not agree(one, one + 1e-5, "logits")
    assert gap(minus[1:2], minus[1:2]) == 0.0


def test_blocks_hold_no_hooks_of_torch() -> None:
    for path in Path(losses.__file__).parent.glob("*.py"):
        assert not re.search(r"register_\w*hook", path.read_text()), path.name
    assert not any("hook" in k and v for k, v in vars(nn.Linear(1, 1)).items() if isinstance(v, dict))
