"""One small town model, trained once for all tests that need a run with a checkpoint."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from workbench.lab.run import train
from workbench.store.runs import Store

SMALL: dict[str, Any] = {
    "world": {"documents": 1500, "held_out": 400, "secrets": [1, 2], "unplanted": 4},
    "model": {"n_layers": 2, "d_model": 32, "n_heads": 2, "vocabulary": 400},
    "train": {"steps": 12, "save_every": 6, "warmup": 2, "batch_rows": 4},
}


@cache
def home_with_model() -> tuple[Path, str]:
    """A store's home and the id of the training run in it. Tests that change the store copy it first."""
    home = Path(tempfile.mkdtemp(prefix="assay-test-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    with Store.open(home) as store:
        return home, train("town-target", settings=SMALL, store=store).run
