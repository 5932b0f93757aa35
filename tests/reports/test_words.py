"""A language is a file: every key there and none more, the same {names}, and each key is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.reports.accessibility import Page, problems
from tests.reports.sample import findings, sample
from workbench.core.errors import UnknownName
from workbench.core.finding import Interval, Verdict, decide
from workbench.reports import phrases, words
from workbench.reports.crosswalk import frameworks
from workbench.reports.render import card, html
from workbench.reports.view import view
from workbench.reports.words import flat, flat_english, languages, mismatches, words_of

FOLDER = Path(words.__file__).parent
OTHERS = [name for name in languages() if name != "en"]


def test_chinese_is_shipped() -> None:
    assert languages() == ["en", "zh"]
    assert words_of("zh").tag == "zh-Hans"
    with pytest.raises(UnknownName, match=r"no language 'xx'"):
        words_of("xx")


@pytest.mark.parametrize("name", OTHERS)
def test_every_language_has_every_phrase(name: str) -> None:
    other = flat(yaml.safe_load((FOLDER / "languages" / f"{name}.yaml").read_text(encoding="utf-8")))
    assert mismatches(flat_english(), other) == []
    same = [key for key, text in other.items() if text == flat_english()[key] and re.search("[a-z]{4}", re.sub(r"\{\w+\}", "", str(text)))]
    assert same in ([], ["column.sha256"]), "phrases that were not translated"


BROKEN = {
    "missing": (lambda p: p.pop("page.skip"), "'page.skip' is missing"),
    "too many": (lambda p: p.update({"page.more": "x"}), "'page.more' is not in en.yaml"),
    "another name": (lambda p: p.update({"finding.bounds": "{low} bis {hoch}"}), r"'finding.bounds' does not name \['high', 'hoch'\]"),
    "a shorter list": (lambda p: p.update({"identity.head": ["x"]}), "'identity.head' is not a list of the same length"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_language_is_caught(name: str) -> None:
    other = dict(flat_english())
    change, said = BROKEN[name]
    change(other)
    found = mismatches(flat_english(), other)
    assert len(found) == 1
    assert re.fullmatch(said + ".*", found[0])


def test_every_phrase_is_used_somewhere() -> None:
    places = [*FOLDER.glob("*.py"), *(FOLDER / "render").glob("*.*"), FOLDER / "crosswalk.yaml"]
    text = "".join(place.read_text(encoding="utf-8") for place in places)
    used = set(re.findall(r"[a-z_]+\.[a-z_0-9]+", text))
    by_name = {"because", "verdict", "meaning", "status", "column", "identity", "language", "kind"}  # keys of a group and a name
    leads = {"identity.lead", "coverage.lead", "coverage.title", "identity.title"}
    assert sorted(key for key in flat_english() if key not in used | leads and key.split(".")[0] not in by_name) == []


def test_the_page_in_another_language_says_whose_words_are_english() -> None:
    page = html.render(sample(), language="zh")
    assert problems(page) == []
    parsed = Page(page)
    assert parsed.named("html")[0][1]["lang"] == "zh-Hans"
    chinese = re.compile("[\u4e00-\u9fff]")
    ours = [text for index, attrs in parsed.named("h2") if "lang" not in attrs for text in [parsed.text_of(index)]]
    assert all(chinese.search(text) for text in ours)
    theirs = [index for index, attrs in parsed.named("h3") if attrs.get("lang") == "en"]
    assert len(theirs) == len(sample().all_findings()) + len(frameworks())


BOUNDS = Interval(low=-0.01, high=0.02, method="Wilson")
REASONS = [
    decide(0.1, BOUNDS, null=0.0, applicable=False),
    decide(None, None, null=0.0),
    decide(0.0, BOUNDS, null=0.0, margin=0.05),
    decide(0.0, BOUNDS, null=0.0, margin=0.05, detectable=0.125),
    decide(0.1, BOUNDS, null=-1.5e-05, margin=None),
    decide(0.1, Interval(low=0.05, high=0.2, method="Wilson"), null=0.004),
    decide(0.1, BOUNDS, null=0.0, margin=0.005),
    decide(-0.12, Interval(low=-0.17, high=-0.05, method="Wilson"), null=0.0, margin=0.15),
    decide(0.0, BOUNDS, null=0.0, detectable=0.0376),
    decide(0.0, BOUNDS, null=0.0),
]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("verdict", "because"), REASONS)
def test_every_reason_of_a_verdict_is_told_in_the_language(verdict: Verdict, because: str, name: str) -> None:
    finding = findings()[0].model_copy(update={"verdict": verdict, "because": because})
    told = phrases.because_words(finding, name)
    assert re.search("[\u4e00-\u9fff]", told)
    assert sorted(re.findall(r"-?\d[\de.+-]*", told)) == sorted(re.findall(r"-?\d[\de.+-]*", because))
    assert phrases.because_words(finding) == because
    undeclared = finding.model_copy(update={"because": f"{because} (exploratory: not a declared claim)"})
    assert phrases.because_words(undeclared, name).startswith(told)
    assert "exploratory" not in phrases.because_words(undeclared, name)
    assert phrases.because_words(undeclared) == undeclared.because


def test_a_suites_own_reason_stays_as_it_is() -> None:
    own = findings()[0].model_copy(update={"because": "its median mass is 0.006, under the floor 0.5"})
    assert phrases.because_words(own, "zh") == own.because
    suffix, told = words_of()("finding.undeclared", because=""), words_of("zh")
    for reason in (own.because, ""):  # as an audit joins them
        undeclared = own.model_copy(update={"because": f"{reason}{suffix}".lstrip(), "exploratory": True})
        assert phrases.because_words(undeclared, "zh") == told("finding.undeclared", because=reason)


def test_numbers_are_the_same_in_every_language() -> None:
    one, other = view(sample()), view(sample(), "zh")
    for here, there in zip(one["findings"], other["findings"], strict=True):
        assert here["effect"] == there["effect"] or not here["known"]
        digits = re.compile(r"\d[\d,.]*\d|\d")
        for (_, text, role), (_, same, _) in zip(here["facts"], there["facts"], strict=True):
            assert sorted(digits.findall(text)) == sorted(digits.findall(same)), role
    assert phrases.effect_words(findings()[0], "zh") == phrases.effect_words(findings()[0])
    assert phrases.verdict_words(Verdict.DETECTED, "zh") == "◆ 检出"


def test_the_card_in_another_language_has_the_same_metadata() -> None:
    one, other = card.render(sample()), card.render(sample(), language="zh")
    assert one.split("---\n")[1] == other.split("---\n")[1]
    assert "## 审计结果" in other
