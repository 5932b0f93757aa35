"""Two or more runs, suite by suite: which have it in common, and each against the first that has it, from what the runs keep.

Nothing here reads a store but ``sides_of``, so that whoever has the samples can put the same runs side by side again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from evals import SUITES
from workbench.core.errors import BadValue, MissingData, UnknownName, UsageError
from workbench.core.finding import Card
from workbench.core.protocol import Progress, silent
from workbench.core.result import Provenance, Result
from workbench.core.spec import Spec
from workbench.lab.audit_subject import AUDITED
from workbench.lab.compare import Comparison, Kept, side_by_side
from workbench.lab.samples import suite_named
from workbench.lab.unpaired import unpaired
from workbench.reports.report import LeftOut
from workbench.store.runs import Store

KINDS = ("eval", "audit")
MOST = 12
LETTERS = "ABCDEFGHIJKL"
UNCARDED = "no card was looked up: a comparison loads no model"


class Beside(Spec):
    """The card that stood beside an audit's findings of a suite, by its digest ('' for none), and the words with it."""

    sha256: str = ""
    words: str = UNCARDED


class Member(Spec):
    """One of the runs in words. ``part`` is its letter and ``ref`` what findings call it: letter and model, since two runs may be of one
    model. ``labels``: each suite and the name under which the run keeps it, in order."""

    part: str
    ref: str
    run: str
    kind: str
    model: str
    model_digest: str
    labels: tuple[tuple[str, str], ...] = Field(min_length=1)
    cards: Mapping[str, Beside] = Field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One of the runs with its result by suite. ``cards`` are those named in ``member.cards``, by digest."""

    member: Member
    results: Mapping[str, Result]
    cards: Mapping[str, Card]

    @property
    def letter(self) -> str:
        return self.member.part

    @property
    def name(self) -> str:
        return self.member.ref

    @property
    def labels(self) -> dict[str, str]:
        """By suite the name under which the run keeps it."""
        return dict(self.member.labels)

    @property
    def origin(self) -> Provenance:
        return next(iter(self.results.values())).provenance

    def card_of(self, suite: str) -> tuple[Card | None, str]:
        """The card that stood beside this suite's findings, with its words. An evaluation had none beside it."""
        beside = self.member.cards.get(suite, Beside())
        return self.cards.get(beside.sha256), beside.words


@dataclass(frozen=True)
class Pair:
    """One suite of a run against the first that has it; ``apart`` says why, where no sample makes a pair."""

    suite: str
    first: Side
    second: Side
    found: Comparison
    apart: str = ""

    @property
    def paired(self) -> bool:
        return not self.apart


Keep = Callable[[Side, str], Kept]
"""What a run keeps of a suite."""


def sides_of(store: Store, runs: Sequence[str]) -> list[Side]:
    """Finished evaluations and audits (of an audit, its audited model), by letter.

    Raises UsageError for a run that is not finished, of another kind or without samples, BadValue for fewer than two, or one given twice.
    """
    if not 2 <= len(runs) <= MOST:
        raise BadValue("the number of runs to compare", len(runs), f"2 to {MOST}")
    sides = [_side(store, run, letter) for letter, run in zip(LETTERS, runs, strict=False)]
    if len({side.member.run for side in sides}) < len(sides):
        raise BadValue("the runs to compare", list(runs), "different runs")
    return sides


def _side(store: Store, run: str, letter: str) -> Side:
    newest = [one for one in store.runs.list(status="done") if one.kind in KINDS] if run == "last" else []
    record = newest[0] if newest else store.runs.get(run)
    if record.kind not in KINDS or record.status != "done":
        what = f"of kind '{record.kind}'" if record.kind not in KINDS else record.status
        raise UsageError(f"Run {record.id} is {what}. What can be compared are finished runs of {' and '.join(KINDS)}.")
    results = store.results(record.id)
    ending = f".{AUDITED}" if record.kind == "audit" else ""
    labels = {suite_named(label): label for label in store.sample_counts(record.id) if label in results and label.endswith(ending)}
    if not labels:
        raise UsageError(f"Run {record.id} holds the samples of no suite, so there is nothing to compare.")
    of = next(iter(results[label] for label in labels.values())).provenance
    beside: dict[str, Beside] = {}
    cards: dict[str, Card] = {}
    for one in store.findings(record.id) if record.kind == "audit" else ():
        if one.subject == record.ref and one.source in labels:
            beside[one.source] = Beside(sha256=one.card.digest() if one.card else "", words=one.card_words)
            cards |= {one.card.digest(): one.card} if one.card else {}
    member = Member(
        part=letter, ref=f"{letter}: {record.spec.get('model', record.ref) or of.model}", run=record.id, kind=record.kind,
        model=of.model or record.ref, model_digest=of.model_digest, labels=tuple(labels.items()), cards=beside,
    )  # fmt: skip
    return Side(member, {suite: results[label] for suite, label in labels.items()}, cards)


def shared(sides: Sequence[Side], asked: Sequence[str]) -> list[str]:
    """The suites that two runs or more have, in the catalogue's order; only those ``asked`` for, where any are."""
    counts = {name: sum(name in side.labels for side in sides) for side in sides for name in side.labels}
    several = [name for name in SUITES if counts.get(name, 0) > 1]
    for name in asked:
        if name not in several:
            raise UnknownName("suite", name, several, where="that two of these runs have")
    if not several:
        each = "; ".join(f"{side.letter} has {', '.join(side.labels)}" for side in sides)
        raise UsageError(f"These runs have no suite in common ({each}), so there is nothing to compare.")
    return [name for name in several if not asked or name in asked]


def pairs_of(
    sides: Sequence[Side], suites: Sequence[str], keep: Keep, level: float, progress: Progress = silent
) -> tuple[list[Pair], list[LeftOut]]:
    """Each of the ``suites``, and what was left out. Raises UsageError where nothing can be compared."""
    pairs: list[Pair] = []
    left_out: list[LeftOut] = []
    for number, suite in enumerate(suites):
        progress(number, len(suites), f"comparing {suite}")
        having = [side for side in sides if suite in side.labels]
        for other in having[1:]:
            try:
                pairs.append(_pair(suite, having[0], other, keep, level))
            except (MissingData, UsageError) as error:
                left_out.append(LeftOut(what=f"{suite}, {other.letter} against {having[0].letter}", why=str(error)))
        missing = [side for side in sides if side not in having]
        left_out += [LeftOut(what=f"{suite} of {side.letter}", why="This run was not asked this suite.") for side in missing]
    alone = {name: side.letter for side in sides for name in side.labels if name not in suites}
    why = "No other run was asked it, or it was not asked for."
    left_out += [LeftOut(what=f"{name} of {letter}", why=why) for name, letter in alone.items()]
    if not pairs:
        raise UsageError(f"Nothing could be compared: {'; '.join(one.why for one in left_out)}")
    return pairs, left_out


def _pair(suite: str, first: Side, second: Side, keep: Keep, level: float) -> Pair:
    """Paired where any sample was asked alike in both and scored; else compared as different items."""
    here, there = keep(first, suite), keep(second, suite)
    try:
        return Pair(suite, first, second, side_by_side(here, there, level=level))
    except UsageError as error:
        found = unpaired(here, there, level=level)
        if not found.differences:
            raise UsageError(f"{error} Nor can their means be compared: no number was scored in both.") from None
        return Pair(suite, first, second, found, str(error).split(". ")[0])
