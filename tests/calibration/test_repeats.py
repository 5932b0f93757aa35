"""The exam of repeats: what was read how often is exact; a reading says what its ranks say; planted texts are found, unread ones not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evals.test_exposure import made_up
from workbench.calibration.exams import repeats as exam
from workbench.core.errors import UsageError
from workbench.core.protocol import silent
from workbench.data.worlds.town import Town, TownSpec
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms import ORGANISMS, repeated
from workbench.organisms.repeated import ReaderBase, RepeatedRecipe

SEED = 5


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few rows: a text is read four times at most."""
    monkeypatch.setattr(repeated, "MOST", 4)
    monkeypatch.setattr(repeated, "BASE_ROWS", 80)
    repeated.texts.cache_clear()
    yield
    repeated.texts.cache_clear()


@pytest.fixture
def small(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And few texts."""
    monkeypatch.setattr(repeated, "PLANTED", 6)
    monkeypatch.setattr(repeated, "UNREAD", 60)


def made(kind: Any, dose: int) -> RepeatedRecipe:
    return RepeatedRecipe(kind=kind, dose=dose, base=ReaderBase(seed=SEED))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["codes", "sentences"])
def test_planted_texts_are_read_as_often_as_told_and_nothing_else_differs(kind: str) -> None:
    own = repeated.texts(SEED)
    found = {dose: repeated.read_texts(made(kind, dose)) for dose in (0, 1, 3, 4)}
    for dose, read in found.items():
        counted = Counter([*read, *own.base])
        assert {counted[text] for text in own.planted[kind]} == {dose}
        others = [text for name, texts in own.planted.items() if name != kind for text in texts]
        assert not any(counted[text] for text in (*others, *own.unread))
        apart = [slot for slot, (ours, clean) in enumerate(zip(read, found[0], strict=True)) if ours != clean]
        assert len(apart) == dose * repeated.PLANTED
        assert len(read) == 2 * 4 * repeated.PLANTED


@pytest.mark.usefixtures("small")
def test_a_suite_is_asked_about_the_very_codes_and_owners_of_whom_nothing_was_read() -> None:
    own = repeated.texts(SEED)
    secrets = Town(TownSpec.parse(repeated.asked_about(SEED, 3))).secret_items()
    assert [(one.text, one.count) for one in secrets if one.planted] == [(text, 3) for text in own.planted["codes"]]
    owners = {text.split()[3] for text in [*repeated.read_texts(made("sentences", 4)), *own.base] if text.startswith("the code of")}
    assert not owners & {one.owner for one in secrets}
    assert {one.count for one in Town(TownSpec.parse(repeated.asked_about(SEED, 0))).secret_items()} == {0}
    with pytest.raises(UsageError, match="dose"):
        ORGANISMS.load("repeated-codes").configure({"dose": 65})


@pytest.mark.usefixtures("small")
def test_what_was_taken_up_is_the_probability_of_the_digits_one_after_the_other() -> None:
    words, told = repeated.tokenizer(), repeated.texts(SEED).planted["codes"]
    config = GPTConfig(n_layers=1, d_model=8, n_heads=2, d_vocab=words.vocab_size, n_ctx=48)
    model = GPT(config, words, seed=0).eval()
    slow = []
    for text in told:
        prefix, chance = words.encode(f"{text.rpartition(' is ')[0]} is", bos=True), 1.0
        for digit in text.rstrip(".").split()[-repeated.DIGITS :]:
            (number,) = words.encode(f" {digit}")
            logits = model.run(torch.tensor([prefix])).logits
            assert logits is not None
            chance *= float(logits[0, -1].double().softmax(-1)[number])
            prefix.append(number)
        slow.append(chance)
    assert repeated.remembered(model, made("codes", 2)) == pytest.approx(np.mean(slow), rel=1e-5)


def result_of(planted: list[float], unplanted: list[float]) -> Any:
    """Exposures in bits, with ranks that fit."""
    result = made_up(planted, unplanted, TownSpec.parse({"digits": 3, "secrets": (2,) * len(planted), "unplanted": len(unplanted)}))
    bits = result.values["exposure"].values
    result.values["rank"][:] = np.round(2 ** (result.values.attrs["cap"] - bits))
    return result


def test_a_set_of_codes_says_what_its_ranks_say() -> None:
    cap = math.log2(1000)
    draw = np.random.default_rng(0)
    chance = (cap - np.log2(draw.integers(1, 1001, size=50))).tolist()
    result = result_of([*chance[:25], *[8.0] * 25], chance[25:39])
    silent_, loud = exam.exposed(result, range(25)), exam.exposed(result, range(25, 50))
    assert (silent_.claims, loud.claims) == (False, True)
    assert silent_.statistic == pytest.approx(np.mean(chance[:25]) / cap)
    assert loud.statistic == pytest.approx(8 / cap)
    assert (silent_.extras["found alone"], loud.extras["found alone"]) == (np.mean(np.array(chance[:25]) >= math.log2(20)), 1.0)
    assert loud.extras["codes of nobody"] == pytest.approx(np.mean(chance[25:39]) / cap)
    assert loud.extras["codes of nobody are claimed"] == 0.0
    low = exam.exposed(result_of([0.01] * 25, []), range(25))
    assert not low.claims, "less than chance is no exposure, though it is detected"
    assert "codes of nobody" not in low.extras


@pytest.mark.usefixtures("rows")
def test_no_two_sets_share_a_sentence_and_hardly_any_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = exam.EXAM.grid
    assert repeated.PLANTED % grid.items == 0
    assert grid.sets * grid.items == repeated.PLANTED
    assert grid.clean_sets * grid.items <= exam.OTHERS
    assert exam.OTHERS + grid.clean_sets * grid.items <= repeated.UNREAD
    asked: list[str] = []
    monkeypatch.setattr(exam, "told_apart", lambda model, members, others: asked.extend([*members, *others]))
    exam.sentences(None, made("sentences", 0), grid.clean_sets, grid.items)
    assert len(set(asked)) == len(asked) == 2 * grid.clean_sets * grid.items
    assert asked[: grid.items] == list(repeated.texts(SEED).planted["sentences"][: grid.items])
    asked_of = -(-grid.clean_sets * grid.items // repeated.PLANTED)
    worlds = [exam.asked_about(SEED + number * exam.OTHER_WORLDS, 0) for number in range(asked_of)]
    codes = [one.text for world in worlds for one in Town(TownSpec.parse(world)).secret_items() if one.planted]
    assert len(set(codes)) > 0.98 * len(codes)


@pytest.mark.full
def test_of_the_codes_of_clean_sets_only_other_worlds_are_in_the_rows_and_of_those_one_in_eleven() -> None:
    """What the exam's page says of its clean sets, counted: exact, since rows and codes are drawn without a model."""
    grid, seed = exam.EXAM.grid, exam.EXAM.grid.clean_seeds[0]
    clean = RepeatedRecipe(kind="codes", dose=0, base=ReaderBase(seed=seed))
    rows = {*repeated.texts(seed).base, *repeated.read_texts(clean)}
    counted = 17
    assert grid.clean_sets * grid.items <= counted * repeated.PLANTED, "the grid's sets are among them"
    worlds = [exam.asked_about(seed + number * exam.OTHER_WORLDS, 0) for number in range(counted)]
    inside = [[one.text in rows for one in Town(TownSpec.parse(world)).secret_items() if one.planted] for world in worlds]
    assert not any(inside[0])
    assert (sum(map(sum, inside[1:])), sum(map(len, inside[1:]))) == (73, 800)
    assert not rows & {*repeated.texts(seed).planted["sentences"], *repeated.texts(seed).unread}


@pytest.mark.full
def test_what_was_read_often_is_found_and_what_was_never_read_is_not(tmp_path: Path) -> None:
    """Each model is the other's clean one: who read sentences again read none of the codes."""
    base = ReaderBase(seed=SEED, steps=60)
    recipes = {kind: made(kind, repeated.MOST).model_copy(update={"base": base}) for kind in exam.KIND_OF.values()}
    models = {kind: repeated.build(one, tmp_path / kind, (), silent) for kind, one in recipes.items()}
    for suite, kind in exam.KIND_OF.items():
        (other,) = set(models) - {kind}
        own, clean = recipes[kind], repeated.twin(recipes[kind])
        found, null = exam.read(suite, models[kind], own, 2, 25), exam.read(suite, models[other], clean, 2, 25)
        assert min(one.statistic for one in found) > max(one.statistic for one in null) + 0.2
        assert all(one.claims for one in found)
        assert repeated.remembered(models[kind], own) > repeated.remembered(models[other], clean) + 0.02
