"""Runs side by side as a report: the numbers of ``compare``, what cannot be paired said so, what cannot be compared refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.toys import answers as values
from tests.lab.toys import played, stored
from tests.reports.accessibility import problems
from workbench.cli.main import main
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.core.stats.unpaired import unpaired_interval
from workbench.lab import run as lab
from workbench.lab.compare import compare, means
from workbench.lab.comparison_report import compare_runs
from workbench.lab.rendering import write_forms
from workbench.lab.reporting import stored_report
from workbench.reports.report import Report
from workbench.reports.standard import limit_lines
from workbench.reports.words import words_of
from workbench.store.runs import Store


@dataclass(frozen=True)
class Said:
    """What one call of the program said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """``workbench WORDS…`` in this process."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = main(list(words))
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stores a run of a toy suite with given values; returns its id."""
    played(monkeypatch)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    store = Store.open(tmp_path / "home")
    make: Any = partial(stored, store)
    make.store = store
    return make


def sections(report: Report) -> dict[str, Any]:
    return {one.anchor: one for one in report.sections}


def test_its_numbers_are_those_of_compare(toy: Any, call: Call) -> None:
    runs = [toy(values(0)), toy(values(1, 1.0)), toy(values(2), unscored=(3,))]
    made = compare_runs(runs, store=toy.store, date="2026-01-02")
    said = sections(made.report)["suite-toy"]
    assert len(said.tables) == len(said.figures) == 2
    for number, table in enumerate(said.tables, start=1):
        found = compare(runs[0], runs[number], store=toy.store)
        rows = {row[0]: row for row in table.rows}
        printed = call("compare", runs[0], runs[number], "--json").document["differences"]
        assert [one["value"] for one in printed] == list(rows)
        for one, out in zip(found.differences, printed, strict=True):
            assert one.interval is not None
            assert rows[one.value][1:7] == (one.first, one.second, one.difference, one.interval.low, one.interval.high, one.p)
            assert (out["difference"], out["interval"]["low"], out["p"]) == (one.difference, one.interval.low, one.p)
    assert (made.report.kind, made.report.date) == ("comparison", "2026-01-02")
    assert [f.subject[0] for f in made.findings] == ["A", "B", "C"]
    assert [f.measure for f in made.findings] == ["mean", "difference", "difference"]
    assert "C against A: 39 pairs of 40 samples, 1 a tie." in said.text
    assert made.report.summary[0].startswith("toy, B against A (40 pairs of 40 samples): ")
    assert made.report.summary[0].endswith("score differs by more than chance would give (2 of 2 values with an interval).")
    assert any("some exclude 0 by chance alone" in line for line in made.report.limits)
    assert {one.card_words for one in made.findings} == {"no card was looked up: a comparison loads no model"}
    (cards,) = [line for line in limit_lines(made.report) if "calibration card" in line]
    assert cards == words_of()("limits.no_card_looked_up"), "nobody asked whether a card covers these models, so none is said to be missing"
    page = made.html.read_text(encoding="utf-8")
    assert problems(page) == []
    assert "Comparison report" in page
    again = compare_runs(runs, store=toy.store, date="2026-01-02")
    assert again.html.read_bytes() == made.html.read_bytes()


def test_two_runs_that_say_the_same_are_said_to(toy: Any) -> None:
    same = [{"score": one["score"]} for one in values(0)]
    report = compare_runs([toy(same), toy(same)], store=toy.store).report
    assert report.summary == ("toy, B against A (40 pairs of 40 samples): no value differs in any pair.",)
    said = sections(report)["suite-toy"]
    assert "B against A: no value differs in any pair." in said.text
    assert not any("known" in text for text in said.text)
    (one,) = compare(*[one.id for one in toy.store.runs.list(kind="eval")], store=toy.store).differences
    assert means(one) == f"'score' is {one.first:.4g} in both runs, and the same in each of the 40 samples."
    moved = [{"score": one["score"] + 1.0} for one in same]
    (other,) = compare(toy(same), toy(moved), store=toy.store).differences
    assert "every cluster differs by the same amount" in other.note, "a shift that is the same everywhere is a difference"


def test_other_samples_are_compared_unpaired_and_it_is_said_everywhere(toy: Any) -> None:
    first, second = values(0), values(1, 1.0)
    runs = [toy(first), toy(second, named="t"), toy(values(2), shift=9)]
    report = compare_runs(runs, store=toy.store).report
    said = sections(report)["suite-toy"]
    between = [text for text in said.text if "unpaired" in text]
    assert [text[:11] for text in between] == ["B against A", "C against A"]
    assert "80 in one run only" in between[0]
    assert "40 asked differently in the two runs" in between[1]
    assert all("unpaired" in table.caption for table in said.tables)
    assert all("unpaired, since no sample was asked alike" in line for line in report.summary)
    assert sum("is compared unpaired" in line for line in report.limits) == 2
    row = {r[0]: r for r in said.tables[0].rows}["score"]
    x, y = ([v["score"] for v in side] for side in (first, second))
    clusters = [f"c{n // 2}" for n in range(40)]
    expected = unpaired_interval(y, x, clusters_a=clusters, clusters_b=clusters)
    assert (row[4], row[5], row[6]) == (expected.low, expected.high, None)
    assert {one.measure for one in report.all_findings()} == {"mean"}, "no finding may claim a pair"


def test_a_suite_of_one_run_is_left_out_by_name_and_runs_without_a_common_one_are_refused(toy: Any) -> None:
    a, b, c = toy(values(0)), toy(values(1)), toy(values(2), name="other")
    report = compare_runs([a, c, b], store=toy.store).report
    assert {(one.what, one.why.split(".")[0]) for one in report.left_out} == {
        ("toy of B", "This run was not asked this suite"), ("other of B", "No other run was asked it, or it was not asked for"),
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"no suite in common \(A has toy; B has other\)"):
        compare_runs([a, c], store=toy.store)
    with pytest.raises(UnknownName, match="no suite 'tyo' that two of these runs have. Did you mean 'toy'"):
        compare_runs([a, b], suites=["tyo"], store=toy.store)
    with pytest.raises(UsageError, match="Nothing could be compared: .*no scored pair"):
        compare_runs([a, toy(values(1), unscored=tuple(range(40)))], store=toy.store)


def test_runs_that_cannot_be_compared_are_refused(toy: Any, call: Call) -> None:
    a = toy(values(0))
    with pytest.raises(BadValue, match="different runs"):
        compare_runs([a, a], store=toy.store)
    with pytest.raises(BadValue, match="2 to 12"):
        compare_runs([a], store=toy.store)
    with pytest.raises(UsageError, match=r"is failed\. What can be compared are finished runs of eval and audit"):
        compare_runs([a, toy(values(1), status="failed")], store=toy.store)
    with pytest.raises(UsageError, match="is of kind 'train'"):
        compare_runs([a, toy.store.runs.create("train", {})], store=toy.store)
    empty = toy.store.runs.create("eval", {})
    toy.store.runs.finish(empty)
    with pytest.raises(UsageError, match="holds the samples of no suite"):
        compare_runs([a, empty], store=toy.store)
    assert call("report", a, "nothing-like-it").code == 64
    for form in ("card", "bom"):
        said = call("report", a, toy(values(1)), f"--{form}", "x")
        assert (said.code, said.err.split(".")[0]) == (64, f"--{form} is about one model, and this report is about the models of 2 runs")
        assert f"`workbench report RUN --{form} FILE`" in said.err
    assert toy.store.runs.list(kind="comparison") == (), "it is refused before anything is written"
    assert "is of kind 'eval', and checkpoints are a training's" in call("trend", a, "trigger").err
    assert call("trend", a).err.startswith("Which suite? There are ")


def test_it_is_stored_and_written_in_other_forms_but_not_as_one_model(toy: Any, call: Call, tmp_path: Path) -> None:
    said = call("report", toy(values(0)), toy(values(1)), "--json")
    assert said.code == 0, said.err
    found = stored_report(said.document["run"], store=toy.store)
    assert found.report.digest() == said.document["digest"]
    assert json.loads(found.json.read_text(encoding="utf-8"))["report"]["kind"] == "comparison"
    for form in ("card", "bom"):
        with pytest.raises(UsageError, match=f"is about one model.*`workbench report RUN --{form} FILE`"):
            write_forms(found.report, {form: tmp_path / "x"})
    write_forms(found.report, {"html": tmp_path / "zh.html"}, language="zh")
    assert "对比报告" in (tmp_path / "zh.html").read_text(encoding="utf-8")


@pytest.mark.full
def test_two_evaluations_and_their_paper(store: Store, trained: str, tmp_path: Path) -> None:
    runs = [lab.evaluate(["trigger", "exposure"], trained, store=store, trigger={"count": 8, "seed": seed}).run for seed in (0, 0, 1)]
    found = compare_runs(runs, store=store)
    assert {"suite-trigger", "suite-exposure"} <= set(sections(found.report))
    write_forms(found.report, {"pdf": tmp_path / "a.pdf"})
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-1.7")
