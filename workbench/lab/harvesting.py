"""A harvest from words: a model's reference, the name of a corpus, a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from pydantic import Field

from evals.tasks import TASKS
from workbench.core.batch import RowData
from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.core.spec import Spec
from workbench.data import corpora, treebank
from workbench.data.lines import Lines
from workbench.data.worlds.town import Split, Town, TownSpec
from workbench.engine.corpus import BatchCorpus, Corpus, TextCorpus
from workbench.engine.harvest import HarvestSpec, harvest
from workbench.engine.harvest_read import Harvest
from workbench.lab.refs import load, task_of, world_of
from workbench.store.runs import Store

OWN = "own"


TOWN: Mapping[str, Split] = {"train": "train", "validation": "validation", "test": "test"}


class CorpusSpec(Spec):
    """Which texts (or rows) are read, and how much of each."""

    data: str = Field(description=f"'{OWN}' (what the model was made from), a public text, or a file with one text a line")
    split: str = Field(default="", description="part of the data; '' is its first")
    count: int = Field(default=0, ge=0, description="items at most, from the first on; 0 is all")
    length: int | None = Field(default=None, ge=1, description="tokens of an item at most; None is the model's context")
    cut: bool = Field(default=False, description="read the beginning of longer items, and count them, where they else are an error")
    control: bool = Field(default=False, description="keep the rows of control tokens (BOS, separators) too")
    bos: bool = Field(default=True, description="put a BOS, or the tokenizer's frame, around each text")


def harvested(
    ref: str, out: Path | str, settings: Mapping[str, Any], *, part: tuple[int, int] = (0, 1), store: Store | None = None,
    progress: Progress = silent,
) -> Harvest:  # fmt: skip
    """Harvest from the model ``ref`` into ``out``, or go on with it; ``settings`` are fields of CorpusSpec and HarvestSpec. With ``part``
    what other parts have not made may be missing from what is returned. Raises UnknownName and BadValue for settings, UnknownName or
    MissingData for a corpus that is not there, and what ``engine.harvest`` raises."""
    corpus, spec = specs_of(settings)
    model = load(ref, store=store, progress=progress)
    folder = harvest(model, corpus_of(model, corpus, ref, store), out, spec, part=part, progress=progress)
    return Harvest.open(folder, partial=part[1] > 1)


def specs_of(settings: Mapping[str, Any]) -> tuple[CorpusSpec, HarvestSpec]:
    """What is read and what is kept, from one set of fields. Raises UnknownName and BadValue."""
    known = (*CorpusSpec.model_fields, *HarvestSpec.model_fields)
    if unknown := [name for name in settings if name not in known]:
        raise UnknownName("setting", unknown[0], known, where="of a harvest")
    corpus = CorpusSpec.parse({name: value for name, value in settings.items() if name in CorpusSpec.model_fields}, what="the corpus")
    spec = HarvestSpec.parse({name: value for name, value in settings.items() if name in HarvestSpec.model_fields}, what="the harvest")
    return corpus, spec


def described(found: Harvest) -> dict[str, Any]:
    """What a harvest holds, as plain values."""
    sites = [{"site": name, "rows": found.rows(name), "shape": list(kept.shape), "dtype": kept.dtype} for name, kept in found.sites.items()]
    return {
        "out": str(found.folder), "model": found.model, "data": found.head["data"], "items": found.head["items"], "cut": found.cut,
        "shards": len(found.receipts), "of": found.head["shards"], "digest": found.digest(), "sites": sites,
    }  # fmt: skip


def corpus_of(model: HookedModel, spec: CorpusSpec, ref: str, store: Store | None = None) -> Corpus:
    """The corpus that a spec names, for a model."""
    if spec.data == OWN and (task := task_of(ref, store)) is not None:
        made = TASKS.load(task["task"])
        data = made.make(made.spec.parse(task["data"]), spec.count or 1024)
        rows = {"train": data.train, "validation": data.validation}
        chosen = rows[_split(spec, rows)]
        return BatchCorpus(model, _First(chosen, spec.count or len(chosen)))
    texts = texts_of(spec, ref, store)
    few = texts if not spec.count or spec.count >= len(texts) else _Texts(texts.__getitem__, spec.count)
    return TextCorpus(model, few, bos=spec.bos, control=spec.control, length=spec.length, cut=spec.cut)


def texts_of(spec: CorpusSpec, ref: str, store: Store | None = None) -> Sequence[str]:
    """The texts that a spec names, for the model ``ref``. Raises BadValue, UnknownName and MissingData."""
    if spec.data == OWN:
        if (world := world_of(ref, store)) is None:
            raise BadValue("data", OWN, f"a public text or a file, because '{ref}' comes from no generated world or task")
        town, split = Town(TownSpec.parse(world)), TOWN[_split(spec, TOWN)]
        return _Texts(lambda number: town.document(number, split).text, town.size(split))
    if spec.data in PUBLIC:
        parts = PUBLIC[spec.data]
        return parts[_split(spec, parts)]()
    if Path(spec.data).is_file():
        _split(spec, ("",))
        return Lines(spec.data)
    raise UnknownName("text", spec.data, [OWN, *PUBLIC], hint="A file with one text a line works too.")


def _split(spec: CorpusSpec, known: Sequence[str] | Mapping[str, object]) -> str:
    names = list(known)
    if spec.split and spec.split not in names:
        raise UnknownName("split", spec.split, names, where=f"of '{spec.data}'")
    return spec.split or names[0]


def _paragraphs(texts: Sequence[str]) -> list[str]:
    lines = (line.strip() for text in texts for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("= ")]


def _speeches(text: str) -> list[str]:
    return [one for one in (part.strip() for part in text.split("\n\n")) if one]


PUBLIC: Mapping[str, Mapping[str, Callable[[], Sequence[str]]]] = {
    "ud-english-ewt": {
        "test": lambda: [one.text for one in treebank.sentences("test")],
        "validation": lambda: [one.text for one in treebank.sentences("validation")],
    },
    "wikitext-2": {
        "train": lambda: _paragraphs(corpora.wikitext2()["train"]),
        "validation": lambda: _paragraphs(corpora.wikitext2()["validation"]),
        "test": lambda: _paragraphs(corpora.wikitext2()["test"]),
    },
    "tinyshakespeare": {
        "train": lambda: _speeches(corpora.tinyshakespeare()["train"]),
        "validation": lambda: _speeches(corpora.tinyshakespeare()["validation"]),
    },
}
"""Public texts by name, their splits, and how each is read: sentences, paragraphs, speeches."""


class _Texts(Sequence[str]):
    """Texts made when they are asked for."""

    def __init__(self, make: Callable[[int], str], count: int) -> None:
        self.make, self.size = make, count

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if not isinstance(index, int):
            return [self[number] for number in range(*index.indices(self.size))]
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self.make(index)


class _First:
    """The first rows of a task's data."""

    def __init__(self, rows: RowData, count: int) -> None:
        self.rows, self.count = rows, min(count, len(rows))

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int]) -> Any:
        return self.rows.batch(indices)

    def digest(self) -> str:
        return f"{self.rows.digest()}:{self.count}"
