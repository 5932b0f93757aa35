"""A run as lm-evaluation-harness writes one: ``results_TIME.json``, and ``samples_TASK_TIME.jsonl`` for each suite.

Their tables, plots and comparisons of two result files read it. A finding is a metric of its suite's task, called after its measure; the
harness has no field for an interval, so findings stand whole under ``assay``, and a standard error, which a finding has not, is ``N/A`` as
there. Answers are not kept with a run, so ``resps`` are empty; what each sample was worth is in its metrics. A sample that was not scored
has no metric, and says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from workbench.core.spec import canonical_json
from workbench.reports.exports.evaluated import Asked, Evaluated, Files, Part, labelled, names_of, sha256, slug

NONE = "none"
"""The harness's word for answers that went through no filter."""


def files(run: Evaluated) -> Files:
    """The result file and a file of samples for each suite, in a folder named after the model. Equal runs, equal bytes."""
    folder, time = sanitized(run.model), (run.finished or run.created).replace(":", "-")
    out = {f"{folder}/results_{time}.json": _json(results(run)) + b"\n"}
    for part in run.parts:
        rows = b"".join(_json(row) + b"\n" for row in samples(part))
        out[f"{folder}/samples_{slug(part.name)}_{time}.jsonl"] = rows
    return out


def sanitized(model: str) -> str:
    """A model's name as the harness makes a folder of it; whatever else a name may hold is a dash."""
    name = re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model)
    return re.sub(r"[^A-Za-z0-9._@=,+-]+", "-", name).strip(".-")[:120] or "model"


def results(run: Evaluated) -> dict[str, Any]:
    """The result file."""
    tasks = {part.name: part for part in run.parts}
    return {
        "results": {name: _metrics(run, part) for name, part in tasks.items()},
        "group_subtasks": {name: [] for name in tasks},
        "configs": {name: {"task": name, "metadata": {"suite": part.suite, "spec": dict(part.spec)}} for name, part in tasks.items()},
        "versions": dict.fromkeys(tasks, run.version),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {name: {} for name in tasks},
        "n-samples": {name: {"original": len(part.rows), "effective": part.scored} for name, part in tasks.items()},
        "config": {"model": "assay", "model_args": run.model, "model_digest": run.model_digest},
        "date": run.created, "model_source": "assay", "model_name": run.model, "model_name_sanitized": sanitized(run.model),
        "start_time": run.created, "end_time": run.finished,
        "task_hashes": {name: sha256("".join(_hashes(row) for row in samples(part))) for name, part in tasks.items()},
        "assay": {
            "run": run.run, "version": run.version, "packages": dict(run.packages),
            "findings": [finding.model_dump(mode="json") for finding in run.findings],
        },
    }  # fmt: skip


def _metrics(run: Evaluated, part: Part) -> dict[str, Any]:
    out: dict[str, Any] = {"alias": part.name, "sample_len": len(part.rows)}
    for name, finding in labelled(run.findings_of(part)):
        if finding.effect is not None:
            out |= {f"{name},{NONE}": finding.effect, f"{name}_stderr,{NONE}": "N/A"}
    return out


def samples(part: Part) -> Iterable[dict[str, Any]]:
    """A suite's samples, one a row; each row names the numbers it has."""
    known = names_of(part.rows)
    for place, row in enumerate(part.rows):
        numbers = {_free(name): value for name, value in row.numbers().items()}
        doc = {"id": row.sample, "epoch": row.epoch, "cluster": row.cluster, "group": row.group, "unscored": row.unscored}
        yield {
            "doc_id": place, "doc": doc, "target": "", "arguments": _arguments(row.asked), "resps": [], "filtered_resps": [],
            "filter": NONE, "metrics": [_free(name) for name in known if _free(name) in numbers],
            "doc_hash": sha256(canonical_json(doc)), "prompt_hash": row.asked[0].digest if row.asked else sha256(""),
            "target_hash": sha256(""), **numbers,
        }  # fmt: skip


FIELDS = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash")
"""What every row has; a number that is called so is called ``value.…``."""


def _free(name: str) -> str:
    return f"value.{name}" if name in FIELDS else name


def _arguments(asked: Iterable[Asked]) -> dict[str, dict[str, Any]]:
    pairs: list[tuple[Any, ...]] = []
    for one in asked:
        if one.kind == "loglikelihood":
            pairs += [(one.context, continuation) for continuation in one.continuations]
        elif one.kind == "generate":
            pairs.append((one.context, dict(one.settings)))
        else:
            pairs.append((one.context,))
    return {f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(pair)} for i, pair in enumerate(pairs)}


def _hashes(row: dict[str, Any]) -> str:
    return row["doc_hash"] + row["prompt_hash"] + row["target_hash"]


def _json(value: Any) -> bytes:
    """JSON in ASCII: a text's controls, direction marks and halves of characters are escapes, so nothing of it is read as anything else."""
    return json.dumps(value, allow_nan=False).encode("ascii")
