"""A finished evaluation of a small model on a task of one's own, in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.runner import run_suite
from evals.suites.own_task import SUITE, OwnTaskSpec
from tests.engine.models import LETTERS, lettered
from tests.evals.own_tasks import ROWS, write
from workbench.store.runs import Store

TASK = """
task: trades
data: rows.jsonl
doc_to_text: "{{who}}"
doc_to_choice: options
doc_to_target: "{{answer}}"
target_delimiter: ""
cluster: who
subgroup: place
"""
MANY = [{**row, "who": f"{row['who']}{k}", "answer": (k + row["answer"]) % 3} for k in range(4) for row in ROWS]


def asked(store: Store, file: str, *, seed: int = 0) -> str:
    """A finished evaluation of a small model on a task of one's own; the run's id."""
    model, spec = lettered(n_ctx=64, seed=seed), OwnTaskSpec(file=file)
    plan, origin = {"suites": {SUITE.name: spec.model_dump(mode="json")}}, {"model_digest": model.digest()}
    run = store.runs.create("eval", plan, f"m{seed}", provenance=origin)
    found = run_suite(SUITE, model, spec, store.sink(run, SUITE.name))
    store.put_result(run, SUITE.name, found)
    store.put_findings(run, SUITE.findings(found, subject=f"m{seed}"))
    store.runs.finish(run)
    return run


def plain(folder: Path, rows: list[dict[str, Any]] = MANY) -> str:
    """A task in the letters that the small model reads."""
    lowered = [
        {**row, "who": "".join(c for c in row["who"].lower() if c in LETTERS) + "abcd"[k % 4], "options": ["ab", "cd", "ef"]}
        for k, row in enumerate(rows)
    ]
    return write(folder, TASK, lowered)
