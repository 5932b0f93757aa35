"""A run as an Every Eval Ever record: one JSON file with a result a finding, by the schema ``eval.schema.json``.

The schema knows scores, intervals and counts of samples. Verdict, null and calibration card have no field there and stand in the details,
which hold texts only. It demands to know whether less is better; that is said from the measure's name, and the details say where it is a
guess of that kind. Findings without a value are no results.
"""

from __future__ import annotations

import calendar
import json
import time
import uuid
from typing import Any

from workbench.core.finding import Finding
from workbench.core.spec import canonical_json
from workbench.reports.exports.evaluated import Evaluated, Files, labelled, sha256, slug

SCHEMA = "0.3.0"
HIGHER = ("acc", "accuracy", "exact-match", "exact-match-em", "f1", "em", "mc1", "mc2", "icat", "language-modelling")
"""Measures of which more is better; of all others here (bias, exposure, toxicity, refusal, perplexity) less is."""


def files(run: Evaluated) -> Files:
    """The record, at the place that the collection gives it. Equal runs, equal bytes."""
    own = uuid.UUID(hex=sha256(f"assay {run.run}")[:32], version=4)  # of the form that is asked for, and the same each time
    place = f"data/assay/unknown/{slug(run.model)}/{own}.json"
    return {place: (json.dumps(record(run), indent=2, sort_keys=True, allow_nan=False) + "\n").encode("ascii")}


def record(run: Evaluated) -> dict[str, Any]:
    """The run as the schema wants it."""
    data = {part.suite: part.data_digest for part in run.parts}
    findings = [(name, one) for name, one in labelled(run.findings) if one.effect is not None]
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{slug(run.kind)}/{slug(run.model)}/{run.run}",
        "evaluation_timestamp": _epoch(run.created),
        "retrieved_timestamp": _epoch(run.finished or run.created),
        "source_metadata": {
            "source_name": "assay", "source_type": "evaluation_run", "source_organization_name": "unknown",
            "evaluator_relationship": "other", "additional_details": {"run": run.run, "status": run.status},
        },
        "eval_library": {"name": "assay-workbench", "version": run.version, "additional_details": dict(run.packages)},
        "model_info": {"name": run.model, "id": run.model, "developer": "unknown", "additional_details": _model(run)},
        "evaluation_results": [_result(run, name, one, data.get(one.source, "")) for name, one in findings],
    }  # fmt: skip


def _model(run: Evaluated) -> dict[str, str]:
    """Who runs the model is known of what ran here; whether others may have its weights is not."""
    served = run.kind == "import" or run.model.startswith("endpoint:")
    where = "unknown" if served else "self_deployed"
    return {"model_digest": run.model_digest, "deployment_type": where, "model_availability": "unknown"}


def _result(run: Evaluated, name: str, finding: Finding, data: str) -> dict[str, Any]:
    higher = slug(finding.measure) in HIGHER
    score: dict[str, Any] = {"score": finding.effect, "details": _details(finding)}
    uncertainty: dict[str, Any] = {}
    if finding.interval is not None:
        one = finding.interval
        uncertainty["confidence_interval"] = {
            "lower": one.low, "upper": one.high, "confidence_level": one.level, "method": one.method
        }  # fmt: skip
    if finding.denominators is not None:
        uncertainty["num_samples"] = finding.denominators.scored
    if uncertainty:
        score["uncertainty"] = uncertainty
    return {
        "evaluation_result_id": f"{run.run}/{slug(finding.source)}/{name}",
        "evaluation_name": f"assay.{slug(finding.source)}",
        "source_data": {
            "dataset_name": finding.source, "source_type": "other", "source_id": data or sha256(finding.source),
            "additional_details": {"digest": data},
        },
        "metric_config": {
            "evaluation_description": finding.claim, "metric_id": f"assay.{slug(finding.source)}.{name}", "metric_name": finding.measure,
            "metric_unit": finding.unit or "none", "lower_is_better": not higher,
            "additional_details": {"direction": "more is better" if higher else "less is better, unless the claim says otherwise"},
        },
        "score_details": score,
    }  # fmt: skip


def _details(finding: Finding) -> dict[str, str]:
    facts = {
        "verdict": finding.verdict.value, "because": finding.because, "status": finding.status, "card": finding.card_words,
        "null": finding.null.model_dump(mode="json") if finding.null is not None else None, "detectable": finding.detectable,
        "denominators": finding.denominators.model_dump(mode="json") if finding.denominators is not None else None,
    }  # fmt: skip
    return {name: value if isinstance(value, str) else canonical_json(value) for name, value in facts.items() if value not in (None, "")}


def _epoch(moment: str) -> str:
    """Seconds since 1970, as text."""
    return str(calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")))
