"""The scripts of `benchmarks/`, opened as modules, for tests that hold what they find."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "benchmarks"


@cache
def script(name: str) -> Any:
    """The script of that name, run once without its ``main``."""
    found = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module
