"""Every figure of a real audit's report is the same on the page, in its JSON, at the command line, in its bundle and on the dashboard."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.pages import opened
from tests.lab.audited import home_with_audit
from tests.reports.evidence import entries_of
from tests.reports.test_figures import figures, squeezed
from tests.reports.test_html import words_of
from workbench.cli.main import main
from workbench.core.finding import Finding
from workbench.lab.evidence import write_bundle
from workbench.lab.reporting import stored_report
from workbench.reports.frames import findings_frame
from workbench.reports.report import Report
from workbench.reports.view import finding_view, view
from workbench.store.runs import Store


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> tuple[str, Report]:
    home, run = home_with_audit()
    monkeypatch.setenv("WORKBENCH_HOME", str(home))
    with Store.open(home) as store:
        return run, stored_report(run, store=store).report


@pytest.mark.full
def test_the_page_has_every_figure_of_every_finding_table_and_chart(audited: tuple[str, Report]) -> None:
    run, report = audited
    home, _ = home_with_audit()
    page = squeezed(words_of((home / "runs" / run / "report.html").read_text(encoding="utf-8")))
    wanted = figures(view(report), whole=True)
    assert len(wanted) > 300
    assert [text for text in wanted if squeezed(text) not in page] == []


@pytest.mark.full
def test_command_line_json_store_bundle_and_dashboard_have_the_numbers_of_the_page(
    audited: tuple[str, Report], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, report = audited
    home, _ = home_with_audit()
    seen = view(report)["findings"]
    stored = json.loads((home / "runs" / run / "report.json").read_text(encoding="utf-8"))["report"]
    capsys.readouterr()
    assert main(["report", run, "--json"]) == 0
    printed: list[Any] = json.loads(capsys.readouterr().out)["findings"]
    with Store.open(home) as store:
        kept = store.findings(run)
        write_bundle(run, tmp_path / "x.zip", store=store)
    bundled = json.loads(entries_of((tmp_path / "x.zip").read_bytes())["findings.json"])
    raw = [one for section in stored["sections"] for one in section.get("findings", ())] + list(stored["findings"])
    by_digest = {finding.digest(): finding for finding in report.all_findings()}
    for source in (printed, [one.model_dump(mode="json") for one in kept], bundled, raw):
        again = [Finding.parse(one) for one in source]
        assert {one.digest() for one in again} == set(by_digest)
        for one in again:
            assert finding_view(1, one) == finding_view(1, by_digest[one.digest()])
    frame = findings_frame(report.all_findings())
    for row, shown in zip(frame.to_dict("records"), seen, strict=True):
        assert (row["effect"], row["claim"].lower(), row["unit"]) == (shown["effect"], shown["claim"].lower(), shown["unit"])
        assert shown["bounds"] in ("", row["interval"])
        if row["scored"] is not None and str(row["scored"]) != "<NA>":
            assert re.sub("[^0-9 ]", "", shown["scored"]).split()[0] == str(row["scored"])


@pytest.mark.full
def test_the_dashboards_page_has_the_numbers_of_the_report(audited: tuple[str, Report]) -> None:
    run, _ = audited
    with Store.open(home_with_audit()[0]) as store:
        kept = store.findings(run)
    page = opened("runs.py", run=run)
    table = next(one.value for one in page.dataframe if "claim" in one.value)
    expected = findings_frame(kept)
    for name in ("verdict", "claim", "measure", "effect", "interval", "null"):
        assert list(table[name]) == list(expected[name])
