"""Samples of lm-evaluation-harness (``samples_TASK_TIME.jsonl``): one row a document and filter.

Model, and which way a metric points, stand in the result file of the same time beside it, where there is one. A row's metrics are the
numbers that it names under ``metrics``. What is no number (parts of a perplexity, pairs for an F score) is not taken over and is counted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.imported import Direction, asked_digest
from workbench.core.errors import CorruptFile
from workbench.data.json_lines import objects
from workbench.lab.importing.read import DIRECTIONS, HIGHER, LOWER, Imported, Log, as_truths, label, number, whole

FORM = "lm-eval"
GIVE = "Give a file of samples as lm-evaluation-harness writes it with --log_samples."
_NAME = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[\d.:+-]+Z?)")


def read(place: Path, *, cluster: str = "", group: str = "") -> Log:
    """The samples of a file. ``cluster`` and ``group`` are fields of a row's ``doc``. Raises CorruptFile, which names file and line."""
    content = whole(place, GIVE)
    rows = [(line, _checked(row, place, line)) for line, row in objects(str(place), content, do=GIVE)]
    filters = {row["filter"] for _, row in rows}
    left: Counter[str] = Counter()
    merged: dict[str, tuple[int, Mapping[str, Any], dict[str, Any]]] = {}
    seen: set[tuple[str, str]] = set()
    for line, row in rows:
        sample = f"{row['doc_id']:06d}" if isinstance(row["doc_id"], int) else row["doc_id"]
        if (sample, row["filter"]) in seen:
            found = f"line {line} has document {row['doc_id']} with filter '{row['filter']}' a second time"
            raise CorruptFile(place, "a row for each document and filter", found, do="The file may hold two runs: split it.")
        seen.add((sample, row["filter"]))
        _, _, values = merged.setdefault(sample, (line, row, {}))
        for name in row["metrics"]:
            if (value := number(row.get(name))) is not None:
                values[name if len(filters) == 1 else f"{name},{row['filter']}"] = value
            else:
                left[name] += 1
    samples = [_sample(place, name, line, row, values, cluster, group) for name, (line, row, values) in merged.items()]
    if not any(one.values for one in samples):
        found = f"no row has one; its metrics are {', '.join(sorted(left)) or 'none'}"
        raise CorruptFile(place, "samples with a metric that is a number", found, do=GIVE)
    task, time, beside = _beside(place)
    notes = tuple(f"{count} values of {name} are no numbers and were not taken over" for name, count in sorted(left.items()))
    return Log(
        FORM, task, str(beside.get("model_name") or ""), hashlib.sha256(content).hexdigest(), tuple(as_truths(samples)),
        _directions({name for one in samples for name in one.values}, beside, task), time, str(beside.get("lm_eval_version") or ""), notes,
    )  # fmt: skip


def _checked(row: Mapping[str, Any], place: Path, line: int) -> Mapping[str, Any]:
    """The row with what is needed of it, in its own form. Older files name neither filter nor metrics."""
    known = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "doc_hash", "prompt_hash", "target_hash"}
    names = row.get("metrics", [name for name in row if name not in known])
    fine = isinstance(row.get("doc_id"), str | int) and isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not fine or isinstance(row.get("doc_id"), bool) or not isinstance(row.get("filter", "none"), str) or "arguments" not in row:
        raise CorruptFile(place, "samples of lm-evaluation-harness", f"line {line} has no doc_id, arguments and metrics", do=GIVE)
    return {**row, "metrics": names, "filter": row.get("filter", "none")}


def _sample(
    place: Path, name: str, line: int, row: Mapping[str, Any], values: Mapping[str, Any], cluster: str, group: str
) -> Imported:  # fmt: skip
    where = f"the doc of '{place.name}' line {line}"
    asked = asked_digest(row["arguments"], str(row.get("target", "")))
    doc = row.get("doc")
    said = doc.get("unscored") if isinstance(doc, Mapping) else None
    why = "" if values else said if isinstance(said, str) and said else "the file has no number for it"
    return Imported(name, 0, values, asked, why, label(doc, cluster, where), label(doc, group, where))


def _beside(place: Path) -> tuple[str, str, Mapping[str, Any]]:
    """Task and time out of the file's name, and the result file of that time."""
    match = _NAME.fullmatch(place.stem)
    if match is None:
        return place.stem.removeprefix("samples_"), "", {}
    results = place.with_name(f"results_{match['time']}.json")
    try:
        found = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise CorruptFile(results, "the result file of these samples", f"it is no JSON ({error})", do="Move it away.") from None
    if not isinstance(found, dict):
        raise CorruptFile(results, "the result file of these samples", "it is no JSON object", do="Move it away.")
    return match["task"], match["time"], found


def _directions(names: set[str], beside: Mapping[str, Any], task: str) -> dict[str, Direction]:
    stated = beside.get("higher_is_better", {})
    of_task = stated.get(task, {}) if isinstance(stated, Mapping) else {}
    out: dict[str, Direction] = {}
    for name in names:
        metric = name.partition(",")[0]
        said = of_task.get(metric) if isinstance(of_task, Mapping) else None
        out[name] = DIRECTIONS.get(metric, "") if said is None else HIGHER if said else LOWER
    return out
