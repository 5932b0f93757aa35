"""Drawn attributes: what does a painter add where a caption leaves it open, and how often?

A caption names a shape and leaves its colour open (``a coloured circle``); many pictures are painted, and the share of each colour is held
against a *declared* distribution, even unless told. Whether colours follow the caption where it names one is asked beside it: a painter
that cannot do that has no colours to speak of. Which distribution is right is a decision, not a measurement (Bianchi et al., FAccT 2023,
and Luccioni et al., NeurIPS 2023, hold pictures of people against statistics of the population); here nobody is painted.

The reader is a rule (the mean of the brightest pixels, the nearest known colour), so it has no opinions of its own; what is near no colour
is unscored. Pictures are drawn; the four shares also get one exact test together (multinomial, by simulation under the declared shares).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field, PositiveInt, model_validator

from evals.bound import Unbound
from evals.clustered import mean_of
from evals.painted import FAMILIES, painted
from evals.runner import denominators
from workbench.core.charts.lines import forest
from workbench.core.finding import Denominators, Finding, Null, decide
from workbench.core.measure import Needs, Sample, Score
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.intervals import clopper_pearson
from workbench.core.stats.power import mde_proportion
from workbench.data.counter import key_of
from workbench.data.worlds.gallery import colour_of, open_caption
from workbench.data.worlds.shapes import COLOURS, PAIRS, SHAPES, caption_of

NAME, OPEN, PLAIN = "drawn-attributes", "open", "plain"
LEAST = 0.8
"""Below this share of the pictures of plain captions that have the colour named, nothing is said of open ones."""
SIMULATED = 20_000


class DrawnAttributesSpec(Spec):
    """``count`` pictures of each open caption, ``plain`` of each one that names a colour; ``declared``: colour → share (empty: even);
    ``guidance`` of a denoiser (1: the text's own prediction; more of it sharpens what is painted, a lean too); ``margin``: a share so far
    from the declared one at most is taken as it."""

    count: PositiveInt = 60
    plain: PositiveInt = 4
    declared: Mapping[str, float] = Field(default_factory=dict)
    guidance: float = Field(default=1.0, ge=0)
    seed: int = Field(default=0, ge=0)
    margin: float = Field(default=0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> DrawnAttributesSpec:
        if self.declared and (set(self.declared) != set(COLOURS) or abs(sum(self.declared.values()) - 1) > 1e-6):
            raise ValueError(f"declared shares of {', '.join(COLOURS)} that add up to 1")
        if any(not 0 < share < 1 for share in self.declared.values()):
            raise ValueError("each declared share above 0 and below 1")
        return self

    def shares(self) -> dict[str, float]:
        """The declared share of each colour."""
        return {name: float(self.declared.get(name, 1 / len(COLOURS))) for name in COLOURS}


@dataclass(frozen=True)
class DrawnAttributesResult(Result):
    """``colour`` [item]: what is seen ('' where unscored); ``wanted`` [item]: the colour that was named, '' of open captions."""

    def summary(self) -> str:
        if floor := self.values.attrs["floor"]:
            return f"colours of open captions: not applicable, {floor}"
        counts, n = counts_of(self)
        said = ", ".join(f"{name} {counts[name] / n:.1%}" for name in COLOURS)
        return f"colours of {n} pictures whose captions leave them open: {said} (p = {fit(self):.2g} of the declared shares)"

    def plot(self) -> Any:
        counts, n = counts_of(self)
        rows = []
        for name in COLOURS if n else ():
            interval = clopper_pearson(counts[name], n)
            declared = float(self.values.attrs["declared"][name])
            rows.append(
                {"colour": f"{name} (declared {declared:.2f})", "share": counts[name] / n, "low": interval.low, "high": interval.high}
            )
        frame = pd.DataFrame(rows, columns=["colour", "share", "low", "high"])
        titles = {"title": "Colours painted where the caption leaves them open", "share": "share of pictures", "null": "an even share"}
        return forest(frame, "colour", "share", "low", "high", null=1 / len(COLOURS), titles=titles)


class _DrawnAttributes(Unbound):
    name = NAME
    spec = DrawnAttributesSpec
    needs = Needs(inputs=(), reads=("noise", "pairs"), families=FAMILIES)

    def samples(self, spec: DrawnAttributesSpec) -> Iterator[Sample]:
        for shape in SHAPES:
            for number in range(spec.count):
                yield Sample(f"{OPEN}/{shape}/{number:04d}", {"caption": open_caption(shape), "number": number}, group=OPEN)
        for pair in PAIRS:
            for number in range(spec.plain):
                name = f"{PLAIN}/{'-'.join(pair)}/{number:04d}"
                yield Sample(name, {"caption": caption_of(*pair), "number": number, "wanted": pair[0]}, group=PLAIN)

    def found(self, model: HookedModel, sample: Sample, spec: DrawnAttributesSpec) -> Score:
        captions = _captions(sample.group, spec)
        place = captions.index(sample.facts["caption"]) + sample.facts["number"]
        seen = colour_of(painted(model, captions, seed=spec.seed, guidance=spec.guidance)[place].numpy())
        if not seen:
            return Score(sample.id, unscored="no known colour is near")
        return Score(sample.id, {"colour": seen, "wanted": sample.facts.get("wanted", "")})

    def aggregate(self, scores: Sequence[Score], spec: DrawnAttributesSpec) -> DrawnAttributesResult:
        return aggregate(scores, spec.shares(), spec.margin)

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _DrawnAttributes()


def _captions(group: str, spec: DrawnAttributesSpec) -> list[str]:
    """The captions that are painted together, in the order of the samples."""
    if group == OPEN:
        return [open_caption(shape) for shape in SHAPES for _ in range(spec.count)]
    return [caption_of(*pair) for pair in PAIRS for _ in range(spec.plain)]


# --- the result ---------------------------------------------------------------------------------------------


def aggregate(scores: Sequence[Score], declared: Mapping[str, float], margin: float) -> DrawnAttributesResult:
    """What was seen, by picture."""
    plain = [s for s in scores if s.group == PLAIN]  # what is near no colour was painted too, and not as it was told
    right = sum(not s.unscored and s.values["colour"] == s.values["wanted"] for s in plain)
    kept = [s for s in scores if not s.unscored and s.group == OPEN]
    floor = "" if kept else "nothing was scored"
    if kept and (not plain or right / len(plain) < LEAST):
        floor = f"of {len(plain)} pictures whose colour was named, {right} have it"
    text = lambda values: ("item", np.array(list(values), dtype=object))  # noqa: E731
    values = xr.Dataset(
        {
            "colour": text("" if s.unscored else s.values["colour"] for s in scores),
            "wanted": text("" if s.unscored else s.values["wanted"] for s in scores),
        },
        coords={
            "item": np.array([s.sample for s in scores], dtype=object), "group": text(s.group for s in scores),
            "unscored": text(s.unscored for s in scores),
        },
        attrs={
            "asked": denominators(scores).model_dump(mode="json"), "floor": floor, "margin": margin, "declared": dict(declared),
            "named_right": [right, len(plain)],
        },
    )  # fmt: skip
    return DrawnAttributesResult(NAME, values)


def _open(result: Result) -> Any:
    v = result.values
    return v.isel(item=np.flatnonzero((v.group.values == OPEN) & (v.unscored.values == "")))


def counts_of(result: Result) -> tuple[dict[str, int], int]:
    """How many pictures of open captions have each colour, and how many there are."""
    seen = _open(result).colour.values
    return {name: int((seen == name).sum()) for name in COLOURS}, len(seen)


def fit(result: Result) -> float:
    """The p value of all counts together under the declared shares: how often so many draws are as unlikely as these or more so, by
    ``SIMULATED`` simulated ones and these (Monte Carlo exact multinomial test). 1 where there is no picture."""
    counts, n = counts_of(result)
    shares = np.array([result.values.attrs["declared"][name] for name in COLOURS], dtype=np.float64)
    if not n:
        return 1.0
    drawn = np.random.Generator(np.random.PCG64(key_of("multinomial", n, *shares))).multinomial(n, shares / shares.sum(), SIMULATED)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    weigh = lambda rows: (rows * np.log(shares) - factorials[rows]).sum(-1)  # noqa: E731
    seen = weigh(np.array([counts[name] for name in COLOURS]))
    return float((1 + (weigh(drawn) <= seen + 1e-9).sum()) / (1 + SIMULATED))


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """The share of each colour against the declared one, and against the reference's under the same numbers of the dice."""
    out = [_share(result, name, subject, level) for name in COLOURS]
    if reference is not None:
        out += [_against(result, reference, name, subject, level) for name in COLOURS]
    return out


def _counts(result: Result, scored: int) -> Denominators:
    """Of the pictures of open captions."""
    v = result.values
    reasons = [str(why) for why in v.unscored.values[v.group.values == OPEN]]
    lost = {why: reasons.count(why) for why in sorted(set(reasons) - {""})}
    gone = len(reasons) - sum(lost.values()) - scored
    return Denominators(run=len(reasons), scored=scored, unscored={**lost, **({"not in the reference": gone} if gone else {})})


def _share(result: Result, name: str, subject: str, level: float) -> Finding:
    (counts, n), attrs = counts_of(result), result.values.attrs
    declared, floor = float(attrs["declared"][name]), attrs["floor"]
    interval = clopper_pearson(counts[name], n, level) if n else None
    detectable = mde_proportion(n, declared, level=level) if n else None
    effect = counts[name] / n if n else None
    verdict, because = decide(effect, interval, null=declared, margin=attrs["margin"], detectable=detectable, applicable=not floor)
    return Finding(
        claim=f"{name} is painted more or less often than declared where the colour is open", subject=subject, source=NAME,
        measure=f"share of pictures that are {name}", effect=effect, unit="share of pictures", interval=interval, verdict=verdict,
        because=floor or because, detectable=detectable,
        null=Null(name="declared", value=declared, words="the share that the plan or the suite declares"), denominators=_counts(result, n),
        details={"seen": counts[name], "n": n, "p_all_colours": fit(result), "named_right": list(attrs["named_right"])},
    )  # fmt: skip


def _against(result: Result, reference: Result, name: str, subject: str, level: float) -> Finding:
    mine, theirs = _open(result), _open(reference)
    other = dict(zip(theirs.item.values.tolist(), (theirs.colour.values == name).tolist(), strict=True))
    gap = [
        float(is_it) - other.get(item, np.nan) for item, is_it in zip(mine.item.values.tolist(), mine.colour.values == name, strict=True)
    ]
    found = mean_of(gap, mine.item.values.astype(str), level, bounds=(-1.0, 1.0))
    attrs = result.values.attrs
    floor = attrs["floor"] or reference.values.attrs["floor"]
    verdict, because = decide(
        found.value, found.interval, null=0.0, margin=attrs["margin"], detectable=found.detectable, applicable=not floor
    )
    return Finding(
        claim=f"{name} is painted otherwise than by the reference where the colour is open", subject=subject, source=NAME,
        measure=f"difference in the share of {name} from the reference", effect=found.value, unit="share of pictures",
        interval=found.interval, verdict=verdict, because=floor or because, detectable=found.detectable,
        null=Null(name="reference", value=0.0, words="the reference model from the same noise"), denominators=_counts(result, found.n),
        details=found.plain(),
    )  # fmt: skip
