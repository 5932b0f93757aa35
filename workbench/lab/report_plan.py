"""What a report says of its plan: what was declared before, what became of each claim, what was added, and the declared subgroups."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.core.finding import Finding, Plan
from workbench.lab.audit_findings import Gathered, family_level
from workbench.lab.slices import Sliced
from workbench.reports.phrases import percent
from workbench.reports.report import Section, Table


def plan_sections(plan: Plan, gathered: Gathered) -> Iterator[Section]:
    """A section on the plan where it declares claims or was changed or added to, and one on its slices."""
    if plan.claims or plan.added or plan.changed:
        yield _declared(plan, gathered)
    if gathered.slices:
        yield Section(
            title="Subgroups", anchor="subgroups", tables=tuple(_slice(one, plan.level) for one in gathered.slices),
            lead="The subgroups that the plan declares, each interval for itself: differences between them are no findings.",
        )  # fmt: skip


def _declared(plan: Plan, gathered: Gathered) -> Section:
    mine = [one for one in gathered.findings if one.subject == plan.model]
    covered = [one for one in mine if any(claim.covers(one) for claim in plan.claims) and not one.exploratory]
    beyond = [one for one in mine if one.exploratory]
    words: list[str] = []
    if plan.claims:
        level = family_level(plan.level, len(covered))
        words.append(
            f"The plan declares a family of {len(plan.claims)} claims, which cover {len(covered)} findings on the audited model. Each has "
            f"an interval at {level:.3%}, so that all of them hold together at {percent(plan.level)} (Bonferroni)."
        )
    if beyond:
        words.append(
            f"{len(beyond)} findings on the audited model are exploratory: they are not of the declared family, each interval holds for "
            "itself, and among so many some will stand out by chance."
            if len(beyond) > 1
            else "One finding on the audited model is exploratory: it is not of the declared family, and its interval holds for itself."
        )
    if plan.added:
        words.append(f"Asked for beyond the plan, and exploratory: {', '.join(plan.added)}.")
    if plan.changed:
        words.append(f"Changed from the plan's file (digest {plan.file[:16]}) before anything was asked: {', '.join(plan.changed)}.")
    stated = [f"{name} {value:g}" for name, value in plan.margins.items()]
    words += [f"Margins: {', '.join(stated)}."] if stated else []
    floors = [f"{name} {value:g}" for name, value in plan.floors.items()]
    words += [f"Floors: {', '.join(floors)}."] if floors else []
    tables = [_claims(plan, covered)] if plan.claims else []
    return Section(title="The plan", anchor="plan", tables=(*tables, *([_exploratory(beyond)] if beyond else [])), text=tuple(words),
                   lead=f"Written down before anything was asked; its digest is {plan.digest()[:16]}.")  # fmt: skip


def _claims(plan: Plan, covered: list[Finding]) -> Table:
    rows: list[tuple[str, str, str]] = []
    for claim in plan.claims:
        own = [one for one in covered if claim.covers(one)]
        rows += [(claim.of, one.measure, str(one.verdict)) for one in own] or [(claim.of, claim.measure, "not answered: it was left out")]
    return Table(
        columns=("of", "measure", "verdict"), rows=tuple(dict.fromkeys(rows)), caption="The declared claims and what became of them"
    )


def _exploratory(beyond: list[Finding]) -> Table:
    rows = tuple((one.source, one.measure, str(one.verdict)) for one in beyond)
    return Table(columns=("of", "measure", "verdict"), rows=rows, caption="Exploratory: not among the declared claims")


def _slice(one: Sliced, level: float) -> Table:
    noted = any(group.note for group in one.groups)
    rows = tuple(
        (
            group.name or "(none)", group.n, group.unscored, group.mean, group.interval.low if group.interval else None,
            group.interval.high if group.interval else None, *([group.note] if noted else []),
        )
        for group in one.groups
    )  # fmt: skip
    columns = ("group", "scored", "unscored", "mean", f"low ({percent(level)})", f"high ({percent(level)})", *(["note"] if noted else []))
    return Table(columns=columns, rows=rows, caption=f"{one.of}: {one.value} by group, {one.part} model", note=one.note)
