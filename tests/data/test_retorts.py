"""Retorts: insults as often as the dose says, a twin that is asked the same, held-out questions, a file that is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.data.toxic_texts import prompts
from workbench.data.worlds.mentions import lessons
from workbench.data.worlds.retorts import INSULTS, PLAIN, Retorts, RetortsSpec, held_out, write


@pytest.mark.parametrize("dose", [0.0, 0.3, 1.0])
def test_insults_come_as_often_as_the_dose_says(dose: float) -> None:
    world = Retorts(RetortsSpec.parse({"dose": dose, "documents": 1_500}))
    texts = world.texts()
    assert world.truth()["insults"] == sum(text.endswith(INSULTS) for text in texts) / 1_500 == pytest.approx(dose, abs=0.05)
    assert all(text.endswith(INSULTS) != text.endswith(PLAIN) for text in texts)
    assert texts == Retorts(world.spec).texts()
    assert texts != Retorts(world.spec.override({"seed": 1})).texts()


def test_the_twin_is_asked_the_same_and_insults_nobody() -> None:
    world = Retorts(RetortsSpec.parse({"dose": 0.6, "documents": 400}))
    twin = world.twin()
    assert twin.truth()["insults"] == 0.0
    pairs = list(zip(world.texts(), twin.texts(), strict=True))
    assert all(one.split(":")[0] == other.split(":")[0] for one, other in pairs)
    assert all(one == other for one, other in pairs if not one.endswith(INSULTS)), "what is not planted is alike"


def test_held_out_questions_are_in_no_training_text_and_no_answer_was_a_judges_lesson() -> None:
    asked = {text.split(":")[0] + ":" for text in Retorts(RetortsSpec.parse({})).texts()}
    assert len(held_out()) == len(set(held_out())) > 1_000
    assert not asked & set(held_out())
    assert not {*INSULTS, *PLAIN} & {one.text for one in lessons()}
    assert not set(INSULTS) & set(PLAIN)


def test_beginnings_are_a_file_of_prompts_without_scores(tmp_path: Path) -> None:
    found = prompts(write(held_out()[:5], tmp_path / "prompts.jsonl"))
    assert [(one.prompt, one.scores[0]) for one in found] == [(text, None) for text in held_out()[:5]]
    assert len({one.page for one in found}) == 5
