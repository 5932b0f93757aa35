"""A small task of one's own: nine rows, three choices each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHOICE = """
task: trades
data: rows.jsonl
doc_to_text: "Q: who is {{who}}?\\nA:"
doc_to_choice: options
doc_to_target: "{{answer}}"
cluster: who
subgroup: place
"""
ROWS = [
    {"who": name, "options": ["a nurse", "a doctor", "the cook"], "answer": k % 3, "place": "north" if k % 2 else "south"}
    for k, name in enumerate(("Ann", "Bob", "Cid", "Dot", "Eve", "Fay", "Gus", "Hal", "Ida"))
]


def write(folder: Path, task: str = CHOICE, rows: list[dict[str, Any]] = ROWS) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "task.yaml").write_text(task, encoding="utf-8")
    return str(folder / "task.yaml")
