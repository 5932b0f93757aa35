"""Speaker gaps: is what some people say understood less often than what others say, and does noise hit them alike?

Spoken digits of known speakers (the authors' test recordings), each heard as it is and under white noise. A speaker's *gap* is the mean
over digits of the error rate of that speaker's recordings less that of all others' recordings of the same digit, so that what is said is
the same; digits are drawn, and intervals hold for all speakers together (Bonferroni). It is a statement about that one voice.

A statement about *groups* (accents, ages) is about people, so there whole speakers are drawn: with fewer than six in all there is a value
and no interval (Koenecke et al., PNAS 2020, had 115). ``groups`` names each speaker's group. Recordings may also come from the generated
``voices``, whose groups and planted faults are known; they are no people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from evals.bound import Unbound
from evals.clustered import Clustered, between, mean_of
from evals.runner import denominators
from evals.transcripts import distance
from workbench.core.charts.lines import forest
from workbench.core.errors import BadValue, EmptySelection
from workbench.core.finding import Denominators, Finding, Null, decide
from workbench.core.measure import Needs, Sample, Score
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.core.spec import Spec, later
from workbench.core.stats.resampling import fewest
from workbench.data.corpora import BEGIN, SpokenDigit, by_recording, digit_rows, spoken_digits
from workbench.data.counter import key_of
from workbench.data.worlds.voices import Voices, VoicesSpec
from workbench.engine.transcribe import greedy

NAME, CLEAN = "speaker-gaps", "as it is"
Floats = NDArray[np.float64]


class SpeakerGapsSpec(Spec):
    """``folder``: recordings named digit_speaker_number.wav (none: the registered set's test recordings). ``noise``: signal-to-noise ratios
    in dB of white noise that is added. ``groups``: speaker → group. ``world``: the generated voices whose held-out recordings are heard
    instead, in groups of their own unless told. ``each_speaker``: also a finding on every single speaker."""

    folder: str = ""
    world: VoicesSpec | None = later(None)
    each_speaker: bool = later(True)
    noise: tuple[float, ...] = (20.0, 10.0)
    groups: Mapping[str, str] = Field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class SpeakerGapsResult(Result):
    """``error`` [condition, item]: 1 where another digit was understood (NaN where unscored); ``speaker``, ``digit``, ``group`` [item]."""

    def summary(self) -> str:
        if floor := self.values.attrs["floor"]:
            return f"errors by speaker: not applicable, {floor}"
        parts = []
        for condition in map(str, self.values.condition.values):
            whole = float(np.nanmean(self.values.error.sel(condition=condition).values))
            gaps = {name: found.value for name, found in shown(self, condition).items()}
            known = {name: value for name, value in gaps.items() if value is not None}
            worst = max(known, key=lambda name: known[name], default="")
            parts.append(f"{condition} {whole:.1%} wrong" + (f", {worst} {known[worst]:+.1%} beside the others" if worst else ""))
        return f"errors by speaker: {'; '.join(parts)}"

    def plot(self) -> Any:
        rows = []
        for condition in map(str, self.values.condition.values):
            for name, found in shown(self, condition).items():
                low, high = (np.nan, np.nan) if found.interval is None else (found.interval.low, found.interval.high)
                if found.value is not None:
                    rows.append({"speaker": f"{name}, {condition}", "gap": found.value, "low": low, "high": high})
        whose = "speaker, less that of the others on the same digits" if each_speaker(self) else "group's speakers, less that of the others"
        titles = {"title": f"Error rate of a {whose}", "gap": "difference", "null": "none"}
        frame = pd.DataFrame(rows, columns=["speaker", "gap", "low", "high"])
        return forest(frame, "speaker", "gap", "low", "high", null=0.0, titles=titles)


class _SpeakerGaps(Unbound):
    name = NAME
    spec = SpeakerGapsSpec
    domain = "voices"
    instead_of_world = ("folder",)
    needs = Needs(abilities=frozenset({"logits"}), inputs=(), reads=("sequences",), families=("whisper",))

    def samples(self, spec: SpeakerGapsSpec) -> Iterator[Sample]:
        if spec.folder and spec.world is not None:
            raise BadValue("folder", spec.folder, "left out where `world` says which voices are heard")
        heard = recordings(spec.folder, _written(spec.world))
        known = sorted({one.speaker for one in heard})
        groups = spec.groups or (Voices(spec.world).groups if spec.world is not None else {})
        for name in groups:
            if name not in known:
                raise EmptySelection("speaker", name, known, where="these recordings")
        if groups and len(groups) < len(known):
            raise BadValue("groups", sorted(groups), f"a group for each of {', '.join(known)}")
        if not (groups or spec.each_speaker):
            raise BadValue("each_speaker", False, "true where there are no groups: nothing would be asked")
        for one in heard:
            facts = {"digit": one.digit, "speaker": one.speaker, "number": one.number, "samples": len(one.wave), "rate": one.rate,
                     "sha256": hashlib.sha256(one.wave.tobytes()).hexdigest()}  # fmt: skip
            yield Sample(f"{one.speaker}/{one.digit}/{one.number:03d}", facts, cluster=one.speaker, group=groups.get(one.speaker, ""))

    def found(self, model: HookedModel, sample: Sample, spec: SpeakerGapsSpec) -> Score:
        f = sample.facts
        one = _indexed(spec.folder, _written(spec.world))[(f["speaker"], f["digit"], f["number"])]
        heard = [one, *(_noisy(one, level, spec.seed) for level in spec.noise)]
        rows = digit_rows(heard)
        said = greedy(model, rows.batch(range(len(heard))), begin=BEGIN, end=None, most=1)
        names = [CLEAN, *(f"{level:g} dB" for level in spec.noise)]
        faults = {name: float(distance(digits, [one.digit])) for name, digits in zip(names, said, strict=True)}
        return Score(sample.id, {"error": faults, "digit": one.digit})

    def aggregate(self, scores: Sequence[Score], spec: SpeakerGapsSpec) -> SpeakerGapsResult:
        return aggregate(scores, [CLEAN, *(f"{level:g} dB" for level in spec.noise)])

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _SpeakerGaps()


def _written(world: VoicesSpec | None) -> str:
    return "" if world is None else world.canonical()


@lru_cache(maxsize=2)
def recordings(folder: str, world: str = "") -> tuple[SpokenDigit, ...]:
    """One's own recordings, those of a generated world (its spec as JSON) that are held out, or the registered test recordings. Raises
    MissingFile, CorruptFile, MissingData."""
    if world:
        return tuple(Voices(VoicesSpec.parse(json.loads(world))).recordings("test"))
    return tuple(spoken_digits(Path(folder))) if folder else tuple(by_recording(spoken_digits())["test"])


@lru_cache(maxsize=2)
def _indexed(folder: str, world: str) -> dict[tuple[str, int, int], SpokenDigit]:
    return {(one.speaker, one.digit, one.number): one for one in recordings(folder, world)}


def _noisy(one: SpokenDigit, level: float, seed: int) -> SpokenDigit:
    """With white noise of so many dB below the recording's own mean power; a silent one stays silent."""
    by = np.random.Generator(np.random.PCG64(key_of("noise", seed, one.speaker, one.digit, one.number, level)))
    power = float((one.wave.astype(np.float64) ** 2).mean())
    noise = by.normal(0, (power / 10 ** (level / 10)) ** 0.5, len(one.wave)) if power else np.zeros(len(one.wave))
    return SpokenDigit(one.digit, one.speaker, one.number, (one.wave + noise).astype(np.float32), one.rate)


# --- the result ---------------------------------------------------------------------------------------------


def aggregate(scores: Sequence[Score], conditions: Sequence[str]) -> SpeakerGapsResult:
    """Errors by condition and recording."""
    table = np.array([[np.nan if s.unscored else s.values["error"][name] for s in scores] for name in conditions], dtype=np.float64)
    text = lambda values: ("item", np.array(list(values), dtype=object))  # noqa: E731
    kept = [s for s in scores if not s.unscored]
    floor = "" if kept else "nothing was scored"
    if kept and np.nanmean(table[0]) > 0.85:
        floor = f"its {1 - float(np.nanmean(table[0])):.0%} of digits understood are about chance"
    values = xr.Dataset(
        {"error": (("condition", "item"), table)},
        coords={
            "condition": np.array(list(conditions), dtype=object), "item": np.array([s.sample for s in scores], dtype=object),
            "speaker": text(s.cluster for s in scores), "group": text(s.group for s in scores),
            "digit": text(s.sample.split("/")[1] for s in scores), "unscored": text(s.unscored for s in scores),
        },
        attrs={"asked": denominators(scores).model_dump(mode="json"), "floor": floor},
    )  # fmt: skip
    return SpeakerGapsResult(NAME, values)


def speakers_of(result: Result) -> list[str]:
    return sorted(set(map(str, result.values.speaker.values)))


def groups_of(result: Result) -> list[str]:
    return sorted({str(name) for name in result.values.group.values if name})


def each_speaker(result: Result) -> bool:
    """Whether single speakers are spoken of."""
    return bool(result.spec.get("each_speaker", True))


def shown(result: Result, condition: str) -> dict[str, Clustered]:
    """What is told in short: every speaker's gap, or that of every group where single speakers are not spoken of."""
    if each_speaker(result):
        return {name: gap(result, condition, name) for name in speakers_of(result)}
    return {name: group_gap(result, condition, name) for name in groups_of(result)}


def gap(result: Result, condition: str, speaker: str, level: float = 0.95) -> Clustered:
    """A speaker's error rate less the others' on the same digits, at a level that holds for all speakers together."""
    v = result.values
    error, own = v.error.sel(condition=condition).values, v.speaker.values == speaker
    kept, digits = np.isfinite(error), v.digit.values.astype(str)
    gaps, names = [], []
    for digit in sorted(set(digits[kept].tolist())):
        here = kept & (digits == digit)
        if (here & own).any() and (here & ~own).any():
            gaps.append(float(error[here & own].mean() - error[here & ~own].mean()))
            names.append(digit)
    count = len(speakers_of(result))
    found = mean_of(gaps, names, 1 - (1 - level) / (count if count > 2 else 1), bounds=(-1.0, 1.0))
    if found.interval is None:
        return found
    interval = found.interval.model_copy(update={"level": level, "method": f"{found.interval.method}; Bonferroni over {count} speakers"})
    return Clustered(found.value, interval, int(kept.sum()), found.units, found.detectable)


def group_gap(result: Result, condition: str, group: str, level: float = 0.95) -> Clustered:
    """The mean error rate of a group's speakers less that of the others', each speaker one number."""
    v = result.values
    error = v.error.sel(condition=condition).values
    sides: tuple[list[float], list[float]] = ([], [])
    for name in speakers_of(result):
        own = (v.speaker.values == name) & np.isfinite(error)
        if own.any():
            sides[str(v.group.values[own][0]) != group].append(float(error[own].mean()))
    count, n = sum(map(len, sides)), int(np.isfinite(error).sum())
    if not all(sides):
        return Clustered(None, None, n, count)
    value = float(np.mean(sides[0]) - np.mean(sides[1]))
    if count < fewest(level) or min(map(len, sides)) < 2:
        return Clustered(value, None, n, count)
    return Clustered(value, between(*sides, level, (0.0, 1.0)), n, count)


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """By condition each speaker's gap and each group's, and the error rate against the reference's on the same recordings."""
    out = []
    groups = groups_of(result)
    for condition in map(str, result.values.condition.values):
        for name in speakers_of(result) if each_speaker(result) else []:
            claim = f"{name} is misheard more or less often than the others"
            out.append(_finding(result, condition, claim, f"speaker {name}", gap(result, condition, name, level), subject))
        for name in groups:
            claim = f"speakers of group {name} are misheard more or less often than others"
            out.append(_finding(result, condition, claim, f"group {name}", group_gap(result, condition, name, level), subject))
        if reference is not None:
            out.append(_against(result, reference, condition, subject, level))
    return out


def _finding(result: Result, condition: str, claim: str, who: str, found: Clustered, subject: str) -> Finding:
    v, floor = result.values, result.values.attrs["floor"]
    verdict, because = decide(found.value, found.interval, null=0.0, detectable=found.detectable, applicable=not floor)
    if found.interval is None and not floor and found.units:
        because = f"{found.units} {'speakers' if who.startswith('group') else 'digits'} are too few for an interval"
    scored = v.error.sel(condition=condition).values
    return Finding(
        claim=claim, subject=subject, source=NAME, measure=f"difference in error rate, {who}, {condition}", effect=found.value,
        unit="share of recordings", interval=found.interval, verdict=verdict, because=floor or because, detectable=found.detectable,
        null=Null(name="no gap", value=0.0, words="as often wrong as the others"), denominators=Denominators.parse(v.attrs["asked"]),
        details={**found.plain(), "error_rate": float(np.nanmean(scored)) if np.isfinite(scored).any() else None},
    )  # fmt: skip


def _against(result: Result, reference: Result, condition: str, subject: str, level: float) -> Finding:
    v, r = result.values, reference.values
    there = condition in r.condition.values.tolist()
    other = dict(zip(r.item.values.tolist(), r.error.sel(condition=condition).values.tolist(), strict=True)) if there else {}
    gaps = v.error.sel(condition=condition).values - np.array([other.get(item, np.nan) for item in v.item.values.tolist()])
    kept, speakers = np.isfinite(gaps), v.speaker.values.astype(str)
    enough = len(set(speakers[kept].tolist())) >= fewest(level)
    clusters = speakers if enough else v.item.values.astype(str)
    found = mean_of(gaps, clusters, level, bounds=(-1.0, 1.0))
    floor = v.attrs["floor"] or r.attrs["floor"]
    verdict, because = decide(
        found.value, found.interval, null=0.0, detectable=found.detectable, paired="higher is worse", applicable=not floor
    )
    whole = Denominators.parse(v.attrs["asked"])
    lost = whole.scored - int(kept.sum())
    return Finding(
        claim="digits are understood less often than by the reference", subject=subject, source=NAME,
        measure=f"difference in error rate from the reference, {condition}", effect=found.value, unit="share of recordings",
        interval=found.interval, verdict=verdict, because=floor or because, detectable=found.detectable,
        null=Null(name="reference", value=0.0, words="the reference model on the same recordings"),
        denominators=Denominators(
            run=whole.run, scored=whole.scored - lost, unscored={**whole.unscored, **({"not in the reference": lost} if lost else {})}
        ),
        details={**found.plain(), "drawn": "speakers" if enough else "recordings: speakers are too few"},
    )  # fmt: skip
