"""The journal: what happened in a run, in order, each line chained to the one before it.

A line is canonical JSON with its number, its kind, the facts, the hash of the line before (64 zeros for the first) and its own: the
sha256 of the line without that field. So a line cannot be changed, left out, put in or moved without every later line changing, and the
last hash, the *head*, stands for the whole. Samples, results and findings are in it by their digests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core.spec import canonical_json, digest_of
from workbench.reports.evidence.container import Fault

START = "0" * 64
NAME = "journal.jsonl"
Entry = Mapping[str, Any]


def written(entries: Sequence[Entry]) -> str:
    """The lines of a journal. An entry has a ``kind`` and none of the words ``number``, ``previous`` and ``hash``."""
    previous, lines = START, []
    for number, entry in enumerate(entries, 1):
        line = {"number": number, "previous": previous, **entry}
        previous = digest_of(line)
        lines.append(canonical_json({**line, "hash": previous}))
    return "".join(f"{line}\n" for line in lines)


def head(text: str) -> str:
    """The hash of the last line; of an empty journal, zeros."""
    last = text.rstrip("\n").rpartition("\n")[2]
    return str(json.loads(last)["hash"]) if last else START


def read(text: str) -> tuple[list[dict[str, Any]], list[Fault]]:
    """The entries of a journal, as they were given to ``written``, and what is wrong with the chain, line by line."""
    entries: list[dict[str, Any]] = []
    faults: list[Fault] = []
    previous = START
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    else:
        faults.append(Fault(NAME, "its last line is cut short"))
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            stated = {name: entry.pop(name) for name in ("number", "previous", "hash")}
            kind = entry["kind"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return entries, [*faults, Fault(NAME, f"line {number} is no entry of a journal")]
        where = f"{NAME} line {number} ({kind} {entry.get('name', '')})".replace(" )", ")")
        whole = {"number": number, "previous": previous, **entry}
        if stated["previous"] != previous or stated["number"] != number:
            faults.append(Fault(where, "it does not follow the line before it: something was left out, put in or moved"))
        elif stated["hash"] != digest_of(whole):
            faults.append(Fault(where, "it was changed: its hash is of other words"))
        elif line != canonical_json({**whole, "hash": stated["hash"]}):
            faults.append(Fault(where, "it is not written in the canonical form"))
        previous = str(stated["hash"])
        entries.append(entry)
    return entries, faults
