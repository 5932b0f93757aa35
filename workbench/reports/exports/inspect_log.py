"""A run as Inspect's log, one ``.eval`` for each suite: a zip of JSON that ``inspect view`` shows and ``read_eval_log`` reads.

The members are those of the format (``header.json``, ``_journal/start.json``, ``summaries.json``, ``samples/ID_epoch_N.json``), compressed
by deflate, which every reader knows, and with one fixed time, so that equal runs give equal bytes. A sample's numbers are its scores; one
that was not scored has none and says why in its metadata. A suite's findings are its results. Inspect counts epochs from 1.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

from workbench.core.finding import Finding
from workbench.reports.exports.evaluated import Asked, Evaluated, Files, Part, Row, labelled, sha256, slug

VERSION = 2
"""Of the log's format."""
SCORER = "assay"
FIRST = (1980, 1, 1, 0, 0, 0)
_STATUS = {"done": "success", "failed": "error", "interrupted": "cancelled", "running": "started"}


def files(run: Evaluated) -> Files:
    """One log a suite. Equal runs, equal bytes."""
    time = run.created.replace(":", "-").replace("Z", "+00-00")
    return {f"{time}_{slug(part.name)}_{_identity(run, part)}.eval": log(run, part) for part in run.parts}


def log(run: Evaluated, part: Part) -> bytes:
    """The log of one suite, as a zip."""
    whole = header(run, part)
    members = {"_journal/start.json": {name: whole[name] for name in ("version", "eval", "plan")}}
    rows = [sample(run, row) for row in part.rows]
    for place, row in enumerate(rows):
        members[f"samples/{_member(row, place)}_epoch_{row['epoch']}.json"] = row
    kept = ("id", "epoch", "input", "target", "scores", "metadata", "model_usage")
    short = [{name: row[name] for name in kept} | {"completed": True} for row in rows]
    written = {**members, "_journal/summaries/1.json": short, "summaries.json": short, "header.json": whole}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in written.items():
            archive.writestr(zipfile.ZipInfo(name, FIRST), json.dumps(value, allow_nan=False), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def header(run: Evaluated, part: Part) -> dict[str, Any]:
    """The log without its samples."""
    findings = [(name, one) for name, one in labelled(run.findings_of(part)) if one.effect is not None]
    identity = _identity(run, part)
    return {
        "version": VERSION,
        "status": _STATUS[run.status],
        "eval": {
            "eval_id": identity, "run_id": run.run, "created": _moment(run.created), "task": part.name, "task_id": identity,
            "task_version": 0, "task_attribs": {}, "task_args": {}, "task_args_passed": {},
            "dataset": {"name": part.suite, "samples": len(part.rows), "sample_ids": _distinct(part.rows), "shuffled": False},
            "model": f"assay/{run.model}", "model_args": {}, "config": {}, "packages": {"assay-workbench": run.version},
            "metadata": {
                "run": run.run, "model_digest": run.model_digest, "spec": dict(part.spec), "data_digest": part.data_digest,
                "result_digest": part.digest, "summary": part.summary, "warning": part.warning,
            },
        },
        "plan": {"name": "assay", "steps": [], "config": {}},
        "results": {
            "total_samples": len(part.rows), "completed_samples": part.scored,
            "scores": [_score(name, one, part) for name, one in findings],
        },
        "stats": {"started_at": _moment(run.created), "completed_at": _moment(run.finished), "model_usage": {}},
    }  # fmt: skip


def _score(name: str, finding: Finding, part: Part) -> dict[str, Any]:
    """A finding as a score with its bounds; what the format has no field for is in the metadata."""
    numbers = {"effect": finding.effect}
    if finding.interval is not None:
        numbers |= {"low": finding.interval.low, "high": finding.interval.high}
    metrics = {word: {"name": word, "value": value, "params": {}} for word, value in numbers.items()}
    return {
        "name": name, "scorer": SCORER, "scored_samples": part.scored, "unscored_samples": len(part.rows) - part.scored, "params": {},
        "metrics": metrics, "metadata": finding.model_dump(mode="json"),
    }  # fmt: skip


def sample(run: Evaluated, row: Row) -> dict[str, Any]:
    """One sample. Several requests about it are one input, each behind its number."""
    numbered = [f"[{place}] {one.context}" for place, one in enumerate(row.asked, start=1)]
    text = row.asked[0].context if len(row.asked) == 1 else "\n\n".join(numbered)
    facts = {"cluster": row.cluster, "group": row.group, "unscored": row.unscored}
    return {
        "id": row.sample, "epoch": row.epoch + 1, "input": text, "choices": _choices(row.asked), "target": "", "messages": [],
        "output": {"model": f"assay/{run.model}", "choices": []},
        "scores": {name: {"value": value} for name, value in row.numbers().items()},
        "metadata": {name: value for name, value in facts.items() if value}, "store": {}, "events": [], "model_usage": {},
        "attachments": {},
    }  # fmt: skip


def _choices(asked: Sequence[Asked]) -> list[str] | None:
    return list(asked[0].continuations) if len(asked) == 1 and len(asked[0].continuations) > 1 else None


def _member(row: dict[str, Any], place: int) -> str:
    """A sample's name in the zip: its id where that is a plain word, else its number, since an id may hold a path."""
    name = str(row["id"])
    return name if name == slug(name) and "." not in name else f"sample-{place}"


def _distinct(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.sample for row in rows))


def _identity(run: Evaluated, part: Part) -> str:
    return sha256(f"{run.run} {part.name}")[:22]


def _moment(time: str) -> str:
    """A UTC time with its offset written out."""
    return time.replace("Z", "+00:00")
