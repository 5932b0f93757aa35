"""Files as other programs write them, small."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

TIME = "2026-05-06T07-08-09.123456"


def harness_row(doc: int, acc: Any, **more: Any) -> dict[str, Any]:
    row = {
        "doc_id": doc, "doc": {"q": f"question {doc}\u2028?", "topic": {"name": f"t{doc % 5}"}}, "target": "1",
        "arguments": {"gen_args_0": {"arg_0": f"question {doc}", "arg_1": " yes"}}, "resps": [[["-1.0", "False"]]],
        "filtered_resps": [["-1.0", "False"]], "filter": "none", "metrics": ["acc"], "doc_hash": "d", "prompt_hash": "p",
        "target_hash": "t", "acc": acc,
    }  # fmt: skip
    return {**row, **more}


def harness_file(folder: Path, rows: list[Any], task: str = "quiz", **results: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / f"samples_{task}_{TIME}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if results:
        (folder / f"results_{TIME}.json").write_text(json.dumps(results))
    return str(folder / f"samples_{task}_{TIME}.jsonl")


def inspect_sample(number: int, value: Any, **more: Any) -> dict[str, Any]:
    row = {
        "id": number, "epoch": 1, "input": [{"id": f"random{number}{value}", "role": "user", "content": f"question {number}"}],
        "target": "yes", "messages": [], "output": {"model": "m", "choices": []}, "scores": {"match": {"value": value, "answer": "yes"}},
        "metadata": {"topic": f"t{number % 5}"},
    }  # fmt: skip
    return {**row, **more}


def inspect_header(**more: Any) -> dict[str, Any]:
    return {
        "version": 2, "status": "success",
        "eval": {"task": "riddles", "model": "mock/one", "created": "2026-05-06T07:08:09+00:00", "packages": {"inspect_ai": "0.3.250"}},
        **more,
    }  # fmt: skip


def inspect_file(
    place: Path, samples: list[Any], *, header: Any = None, members: dict[str, bytes] | None = None, method: int = zipfile.ZIP_DEFLATED
) -> str:  # fmt: skip
    whole = {"header.json": json.dumps(inspect_header() if header is None else header).encode()}
    for number, sample in enumerate(samples, start=1):
        whole[f"samples/{number}_epoch_1.json"] = sample if isinstance(sample, bytes) else json.dumps(sample).encode()
    with zipfile.ZipFile(place, "w", method) as archive:
        for name, content in {**whole, **(members or {})}.items():
            archive.writestr(name, content)
    return str(place)
