"""Image robustness: on a linear classifier, whose worst case has a formula, the attack finds just that; noise of the same size does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evals.bound import bound
from evals.runner import run_suite
from evals.suites.image_robustness import (
    PLAIN,
    SUITE,
    ImageRobustnessSpec,
    aggregate,
    broken,
    condition_names,
    corrupted,
    fall,
    shaken,
)  # fmt: skip
from workbench.core.errors import BadValue, UnknownName
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.families.vit import ViT, ViTConfig


def classifier(seed: int = 0) -> ViT:
    """A tiny classifier of the digits' shape that was not trained."""
    shape = {"height": 8, "width": 8, "channels": 1, "patch": 4, "n_layers": 1, "d_model": 16, "n_heads": 2, "n_classes": 10}
    return ViT(ViTConfig.parse(shape), seed=seed).eval()


class Linear:
    """Two classes told by the sign of w · (x − ½): an image is broken within ε just where its margin is under ε times the sum of |w|."""

    family, reads, abilities, tokenizer, config = "vit", "pixels", frozenset({"logits", "grad"}), None, None

    def __init__(self, seed: int = 0, masked: bool = False) -> None:
        self.w = torch.randn(64, generator=torch.Generator().manual_seed(seed))
        self.masked = masked

    def digest(self) -> str:
        return "linear"

    def sites(self) -> Any:
        return {}

    def run(self, batch: Any, *, grad: bool = False, **_: Any) -> Any:
        x = batch.pixels
        margin = (x.reshape(len(x), -1) - 0.5) @ self.w
        if self.masked:  # the same decisions, by logits whose gradient is zero everywhere
            margin = margin.sign() + 0 * margin
        return type("Trace", (), {"logits": torch.stack([-margin, margin], dim=1)})()


def images(n: int, seed: int = 1) -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("epsilon", [0.005, 0.02, 0.1])
def test_the_attack_finds_what_the_formula_says(epsilon: float) -> None:
    model: Any = Linear()
    for number, image in enumerate(images(20)):
        margin = float((image.reshape(-1) - 0.5) @ model.w)
        truth = abs(margin) < epsilon * float(model.w.abs().sum())
        assert broken(model, image, int(margin > 0), epsilon, 20, (number,)) == truth


def test_random_signs_find_less_and_a_masked_gradient_shows() -> None:
    model: Any = Linear()
    masked: Any = Linear(masked=True)
    attacked, shaken_, hidden = [], [], []
    for number, image in enumerate(images(30)):
        digit = int((image.reshape(-1) - 0.5) @ model.w > 0)
        attacked.append(broken(model, image, digit, 0.04, 20, (number,)))
        shaken_.append(shaken(model, image, digit, 0.04, 21, (number,)))
        hidden.append(broken(masked, image, digit, 0.04, 20, (number,)))
    assert np.mean(attacked) > np.mean(shaken_) + 0.2
    assert np.mean(hidden) <= np.mean(shaken_)  # no better than chance, of a model that is no more robust than the other


def test_a_picture_stays_within_reach_and_within_black_and_white() -> None:
    names, made = corrupted(images(1)[0], ("noise", "blur", "contrast", "occlusion"), (0, 0))
    assert names == condition_names(ImageRobustnessSpec.parse({"epsilons": ()}))
    assert made.min() >= 0
    assert made.max() <= 1
    again = corrupted(images(1)[0], ("noise", "blur", "contrast", "occlusion"), (0, 0))[1]
    assert torch.equal(made, again)
    assert not torch.equal(made[1], corrupted(images(1)[0], ("noise",), (0, 1))[1][1])
    for strength, covered in zip((2, 3, 4), made[-3:], strict=True):
        assert int((covered == 0.5).sum()) == strength**2


def result(kept: dict[str, float], n: int = 200, seed: int = 0, accuracy: float = 0.95) -> Result:
    """Images right at a rate, of which each condition keeps a share."""
    by, out = np.random.default_rng(seed), []
    for k in range(n):
        right = float(by.random() < accuracy)
        out.append(
            Score(
                f"{k:04d}",
                {"right": {PLAIN: right, **{name: right * float(by.random() < share) for name, share in kept.items()}}},
                group="3",
            )
        )
    return aggregate(out, [PLAIN, *kept])


def test_falls_are_found_with_their_control_and_none_is_not() -> None:
    found = {f.measure: f for f in SUITE.findings(result({"noise 0.1": 1.0, "attack 0.1": 0.3, "random 0.1": 0.9}), subject="m")}
    assert found["difference in accuracy, attack 0.1"].verdict == Verdict.DETECTED
    assert found["difference in accuracy, attack 0.1 beside random 0.1"].effect == pytest.approx(-0.57, abs=0.1)
    assert found["difference in accuracy, noise 0.1"].effect == 0
    assert found["difference in accuracy, noise 0.1"].verdict == Verdict.NOT_DETECTED
    assert found["difference in accuracy, noise 0.1"].details["p_holm"] == 1.0
    weak = SUITE.findings(
        result({"attack 0.1": 0.3, "random 0.1": 0.5}), subject="m", reference=result({"attack 0.1": 0.9, "random 0.1": 0.9})
    )
    assert next(f for f in weak if f.measure == "difference in accuracy from the reference, attack 0.1").verdict == Verdict.WORSE
    blind = SUITE.findings(result({"attack 0.1": 0.3, "random 0.1": 0.5}, accuracy=0.1), subject="m")[0]
    assert blind.verdict == Verdict.NOT_APPLICABLE
    assert fall(result({"noise 0.1": 1.0}), "noise 0.1").value == 0


def test_a_model_of_a_family_is_attacked_by_its_own_gradient() -> None:
    model = classifier()
    spec = ImageRobustnessSpec.parse({"count": 6, "epsilons": (0.3,), "steps": 3, "corruptions": ("blur",)})
    found = run_suite(bound(SUITE, model), model, spec)
    assert found.values.attrs["asked"]["scored"] == 6
    right = {str(name): found.values.right.sel(condition=name).values for name in found.values.condition.values}
    assert (right["attack 0.3"] <= right[PLAIN]).all()
    assert (right["random 0.3"] <= right[PLAIN]).all()
    assert all(p.grad is None for p in model.parameters())


def test_what_is_no_corruption_or_reach_is_refused() -> None:
    with pytest.raises(UnknownName, match="fog"):
        list(SUITE.samples(ImageRobustnessSpec.parse({"corruptions": ("fog",)})))
    with pytest.raises(BadValue, match="epsilons"):
        list(SUITE.samples(ImageRobustnessSpec.parse({"epsilons": (0.0,)})))
