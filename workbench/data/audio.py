"""From a recording to what an audio encoder reads: WAV files, log-mel frames, and rows of them with their transcripts.

The log-mel frames are those of Whisper (Radford et al. 2022): Hann window, power spectrum, triangular filters on Slaney's mel scale, the
logarithm of base 10 cut eight below its largest value, then moved and scaled to about [−1, 1]. They are computed in float64.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import wave as wav
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from workbench.core.batch import IGNORE, SequenceBatch
from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.core.spec import Spec

FLOOR, SPAN = 1e-10, 8.0
"""The least power that is told from silence, and how many powers of ten below the loudest cell are kept."""
STRIDE = 2
"""Mel frames an encoder position covers."""


# --- WAV ------------------------------------------------------------------------------------------------------


def read_wav(path: Path | str) -> tuple[np.ndarray, int]:
    """The samples ``[sample]`` (float32, full scale 1, channels averaged) of a PCM file and its rate (Hz).

    Raises MissingFile, and CorruptFile for anything that is not a whole PCM WAV file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(path, "WAV file")
    return wav_samples(path.read_bytes(), path)


def wav_samples(content: bytes, what: object) -> tuple[np.ndarray, int]:
    """As ``read_wav``, from the bytes of a file called ``what``."""
    try:
        with wav.open(io.BytesIO(content)) as file:
            channels, width, rate, promised = file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()
            data = file.readframes(promised)
    except (wav.Error, EOFError, struct.error) as error:
        raise CorruptFile(what, "a WAV file of PCM samples", f"it is not ({str(error) or 'it ends too early'})") from None
    if width not in (1, 2, 3, 4) or channels < 1 or rate < 1:
        raise CorruptFile(what, "a WAV file of PCM samples", f"it has {channels} channels of {width} bytes at {rate} Hz")
    if promised < 1 or len(data) != promised * width * channels:
        raise CorruptFile(
            what, "a whole WAV file", f"{len(data) // (width * channels)} of {promised} samples are there", do="Get the file again."
        )
    samples = _integers(data, width).reshape(-1, channels).mean(1) / 2.0 ** (8 * width - 1)
    return samples.astype(np.float32), rate


def _integers(data: bytes, width: int) -> np.ndarray:
    """Little-endian samples as float64 integers; those of one byte are unsigned, around 128."""
    if width == 1:
        return np.frombuffer(data, np.uint8).astype(np.float64) - 128.0
    if width == 3:
        parts = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int64)
        whole = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
        return (whole - ((whole >> 23) << 24)).astype(np.float64)
    return np.frombuffer(data, "<i2" if width == 2 else "<i4").astype(np.float64)


# --- log-mel --------------------------------------------------------------------------------------------------


class MelSpec(Spec):
    """How a wave becomes frames: ``rate`` in Hz, ``window`` and ``hop`` in samples. The default is Whisper's (25 and 10 ms)."""

    rate: PositiveInt = 16_000
    n_mels: PositiveInt = 80
    window: int = Field(default=400, ge=4)
    hop: PositiveInt = 160

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.window % 2:
            raise ValueError(f"window must be even, and it is {self.window}")
        if self.hop > self.window:
            raise ValueError(f"hop must be at most the window ({self.window}), and it is {self.hop}: samples would be passed over")
        return self

    def of(self, wave: np.ndarray) -> Tensor:
        """The frames ``[mel, frame]`` of a wave ``[sample]`` of this rate."""
        return log_mel(wave, self.rate, self.n_mels, self.window, self.hop)


def log_mel(wave: np.ndarray | Tensor, rate: int = 16_000, n_mels: int = 80, window: int = 400, hop: int = 160) -> Tensor:
    """Log-mel frames ``[mel, frame]`` (float32) of a wave ``[sample]`` (floats, full scale 1) sampled at ``rate`` Hz.

    Frame f is centred on sample ``f * hop`` (the wave is mirrored at both ends), so there are ``sample // hop`` frames. Filters reach
    from 0 Hz to half the rate. Raises BadValue for a wave that is not one row of finite floats of more than half a window, and for
    filters too narrow for the window.
    """
    samples = np.asarray(wave)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise BadValue("the wave", f"{samples.shape} {samples.dtype}", "floats [sample], full scale 1")
    least = max(window // 2 + 1, hop)
    if len(samples) < least:
        raise BadValue("the number of samples", len(samples), f"at least {least}, half a window and one hop", do="Pad it with zeros.")
    samples = samples.astype(np.float64)
    if not np.isfinite(samples).all():
        raise BadValue("the wave", "not finite everywhere", "finite")
    filters = mel_filters(rate, n_mels, window)
    padded = np.pad(samples, window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][: len(samples) // hop]
    hann = 0.5 - 0.5 * np.cos(2.0 * math.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2
    log = np.log10(np.maximum(filters @ power.T, FLOOR))
    return torch.from_numpy(((np.maximum(log, log.max() - SPAN) + 4.0) / 4.0).astype(np.float32))


def mel_filters(rate: int, n_mels: int, window: int) -> np.ndarray:
    """Triangular filters ``[mel, bin]`` of equal area, evenly spaced on Slaney's mel scale from 0 Hz to half the rate; bin b is at
    ``b * rate / window`` Hz. Raises BadValue where a filter lies between two bins and would hear nothing."""
    edges = _hertz(np.linspace(0.0, _mels(rate / 2), n_mels + 2))
    bins = np.arange(window // 2 + 1) * (rate / window)
    left, peak, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    height = np.maximum(0.0, np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)))
    if not (height.max(1) > 0).all():
        raise BadValue("n_mels", n_mels, f"small enough that each filter holds a bin of {rate / window:g} Hz", do="Or widen the window.")
    return height * (2.0 / (right - left))


def _mels(hertz: float) -> float:
    """Slaney's scale: linear to 1000 Hz (15 mel), logarithmic above (27 mel a factor of 6.4)."""
    return hertz * 3.0 / 200.0 if hertz < 1000.0 else 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def _hertz(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * math.log(6.4) / 27.0))


def whole_positions(wave: np.ndarray, spec: MelSpec) -> np.ndarray:
    """The wave with zeros after it up to a whole number of encoder positions (``STRIDE * hop`` samples each), at least a window."""
    step = STRIDE * spec.hop
    length = -(-max(len(wave), spec.window) // step) * step
    return np.pad(wave, (0, length - len(wave)))


# --- rows -----------------------------------------------------------------------------------------------------


def spelled(texts: Sequence[str], alphabet: str) -> tuple[Tensor, Tensor]:
    """Tokens and targets ``[row, pos]`` of texts over ``alphabet``: letter i is id i, then come the begin and the end token.

    Rows read begin and letters, and predict letters and end; shorter rows are filled with the end token and ``IGNORE``.
    """
    begin, end = len(alphabet), len(alphabet) + 1
    width = max(map(len, texts)) + 1
    tokens, targets = torch.full((len(texts), width), end), torch.full((len(texts), width), IGNORE)
    for row, text in enumerate(texts):
        if odd := sorted(set(text) - set(alphabet)):
            raise UnknownName("letter", odd[0], alphabet, where=f"in the alphabet of '{text}'")
        ids = torch.tensor([begin, *(alphabet.index(letter) for letter in text), end])
        tokens[row, : len(ids) - 1], targets[row, : len(ids) - 1] = ids[:-1], ids[1:]
    return tokens, targets


class AudioRows:
    """Recordings as log-mel frames, with what a decoder reads and predicts about each (a ``RowData`` of ``SequenceBatch``).

    Waves are padded with silence to whole encoder positions, so a row reads the same alone and beside longer ones: frames after its
    own are zero and its positions there are masked. ``mask`` is None where all rows of a batch are equally long.
    """

    def __init__(self, waves: Sequence[np.ndarray], spec: MelSpec, tokens: Tensor, targets: Tensor) -> None:
        if not waves or len(waves) != len(tokens) or tokens.shape != targets.shape:
            found = f"{len(waves)} with tokens {tuple(tokens.shape)} and targets {tuple(targets.shape)}"
            raise BadValue("the waves", found, "at least one, with tokens and targets [row, pos]")
        self._mels = [spec.of(whole_positions(wave, spec)) for wave in waves]
        self._tokens, self._targets, self._spec = tokens, targets, spec

    def __len__(self) -> int:
        return len(self._mels)

    @property
    def positions(self) -> int:
        """Encoder positions of the longest row."""
        return max(mel.shape[1] for mel in self._mels) // STRIDE

    def batch(self, indices: Sequence[int]) -> SequenceBatch:
        """The rows ``indices``, as wide as the longest of them."""
        chosen = [int(i) for i in indices]
        if not chosen or min(chosen) < 0 or max(chosen) >= len(self):
            raise BadValue("row indices", chosen[:8], f"non-empty and within 0 to {len(self) - 1}")
        frames = torch.tensor([self._mels[i].shape[1] for i in chosen])
        source = torch.zeros(len(chosen), self._spec.n_mels, int(frames.max()))
        for row, i in enumerate(chosen):
            source[row, :, : frames[row]] = self._mels[i]
        mask = torch.arange(source.shape[2] // STRIDE) < (frames // STRIDE).unsqueeze(1)
        return SequenceBatch(source, self._tokens[chosen], self._targets[chosen], None if bool(mask.all()) else mask)

    def digest(self) -> str:
        """sha256 (hex) over the spec and all rows."""
        whole = hashlib.sha256(f"audio {self._spec.digest()} {tuple(self._tokens.shape)}".encode())
        parts: list[Any] = [*(mel.numpy().astype("<f4") for mel in self._mels), *(t.numpy().astype("<i8") for t in self._ids())]
        for part in parts:
            whole.update(f"{part.shape}".encode() + part.tobytes())
        return whole.hexdigest()

    def _ids(self) -> tuple[Tensor, Tensor]:
        return self._tokens, self._targets
