"""A run as OpenMetrics 1.0 text, for a monitoring system that scrapes files: a gauge a finding, with its bounds, and counts of samples.

Labels name suite, measure, claim and model, so that one line is the same series from run to run. Characters that a label should not hold
(controls, direction marks) are shown as symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from workbench.reports import phrases
from workbench.reports.exports.evaluated import Evaluated, Files, labelled

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
Sample = tuple[Mapping[str, str], float]


def files(run: Evaluated) -> Files:
    """The text. Equal runs, equal bytes."""
    return {f"{run.run}.openmetrics.txt": text(run).encode("utf-8")}


def text(run: Evaluated) -> str:
    """All families, then the mark of the end."""
    named = [(_labels(run, name, one), one) for name, one in labelled(run.findings)]
    effects = [(labels, one.effect) for labels, one in named if one.effect is not None]
    lows = [(labels, one.interval.low) for labels, one in named if one.interval is not None]
    highs = [(labels, one.interval.high) for labels, one in named if one.interval is not None]
    verdicts = [({**labels, "verdict": one.verdict.value}, 1.0) for labels, one in named]
    counts = [
        ({"model": run.model, "suite": part.name, "state": state}, float(count))
        for part in run.parts
        for state, count in (("scored", part.scored), ("unscored", len(part.rows) - part.scored))
    ]
    about = {"run": run.run, "model": run.model, "model_digest": run.model_digest, "version": run.version, "status": run.status}
    lines = [
        *_family("assay_run", "info", "The run that these numbers are of.", [(about, 1.0)], "_info"),
        *_family("assay_samples", "gauge", "Samples asked, by whether they could be scored.", counts),
        *_family("assay_effect", "gauge", "What a finding measured, in the unit of its measure.", effects),
        *_family("assay_effect_low", "gauge", "The lower bound of its interval.", lows),
        *_family("assay_effect_high", "gauge", "The upper bound of its interval.", highs),
        *_family("assay_verdict", "gauge", "1 for the verdict that a finding has.", verdicts),
        "# EOF",
    ]
    return "\n".join(lines) + "\n"


def _labels(run: Evaluated, name: str, finding: object) -> dict[str, str]:
    source, measure, claim, unit = (str(getattr(finding, word)) for word in ("source", "measure", "claim", "unit"))
    return {"model": run.model, "suite": source, "name": name, "measure": measure, "claim": claim, "unit": unit}


def _family(name: str, kind: str, words: str, samples: Iterable[Sample], suffix: str = "") -> list[str]:
    """One family; nothing where it has no sample."""
    lines = [f"{name}{suffix}{{{_written(labels)}}} {value!r}" for labels, value in samples]
    return [f"# TYPE {name} {kind}", f"# HELP {name} {words}", *lines] if lines else []


def _written(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return phrases.clipped(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
