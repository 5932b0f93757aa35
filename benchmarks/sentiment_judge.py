"""The sentiment judge's error tables: ``python benchmarks/sentiment_judge.py``.

VADER on functional cases of known truth, by function, group and name, beside the same list of words without rules and the commonest label.
"""

from __future__ import annotations

from evals.judges.sentiment import CUT, FELT, errors, kinds
from evals.judges.sentiment_table import AUTHORS_CUT, Row, by_function, by_group, contestants, unlike
from workbench.data.worlds.feelings import WORD_NAMES, cases

HEAD = ("slice", "forms", "forms right", "texts", "texts right", "called the opposite")


def table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, tuple("---" for _ in head), *lines))


def main() -> None:
    tried = cases()
    found = contestants(tried)
    print(table(("contestant", *HEAD[1:]), [(name, *Row.of(name, tried, said).cells()[1:]) for name, said in found.items()]) + "\n")
    lines = []
    for kind in kinds():
        for cut in (CUT, AUTHORS_CUT):
            each = [errors(kind, cut)[label] for label in FELT]
            lines.append((kind, f"{cut:g}", *(f"{rate:.2f}" for one in each for rate in (one.sensitivity, one.alarms))))
    print(table(("kind", "cut", *(f"{label}{what}" for label in FELT for what in (", found", ", false alarms"))), lines) + "\n")
    named = {name: {row.name: row for row in by_function(tried, said)} for name, said in found.items()}
    columns = ("function: truth", "forms", *(f"{name}, texts right" for name in found), "judge, called the opposite")
    lines = []
    for name, row in named["judge"].items():
        rates = (f"{named[one][name].texts.value:.2f}" for one in found)
        lines.append((name, str(row.forms.n), *rates, row.cells()[5]))
    print(table(columns, lines) + "\n")
    for name in ("judge", f"judge, cut at {AUTHORS_CUT:g}"):
        said = found[name]
        shares = [row.texts.value for row in by_group(tried, said)]
        changed = "; ".join(f"{one}, {rate.k} of {rate.n}" for one, rate in unlike(tried, said).items() if rate.k)
        names = {one.filler: label for one, label in zip(tried, said, strict=True) if one.filler in WORD_NAMES and label != one.label}
        print(f"{name}: texts right by group from {min(shares):.2f} to {max(shares):.2f}")
        print(f"{name}: forms not called the same whatever fills them: {changed}")
        print(f"{name}: names called something: {', '.join(f'{one} ({label})' for one, label in names.items())}\n")


if __name__ == "__main__":
    main()
