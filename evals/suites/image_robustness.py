"""Image robustness: how much of an image classifier's accuracy is left under noise, blur, faded and covered pictures, and under attack?

The held-out handwritten digits, each asked as it is and

- under *corruptions* of three strengths (after Hendrycks and Dietterich, ICLR 2019): noise, blur, contrast, occlusion;
- under *projected gradient descent* (Madry et al., ICLR 2018) within ε of every pixel: from a random start ``steps`` steps of the
  gradient's sign, kept within ε and within black and white; an image is broken if any step is misread;
- under *random* signs of the same ε, as many as there are steps and the start, any of which breaks it: what an attack without a gradient
  does.

An attack is what it finds: what it leaves is an upper bound of robust accuracy, not robust accuracy. The random control says whether the
gradient helped; where it does not, look for a masked gradient before calling a model robust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from evals.bound import Unbound
from evals.clustered import Clustered, mean_of
from evals.runner import denominators
from workbench.core.batch import ImageBatch
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, UnknownName
from workbench.core.finding import Denominators, Finding, Null, decide
from workbench.core.measure import Needs, Sample, Score
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.counts import mcnemar_exact
from workbench.core.stats.intervals import wilson
from workbench.core.stats.multiplicity import holm
from workbench.data.counter import key_of
from workbench.data.images import DIGITS, held_out_digits

NAME, PLAIN = "image-robustness", "as it is"
Floats = NDArray[np.float64]
Images = Float[Tensor, "image channel height width"]
STRENGTHS = {
    "noise": (0.1, 0.2, 0.4), "blur": (0.3, 0.6, 1.0), "contrast": (0.6, 0.4, 0.2), "occlusion": (2, 3, 4),
}  # fmt: skip
"""By corruption: the standard deviation of noise, the share of the neighbours' mean, the contrast left, the side of the square."""


class ImageRobustnessSpec(Spec):
    """``count`` held-out images (0: all) of split ``split_seed``; ``corruptions`` by name; ``epsilons`` of the attack (pixels are 0 to 1)
    and its ``steps``."""

    count: int = Field(default=0, ge=0)
    split_seed: int = 0
    corruptions: tuple[str, ...] = tuple(STRENGTHS)
    epsilons: tuple[float, ...] = (0.05, 0.1, 0.2)
    steps: int = Field(default=20, ge=1, le=1000)
    seed: int = 0


@dataclass(frozen=True)
class ImageRobustnessResult(Result):
    """``right`` [condition, image]: 1 where the image is still classified right (NaN where unscored); ``digit`` [image]."""

    def summary(self) -> str:
        if floor := self.values.attrs["floor"]:
            return f"images under corruption and attack: not applicable, {floor}"
        parts = [f"{name} {float(np.nanmean(self.values.right.sel(condition=name).values)):.1%}" for name in conditions_of(self)]
        return f"images classified right: {', '.join(parts)}"

    def plot(self) -> Any:
        rows = []
        for name in conditions_of(self):
            found = self.values.right.sel(condition=name).values
            k, n = int(np.nansum(found)), int(np.isfinite(found).sum())
            if n:
                interval = wilson(k, n)
                rows.append({"condition": name, "right": k / n, "low": interval.low, "high": interval.high})
        titles = {"title": "Images classified right, by what was done to them", "right": "accuracy", "null": "chance"}
        frame = pd.DataFrame(rows, columns=["condition", "right", "low", "high"])
        return forest(frame, "condition", "right", "low", "high", null=1 / len(DIGITS), titles=titles)


class _ImageRobustness(Unbound):
    name = NAME
    spec = ImageRobustnessSpec
    needs = Needs(abilities=frozenset({"logits", "grad"}), inputs=(), reads=("pixels",))

    def samples(self, spec: ImageRobustnessSpec) -> Iterator[Sample]:
        for name in spec.corruptions:
            if name not in STRENGTHS:
                raise UnknownName("corruption", name, STRENGTHS)
        if not all(0 < epsilon <= 1 for epsilon in spec.epsilons):
            raise BadValue("epsilons", list(spec.epsilons), "above 0 and at most 1")
        for number, digit in enumerate(held_out_digits(spec.split_seed)[1].tolist()[: spec.count or None]):
            yield Sample(f"{number:04d}", {"number": number, "digit": digit, "split_seed": spec.split_seed}, group=str(digit))

    def found(self, model: HookedModel, sample: Sample, spec: ImageRobustnessSpec) -> Score:
        number, digit = sample.facts["number"], sample.facts["digit"]
        image = held_out_digits(spec.split_seed)[0][number]
        names, pictures = corrupted(image, spec.corruptions, (spec.seed, number))
        right = (classes(model, pictures) == digit).tolist()
        found = dict(zip(names, map(float, right), strict=True))
        for epsilon in spec.epsilons:
            key = (spec.seed, number, epsilon)
            found[f"attack {epsilon:g}"] = float(not broken(model, image, digit, epsilon, spec.steps, key))
            found[f"random {epsilon:g}"] = float(not shaken(model, image, digit, epsilon, spec.steps + 1, key))
        return Score(sample.id, {"right": found})

    def aggregate(self, scores: Sequence[Score], spec: ImageRobustnessSpec) -> ImageRobustnessResult:
        return aggregate(scores, condition_names(spec))

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _ImageRobustness()


def condition_names(spec: ImageRobustnessSpec) -> list[str]:
    """Every condition in order, the plain one first."""
    made = [f"{name} {strength:g}" for name in spec.corruptions for strength in STRENGTHS[name]]
    return [PLAIN, *made, *(f"{kind} {epsilon:g}" for epsilon in spec.epsilons for kind in ("attack", "random"))]


# --- what is done to an image ---------------------------------------------------------------------------------


def corrupted(
    image: Float[Tensor, "channel height width"], names: Sequence[str], key: tuple[int, int]
) -> tuple[list[str], Images]:  # fmt: skip
    """The image as it is and after each corruption of each strength, with their names; what is drawn depends on the key alone."""
    made, said = [image], [PLAIN]
    for name in names:
        for strength in STRENGTHS[name]:
            by = torch.Generator().manual_seed(key_of(name, strength, *key) % 2**63)
            made.append(_corrupt(image, name, strength, by).clamp(0, 1))
            said.append(f"{name} {strength:g}")
    return said, torch.stack(made)


def _corrupt(image: Tensor, name: str, strength: float, by: torch.Generator) -> Tensor:
    if name == "noise":
        return image + strength * torch.randn(image.shape, generator=by)
    if name == "blur":
        mean = functional.avg_pool2d(functional.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]
        return (1 - strength) * image + strength * mean
    if name == "contrast":
        return image.mean() + strength * (image - image.mean())
    side = min(int(strength), *image.shape[1:])
    down, across = (int(torch.randint(0, size - side + 1, (1,), generator=by)) for size in image.shape[1:])
    out = image.clone()
    out[:, down : down + side, across : across + side] = 0.5
    return out


def classes(model: HookedModel, pictures: Images) -> Tensor:
    """The likeliest class of each picture ``[image]``."""
    return _logits(model, pictures, grad=False).argmax(dim=1)


def _logits(model: HookedModel, pictures: Tensor, *, grad: bool) -> Tensor:
    found = model.run(ImageBatch(pictures), grad=grad).logits
    assert found is not None
    return found


def broken(model: HookedModel, image: Tensor, digit: int, epsilon: float, steps: int, key: tuple[Any, ...]) -> bool:
    """Whether projected gradient descent within ``epsilon`` finds a picture that is not classified as ``digit`` (the plain one
    included)."""
    start = image[None]
    by = torch.Generator().manual_seed(key_of("attack", *key) % 2**63)
    now = _within(start + epsilon * (2 * torch.rand(start.shape, generator=by) - 1), start, epsilon)
    target, step = torch.tensor([digit]), 2.5 * epsilon / steps
    if int(classes(model, start)[0]) != digit:
        return True
    for _ in range(steps):
        now = now.detach().requires_grad_(True)
        logits = _logits(model, now, grad=True)
        if int(logits.argmax()) != digit:
            return True
        (slope,) = torch.autograd.grad(functional.cross_entropy(logits, target), now)
        now = _within(now.detach() + step * slope.sign(), start, epsilon)
    return int(classes(model, now)[0]) != digit


def shaken(model: HookedModel, image: Tensor, digit: int, epsilon: float, tries: int, key: tuple[Any, ...]) -> bool:
    """Whether one of ``tries`` pictures, every pixel of which is moved by plus or minus ``epsilon`` at random, or the plain one, is not
    classified as ``digit``."""
    by = torch.Generator().manual_seed(key_of("random", *key) % 2**63)
    signs = torch.randint(0, 2, (tries, *image.shape), generator=by).float() * 2 - 1
    pictures = torch.cat([image[None], _within(image + epsilon * signs, image[None], epsilon)])
    return bool((classes(model, pictures) != digit).any())


def _within(pictures: Tensor, start: Tensor, epsilon: float) -> Tensor:
    return torch.minimum(torch.maximum(pictures, start - epsilon), start + epsilon).clamp(0, 1)


# --- the result ---------------------------------------------------------------------------------------------


def aggregate(scores: Sequence[Score], conditions: Sequence[str]) -> ImageRobustnessResult:
    """Right or not by condition and image."""
    table = np.array([[np.nan if s.unscored else s.values["right"][name] for s in scores] for name in conditions], dtype=np.float64)
    text = lambda values: ("image", np.array(list(values), dtype=object))  # noqa: E731
    kept = [s for s in scores if not s.unscored]
    floor = "" if kept else "nothing was scored"
    if kept:
        k, n = int(np.nansum(table[0])), int(np.isfinite(table[0]).sum())
        if wilson(k, n).low <= 1 / len(DIGITS):
            floor = f"its accuracy of {k / n:.1%} is not above chance"
    values = xr.Dataset(
        {"right": (("condition", "image"), table)},
        coords={
            "condition": np.array(list(conditions), dtype=object), "image": np.array([s.sample for s in scores], dtype=object),
            "digit": text(s.group for s in scores), "unscored": text(s.unscored for s in scores),
        },
        attrs={"asked": denominators(scores).model_dump(mode="json"), "floor": floor},
    )  # fmt: skip
    return ImageRobustnessResult(NAME, values)


def conditions_of(result: Result) -> list[str]:
    return list(map(str, result.values.condition.values))


def fall(result: Result, condition: str, beside: str = PLAIN, level: float = 0.95) -> Clustered:
    """The mean over images of right under ``condition`` less right ``beside`` it."""
    v = result.values.right
    gap = v.sel(condition=condition).values - v.sel(condition=beside).values
    return mean_of(gap, result.values.image.values.astype(str), level, bounds=(-1.0, 1.0))


def _p(result: Result, condition: str, beside: str) -> float:
    a, b = (result.values.right.sel(condition=name).values for name in (condition, beside))
    return mcnemar_exact(int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum()))


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """Each corruption and attack against the images as they are (an attack against random signs too), and each against the reference."""
    pairs = [(name, PLAIN) for name in conditions_of(result)[1:]]
    pairs += [(name, f"random {name.split()[1]}") for name in conditions_of(result) if name.startswith("attack")]
    kept = np.isfinite(result.values.right.values).any()
    adjusted = holm([_p(result, *pair) for pair in pairs]) if kept and pairs else [None] * len(pairs)
    out = [_fall(result, pair, p, subject, level) for pair, p in zip(pairs, adjusted, strict=True)]
    if reference is not None:
        out += [_against(result, reference, name, subject, level) for name in conditions_of(result)]
    return out


def _fall(result: Result, pair: tuple[str, str], p: float | None, subject: str, level: float) -> Finding:
    (name, beside), floor = pair, result.values.attrs["floor"]
    found = fall(result, name, beside, level)
    verdict, because = decide(found.value, found.interval, null=0.0, detectable=found.detectable, applicable=not floor)
    left = result.values.right.sel(condition=name).values
    return Finding(
        claim=f"images are classified otherwise under {name}" + ("" if beside == PLAIN else f" than under {beside}"), subject=subject,
        source=NAME, measure=f"difference in accuracy, {name}" + ("" if beside == PLAIN else f" beside {beside}"), effect=found.value,
        unit="share of images", interval=found.interval, verdict=verdict, because=floor or because, detectable=found.detectable,
        null=Null(name="unchanged", value=0.0, words=f"the same images, {beside}"),
        denominators=Denominators.parse(result.values.attrs["asked"]),
        details={**found.plain(), "p_holm": None if p is None else float(p), "accuracy": float(np.nanmean(left)) if found.n else None},
    )  # fmt: skip


def _against(result: Result, reference: Result, name: str, subject: str, level: float) -> Finding:
    v, r = result.values, reference.values
    there = name in conditions_of(reference)
    other = dict(zip(r.image.values.tolist(), r.right.sel(condition=name).values.tolist(), strict=True)) if there else {}
    gap = v.right.sel(condition=name).values - np.array([other.get(image, np.nan) for image in v.image.values.tolist()])
    found = mean_of(gap, v.image.values.astype(str), level, bounds=(-1.0, 1.0))
    floor = v.attrs["floor"] or r.attrs["floor"]
    verdict, because = decide(
        found.value, found.interval, null=0.0, detectable=found.detectable, paired="higher is better", applicable=not floor
    )
    whole = Denominators.parse(v.attrs["asked"])
    lost = whole.scored - found.n
    return Finding(
        claim=f"images are classified otherwise than by the reference, {name}", subject=subject, source=NAME,
        measure=f"difference in accuracy from the reference, {name}", effect=found.value, unit="share of images",
        interval=found.interval, verdict=verdict, because=floor or because, detectable=found.detectable,
        null=Null(name="reference", value=0.0, words="the reference model on the same images"),
        denominators=Denominators(
            run=whole.run, scored=whole.scored - lost, unscored={**whole.unscored, **({"not in the reference": lost} if lost else {})}
        ),
        details=found.plain(),
    )  # fmt: skip
