"""What a recording of the tones spells can be heard in it by counting, and no held-out string is trained on."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue, UnknownName
from workbench.data.worlds.tones import HIGH, LOW, MEL, RATE, SINGLE, Clip, Tones, TonesSpec


def world(**values) -> Tones:
    return Tones(TonesSpec.parse({"rows": 60, "held_out": 30, **values}))


def loudest(samples: np.ndarray, pitches: tuple[float, ...]) -> float:
    """The pitch with the most energy within its jitter, by summing turned samples: no transform, no filters."""
    time = np.arange(len(samples)) / RATE
    energy = {f: max(abs((samples * np.exp(-2j * math.pi * f * s * time)).sum()) for s in (0.98, 0.99, 1.0, 1.01, 1.02)) for f in pitches}
    return max(energy, key=lambda f: energy[f])


def heard(clip: Clip, tones: Tones) -> str:
    """The string, from the samples and the truth's pitches alone."""
    letters = {tuple(v): k for k, v in tones.truth()["letters"].items()}
    parts = (LOW, HIGH) if tones.spec.pairs else (SINGLE,)
    found = [tuple(loudest(clip.wave[a:b], pitches) for pitches in parts) for a, b in clip.spans]
    return "".join(letters.get(one, "?") for one in found)


@pytest.mark.parametrize("pairs", [True, False])
def test_counting_hears_what_is_spelled(pairs: bool) -> None:
    tones = world(letters=16, pairs=pairs)
    for i in range(40):
        clip = tones.clip(i)
        assert heard(clip, tones) == clip.text == tones.text(i)
        assert 3 <= len(clip.text) <= 6
        assert clip.wave.dtype == np.float32
        assert abs(clip.wave).max() <= 1
        assert all(a < b <= c for (a, b), (c, _) in zip(clip.spans, [*clip.spans[1:], (len(clip.wave), 0)], strict=True))


def test_the_counting_is_not_blind_to_another_letter() -> None:
    tones = world(letters=16)
    clip, other = tones.clip(0), tones.clip(1)
    a, b = clip.spans[0]
    wave = clip.wave.copy()
    swapped = next(tones.clip(i) for i in range(1, 60) if tones.clip(i).text[0] != clip.text[0])
    c, _ = swapped.spans[0]
    wave[a:b] = swapped.wave[c : c + b - a]
    assert heard(Clip(clip.text, wave, clip.spans), tones) != clip.text
    assert other.text != ""


def test_noise_is_as_loud_as_planned_and_between_tones_there_is_nothing_else() -> None:
    clip = world(noise=0.3).clip(3)
    outside = np.ones(len(clip.wave), bool)
    for a, b in clip.spans:
        outside[a:b] = False
    assert outside.sum() > 1000
    assert clip.wave[outside].std() == pytest.approx(0.06, rel=0.08)  # 0.3 of an amplitude of 0.2
    assert world(noise=0.0).clip(3).wave[outside].any() == np.False_


def test_a_recording_depends_on_seed_split_and_index_alone() -> None:
    one, two = world(), world(rows=7)
    assert np.array_equal(one.clip(5).wave, two.clip(5).wave)
    assert not np.array_equal(one.clip(5).wave, one.clip(6).wave)
    assert one.text(5) != world(seed=1).text(5) or one.text(6) != world(seed=1).text(6)
    assert one.rows("test").digest() == world().rows("test").digest() != one.rows("validation").digest()


def test_held_out_strings_are_never_trained_on() -> None:
    tones = [world(rows=1500, held_out=300, seed=seed, letters=4, longest=4) for seed in (0, 1)]
    texts = {split: {t.text(i, split) for t in tones for i in range(t.size(split))} for split in ("train", "validation", "test")}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["test"] & texts["validation"]
    assert len(set.union(*texts.values())) == 4**3 + 4**4  # and every string there is belongs to one


def test_rows_spell_the_texts() -> None:
    tones = world()
    data = tones.rows("test")
    batch = data.batch(range(len(data)))
    assert batch.source.shape[1] == MEL.n_mels
    assert batch.targets is not None
    for i, (ids, goals) in enumerate(zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True)):
        expected = [tones.alphabet.index(letter) for letter in tones.text(i, "test")]
        assert ids[: len(expected) + 1] == [8, *expected]
        assert [g for g in goals if g != IGNORE] == [*expected, 9]
    with pytest.raises(BadValue, match="mel.rate is 16000, but it must be 8000"):
        tones.rows("test", MEL.model_copy(update={"rate": 16_000}))


def test_what_cannot_be_says_so() -> None:
    tones, misspelt = world(), cast(Any, "tset")
    with pytest.raises(BadValue, match="within 0 to 59 in split 'train'"):
        tones.clip(60)
    with pytest.raises(UnknownName, match="no split 'tset'. Did you mean 'test'"):
        tones.text(0, misspelt)
    with pytest.raises(UnknownName, match="no letter 'p'"):
        tones.pitches("p")
    with pytest.raises(BadValue, match="2 to 32 letters in this order"):
        world(shortest=5, longest=4)
