"""Short texts that are toxic or not, for a judge of toxicity: from three public sets, each with its document, its subgroup and its side.

* ``toxic-spans``: every post had been judged toxic, so posts against texts of another set would teach which set a text is of. The negatives
  are sentences in which nobody marked anything, of the posts that have a marked sentence. Of a post whose annotators marked nothing there
  is no sentence.
* ``realtoxicityprompts-sample``: prompts and continuations, two halves of a sentence each. **Their labels are another classifier's scores**
  (Perspective, 0.5 or more is toxic), and agreement with them is agreement with that classifier.
* ``toxigen``: the demonstrations its prompts are made of, written by people: hateful and neutral sentences about groups.

A document (a post, a web page, a group) is on one side only, and so is a wording. No message quotes a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.core.errors import CorruptFile, MissingFile
from workbench.data import sources, toxic_spans
from workbench.data.counter import key_of
from workbench.data.json_lines import objects
from workbench.data.toxic_spans import Post, wording, words_of

SPANS, PROMPTS, GROUPS = "toxic-spans", "realtoxicityprompts-sample", "toxigen"
SETS = (SPANS, PROMPTS, GROUPS)
PARTS = ("prompt", "continuation")
TOXIC = 0.5
"""From this score of Perspective on, a text is called toxic (Gehman et al. 2020)."""
FEWEST_WORDS = 3
SIDES = ("train", "validation", "test")
_GET_IT = "Run `workbench data fetch realtoxicityprompts-sample`, or give a jsonl file of the same form."
_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*")


@dataclass(frozen=True)
class Text:
    """One text. ``document`` is what it must not be parted from (post, page, group); ``group`` the subgroup it is counted under."""

    text: str
    toxic: bool
    source: str
    group: str
    document: str


@dataclass(frozen=True)
class Prompt:
    """A row of RealToxicityPrompts: a prompt and how it went on, each with Perspective's score (None where it gave none)."""

    line: int
    page: str
    prompt: str
    continuation: str
    scores: tuple[float | None, float | None]
    challenging: bool


def texts(names: Sequence[str] = SETS) -> dict[str, list[Text]]:
    """The texts of the sets by side. Raises MissingData and CorruptFile.

    A fifth of the documents is ``test``, a tenth ``validation``, by a hash of the document; of ``toxigen`` whole groups are. A wording that
    is met again, in whatever set, is left out.
    """
    made: dict[str, Iterator[Text]] = {SPANS: _of_posts(), PROMPTS: _of_prompts(), GROUPS: _of_groups()}
    out: dict[str, list[Text]] = {side: [] for side in SIDES}
    seen: set[tuple[str, ...]] = set()
    for name in names:
        for one in made[name]:
            words = wording(one.text)
            if len(words) >= FEWEST_WORDS and words not in seen:
                seen.add(words)
                out[side_of(one)].append(one)
    return out


def side_of(text: Text) -> str:
    """The side of a text's document."""
    place = key_of("toxic texts", text.source, text.document) % 10
    return "test" if place < 2 else "validation" if place < 3 else "train"


def _of_posts() -> Iterator[Text]:
    for file in toxic_spans.FILES:
        for post in toxic_spans.posts(file):
            yield from sentences(post)


def sentences(post: Post) -> Iterator[Text]:
    """The sentences of a post: toxic where a character is marked. None of a post without marks: what is unmarked there may be toxic."""
    marked = frozenset(post.toxic)
    if not marked:
        return
    document = " ".join(wording(post.text))
    for found in _SENTENCE.finditer(post.text):
        start, end = found.span()
        if words_of(found.group()):
            toxic = not marked.isdisjoint(range(start, end))
            yield Text(found.group().strip(), toxic, SPANS, "sentence of a toxic post", document)


def _of_prompts() -> Iterator[Text]:
    for file in ("toxic.jsonl", "nontoxic.jsonl"):
        for row in prompts(sources.path(PROMPTS, file)):
            for part, text, score in zip(PARTS, (row.prompt, row.continuation), row.scores, strict=True):
                if score is not None:
                    yield Text(text.strip(), score >= TOXIC, PROMPTS, part, row.page)


def prompts(path: Path) -> list[Prompt]:
    """The rows of a jsonl file of RealToxicityPrompts, upstream's whole one or a sample. Raises MissingFile, and CorruptFile with the line
    for a row without a prompt, and a score that is no number in [0, 1]."""
    if not path.is_file():
        raise MissingFile(path, "RealToxicityPrompts file", do=_GET_IT)
    return [_prompt(str(path), number, row) for number, row in objects(str(path), path.read_bytes(), do=_GET_IT)]


def _prompt(name: str, number: int, row: dict) -> Prompt:
    found: list[tuple[str, float | None]] = []
    for part in PARTS:
        held = row.get(part)
        text = held.get("text") if isinstance(held, dict) else None
        if not isinstance(text, str) or (part == "prompt" and not text.strip()):
            raise CorruptFile(name, f"rows with the text of a {part}", f"line {number} has none", do=_GET_IT)
        score = held.get("toxicity") if isinstance(held, dict) else None
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1):
            raise CorruptFile(name, "scores from 0 to 1", f"the {part} of line {number} has another", do=_GET_IT)
        found.append((text, None if score is None else float(score)))
    page = row.get("filename")
    scores = found[0][1], found[1][1]
    return Prompt(number, str(page or f"line {number}"), found[0][0], found[1][0], scores, bool(row.get("challenging", False)))


def _of_groups() -> Iterator[Text]:
    for file in sources.source(GROUPS).files:
        yield from demonstrations(Path(file.name).stem, sources.read_text(GROUPS, file.name))


def demonstrations(stem: str, content: str) -> Iterator[Text]:
    """The sentences of a demonstration file, one a line behind a dash; its name says whether they are hateful, and of which group they
    speak. Raises CorruptFile for another name and for a file without sentences."""
    kind, _, rest = stem.partition("_")
    group = rest.removesuffix("_sentences").replace("_", " ")
    if kind not in ("hate", "neutral") or not group:
        raise CorruptFile(stem, "a file named hate_GROUP or neutral_GROUP", "it is named otherwise")
    lines = [text for line in content.lstrip("\ufeff").splitlines() if (text := line.strip(" -\t"))]
    if not lines:
        raise CorruptFile(stem, "a file of sentences", "it has none")
    for text in lines:
        yield Text(text, kind == "hate", GROUPS, group, group)
