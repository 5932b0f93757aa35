"""A gate as JUnit XML, which every CI server shows: a test suite a policy, a test case a decision; and a run without a policy.

Failed is ``failure``, inconclusive is ``skipped`` (the exit code, not the file, keeps it from passing), numbers are properties. Without a
policy nobody has said what may pass: *worse* than the reference fails, *better* and *equivalent* pass, and every other finding is skipped
with its verdict. Characters that XML 1.0 cannot hold become U+FFFD.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from workbench.core.finding import Finding, Verdict
from workbench.reports.exports.evaluated import Evaluated, Files
from workbench.reports.gate import Decision, Gate

_STATES = {Verdict.WORSE: "failure", Verdict.BETTER: "", Verdict.EQUIVALENT: ""}
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(gate: Gate) -> str:
    """The file's text. Equal gates, equal bytes: it holds no time."""
    count = {state: sum(one.state == state for one in gate.decisions) for state in ("pass", "fail", "inconclusive")}
    facts = {"run": gate.run, "model": gate.model, "model_digest": gate.model_digest, "policy_digest": gate.digest, "state": gate.state}
    cases = [_case(one) for one in gate.decisions]
    return _document("workbench gate", f"{gate.policy} on {gate.model}", facts, cases, count["fail"], count["inconclusive"])


def files(run: Evaluated) -> Files:
    """A run without a policy. Equal runs, equal bytes."""
    facts = {"run": run.run, "model": run.model, "model_digest": run.model_digest, "status": run.status}
    states = [_STATES.get(one.verdict, "skipped") for one in run.findings]
    cases = [_told(one, state) for one, state in zip(run.findings, states, strict=True)]
    name = f"{run.kind} of {run.model}"
    return {f"{run.run}.junit.xml": _document("workbench", name, facts, cases, states.count("failure"), states.count("skipped")).encode()}


def _document(program: str, name: str, facts: dict[str, str], cases: list[list[str]], failed: int, skipped: int) -> str:
    totals = f'tests="{len(cases)}" failures="{failed}" errors="0" skipped="{skipped}"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<testsuites name={_attribute(program)} {totals}>",
            f"  <testsuite name={_attribute(name)} {totals}>",
            *_properties(facts, "    "),
            *(line for lines in cases for line in lines),
            "  </testsuite>",
            "</testsuites>",
            "",
        ]
    )


def _case(one: Decision) -> list[str]:
    numbers = {"effect": one.effect, "low": one.low, "high": one.high, "alpha": one.alpha, "n": one.n, "needed": one.needed}
    facts = {name: repr(value) for name, value in numbers.items() if value is not None} | {"allowed": one.allowed, "card": one.card}
    word = {"pass": "", "fail": "failure", "inconclusive": "skipped"}[one.state]
    return _lines(one.source, f"{one.rule}: {one.measure}", facts, word, one.because, one.text())


def _told(one: Finding, word: str) -> list[str]:
    between = {"low": one.interval.low, "high": one.interval.high} if one.interval is not None else {}
    numbers = {"effect": one.effect, **between, "detectable": one.detectable}
    facts = {name: repr(value) for name, value in numbers.items() if value is not None} | {"verdict": one.verdict.value, "unit": one.unit}
    judged = "" if word == "failure" else "; no policy says whether that may be"
    return _lines(one.source, f"{one.claim}: {one.measure}", facts, word, f"{one.verdict}{judged}", f"{one.verdict}: {one.because}")


def _lines(suite: str, name: str, facts: dict[str, str], word: str, message: str, text: str) -> list[str]:
    return [
        f"    <testcase classname={_attribute(suite)} name={_attribute(name)}>",
        *_properties(facts, "      "),
        *([f"      <{word} message={_attribute(message)}>{_text(text)}</{word}>"] if word else []),
        "    </testcase>",
    ]


def _properties(facts: dict[str, str], indent: str) -> list[str]:
    rows = [f"{indent}  <property name={_attribute(name)} value={_attribute(value)}/>" for name, value in facts.items() if value]
    return [f"{indent}<properties>", *rows, f"{indent}</properties>"]


def _text(words: str) -> str:
    return escape(_ILLEGAL.sub("\ufffd", words))


def _attribute(words: str) -> str:
    return quoteattr(_ILLEGAL.sub("\ufffd", words), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
