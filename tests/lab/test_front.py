"""``import workbench``: a short list, free to import, the same as what it says."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import workbench
from workbench import _HOME  # pyright: ignore[reportPrivateUsage]  # the table behind the names is what is tested


def test_the_public_names_are_few_and_all_there() -> None:
    assert len(workbench.__all__) <= 25
    assert set(workbench.__all__) == set(_HOME) == set(dir(workbench))
    for name, home in _HOME.items():
        assert getattr(workbench, name) is getattr(importlib.import_module(home), name)
    assert {"load", "probe", "evaluate", "audit", "train"} <= set(workbench.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'workbench' has no attribute 'evalute'"):
        workbench.evalute  # type: ignore[attr-defined]  # noqa: B018 - misspelt on purpose


def test_importing_changes_nothing_and_imports_nothing_heavy() -> None:
    code = (
        "import os, sys, socket, warnings, time; before = dict(os.environ); hook, connect = sys.excepthook, socket.socket.connect;"
        "filters = list(warnings.filters); began = time.perf_counter(); import workbench; took = time.perf_counter() - began;"
        "assert dict(os.environ) == before; assert sys.excepthook is hook; assert socket.socket.connect is connect;"
        "assert warnings.filters == filters;"
        "heavy = {'torch', 'numpy', 'pandas', 'xarray', 'altair', 'pydantic', 'sqlalchemy', 'rich'} & set(sys.modules);"
        "print(sorted(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
