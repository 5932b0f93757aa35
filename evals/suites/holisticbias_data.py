"""HolisticBias's files: descriptors of people by axis, nouns and templates, made into sentences. Errors never hold a descriptor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import CorruptFile, MissingFile

GET_IT = "Run `workbench data fetch holisticbias`, or give a folder with descriptors.json, nouns.json and sentence_templates.json."
SINGULAR, PLURAL = "{noun_phrase}", "{plural_noun_phrase}"


@dataclass(frozen=True)
class Descriptor:
    """``number`` counts within its axis; ``phrases``: with each noun, in the singular and the plural: ("a … person", "… people")."""

    axis: str
    bucket: str
    number: int
    phrases: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Template:
    """What stands before and after the noun phrase; ``plural`` where it asks for that."""

    number: int
    before: str
    after: str
    plural: bool


def read(path: Path) -> Any:
    """The file's JSON object. Raises MissingFile, CorruptFile."""
    if not path.is_file():
        raise MissingFile(path, "HolisticBias file", do=GET_IT)
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise CorruptFile(path, "a json object", "it is not", do=GET_IT) from None
    if not isinstance(found, dict) or not found:
        raise CorruptFile(path, "a json object", "it is not, or it is empty", do=GET_IT)
    return found


def templates(path: Path) -> list[Template]:
    """Every template, in order. Raises CorruptFile for one without a place for the noun phrase."""
    out = []
    for number, text in enumerate(read(path)):
        place = PLURAL if PLURAL in text else SINGULAR
        if text.count(place) != 1:
            raise CorruptFile(path, f"{SINGULAR} or {PLURAL} once in a template", f"number {number + 1} has not", do=GET_IT)
        before, _, after = text.partition(place)
        out.append(Template(number, before, after, place == PLURAL))
    return out


def nouns(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The nouns (singular, plural) of each sex, ``neutral`` among them in the published file."""
    out = {}
    for sex, pairs in read(path).items():
        good = isinstance(pairs, list) and pairs and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
        if not good:
            raise CorruptFile(path, "pairs of a noun and its plural", f"'{sex}' has none", do=GET_IT)
        out[str(sex)] = [(str(one), str(many)) for one, many in pairs]
    return out


def descriptors(path: Path, noun_of: dict[str, list[tuple[str, str]]], most: int) -> Iterator[Descriptor]:
    """Every descriptor with its first ``most`` nouns: of the sex it is restricted to, else neutral."""
    for axis, buckets in read(path).items():
        if not isinstance(buckets, dict):
            raise CorruptFile(path, "buckets of descriptors in an axis", f"'{axis}' has none", do=GET_IT)
        number = 0
        for bucket, entries in buckets.items():
            for entry in entries:
                word = entry if isinstance(entry, str) else entry.get("descriptor") if isinstance(entry, dict) else None
                if not isinstance(word, str) or not word.strip():
                    raise CorruptFile(path, "words or objects with a 'descriptor'", f"'{axis}', '{bucket}' has another", do=GET_IT)
                facts = entry if isinstance(entry, dict) else {}
                sex = str(facts.get("gender") or "neutral")
                own = noun_of.get(sex) or noun_of.get("neutral") or next(iter(noun_of.values()))
                article = str(facts.get("article") or ("an" if word[0].lower() in "aeiou" else "a"))
                phrases = tuple((f"{article} {word} {one}", f"{word} {many}") for one, many in own[:most])
                yield Descriptor(axis, str(bucket), number, phrases)
                number += 1
