"""What the side-by-side benchmarks share: a part of a script in a process of its own, and a median with its interval."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1", "WANDB_MODE": "disabled"}
"""What keeps libraries from the network and their bars from the clock."""


def alone(
    script: str, words: Mapping[str, object], told: Any = None, *, threads: int, python: str | Path = sys.executable,
    more: Mapping[str, str] | None = None, failed: str = "",
) -> Any:  # fmt: skip
    """Run ``script`` with ``--word value`` and ``told`` as JSON on its standard input; the JSON value of its last line.

    The process imports this checkout whatever ``python`` it runs under. Ends this one with ``failed`` and the other's last words.
    """
    environment = {**os.environ, **QUIET, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), **(more or {})}
    command = [str(python), script, *(part for word, value in words.items() for part in (f"--{word}", str(value)))]
    done = subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{failed}\n{done.stderr[-4000:]}".lstrip())
    return json.loads(done.stdout.splitlines()[-1])


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """A bootstrap interval (95 %) of the median over rounds."""
    draws = np.random.default_rng(0).choice(np.asarray(ratios), (4000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def said(ratios: Sequence[float], digits: int = 1) -> str:
    """The median with its interval, in words."""
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
