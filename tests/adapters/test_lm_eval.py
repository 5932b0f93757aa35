"""What of the lm-evaluation-harness ``LM`` is ours; joined to the harness itself where that is installed."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine.models import lettered, wordy
from workbench.adapters import lm_eval as adapter
from workbench.adapters.lm_eval import Harnessed, asked_for, harnessed
from workbench.core.errors import BadValue, MissingExtra
from workbench.core.measure import Generate
from workbench.engine.generate import generate
from workbench.engine.score import naive


def alone(model: Any, *, bos: bool = True, cut: bool = False) -> Harnessed:
    return Harnessed(model, model.tokenizer, bos, cut, 8192, "certified", 0)


def test_sums_and_greedy_flags_equal_naive_scoring():
    model: Any = lettered(n_ctx=16)
    lm = alone(model)
    greedy = [int(i) for i in model.tokenizer.encode(generate(model, ["abc"], most=3)[0])]
    pairs = [([0, 1, 2], greedy), ([0, 1, 2], [5, 6]), ([3], [4])]
    found = lm._loglikelihood_tokens([(("", ""), context, ids) for context, ids in pairs])
    for (value, flag), (context, ids) in zip(found, pairs, strict=True):
        assert value == pytest.approx(math.fsum(naive(model, context, ids)), abs=1e-5)
        assert flag == (ids == greedy)


def test_bos_stands_before_a_text_and_never_within():
    model: Any = wordy()
    bos = model.tokenizer.bos_id
    assert alone(model).tok_encode("the cat")[0] == bos
    assert bos not in alone(model).tok_encode("the cat", add_special_tokens=False)
    assert alone(model, bos=False).tok_encode("the cat") == model.tokenizer.encode("the cat")
    assert alone(model).prefix_token_id == bos
    with pytest.raises(BadValue, match="without a begin or an end token"):
        _ = alone(lettered()).prefix_token_id


def test_a_long_text_is_cut_only_where_asked():
    model = lettered(n_ctx=8)
    long = [(("", ""), [1, 2, 3, 4, 5, 6, 7], [8, 9, 10])]
    with pytest.raises(BadValue, match="drops its start"):
        alone(model)._loglikelihood_tokens(long)
    lm = alone(model, cut=True)
    assert lm._loglikelihood_tokens(long) == lm._loglikelihood_tokens([(("", ""), [2, 3, 4, 5, 6, 7], [8, 9, 10])])
    assert lm.cut_texts == 1
    with pytest.raises(BadValue, match="at least one to read"):
        lm._loglikelihood_tokens([(("", ""), [], [1])])


def test_texts_are_written_as_a_task_asks():
    model = lettered(n_ctx=32)
    whole = generate(model, ["ab"], most=8)[0]
    asked = [SimpleNamespace(args=("ab", {"until": [whole[3:5]], "max_gen_toks": 8})), SimpleNamespace(args=("ab", {"max_gen_toks": 5}))]
    assert alone(model).generate_until(asked) == [whole[: whole.index(whole[3:5])], whole[:5]]
    hot = [SimpleNamespace(args=("ab", {"max_gen_toks": 12, "do_sample": True, "temperature": 2.0}))] * 3
    texts = alone(model).generate_until(hot)
    assert len(set(texts)) > 1
    assert alone(model).generate_until(hot) == texts


@pytest.mark.parametrize(
    ("settings", "heat", "request_"),
    [
        ({}, 0.0, Generate("a", 256)),
        ({"until": "x", "temperature": 0.0, "do_sample": False}, 0.0, Generate("a", 256, ("x",))),
        ({"temperature": 0.7, "max_new_tokens": 3}, 0.7, Generate("a", 3)),
        ({"do_sample": True}, 1.0, Generate("a", 256)),
        ({"temperature": 0.7, "do_sample": False, "top_p": 1.0}, 0.0, Generate("a", 256)),
    ],
)
def test_settings_are_read(settings, heat, request_):
    assert asked_for("a", settings) == (heat, request_)


def test_a_setting_that_is_not_heeded_is_refused():
    with pytest.raises(BadValue, match="'top_p'"):
        asked_for("a", {"top_p": 0.9})


def test_without_the_harness_it_says_what_to_install(monkeypatch):
    adapter._class.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(MissingExtra, match=r"assay-workbench\[harness\]"):
        harnessed(wordy())
