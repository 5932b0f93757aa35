"""The digest of a tool's code: a changed number changes it, a changed comment does not."""

import pytest

from workbench.calibration import code
from workbench.calibration.cards import is_stale
from workbench.core.errors import UnknownName
from workbench.core.finding import Card

SOURCE = '''"""What it does."""

import numpy as np  # numbers


def f(x: int) -> int:
    """Twice."""
    # a remark
    return 2 * x


class A:
    """Holds."""

    word = "a # that is no remark"
'''


def test_remarks_do_not_count_and_numbers_do() -> None:
    plain = code.bare(SOURCE)
    assert plain == code.bare(SOURCE.replace("What it does", "Something else").replace("# a remark\n", "\n\n").replace("  # numbers", ""))
    assert plain != code.bare(SOURCE.replace("2 * x", "3 * x"))
    assert plain != code.bare(SOURCE.replace("a # that", "b # that"))
    assert "Twice" not in plain
    assert 'word = "a # that is no remark"' in plain


def test_what_a_tool_imports_of_its_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code.code_digest("saliency")
    assert before == code.code_digest("saliency") != code.code_digest("occlusion")
    real = code.bare
    monkeypatch.setattr(code, "bare", lambda source: real(source).replace("class Target", "class Aim"))
    code._digest.cache_clear()
    try:
        assert code.code_digest("saliency") != before  # Target is defined in a module that saliency imports
    finally:
        code._digest.cache_clear()
    with pytest.raises(UnknownName, match="no instrument or suite 'saliencey'"):
        code.code_digest("saliencey")


def test_a_card_is_stale_once_its_code_has_changed() -> None:
    fields = {"of": "saliency", "family": "gpt", "norm_placement": "pre", "domain": "marks", "parameters": 100, "conditions": "c"}
    assert not is_stale(Card.parse(fields))
    assert not is_stale(Card.parse({**fields, "code": code.code_digest("saliency")}))
    assert is_stale(Card.parse({**fields, "code": "0" * 64}))
    assert is_stale(Card.parse({**fields, "of": "gone", "code": "0" * 64}))
