"""Randomness by counter: what is drawn depends on a key and nothing else, never on what was drawn before it elsewhere.

A generated world is a function from (seed, index) to a document. Three pieces make it one: ``Draw`` (a short stream of
numbers from a key), ``permuted`` (a bijection of 0 … n−1, so that exact quotas can be laid out by rank and still appear in
random order), and ``van_der_corput`` (a stream whose every prefix is spread evenly, so that realised frequencies track
planned ones). All of it is integer arithmetic written out here, so a library update cannot change a corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def key_of(*parts: object) -> int:
    """A 64-bit key from any parts, by blake2b of their text."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest(), "little")


def mixed(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): 64 bits in, 64 well-mixed bits out."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Draw:
    """The SplitMix64 stream of a key.

    >>> Draw("town", 1).below(1000) == Draw("town", 1).below(1000)
    True
    """

    __slots__ = ("_state",)

    def __init__(self, *key: object) -> None:
        self._state = key_of(*key)

    def bits(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + _GOLDEN) & _MASK
        return mixed(self._state)

    def below(self, n: int) -> int:
        """An integer from 0 to n − 1 (bias below n / 2**64)."""
        return (self.bits() * n) >> 64

    def uniform(self) -> float:
        """A float in [0, 1) with 53 random bits."""
        return (self.bits() >> 11) * 2.0**-53

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.below(len(options))]


def permuted(index: int, n: int, key: int) -> int:
    """Where ``index`` goes under a pseudo-random bijection of 0 … n−1 chosen by ``key``.

    A four-round Feistel network on the smallest even number of bits that holds n, walked until it lands below n (Black and
    Rogaway, CT-RSA 2002): no table, so any index is answered alone and at once.
    """
    if not 0 <= index < n:
        raise IndexError(f"{index} is not within 0 to {n - 1}")
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for turn in range(4):
            left, right = right, left ^ (mixed((key + right * _GOLDEN + turn) & _MASK) & low)
        index = (left << half) | right
        if index < n:
            return index


def van_der_corput(index: int, key: int) -> float:
    """The ``index``-th point in [0, 1) of the base-2 van der Corput sequence, digitally shifted by ``key`` (32 bits).

    Every block of 2**b consecutive points that begins at a multiple of 2**b has exactly one point in each of the 2**b
    dyadic intervals, so the share of points below p in the first n differs from p by O(log n / n).
    """
    reverse = int(f"{index & 0xFFFFFFFF:032b}"[::-1], 2)
    return (reverse ^ (key & 0xFFFFFFFF)) * 2.0**-32


def mixed_array(key: int, counters: np.ndarray) -> np.ndarray:
    """``mixed(key + golden · (counter + 1))`` for an array of counters (uint64): the same numbers as ``Draw`` with that state."""
    value = np.uint64(key) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)  # wraps modulo 2**64, as meant
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def gaussian(key: int, count: int) -> np.ndarray:
    """``count`` normal numbers from a key (Box and Muller 1958)."""
    uniform = (mixed_array(key, np.arange(2 * count, dtype=np.uint64)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.sqrt(-2.0 * np.log1p(-uniform[:count])) * np.cos(2.0 * np.pi * uniform[count:])
