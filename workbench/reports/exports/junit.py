"""A gate as JUnit XML, which every CI server shows: a test suite a policy, a test case a decision.

Failed is ``failure``, inconclusive is ``skipped`` (the exit code, not the file, keeps it from passing), numbers are properties. Characters
that XML 1.0 cannot hold become U+FFFD.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from workbench.reports.gate import Decision, Gate

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(gate: Gate) -> str:
    """The file's text. Equal gates, equal bytes: it holds no time."""
    count = {state: sum(one.state == state for one in gate.decisions) for state in ("pass", "fail", "inconclusive")}
    totals = f'tests="{len(gate.decisions)}" failures="{count["fail"]}" errors="0" skipped="{count["inconclusive"]}"'
    facts = {"run": gate.run, "model": gate.model, "model_digest": gate.model_digest, "policy_digest": gate.digest, "state": gate.state}
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<testsuites name={_attribute('workbench gate')} {totals}>",
            f"  <testsuite name={_attribute(f'{gate.policy} on {gate.model}')} {totals}>",
            *_properties(facts, "    "),
            *(line for one in gate.decisions for line in _case(one)),
            "  </testsuite>",
            "</testsuites>",
            "",
        ]
    )


def _case(one: Decision) -> list[str]:
    numbers = {"effect": one.effect, "low": one.low, "high": one.high, "alpha": one.alpha, "n": one.n, "needed": one.needed}
    facts = {name: repr(value) for name, value in numbers.items() if value is not None} | {"allowed": one.allowed, "card": one.card}
    inside = {"pass": [], "fail": ["failure"], "inconclusive": ["skipped"]}[one.state]
    return [
        f"    <testcase classname={_attribute(one.source)} name={_attribute(f'{one.rule}: {one.measure}')}>",
        *_properties(facts, "      "),
        *(f"      <{word} message={_attribute(one.because)}>{_text(one.text())}</{word}>" for word in inside),
        "    </testcase>",
    ]


def _properties(facts: dict[str, str], indent: str) -> list[str]:
    rows = [f"{indent}  <property name={_attribute(name)} value={_attribute(value)}/>" for name, value in facts.items() if value]
    return [f"{indent}<properties>", *rows, f"{indent}</properties>"]


def _text(words: str) -> str:
    return escape(_ILLEGAL.sub("\ufffd", words))


def _attribute(words: str) -> str:
    return quoteattr(_ILLEGAL.sub("\ufffd", words), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
