"""A gate in the dialects of CI servers: whole, parsable and inert, whatever names and measures hold."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.reports.exports import junit, sarif
from workbench.reports.gate import Decision, Gate, State

HOSTILE = "<script>alert(1)</script> ]]> \x00\x1b[31m\u202e\ufffe & \" ' =1+1 {{ x }}"


def decision(state: State, words: str = "m") -> Decision:
    return Decision(
        words, words, words, state, f"because {words}", "at most 1", 0.5, 0.4, 0.6, n=10, needed=None if state == "pass" else 99
    )


def made(*states: State, words: str = "m") -> Gate:
    return Gate("p", "d" * 64, "policy.yaml", "run", words, "a" * 64, tuple(decision(state, words) for state in states))


def test_a_gate_is_as_bad_as_its_worst_decision() -> None:
    assert made("pass", "pass").exit_code == 0
    assert made("pass", "inconclusive").exit_code == 2
    assert made("inconclusive", "fail", "pass").exit_code == 1
    assert made().exit_code == 2, "nothing decided is no pass"
    assert "about 99 samples would decide (now 10)" in made("inconclusive").lines()[0]
    assert made("pass").lines()[-1] == "p: pass"


def test_junit_counts_and_names_every_decision() -> None:
    text = junit.render(made("pass", "fail", "inconclusive"))
    (suite,) = ET.fromstring(text.encode())
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "1", "errors": "0", "skipped": "1",
    }  # fmt: skip
    cases = suite.findall("testcase")
    assert [[child.tag for child in case if child.tag != "properties"] for case in cases] == [[], ["failure"], ["skipped"]]
    numbers = {p.get("name"): p.get("value") for p in cases[1].iter("property")}
    assert (numbers["effect"], numbers["low"], numbers["high"], numbers["needed"]) == ("0.5", "0.4", "0.6", "99")
    assert junit.render(made("pass")) == junit.render(made("pass"))


def test_sarif_has_the_parts_that_the_standard_and_code_scanning_ask_for() -> None:
    gate = made("pass", "fail", "inconclusive")
    said = json.loads(sarif.render(gate, "1.2"))
    assert said["version"] == "2.1.0"
    (run,) = said["runs"]
    assert run["tool"]["driver"]["version"] == "1.2"
    assert [(r["kind"], r["level"]) for r in run["results"]] == [("pass", "none"), ("fail", "error"), ("open", "none")]
    for result in run["results"]:
        assert result["level"] == "none" or result["kind"] == "fail", "SARIF 2.1.0, 3.27.10: another kind than 'fail' has no level"
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1
    same, other = (json.loads(sarif.render(one, "9")) for one in (made("fail"), made("fail", words="n")))
    prints = [one["runs"][0]["results"][0]["partialFingerprints"]["assay/v1"] for one in (said, same, other)]
    assert prints[0] == prints[1] != prints[2]


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_words_of_any_kind_are_inert_in_both(words: str) -> None:
    for text in (words, words + HOSTILE):
        gate = made("fail", words=text)
        suite = ET.fromstring(junit.render(gate).encode("utf-8", "strict"))
        assert [node.tag for node in suite.iter()].count("testcase") == 1
        assert {node.tag for node in suite.iter()} <= {"testsuites", "testsuite", "testcase", "properties", "property", "failure"}
        assert json.loads(sarif.render(gate, "1"))["runs"][0]["results"][0]["ruleId"] == text
