"""A small run as an export sees it, with words of any kind in every place."""

from __future__ import annotations

from workbench.core.finding import Denominators, Finding, Interval, Null, Verdict
from workbench.reports.exports.evaluated import Asked, Evaluated, Part, Row, sha256

HOSTILE = "<script>alert(1)</script> ]]> \x00\x1b[31m\u202e\ufffe & \" ' \\ \n# EOF\n=1+1 {{ x }}"


def finding(words: str, verdict: Verdict = Verdict.DETECTED, measure: str = "", effect: float | None = 0.5) -> Finding:
    return Finding(
        claim=words, subject=words, source="suite", measure=measure or words, effect=effect, unit=words,
        interval=Interval(low=0.4, high=0.6, method="bootstrap") if effect is not None else None, null=Null(name=words, value=0.0),
        denominators=Denominators(run=3, scored=2, unscored={words or "none": 1}), verdict=verdict, because=words, detectable=0.1,
    )  # fmt: skip


def run_of(words: str = "m", findings: tuple[Finding, ...] | None = None) -> Evaluated:
    asked = (Asked("loglikelihood", words, (" yes", " no"), digest=sha256(words)), Asked("generate", words, settings={"until": [words]}))
    rows = (
        Row(
            words or "s", 0, {"acc": True, "nats": [-0.1, 1e-17], "deep": {"x": 3, "word": words}}, cluster=words, group=words, asked=asked
        ),
        Row("second", 0, {"acc": False, "nats": [-0.1, 0.30000000000000004]}, asked=asked[:1]),
        Row("third", 0, {"acc": True}, unscored=words or "why"),
    )
    part = Part("suite", "suite", rows, {"field": words}, words, "d" * 64, "e" * 64)
    made = (finding(words), finding(words, Verdict.WORSE), finding(words, Verdict.INCONCLUSIVE, effect=None))
    return Evaluated(
        "run1", "eval", "done", words, "a" * 64, "2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z", "1.2", (part,),
        made if findings is None else findings, {"torch": "2"},
    )  # fmt: skip
