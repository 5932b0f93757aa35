"""The page of calibration: every card is in the table, one is shown whole with the command that measures it, and a link leads to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboards import reads
from tests.dashboards.pages import box, opened, settled, texts, unlabelled
from workbench.calibration.cards import FOLDER, dump, shipped
from workbench.core.finding import Card, Interval
from workbench.lab import calibrate
from workbench.store.runs import Store


def card(tool: str, family: str = "gpt", *, limit: float | None = 0.1) -> Card:
    within = Interval(low=0.05, high=0.2, method="profile likelihood").model_dump() if limit else None
    rates = {"AUROC of planted against clean, dose 1": 0.97, "planted part first, dose 1": 0.9, "false alarms of its own test": 0.3}
    return Card.parse(
        {"of": tool, "family": family, "norm_placement": "pre", "domain": "marks", "parameters": 10_000, "conditions": "made for a test",
         "rates": rates, "exam": "places", "limit_of_detection": limit, "limit_interval": within, "limit_unit": "share of answers",
         "limit_words": "within the range" if limit else "above the highest dose", "effect_at_limit": 0.09 if limit else None,
         "curve": [(0.0, 0.05, 0.0), (0.1, 0.8, 0.09), (1.0, 1.0, 0.99)] if limit else []}
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in which three cards were measured."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    with Store.open(tmp_path):
        (tmp_path / FOLDER).mkdir()
        for one in (card("saliency"), card("occlusion", "vit"), card("shapley", limit=None)):
            (tmp_path / FOLDER / f"places-{one.family}-{one.of}.json").write_text(dump([one]))
    return tmp_path


def test_cards_of_this_home_and_shipped_ones_are_listed(home: Path) -> None:
    page = opened("calibration.py", exam="places")
    assert "How small a thing is seen" in [one.value for one in page.header]
    table = page.dataframe[0].value
    assert {"saliency", "occlusion", "shapley"} <= {str(name).removesuffix(" (stale)") for name in table["tool"]}
    assert "above the highest dose" in set(table["limit of detection"])
    assert unlabelled(page) == []
    assert "town" in box(page, "Question").options[-1] or any("town" in one for one in box(page, "Question").options)


def test_a_link_shows_one_card_whole_with_its_command(home: Path) -> None:
    page = opened("calibration.py", exam="places", card="places: occlusion, vit, marks")
    said = texts(page).replace("\\", "")
    assert "made for a test" in said
    assert "limit of detection (80 % power, 5 % false alarms, dose: share of answers): 0.1 [0.05, 0.2]" in said
    assert [one.value for one in page.code] == ["workbench calibrate occlusion --exam places --family vit --again"]
    wanted = "places: shapley, gpt, marks"
    page = settled(box(page, "Card").select_index(box(page, "Card").options.index(wanted)).run())
    assert page.query_params["card"] in (wanted, [wanted])
    assert "above the highest dose" in texts(page)


def spiked(model: str, conditions: str) -> Card:
    fields = {**card("saliency").model_dump(), "exam": "spike", "domain": "text", "conditions": conditions}
    return Card.parse({**fields, "provenance": {"model": model} if model else {}})


def test_cards_about_different_models_can_each_be_opened(home: Path) -> None:
    """Three of one tool, family and input domain, one of them of before cards said which model they are about; and two just alike."""
    made = {"a": spiked("a" * 64, "into the first"), "b": spiked("b" * 64, "into the second"), "c": spiked("", "into nobody knows which")}
    for name, one in {**made, "d": spiked("", "into another such")}.items():
        (home / FOLDER / f"spike-{name}-gpt-saliency.json").write_text(dump([one]))
    page = opened("calibration.py", exam="spike")
    plain = "spike: saliency, gpt, text"
    labels = [f"{plain}, model {'a' * 12}", f"{plain}, model {'b' * 12}", f"{plain} (1)", f"{plain} (2)"]
    assert box(page, "Card").options == labels
    told = ["into the first", "into the second", "into nobody knows which", "into another such"]
    for number, words in enumerate(told):
        page = settled(box(page, "Card").select_index(number).run())
        assert [one for one in told if one in texts(page)] == [words]
        assert page.query_params["card"] in (labels[number], [labels[number]])
        assert [one.value for one in page.code] == ["workbench calibrate saliency --model REF"]
        linked = opened("calibration.py", exam="spike", card=labels[number])
        assert [one for one in told if one in texts(linked)] == [words]
    assert [str(name).removesuffix(" (stale)") for name in page.dataframe[0].value["tool"]] == [
        f"saliency (model {'a' * 12})", f"saliency (model {'b' * 12})", "saliency", "saliency",
    ]  # fmt: skip
    page = settled(box(page, "Question").select("places").run())
    chosen = box(page, "Card")
    assert chosen.value == chosen.options[0] == "places: saliency, gpt, marks", "the fourth of one question is not the fourth of another"


def test_what_no_card_speaks_of_is_named_with_its_status(home: Path) -> None:
    page = opened("calibration.py", exam="places")
    said, lines = texts(page).replace("\\", ""), calibrate.uncarded_words(reads.cards())
    assert "Without a card" in [one.value for one in page.header]
    assert lines
    assert all(line in said for line in [calibrate.NOT_SAID, *lines])
    assert reads.uncarded([card(name) for name, _, _ in calibrate.uncarded([])]) == []


def test_a_link_to_nothing_falls_back_and_a_broken_file_is_named(home: Path) -> None:
    page = opened("calibration.py", exam="nothing", card="nothing")
    assert box(page, "Question").value in reads.exams(reads.cards())
    (home / FOLDER / "broken.json").write_text("{")
    page = opened("calibration.py")
    assert "broken.json" in "\n".join(one.value for one in page.error).replace("\\", "")


def test_without_a_store_the_shipped_cards_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    assert reads.cards() == calibrate.listed() == shipped()
    assert not (tmp_path / "none").exists(), "looking makes nothing"
    opened("calibration.py")


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(Exception, match="limits of detection"):
        calibrate.limits([card("shapley", limit=None)], "x")
    with pytest.raises(Exception, match="doses of these cards"):
        calibrate.responses([card("shapley", limit=None)], "x")
    assert calibrate.limits([card("saliency")], "x").to_dict()
    assert calibrate.responses([card("saliency"), card("occlusion", "vit")], "x").to_dict()
