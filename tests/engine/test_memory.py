"""What the allocator keeps between passes: counted in page faults, in a process of its own that nothing else has told anything."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from inspect import unwrap

import pytest

from workbench.engine import memory
from workbench.engine.memory import keep_freed

FEW = 10
COUNTING = """
import ctypes, resource
from workbench.engine.memory import BLOCK, keep_freed

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes, library.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(size)
    ctypes.memset(block, 1, size)
    library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

untold = min([faults(BLOCK + 2**20) for _ in range(4)][1:])
print(untold, int(keep_freed()), *(min([faults(size) for _ in range(4)][1:]) for size in (BLOCK - 2**20, BLOCK + 2**20)))
"""


def test_freed_memory_is_used_again_up_to_the_largest_block():
    environment = {name: value for name, value in os.environ.items() if name not in (*memory._WORDS, "LD_PRELOAD")}
    done = subprocess.run([sys.executable, "-c", COUNTING], env=environment, capture_output=True, text=True, check=True)
    untold, told, small, large = map(int, done.stdout.split())
    if untold < FEW:
        pytest.skip("what is freed and asked for again is kept here untold, or the kernel does not count its faults")
    if not told:
        pytest.skip("this C library's allocator has no word for it")
    assert small < FEW < large  # also where all pages are of 2 MiB: a large block goes back, and is counted


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
