"""The sentiment judge: its errors are those of a count, its cases carry their truth, and what it must not be used on is known."""

from __future__ import annotations

import builtins
from collections import Counter
from typing import Any

import numpy as np
import pytest

from evals.judges import sentiment
from evals.judges.sentiment import ALL, CUT, FELT, errors, errors_of, kinds, labels, listed, scores
from evals.judges.sentiment_table import AUTHORS_CUT, Row, by_function, by_group, contestants, unlike
from workbench.core.errors import BadValue, MissingExtra, UnknownName
from workbench.data.worlds.feelings import LABELS, NEGATIVE, NEITHER, POSITIVE, WORD_NAMES, Feeling, Label, cases
from workbench.data.worlds.mentions import CASE_GROUPS


def made(form: str, label: Label, fillers: str, function: str = "made") -> list[Feeling]:
    return [Feeling(form.format(one), label, function, form, one) for one in fillers]


def test_cases_are_whole_and_groups_stand_in_every_feeling() -> None:
    every = cases()
    assert len({one.text for one in every}) == len(every)
    assert {one.label for one in every} == set(LABELS)
    assert all(one.text == one.form.format(one.filler)[0].upper() + one.form.format(one.filler)[1:] for one in every)
    forms = [{one.form for one in every if one.group == group} for group in CASE_GROUPS]
    assert all(one == forms[0] for one in forms)
    assert {one.label for one in every if one.group == CASE_GROUPS[0]} == set(LABELS)


def test_a_label_is_a_cut_of_the_compound() -> None:
    assert labels([0.5, 0.49, -0.5, -0.49, 0.0]) == [POSITIVE, NEITHER, NEGATIVE, NEITHER, NEITHER]
    assert labels([0.05, -0.05, 0.04], AUTHORS_CUT) == [POSITIVE, NEGATIVE, NEITHER]
    found = scores(["The concert was extremely pleasant.", "The concert was so very ugly.", "I read about the concert."])
    assert found[0] > CUT > found[2] == 0.0 > -CUT > found[1]
    assert scores([]).shape == (0,)
    with pytest.raises(BadValue, match="1 of 2 blank"):
        scores(["a", " "])


def test_errors_count_a_form_once_whatever_fills_it() -> None:
    """Four fillings of one form, half of them found, weigh as much as the one filling of another."""
    tried = [
        *made("{} bad", NEGATIVE, "abcd"),
        *made("{} worse", NEGATIVE, "e"),
        *made("{} is", NEITHER, "fg"),
        *made("{} good", POSITIVE, "h"),
    ]
    said = [NEGATIVE, NEGATIVE, NEITHER, POSITIVE, NEGATIVE, NEGATIVE, NEITHER, POSITIVE]
    found = errors_of(tried, said, NEGATIVE)
    assert (found.hit, found.missed, found.alarm, found.clear) == (1.5, 0.5, 0.5, 1.5)
    assert errors_of(tried, said, POSITIVE).sensitivity == 1.0
    with pytest.raises(BadValue, match="3 forms that are negative, 0 that are not"):
        errors_of(made("{} bad", NEGATIVE, "a") + made("{}", NEGATIVE, "a") + made("{} !", NEGATIVE, "b"), [NEGATIVE] * 3, NEGATIVE)


def test_the_same_words_in_two_functions_are_two_forms() -> None:
    tried = [*made("{} war", NEITHER, "ab", "subject"), *made("{} war", NEITHER, "c", "occupation"), *made("{} bad", NEGATIVE, "d")]
    said = [NEGATIVE, NEITHER, NEITHER, NEGATIVE]
    found = errors_of(tried, said, NEGATIVE)
    assert (found.hit, found.missed, found.alarm, found.clear) == (1.0, 0.0, 0.5, 1.5)
    row = Row.of("both", tried, said)
    assert (row.forms.k, row.forms.n) == (2, 3)
    whole = cases()
    every = sum(row.forms.n for row in by_function(whole, [one.label for one in whole]))
    assert every == Row.of("all", whole, [one.label for one in whole]).forms.n  # no form of a slice is lost in the whole


def test_it_finds_plain_feelings_and_is_hardly_better_than_chance_on_all() -> None:
    """What its page warns of: at the published cut two of three plainly negative forms are missed; at its authors' none is."""
    plain, authors = errors("plain"), errors("plain", AUTHORS_CUT)
    assert {label: one.alarms for label, one in plain.items()} == dict.fromkeys(FELT, 0.0)
    assert plain[NEGATIVE].sensitivity < 0.5 < plain[POSITIVE].sensitivity
    assert {one.sensitivity for one in authors.values()} == {1.0}
    whole = errors(ALL)
    assert whole[NEGATIVE].alarms < whole[NEGATIVE].sensitivity < 0.3
    assert set(kinds()) >= {ALL, "plain", "group"}
    for kind in ("question", "nothing of the kind"):  # the first has no feelings at all
        with pytest.raises(UnknownName, match="no kind of case"):
            errors(kind)


def test_its_table_is_that_of_a_count() -> None:
    tried = cases()
    found = contestants(tried)
    assert set(map(len, found.values())) == {len(tried)}
    assert set(found["commonest label"]) == {NEITHER}
    whole = Row.of("all", tried, found["judge"])
    assert whole.texts.k == sum(one.label == said for one, said in zip(tried, found["judge"], strict=True))
    assert whole.forms.n == len({(one.function, one.form, one.label) for one in tried})
    assert whole.opposite is not None
    assert whole.opposite.n == sum(one.label != NEITHER for one in tried)
    rows = {row.name: row for row in by_function(tried, found["judge"])}
    assert sum(row.texts.n for row in rows.values()) == len(tried)
    assert rows["group, attack opposed: neither"].texts.k == 0, "who opposes an attack is called negative"
    assert rows["negated blame: positive"].texts.k == 0
    assert Counter(row.texts.n for row in by_group(tried, found["judge"])) == {17: len(CASE_GROUPS)}
    assert len({row.texts.k for row in by_group(tried, found["judge"])}) == 1, "no group's name has a valence"
    changed = unlike(tried, found["judge"])
    assert {name for name, rate in changed.items() if rate.k} == {"name that is a word: neither"}
    assert "grave subject: neither" not in changed, "its forms have one filling"
    named = {
        one.filler for one, said in zip(tried, found["judge, cut at 0.05"], strict=True) if one.filler in WORD_NAMES and said != NEITHER
    }
    assert named == {"Joy", "Grace", "Hope", "Faith", "Sunny", "Rich"}
    with pytest.raises(BadValue, match="a label for each"):
        Row.of("none", [], [])


def test_the_list_without_rules_reads_no_negation() -> None:
    praised, negated = listed(["The food was good.", "The food was not good."])
    assert praised == negated > 0
    assert np.sign(scores(["The food was good.", "The food was not good."])).tolist() == [1.0, -1.0]


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name.startswith("vaderSentiment"):
            raise ImportError(name)
        return real(name, *more, **named)

    sentiment.analyzer.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"assay-workbench\[sentiment\]"):
        scores(["a text"])


def test_what_decides_a_label_has_one_digest() -> None:
    assert sentiment.digest() == sentiment.digest()
    assert len(sentiment.digest()) == 64
