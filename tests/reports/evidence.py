"""A small evidence bundle for tests: two samples' files, two results, two findings, everything else as a real one has it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from workbench.core.finding import Card, Denominators, Finding, Interval, Plan, Verdict
from workbench.core.result import Provenance, Result
from workbench.core.spec import canonical_json, digest_of
from workbench.reports.evidence import keys, statement
from workbench.reports.evidence.bundle import Evidence, bundle, predicate_of
from workbench.reports.evidence.container import pack, unpack
from workbench.reports.evidence.keys import PrivateKey
from workbench.reports.evidence.samples import Row
from workbench.reports.report import Report, Section

MODELS = {"model:a": "a" * 64, "model:b": "b" * 64}


def sample(number: int, right: bool, part: str) -> Row:
    record = {
        "sample": f"{number:04d}", "epoch": 0, "cluster": f"c{number // 2}", "group": "", "unscored": "", "apart": 0,
        "values": {"right": right, "score": number / 7}, "of": digest_of(part),
    }  # fmt: skip
    return Row(record, digest_of(["asked", number]))


def finding(part: str, effect: float) -> Finding:
    return Finding(
        claim=f"the {part} model is right", subject=f"model:{part}", source="toy", measure="share of right answers", effect=effect,
        interval=Interval(low=effect - 0.1, high=effect + 0.1, method="Wilson"), denominators=Denominators(run=6, scored=6),
        verdict=Verdict.DETECTED,
    )  # fmt: skip


@cache
def evidence() -> Evidence:
    """The content of the small bundle. It is no audit's: what its numbers rest on is made up."""
    findings = (finding("a", 0.5), finding("b", 0.75))
    section = Section(title="Suite: toy", anchor="suite-toy", lead="A toy.", findings=findings)
    report = Report(title="Audit of model:a", subject="model:a", date="2026-01-02", sections=(section,))
    results: dict[str, Result] = {}
    samples: dict[str, list[Row]] = {}
    for part in ("a", "b"):
        rows = [sample(number, number % 2 == 0 or part == "b", part) for number in range(6)]
        values = xr.Dataset({"score": ("item", np.array([row.record["values"]["score"] for row in rows]))})
        samples[f"toy.{part}"] = rows
        results[f"toy.{part}"] = Result("toy", values, {"seed": 0}, Provenance(model=f"model:{part}", model_digest=MODELS[f"model:{part}"]))
    subjects = [{"part": part, "ref": f"model:{part}", "model_digest": MODELS[f"model:{part}"]} for part in ("a", "b")]
    card = Card(of="toy", family="gpt", norm_placement="pre", domain="town", parameters=1000, conditions="made up")
    return Evidence(
        run={"id": "0000000000000", "kind": "audit", "created": "2026-01-02T00:00:00Z", "spec_digest": "c" * 64},
        plan=Plan(name="toy", model="model:a", reference="model:b", suites=("toy",)),
        circumstances=canonical_json({"subjects": subjects, "environment": {"code": "0"}}), data={"toy.a": {"digest": "d" * 64}},
        results=results, samples=samples, cards=[card], findings=findings,
        events=[{"name": "asked", "time": "2026-01-02T00:00:01Z", "details": {"label": "toy.a"}}], report=report, page="<html>…</html>",
        models=MODELS, told={"toy-0000000000000000": {"given": {"floor": 0.25, "labels": ["one", "two"]}}},
    )  # fmt: skip


def key_at(folder: Path, name: str = "own") -> PrivateKey:
    keys.new(name, folder)
    return keys.load(name, folder)


def sealed(entries: dict[str, bytes], key: PrivateKey | None = None) -> bytes:
    """``entries`` in a container with a statement that fits them; signed by ``key``, or with the envelope they had."""
    said: dict[str, Any] = dict(entries)
    if key is not None:
        said[statement.SIGNER] = key.public().pem.encode()
    predicate = predicate_of(said, evidence().run, evidence().plan, evidence().report)
    text = statement.statement(said, MODELS, predicate)
    said[statement.NAME] = text.encode()
    if key is not None:
        said[statement.ENVELOPE] = statement.envelope(text, key).encode()
    return pack(said)


def entries_of(data: bytes) -> dict[str, bytes]:
    found, faults = unpack(data)
    assert not faults
    return found


def swapped(one: int = 0, other: int = 1) -> Evidence:
    """The same evidence with the values of two samples of model a exchanged: results, findings and report are what they were."""
    rows = list(evidence().samples["toy.a"])
    a, b = rows[one].record["values"], rows[other].record["values"]
    rows[one] = Row({**rows[one].record, "values": b}, rows[one].facts)
    rows[other] = Row({**rows[other].record, "values": a}, rows[other].facts)
    return replace(evidence(), samples={**evidence().samples, "toy.a": rows})


__all__ = ["MODELS", "bundle", "entries_of", "evidence", "key_at", "sealed", "swapped"]
