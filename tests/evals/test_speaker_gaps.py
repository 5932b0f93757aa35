"""Speaker gaps: a voice that is planted to be misheard is found, matched by digit; groups of few speakers have no interval."""

from __future__ import annotations

import wave as wav
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evals.bound import bound
from evals.runner import run_suite
from evals.suites.speaker_gaps import CLEAN, SUITE, SpeakerGapsSpec, _noisy, aggregate, group_gap, recordings
from workbench.core.errors import BadValue, CorruptFile, EmptySelection, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.data import sources
from workbench.data.corpora import BEGIN, SpokenDigit
from workbench.data.worlds.voices import VoicesSpec
from workbench.families.whisper import Whisper, WhisperConfig


def write(folder: Path, speakers: tuple[str, ...] = ("ann", "bea", "cid"), digits: int = 8, each: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    by = np.random.default_rng(0)
    for speaker in speakers:
        for digit in range(digits):
            for number in range(each):
                samples = (3000 * np.sin(np.arange(1600) * (0.1 + digit / 20)) + by.normal(0, 50, 1600)).astype("<i2")
                with wav.open(str(folder / f"{digit}_{speaker}_{number}.wav"), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(8000)
                    file.writeframes(samples.tobytes())
    return folder


def listener(seed: int = 0) -> Whisper:
    """A tiny listener that was not trained."""
    shape = {"source": "mel", "n_mels": 40, "d_vocab": BEGIN + 1, "n_ctx": 1, "n_layers_encoder": 1, "n_layers_decoder": 1, "d_model": 16}
    return Whisper(WhisperConfig.parse({**shape, "n_heads": 2, "n_ctx_source": 50}), seed=seed).eval()


def result(wrong: dict[str, float], *, groups: dict[str, str] | None = None, each: int = 8, seed: int = 0) -> Result:
    """Recordings of each speaker that are misheard at a rate; digits 0 to 4 are harder for everybody."""
    by, out = np.random.default_rng(seed), []
    for speaker, rate in wrong.items():
        for digit in range(10):
            for number in range(each):
                missed = float(by.random() < min(1, rate + 0.1 * (digit < 5)))
                name = f"{speaker}/{digit}/{number:03d}"
                out.append(Score(name, {"error": {CLEAN: missed}, "digit": digit}, cluster=speaker, group=(groups or {}).get(speaker, "")))
    return aggregate(out, [CLEAN])


def test_a_planted_gap_is_found_and_alike_voices_are_not_accused() -> None:
    found = {f.measure.split(", ")[1]: f for f in SUITE.findings(result({"ann": 0.5, "bea": 0.05, "cid": 0.05}), subject="m")}
    assert found["speaker ann"].verdict == Verdict.DETECTED
    assert found["speaker ann"].effect == pytest.approx(0.45, abs=0.12)
    assert "Bonferroni over 3 speakers" in str(found["speaker ann"].interval)
    even = [f for seed in range(8) for f in SUITE.findings(result(dict.fromkeys(("ann", "bea", "cid"), 0.2), seed=seed), subject="m")]
    assert [f.verdict for f in even].count(Verdict.DETECTED) <= 2
    deaf = SUITE.findings(result(dict.fromkeys(("ann", "bea", "cid"), 0.95)), subject="m")[0]
    assert deaf.verdict == Verdict.NOT_APPLICABLE


def test_what_is_said_is_matched() -> None:
    """One speaker says only the hard digits: over all recordings the gap would be 0.05, digit by digit it is none."""
    whole = result({"ann": 0.0, "bea": 0.0}, each=400)
    v = whole.values
    kept = ~((v.speaker.values == "ann") & (v.digit.values.astype(int) >= 5))
    part = type(whole)(whole.kind, v.isel(item=np.flatnonzero(kept)))
    finding = SUITE.findings(part, subject="m")[0]
    assert finding.effect == pytest.approx(0.0, abs=0.02)
    error = part.values.error.values[0]
    plain = error[part.values.speaker.values == "ann"].mean() - error[part.values.speaker.values == "bea"].mean()
    assert plain == pytest.approx(0.05, abs=0.015)


def test_groups_are_of_people_and_not_of_recordings() -> None:
    """Four speakers in two groups: 0.3 apart over 640 recordings, and no interval; with ten speakers there is one, wider than by
    recordings."""
    few = {"ann": "a", "bea": "a", "cid": "b", "dot": "b"}
    rates = {"ann": 0.45, "bea": 0.35, "cid": 0.05, "dot": 0.15}
    found = next(f for f in SUITE.findings(result(rates, groups=few, each=16), subject="m") if "group a" in f.measure)
    assert found.effect == pytest.approx(0.3, abs=0.08)
    assert found.interval is None
    assert "4 speakers are too few" in found.because
    names = "abcdefghij"
    many = result(
        {name * 3: 0.1 + 0.05 * (k % 5) for k, name in enumerate(names)}, groups={name * 3: "xy"[k % 2] for k, name in enumerate(names)}
    )
    gap = group_gap(many, CLEAN, "x")
    assert gap.units == 10
    assert gap.interval is not None
    assert not gap.interval.excludes(0)


def test_two_listeners_are_compared_on_the_same_recordings() -> None:
    worse = SUITE.findings(result({"ann": 0.4, "bea": 0.4}), subject="m", reference=result({"ann": 0.05, "bea": 0.05}, seed=1))[-1]
    assert worse.verdict == Verdict.WORSE
    assert worse.details["drawn"].startswith("recordings")


class Oracle:
    """Understands the first of what it is given as 3 and the rest as 4."""

    family, reads, abilities, tokenizer, config = "whisper", "sequences", frozenset({"logits"}), None, None

    def digest(self) -> str:
        return "oracle"

    def weight(self, name: str) -> Any:
        raise AssertionError(name)

    def sites(self) -> Any:
        return {}

    def run(self, batch: Any, **_: Any) -> Any:
        logits = torch.full((len(batch.source), 1, BEGIN + 1), -9.0)
        logits[0, 0, 3], logits[1:, 0, 4] = 0.0, 0.0
        return type("Trace", (), {"logits": logits, "past": None})()


def test_every_recording_is_heard_clean_and_in_noise(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "spoken"))
    spec = SpeakerGapsSpec.parse({"folder": folder, "noise": (20.0, 0.0)})
    oracle: Any = Oracle()
    sample = next(s for s in SUITE.samples(spec) if s.facts["digit"] == 3)
    found = SUITE.found(oracle, sample, spec)
    assert found.values["error"] == {CLEAN: 0.0, "20 dB": 1.0, "0 dB": 1.0}
    one = recordings(folder)[0]
    added = [float(((_noisy(one, level, 0).wave - one.wave) ** 2).mean() / (one.wave**2).mean()) for level in (20.0, 0.0)]
    assert added == [pytest.approx(0.01, rel=0.1), pytest.approx(1.0, rel=0.1)]
    assert np.array_equal(_noisy(one, 10.0, 1).wave, _noisy(one, 10.0, 1).wave)
    silent = SpokenDigit(0, "ann", 0, np.zeros(800, dtype=np.float32), 8000)
    assert not _noisy(silent, 10.0, 0).wave.any()
    model = listener()
    assert run_suite(bound(SUITE, model), model, spec).values.attrs["asked"]["scored"] == 24


def test_recordings_that_sound_otherwise_are_other_samples_whatever_their_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "spoken")
    spec = SpeakerGapsSpec.parse({"folder": str(folder)})
    before = {one.id: one.facts["sha256"] for one in SUITE.samples(spec)}
    assert len(set(before.values())) == len(before)
    changed, *_ = sorted(folder.rglob("*.wav"))
    changed.write_bytes(changed.read_bytes()[:-2] + b"\x11\x11")
    recordings.cache_clear()
    after = {one.id: one.facts["sha256"] for one in SUITE.samples(spec)}
    assert [one for one in before if before[one] != after[one]] == [next(iter(sorted(before)))]


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="recordings named"):
        list(SUITE.samples(SpeakerGapsSpec.parse({"folder": str(tmp_path)})))
    folder = write(tmp_path / "spoken")
    spec = {"folder": str(folder)}
    with pytest.raises(EmptySelection, match="matches no speaker"):
        list(SUITE.samples(SpeakerGapsSpec.parse({**spec, "groups": {"zoe": "x"}})))
    with pytest.raises(BadValue, match="a group for each of"):
        list(SUITE.samples(SpeakerGapsSpec.parse({**spec, "groups": {"ann": "x"}})))
    other = write(tmp_path / "other")
    (other / "one.wav").write_bytes((folder / "0_ann_0.wav").read_bytes())
    with pytest.raises(CorruptFile, match="digit_speaker_number"):
        list(SUITE.samples(SpeakerGapsSpec.parse({"folder": str(other)})))
    third = write(tmp_path / "third")
    (third / "0_ann_0.wav").write_bytes(b"RIFF")
    with pytest.raises(CorruptFile, match="WAV"):
        list(SUITE.samples(SpeakerGapsSpec.parse({"folder": str(third)})))


@pytest.mark.skipif(not sources.mirror_folder() or not sources.available("fsdd"), reason="fsdd is not mirrored")
def test_the_registered_test_recordings() -> None:
    assert len(recordings("")) == 200  # four speakers, ten digits, five times


def test_groups_whose_speakers_are_all_alike_have_an_interval_that_many_speakers_narrow() -> None:
    """Without spread there is no t interval; fifteen alike on each side show a half, and two alike show nothing."""
    for each, verdict in ((15, Verdict.DETECTED), (3, Verdict.NOT_DETECTED)):
        names = {f"{side}-{n}": side for side in ("high", "low") for n in range(each)}
        scores = [
            Score(f"{name}/{digit}/000", {"error": {CLEAN: float(side == "high" and digit < 5)}, "digit": digit}, cluster=name, group=side)
            for name, side in names.items() for digit in range(10)
        ]  # fmt: skip
        found = group_gap(aggregate(scores, [CLEAN]), CLEAN, "high")
        assert found.value == 0.5
        assert found.interval is not None
        share = 1 - 0.025 ** (1 / each)  # the rule of three on each side, both at once
        assert found.interval.low == pytest.approx(0.5 * (1 - share) - share)
        assert [f.verdict for f in SUITE.findings(aggregate(scores, [CLEAN]), subject="m") if "group high" in f.measure] == [verdict]


def test_generated_voices_are_heard_in_their_groups_and_single_speakers_can_be_left_out(tmp_path: Path) -> None:
    world = VoicesSpec(seed=1, speakers=3, each=1, held_out=1)
    spec = SpeakerGapsSpec.parse({"world": world, "each_speaker": False, "noise": []})
    samples = list(SUITE.samples(spec))
    assert (len(samples), {s.group for s in samples}) == (60, {"high", "low"})
    model = listener()
    found = SUITE.findings(run_suite(bound(SUITE, model), model, spec), subject="m")
    assert sorted(f.measure for f in found) == [f"difference in error rate, group {name}, {CLEAN}" for name in ("high", "low")]
    with pytest.raises(BadValue, match="left out where `world`"):
        list(SUITE.samples(spec.model_copy(update={"folder": "somewhere"})))
    with pytest.raises(BadValue, match="nothing would be asked"):
        list(SUITE.samples(SpeakerGapsSpec.parse({"folder": str(write(tmp_path / "spoken")), "each_speaker": False})))
