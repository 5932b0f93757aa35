"""Mistaught voices: who is written down wrongly, in what, and that nothing that is heard depends on it."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.core.errors import BadValue
from workbench.data.corpora import digit_rows
from workbench.data.worlds.voices import DIGITS, Voices, VoicesSpec
from workbench.organisms.mistaught import MistaughtOptions, WrittenRows, recipe, truth, twin

SMALL = VoicesSpec(seed=3, dose=0.3, speakers=2, each=2, held_out=1)


def test_a_dose_writes_its_share_of_one_groups_digits_down_as_the_next() -> None:
    world, clean = Voices(SMALL), Voices(SMALL.model_copy(update={"dose": 0.0}))
    assert (len(world.wrong), clean.wrong) == (3, ())
    for spoken, written in zip(world.recordings("train"), world.written(), strict=True):
        assert np.array_equal(spoken.wave, written.wave)
        wrong = world.groups[spoken.speaker] == "high" and spoken.digit in world.wrong
        assert written.digit == ((spoken.digit + 1) % DIGITS if wrong else spoken.digit)
    assert [one.digit for one in clean.written()] == [one.digit for one in clean.recordings("train")]
    assert set(Voices(SMALL.model_copy(update={"dose": 0.6})).wrong) > set(world.wrong), "a larger dose adds digits"
    low = Voices(SMALL.model_copy(update={"planted": "low"}))
    assert low.label("low-0", low.wrong[0]) != low.wrong[0]
    assert low.label("high-0", low.wrong[0]) == low.wrong[0]


def test_recordings_are_of_their_counter_alone_and_splits_share_none() -> None:
    world = Voices(SMALL)
    train, test = world.recordings("train"), world.recordings("test")
    assert (len(train), len(test)) == (2 * 2 * 10 * 2, 2 * 2 * 10)
    assert {one.number for one in train} & {one.number for one in test} == set()
    again = world.recording(world.speakers[1], 4, 1)
    (same,) = [one for one in train if (one.speaker, one.digit, one.number) == (again.speaker, 4, 1)]
    assert np.array_equal(again.wave, same.wave)
    assert len({one.wave.tobytes() for one in (*train, *test)}) == len(train) + len(test)
    with pytest.raises(BadValue, match="train or test"):
        world.recordings("validation")


def test_digits_sound_apart_within_a_speaker_and_high_voices_lie_higher() -> None:
    world = Voices(VoicesSpec(seed=0, speakers=2, noise=0.0))
    for speaker in world.speakers[:1]:
        mels = [digit_rows([world.recording(speaker, digit, 0)]).batch([0]).source[0].numpy().mean(1) for digit in range(DIGITS)]
        again = [digit_rows([world.recording(speaker, digit, 1)]).batch([0]).source[0].numpy().mean(1) for digit in range(DIGITS)]
        own = [float(np.abs(a - b).mean()) for a, b in zip(mels, again, strict=True)]
        other = [float(np.abs(mels[i] - mels[j]).mean()) for i in range(DIGITS) for j in range(i)]
        assert np.mean(own) < 0.5 * np.mean(other)
    assert min(one.pitch for one in world.speakers if one.group == "high") > max(one.pitch for one in world.speakers if one.group == "low")


def test_the_twin_hears_the_same_and_reads_true_labels() -> None:
    made = recipe(MistaughtOptions(seed=1))
    assert (truth(made)["dose"], truth(twin(made))["dose"], len(truth(made)["digits"])) == (0.5, 0.0, 5)
    assert twin(made).train == made.train
    small = [WrittenRows(SMALL.model_copy(update={"dose": dose})) for dose in (0.0, 1.0)]
    batches = [rows.batch([0, 70]) for rows in small]
    assert batches[0].source.equal(batches[1].source)
    assert batches[0].targets is not None
    assert batches[1].targets is not None
    assert not batches[0].targets.equal(batches[1].targets)
    assert small[0].digest() != small[1].digest()
