"""Draws, permutations and even sequences by counter."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workbench.data.counter import Draw, gaussian, key_of, mixed_array, permuted, van_der_corput


def test_stream_is_splitmix64():
    """The first outputs for state 1234567, as published on Rosetta Code ("Pseudo-random numbers/Splitmix64")."""
    draw = Draw()
    draw._state = 1234567
    assert [draw.bits() for _ in range(5)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


@given(st.integers(0, 2**64 - 1))
def test_array_form_equals_the_stream(key: int):
    draw = Draw()
    draw._state = key
    assert mixed_array(key, np.arange(7, dtype=np.uint64)).tolist() == [draw.bits() for _ in range(7)]


@given(st.integers(0, 2**64 - 1), st.integers(1, 9))
def test_normal_numbers_are_those_of_the_stream_two_by_two(key: int, count: int):
    draw = Draw()
    draw._state = key
    uniform = [draw.uniform() for _ in range(2 * count)]
    by_hand = [math.sqrt(-2 * math.log1p(-a)) * math.cos(2 * math.pi * b) for a, b in zip(uniform[:count], uniform[count:], strict=True)]
    assert gaussian(key, count) == pytest.approx(by_hand, rel=1e-12, abs=1e-12)


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection(n: int, key: int):
    assert sorted(permuted(i, n, key) for i in range(n)) == list(range(n))


def test_permutation_mixes_and_depends_on_its_key():
    n = 4096
    one, two = ([permuted(i, n, key_of(k)) for i in range(n)] for k in "ab")
    assert abs(np.corrcoef(np.arange(n), one)[0, 1]) < 4 / n**0.5
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / n**0.5


def test_permutation_refuses_what_is_outside():
    with pytest.raises(IndexError, match="5 is not within 0 to 4"):
        permuted(5, 5, 0)


@given(st.integers(0, 2**64 - 1), st.integers(0, 8), st.integers(0, 50))
def test_van_der_corput_fills_every_dyadic_interval_once(key: int, bits: int, block: int):
    size = 2**bits
    points = [van_der_corput(block * size + i, key) for i in range(size)]
    assert sorted(int(p * size) for p in points) == list(range(size))


def test_draws_below_are_uniform():
    counts = np.zeros(24)
    for i in range(24_000):
        counts[Draw("uniform", i).below(24)] += 1
    assert stats.chisquare(counts).pvalue > 1e-4


def test_keys_keep_their_parts_apart():
    assert key_of("a", "b") != key_of("ab") != key_of("a", 1)
