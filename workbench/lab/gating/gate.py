"""``workbench gate``: a policy held against a run, rule by rule, from the stored results and samples. No model is asked."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from evals import SUITES
from workbench.calibration.cards import measured, shipped
from workbench.core.errors import AssayError, BadValue, StoreError
from workbench.core.finding import Denominators, Finding, Interval, Plan, Verdict
from workbench.core.spec import canonical_json
from workbench.core.stats.resampling import fewest, paired_bootstrap
from workbench.lab.audit_findings import gathered
from workbench.lab.audit_subject import AUDITED, REFERENCE
from workbench.lab.circumstances import read as read_circumstances
from workbench.lab.compare import paired, requests
from workbench.lab.gating.bounds import Held, hold
from workbench.lab.gating.policy import Limit, NonInferiority, Policy, read_policy
from workbench.reports.exports import junit, sarif
from workbench.reports.gate import Decision, Gate
from workbench.store.records import RunRecord
from workbench.store.runs import Store

KINDS = ("audit", "eval")
FILES = ("gate.json", "gate.junit.xml", "gate.sarif")


def gate(run: str, policy: str | Path | Mapping[str, Any], *, against: str = "", store: Store | None = None) -> Gate:
    """Hold the audited model of ``run`` (an audit, or an evaluation) against a policy.

    ``against`` is the evaluation that non-inferiority compares with; an audit has its own reference. Raises UnknownName, CorruptFile (the
    policy) and AssayError where a rule finds nothing to decide on.
    """
    wanted, lines, file = read_policy(policy)
    store = store if store is not None else Store.open(create=False)
    newest = [one for one in store.runs.list(status="done") if one.kind in KINDS] if run == "last" else []
    record = newest[0] if newest else store.runs.get(run)
    if record.kind not in KINDS or record.status != "done":
        raise AssayError(
            f"Run {record.id} is a run of {record.kind} that is {record.status}, and a gate takes a finished audit or evaluation."
        )
    judge = _Judge(wanted, store, record, store.runs.get(against) if against else None)
    decisions = [one for rule, line in zip(wanted.rules, lines, strict=True) for one in judge.decide(rule, line)]
    return Gate(wanted.name, wanted.digest(), file, record.id, judge.model, judge.model_digest, tuple(decisions))


def write(found: Gate, folder: Path) -> list[Path]:
    """The gate as JSON, JUnit and SARIF in ``folder``."""
    texts = (canonical_json(found.document()) + "\n", junit.render(found), sarif.render(found, metadata.version("assay-workbench")))
    places = [folder / name for name in FILES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, text in zip(places, texts, strict=True):
            place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"The gate could not be written to '{folder}'", error.strerror or str(error)) from error
    return places


class _Judge:
    """One run under one policy. Findings are drawn anew at the level that alpha asks for."""

    def __init__(self, policy: Policy, store: Store, record: RunRecord, against: RunRecord | None) -> None:
        self.policy, self.store, self.record, self.against = policy, store, record, against
        self.results = store.results(record.id)
        self._at: dict[float, list[Finding]] = {}
        if record.kind == "audit":
            self.plan = Plan.parse(record.spec, what=f"the plan of run {record.id}")
            self.subjects, _ = read_circumstances(store.folder(record.id))
            self.model, self.model_digest = self.subjects[0].ref, self.subjects[0].model_digest
        else:
            self.model, self.model_digest = record.ref, str(record.provenance.get("model_digest", ""))

    def decide(self, rule: Limit | NonInferiority, line: int) -> list[Decision]:
        return self._limit(rule, line) if isinstance(rule, Limit) else [self._non_inferiority(rule, line)]

    def _levels(self) -> tuple[float, float]:
        """The levels whose bounds pass (one-sided alpha) and fail (alpha over the number of rules)."""
        return 1 - 2 * self.policy.alpha, 1 - 2 * self.policy.alpha / len(self.policy.rules)

    # --- limits ---------------------------------------------------------------------------------------------

    def _findings(self, level: float) -> list[Finding]:
        """The findings on the audited model at ``level``."""
        if level not in self._at:
            if self.record.kind == "audit":
                cards = (*measured(self.store.home), *shipped())
                found = gathered(self.plan.model_copy(update={"level": level, "claims": ()}), self.subjects, self.results, cards).findings
            else:
                found = [f for name, r in self.results.items() for f in SUITES.load(name).findings(r, subject=self.model, level=level)]
            self._at[level] = [one for one in found if one.subject == self.model]
        return self._at[level]

    def _limit(self, rule: Limit, line: int) -> list[Decision]:
        passing, failing = (self._matching(rule, level) for level in self._levels())
        if not passing:
            known = sorted({one.measure for one in self._findings(self._levels()[0]) if one.source == rule.of})
            there = f"'{rule.of}' measured {'; '.join(known)}" if known else f"the run has no finding of '{rule.of}'"
            raise AssayError(
                f"Rule '{rule.name}' finds nothing to decide on in run {self.record.id}: {there}. Change its measure or its claim."
            )
        others = {(one.measure, one.claim): one for one in failing}
        return [self._held(rule, one, others.get((one.measure, one.claim)), line) for one in passing]

    def _matching(self, rule: Limit, level: float) -> list[Finding]:
        def fits(words: str, pattern: str) -> bool:
            return fnmatch.fnmatchcase(words, pattern.replace("[", "[[]").replace("?", "[?]"))

        found = [one for one in self._findings(level) if one.source == rule.of]
        return [one for one in found if fits(one.measure, rule.measure) and fits(one.claim, rule.claim)]

    def _held(self, rule: Limit, one: Finding, other: Finding | None, line: int) -> Decision:
        counts = one.denominators
        n = counts.scored if counts is not None else 0
        said: dict[str, Any] = {
            "rule": rule.name, "source": rule.of, "measure": one.measure, "allowed": _allowed(rule.at_least, rule.at_most),
            "alpha": self.policy.alpha, "card": one.card_words, "line": line, "n": n or None,
        }  # fmt: skip
        wanted = self._levels()
        if other is None or one.effect is None or one.interval is None or other.interval is None or one.verdict is Verdict.NOT_APPLICABLE:
            because = one.because or "there is no interval"
            return Decision(**said, effect=one.effect, state="inconclusive", because=because)
        for found, level in zip((one.interval, other.interval), wanted, strict=True):
            if abs(found.level - level) > 1e-9:
                because = f"its interval is at {found.level:.1%}, and alpha asks for {level:.1%}"
                return Decision(**said, effect=one.effect, state="inconclusive", because=because)
        held = hold(one.effect, one.interval, other.interval, at_least=rule.at_least, at_most=rule.at_most, n=n)
        return self._decision(said, one.effect, one.interval, held, counts, calibrated=one.card is not None)

    def _decision(
        self, said: dict[str, Any], effect: float, interval: Interval, held: Held, counts: Denominators | None, *, calibrated: bool
    ) -> Decision:
        state, because = held.state, held.because
        if state == "pass" and counts is not None and counts.run and (counts.run - counts.scored) / counts.run > self.policy.most_unscored:
            state, because = (
                "inconclusive",
                f"{counts.run - counts.scored} of {counts.run} samples have no score, more than the policy allows",
            )
        elif state == "pass" and self.policy.calibrated and not calibrated:
            state, because = "inconclusive", f"the policy asks for a calibration card: {said['card']}"
        said = {**said, "n": held.n or said["n"], "unit": held.unit, "needed": held.needed}
        return Decision(**said, effect=effect, low=interval.low, high=interval.high, state=state, because=because)

    # --- non-inferiority ------------------------------------------------------------------------------------

    def _non_inferiority(self, rule: NonInferiority, line: int) -> Decision:
        mine, theirs = self._sides(rule)
        pairs, counts = self._pairs(rule, mine, theirs)
        sign = -1.0 if rule.better == "higher" else 1.0
        ours, reference = ([_number(pair[side], rule) for pair in pairs] for side in (1, 0))
        clusters = [str(pair[0].get("cluster") or pair[0]["sample"]) for pair in pairs]
        binary = all(isinstance(v, bool) for v in (*ours, *reference))
        a, b = ([sign * float(v) for v in side] for side in (ours, reference))
        said: dict[str, Any] = {
            "rule": rule.name, "source": rule.of, "measure": f"{rule.value}, how much worse than the reference",
            "allowed": f"at most {rule.margin:g}", "alpha": self.policy.alpha, "line": line, "n": len(pairs),
        }  # fmt: skip
        mean = sum(x - y for x, y in zip(a, b, strict=True)) / len(pairs)
        intervals: list[Interval] = []
        for level in self._levels():
            if len(set(clusters)) < fewest(level):
                because = f"{len(set(clusters))} clusters are too few for bounds at alpha: {fewest(level)} are needed"
                said = {**said, "n": len(set(clusters)), "unit": "clusters", "needed": fewest(level)}
                return Decision(**said, effect=mean, state="inconclusive", because=because)
            try:
                bounds = (-1.0, 1.0) if binary else None
                intervals.append(paired_bootstrap(a, b, clusters=clusters, level=level, bounds=bounds).interval)
            except BadValue as error:
                return Decision(**said, effect=mean, state="inconclusive", because=str(error).rstrip("."))
        held = hold(mean, intervals[0], intervals[1], at_most=rule.margin, n=len(pairs))
        return self._decision(said, mean, intervals[0], held, counts, calibrated=True)

    def _sides(self, rule: NonInferiority) -> tuple[tuple[str, str], tuple[str, str]]:
        """Run and name of the audited samples and of those they are compared with."""
        if self.record.kind == "audit":
            mine, theirs = (self.record.id, f"{rule.of}.{AUDITED}"), (self.record.id, f"{rule.of}.{REFERENCE}")
        elif self.against is None:
            raise AssayError(f"Rule '{rule.name}' compares with a reference. Name the evaluation of it with --against RUN.")
        else:
            mine, theirs = (self.record.id, rule.of), (self.against.id, rule.of)
        for run, label in (mine, theirs):
            if label not in self.store.sample_counts(run):
                raise AssayError(
                    f"Rule '{rule.name}' needs the samples of '{label}', and run {run} has none. Ask the suite of both models."
                )
        return mine, theirs

    def _pairs(self, rule: NonInferiority, mine: tuple[str, str], theirs: tuple[str, str]) -> Any:
        asked = SUITES.load(rule.of)
        sides = []
        for run, label in (theirs, mine):
            records = {(str(r["sample"]), int(r["epoch"])): r for r in self.store.sink(run, label).read()}
            sides.append((records, requests(asked, self.store.result(run, label).result.spec)))
        return paired(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


def _number(record: Mapping[str, Any], rule: NonInferiority) -> bool | int | float:
    found: Any = record["values"]
    for name in rule.value.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, bool | int | float):
        known = sorted(name for name, value in record["values"].items() if isinstance(value, bool | int | float))
        raise AssayError(
            f"Rule '{rule.name}' asks for the value '{rule.value}', and sample '{record['sample']}' of '{rule.of}' has no such number. "
            f"Numbers it has: {', '.join(known) or 'none at the top level; dots reach inside'}."
        )
    return found


def _allowed(at_least: float | None, at_most: float | None) -> str:
    parts = [f"at least {at_least:g}"] if at_least is not None else []
    return " and ".join([*parts, *([f"at most {at_most:g}"] if at_most is not None else [])])
