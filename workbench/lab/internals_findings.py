"""What a localisation of a failure finds, from its stored values alone: whether the repair holds on items not looked at, and its cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.core.errors import BadValue
from workbench.core.finding import Denominators, Finding, Interval, Null, Verdict, decide
from workbench.core.stats.few import few_clusters_interval
from workbench.core.stats.resampling import bootstrap, fewest, paired_bootstrap
from workbench.lab.internals import KIND, InternalsResult
from workbench.reports.report import Section, Table

PREFIX = "internals-"
"""What the name of such a result begins with, before its suite's."""
COST = 0.05
"""Nats a token that a repair may cost and still be called free."""


def findings(result: InternalsResult, subject: str, level: float) -> list[Finding]:
    """The repair on held-out items against random sets of other parts, and what it costs on ordinary texts."""
    v = result.values
    names = [str(name) for name in v.part.values[v.chosen.values]]
    held, of = int(v.sizes["held"]), str(v.attrs["of"])
    facts: dict[str, Any] = {
        "subject": subject,
        "source": KIND,
        "status": "experimental",
        "denominators": Denominators(run=held, scored=held),
    }
    parts = {str(n): {"effect": float(e), "control": float(c), "holm": float(h)} for n, e, c, h in zip(
        v.part.values, v.effect.mean("item").values, v.control.mean("item").values, v.holm.values, strict=True)}  # fmt: skip
    claim, measure = f"the failure of {of} lives in few parts", "failure taken away on held-out items by ablating the parts that carry it"
    if not names:
        because = "no part carries it beyond random changes of equal size (Holm)"
        return [
            Finding(
                claim=claim,
                measure=measure,
                effect=None,
                verdict=Verdict.NOT_DETECTED,
                because=because,
                details={"of": of, "parts": parts},
                **facts,
            )
        ]
    by_chance = float((v.failure - v.random).mean())
    taken, interval = _taken(v, level)
    verdict, because = decide(taken, interval, null=by_chance)
    before = float(v.failure.mean())
    details = {
        "of": of,
        "repair": names,
        "failure": before,
        "repaired": float(v.repaired.mean()),
        "share": taken / before if before else None,
        "parts": parts,
    }
    null = Null(name="random sets of other parts", value=by_chance, words=f"the mean over {v.sizes['set']} sets of as many heads and MLPs")
    return [
        Finding(claim=claim, measure=measure, effect=taken, unit=v.attrs["unit"], interval=interval, null=null, verdict=verdict,
                because=because, details=details, **facts),
        _cost(v, names, level, {**facts, "denominators": Denominators(run=int(v.sizes["text"]), scored=int(v.sizes["text"]))}),
    ]  # fmt: skip


def _taken(v: Any, level: float) -> tuple[float, Interval]:
    """What the repair takes away of each held-out item's failure, on average; the interval is by cluster, and Student's where the clusters
    are too few to be drawn again."""
    clusters = v.held_cluster.values.astype(str)
    if len(set(clusters)) >= fewest(level):
        found = paired_bootstrap(v.failure.values, v.repaired.values, clusters=clusters, level=level)
        return found.value, found.interval
    gap = v.failure.values - v.repaired.values
    return float(gap.mean()), few_clusters_interval(gap, clusters, level)


def _cost(v: Any, names: list[str], level: float, facts: dict[str, Any]) -> Finding:
    gap = v.repaired_nats.values - v.nats.values
    interval: Interval | None = None
    note = ""
    try:
        interval = bootstrap(gap, level=level).interval
    except BadValue as error:
        note = str(error)
    verdict, because = decide(float(gap.mean()), interval, null=0.0, margin=COST, paired="higher is worse")
    details = {"of": v.attrs["of"], "repair": names, "random_sets": float((v.random_nats - v.nats).mean()), "margin": COST}
    return Finding(
        claim="the repair costs capability", measure="nats a token of ordinary text, repaired − as it is", effect=float(gap.mean()),
        unit="nats", interval=interval, null=Null(name="the model as it is", value=0.0), verdict=verdict, because=note or because,
        details=details, **facts,
    )  # fmt: skip


def _divided(v: Any) -> str:
    here, held = len(set(v.cluster.values.tolist())), len(set(v.held_cluster.values.tolist()))
    if abs(here - held) <= 1:
        return "Parts were chosen on one half of the contexts, and the repair is measured on the other."
    return (
        f"Parts were chosen on {here} of the {here + held} contexts, the fewest that can decide: a part carries the failure only if it "
        f"takes some of it away in every one of them, or nearly. The repair is measured on the other {held}, and its interval is the wider."
    )


def section(suite: str, result: InternalsResult, found: tuple[Finding, ...]) -> Section:
    """The section of one failed suite: its parts with their tests, and the repair."""
    v = result.values
    order = np.argsort(-v.effect.mean("item").values, kind="stable")
    rows = tuple(
        (
            str(v.part.values[n]), float(v.effect[n].mean()), float(v.control[n].mean()), float(v.holm[n]),
            "in the repair" if bool(v.chosen[n]) else "",
        )
        for n in order
    )  # fmt: skip
    table = Table(
        columns=("part", f"takes away ({v.attrs['unit']})", "random changes of equal size", "p (Holm)", ""), rows=rows,
        caption=f"What replacing each part by its mean takes away of the failure of {suite}, on the half that was looked at",
    )  # fmt: skip
    words = (
        f"{result.summary()}.",
        f"{_divided(v)} A repair that works shows where the failure can be cut; it is no proof that nothing else could carry it.",
    )
    return Section(title=f"From failure to internals: {suite}", anchor=f"internals-{suite}", findings=found, tables=(table,), text=words,
                   lead="Which heads and MLPs carry the failure, and what taking them out does to it and to ordinary text.")  # fmt: skip
