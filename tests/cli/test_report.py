"""``workbench report``: the stored report in other forms, its numbers those of the report, its refusals in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.reports.sample import findings, sample
from workbench.core.finding import Finding
from workbench.reports.render import bom, card, html, json
from workbench.reports.view import finding_view, view
from workbench.store.runs import Store


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with one audit that is nothing but its report."""
    home = tmp_path / "home"
    with Store.open(home) as store:
        run = store.runs.create("audit", {"name": "town"}, "organism:town")
        store.put_findings(run, findings())
        place = store.folder(run)
        (place / "report.html").write_text(html.render(sample()), encoding="utf-8")
        (place / "report.json").write_text(json.render(sample()), encoding="utf-8")
        store.runs.finish(run)
    monkeypatch.setenv("WORKBENCH_HOME", str(home))
    return run


def test_the_command_says_the_reports_numbers(call: Call, audited: str) -> None:
    said: Any = call("report", audited, "--json").document
    seen = [finding_view(number, Finding.model_validate(one)) for number, one in enumerate(said["findings"], start=1)]
    assert seen == view(sample())["findings"]
    assert said["digest"] == sample().digest()
    text = call("report", audited).out
    assert all(line in text for line in sample().summary)


def test_other_forms_are_written_where_they_are_asked(call: Call, audited: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = call("report", audited, "--card", str(out / "README.md"), "--bom", str(out / "model.cdx.json"), "--json")
    assert said.code == 0
    assert said.document["forms"] == {"card": str(out / "README.md"), "bom": str(out / "model.cdx.json")}
    assert (out / "README.md").read_text(encoding="utf-8") == card.render(sample())
    assert (out / "model.cdx.json").read_text(encoding="utf-8") == bom.render(sample())
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.cdx.json"]


def test_a_copy_can_be_in_another_language(call: Call, audited: str, tmp_path: Path) -> None:
    assert call("report", audited, "--out", str(tmp_path / "zh"), "--language", "zh").code == 0
    assert (tmp_path / "zh" / "report.html").read_text(encoding="utf-8") == html.render(sample(), language="zh")
    assert (tmp_path / "zh" / "report.json").read_text(encoding="utf-8") == json.render(sample())


def test_what_cannot_be_written_is_a_sentence(call: Call, audited: str, tmp_path: Path) -> None:
    wrong = call("report", audited, "--language", "xx")
    assert (wrong.code, wrong.err) == (64, "There is no language 'xx'. Known: 'en', 'zh'.\n")
    (tmp_path / "file").write_text("")
    blocked = call("report", audited, "--card", str(tmp_path / "file" / "card.md"))
    assert blocked.code == 3
    assert blocked.err.startswith(f"The report could not be written to '{tmp_path}/file/card.md'")


@pytest.mark.full
def test_the_pdf_is_written_whole(call: Call, audited: str, tmp_path: Path) -> None:
    assert call("report", audited, "--pdf", str(tmp_path / "report.pdf")).code == 0
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-1.7")
