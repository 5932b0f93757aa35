"""Recipes: a YAML file with one full training spec, of a text, of a task or of an organism.

``read`` takes a shipped name (``town-target``) or a path, lays ``--set`` values over it and gives a validated, frozen recipe; what it
leaves out is filled in, so that the stored spec says everything and can be trained again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
import yaml
from pydantic import Field, PositiveInt, model_validator

from evals.task import Task, TaskData
from evals.tasks import TASKS
from workbench.core.batch import RowData
from workbench.core.errors import BadValue, MissingFile, UnknownName
from workbench.core.spec import Spec, later
from workbench.core.written import fields_in, text_of
from workbench.data.corpora import tinyshakespeare, wikitext2
from workbench.data.text import BPETokenizer, CharTokenizer, ContiguousRows
from workbench.families import FAMILIES
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab.settings import overlay
from workbench.lab.watch.spec import WatchSpec
from workbench.organisms import ORGANISMS
from workbench.training.spec import TrainSpec

_FOLDER = resources.files("workbench") / "recipes"


class TextSpec(Spec):
    """The text a model is trained on: a registered ``source`` in its usual split, or a ``file`` cut at nine tenths.

    ``length``: tokens of a row, drawn from anywhere in the training part.
    """

    source: Literal["", "tinyshakespeare", "wikitext-2"] = ""
    file: str = ""
    length: PositiveInt = 64

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.source) == bool(self.file):
            raise ValueError("a text with either a source or a file")
        return self

    def split(self) -> dict[str, str]:
        """``train`` and ``validation`` text."""
        if self.source == "tinyshakespeare":
            return tinyshakespeare()
        if self.source == "wikitext-2":
            return {name: "".join(articles) for name, articles in wikitext2().items()}
        if not Path(self.file).is_file():
            raise MissingFile(self.file, "text file to train on")
        text = Path(self.file).read_text(encoding="utf-8")
        cut = int(len(text) * 0.9)
        return {"train": text[:cut], "validation": text[cut:]}


class TokenizerSpec(Spec):
    """``char``: one token a character of the whole text. ``bpe``: byte-level pairs learned from the training part."""

    kind: Literal["char", "bpe"] = "char"
    vocabulary: int = Field(1024, ge=260, description="bpe: how many tokens")


class TextRecipe(Spec):
    """A decoder trained on a text. ``model`` are fields of ``GPTConfig``; ``d_vocab`` is the tokenizer's."""

    name: str = Field(min_length=1)
    words: str = ""
    text: TextSpec
    tokenizer: TokenizerSpec = TokenizerSpec.parse({})
    model: Mapping[str, Any]
    train: TrainSpec = TrainSpec.parse({})
    watch: WatchSpec = later(WatchSpec())

    @pydantic.field_validator("model")
    @classmethod
    def _complete(cls, model: Mapping[str, Any]) -> Mapping[str, Any]:
        if "d_vocab" in model:
            raise ValueError("without d_vocab, which follows from the tokenizer")
        whole = GPTConfig.parse({"d_vocab": 1, **model}, what="the recipe's model").model_dump(mode="json")
        return {name: value for name, value in whole.items() if name != "d_vocab"}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.text.length != self.model["n_ctx"]:  # positions beyond the rows would never be trained, and be read when it is scored
            raise ValueError(f"text.length equal to the model's n_ctx ({self.model['n_ctx']}), and it is {self.text.length}")
        return self

    def prepare(self) -> Prepared:
        """The untrained model with its rows. Raises MissingData, MissingFile, BadValue."""
        split = self.text.split()
        if self.tokenizer.kind == "char":
            tokenizer: CharTokenizer | BPETokenizer = CharTokenizer.of(split["train"] + split["validation"])
        else:
            tokenizer = BPETokenizer.train([split["train"]], self.tokenizer.vocabulary)
        config = GPTConfig.parse({**self.model, "d_vocab": tokenizer.vocab_size}, what="the recipe's model")
        rows = self.train.steps * self.train.batch_rows  # every step draws windows of its own
        return Prepared(
            GPT(config, tokenizer, seed=self.train.seed),
            ContiguousRows.of(split["train"], tokenizer, self.text.length, rows=rows, seed=self.train.seed),
            ContiguousRows.of(split["validation"], tokenizer, self.text.length),
        )


class Phase(Spec):
    """One training before the last, of a part of the model alone; its seed is the recipe's."""

    learn: str = Field(min_length=1, description="the part of the model that learns; the rest is frozen")
    train: TrainSpec


class TaskRecipe(Spec):
    """A family trained for a task. ``data`` are fields of the task's spec, ``model`` of the family's config; what the data decides
    (vocabulary, classes, image size) is left out of it. ``phases`` come first, one after the other, where a family learns in parts;
    ``train`` is of the last of its parts."""

    name: str = Field(min_length=1)
    words: str = ""
    task: str
    data: Mapping[str, Any] = Field(default_factory=dict)
    model: Mapping[str, Any]
    phases: tuple[Phase, ...] = later(())
    train: TrainSpec = TrainSpec.parse({})
    watch: WatchSpec = later(WatchSpec())

    @model_validator(mode="after")
    def _known(self) -> Self:
        self.drawn()
        first = tuple(FAMILIES.load(self.whole().family).parts[:-1])
        if tuple(phase.learn for phase in self.phases) != first:
            raise ValueError(f"phases that learn {', '.join(first) or 'nothing'} first, and they learn {[p.learn for p in self.phases]}")
        return self

    def trainings(self) -> Iterator[tuple[str, TrainSpec]]:
        """Each phase's part and training, and the last ('' and ``train``); all with the recipe's seed and processes."""
        for phase in self.phases:
            yield phase.learn, phase.train.model_copy(update={"seed": self.train.seed, "parallel": self.train.parallel})
        yield "", self.train

    def whole(self) -> Task:
        """The task itself."""
        task = TASKS.load(self.task)
        assert isinstance(task, Task)
        return task

    def drawn(self) -> Spec:
        """The task's spec."""
        return self.whole().spec.parse(self.data, what=f"the data of task '{self.task}'")

    def data_of(self) -> TaskData:
        """The task's data, for as many rows as the training asks for."""
        return self.whole().make(self.drawn(), self.train.steps * self.train.batch_rows)

    def prepare(self, data: TaskData | None = None) -> Prepared:
        """The untrained model with its rows. Raises BadValue for a field of the model that the data decides, and MissingData."""
        data = data if data is not None else self.data_of()
        if odd := sorted(set(self.model) & set(data.shape)):
            raise BadValue(
                f"the recipe's model.{odd[0]}", self.model[odd[0]], f"left out: the task's data decides it ({data.shape[odd[0]]})"
            )
        family = FAMILIES.load(self.whole().family)
        config = family.config_type.parse({**self.model, **data.shape}, what="the recipe's model")
        return Prepared(family(config, data.tokenizer, seed=self.train.seed), data.train, data.validation)


@dataclass(frozen=True)
class Prepared:
    """What a training loop needs."""

    model: Any
    rows: RowData
    validation: RowData


class OrganismRecipe(Spec):
    """An organism, by its own full recipe (``made``); ``twin`` says that ``made`` is the one without the plants."""

    name: str = Field(min_length=1)
    words: str = ""
    organism: str
    twin: bool = False
    made: Mapping[str, Any]
    watch: WatchSpec = later(WatchSpec())

    def full(self) -> Spec:
        """The organism's own recipe."""
        return type(ORGANISMS.load(self.organism).configure()).parse(self.made, what=f"recipe of organism '{self.organism}'")


Recipe = TextRecipe | TaskRecipe | OrganismRecipe


def training_of(recipe: Recipe) -> TrainSpec:
    """The training of a recipe, whatever is trained."""
    spec = recipe.full() if isinstance(recipe, OrganismRecipe) else recipe
    found = getattr(spec, "train", None)
    return found if isinstance(found, TrainSpec) else TrainSpec()


def plan_of(recipe: Recipe) -> dict[str, Any]:
    """What a run of ``recipe`` is stored with, and what another must be to go on with it. Among how many processes the work is divided
    is no part of it: a run may go on with more, with fewer, or alone."""
    plan = recipe.model_dump(mode="json")
    within = plan["made"] if isinstance(recipe, OrganismRecipe) else plan
    if isinstance(within.get("train"), dict):
        within["train"].pop("parallel", None)
    return plan


def shipped() -> dict[str, str]:
    """The recipes that come with the program, by name, with their ten words."""
    found = {Path(file.name).stem: file for file in _FOLDER.iterdir() if file.name.endswith(".yaml")}
    return {name: str(yaml.safe_load(found[name].read_text(encoding="utf-8")).get("words", "")) for name in sorted(found)}


def read(recipe: str | Path | Mapping[str, Any] | Recipe, settings: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a name, a path, or plain values, with ``settings`` laid over it.

    Raises MissingFile or UnknownName (no such file or name), CorruptFile (no YAML mapping), UnknownName and BadValue (fields).
    """
    if isinstance(recipe, TextRecipe | TaskRecipe | OrganismRecipe):
        return read(recipe.model_dump(mode="json"), settings) if settings else recipe
    where = "the recipe" if isinstance(recipe, Mapping) else f"'{recipe}'"
    values = overlay(recipe if isinstance(recipe, Mapping) else _yaml(recipe), settings or {})
    if "task" in values:
        return TaskRecipe.parse(values, what=where)
    if "organism" not in values:
        return TextRecipe.parse(values, what=where)
    return _organism(values, where)


def _organism(values: dict[str, Any], where: str) -> OrganismRecipe:
    """An organism's recipe: what a file says at its top level is laid over the organism's own."""
    own = {name: values.pop(name) for name in ("name", "words", "organism", "twin", "watch") if name in values}
    organism = ORGANISMS.load(str(own["organism"]))
    made = values.pop("made", None)
    if made is None:
        base = organism.configure()
        full = type(base).parse(overlay(base.model_dump(mode="json"), values), what=where)
        made = (organism.twin(full) if own.get("twin") else full).model_dump(mode="json")
    elif values:
        made = overlay(made, values)
    recipe = OrganismRecipe.parse({**own, "made": made}, what=where)
    return recipe.model_copy(update={"made": recipe.full().model_dump(mode="json")})


def _yaml(recipe: str | Path) -> dict[str, Any]:
    path = Path(recipe)
    if path.is_file() or (path.is_dir() and str(recipe) not in shipped()):
        text, where = text_of(path, "a recipe file"), str(path)
    elif path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise MissingFile(path, "recipe", do=f"Shipped recipes are called by name: {', '.join(shipped())}.")
    elif str(recipe) not in shipped():
        raise UnknownName("recipe", str(recipe), shipped(), hint="A path to a YAML file works too.")
    else:
        text, where = (_FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8"), str(recipe)
    values = fields_in(text, where, "a recipe")
    if not all(isinstance(name, str) for name in values):
        raise BadValue(f"the fields of '{where}'", [n for n in values if not isinstance(n, str)], "text")
    return values
