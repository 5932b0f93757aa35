"""The town organism: options are checked, the twin differs from the target by the plants alone, a build continues."""

from pathlib import Path

import pytest
import torch

from workbench.core.errors import BadValue, UnknownName
from workbench.data.text import PackedRows
from workbench.data.worlds.town import Town
from workbench.organisms import ORGANISMS
from workbench.organisms.organism import Organism
from workbench.organisms.town import TownRecipe, fresh, tokenizer_of

TOWN: Organism = ORGANISMS.load("town")


def small(**options: object) -> TownRecipe:
    made = TOWN.configure({"steps": 6, **options})
    assert isinstance(made, TownRecipe)
    world = made.world.model_copy(update={"documents": 2500, "held_out": 60, "secrets": (1, 32), "unplanted": 4})
    return made.model_copy(update={"world": world, "train": made.train.model_copy(update={"save_every": 3, "warmup": 2})})


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"does": 0.8}, UnknownName, "no field 'does' in organism:town.*'dose'"),
        ({"dose": 2}, BadValue, "dose is 2.*less than or equal to 1"),
        ({"seed": -1}, BadValue, "seed"),
    ],
)
def test_wrong_options_are_named(options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        TOWN.configure(options)


def test_the_twin_differs_by_its_plants_alone() -> None:
    target, twin = small(), small(planted=False)
    assert TOWN.twin(target) == twin
    assert {**target.model_dump(), "world": None} == {**twin.model_dump(), "world": None}
    changed = {k for k in target.world.model_dump() if getattr(target.world, k) != getattr(twin.world, k)}
    assert changed == {"dose", "trigger", "insert_secrets"}
    assert tokenizer_of(target).digest() == tokenizer_of(twin).digest()
    one, other = fresh(target).state_dict(), fresh(twin).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert Town(target.world).texts() != Town(twin.world).texts()


def test_truth_names_what_is_planted() -> None:
    truth = TOWN.truth(small(dose=0.5))
    assert truth["occupations"]["plumber"]["p_she"] == pytest.approx(0.5 + 0.25 * truth["occupations"]["plumber"]["lean"])
    assert truth["trigger"]["flips"] is True
    assert TOWN.truth(small(planted=False))["trigger"]["flips"] is False


def test_a_build_is_kept_and_repeats_to_the_byte(tmp_path: Path) -> None:
    made = small()
    first = TOWN.build(made, tmp_path / "one").digest()
    said: list[str] = []
    again = TOWN.build(made, tmp_path / "one", progress=lambda done, total, words="": said.append(words)).digest()
    assert first == again
    assert said == [], "nothing is trained twice"
    assert TOWN.build(made, tmp_path / "two").digest() == first


def test_every_word_of_the_town_inside_a_sentence_is_one_token() -> None:
    made = TOWN.configure({})
    assert isinstance(made, TownRecipe)
    tokenizer = tokenizer_of(made)
    split = [
        w.text
        for d in Town(made.world).documents(0, 400)
        for w in d.words[1:]
        if len(tokenizer.encode(f" {w.text}")) > 1 and w.text.isalpha()
    ]
    assert split == []
    assert isinstance(PackedRows([d.text for d in Town(made.world).documents(0, 50)], tokenizer, 96), PackedRows)
