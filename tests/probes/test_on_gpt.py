"""Attribution and probing on real transformers: completeness and captum in float64, and truth planted by training."""

from typing import Any

import numpy as np
import pytest
import torch

from probes.attribution import first_hit
from probes.integrated_gradients import INSTRUMENT as IG
from probes.integrated_gradients import IntegratedGradientsSpec
from probes.probing import INSTRUMENT as PROBING
from probes.probing import ProbingSpec, untrained_copy
from workbench.core.protocol import Inputs
from workbench.families.gpt import GPT, GPTConfig

CONFIGS = {
    "rope swiglu grouped": GPTConfig(n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, d_vocab=23, n_ctx=16, norm="rms", act="swiglu"),
    "learned gelu": GPTConfig(n_layers=2, d_model=16, n_heads=4, d_vocab=23, n_ctx=16, positions="learned"),
    "attention only": GPTConfig(n_layers=2, d_model=16, n_heads=2, d_vocab=23, n_ctx=16, norm_placement="none", act="none"),
}


def in_float64(name) -> Any:
    model = GPT(CONFIGS[name], seed=1).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # away from the nearly linear start, so that the path is curved
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_completeness_to_a_millionth_in_float64(name):
    rng = np.random.default_rng(0)
    ids, targets = torch.from_numpy(rng.integers(0, 23, (5, 9))), torch.from_numpy(rng.integers(0, 23, 5))
    reference = torch.from_numpy(rng.integers(0, 23, (5, 9)))
    inputs = Inputs(batch=ids, lengths=torch.tensor([9, 7, 5, 9, 2]), targets=targets, reference=reference)
    spec = IntegratedGradientsSpec(baseline="token", steps=16, max_steps=1024, tolerance=1e-6, quantity="logprob")
    v = IG(in_float64(name), inputs, spec).values
    assert v.converged.all()
    np.testing.assert_allclose(np.nansum(v.attribution.values, 1), v.value - v.baseline_value, rtol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_numbers_as_captum_at_the_embedding_layer(name):
    captum = pytest.importorskip("captum.attr")
    model, rng = in_float64(name), np.random.default_rng(1)
    ids, reference = torch.from_numpy(rng.integers(0, 23, (3, 7))), torch.from_numpy(rng.integers(0, 23, (3, 7)))
    targets = torch.tensor([4, 0, 11])
    theirs = captum.LayerIntegratedGradients(lambda x: model.run(x, grad=True, logits="last").logits[:, 0], model.embed.token).attribute(
        ids, baselines=reference, target=targets, n_steps=24, method="gausslegendre"
    )
    spec = IntegratedGradientsSpec(baseline="token", steps=24, max_steps=24)
    ours = IG(model, Inputs(batch=ids, targets=targets, reference=reference), spec).values.attribution.values
    np.testing.assert_allclose(ours, theirs.sum(-1).detach().numpy(), rtol=1e-5, atol=1e-7 * np.abs(ours).max())


def test_the_zero_baseline_converges_under_a_norm_only_with_a_focus():
    """A norm turns from linear to scale-free within about sqrt(eps)/|x| of the zero embedding: even steps miss that piece."""
    model = GPT(CONFIGS["learned gelu"].model_copy(update={"positions": "rope"}), seed=0)
    with torch.no_grad():
        model.embed.token.weight.mul_(50)  # as long as the embeddings of a trained model
    rng = np.random.default_rng(2)
    inputs = Inputs(batch=torch.from_numpy(rng.integers(0, 23, (6, 8))), targets=torch.arange(6), foils=torch.arange(6) + 6)
    focused, even = (
        IG(model, inputs, IntegratedGradientsSpec(quantity="logit-difference", max_steps=32, focus=focus)).values for focus in (None, 1.0)
    )
    assert focused.converged.values.sum() >= 5
    assert not even.converged.any()
    assert (focused.gap.values < even.gap.values / 10).all()


# --- planted by training ------------------------------------------------------------------------------------------

YES, NO, ASK, HINTS, NEUTRAL, FILLERS = 0, 1, 2, (3, 4), 5, range(6, 20)
WIDTH = 8


def rows(n, seed, *, planted):
    """Fillers with one hint among them, then the question; the answer follows from the hint, or (twin) from nothing."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(FILLERS, (n, WIDTH))
    hint, at = rng.integers(0, 2, n), rng.integers(0, WIDTH - 1, n)
    ids[np.arange(n), at], ids[:, -1] = np.array(HINTS)[hint], ASK
    answer = hint if planted else rng.integers(0, 2, n)
    return torch.from_numpy(ids), torch.from_numpy(answer), torch.from_numpy(at)


def trained(planted: bool, steps: int = 150) -> Any:
    model: Any = GPT(GPTConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=20, n_ctx=WIDTH), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        ids, answer, _ = rows(128, [7, step], planted=planted)
        logits = model.run(ids, logits="last", grad=True).logits[:, 0]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, answer).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def planted_model():
    return trained(True)


@pytest.mark.parametrize("baseline", ["zero", "unknown-token", "template-mean"])
def test_attribution_finds_the_hint_that_was_planted(planted_model, baseline):
    ids, answer, at = rows(100, 99, planted=True)
    guess = planted_model.run(ids, logits="last").logits[:, 0, :2].argmax(-1)
    assert (guess == answer).all()
    slots = torch.where(ids == ASK, 0, torch.arange(1, WIDTH + 1))  # the question is frame: without it the hint means nothing
    more: dict[str, Any] = {} if baseline == "zero" else {"labels": slots}
    inputs = Inputs(batch=ids, targets=answer, foils=1 - answer, groups=["one"] * len(ids), **more)
    neutral = NEUTRAL if baseline == "unknown-token" else None
    spec = IntegratedGradientsSpec(baseline=baseline, quantity="logit-difference", neutral_id=neutral)
    result = IG(planted_model, inputs, spec)
    assert result.values.converged.values.mean() > 0.95
    hit = first_hit(result, [(p, p + 1) for p in at.tolist()], by="signed")
    assert hit.rate >= 0.95
    assert hit.chance == pytest.approx(1 / WIDTH if baseline == "zero" else 1 / (WIDTH - 1))


@pytest.mark.slow
def test_attribution_finds_nothing_on_the_twin():
    ids, answer, at = rows(200, 99, planted=True)
    inputs = Inputs(batch=ids, targets=answer, foils=1 - answer)
    result = IG(trained(False), inputs, IntegratedGradientsSpec(quantity="logit-difference"))
    hit = first_hit(result, [(p, p + 1) for p in at.tolist()], by="signed")
    assert hit.rate < 0.35


def test_probing_finds_the_hint_only_after_attention_and_the_untrained_network_says_what_that_is_worth(planted_model):
    ids, answer, _ = rows(400, 5, planted=True)
    inputs = Inputs(batch=ids, labels=answer, reference=untrained_copy(planted_model, seed=3))
    v = PROBING(planted_model, inputs, ProbingSpec(resamples=400)).values.isel(split=0, labels=0).sel(task="labels")
    accuracy = v.accuracy.sel(network="model")
    assert float(accuracy.sel(site="blocks.1.hook_resid_post")) > 0.95
    assert abs(float(accuracy.sel(site="hook_embed")) - float(v.majority)) < 0.1
    # A random network mixes its inputs, and a mixture holds the hint: without the gain this would pass for something learned.
    assert float(v.accuracy.sel(network="untrained", site="blocks.1.hook_resid_post")) > 0.9
    assert abs(float(v.gain.sel(site="blocks.1.hook_resid_post"))) < 0.1


def test_an_untrained_copy_has_the_same_config_other_weights_and_moves_no_random_state(planted_model):
    before = torch.get_rng_state()
    fresh = untrained_copy(planted_model, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert fresh.config == planted_model.config
    assert fresh.digest() != planted_model.digest()
    assert fresh.digest() == untrained_copy(planted_model, seed=3).digest()
    assert fresh.digest() != untrained_copy(planted_model, seed=4).digest()
