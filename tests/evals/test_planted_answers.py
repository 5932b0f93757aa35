"""Suites of bias on models whose answers are planted by rule: what is planted is found through the whole way, and what is not is not.

The models answer requests as one behind a server does: text in, log-probabilities out. They know the answers and the stereotypes of the
small files written here, and follow the one or the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evals.runner import run_suite
from evals.suites.bbq import SUITE as BBQ
from evals.suites.bbq import BBQSpec
from evals.suites.winobias import SUITE as WINOBIAS
from evals.suites.winobias import WinoBiasSpec
from tests.engine.models import Wrapped, wordy
from tests.evals import test_bbq as bbq
from tests.evals import test_winobias as winobias
from workbench.core.finding import Finding, Verdict
from workbench.core.measure import Generate, Loglikelihood

Rule = Callable[[str, Sequence[str]], int]  # the number of the continuation that is likelier


class Planted:
    """Answers every request by ``rule``; the chosen continuation gets −1 nat a word, the others −2."""

    family, name, tokenizer, config, abilities = "planted", "planted", None, None, frozenset({"logprobs"})

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def digest(self) -> str:
        return "planted"

    def _inside(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a model of text alone was asked for what is inside it")

    sites = run = weight = _inside

    def generations(self, requests: Sequence[Generate], **_: Any) -> Iterator[tuple[int, str]]:
        assert not requests, "nothing is generated here"
        return iter(())

    def loglikelihoods(self, requests: Sequence[Loglikelihood], **_: Any) -> Iterator[tuple[int, list[list[float]]]]:
        for number, request in enumerate(requests):
            chosen = self.rule(request.context, request.continuations)
            yield number, [[-1.0 if k == chosen else -2.0] * len(one.split()) for k, one in enumerate(request.continuations)]


def found(suite: Any, rule: Rule, spec: Any) -> dict[str, Finding]:
    model: Any = Planted(rule)  # a model of text alone
    result = run_suite(suite, model, spec)
    return {one.measure: one for one in suite.findings(result, subject="m")}


# --- WinoBias -------------------------------------------------------------------------------------------------


def by_stereotype(context: str, options: Sequence[str]) -> int:
    sex = winobias.MALE if '"he"' in context else winobias.FEMALE
    return next(k for k, option in enumerate(options) if option.strip() in sex)


def by_meaning(context: str, options: Sequence[str]) -> int:
    return 0  # the right answer is asked first, and no request says so


def always_the_man(context: str, options: Sequence[str]) -> int:
    return next(k for k, option in enumerate(options) if option.strip() in winobias.MALE)


@pytest.mark.parametrize(
    ("rule", "effect", "verdict"),
    [(by_stereotype, 1.0, Verdict.DETECTED), (by_meaning, 0.0, Verdict.NOT_DETECTED), (always_the_man, 0.0, Verdict.NOT_APPLICABLE)],
)
def test_pronouns(rule, effect, verdict, tmp_path):
    one = found(WINOBIAS, rule, WinoBiasSpec(folder=str(winobias.write(tmp_path / "w", 36)), types=(1,)))
    finding = one["accuracy pro less anti, type 1, mean"]
    assert (finding.effect, finding.verdict) == (effect, verdict)


# --- BBQ ------------------------------------------------------------------------------------------------------


def told(folder: Path) -> str:
    """Questions whose context says "It was …" where it is disambiguated, and whose question is for something bad or good."""
    rows = [bbq.line(t * 8 + k, template=t) for t in range(10) for k in range(8)]
    for row in rows:
        gold = row[f"ans{row['label']}"]
        row["context"] = "a cat sat here." + ("" if row["context_condition"] == "ambig" else f" It was {gold}.")
        row["question"] = "who is bad?" if row["question_polarity"] == "neg" else "who is good?"
    return str(bbq.write(folder / "told.jsonl", rows))


def texts(context: str, options: Sequence[str]) -> list[str]:
    """The answers behind the options, lettered ones too."""
    lettered = dict(re.findall(r"^([ABC]): (.*)$", context, re.MULTILINE))
    return [lettered.get(option.strip(), option.strip()) for option in options]


def reader(context: str, options: Sequence[str]) -> int:
    """What the context says, and UNKNOWN where it says nothing."""
    said = re.search(r"It was (.*)\.", context)
    return texts(context, options).index(said[1] if said else "not here")


def prejudiced(context: str, options: Sequence[str]) -> int:
    """What the context says; where it says nothing, the stereotype."""
    if "It was" in context:
        return reader(context, options)
    return texts(context, options).index("the cat" if "who is bad" in context else "the mat")


def stubborn(context: str, options: Sequence[str]) -> int:
    """The stereotype, whatever the context says."""
    return texts(context, options).index("the cat" if "who is bad" in context else "the mat")


def test_bad_and_good_answers(tmp_path):
    spec = BBQSpec(files=(told(tmp_path),))
    for reading in ("text", "text_sum", "letter"):
        one = found(BBQ, prejudiced, spec)
        assert one[f"s_AMB, Age, {reading}"].effect == 100
        assert one[f"s_AMB, Age, {reading}"].verdict == Verdict.DETECTED
        assert one[f"s_DIS, Age, {reading}"].effect == 0
        assert one[f"s_AMB, Age, {reading}"].details["accuracy_disambiguated"]["value"] == 1
        fair = found(BBQ, reader, spec)
        assert fair[f"s_AMB, Age, {reading}"].effect is None  # it names nobody
        assert fair[f"s_DIS, Age, {reading}"].effect == 0
        assert fair[f"s_DIS, Age, {reading}"].verdict == Verdict.NOT_DETECTED
        deaf = found(BBQ, stubborn, spec)
        assert deaf[f"s_DIS, Age, {reading}"].effect == 100
        gap = deaf[f"s_DIS, Age, {reading}"].details["accuracy_gap"]
        assert gap["value"] == 1


def test_answers_share_the_run_of_their_context(tmp_path):
    """Three answers cost the context once: under half the positions of a row an answer."""
    rows = [bbq.line(k, context="the cat sat on the mat " * 12) for k in range(4)]
    model: Any = Wrapped(wordy(n_ctx=256))
    run_suite(BBQ, model, BBQSpec(files=(str(bbq.write(tmp_path / "a.jsonl", rows)),), forms=("text",)))
    shared = sum(batch * positions for (batch, positions), _ in model.runs)
    plain: Any = Wrapped(wordy(n_ctx=256), "mask", "cache")  # a row an answer
    run_suite(BBQ, plain, BBQSpec(files=(str(tmp_path / "a.jsonl"),), forms=("text",)))
    apart = sum(batch * positions for (batch, positions), _ in plain.runs)
    assert shared < apart / 2
