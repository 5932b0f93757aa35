"""The checks of shapes catch what they are there for, in modules that are imported as the product's are."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from tests.probes.unchecked import unchecked
from tests.shape_checks import install

SOURCE = """
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from nowhere import Absent


def product(a: Float[Tensor, "rows inner"], b: Float[Tensor, "inner columns"]) -> Float[Tensor, "rows columns"]:
    return a @ b


def promised(a: Float[Tensor, "rows columns"], times: int = 1) -> Float[Tensor, "rows columns"]:
    return a.T


def counted(number: int) -> str:
    return number if number > 9 else str(number)


def later(a: Float[Tensor, "rows columns"], b: Float[Tensor, "rows columns"]) -> Iterator[int]:
    yield from range(len(a))


def unread(a: Absent, b: Float[Tensor, "rows"]) -> Absent:
    return a


@dataclass(frozen=True)
class Pair:
    left: Float[Tensor, "items"]
    right: Int[Tensor, "items"] | None = None

    def joined(self, other: Pair) -> Float[Tensor, "items two"]:
        return self.left[:, None].expand(-1, 2)

    @property
    def size(self) -> int:
        return "two"

    @staticmethod
    def first(a: Float[Tensor, "items"]) -> Float[Tensor, ""]:
        return a[0]
"""


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "shapes_sample.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    install(["shapes_sample"])
    yield importlib.import_module("shapes_sample")
    del sys.modules["shapes_sample"]


def test_what_fits_passes(sample: ModuleType) -> None:
    torch.testing.assert_close(sample.product(torch.eye(2), torch.ones(2, 3)), torch.ones(2, 3))
    pair = sample.Pair(torch.ones(3), torch.ones(3, dtype=torch.long))
    assert pair.joined(pair).shape == (3, 2)
    assert sample.Pair.first(torch.ones(3)) == 1
    assert sample.counted(1) == "1"
    assert list(sample.later(torch.ones(2, 3), torch.ones(2, 3))) == [0, 1]
    assert sample.product.__name__ == "product"
    assert sample.promised(torch.ones(2, 2)).shape == (2, 2), "names of axes of one call are not held against the next"
    assert sample.promised(torch.ones(3, 3)).shape == (3, 3)


@pytest.mark.parametrize(
    ("called", "given"),
    [
        pytest.param("product", (torch.ones(2, 3), torch.ones(4, 2)), id="an axis of two sizes"),
        pytest.param("product", (torch.ones(2, 3), torch.ones(3)), id="too few axes"),
        pytest.param("product", (torch.ones(2, 3), torch.ones(3, 2, dtype=torch.long)), id="another dtype"),
        pytest.param("promised", (torch.ones(2, 3),), id="a result turned round"),
        pytest.param("promised", (torch.ones(2, 2), "two"), id="a word for a number"),
        pytest.param("counted", ("1",), id="no tensor: a parameter"),
        pytest.param("counted", (10,), id="no tensor: a result"),
        pytest.param("unread", (1, torch.ones(2, 2)), id="beside what cannot be read"),
        pytest.param("Pair", (torch.ones(2), torch.ones(3, dtype=torch.long)), id="fields of a dataclass"),
        pytest.param("Pair", (torch.ones(2), torch.ones(2)), id="a field's dtype"),
    ],
)
def test_what_does_not_fit_is_caught(sample: ModuleType, called: str, given: tuple[object, ...]) -> None:
    with pytest.raises(BeartypeCallHintViolation):
        getattr(sample, called)(*given)


def test_methods_are_checked(sample: ModuleType) -> None:
    with pytest.raises(BeartypeCallHintViolation, match="size"):
        _ = sample.Pair(torch.ones(2)).size
    with pytest.raises(BeartypeCallHintViolation, match="first"):
        sample.Pair.first(torch.ones(2, 2))


def test_what_runs_in_pieces_is_checked_when_it_is_called(sample: ModuleType) -> None:
    with pytest.raises(TypeCheckError, match="later"):
        sample.later(torch.ones(2, 3), torch.ones(3, 2))


def test_long_runs_may_go_without(sample: ModuleType) -> None:
    with unchecked():
        assert sample.promised(torch.ones(2, 3)).shape == (3, 2)
    with pytest.raises(BeartypeCallHintViolation):
        sample.promised(torch.ones(2, 3))


def test_an_axis_is_held_after_a_call_that_failed(sample: ModuleType) -> None:
    with pytest.raises(BeartypeCallHintViolation):
        sample.product(torch.ones(2, 3), torch.ones(4, 2))
    assert sample.product(torch.ones(2, 4), torch.ones(4, 2)).shape == (2, 2)


@pytest.mark.skipif(os.environ.get("WORKBENCH_CHECK_SHAPES", "1") != "1", reason="WORKBENCH_CHECK_SHAPES turned the checks off")
def test_the_products_own_functions_are_checked() -> None:
    from probes.logistic import fit

    with pytest.raises(BeartypeCallHintViolation, match="logistic.fit"):
        fit(torch.ones(2, 3), torch.zeros(2, 1, dtype=torch.long), 2, strength=1.0)
