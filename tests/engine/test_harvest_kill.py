"""The harvest as a real process: killed at random moments it ends in the same bytes, and its memory does not grow with the corpus."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.engine.harvest_read import Harvest

SITE = "blocks.0.hook_resid_post"
WRITING = """
import resource, sys
import torch
from workbench.engine.corpus import TokenCorpus
from workbench.engine.harvest import HarvestSpec, harvest
from workbench.families.gpt import GPT, GPTConfig

class Rows:  # made when asked for: the corpus itself takes no memory
    def __len__(self):
        return int(sys.argv[2])
    def __getitem__(self, number):
        return [(number * 7 + step * 3) % 23 for step in range(1 + number % 64)]

config = GPTConfig(n_layers=1, d_model=64, n_heads=4, d_vocab=23, n_ctx=64)
model = GPT(config, seed=0).eval()
print("ready", flush=True)
spec = HarvestSpec(sites=("blocks.0.hook_resid_post", "blocks.0.mlp.hook_post"), items_a_shard=int(sys.argv[3]), tokens_a_pass=2048)
harvest(model, TokenCorpus(model, Rows()), sys.argv[1], spec)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
READING = """
import resource, sys
from workbench.engine.harvest_read import Harvest

rows = Harvest.open(sys.argv[1])
total = sum(len(batch) for batch in rows.batches("blocks.0.hook_resid_post", 512, seed=0, buffer=4096))
assert total == rows.rows("blocks.0.hook_resid_post")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _start(script: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _peak(script: str, *words: str) -> float:
    """The most memory that a process held, in MiB."""
    process = _start(script, *words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return int(out.split()[-1]) / 1024


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".writing-")}


@pytest.mark.full
def test_a_harvest_killed_again_and_again_ends_in_the_same_bytes(tmp_path: Path) -> None:
    words = ("1500", "20")
    _peak(WRITING, str(tmp_path / "whole"), *words)
    whole = _contents(tmp_path / "whole")
    chance, killed, left = random.Random(3), 0, set()
    while True:
        process = _start(WRITING, str(tmp_path / "killed"), *words)
        assert process.stdout is not None
        process.stdout.readline()
        if killed < 6:
            time.sleep(chance.uniform(0.0, 0.25))
            process.kill()
        process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
        left.add(len(list((tmp_path / "killed").glob("shard-*.json"))))
    assert killed >= 3
    assert len(left) >= 3, "the kills met different moments"
    assert any(0 < count < 75 for count in left)
    assert _contents(tmp_path / "killed") == whole
    Harvest.open(tmp_path / "killed").verify()


@pytest.mark.full
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Ten times the items: 125 MiB more on disk, and not 15 more in memory, written or read."""
    few, many = str(tmp_path / "few"), str(tmp_path / "many")
    wrote = [_peak(WRITING, folder, str(count), "64") for folder, count in ((few, 320), (many, 3520))]
    sizes = [sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20 for folder in (few, many)]
    assert sizes[1] - sizes[0] > 120
    assert wrote[1] - wrote[0] < 15, wrote
    read = [_peak(READING, folder) for folder in (few, many)]
    assert read[1] - read[0] < 15, read
