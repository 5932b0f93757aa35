"""The audited model as a CycloneDX machine-learning bill of materials (ML-BOM), version 1.7, as JSON.

The model is the document's component, with its model card: architecture, data sets, every finding that has a value as a performance
metric with its interval, and the limits. Reference models, training data and packages are components beside it. No time is written:
the serial number comes from the report's digest, so equal reports give equal bytes.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from workbench.core.finding import Finding
from workbench.reports import phrases
from workbench.reports.parts import Identity, TrainingData
from workbench.reports.report import Origin, Report
from workbench.reports.standard import limit_lines
from workbench.reports.words import ENGLISH

SPEC_VERSION = "1.7"
_SPDX_TEXT = (
    "Apache-2.0 MIT BSD-2-Clause BSD-3-Clause CC0-1.0 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC-BY-NC-4.0 CC-BY-NC-SA-4.0 "
    "GPL-2.0-only GPL-3.0-only LGPL-3.0-only AGPL-3.0-only MPL-2.0 ISC Unlicense ODC-By-1.0 ODbL-1.0 PDDL-1.0"
)
SPDX = frozenset(_SPDX_TEXT.split())
"""Licences that are named by their SPDX identifier; any other is given by its name."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def render(report: Report, *, language: str = ENGLISH) -> str:
    """The bill of materials with a final line feed."""
    digest = report.digest()
    audited = report.identities[0] if report.identities else Identity(part="audited", name=report.subject or "model")
    others = [_model(identity, number) for number, identity in enumerate(report.identities[1:], start=1)]
    data = [_data(each, f"data-{number}") for number, each in enumerate(audited.training_data)]
    packages = [_package(origin, number) for number, origin in enumerate(o for o in report.provenance if o.kind == "package")]
    code = next((origin.value for origin in report.provenance if origin.kind == "code"), "")
    model = _model(audited, 0) | {"modelCard": _card(report, audited, data, language)}
    document = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "Assay", **({"version": _version(code)} if code else {})}]},
            "component": model,
            "properties": [{"name": "assay:report:digest", "value": digest}, {"name": "assay:report:date", "value": _line(report.date)}],
        },
        "components": [*others, *data, *packages],
        "dependencies": [{"ref": "model-0", **({"dependsOn": [each["bom-ref"] for each in data]} if data else {})}],
    }
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _line(text: str, most: int = phrases.MOST_CHARACTERS) -> str:
    return " ".join(phrases.clipped(text, most=most).split())


def _version(text: str) -> str:
    """A version as the schema takes it: at most 1,024 characters, also where each was made visible by eight others."""
    return _line(text, 100)


def _model(identity: Identity, number: int) -> dict[str, Any]:
    return {"type": "machine-learning-model", "bom-ref": f"model-{number}", "name": _line(identity.name)} | _marks(
        identity.sha256, identity.licence
    )


def _data(data: TrainingData, ref: str) -> dict[str, Any]:
    described = {"description": _line(data.source)} if data.source else {}
    counted = {"properties": [{"name": "assay:items", "value": str(data.items)}]} if data.items is not None else {}
    return {"type": "data", "bom-ref": ref, "name": _line(data.name)} | described | _marks(data.sha256, data.licence) | counted


def _package(origin: Origin, number: int) -> dict[str, Any]:
    return {"type": "library", "bom-ref": f"package-{number}", "name": _line(origin.name), "version": _version(origin.value)}


def _marks(sha256: str, licence: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if _SHA256.fullmatch(sha256):
        out["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    if licence:
        out["licenses"] = [{"license": {"id": licence} if licence in SPDX else {"name": _line(licence)}}]
    return out


def _card(report: Report, identity: Identity, data: list[dict[str, Any]], language: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if identity.family:
        parameters["architectureFamily"] = _line(identity.family)
    if identity.architecture:
        parameters["modelArchitecture"] = _line(identity.architecture)
    if data:
        parameters["datasets"] = [{"ref": each["bom-ref"]} for each in data]
    findings = [finding for finding in report.all_findings() if finding.subject == identity.name]
    considerations: dict[str, Any] = {"technicalLimitations": [_line(line) for line in limit_lines(report, language)]}
    if identity.intended_use:
        considerations["useCases"] = [_line(identity.intended_use)]
    size = [{"name": "assay:parameters", "value": str(identity.parameters)}] if identity.parameters is not None else []
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [_metric(finding) for finding in findings if finding.effect is not None]},
        "considerations": considerations,
        "properties": [*size, *({"name": f"assay:finding:{f.digest()[:16]}", "value": _verdict(f)} for f in findings)],
    }


def _metric(finding: Finding) -> dict[str, Any]:
    out: dict[str, Any] = {
        "type": _line(f"{finding.source}: {finding.measure}" + (f", {finding.unit}" if finding.unit else "")),
        "value": repr(finding.effect),
        "slice": _line(finding.claim),
    }
    if finding.interval is not None:
        out["confidenceInterval"] = {"lowerBound": repr(finding.interval.low), "upperBound": repr(finding.interval.high)}
    return out


def _verdict(finding: Finding) -> str:
    badge = " (exploratory)" if finding.exploratory else ""
    return _line(f"{finding.verdict.value}{badge}: {finding.claim}")
