"""Recipes: files that say everything, with every mistake named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName, UsageError
from workbench.data.worlds.town import Town
from workbench.lab.recipe import OrganismRecipe, TextRecipe, read, shipped

SMALL: dict[str, Any] = {
    "name": "small", "text": {"file": "text.txt", "length": 8}, "tokenizer": {"kind": "char"},
    "model": {"n_layers": 1, "d_model": 8, "n_heads": 2, "n_ctx": 8}, "train": {"steps": 3, "batch_rows": 2, "warmup": 1},
}  # fmt: skip


@pytest.fixture
def text_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("abcdefghij" * 100)


def test_every_shipped_recipe_is_whole_and_says_what_it_is() -> None:
    assert set(shipped()) >= {"town-target", "town-twin", "tinyshakespeare-baseline"}
    for name, words in shipped().items():
        recipe = read(name)
        assert recipe.name == name
        assert 1 <= len(words.split()) <= 10
        assert read(recipe.model_dump(mode="json")) == recipe  # the stored spec can be run again


def test_the_baseline_is_the_published_setting() -> None:
    recipe = read("tinyshakespeare-baseline")
    assert isinstance(recipe, TextRecipe)
    m, t = recipe.model, recipe.train
    assert (m["n_layers"], m["d_model"], m["n_heads"], m["n_ctx"], m["bias"], m["dropout"]) == (4, 128, 4, 64, False, 0.0)
    assert (m["positions"], m["norm"], m["act"], recipe.text.length) == ("learned", "layer", "gelu", 64)
    assert (t.steps, t.batch_rows, t.lr, t.min_lr, t.warmup, t.beta2) == (2000, 12, 1e-3, 1e-4, 100, 0.99)


def test_target_and_twin_differ_in_the_plants_alone() -> None:
    target, twin = read("town-target"), read("town-twin")
    assert isinstance(target, OrganismRecipe)
    assert isinstance(twin, OrganismRecipe)
    a, b = dict(target.made), dict(twin.made)
    world_a, world_b = a.pop("world"), b.pop("world")
    assert a == b
    assert world_b == Town(type(Town().spec).parse(world_a)).twin().spec.model_dump(mode="json")
    assert world_a["dose"] == 0.8
    assert world_b["dose"] == 0.0


def test_settings_reach_every_level() -> None:
    recipe = read("town-target", {"train": {"steps": 7}, "world": {"dose": 0.25}, "row_length": 48})
    assert isinstance(recipe, OrganismRecipe)
    assert recipe.made["train"]["steps"] == 7
    assert recipe.made["world"]["dose"] == 0.25
    assert recipe.made["row_length"] == 48
    stored = recipe.model_dump(mode="json")
    again = read(stored, {"train": {"steps": 9}})
    assert isinstance(again, OrganismRecipe)
    assert again.made["train"]["steps"] == 9
    assert again.made["world"]["dose"] == 0.25
    assert read("tinyshakespeare-baseline", {"train": {"steps": 5}}).model_dump()["train"]["steps"] == 5


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("town-target", {"train": {"stepps": 3}}, r"no field 'train\.stepps'.*Did you mean 'steps'"),
        ("town-target", {"wurld": {}}, "no field 'wurld'.*Did you mean 'world'"),
        ("tinyshakespeare-baseline", {"model": {"n_layer": 3}}, "no field 'n_layer' in the recipe's model.*'n_layers'"),
        ("tinyshakespeare-baseline", {"txt": {}}, "no field 'txt'.*Did you mean 'text'"),
        ("tinyshakespeare-baseline", {"text": {"leng": 3}}, r"no field 'text\.leng'.*'length'"),
    ],
)
def test_misspelt_fields_are_named(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UnknownName, match=words):
        read(name, settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"steps": 0}}, r"train\.steps is 0"),
        ({"model": {"d_vocab": 9}}, "without d_vocab"),
        ({"text": {"length": 9}}, r"text\.length equal to the model's n_ctx \(8\), and it is 9"),
        ({"text": {"length": 7}}, r"text\.length equal to the model's n_ctx \(8\), and it is 7"),
        ({"text": {"source": "tinyshakespeare"}}, "either a source or a file"),
        ({"tokenizer": {"kind": "word"}}, r"tokenizer\.kind is 'word'"),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(SMALL, change)


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no recipe 'town-targt'. Did you mean 'town-target'"):
        read("town-targt")
    with pytest.raises(MissingFile, match="No recipe at .*Shipped recipes are called by name: "):
        read(tmp_path / "nothing.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(CorruptFile, match="should be a YAML file"):
        read(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(CorruptFile, match="holds a list"):
        read(tmp_path / "list.yaml")
    (tmp_path / "number.yaml").write_text("1: 2")
    with pytest.raises(BadValue, match="must be text"):
        read(tmp_path / "number.yaml")
    with pytest.raises(UnknownName, match="no organism 'twon'"):
        read({"name": "x", "organism": "twon"})


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_text_recipe_prepares_model_and_rows(text_here: None, kind: str) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump(SMALL | {"tokenizer": {"kind": kind, "vocabulary": 260}}))
    recipe = read("recipe.yaml")
    assert isinstance(recipe, TextRecipe)
    ready = recipe.prepare()
    assert ready.model.config.d_vocab == ready.model.tokenizer.vocab_size  # type: ignore[union-attr]  # a prepared model has one
    assert len(ready.rows) == 6
    assert ready.rows.batch([0]).tokens.shape == (1, 8)
    assert recipe.prepare().rows.digest() == ready.rows.digest()
    assert recipe.prepare().model.digest() == ready.model.digest()
    Path("text.txt").unlink()
    with pytest.raises(MissingFile, match="text file to train on"):
        recipe.prepare()
