"""GradientSHAP and SmoothGrad: closed forms on a linear model, plain loops, captum with the same draws, and what must be refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, NoiseTunnel, Saliency

from probes.asked import Asked, ask
from probes.gradient_once import GradientSpec
from probes.gradient_shap import INSTRUMENT as SHAP
from probes.gradient_shap import Drawn
from probes.integrated_gradients import INSTRUMENT as INTEGRATED
from probes.noisy import drawn, noise_like, size_of
from probes.smooth_grad import INSTRUMENT as SMOOTH
from probes.smooth_grad import noisy_gradients
from tests.families.models import build
from tests.probes.standin import StandIn
from tests.probes.test_asked import STACKS, question
from workbench.core.errors import BadValue, UsageError
from workbench.core.protocol import Inputs

IDS = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 0, 0], [7, 7, 2, 9, 0]])
LENGTHS, TARGETS = torch.tensor([5, 3, 4]), torch.tensor([3, 8, 10])
INPUTS = Inputs(IDS, lengths=LENGTHS, targets=TARGETS)


def run(tool: Any, model: Any, spec: dict[str, Any] | None = None, **changes: Any) -> Any:
    return tool(model, Inputs(**{"batch": IDS, "lengths": LENGTHS, "targets": TARGETS, **changes}), tool.spec.parse(spec or {}))


def parts(model: StandIn) -> np.ndarray:
    found = torch.einsum("p,bpd,db->bp", model.weight_at[:5], model.embed[IDS], model.unembed[:, TARGETS])
    return np.where(np.arange(5) < LENGTHS.numpy()[:, None], found.numpy(), np.nan)


# --- numbers ------------------------------------------------------------------------------------------------


def test_a_linear_model_has_one_gradient() -> None:
    model = StandIn()
    v = run(SHAP, model).values
    np.testing.assert_allclose(v.attribution.values, parts(model), rtol=1e-10)
    assert np.nanmax(v.standard_error.values) < 1e-7
    assert float(v.gap.max()) < 1e-10
    norm = np.abs(model.weight_at[:5].numpy()) * model.unembed[:, TARGETS].norm(dim=0).numpy()[:, None]
    smooth = run(SMOOTH, model).values.attribution.values
    np.testing.assert_allclose(smooth[0], norm[0], rtol=1e-10)


def test_without_noise_from_one_baseline_it_is_integrated_gradients() -> None:
    model = StandIn(squash=torch.tanh)
    exact = run(INTEGRATED, model, {"steps": 64, "tolerance": 1e-9}).values.attribution.values
    v = run(SHAP, model, {"samples": 800}).values
    off = (v.attribution.values - exact) / np.maximum(v.standard_error.values, 1e-12)
    assert np.nanmax(np.abs(off)) < 4
    assert np.nanstd(off) > 0.3  # and the error is no exaggeration
    assert (v.gap.values < 0.4 * np.abs(v.value - v.baseline_value)).all()


@pytest.mark.parametrize("baseline", ["zero", "mean", "items"])
def test_the_points_are_those_of_plain_loops(baseline: str) -> None:
    model, ids = build(dtype=torch.float64), IDS.abs()
    inputs = Inputs(ids, targets=TARGETS)
    v: Any = SHAP(model, inputs, SHAP.spec.parse({"baseline": baseline, "samples": 5, "noise": 0.2, "seed": 7})).values
    asked = ask(model, inputs, GradientSpec())
    size = size_of(asked, 0.2)
    expected, starts = np.zeros((3, 5)), np.zeros(3)
    fixed = {"zero": torch.zeros(5, 16, dtype=torch.float64), "mean": asked.x.mean((0, 1)).expand(5, -1)}
    for row in range(3):
        others = [r for r in range(3) if r != row]
        for sample in range(5):
            rng = drawn(7, row, sample)
            alpha = float(rng.random())
            base = fixed[baseline] if baseline in fixed else asked.x[others[int(rng.integers(2))]]
            way = asked.x[row] + noise_like(asked, row, float(size[row]), rng) - base
            gradient = asked.gradients(torch.tensor([row]), (base + alpha * way)[None])[0]
            expected[row] += (gradient * way).sum(-1).numpy() / 5
        bases = [fixed[baseline]] if baseline in fixed else [asked.x[r] for r in others]
        starts[row] = np.mean([float(asked.values(torch.tensor([row]), one[None])[0]) for one in bases])
    np.testing.assert_allclose(v.attribution.values, expected, atol=1e-10)
    np.testing.assert_allclose(v.baseline_value.values, starts, atol=1e-10)


@pytest.mark.parametrize(("family", "stack"), STACKS)
def test_both_run_on_every_family(family: str, stack: str) -> None:
    model, inputs, spec = question(family, stack)
    asked = ask(model, inputs, spec)
    smooth: Any = SMOOTH(model, inputs, SMOOTH.spec.parse({"stack": stack, "quantity": "logit-difference", "samples": 2})).values
    size, total = size_of(asked, 0.15), torch.zeros(len(asked), asked.items.width, dtype=torch.float64)
    for k in range(2):
        noise = torch.stack([noise_like(asked, row, float(size[row]), drawn(0, row, k)) for row in range(len(asked))])
        total += asked.gradients(torch.arange(len(asked)), asked.x + noise).norm(dim=-1).double() / 2
    real = asked.items.real.numpy()
    np.testing.assert_allclose(smooth.attribution.values[real], total.numpy()[real], atol=1e-10)
    shap: Any = SHAP(model, inputs, SHAP.spec.parse({"stack": stack, "quantity": "logit-difference", "samples": 2})).values
    assert np.isfinite(shap.attribution.values[real]).all()


def test_draws_do_not_depend_on_the_batch() -> None:
    model = build(dtype=torch.float64)
    for tool in (SHAP, SMOOTH):
        whole = run(tool, model, {"samples": 3}).values.attribution.values
        np.testing.assert_allclose(run(tool, model, {"samples": 3, "tokens_a_pass": 6}).values.attribution.values, whole, atol=1e-12)
        first = run(tool, model, {"samples": 3}, batch=IDS[:1], lengths=None, targets=TARGETS[:1]).values.attribution.values
        np.testing.assert_allclose(first[0], whole[0], atol=1e-12)


# --- captum -------------------------------------------------------------------------------------------------


def forward_of(asked: Asked, row: int) -> Any:
    """What captum is given: embeddings ``[n, pos, d_model]`` -> the scalar, differentiable."""

    class Read(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            rows = torch.full((len(x),), row)
            ctx.save_for_backward(asked.gradients(rows, x.detach()))
            return asked.values(rows, x.detach())

        @staticmethod
        def backward(ctx: Any, *wanted: torch.Tensor) -> torch.Tensor:
            (gradient,) = ctx.saved_tensors
            return wanted[0][:, None, None] * gradient

    return Read.apply


def test_gradient_shap_is_captums_with_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build(dtype=torch.float64), Inputs(IDS[:1], targets=TARGETS[:1])
    asked = ask(model, inputs, GradientSpec())
    v: Any = SHAP(model, inputs, SHAP.spec.parse({"samples": 6, "noise": 0.3, "seed": 2})).values
    points = Drawn(asked, torch.zeros_like(asked.x), size_of(asked, 0.3), 2)
    made = [points.point(0, k) for k in range(6)]
    noise = torch.stack([way + base - asked.x[0] for _, base, way in made])
    monkeypatch.setattr("captum.attr._core.noise_tunnel.torch.normal", lambda *_, **__: noise)
    monkeypatch.setattr("captum.attr._core.gradient_shap.np.random.uniform", lambda *_: np.array([alpha for alpha, _, _ in made]))
    theirs = GradientShap(forward_of(asked, 0)).attribute(asked.x, baselines=torch.zeros_like(asked.x), n_samples=6, stdevs=1.0)
    np.testing.assert_allclose(v.attribution.values[0], theirs.sum(-1)[0].detach().numpy(), atol=1e-10)


def test_smooth_gradients_are_captums_with_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build(dtype=torch.float64), Inputs(IDS[:1], targets=TARGETS[:1])
    asked = ask(model, inputs, GradientSpec())
    size = size_of(asked, 0.3)
    noise = torch.stack([noise_like(asked, 0, float(size[0]), drawn(4, 0, k)) for k in range(6)])
    ours = noisy_gradients(asked, torch.zeros(6).long(), torch.arange(6), size, 4).mean(0)
    monkeypatch.setattr("captum.attr._core.noise_tunnel.torch.normal", lambda *_, **__: noise)
    tunnel = NoiseTunnel(Saliency(forward_of(asked, 0)))
    theirs: Any = tunnel.attribute(asked.x, nt_type="smoothgrad", nt_samples=6, stdevs=1.0, abs=False)
    np.testing.assert_allclose(ours.numpy(), theirs[0].detach().numpy(), atol=1e-12)


# --- refusals -----------------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_said() -> None:
    model = build()
    with pytest.raises(UsageError, match="baseline_id with the baseline 'token' only"):
        SHAP.spec.parse({"baseline_id": 3})
    with pytest.raises(BadValue, match="all of one length"):
        run(SHAP, model, {"baseline": "items"})
    with pytest.raises(BadValue, match="all of one length"):
        run(SHAP, model, {"baseline": "items"}, batch=IDS[:1], lengths=None, targets=TARGETS[:1])
    with pytest.raises(BadValue, match=r"inputs\.reference"):
        run(SHAP, model, reference=IDS)
    with pytest.raises(UsageError, match="noise"):
        SMOOTH.spec.parse({"noise": 0})
