"""Own task: a table is given, looked at and asked about; what is none is a sentence. And a picture of one's own in the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.conftest import Home
from tests.dashboards.pages import opened, settled, texts, unlabelled
from tests.lab.test_uploads import DRAW, png
from workbench.families.seq2seq import Seq2Seq
from workbench.families.vit import ViT, ViTConfig
from workbench.lab import jobs, own
from workbench.lab.refs import checkpoint_of
from workbench.store.runs import Store
from workbench.training.checkpoint import write

CSV = b"question,answer\nIs the sky blue?,yes\nIs grass red?,no\n"


def given(name: str, content: bytes, kind: str = "text/csv") -> Any:
    page = opened("own_task.py")
    page.file_uploader(key="table").set_value((name, content, kind)).run()
    return settled(page)


def test_an_empty_page_shows_what_a_table_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    page = opened("own_task.py")
    assert "Give a table" in texts(page)
    assert unlabelled(page) == []
    assert not (tmp_path / "none").exists()


def test_a_table_is_asked_about(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[dict[str, Any]] = []

    def start(target: str, arguments: dict[str, Any], folder: Path, **rest: Any) -> None:
        assert target == own.TARGET
        folder.mkdir(parents=True)
        (folder / "status.jsonl").write_text('{"event": "done", "value": {"run": "r1"}}\n')
        began.append(arguments)

    monkeypatch.setattr(jobs, "start", start)
    page = given("questions.csv", CSV)
    assert not page.error
    first = next(one.value for one in page.dataframe if "first rows" in one.proto.alt)
    assert first["context"].tolist() == ["Is the sky blue?", "Is grass red?"]
    assert first["right"].tolist() == ["yes", "no"]
    page.button(key="begin").click().run()
    assert began[0]["ref"] == f"run:{home.trained}"
    assert Path(began[0]["file"]).is_file()
    assert "/suites?run=r1" in texts(settled(page)).replace("\\", "")
    page.text_input(key="name").set_value("../x").run()
    assert "small letters" in settled(page).error[0].value


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe", "UTF-8"), (b"question,answer\n", "at least one row")])
def test_what_is_no_table_is_a_sentence(home: Home, content: bytes, words: str) -> None:
    assert words in given("questions.csv", content).error[0].value.replace("\\", "")


@pytest.mark.full
def test_a_picture_of_ones_own_in_the_lab(home: Home) -> None:
    model = ViT(ViTConfig(height=8, width=8, channels=1, patch=2, n_layers=1, d_model=16, n_heads=2)).eval()
    with Store.open(home.folder) as store:  # the made-up model of the family has two channels, as no file has
        run = store.runs.create("train", {"task": "digits", "data": {"copies": 1}}, "recipe:vit-digits")
        write(checkpoint_of(store, run) / "final", model)
        store.runs.finish(run)
    page = opened("lab.py", model=f"run:{run}", look="Attention")
    content = png(DRAW.integers(0, 256, (40, 30, 3), dtype="uint8"))
    page.file_uploader(key="own").set_value(("mine.png", content, "image/png")).run()
    said = texts(settled(page)).replace("\\", "")
    assert "mine.png, as this vit model reads it" in said
    assert not page.error
    page.file_uploader(key="own").set_value(("mine.png", b"<svg/>", "image/png")).run()
    assert "a whole PNG or JPEG picture" in "".join(one.value for one in settled(page).error).replace("\\", "")


@pytest.mark.full
def test_what_no_task_made_is_asked_about_what_it_is_given(home: Home) -> None:
    model = ViT(ViTConfig(height=8, width=8, channels=3, patch=2, n_layers=1, d_model=16, n_heads=2)).eval()
    write(home.folder / "imported" / "vit", model)
    page = opened("lab.py", model=str(home.folder / "imported" / "vit"), look="Attention")
    assert "give it a file" in page.info[0].value
    content = png(DRAW.integers(0, 256, (40, 30, 3), dtype="uint8"))
    page.file_uploader(key="own").set_value(("mine.png", content, "image/png")).run()
    assert "mine.png, as this vit model reads it" in texts(settled(page)).replace("\\", "")
    assert not page.error
    write(home.folder / "imported" / "seq2seq", Seq2Seq.tiny()[0])
    page = opened("lab.py", model=str(home.folder / "imported" / "seq2seq"), look="Attention", source="3 4 5")
    assert "give it the token it begins with" in page.info[0].value
    page = opened("lab.py", model=str(home.folder / "imported" / "seq2seq"), look="Attention", source="3 4 99", begin="2")
    assert "from 0 to 22" in page.error[0].value.replace("\\", "")
    page = opened("lab.py", model=str(home.folder / "imported" / "seq2seq"), look="Attention", source="3 4 5", begin="2")
    assert "Your text, as this seq2seq model reads it" in texts(page).replace("\\", "")
    assert not page.error
