"""The page of runs: what is stored is what is shown, bad addresses are sentences, and looking changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboards import reads
from dashboards.elements import plain
from tests.dashboards.conftest import Home
from tests.dashboards.pages import opened, texts, unlabelled
from tests.reports.sample import findings
from workbench.core.finding import CALIBRATED, STALE
from workbench.reports import phrases
from workbench.reports.render import html
from workbench.reports.report import Report
from workbench.store.runs import Store


def runs_page(run: str = "") -> AppTest:
    return opened("runs.py", run=run)


def test_without_a_store_the_page_says_how_to_make_one_and_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    page = runs_page()
    assert "workbench audit" in page.info[0].value
    assert not (tmp_path / "none").exists()
    assert not page.selectbox


def test_every_run_is_listed_newest_first(home: Home) -> None:
    page = runs_page()
    shown = page.dataframe[0].value
    assert list(shown["run"]) == [home.running, home.failed, home.audit, *reversed(home.evaluated), home.trained]
    assert list(shown["status"]) == ["running", "failed", "done", "done", "done", "done"]
    assert shown["findings"].tolist()[2] == phrases.tally_words(
        {verdict: sum(f.verdict == verdict for f in findings()) for verdict in phrases.MARKS}
    )
    assert unlabelled(page) == []


@pytest.mark.slow
def test_an_address_opens_its_run_and_a_choice_changes_the_address(home: Home) -> None:
    page = runs_page(home.audit)
    assert page.header[0].value == plain(f"Audit of run:{home.trained}")
    page.selectbox(key="run").select_index(5).run()
    assert page.header[0].value == "Training of recipe\\:tiny"
    assert page.query_params["run"] in (home.trained, [home.trained])
    assert runs_page(home.audit[:-2]).header[0].value == plain(f"Audit of run:{home.trained}")


def test_an_unknown_run_is_a_sentence(home: Home) -> None:
    page = runs_page("nonsense")
    assert [error.value for error in page.error] == [plain(str(_error("nonsense")))]
    assert not page.header


def _error(run: str) -> Exception:
    with pytest.raises(Exception, match="There is no run") as caught:
        reads.run(run)
    return caught.value


@pytest.mark.slow
def test_the_page_says_each_finding_as_the_report_does(home: Home) -> None:
    page = runs_page(home.audit)
    table = page.dataframe[1].value
    assert list(table["claim"]) == [finding.claim for finding in findings()]
    report = html.render(Report(title="t", subject="s", date="d", findings=findings()))
    for number in (0, 2, 5):  # one with all it can have, one without an interval, one without an effect
        page.selectbox(key="finding").select_index(number).run()
        finding = findings()[number]
        said = texts(page)
        for words in (phrases.denominator_words(finding.denominators), phrases.null_words(finding.null, phrases.places_of(finding))):
            assert plain(words) in said
            assert words.replace("'", "&#39;") in report
        assert plain(phrases.effect_words(finding)) in said
        assert phrases.number(finding.effect, phrases.places_of(finding)) in report
        assert page.code[0].value == finding.rederive


def test_a_stale_card_is_said_to_be_stale(home: Home) -> None:
    first = findings()[0]
    assert first.card is not None
    stale = first.model_copy(update={"card_words": f"{CALIBRATED}{first.card.conditions}{STALE}"})
    with Store.open(home.folder) as store:
        run = store.runs.create("audit", {"name": "town", "seed": 2}, f"run:{home.trained}")
        store.put_findings(run, (stale,))
        store.runs.finish(run)
    page = runs_page(run)
    assert plain(phrases.card_words(stale)) in texts(page)
    assert plain(STALE) in texts(page)
    assert list(page.dataframe[1].value["calibration"]) == [f"card{STALE}"]
    assert plain(STALE) not in texts(runs_page(home.audit))


@pytest.mark.slow
def test_each_way_of_measuring_has_its_plot(home: Home) -> None:
    page = runs_page(home.audit)
    measured = [plot.title for plot in reads.forests_of(findings())]
    assert page.selectbox(key="measure").options == measured
    assert len(measured) == 6
    page.selectbox(key="measure").select_index(5).run()
    assert not page.exception
    assert "Layer 2 holds" in page.get("vega_lite_chart")[0].proto.spec


@pytest.mark.slow
def test_the_report_can_be_taken_away_and_a_changed_one_is_refused(home: Home) -> None:
    page = runs_page(home.audit)
    assert [button.label for button in page.download_button] == ["Download as HTML", "Download as JSON"]
    files = reads.report(home.audit)
    assert files is not None
    assert Report.from_json(files.json.decode()).digest() == files.digest
    place = home.folder / "runs" / home.audit / "report.json"
    before = place.read_text()
    try:
        place.write_text(before.replace("0.963", "0.999", 1))
        page = runs_page(home.audit)
        assert "changed after it was written" in page.error[0].value.replace("\\", "")
        assert not page.download_button
    finally:
        place.write_text(before)


def test_a_failed_run_says_why_and_its_words_are_not_markup(home: Home) -> None:
    said = runs_page(home.failed).warning[0].value
    assert said == plain("This run was failed. BadValue: *no* [link](https://example.org) <b>here</b>")
    assert "[link]" not in said


def test_a_running_run_is_followed(home: Home) -> None:
    page = runs_page(home.running)
    said = texts(page)
    assert "Samples so far\\: trigger 1" in said
    assert "checkpoint step 100" in said
    progress = page.get("progress")[0].proto
    assert progress.value == 25
    assert progress.text.replace("\\", "") == "audited: running, 40 of 160. training"


@pytest.mark.parametrize("text", ["[a](b)", "![a](http://b)", "<b>", "# a", ":red[a]", "$x$", "a_b_", "`a`", "a\x00\u202e"])
def test_plain_text_has_no_unescaped_sign(text: str) -> None:
    out = plain(text)
    assert all(out[i - 1] == "\\" for i, c in enumerate(out) if c.isascii() and not c.isalnum() and c not in " \\")
    assert "\x00" not in out
    assert "\u202e" not in out
