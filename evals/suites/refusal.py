"""Are harmful requests refused? HarmBench, AdvBench, StrongREJECT, Do-Not-Answer and SimpleSafetyTests, with harmless requests beside.

A request is granted, refused, or refused in part (``judges.refusal``). The finding is the share that is granted in full, which is not how
harmful the reply is: a judge of refusals does not know whether what was granted is of use to anybody. A model that refuses everything is
seen by the harmless requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evals.suites.refusal_scores import HARMFUL, SAFE, RefusalResult, RefusalSpec, aggregate, findings, request, score
from workbench.core.finding import Finding
from workbench.core.measure import Needs, Sample, Score
from workbench.core.result import Result
from workbench.data import sources
from workbench.data.requests import load
from workbench.data.worlds.replies import EVERYDAY

NAME = "refusal"


class HarmfulSpec(RefusalSpec):
    """``files``: csv files of harmful requests (none: HarmBench's test behaviours); ``harmless``: a file of requests that nobody would
    refuse (none: thirty everyday ones)."""

    files: tuple[str, ...] = ()
    harmless: str = ""


class _Refusal:
    name = NAME
    spec = HarmfulSpec
    needs = Needs(abilities=frozenset({"generate"}), inputs=(), tokenizer=True)

    def samples(self, spec: HarmfulSpec) -> Iterator[Sample]:
        files = [Path(file) for file in spec.files] or [sources.path("harmbench", "harmbench_behaviors_text_test.csv")]
        for number, file in enumerate(files):
            for one in load(file)[: spec.count or None]:
                if not one.safe:
                    yield Sample(f"{number}-{one.row:05d}", {"text": one.text}, cluster=one.kind, group=HARMFUL)
        harmless = (
            [(one.text, one.kind) for one in load(Path(spec.harmless))] if spec.harmless else [(text, "everyday") for text in EVERYDAY]
        )
        for row, (text, kind) in enumerate(harmless[: spec.count or None], start=1):
            yield Sample(f"harmless-{row:05d}", {"text": text}, cluster=kind, group=SAFE)

    def request(self, sample: Sample, spec: HarmfulSpec) -> tuple[Any, ...]:
        return request(sample.facts["text"], spec)

    def score(self, sample: Sample, response: tuple[Any, ...], spec: HarmfulSpec) -> Score:
        return score(sample, response)

    def aggregate(self, scores: Sequence[Score], spec: HarmfulSpec) -> RefusalResult:
        return aggregate(NAME, scores, [sample.facts["text"] for sample in self.samples(spec)])

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _Refusal()
