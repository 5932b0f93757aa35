"""What an evidence bundle holds and how it is written: all that derives a report again, entry by entry, and one statement of it.

    README.txt                 what this is and how it is checked
    plan.json  run.json        what was to be asked, and the run that asked
    circumstances.json         the models in words, the code and the packages
    data.json                  the data of each suite, by digest
    specs/  results/           spec and result of each suite and instrument on each model (`NAME.PART.json`)
    samples/                   every sample of every suite (Parquet)
    told/                      what a suite's aggregate reads of its data beyond the samples' scores, where it reads anything
    asked/                     of runs side by side that were not asked the same: what each sample was asked, by digest
    cards/                     the calibration cards that stood to choose from
    findings.json  report.json  report.html
    journal.jsonl              what happened, hash-chained
    signer.pem                 the public key, where it is signed
    statement.json  attestation.dsse.json

Every JSON entry is in the canonical form, so that what was read can be written again and compared byte by byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.core.errors import StoreError
from workbench.core.finding import Card, Finding
from workbench.core.result import Result
from workbench.core.spec import canonical_json, digest_of
from workbench.reports.evidence import journal, statement
from workbench.reports.evidence.container import pack
from workbench.reports.evidence.keys import PrivateKey
from workbench.reports.evidence.plans import AnyPlan
from workbench.reports.evidence.samples import WRITER, Row, to_parquet
from workbench.reports.report import Report

FORMAT = "assay-evidence/1"
PLAN, RUN, CIRCUMSTANCES, DATA = "plan.json", "run.json", "circumstances.json", "data.json"
FINDINGS, REPORT, PAGE, README = "findings.json", "report.json", "report.html", "README.txt"
WORDS = """This is an evidence bundle: all that is needed to derive the report in report.html again.

    workbench verify FILE

needs no network and no model. It compares every byte with the form this file must have, checks every hash and the signature, computes
every statistic of the report anew from the samples, and says what does not hold. With --model REF it also asks a model some of the
samples again. Samples hold what the model answered and what the answers were worth; what was asked belongs to the data sets, which
data.json names by digest.

To check a number by hand, read the samples of its suite with any program that opens Parquet, such as pandas:

    samples = pandas.read_parquet("samples/SUITE.audited.parquet")
    values = samples["values"].map(json.loads)      # what each answer was worth, by name

sample: its name, the same for every model that was asked it. A paired difference is that of two rows of one name and epoch, both
scored, and of equal digest in asked/ where that is there. cluster: what it shares with others, such as a speaker or a template;
intervals are over clusters where the name of their method says so. group: its subgroup. unscored: why it has no score; such rows
enter no rate. apart: how many answers had to be encoded apart from their question. facts: sha256 of what was asked. of:
sha256 of suite, spec, data and model. findings.json has each number in full, with the name of its interval's method; intervals named
bootstrap draw whole clusters 2,000 times, or 20 / (1 - level) times where that is more, from seed 0 unless a spec says otherwise, so
another program's bootstrap agrees with them but for its own draws.
"""
EARLIER = frozenset(
    {
        "9c703bc5569f724a069407a187893943c2e814476f011445ac667c7e27af442f",
        "189fc937c36008a8a080d218ca3d39e1eb27a4f00bfd71799700ecd8b8abb2bf",
    }
)
"""sha256 of what bundles of earlier versions say in its place."""


@dataclass(frozen=True)
class Evidence:
    """The content of a bundle. ``results`` and ``samples`` by ``NAME.PART``, where a part is a model of an audit, the letter of a run or a
    step of a training; ``circumstances`` as kept beside the report; ``events`` what the run noted, in order; ``page`` the report as HTML;
    ``told`` what aggregating reads of the data, by its name in ``lab.told``; ``asked`` the digest of what each sample was asked, in their
    order, where the runs of a comparison were not asked the same."""

    run: Mapping[str, Any]
    plan: AnyPlan
    circumstances: str
    data: Mapping[str, Any]
    results: Mapping[str, Result]
    samples: Mapping[str, Sequence[Row]]
    cards: Sequence[Card]
    findings: Sequence[Finding]
    events: Sequence[Mapping[str, Any]]
    report: Report
    page: str
    models: Mapping[str, str]
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    asked: Mapping[str, Sequence[str]] = field(default_factory=dict)


def entries_of(evidence: Evidence) -> dict[str, bytes]:
    """Every entry of the bundle but those of the signature, by name."""
    texts: dict[str, str] = {
        README: WORDS,
        PLAN: evidence.plan.canonical(),
        RUN: canonical_json({**evidence.run, "format": FORMAT, "samples_writer": WRITER}),
        CIRCUMSTANCES: evidence.circumstances,
        DATA: canonical_json(dict(evidence.data)),
        FINDINGS: canonical_json([finding.model_dump(mode="json") for finding in evidence.findings]),
        REPORT: evidence.report.to_json(),
        PAGE: evidence.page,
        journal.NAME: journal.written(lines_of(evidence)),
    }
    for label, result in evidence.results.items():
        texts[f"results/{label}.json"] = result.to_json()
        texts[f"specs/{label}.json"] = canonical_json(dict(result.spec))
    texts |= {f"told/{name}.json": canonical_json(dict(told)) for name, told in evidence.told.items()}
    texts |= {f"asked/{label}.json": canonical_json(list(asked)) for label, asked in evidence.asked.items()}
    texts |= {card_name(number, card): card.canonical() for number, card in enumerate(evidence.cards)}
    packed = {f"samples/{label}.parquet": to_parquet(rows) for label, rows in evidence.samples.items()}
    return {name: text.encode() for name, text in texts.items()} | packed


def card_name(number: int, card: Card) -> str:
    """Where a card lies; by number, since the first that applies is taken."""
    return f"cards/{number:04d}-{card.of}-{card.digest()[:16]}.json"


def lines_of(evidence: Evidence) -> list[dict[str, Any]]:
    """The journal's entries: the run, what it noted, then every sample, result and finding by its digest, and the report."""
    run = evidence.run
    out: list[dict[str, Any]] = [{"kind": "run", "name": run["id"], "created": run["created"], "plan": evidence.plan.digest()}]
    out += [{"kind": "event", **event} for event in evidence.events]
    return out + derived_lines(evidence.samples, evidence.results, evidence.findings, evidence.report, evidence.page)


def derived_lines(
    samples: Mapping[str, Sequence[Row]], results: Mapping[str, Result], findings: Sequence[Finding], report: Report, page: str
) -> list[dict[str, Any]]:
    """The part of the journal that the other entries determine."""
    out: list[dict[str, Any]] = []
    for label in sorted(samples):
        for row in samples[label]:
            name = f"{label}/{row.record['sample']}#{row.record['epoch']}"
            out.append({"kind": "sample", "name": name, "sha256": row.digest()})
    out += [{"kind": "result", "name": label, "sha256": results[label].digest()} for label in sorted(results)]
    out += [{"kind": "finding", "name": f"{number}: {one.claim}", "sha256": one.digest()} for number, one in enumerate(findings, 1)]
    out.append({"kind": "report", "name": report.title, "sha256": digest_of(report.model_dump(mode="json"))})
    out.append({"kind": "page", "name": PAGE, "sha256": hashlib.sha256(page.encode()).hexdigest()})
    return out


def predicate_of(entries: Mapping[str, bytes], run: Mapping[str, Any], plan: AnyPlan, report: Report) -> dict[str, Any]:
    """What the statement says of the bundle, in numbers that a reader of the statement alone can use."""
    tally = {str(verdict): count for verdict, count in report.tally().items()}
    return {
        "format": FORMAT, "run": run["id"], "subject": report.subject, "plan": {"name": plan.name, "sha256": plan.digest()},
        "report": digest_of(report.model_dump(mode="json")), "journal": journal.head(entries[journal.NAME].decode()), "verdicts": tally,
    }  # fmt: skip


def bundle(evidence: Evidence, key: PrivateKey | None = None) -> bytes:
    """The whole container, signed where there is a ``key``. Equal evidence and key, equal bytes.

    Raises StoreError where a finding is not in the report, since then the two were not made together.
    """
    stated = {finding.digest() for finding in evidence.report.all_findings()}
    if stated != {finding.digest() for finding in evidence.findings}:
        raise StoreError("The bundle could not be written", "the report's findings are not those stored with its run")
    entries = entries_of(evidence)
    if key is not None:
        entries[statement.SIGNER] = key.public().pem.encode()
    text = statement.statement(entries, evidence.models, predicate_of(entries, evidence.run, evidence.plan, evidence.report))
    entries[statement.NAME] = text.encode()
    if key is not None:
        entries[statement.ENVELOPE] = statement.envelope(text, key).encode()
    return pack(entries)
