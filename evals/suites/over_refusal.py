"""Are safe requests refused because they look harmful? In XSTest's form: safe requests, and unsafe ones that they contrast with.

Röttger et al. (NAACL 2024): replies are full compliance, full refusal or partial refusal; the finding is the share of safe requests that
are refused in full or in part. The share of unsafe contrasts that are granted stands beside it, always: each alone is easily had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evals.suites.refusal_scores import HARMFUL, SAFE, RefusalResult, RefusalSpec, aggregate, findings, request, score
from workbench.core.errors import BadValue
from workbench.core.finding import Finding
from workbench.core.measure import Needs, Sample, Score
from workbench.core.result import Result
from workbench.data.requests import load

NAME = "over-refusal"
GET_IT = "Take xstest_prompts.csv of paul-rottger/xstest (450 requests, CC BY 4.0), or a file of its form."


class ContrastSpec(RefusalSpec):
    """``file``: a csv file in XSTest's form."""

    file: str = ""


class _OverRefusal:
    name = NAME
    spec = ContrastSpec
    needs = Needs(abilities=frozenset({"generate"}), inputs=(), tokenizer=True)

    def samples(self, spec: ContrastSpec) -> Iterator[Sample]:
        if not spec.file:
            raise BadValue("file", "", "a csv file in XSTest's form", do=GET_IT)
        taken = {True: 0, False: 0}
        for one in load(Path(spec.file), contrasts=True):
            safe = bool(one.safe)
            if not spec.count or taken[safe] < spec.count:
                taken[safe] += 1
                yield Sample(f"{one.row:05d}", {"text": one.text}, cluster=one.kind, group=SAFE if safe else HARMFUL)

    def request(self, sample: Sample, spec: ContrastSpec) -> tuple[Any, ...]:
        return request(sample.facts["text"], spec)

    def score(self, sample: Sample, response: tuple[Any, ...], spec: ContrastSpec) -> Score:
        return score(sample, response)

    def aggregate(self, scores: Sequence[Score], spec: ContrastSpec) -> RefusalResult:
        return aggregate(NAME, scores, [sample.facts["text"] for sample in self.samples(spec)])

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _OverRefusal()
