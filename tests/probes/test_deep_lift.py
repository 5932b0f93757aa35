"""DeepLIFT: captum's numbers where captum has rules, hand-made ones elsewhere, sums that add up on every family, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import DeepLift
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from probes import differences
from probes.deep_lift import INSTRUMENT as DEEP_LIFT
from probes.differences import Differences
from probes.input_x_gradient import INSTRUMENT as PRODUCT
from tests.families.models import CONFIGS, build, tokens
from tests.probes.standin import StandIn
from tests.probes.test_asked import STACKS, question
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Inputs

IDS = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 0, 0], [7, 7, 2, 9, 0]])
LENGTHS, TARGETS = torch.tensor([5, 3, 4]), torch.tensor([3, 8, 10])


def multipliers(f: Callable[[Tensor], Tensor], x: Tensor, x0: Tensor) -> Tensor:
    """What ``Differences`` hands back to ``x`` of the sum of f."""
    with Differences("deep-lift"):
        leaf = torch.cat([x, x0]).requires_grad_(True)
        (found,) = torch.autograd.grad(f(leaf).sum(), leaf)
    ahead, back = found.chunk(2)
    assert torch.allclose(ahead, back, atol=1e-12)  # a difference is the same from either side
    return ahead


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # captum says how it works
def test_where_captum_has_rules_the_numbers_are_captums() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 5), nn.Sigmoid(), nn.Linear(5, 1)).double()
    x, x0 = drawn(4, 6).requires_grad_(True), drawn(4, 6, seed=1)
    theirs = DeepLift(net).attribute(x, x0)
    torch.testing.assert_close(multipliers(net, x, x0) * (x - x0), theirs, atol=1e-9, rtol=1e-9)


def test_one_layer_by_hand() -> None:
    weight, x, x0 = drawn(3, 4), drawn(2, 3, seed=1), drawn(2, 3, seed=2)
    u1, u0 = x @ weight, x0 @ weight
    slope = (functional.gelu(u1) - functional.gelu(u0)) / (u1 - u0)
    torch.testing.assert_close(multipliers(lambda u: functional.gelu(u @ weight), x, x0), slope @ weight.T)
    gate = (u1.sigmoid() + u0.sigmoid()) / 2 + (u1 + u0) / 2 * (u1.sigmoid() - u0.sigmoid()) / (u1 - u0)
    torch.testing.assert_close(multipliers(lambda u: (u @ weight) * (u @ weight).sigmoid(), x, x0), gate @ weight.T)
    assert torch.equal(multipliers(lambda u: u * u, x, x0), x + x0)


PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "layer norm": lambda u: functional.layer_norm(u, (4,), torch.arange(4.0, dtype=torch.float64), torch.ones(4, dtype=torch.float64)),
    "rms norm": lambda u: functional.rms_norm(u, (4,), torch.arange(4.0, dtype=torch.float64), 1e-6),
    "softmax": lambda u: u.softmax(-1) @ torch.arange(4.0, dtype=torch.float64),
    "log softmax": lambda u: u.log_softmax(-1)[..., 1],
    "log-sum-exp": lambda u: torch.logsumexp(u, -1),
    "attention": lambda u: functional.scaled_dot_product_attention(u, u.flip(-1), u * 2, is_causal=True),
    "masked": lambda u: (u @ u.transpose(1, 2)).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf).softmax(-1) @ u,
    "gates": lambda u: functional.silu(u) * (u - 1) / (u.square().sum(-1, keepdim=True) + 1),
    "unit length": lambda u: functional.normalize(u, dim=-1),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-7, 1e-3, 1.0, 8.0]))
def test_whatever_lies_between_the_parts_add_up(name: str, seed: int, scale: float) -> None:
    x0 = drawn(2, 3, 4, seed=seed)
    x = x0 + scale * drawn(2, 3, 4, seed=seed + 1)
    whole = (PARTS[name](x) - PARTS[name](x0)).sum()
    found = (multipliers(PARTS[name], x, x0) * (x - x0)).sum()
    assert abs(float(found - whole)) < 1e-6 * scale * (1 + scale) + 1e-9 * abs(float(whole))


def test_values_stay_what_they_are() -> None:
    model, ids = build("grouped"), tokens(build("grouped"))
    plain = model.run(ids, grad=True).logits
    with Differences("deep-lift"):
        inside = model.run(ids, grad=True).logits
    assert plain is not None and inside is not None and torch.equal(plain, inside)  # noqa: PT018


def run(model: Any, spec: dict[str, Any] | None = None, **changes: Any) -> Any:
    return DEEP_LIFT(model, Inputs(**{"batch": IDS, "lengths": LENGTHS, "targets": TARGETS, **changes}), DEEP_LIFT.spec.parse(spec or {}))


def test_on_a_linear_model_it_is_the_parts() -> None:
    model = StandIn()
    found = run(model, {"filler": "zero"})
    parts = torch.einsum("p,bpd,db->bp", model.weight_at[:5], model.embed[IDS], model.unembed[:, TARGETS]).numpy()
    np.testing.assert_allclose(found.values.attribution.values, np.where(np.arange(5) < LENGTHS.numpy()[:, None], parts, np.nan), rtol=1e-9)
    assert any("none: this model is linear" in note for note in found.notes)


@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_decoders_add_up_where_first_order_does_not(config: str) -> None:
    model = build(config, dtype=torch.float64)
    inputs = Inputs(tokens(model, 3), targets=torch.arange(3))
    v: Any = DEEP_LIFT(model, inputs, DEEP_LIFT.spec.parse({})).values
    whole = (v.value - v.baseline_value).values
    np.testing.assert_allclose(v.attribution.sum("pos").values, whole, rtol=1e-7)
    slopes = PRODUCT(model, inputs, PRODUCT.spec.parse({})).values.attribution.sum("pos").values
    assert (np.abs(slopes - whole) > 1e-3 * np.abs(whole)).any()


@pytest.mark.parametrize(("family", "stack"), [one for one in STACKS if one[0] != "clip"])
def test_every_family_adds_up(family: str, stack: str) -> None:
    model, inputs, asked = question(family, stack)
    spec = DEEP_LIFT.spec.parse({**asked.model_dump(), "tokens_a_pass": 64})
    v: Any = DEEP_LIFT(model, inputs, spec).values
    np.testing.assert_allclose(v.attribution.sum("pos").values, (v.value - v.baseline_value).values, rtol=1e-6, atol=1e-10)
    assert float(np.nanmax(np.abs(v.attribution.values))) > 0


def test_where_rounding_decides_nothing_is_said() -> None:
    model = build("grouped")  # no biases: from zero embeddings every norm of the reference divides nothing by nearly nothing
    with pytest.raises(Incompatible, match="more than 1% apart.*from zero embeddings norms blow rounding up"):
        DEEP_LIFT(model, Inputs(tokens(model, 3), targets=torch.arange(3)), DEEP_LIFT.spec.parse({"filler": "zero"}))


def test_items_that_answer_each_other_have_no_reference() -> None:
    model, inputs, asked = question("clip", "text")
    with pytest.raises(Incompatible, match="answer one another.*integrated-gradients or occlusion"):
        DEEP_LIFT(model, inputs, DEEP_LIFT.spec.parse(asked.model_dump()))


def test_an_operation_without_a_rule_is_named() -> None:
    with pytest.raises(Incompatible, match="the operation 'cummax' has no rule.*Ask integrated-gradients"):
        run(StandIn(squash=lambda state: state.cummax(-1).values))
    with pytest.raises(Incompatible, match="'pow' has two arguments that both depend"):
        run(StandIn(squash=lambda state: torch.pow(state.exp(), state)))


def test_what_escapes_the_rules_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Incompatible, match="add up to .* where the answer changes by .*, more than 1% apart"):
        run(StandIn(squash=lambda state: state + 2 * state.detach()))  # a part that no gradient reaches
    monkeypatch.setattr(differences, "rescaled", lambda f, u: f(u))  # slopes, as where a library's rules do not apply
    with pytest.raises(Incompatible, match="more than 1% apart"):
        run(StandIn(squash=torch.tanh))


def test_what_cannot_be_meant_is_an_error() -> None:
    with pytest.raises(BadValue, match="left out for the filler 'zero'"):
        run(StandIn(), {"filler": "zero", "filler_id": 3})
    with pytest.raises(BadValue, match="finite"):
        run(StandIn(squash=lambda state: state * torch.nan))
