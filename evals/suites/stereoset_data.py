"""StereoSet files: clusters of three sentences, read whole or refused with file, item and field; and the published prediction files.

Two layouts are read: upstream's ``{"version", "data": {"intrasentence": [...], "intersentence": [...]}}`` and a plain list of
clusters (one form; told by BLANK in the context). Errors name items and fields, never the sentences.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import BadValue, CorruptFile, MissingFile

FORMS = ("intrasentence", "intersentence")
OPTIONS = ("stereotype", "anti-stereotype", "unrelated")
BLANK = "BLANK"
GET_IT = "Run `workbench data fetch stereoset`, or give a json file of the same form."


@dataclass(frozen=True)
class Cluster:
    """One item: a context and its three options in the order of ``OPTIONS``, with upstream's id of each sentence."""

    id: str
    form: str
    bias_type: str
    target: str
    context: str
    sentences: tuple[str, str, str]
    ids: tuple[str, str, str]


def load(path: Path) -> list[Cluster]:
    """Every cluster of the file. Raises MissingFile, or CorruptFile for what is not of the form, naming the item and the field."""
    document = _json(path, "StereoSet file")
    if isinstance(document, dict) and isinstance(document.get("data"), dict):
        found = [(form, document["data"].get(form, [])) for form in FORMS]
    elif isinstance(document, list):
        found = [("", document)]
    else:
        raise CorruptFile(path, "a list of clusters, or an object with 'data'", "it is neither", do=GET_IT)
    if any(not isinstance(items, list) for _, items in found):
        raise CorruptFile(path, "lists of clusters under 'data'", "one is not a list", do=GET_IT)
    out = [_cluster(path, number, form, item) for form, items in found for number, item in enumerate(items)]
    if not out:
        raise CorruptFile(path, "a file of clusters", "it has none", do=GET_IT)
    seen: set[str] = set()
    for cluster in out:
        if cluster.id in seen:
            raise CorruptFile(path, "a file that uses an id once", f"'{cluster.id}' stands twice", do=GET_IT)
        seen.add(cluster.id)
    return out


def _json(path: Path, what: str) -> Any:
    if not path.is_file():
        raise MissingFile(path, what, do=GET_IT)
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CorruptFile(path, "UTF-8 text", f"byte {error.start} is not", do=GET_IT) from None
    except json.JSONDecodeError as error:
        raise CorruptFile(path, "a json file", f"line {error.lineno} is not ({error.msg})", do=GET_IT) from None


def _cluster(path: Path, number: int, form: str, item: Any) -> Cluster:
    where = f"item {number} (the first is 0){f' of {form}' if form else ''}"

    def text(holder: Any, name: str, of: str = "") -> str:
        value = holder.get(name) if isinstance(holder, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise CorruptFile(path, f"a file with text in every '{name}'", f"{where}{of} has none", do=GET_IT)
        return value

    if not isinstance(item, dict) or not isinstance(item.get("sentences"), list):
        raise CorruptFile(path, "a file with 'sentences' in every cluster", f"{where} has none", do=GET_IT)
    context = text(item, "context")
    form = form or (FORMS[0] if BLANK in context else FORMS[1])
    if form == FORMS[0] and BLANK not in context:
        raise CorruptFile(path, f"a file with {BLANK} in every intrasentence context", f"{where} has none", do=GET_IT)
    options: dict[str, tuple[str, str]] = {}
    for place, sentence in enumerate(item["sentences"]):
        of = f", sentence {place},"
        label = text(sentence, "gold_label", of)
        if label in OPTIONS:  # upstream's set has 'related' ones too, which no score uses
            if label in options:
                raise CorruptFile(path, f"one sentence of each of {', '.join(OPTIONS)} a cluster", f"{where} has two '{label}'", do=GET_IT)
            options[label] = text(sentence, "sentence", of), text(sentence, "id", of)
    if missing := [name for name in OPTIONS if name not in options]:
        raise CorruptFile(path, f"one sentence of each of {', '.join(OPTIONS)} a cluster", f"{where} has no '{missing[0]}'", do=GET_IT)
    first, second, third = (options[name] for name in OPTIONS)
    return Cluster(
        text(item, "id"), form, text(item, "bias_type"), text(item, "target"), context,
        (first[0], second[0], third[0]), (first[1], second[1], third[1]),
    )  # fmt: skip


def load_predictions(path: Path) -> dict[str, dict[str, float]]:
    """A published prediction file: for each form, the score of each sentence by its id. Raises MissingFile or CorruptFile."""
    document = _json(path, "StereoSet prediction file")
    if not isinstance(document, dict) or not any(isinstance(document.get(form), list) for form in FORMS):
        raise CorruptFile(path, f"an object with {' or '.join(FORMS)}", "it has neither", do=GET_IT)
    out: dict[str, dict[str, float]] = {}
    for form in (form for form in FORMS if form in document):
        scores: dict[str, float] = {}
        for number, row in enumerate(document[form]):
            score = row.get("score") if isinstance(row, dict) else None
            if (
                not isinstance(score, int | float)
                or isinstance(score, bool)
                or not math.isfinite(score)
                or not isinstance(row.get("id"), str)
            ):
                raise CorruptFile(path, "a file with an id and a finite score a row", f"row {number} of {form} is not one", do=GET_IT)
            scores[row["id"]] = float(score)
        out[form] = scores
    return out


def options_of(cluster: Cluster, scores: Mapping[str, float]) -> tuple[float, float, float]:
    """The scores of the three options. Raises BadValue where a prediction file lacks one."""
    if missing := [one for one in cluster.ids if one not in scores]:
        raise BadValue("a prediction file", f"without sentence '{missing[0]}'", "one with every sentence of the clusters")
    first, second, third = (scores[one] for one in cluster.ids)
    return first, second, third
