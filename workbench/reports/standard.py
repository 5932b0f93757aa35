"""The sections that every report has in the same form: identity, what was tested and what not, limits. Words and tables, no numerics."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.core.finding import Verdict
from workbench.reports import phrases
from workbench.reports.parts import Coverage, Identity, TrainingData
from workbench.reports.report import Report, Table
from workbench.reports.words import ENGLISH, Words, words_of

_NO_EVIDENCE = (Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE, Verdict.NOT_CALIBRATED)
NOT_LOOKED_UP = "no card was looked up"
"""How the card's words begin where nobody asked whether one covers the model: a comparison and a trend load none."""


def identity_tables(identities: Sequence[Identity], language: str = ENGLISH) -> list[Table]:
    """For each model what it is, and the manifest of its training data where one is stated."""
    tables: list[Table] = []
    for identity in identities:
        tables += [_facts(identity, language), *([_manifest(identity, language)] if identity.training_data else [])]
    return tables


def several_identities(identities: Sequence[Identity], language: str = ENGLISH) -> list[Table]:
    """The models of a report that loads none, side by side by their digests: what else is known of each, its own report says."""
    if not identities:
        return []
    say = words_of(language)
    rows = tuple((one.part, one.name, one.sha256 or say("identity.not_stated")) for one in identities)
    return [Table(columns=say.list("identity.several_head"), rows=rows, caption=say("identity.several_caption"),
                  note=say("identity.several_note"))]  # fmt: skip


def _facts(identity: Identity, language: str) -> Table:
    say = words_of(language)
    size = None if identity.parameters is None else phrases.number(identity.parameters)
    facts = {
        "name": identity.name,
        "family": identity.family,
        "architecture": identity.architecture,
        "parameters": size,
        "digest": identity.sha256,
        "tokenizer": identity.tokenizer,
        "lineage": " → ".join(identity.lineage),
        **({} if identity.training_data else {"data": say("identity.data_none")}),
        "licence": identity.licence,
        "intended_use": identity.intended_use,
        "out_of_scope": identity.out_of_scope,
    }
    rows = tuple((say(f"identity.{name}"), text or say("identity.not_stated")) for name, text in facts.items())
    return Table(columns=say.list("identity.head"), rows=rows, caption=say("identity.caption", part=identity.part))


def _manifest(identity: Identity, language: str) -> Table:
    say = words_of(language)
    rows = tuple(_source(data, say) for data in identity.training_data)
    return Table(columns=say.list("identity.data_head"), rows=rows, caption=say("identity.data_caption", part=identity.part))


def _source(data: TrainingData, say: Words) -> tuple[str, ...]:
    unknown = say("identity.not_stated")
    items = unknown if data.items is None else phrases.number(data.items)
    return (data.name, items, data.licence or unknown, data.source or unknown, data.sha256 or unknown)


def coverage_tables(coverage: Sequence[Coverage], language: str = ENGLISH) -> list[Table]:
    """Every denominator of every suite and instrument, and the reasons of what was unscored; none where nothing is stated."""
    if not coverage:
        return []
    say = words_of(language)
    rows = tuple((c.asked, c.model, *_counts(c)) for c in coverage)
    counts = Table(columns=say.list("coverage.head"), rows=rows, caption=say("coverage.caption"), note=say("coverage.note"))
    reasons = tuple((c.asked, c.model, reason, n) for c in coverage for reason, n in sorted(c.unscored.items()) if n)
    if not reasons:
        return [counts]
    return [counts, Table(columns=say.list("coverage.reasons_head"), rows=reasons, caption=say("coverage.reasons_caption"))]


def _counts(c: Coverage) -> tuple[int | None, ...]:
    """The numbers of one row; none where nobody counted."""
    if c.run is None:
        return (None,) * 8
    return (c.drawn, c.excluded, c.run, c.scored, c.passed, sum(c.unscored.values()), c.refused, c.not_applicable)


def limit_lines(report: Report, language: str = ENGLISH) -> list[str]:
    """What the report cannot say: its own limits first, then those that follow from its findings."""
    say, findings = words_of(language), report.all_findings()
    total = len(findings)
    out = list(report.limits)
    if findings:
        carded = sum(finding.card is not None for finding in findings)
        undecided = sum(finding.verdict in _NO_EVIDENCE for finding in findings)
        if all(finding.card is None and finding.card_words.startswith(NOT_LOOKED_UP) for finding in findings):
            out.append(say("limits.no_card_looked_up"))
        elif not carded:
            out.append(say("limits.uncarded"))
        elif carded < total:
            out.append(say("limits.calibration", count=phrases.number(carded), all=phrases.number(total)))
        if undecided:
            out.append(say("limits.undecided", count=phrases.number(undecided), all=phrases.number(total)))
        if any(finding.verdict is Verdict.NOT_DETECTED for finding in findings):
            out.append(say("limits.absent"))
        out.append(say("limits.uncorrected"))
    if len(report.identities) == 1:
        out.append(say("limits.no_reference"))
    return [*out, say("limits.scope")]
