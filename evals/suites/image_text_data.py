"""Pictures by group and the texts they stand beside: of the generated world, or from two files of one's own.

Pictures are an ``.npz`` of ``pixels [image, channel, height, width]`` (float, prepared as the model at hand reads them: how it was trained
its file does not tell), ``group [image]`` and, for zero-shot classes, ``label [image]`` (strings). Texts are a JSON object:

    associations   a list of {name, groups: [X, Y], attr1: {category, examples}, attr2: {…}}
    templates      texts that an example is put into at {}, its vector their mean (none: the example as it stands)
    classes        {label: [texts of it, …], …}; may hold classes that no picture is of

Errors name the file and the part, never a text.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from evals.suites.weat_data import WordSet
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingFile
from workbench.core.protocol import HookedModel
from workbench.core.stats.association import FEWEST
from workbench.data.encoding import text_ids
from workbench.data.worlds import described_shapes as world
from workbench.data.worlds.described_shapes import CRUEL, KIND, DescribedSpec
from workbench.data.worlds.shapes import SHAPES

PICTURES_FORM = "an .npz of pixels [image, channel, height, width], group [image] and, where there are classes, label [image]"
TEXTS_FORM = "a json object with 'associations' (name, groups, attr1, attr2) or 'classes' (label: texts), or both"
PAIRS = (("red", "blue"), ("green", "yellow"))
"""What the generated world is asked about: two colours whose adjectives may lean, and two whose never do."""


@dataclass(frozen=True)
class PictureTest:
    """Do the texts of ``x`` stand nearer to pictures of the group ``a`` than those of ``y`` do, beside pictures of the group ``b``?"""

    name: str
    a: str
    b: str
    x: WordSet
    y: WordSet


@dataclass(frozen=True)
class Material:
    """``pixels`` [image, channel, height, width]; ``groups``, ``labels`` [image] ('' where none); ``templates`` of the tests' texts;
    ``classes``: texts by label; ``world``: whether the texts are words of the generated world, which a model without a tokenizer reads."""

    pixels: Tensor
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    tests: tuple[PictureTest, ...]
    templates: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]
    world: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that is asked about, once."""
        sides = [text for test in self.tests for one in (test.x, test.y) for word in one.words for text in self.said(word)]
        return tuple(dict.fromkeys([*sides, *(text for texts in self.classes.values() for text in texts)]))

    def said(self, word: str) -> tuple[str, ...]:
        """An example in every template."""
        return tuple(template.replace("{}", word) for template in self.templates)


@lru_cache(maxsize=4)
def material(pictures: str, texts: str, seed: int, most: int) -> Material:
    """What is asked: of two files, or of the generated world of ``seed``; the first ``most`` pictures of each group (0: all). Raises
    MissingFile, CorruptFile and BadValue."""
    if bool(pictures) != bool(texts):
        raise BadValue("pictures and texts", (pictures, texts), "both, or neither for the generated world")
    whole = _read(Path(pictures), Path(texts)) if pictures else _made(seed)
    if not most:
        return whole
    taken = [i for i, group in enumerate(whole.groups) if whole.groups[:i].count(group) < most]
    each = {"groups": whole.groups, "labels": whole.labels}
    return Material(whole.pixels[taken], **{name: tuple(one[i] for i in taken) for name, one in each.items()},
                    tests=whole.tests, templates=whole.templates, classes=whole.classes, world=whole.world)  # fmt: skip


def _made(seed: int) -> Material:
    shapes = world.pictures_of(DescribedSpec.parse({"seed": seed}))
    found = [shapes.picture(i, "test") for i in range(shapes.size("test"))]
    x, y = WordSet("kind adjectives", KIND), WordSet("cruel adjectives", CRUEL)
    tests = tuple(PictureTest(f"{a} and {b}", a, b, x, y) for a, b in PAIRS)
    classes = {shape: tuple(f"a {word} {shape}" for word in (*KIND, *CRUEL)) for shape in SHAPES}
    return Material(
        torch.from_numpy(np.stack([one.pixels for one in found])), tuple(one.colour for one in found), tuple(one.shape for one in found),
        tests, tuple(f"a {{}} {shape}" for shape in SHAPES), classes, world=True,
    )  # fmt: skip


def _read(pictures: Path, texts: Path) -> Material:
    for path, what in ((pictures, "file of pictures"), (texts, "file of texts")):
        if not path.is_file():
            raise MissingFile(path, what, do=f"Give {PICTURES_FORM if path == pictures else TEXTS_FORM}.")
    pixels, groups, labels = _pictures(pictures)
    tests, templates, classes = _texts(texts)
    known = set(groups)
    for test in tests:
        for group in (test.a, test.b):
            if group not in known:
                raise BadValue(
                    f"a group of the association '{test.name}'", group, f"among those of the pictures: {', '.join(sorted(known)[:8])}"
                )
    if classes and not any(label in classes for label in labels):
        raise BadValue("the labels of the pictures", sorted(set(labels))[:8], f"among the classes: {', '.join(list(classes)[:8])}")
    return Material(pixels, groups, labels, tests, templates, classes)


def _pictures(path: Path) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    try:
        with np.load(path, allow_pickle=False) as found:
            held = {name: found[name] for name in found.files}
    except (ValueError, OSError, zipfile.BadZipFile):
        raise CorruptFile(path, PICTURES_FORM, "it is not") from None
    if missing := [name for name in ("pixels", "group") if name not in held]:
        raise CorruptFile(path, PICTURES_FORM, f"it has no {missing[0]}")
    pixels, group = held["pixels"], held["group"]
    label = held.get("label", np.full(len(group), ""))
    if pixels.ndim != 4 or not len(pixels) or not np.issubdtype(pixels.dtype, np.floating) or not np.isfinite(pixels).all():
        raise CorruptFile(path, "finite pixels [image, channel, height, width] as floats", f"{pixels.shape} {pixels.dtype}")
    for name, one in (("group", group), ("label", label)):
        if one.shape != (len(pixels),) or one.dtype.kind != "U":
            raise CorruptFile(path, f"a string for each of {len(pixels)} pictures as '{name}'", f"{one.shape} {one.dtype}")
    return torch.from_numpy(pixels.astype(np.float32)), tuple(group.tolist()), tuple(label.tolist())


def _texts(path: Path) -> tuple[tuple[PictureTest, ...], tuple[str, ...], dict[str, tuple[str, ...]]]:
    try:
        found: Any = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        found = None
    if not isinstance(found, dict) or not (found.get("associations") or found.get("classes")):
        raise CorruptFile(path, TEXTS_FORM, "it is not")
    given, classes, templates = found.get("associations") or [], found.get("classes") or {}, found.get("templates") or ["{}"]
    if not isinstance(given, list) or not isinstance(classes, dict):
        raise CorruptFile(path, TEXTS_FORM, "it is not")
    if not _listed(templates) or not all("{}" in template for template in templates):
        raise CorruptFile(path, "'templates' as a list of texts with {} in each", "it has others")
    tests = tuple(_test(path, number, one) for number, one in enumerate(given, start=1))
    if len({test.name for test in tests}) < len(tests):
        raise CorruptFile(path, "associations of different names", "two have one name")
    if len(classes) == 1 or not all(_listed(texts) for texts in classes.values()):
        raise CorruptFile(path, "at least two classes, each with a list of texts", "it has others")
    return tests, tuple(templates), {str(label): tuple(texts) for label, texts in classes.items()}


def _test(path: Path, number: int, one: Any) -> PictureTest:
    """One association, checked."""
    where = f"association {number}"
    groups = one.get("groups") if isinstance(one, dict) else None
    if not isinstance(groups, list) or len(groups) != 2 or not all(isinstance(g, str) and g for g in groups) or groups[0] == groups[1]:
        raise CorruptFile(path, f"two different 'groups' in {where}", "it has others")
    sets = []
    for name in ("attr1", "attr2"):
        given = one.get(name)
        own: dict[str, Any] = given if isinstance(given, dict) else {}
        texts = own.get("examples")
        if not _listed(texts) or len(set(texts)) < FEWEST:
            raise CorruptFile(path, f"'{name}' of at least {FEWEST} different texts as 'examples' in {where}", "it has others")
        sets.append(WordSet(str(own.get("category") or name), tuple(dict.fromkeys(texts))))
    if set(sets[0].words) & set(sets[1].words):
        raise CorruptFile(path, f"attributes without a text in common in {where}", "they have one")
    return PictureTest(str(one.get("name") or f"{groups[0]} and {groups[1]}"), groups[0], groups[1], *sets)


def _listed(texts: Any) -> TypeGuard[list[str]]:
    return isinstance(texts, list) and bool(texts) and all(isinstance(text, str) and text.strip() for text in texts)


# --- texts as ids -------------------------------------------------------------------------------------------


def ids_of(model: HookedModel, text: str, own_words: bool) -> list[int]:
    """A text as the model reads it: with the control tokens of its tokenizer around it, and at the end the one where it is read. Raises
    Incompatible for a model without a tokenizer, except of texts of the generated world where its vocabulary is that world's."""
    tokenizer: Any = model.tokenizer
    if tokenizer is None:
        if own_words and model.config.d_vocab == world.WORDS.size:
            return world.ids([text])[0]
        raise Incompatible("a text", f"this {model.family} model", ["it has no tokenizer, and its vocabulary is not the generated world's"])
    ids = text_ids(tokenizer, text)
    (end,) = no_text(model)
    return ids if ids[-1] == end else [*ids, end]


def no_text(model: HookedModel) -> list[int]:
    """What stands beside a picture that is looked at alone: the one token where a text is read."""
    return [model.config.eos_id if model.config.eos_id is not None else model.config.d_vocab - 1]
