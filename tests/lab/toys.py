"""A suite of forty toy questions, and finished runs of it with given answers: whole evidence, at no model's cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xarray as xr

from evals.runner import FORMAT
from workbench.core.catalog import Catalog
from workbench.core.finding import Denominators, Finding, Interval, Null, Verdict
from workbench.core.measure import Generate, Needs, Sample, Score
from workbench.core.result import Provenance, Result
from workbench.core.spec import Spec, digest_of
from workbench.store.runs import Store

READERS = ("compare", "comparison_report", "evidence_samples", "rederive", "samples", "side_by_side", "told", "trend_report", "verifying")


class ToySpec(Spec):
    """``shift``: where the questions begin, so that another shift asks others; ``others``: how many of the first are other questions than
    without it; ``named``: how the samples are called."""

    shift: int = 0
    others: int = 0
    named: str = "s"


@dataclass(frozen=True)
class Toy:
    name: str = "toy"
    spec: type[Spec] = ToySpec
    needs: Needs = field(default_factory=Needs)

    def samples(self, spec: Any) -> list[Sample]:
        return [Sample(f"{spec.named}{n:03d}", {"n": n + spec.shift + 1000 * (n < spec.others)}, cluster=f"c{n // 2}") for n in range(40)]

    def request(self, sample: Sample, spec: Any) -> Generate:
        return Generate(str(sample.facts["n"]))

    def aggregate(self, scores: Sequence[Score], spec: Any) -> Result:
        found = [float(score.values["score"]) for score in scores if not score.unscored]
        return Result("toy", xr.Dataset({"mean": sum(found) / len(found) if found else np.nan}), {}, Provenance())

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        null = Null(name="reference", value=0.0) if reference is not None else None
        return [
            Finding(claim="a toy", subject=subject, source="toy", measure="difference" if reference is not None else "mean", effect=0.5,
                    null=null, interval=Interval(low=0.1, high=0.9, level=level, method="made up"),
                    denominators=Denominators(run=40, scored=40),
                    verdict=Verdict.DETECTED)
        ]  # fmt: skip


TOY, OTHER = Toy(), Toy(name="other")


def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two toy suites in the place of the catalogue."""
    here = "tests.lab.toys"
    catalog = Catalog("suite", {"toy": (f"{here}:TOY", "a toy", "standard"), "other": (f"{here}:OTHER", "another toy", "experimental")})
    for module in READERS:
        monkeypatch.setattr(f"workbench.lab.{module}.SUITES", catalog)


def stored(
    store: Store, values: list[dict[str, Any]], *, name: str = "toy", unscored: tuple[int, ...] = (), status: Any = "done", **spec: Any
) -> str:
    """The id of a run of the toy suite that answered these."""
    asked, toy = ToySpec.parse(spec), TOY if name == "toy" else OTHER
    samples = toy.samples(asked)
    of = Provenance(
        model="run:a", model_digest="a" * 64, data_digest=digest_of([[s.id, dict(s.facts), s.cluster, s.group] for s in samples])
    )
    own = digest_of([FORMAT, name, asked.digest(), of.data_digest, of.model_digest, of.dtype])
    run = store.runs.create("eval", {"model": "run:a"}, "run:a")
    scores = [
        Score(sample.id, given, "a tie" if n in unscored else "", sample.cluster)
        for n, (sample, given) in enumerate(zip(samples, values, strict=True))
    ]
    rest = {"epoch": 0, "group": "", "apart": 0, "of": own}
    store.sink(run, name).put(
        [{"sample": one.sample, "values": one.values, "unscored": one.unscored, "cluster": one.cluster, **rest} for one in scores]
    )
    found = toy.aggregate(scores, asked)
    store.put_result(run, name, Result(name, found.values, asked.model_dump(), of))
    store.runs.finish(run, status)
    return run


def answers(seed: int, lift: float = 0.0) -> list[dict[str, Any]]:
    """Forty numbers, and whether each is above 0."""
    rng = np.random.default_rng(seed)
    return [{"score": float(v) + lift, "right": bool(v > 0)} for v in rng.normal(size=40)]
