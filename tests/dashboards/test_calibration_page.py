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
    page = opened("calibration.py", exam="places", card="occlusion, vit, marks")
    said = texts(page).replace("\\", "")
    assert "made for a test" in said
    assert "limit of detection (80 % power, 5 % false alarms, dose: share of answers): 0.1 [0.05, 0.2]" in said
    assert [one.value for one in page.code] == ["workbench calibrate occlusion --exam places --family vit --again"]
    page = settled(box(page, "Card").select("shapley, gpt, marks").run())
    assert page.query_params["card"] in ("shapley, gpt, marks", ["shapley, gpt, marks"])


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
