"""How long a large report takes in every form, how large it is, and whether its memory grows with the number of samples.

``python benchmarks/report_speed.py`` makes a report of 20 suites with made-up scores (no model is asked): for each suite a subgroup
table, the samples' scores (of which a report shows the first 200), a forest plot drawn anew, and six findings. Each size runs in a
process of its own; the clock starts when the scores are there and stops when all forms are written. The goal: 10,000
samples in under 10 seconds, HTML under 2 MB, PDF under 3 MB, and with ten times the samples no more memory than the scores themselves.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SUITES, GROUPS = 20, 6
GOAL_SECONDS, GOAL_HTML, GOAL_PDF = 10.0, 2_000_000, 3_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--one", type=int, help="measure one size in this process and print it as JSON")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.one)))
        return
    rows = []
    for samples in asked.samples:
        command = [sys.executable, __file__, "--one", str(samples)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(table(rows))
    first = rows[0]
    kept = first["seconds"] < GOAL_SECONDS and first["html"] < GOAL_HTML and first["pdf"] < GOAL_PDF
    print(f"\nAt {first['samples']:,} samples: {'the goal is kept' if kept else 'the goal is missed'}.")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| samples | findings | seconds | CPU seconds | compose | html | pdf | card | bom | HTML MB | PDF MB | PDF pages | peak MB |",
        "|" + "--:|" * 13,
    ]
    for row in rows:
        times = " | ".join(f"{row['times'][name]:.2f}" for name in ("compose", "html", "pdf", "card", "bom"))
        sizes = f"{row['html'] / 1e6:.2f} | {row['pdf'] / 1e6:.2f} | {row['pages']}"
        lines.append(
            f"| {row['samples']:,} | {row['findings']} | {row['seconds']:.2f} | {row['cpu']:.2f} | {times} | {sizes} | {row['peak']:.0f} |"
        )
    return "\n".join(lines)


def measured(samples: int) -> dict[str, Any]:
    """Seconds and bytes of each form of a report over so many samples, and the process's largest memory in MB."""
    from workbench.reports.render import bom, card, html, pdf

    scores = drawn(samples)
    times: dict[str, float] = {}
    start, busy = time.perf_counter(), time.process_time()
    report = composed(scores)
    times["compose"] = time.perf_counter() - start
    made: dict[str, Any] = {}
    for name, form in (("html", html.render), ("pdf", pdf.render), ("card", card.render), ("bom", bom.render)):
        begun = time.perf_counter()
        made[name] = form(report, most_bytes=99_000_000) if name in ("html", "pdf") else form(report)
        times[name] = time.perf_counter() - begun
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sizes = {name: len(content if isinstance(content, bytes) else content.encode()) for name, content in made.items()}
    return {
        "samples": samples, "findings": len(report.all_findings()), "seconds": seconds, "cpu": busy, "times": times, "html": sizes["html"],
        "pdf": sizes["pdf"], "pages": made["pdf"].count(b"/Type/Page/"), "peak": peak,
    }  # fmt: skip


def drawn(samples: int) -> list[Any]:
    """Made-up scores by suite: a frame of group and score."""
    import numpy as np
    import pandas as pd

    out = []
    for suite in range(SUITES):
        rng = np.random.default_rng(suite)
        count = samples // SUITES
        groups = rng.integers(0, GROUPS, count)
        share = 0.5 + 0.05 * groups
        out.append(pd.DataFrame({"sample": np.arange(count), "group": groups, "score": (rng.random(count) < share).astype(float)}))
    return out


def composed(scores: list[Any]) -> Any:
    """The report over the scores of all suites."""
    from workbench.reports.parts import Coverage, Identity
    from workbench.reports.report import Report

    sections = tuple(section(number, frame) for number, frame in enumerate(scores))
    rows = tuple(
        Coverage(kind="suite", asked=f"suite-{n}", model="audited", run=len(f), scored=len(f), passed=int(f["score"].sum()))
        for n, f in enumerate(scores)
    )
    return Report(
        title="A large report", subject="nobody", date="2025-01-31", sections=sections, coverage=rows,
        identities=(Identity(part="audited", name="nobody", sha256="ab" * 32),), rederive=("python benchmarks/report_speed.py",),
    )  # fmt: skip


def section(number: int, frame: Any) -> Any:
    """One suite: findings by group, a forest plot, a subgroup table and the samples' scores."""
    from workbench.core.finding import Denominators, Finding, Interval, Null, decide
    from workbench.core.stats import wilson
    from workbench.reports.frames import forests
    from workbench.reports.report import Figure, Table, section_of

    findings, rows = [], []
    for group, own in frame.groupby("group"):
        hits, count = int(own["score"].sum()), len(own)
        found = wilson(hits, count)
        interval = Interval(low=found.low, high=found.high, method="Wilson")
        verdict, because = decide(hits / count, interval, null=0.5)
        rows.append((f"group {group}", count, hits, hits / count, interval.low, interval.high))
        findings.append(
            Finding(
                claim=f"Items of group {group} are answered better than by guessing", subject="nobody", source=f"suite-{number}",
                measure="share right", effect=hits / count, unit="of items", interval=interval, null=Null(name="guessing", value=0.5),
                denominators=Denominators(run=count, scored=count), verdict=verdict, because=because,
            )
        )  # fmt: skip
    names = ("group", "items", "right", "share", "low", "high")
    by_group = Table(columns=names, rows=tuple(rows), caption=f"Suite {number} by group")
    plot = forests(findings)[0]
    figure = Figure.from_chart(plot.chart, Table.from_frame(plot.frame, f"Suite {number} by group, with intervals"), title=plot.title)
    samples = Table.from_frame(frame, f"The samples of suite {number}")
    return section_of(f"Suite {number}", f"suite-{number}", "Made-up scores.", *findings, figure, by_group, samples)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
