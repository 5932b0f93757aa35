"""Recordings read whole or refused; log-mel frames against slow loops and the published extractor; rows, alone and beside others."""

from __future__ import annotations

import io
import math
import struct
import wave as wav
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.data.audio import AudioRows, MelSpec, log_mel, mel_filters, read_wav, spelled, wav_samples, whole_positions

SMALL = MelSpec.parse({"rate": 800, "n_mels": 6, "window": 40, "hop": 16})


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, samples)


# --- WAV


def written(values: list[int], *, width: int = 2, channels: int = 1, rate: int = 8000) -> bytes:
    """A PCM file of integer samples, channels side by side, packed without the code under test."""
    out = io.BytesIO()
    with wav.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        data = b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in values)
        file.writeframes(data)
    return out.getvalue()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 2, 3, 4]), st.integers(1, 2), st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_sample_is_read_in_every_width(width: int, channels: int, count: int, random) -> None:
    low, high = (0, 255) if width == 1 else (-(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1)
    values = [low, high, *(random.randint(low, high) for _ in range(count * channels * 2))][: count * channels]
    wave, rate = wav_samples(written(values, width=width, channels=channels, rate=11_025), "it")
    assert rate == 11_025
    middle = 128 if width == 1 else 0
    scaled = [(v - middle) / 2 ** (8 * width - 1) for v in values]
    expected = [sum(scaled[i * channels : (i + 1) * channels]) / channels for i in range(count)]
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave, expected, rtol=0, atol=6e-8)
    assert abs(wave).max() <= 1


def test_files_that_are_not_whole_wav_files(tmp_path: Path) -> None:
    good = written([1, -2, 3, -4] * 50)
    floats = bytearray(good)
    floats[20:22] = struct.pack("<H", 3)  # the format of floating-point samples
    for content, words in [
        (b"", "it ends too early"),
        (b"RIFF", "it ends too early"),
        (b"\x89PNG\r\n\x1a\n" * 20, "RIFF"),
        (good[:-20], r"190 of 200 samples are there.*Get the file again"),
        (good[:30], "WAV file of PCM samples"),
        (bytes(floats), "format"),
        (written([]), "0 of 0 samples"),
    ]:
        (tmp_path / "it.wav").write_bytes(content)
        with pytest.raises(CorruptFile, match=words) as caught:
            read_wav(tmp_path / "it.wav")
        assert "it.wav" in str(caught.value)
    with pytest.raises(MissingFile, match="No WAV file at"):
        read_wav(tmp_path / "nowhere.wav")


# --- log-mel


def slow_filters(rate: int, n_mels: int, window: int) -> list[list[float]]:
    """Filter by filter and bin by bin, the mel scale inverted by bisection."""

    def mel(hertz: float) -> float:
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000, 6.4)

    def hertz(wanted: float) -> float:
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if mel(middle) < wanted else (low, middle)
        return low

    edges = [hertz(mel(rate / 2) * i / (n_mels + 1)) for i in range(n_mels + 2)]
    out = []
    for left, peak, right in zip(edges, edges[1:], edges[2:]):
        row = []
        for b in range(window // 2 + 1):
            f = b * rate / window
            inside = (f - left) / (peak - left) if left < f <= peak else (right - f) / (right - peak) if peak < f < right else 0.0
            row.append(inside * 2 / (right - left))
        out.append(row)
    return out


def slow_log_mel(wave: np.ndarray, spec: MelSpec) -> np.ndarray:
    """A sum of cosines and sines a bin, no Fourier transform and no padded copy of the wave."""
    filters, half, n = slow_filters(spec.rate, spec.n_mels, spec.window), spec.window // 2, len(wave)
    log = np.zeros((spec.n_mels, n // spec.hop))
    for f in range(log.shape[1]):
        cells = []
        for k in range(spec.window):
            at = abs(f * spec.hop + k - half)
            at = at if at < n else 2 * (n - 1) - at
            cells.append(float(wave[at]) * math.sin(math.pi * k / spec.window) ** 2)
        power = []
        for b in range(half + 1):
            turn = 2 * math.pi * b / spec.window
            power.append(
                sum(c * math.cos(turn * k) for k, c in enumerate(cells)) ** 2
                + sum(c * math.sin(turn * k) for k, c in enumerate(cells)) ** 2
            )
        for m, row in enumerate(filters):
            log[m, f] = math.log10(max(sum(w * p for w, p in zip(row, power, strict=True)), 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


@pytest.mark.parametrize("samples", [40, 64, 79, 100])
def test_frames_equal_the_loops(samples: int) -> None:
    wave = noise(samples) * np.linspace(0, 1, samples) ** 4  # from silence to full scale: the floor is met too
    wave[: samples // 3] = 0.0
    found = SMALL.of(wave)
    assert found.shape == (6, samples // 16)
    np.testing.assert_allclose(found.numpy(), slow_log_mel(wave, SMALL), rtol=0, atol=2e-7)


def test_the_comparison_catches_frames_that_begin_where_they_should_be_centred() -> None:
    wave = noise(100)
    moved = log_mel(np.roll(wave, -20), 800, 6, 40, 16).numpy()
    assert abs(moved - slow_log_mel(wave, SMALL)).max() > 0.01


@pytest.mark.parametrize("kind", ["noise", "tone", "silence", "click"])
def test_frames_equal_the_published_extractors(kind: str) -> None:
    """To float32's last place with its route in float64; to 1e-4 with its usual one, where a power far below the loudest is rounded."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    time = np.arange(16_000) / 16_000
    wave = {
        "noise": noise(16_000) * 0.3, "tone": 0.5 * np.sin(2 * math.pi * 440 * time) + 0.01 * noise(16_000), "silence": 0 * time,
        "click": np.eye(1, 16_000, 5_000)[0],
    }[kind].astype(np.float32)  # fmt: skip
    expected = theirs(wave, sampling_rate=16_000, return_tensors="np").input_features[0]
    found = log_mel(wave).numpy()
    assert found.shape == expected.shape == (80, 100)
    np.testing.assert_allclose(mel_filters(16_000, 80, 400), theirs.mel_filters.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found, theirs._np_extract_fbank_features(wave[None], "cpu")[0], rtol=0, atol=2.5e-7)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (np.zeros(200), "number of samples is 200, but it must be at least 201"),
        (np.zeros((2, 400)), r"the wave is '\(2, 400\) float64'"),
        (np.zeros(400, dtype=np.int16), "floats"),
        (np.full(400, np.nan), "not finite everywhere"),
        (np.full(400, np.inf), "not finite everywhere"),
    ],
)
def test_waves_that_do_not_fit_say_so(wave: np.ndarray, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        log_mel(wave)


def test_settings_that_do_not_fit_say_so() -> None:
    with pytest.raises(BadValue, match="n_mels is 128.*holds a bin of 40 Hz.*widen the window"):
        log_mel(np.zeros(400), 8_000, 128, 200, 80)
    with pytest.raises(BadValue, match="window must be even"):
        MelSpec.parse({"window": 401})
    with pytest.raises(BadValue, match="samples would be passed over"):
        MelSpec.parse({"window": 100, "hop": 160})


# --- rows


def rows(lengths: tuple[int, ...]) -> AudioRows:
    tokens, targets = spelled(["ab"] * len(lengths), "abc")
    return AudioRows([noise(n, seed) for seed, n in enumerate(lengths)], SMALL, tokens, targets)


def test_letters_become_tokens_and_targets() -> None:
    tokens, targets = spelled(["ab", "c"], "abc")
    assert tokens.tolist() == [[3, 0, 1], [3, 2, 4]]
    assert targets.tolist() == [[0, 1, 4], [2, 4, IGNORE]]
    with pytest.raises(UnknownName, match="no letter 'e' in the alphabet of 'axe'"):
        spelled(["axe"], "abc")


def test_a_batch_holds_each_rows_frames_and_says_which_are_real() -> None:
    data = rows((100, 33, 100))
    batch = data.batch([1, 0])
    assert (len(data), data.positions) == (3, 4)
    assert batch.source.shape == (2, 6, 8)
    assert torch.equal(batch.source[0, :, :4], SMALL.of(np.pad(noise(33, 1), (0, 31))))
    assert batch.source[0, :, 4:].abs().max() == 0
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert data.batch([0, 2]).mask is None
    assert data.batch([1]).source.shape == (1, 6, 4)  # alone it is as wide as it is long
    with pytest.raises(BadValue, match="within 0 to 2"):
        data.batch([3])
    with pytest.raises(BadValue, match="row indices"):
        data.batch([])


@given(st.integers(1, 300))
def test_waves_are_filled_to_whole_positions(samples: int) -> None:
    wave = noise(samples)
    out = whole_positions(wave, SMALL)
    assert len(out) % 32 == 0
    assert 0 <= len(out) - max(samples, 40) < 32
    assert np.array_equal(out[:samples], wave)
    assert not out[samples:].any()


def test_a_digest_knows_every_part() -> None:
    base = rows((100, 33))
    assert base.digest() == rows((100, 33)).digest()
    tokens, targets = spelled(["ab", "ab"], "abc")
    waves = [noise(100, 0), noise(33, 1)]
    others = [
        rows((100, 34)),
        AudioRows(waves, SMALL, tokens.flip(0), targets.roll(1, 1)),
        AudioRows(waves, SMALL.model_copy(update={"n_mels": 5}), tokens, targets),
        AudioRows([waves[0], waves[1] * 0.5], SMALL, tokens, targets),
    ]
    assert len({base.digest(), *(o.digest() for o in others)}) == 5
    with pytest.raises(BadValue, match="the waves"):
        AudioRows(waves, SMALL, tokens[:1], targets[:1])
