"""The bill of materials keeps CycloneDX's own schema, with every finding of the audited model, and the same bytes."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import pytest

from tests.reports.sample import IDENTITIES, TARGET, sample
from tests.reports.test_html import PAYLOADS, hostile
from workbench.reports.parts import Identity
from workbench.reports.render import bom
from workbench.reports.report import Report

FOLDER, BASE = "cyclonedx.schema._res", "http://cyclonedx.org/schema/"


@cache
def validator() -> Any:
    """CycloneDX's published schema of our version, as its own Python library ships it."""
    pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib comes with the extra 'dev'")
    import jsonschema
    from referencing import Registry, Resource

    names = (f"bom-{bom.SPEC_VERSION}.SNAPSHOT.schema.json", "spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    names += ("cryptography-defs.SNAPSHOT.schema.json",)
    schemas = [json.loads((resources.files(FOLDER) / name).read_text(encoding="utf-8")) for name in names]
    pairs = [
        (key, Resource.from_contents(schema)) for schema, name in zip(schemas, names, strict=True) for key in (schema["$id"], BASE + name)
    ]
    known = Registry().with_resources(pairs)
    return jsonschema.Draft7Validator(schemas[0], registry=known)


def faults(text: str) -> list[str]:
    return [error.message[:200] for error in validator().iter_errors(json.loads(text))]


REPORTS = {
    "whole": sample(),
    "bare": Report(title="t", subject="s", date="d"),
    "odd licence": sample().model_copy(update={"identities": (Identity(part="audited", name="m", licence="ours", sha256="short"),)}),
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_schema_is_kept(name: str) -> None:
    assert faults(bom.render(REPORTS[name])) == []


def test_the_schema_catches_a_broken_one() -> None:
    good = bom.render(sample())
    assert faults(good.replace('"alg": "SHA-256"', '"alg": "SHA-257"', 1))
    assert faults(good.replace('"value": "0.963"', '"value": 0.963', 1))
    assert faults(good.replace('"bomFormat": "CycloneDX"', '"bomFormat": "other"', 1))


@pytest.mark.parametrize("payload", [PAYLOADS[number] for number in (0, 10, 13)], ids=["script", "control", "long"])
def test_hostile_texts_keep_the_schema(payload: str) -> None:
    assert faults(bom.render(hostile(payload))) == []


def test_it_holds_the_audited_models_findings_and_what_they_rest_on() -> None:
    document = json.loads(bom.render(sample()))
    model = document["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": IDENTITIES[0].sha256}]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    valued = [f for f in sample().all_findings() if f.effect is not None and f.subject == TARGET]
    assert [float(metric["value"]) for metric in metrics] == [f.effect for f in valued]
    bounds = [metric.get("confidenceInterval") for metric in metrics]
    expected = [f.interval and {"lowerBound": repr(f.interval.low), "upperBound": repr(f.interval.high)} for f in valued]
    assert bounds == expected
    kinds = [component["type"] for component in document["components"]]
    assert kinds == ["machine-learning-model", "data", "data", "library"]
    assert document["dependencies"] == [{"ref": "model-0", "dependsOn": ["data-0", "data-1"]}]
    assert bom.render(sample()) == bom.render(sample())


def test_licences_without_an_identifier_are_named() -> None:
    text = json.loads(bom.render(REPORTS["odd licence"]))
    model = text["metadata"]["component"]
    assert model["licenses"] == [{"license": {"name": "ours"}}]
    assert "hashes" not in model, "a digest that is no sha256 is not passed off as one"


def test_identifiers_are_spdx() -> None:
    known = json.loads((resources.files(FOLDER) / "spdx.SNAPSHOT.schema.json").read_text(encoding="utf-8"))
    assert set(known["enum"]) >= bom.SPDX
