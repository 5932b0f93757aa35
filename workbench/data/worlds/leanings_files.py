"""Sets of cases as the files that published suites read: their form, none of their text.

Each function writes into a folder and gives the fields of the suite's spec that name what it wrote.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.data.worlds.leanings import GROUPS, SIDES, Case, side

KIND = "invented"
SEXES = {"she": "female", "he": "male", "they": "neutral"}


def crows_pairs(cases: Sequence[Case], folder: Path) -> dict[str, Any]:
    """A csv of sentence pairs."""
    path = folder / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(("", "sent_more", "sent_less", "stereo_antistereo", "bias_type"))
        for number, case in enumerate(cases):
            more = f"{case.before} {case.facts['thing']}{case.after}"
            rows.writerow((number, more, case.facts["rival"], "stereo", KIND))
    return {"file": str(path)}


def stereoset(cases: Sequence[Case], folder: Path) -> dict[str, Any]:
    """A json list of intrasentence clusters."""
    out = []
    for number, case in enumerate(cases):
        sentences = [
            {"id": f"{number}-{label}", "sentence": f"{case.before} {word}{case.after}", "gold_label": label}
            for label, word in case.facts["sentences"].items()
        ]
        context = f"{case.before} BLANK{case.after}"
        out.append({"id": str(number), "target": case.by, "bias_type": KIND, "context": context, "sentences": sentences})
    path = folder / "clusters.json"
    path.write_text(json.dumps(out), encoding="utf-8")
    return {"files": (str(path),), "forms": ("intrasentence",)}


def winobias(cases: Sequence[Case], folder: Path) -> dict[str, Any]:
    """The four files of type 1: both lists of names, and the sentences with a pronoun that keeps the leaning and one that breaks it."""
    for sex, names in zip(("female", "male"), SIDES, strict=True):
        (folder / f"{sex}_occupations.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    lines: dict[str, list[str]] = {"pro": [], "anti": []}
    for number, case in enumerate(cases, start=1):
        meant, words = case.facts["meant"], dict(case.facts["words"])
        slot = "x" if words["x"] == meant else "y"
        frame = case.facts["frame"].replace(f"the {{{slot}}}", f"[the {{{slot}}}]").replace("{s}", "[{s}]")
        keeps = ("she", "he")[side(meant)]
        for name, pronoun in (("pro", keeps), ("anti", "he" if keeps == "she" else "she")):
            lines[name].append(f"{number} {frame.format(**words, s=pronoun)}")
    for name, own in lines.items():
        (folder / f"{name}_stereotyped_type1.txt.dev").write_text("\n".join(own) + "\n", encoding="utf-8")
    return {"folder": str(folder), "types": (1,)}


def winogender(cases: Sequence[Case], folder: Path) -> dict[str, Any]:
    """Both tables. An id stands once: of cases about the same group, participant and answer the first is taken, with all three pronouns."""
    rows: dict[str, str] = {}
    for case in cases:
        words, answer = case.facts["words"], case.facts["meant"]
        for pronoun, sex in SEXES.items():
            name = f"{words['x']}.{words['y']}.{answer}.{sex}.txt"
            rows.setdefault(name, case.facts["frame"].format(**words, s=pronoun))
    _table(folder / "all_sentences.tsv", ("sentid", "sentence"), rows.items())
    shares = ((name, f"{50 + 50 * lean:g}") for name, lean in GROUPS.items())
    _table(folder / "occupations-stats.tsv", ("occupation", "bls_pct_female"), shares)
    return {"folder": str(folder)}


def bbq(cases: Sequence[Case], folder: Path) -> dict[str, Any]:
    """A jsonl file of questions."""
    return {"files": (_lines(folder / "questions.jsonl", map(_question, range(len(cases)), cases)),), "forms": ("text",)}


def _question(number: int, case: Case) -> Mapping[str, Any]:
    f = case.facts
    tags = {f"ans{i}": [answer, answer] for i, answer in enumerate(f["answers"])}
    return {
        "category": KIND, "question_index": str(f["template"]), "example_id": number, "context": f["context"], "question": f["question"],
        "question_polarity": "neg" if f["negative"] else "nonneg", "context_condition": "ambig" if f["ambiguous"] else "disambig",
        **{f"ans{i}": answer for i, answer in enumerate(f["answers"])}, "answer_info": tags, "label": f["answers"].index(f["right"]),
        "additional_metadata": {"stereotyped_groups": list(SIDES[0])},
    }  # fmt: skip


def blimp(cases: Sequence[Case], folder: Path) -> dict[str, Any]:
    """A jsonl file of minimal pairs, a paradigm a template."""

    def pair(number: int, case: Case) -> Mapping[str, Any]:
        right = case.facts["right"]
        good, bad = (f"{case.before} {word}{case.after}" for word in (right, "is" if right == "are" else "are"))
        return {"UID": f"agreement_{case.by}", "linguistics_term": "agreement", "field": "morphology", "pairID": number,
                "sentence_good": good, "sentence_bad": bad}  # fmt: skip

    return {"files": (_lines(folder / "pairs.jsonl", map(pair, range(len(cases)), cases)),)}


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), encoding="utf-8")
