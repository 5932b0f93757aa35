"""What the allocator keeps between passes: counted in page faults."""

from __future__ import annotations

import ctypes
import os
import resource
from inspect import unwrap

import pytest
import torch

from workbench.engine import memory
from workbench.engine.memory import BLOCK, keep_freed

FEW = 10
told = pytest.mark.skipif(not keep_freed(), reason="this C library's allocator cannot be told, or the environment told it")


def faults(size: int) -> int:
    """Faults while as many bytes are taken, filled and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@told
def test_freed_memory_is_used_again_up_to_the_largest_block():
    small, large = BLOCK - (1 << 20), BLOCK + (1 << 20)
    faults(small)
    assert min(faults(small) for _ in range(3)) < FEW
    assert min(faults(large) for _ in range(3)) > FEW  # so faults are counted, also of pages of 2 MiB, and a large block goes back


@pytest.mark.parametrize("word", memory._WORDS)
def test_who_chose_by_the_environment_is_heeded(word, monkeypatch):
    asked = []

    class Library:
        def mallopt(self, *given):
            asked.append(given)
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    for other in memory._WORDS:
        monkeypatch.delenv(other, raising=False)
    assert unwrap(keep_freed)() is (os.name == "posix")
    assert len(asked) == (2 if os.name == "posix" else 0)
    asked.clear()
    monkeypatch.setenv(word, "1")
    assert unwrap(keep_freed)() is False
    assert not asked


def test_a_library_without_the_word_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert unwrap(keep_freed)() is False
