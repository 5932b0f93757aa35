"""A blind trial as a page for readers: what was committed to, how well the audit did, and what was called what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.calibration.blind import NOTHING


def page(before: Mapping[str, Any], document: Mapping[str, Any] | None, number: int) -> str:
    """One trial in Markdown: ``before`` is its commitment, ``document`` its opening (None: it was broken off, and is void)."""
    head = f"## Trial {number}\n\n{len(before['models'])} models, committed to as `{before['commitment']}` before the first was made."
    if document is None:
        return f"{head} Broken off before its opening, and void.\n"
    outcome = document["outcome"]
    every, asked, (found, of) = outcome["every"], outcome["asked"], outcome["unseen"]
    lines = [
        f"{head} The salt is `{document['salt']}`.",
        "",
        f"- **All planted kinds: {_accuracy(every)}.**",
        f"- Kinds that a suite of the plan asks about: {_accuracy(asked)}; {outcome['named']} of the {asked['found']} found were called by "
        "their kind.",
        f"- Kinds that none asks about ({', '.join(before['unseen'])}): {found} of {of} found.",
        "",
        _table(outcome["table"], before["asked about"]),
        "",
        f"The plan, at a level of {before['level']:.3g} for each suite's own test: "
        + "; ".join(f"{suite} above {rule['cut_off']:.3f}" for suite, rule in before["plan"].items())
        + ".",
        "",
        *([f"Missed: {'; '.join(outcome['missed'])}.", ""] if outcome["missed"] else ["Nothing was missed.", ""]),
    ]
    return "\n".join(lines)


def _accuracy(part: Mapping[str, Any]) -> str:
    low, high = part["interval"]["low"], part["interval"]["high"]
    return (
        f"balanced accuracy {part['balanced']:.2f} [{low:.2f}, {high:.2f}], {part['found']} of {part['planted']} planted models found, "
        f"{part['alarms']} false alarms on {part['clean']} clean ones"
    )


def _table(table: Mapping[str, Mapping[str, int]], asked: list[str]) -> str:
    """What is planted, by row, and what it was called, by column; the kinds that are asked about first, and what is called nothing last."""
    columns = [*asked, NOTHING]
    rows = [*[kind for kind in asked if kind in table], *sorted(set(table) - set(columns)), *([NOTHING] if NOTHING in table else [])]
    cells = [[str(table[kind].get(said, "")) for said in columns] for kind in rows]
    lines = [f"| planted | {' | '.join(f'called {said}' for said in columns)} |", "|---" * (1 + len(columns)) + "|"]
    return "\n".join([*lines, *(f"| {kind} | {' | '.join(row)} |" for kind, row in zip(rows, cells, strict=True))])
