"""The precision policies: what they compute in 16 bits and what not, how near they end, and the scale of float16 gradients."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.training.narrow import NARROW, Narrow
from tests.training.setting import Copying, model, spec
from workbench.blocks.norm import Norm
from workbench.core.errors import CorruptFile, Diverged
from workbench.families import FAMILIES
from workbench.training import loop
from workbench.training.checkpoint import pointed, read
from workbench.training.loop import train
from workbench.training.precision import BAND, LOW, Precision, Scaler, computing

NAMES = [name if name in ("gpt", "bert") else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
CPU = torch.device("cpu")


def heard_in_loss(name: str, precision: Precision) -> tuple[Narrow, torch.Tensor]:
    tiny, batch = FAMILIES.load(name).tiny(seed=0)
    tiny.train()
    with Narrow() as heard, computing(precision, CPU):
        total, _ = tiny.loss(batch)
    return heard, total


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", NAMES)
def test_products_are_narrow_and_norms_softmax_and_losses_are_not(name: str, precision: Precision) -> None:
    heard, total = heard_in_loss(name, precision)
    assert heard.wrong == []
    assert heard.all & {"mm", "addmm", "bmm"}
    assert any("scaled_dot_product" in one for one in heard.all)
    assert total.dtype == torch.float32
    assert heard_in_loss(name, "float32")[0].all == set()


def test_a_norm_that_does_not_widen_would_be_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = lambda self, x, weight, bias: functional.layer_norm(x, (self.width,), weight, bias, self.eps)  # noqa: E731
    monkeypatch.setattr(Norm, "_fused", plain)
    assert heard_in_loss("bert", "bf16")[0].wrong == ["native_layer_norm"]


@pytest.mark.parametrize("name", NAMES)
def test_streams_scales_scores_and_patterns_are_float32(name: str) -> None:
    tiny, batch = FAMILIES.load(name).tiny(seed=0)
    with computing("bf16", CPU):
        trace = tiny.run(batch, capture="*")
    dtypes = {site: value.dtype for site, value in trace.at.items()}
    wide = ("hook_scale", "hook_normalized", "hook_attn_scores", "hook_pattern", "hook_resid_mid", "hook_resid_post", "hook_joint")
    assert [site for site in dtypes if site.endswith(wide) and dtypes[site] != torch.float32] == []
    assert all(dtypes[site] in NARROW for site in dtypes if site.endswith(("attn.hook_q", "mlp.hook_pre")))


def test_the_fused_kernel_sums_in_float32() -> None:
    """Its log-sum-exp, the normaliser of the softmax, comes back wider than what it was given."""
    x = torch.randn(1, 2, 40, 8, dtype=torch.bfloat16)
    out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(x, x, x, 0.0, True)
    assert out[1].dtype == torch.float32


def ending(precision: Precision, *, narrow: bool = False) -> float:
    """The held-out loss of two layers that learned to copy from 2,000 rows."""
    learner = model(dropout=0.0, n_layers=2, d_model=32, init_std=0.18)
    if narrow:
        learner = learner.to(torch.bfloat16)
    how = spec(steps=150, batch_rows=16, lr=5e-3, precision=precision)
    return train(learner, Copying(2000), how, validation=Copying(400, seed=7))["validation"][0]["loss"]


@pytest.mark.full
def test_each_policy_ends_within_its_band_of_float32_and_narrow_weights_do_not() -> None:
    plain = ending("float32")
    assert plain < 0.5  # untrained: ln 11 = 2.4; the first two of eight tokens cannot be known
    for precision in LOW:
        assert abs(ending(precision) / plain - 1) <= BAND[precision], precision
    assert abs(ending("float32", narrow=True) / plain - 1) > BAND["bf16"]


def test_bf16_needs_no_scale_and_keeps_float32_weights() -> None:
    learner = model()
    history = train(learner, Copying(), spec(precision="bf16"))
    assert "scaler" not in history
    assert {p.dtype for p in learner.parameters()} == {torch.float32}
    assert history["weights"] != train(model(), Copying(), spec())["weights"]


# --- the scale of float16 gradients


def test_a_scale_halves_at_overflow_and_grows_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scaler, "GROWTH", 3)
    scaler = Scaler()
    taken = [scaler.after(step, norm) for step, norm in enumerate([1.0, math.inf, math.nan, 2.0, 2.0, 2.0, 2.0])]
    assert taken == [True, False, False, True, True, True, True]
    assert scaler.state() == {"scale": Scaler.START / 2, "good": 1, "skipped": [1, 2]}
    other = Scaler()
    other.take(scaler.state())
    assert other.state() == scaler.state()


def test_float16_gradients_below_the_smallest_number_are_saved_by_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a scale of 2**-14 the gradients of the query map all round to zero: the scale is what keeps them."""

    def lost() -> int:
        learner = model(dropout=0.0)
        run = loop._Run(learner, Copying(), spec(precision="fp16", clip=0), None, None, (), lambda *_: None)
        run._gradients()
        return sum(int((p.grad == 0).sum()) for n, p in learner.named_parameters() if p.grad is not None and "attn.q" in n)

    kept = lost()
    monkeypatch.setattr(Scaler, "START", 2.0**-14)
    assert (kept, lost()) == (0, 16 * 16 + 16)


def overflowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first scale so large that some steps are skipped."""
    monkeypatch.setattr(Scaler, "START", 2.0**18)
    monkeypatch.setattr(Scaler, "GROWTH", 4)


def test_skipped_steps_are_counted_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    overflowing(monkeypatch)
    before = model().state_dict()
    weights: list[dict[str, torch.Tensor]] = [{n: p.clone() for n, p in before.items()}]
    note = lambda event, state: weights.append({n: p.clone() for n, p in state["model"].state_dict().items()})  # noqa: E731
    history = train(model(), Copying(), spec(precision="fp16"), callbacks=[note])
    skipped = history["scaler"]["skipped"]
    assert skipped[0] == 0
    assert 1 <= len(skipped) < 20
    for step in range(20):
        same = all(torch.equal(weights[step][n], weights[step + 1][n]) for n in weights[0])
        assert same == (step in skipped), step
        assert (history["record"][step]["norm"] is None) == (step in skipped)
    assert history["steps"] == 20


class Interrupted(Exception):
    """Stands for whatever ended a process."""


def cut(out: Path, step: int, how: Any) -> None:
    def callback(event: str, state: Any) -> None:
        if event == "step" and state["step"] == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(model(), Copying(), how, out=out, callbacks=[callback])


@pytest.mark.parametrize("every", [1, pytest.param(7, marks=pytest.mark.slow)])
def test_a_continued_run_in_float16_equals_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Cut after the first step, which was skipped (there are no moments yet), and between two changes of the scale."""
    overflowing(monkeypatch)
    how = spec(precision="fp16", save_every=every, accumulate=2)
    whole = train(model(), Copying(), how, out=tmp_path / "whole")
    assert whole["scaler"]["skipped"][0] == 0
    cut(tmp_path / "cut", every + 1, how)
    folder = pointed(tmp_path / "cut", "latest")
    assert folder is not None
    assert read(folder).train_state["scaler"]["skipped"]
    rest = train(model(), Copying(), how, out=tmp_path / "cut")
    for name in ("weights", "record", "scaler", "tokens"):
        assert rest[name] == whole[name], name
    for name in ("model.safetensors", "train_state.json"):
        assert (tmp_path / "cut" / "final" / name).read_bytes() == (tmp_path / "whole" / "final" / name).read_bytes()


@pytest.mark.parametrize("fault", ["scale", "count"])
def test_a_fault_in_resuming_the_scale_would_be_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    overflowing(monkeypatch)
    how = spec(precision="fp16", save_every=7)
    whole = train(model(), Copying(), how)
    cut(tmp_path, 8, how)
    if fault == "scale":  # as a loop would that makes a new scaler
        monkeypatch.setattr(Scaler, "take", lambda self, state: None)
    else:  # as one would that counts skipped steps as Adam's
        real = loop.restore
        monkeypatch.setattr(loop, "restore", lambda o, m, t, steps, path: real(o, m, t, 7, path))
    assert train(model(), Copying(), how, out=tmp_path)["weights"] != whole["weights"]


def test_a_loss_that_is_not_finite_is_no_matter_of_scale() -> None:
    def spoil(event: str, state: Any) -> None:
        if event == "step" and state["step"] == 3:
            with torch.no_grad():
                state["model"].embed.token.weight[:, 0] = float("nan")

    with pytest.raises(Diverged, match="stopped at step 3: the loss is nan"):
        train(model(), Copying(), spec(precision="fp16"), callbacks=[spoil])


def test_gradients_that_overflow_at_any_scale_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_, **__: torch.tensor(math.inf))
    with pytest.raises(Diverged, match="stopped at step 30: the loss is .* and the gradient norm inf"):
        train(model(), Copying(), spec(precision="fp16", steps=40))


def test_moments_that_lack_are_refused_in_float16_too(tmp_path: Path) -> None:
    how = spec(precision="fp16", save_every=5)
    cut(tmp_path, 6, how)
    folder = pointed(tmp_path, "latest")
    assert folder is not None
    found = read(folder)
    assert found.optimizer
    run = loop._Run(model(), Copying(), how, None, None, (), lambda *_: None)
    with pytest.raises(CorruptFile, match="the optimizer state of this model"):
        loop.restore(run.optimizer, run.model, {}, 5, folder)
