"""What a report says of each mitigation: what became of the failure, what it cost, and every suite before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from workbench.core.finding import Finding, Plan
from workbench.core.result import Result
from workbench.lab.audit_findings import Gathered, mended_name
from workbench.lab.audit_subject import AUDITED
from workbench.lab.mitigation.outcome import MENDED, PART, PREFIX, MitigationResult
from workbench.reports.report import Section, Table


def mitigation_sections(plan: Plan, gathered: Gathered) -> Iterator[Section]:
    """A section for each mitigation of the plan that was carried out, in the plan's order."""
    for number, asked in enumerate(plan.mitigations, start=1):
        part = f"{PART}{number}"
        found = gathered.results.get(part, {}).get(f"{PREFIX}{asked.of}")
        if isinstance(found, MitigationResult):
            yield _section(plan, part, found, gathered.results[part], gathered)


def _section(plan: Plan, part: str, found: MitigationResult, results: Mapping[str, Result], gathered: Gathered) -> Section:
    subject, before = mended_name(plan, part), gathered.results[AUDITED]
    own = tuple(one for one in gathered.findings if one.subject == subject)
    names = [name for name in plan.suites if name in results]
    words = (
        f"{found.summary()[:1].upper()}{found.summary()[1:]}.",
        f"It is said to work where at least {MENDED:.0%} of the failure is gone on held-out items, and what it costs is said beside it: "
        "neither half of this is enough alone.",
        "Everything the plan asks was asked again of the mended model. In the findings on it, 'reference' is the audited model as it was, "
        "on the same items.",
        *_kept(found),
        *(f"{name}, as it was: {before[name].summary()}. Mended: {results[name].summary()}." for name in names),
    )
    method = str(found.values.attrs["method"])
    return Section(
        title=f"Mitigation: {method} against {found.values.attrs['of']}", anchor=f"mitigation-{part.removeprefix(PART)}",
        lead=f"The audited model after {method}, asked everything again: {'it works' if found.works else 'it does not work'}.",
        findings=own, tables=(_before_and_after(names, own, plan, gathered),), text=words,
    )  # fmt: skip


def _kept(found: MitigationResult) -> Iterator[str]:
    """How the mended model is loaded, or why it cannot be."""
    if kept := found.values.attrs.get("kept"):
        yield (
            f"The mended model is kept: `run:AUDIT/{kept}`, with the id of this audit's run for AUDIT, loads it. Its digest is "
            f"{found.provenance.model_digest}."
        )
    elif why := found.values.attrs.get("not_kept"):
        yield f"The mended model is not kept: {why}."


def _before_and_after(names: list[str], mended: tuple[Finding, ...], plan: Plan, gathered: Gathered) -> Table:
    """Every measure that a suite finds of the audited model alone and of the mended one."""
    rows = []
    for name in names:
        was = {(one.claim, one.measure): one for one in gathered.findings if one.source == name and one.subject == plan.model}
        for now in [one for one in mended if one.source == name]:
            old = was.get((now.claim, now.measure))
            if old is not None and not _against_another(old):
                rows.append((name, now.measure, old.effect, now.effect, str(old.verdict), str(now.verdict)))
    columns = ("suite", "measure", "as it was", "mended", "verdict as it was", "verdict mended")
    return Table(columns=columns, rows=tuple(rows), caption="The same measures of the audited model as it was and mended")


def _against_another(one: Finding) -> bool:
    """Whether a finding compares with another model: before and after these have other references."""
    return one.null is not None and (one.null.name == "reference" or "twin" in one.null.name)
