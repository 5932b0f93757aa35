"""A gate as SARIF 2.1.0 (OASIS, 2020), which code-scanning pages show: a rule a policy's rule, a result a decision; and a run without one.

A failed rule is of kind ``fail`` and level ``error``, an undecided one of kind ``open``, a passed one of kind ``pass``: a result of any
kind but ``fail`` must have the level ``none`` (3.27.10), so nothing but a failed rule is a problem in a page that shows problems. A result
lies at its rule's line of the policy file (a page needs a file), with suite and measure as its logical location; its fingerprint is of
rule, measure and model, so that the same trouble is the same alert from run to run.

Without a policy a rule is a suite's measure and a result a finding. It is ``informational``, since nobody has said what may be; *worse*
than the reference is a ``warning``, and what could not be decided is ``open``.
"""

from __future__ import annotations

import json
from typing import Any

from workbench.core.finding import Finding, Verdict
from workbench.core.spec import digest_of
from workbench.reports.exports.evaluated import Evaluated, Files
from workbench.reports.gate import Decision, Gate

VERSION = "2.1.0"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_UNDECIDED = (Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE, Verdict.NOT_CALIBRATED)
_KINDS = {"pass": ("pass", "none"), "fail": ("fail", "error"), "inconclusive": ("open", "none")}


def render(gate: Gate, version: str) -> str:
    """The file's text; ``version`` is the program's. Equal gates, equal bytes."""
    rules = list(dict.fromkeys(one.rule for one in gate.decisions))
    driver = {"name": "workbench gate", "version": version, "rules": [_rule(name, gate) for name in rules]}
    facts = {"run": gate.run, "model": gate.model, "modelDigest": gate.model_digest, "policyDigest": gate.digest, "state": gate.state}
    return _document(driver, [_result(one, gate, rules.index(one.rule)) for one in gate.decisions], facts)


def files(run: Evaluated) -> Files:
    """A run without a policy. Equal runs, equal bytes."""
    names = [f"{one.source}: {one.measure}" for one in run.findings]
    rules = list(dict.fromkeys(names))
    driver = {
        "name": "workbench",
        "version": run.version,
        "rules": [{"id": name, "name": name, "shortDescription": {"text": name}} for name in rules],
    }
    facts = {"run": run.run, "model": run.model, "modelDigest": run.model_digest, "status": run.status}
    results = [_told(one, run, name, rules.index(name)) for one, name in zip(run.findings, names, strict=True)]
    return {f"{run.run}.sarif": _document(driver, results, facts).encode()}


def _document(driver: dict[str, Any], results: list[dict[str, Any]], facts: dict[str, str]) -> str:
    run = {"tool": {"driver": driver}, "results": results, "properties": facts}
    return json.dumps({"$schema": SCHEMA, "version": VERSION, "runs": [run]}, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _rule(name: str, gate: Gate) -> dict[str, Any]:
    first = next(one for one in gate.decisions if one.rule == name)
    words = f"{name}: {first.source} is to be {first.allowed} at alpha {first.alpha:g}"
    return {"id": name, "name": name, "shortDescription": {"text": words}, "defaultConfiguration": {"level": "error"}}


def _result(one: Decision, gate: Gate, index: int) -> dict[str, Any]:
    kind, level = _KINDS[one.state]
    numbers = {"effect": one.effect, "low": one.low, "high": one.high, "alpha": one.alpha, "n": one.n, "needed": one.needed}
    where = {"artifactLocation": {"uri": gate.file}, "region": {"startLine": one.line}}
    logical = [{"fullyQualifiedName": f"{gate.model}/{one.source}/{one.measure}", "name": one.measure, "kind": "member"}]
    return {
        "ruleId": one.rule, "ruleIndex": index, "kind": kind, "level": level, "message": {"text": one.text()},
        "locations": [{"physicalLocation": where, "logicalLocations": logical}],
        "partialFingerprints": {"assay/v1": digest_of([one.rule, one.source, one.measure, gate.model])},
        "properties": {name: value for name, value in numbers.items() if value is not None} | {"card": one.card},
    }  # fmt: skip


def _told(one: Finding, run: Evaluated, rule: str, index: int) -> dict[str, Any]:
    if one.verdict is Verdict.WORSE:
        kind, level = "fail", "warning"
    else:
        kind, level = ("open" if one.verdict in _UNDECIDED else "informational"), "none"
    between = {"low": one.interval.low, "high": one.interval.high} if one.interval is not None else {}
    numbers = {"effect": one.effect, **between, "detectable": one.detectable}
    logical = [{"fullyQualifiedName": f"{run.model}/{one.source}/{one.measure}", "name": one.measure, "kind": "member"}]
    seen = "" if one.effect is None else f" ({one.measure} {one.effect:.4g} {one.unit})".replace(" )", ")")
    return {
        "ruleId": rule, "ruleIndex": index, "kind": kind, "level": level,
        "message": {"text": f"{one.verdict}: {one.claim}{seen}, because {one.because or 'no reason was noted'}"},
        "locations": [{"logicalLocations": logical}],
        "partialFingerprints": {"assay/v1": digest_of([one.source, one.measure, one.claim, run.model])},
        "properties": {name: value for name, value in numbers.items() if value is not None} | {"verdict": one.verdict.value},
    }  # fmt: skip
