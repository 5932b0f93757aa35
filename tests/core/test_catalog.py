"""Catalogues are lazy, ordered by status, and refuse what is misspelt or badly described."""

import math
import sys

import pytest

from workbench.core.catalog import Catalog, Entry
from workbench.core.errors import UnknownName

LINES = {
    "b-standard": ("math:fsum", "adds numbers", "standard"),
    "a-experimental": ("xml.dom.domreg:no_such", "is not imported until it is used", "experimental"),
    "z-headline": ("math:sqrt", "takes roots", "headline"),
}


def test_order_and_loading() -> None:
    sys.modules.pop("xml.dom.domreg", None)
    catalog = Catalog("thing", LINES)  # type: ignore[arg-type]  # the literals above are statuses
    assert list(catalog) == ["z-headline", "b-standard", "a-experimental"]
    assert catalog.load("b-standard") is math.fsum
    assert "xml.dom.domreg" not in sys.modules


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownName, match="no thing 'headlin'.*'z-headline'"):
        Catalog("thing", LINES)["headlin"]  # type: ignore[arg-type]  # the literals above are statuses


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (("x", "math", "w", "standard"), "module:object"),
        (("x", "math:fsum", "w " * 11, "standard"), "11 words"),
        (("x", "math:fsum", "w", "beta"), "status 'beta'"),
    ],
)
def test_bad_lines_are_refused(entry: tuple[str, str, str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Entry(*entry)  # type: ignore[arg-type]  # a wrong status is the point
