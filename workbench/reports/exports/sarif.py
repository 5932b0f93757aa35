"""A gate as SARIF 2.1.0 (OASIS, 2020), which code-scanning pages show: a rule a policy's rule, a result a decision.

A failed rule is an ``error``, an inconclusive one a ``warning`` of kind ``open``, a passed one kind ``pass`` with level ``none``. A result
lies at its rule's line of the policy file (a page needs a file), with suite and measure as its logical location; its fingerprint is of
rule, measure and model, so that the same trouble is the same alert from run to run.
"""

from __future__ import annotations

import json
from typing import Any

from workbench.core.spec import digest_of
from workbench.reports.gate import Decision, Gate

VERSION = "2.1.0"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_KINDS = {"pass": ("pass", "none"), "fail": ("fail", "error"), "inconclusive": ("open", "warning")}


def render(gate: Gate, version: str) -> str:
    """The file's text; ``version`` is the program's. Equal gates, equal bytes."""
    rules = list(dict.fromkeys(one.rule for one in gate.decisions))
    driver = {"name": "workbench gate", "version": version, "rules": [_rule(name, gate) for name in rules]}
    facts = {"run": gate.run, "model": gate.model, "modelDigest": gate.model_digest, "policyDigest": gate.digest, "state": gate.state}
    run = {
        "tool": {"driver": driver}, "results": [_result(one, gate, rules.index(one.rule)) for one in gate.decisions],
        "properties": facts,
    }  # fmt: skip
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
