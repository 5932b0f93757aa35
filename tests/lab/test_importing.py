"""Samples of other programs in the store: their numbers are kept, what is no number is counted, and a bad file is named with its line."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evals.imported import SUITE, ImportedResult, ImportedSpec, overall
from tests.lab.importing_files import harness_file, harness_row, inspect_file, inspect_header, inspect_sample
from workbench.core.errors import AssayError, BadValue, CorruptFile, Incompatible, MissingFile, UnknownName, UsageError
from workbench.core.finding import Verdict
from workbench.core.result import Result
from workbench.core.stats.counts import mcnemar_exact
from workbench.core.stats.resampling import bootstrap
from workbench.lab.compare import compare
from workbench.lab.gating.gate import gate
from workbench.lab.importing import inspect_log
from workbench.lab.importing.run import import_files
from workbench.store.runs import Store

RIGHT = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0] * 5
OTHER = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0] * 5


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    with Store.open() as opened:
        yield opened


def harness(folder: Path, values: list[Any] = RIGHT, **results: Any) -> str:
    return harness_file(folder, [harness_row(doc, value) for doc, value in enumerate(values)], **results)


def riddles(place: Path, values: list[Any]) -> str:
    return inspect_file(place, [inspect_sample(number, value) for number, value in enumerate(values)])


# --- what is kept -----------------------------------------------------------------------------------------------


def test_a_run_has_every_number_and_our_interval(store: Store, tmp_path: Path) -> None:
    file = harness(tmp_path, model_name="org/model", higher_is_better={"quiz": {"acc": True}}, lm_eval_version="0.4.13")
    made = import_files([file], store=store, cluster="topic.name", group="topic.name")
    record = store.runs.get(made.run)
    assert (record.kind, record.ref, record.status) == ("import", "org/model", "done")
    assert store.sample_counts(made.run) == {"quiz": len(RIGHT)}
    kept = store.sink(made.run, "quiz").read()
    assert [one["values"]["acc"] for one in kept] == [bool(value) for value in RIGHT]
    clusters = [f"t{doc % 5}" for doc in range(len(RIGHT))]
    assert [one["cluster"] for one in kept] == [one["group"] for one in kept] == clusters
    (finding,) = made.findings
    assert finding.effect == np.mean(RIGHT)
    assert finding.interval is None, "five clusters are too few for an interval"
    alone = import_files([harness(tmp_path / "b")], store=store)
    assert (
        alone.findings[0].interval
        == bootstrap(np.array(RIGHT), clusters=[f"{doc:06d}" for doc in range(len(RIGHT))], bounds=(0, 1)).interval
    )
    stored = store.result(made.run, "quiz").result
    assert isinstance(stored, ImportedResult)
    assert stored.provenance.packages == {"lm-eval": "0.4.13"}
    assert "quiz: acc 0.625; 40 of 40 samples scored by lm-eval" in stored.summary()
    assert Result.from_json(stored.to_json()).digest() == stored.digest()
    assert stored.plot().to_dict()["title"]


def test_two_runs_of_others_get_our_comparison(store: Store, tmp_path: Path) -> None:
    better = {"quiz": {"acc": True}}
    files = [harness(tmp_path / name, values, model_name=name, higher_is_better=better) for name, values in (("a", RIGHT), ("b", OTHER))]
    first, second = (import_files([file], store=store).run for file in files)
    found = compare(first, second, store=store)
    (one,) = found.differences
    assert (one.value, one.first, one.second, one.n) == ("acc", 0.625, 0.875, 40)
    pairs = list(zip(RIGHT, OTHER, strict=True))
    assert one.p == mcnemar_exact(pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0)))
    own, against = found.findings
    assert (own.measure, against.measure) == ("acc", "difference in acc")
    assert (against.effect, against.verdict) == (0.25, Verdict.BETTER)
    assert compare(second, first, store=store).findings[1].verdict is Verdict.WORSE
    same = compare(first, first, store=store)
    assert same.findings[1].effect == 0.0
    assert same.findings[1].interval is not None
    assert same.findings[1].interval.low < 0 < same.findings[1].interval.high, "equal answers are no certainty"


def test_samples_that_were_asked_otherwise_are_no_pairs(store: Store, tmp_path: Path) -> None:
    rows = [harness_row(doc, value) for doc, value in enumerate(RIGHT)]
    rows[3]["arguments"]["gen_args_0"]["arg_0"] = "another prompt"
    runs = [import_files([file], store=store).run for file in (harness(tmp_path / "a"), harness_file(tmp_path / "b", rows))]
    found = compare(*runs, store=store)
    assert found.denominators.unscored == {"asked differently in the two runs": 1}
    result = [store.result(run, "quiz").result for run in runs]
    drawn = SUITE.findings(result[1], subject="m", reference=result[0])
    assert drawn[1].denominators is not None
    assert drawn[1].denominators.unscored == {"not scored in the reference, or asked differently there": 1}


def test_filters_are_told_apart_and_what_is_no_number_is_counted(store: Store, tmp_path: Path) -> None:
    rows = [
        {**harness_row(doc, doc % 2), "filter": name, "metrics": ["acc", "f1"], "f1": [1, 0], "acc": value}
        for doc in range(12)
        for name, value in (("strict", float(doc % 2)), ("loose", 1.0 if doc else float("nan")))
    ]
    made = import_files([harness_file(tmp_path, rows)], store=store)
    kept = store.sink(made.run, "quiz").read()
    assert kept[0]["values"] == {"acc,strict": False}
    assert kept[1]["values"] == {"acc,strict": True, "acc,loose": True}
    assert made.notes == (
        "quiz: 1 values of acc are no numbers and were not taken over",
        "quiz: 24 values of f1 are no numbers and were not taken over",
    )
    counts = {finding.measure: finding.denominators for finding in made.findings}
    loose = counts["acc,loose"]
    assert loose is not None
    assert loose.unscored == {"no value of this metric": 1}


def test_marks_are_numbers_and_what_could_not_be_read_is_not_scored(store: Store, tmp_path: Path) -> None:
    values = ["C", "I", "P", "N", 1, float("nan"), "what", True]
    samples = [inspect_sample(number, value) for number, value in enumerate(values)]
    samples.append(inspect_sample(8, "C", error={"message": "no"}))
    samples.append({**inspect_sample(0, "I"), "epoch": 2})
    made = import_files([inspect_file(tmp_path / "log.eval", samples)], store=store)
    kept = {(one["sample"], one["epoch"]): one for one in store.sink(made.run, "riddles").read()}
    assert [kept[f"{number:06d}", 0]["values"].get("match") for number in range(9)] == [1, 0, 0.5, None, 1, None, None, True, None]
    assert kept["000000", 1]["values"] == {"match": 0}
    assert [kept[f"{number:06d}", 0]["unscored"] for number in (3, 5, 6, 8)] == [
        "no answer could be read", "no answer could be read", "the log has no score for it", "an error stopped it",
    ]  # fmt: skip
    assert made.notes == ("riddles: 1 values of match are no numbers and were not taken over",)
    found = overall(made.results["riddles"], "match")
    assert (found.n, found.units) == (6, 5), "epochs of a sample are one cluster"
    assert made.model == "mock/one"


@pytest.mark.parametrize("kind", ["eval", "json", "zstd"])
def test_a_log_is_read_in_each_of_its_forms(store: Store, tmp_path: Path, kind: str) -> None:
    samples = [inspect_sample(number, {"right": "C" if number % 2 else "I", "length": number * 1.5}) for number in range(30)]
    place = tmp_path / ("log.json" if kind == "json" else "log.eval")
    if kind == "json":
        place.write_text(json.dumps({**inspect_header(), "samples": samples}))
    else:
        inspect_file(place, samples)
        if kind == "zstd":
            place.write_bytes(_as_zstd(place))
    made = import_files([str(place)], store=store, cluster="topic")
    values = [one["values"] for one in store.sink(made.run, "riddles").read()]
    assert values == [{"match.right": bool(number % 2), "match.length": number * 1.5} for number in range(30)]


def _as_zstd(place: Path) -> bytes:
    """The same archive with every member compressed by zstd, written byte by byte, since Python of this version cannot."""
    body, directory, count = b"", b"", 0
    with zipfile.ZipFile(place) as archive:
        for one in archive.infolist():
            plain = archive.read(one)
            packed = pa.Codec("zstd").compress(plain, asbytes=True)
            name = one.filename.encode()
            common = struct.pack("<HHHHHIIIHH", 63, 0, inspect_log.ZSTD, 0, 33, one.CRC, len(packed), len(plain), len(name), 0)
            directory += b"PK\x01\x02" + struct.pack("<H", 63) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
            body += b"PK\x03\x04" + common + name + packed
            count += 1
    return body + directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)


def test_messages_are_compared_by_what_they_say(store: Store, tmp_path: Path) -> None:
    values = ["C", "I"] * 15
    runs = [
        import_files([riddles(tmp_path / f"{name}.eval", marks)], store=store).run for name, marks in (("a", values), ("b", values[::-1]))
    ]
    assert compare(*runs, store=store).denominators.scored == 30, "random ids of messages do not make them another question"


def test_one_run_holds_several_tasks_of_one_model(store: Store, tmp_path: Path) -> None:
    first, second = harness(tmp_path / "a"), riddles(tmp_path / "log.eval", ["C", "I"])
    made = import_files([first, second], store=store)
    assert (set(made.results), made.model) == ({"quiz", "riddles"}, "mock/one")
    with pytest.raises(UsageError, match="Two of the files hold task 'quiz'"):
        import_files([first, harness(tmp_path / "b")], store=store)
    named = harness(tmp_path / "c", model_name="other")
    with pytest.raises(UsageError, match="of 2 models"):
        import_files([named, second], store=store)
    assert import_files([named, second], store=store, model="mine").model == "mine"


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([harness_row(0, 1.0), "{"], "line 2 is not"),
        ([harness_row(0, 1.0), "[]"], "line 2 is not one"),
        ([harness_row(0, 1.0), harness_row(1, 1.0) | {"doc_id": None}], "line 2 has no doc_id, arguments and metrics"),
        ([harness_row(0, 1.0) | {"metrics": "acc"}], "line 1 has no doc_id"),
        ([{"text": "a"}], "line 1 has no doc_id"),
        ([harness_row(0, 1.0), harness_row(1, 0.0), harness_row(0, 0.0)], "line 3 has document 0 with filter 'none' a second time"),
        ([harness_row(0, "much")], "no row has one; its metrics are acc"),
        ([], "it has none"),
        (['{"doc_id": ' + "9" * 5000 + "}"], "line 1 is not"),
        (["[" * 100_000], "line 1 is not"),
    ],
)
def test_a_bad_file_of_samples_is_named_with_its_line(store: Store, tmp_path: Path, lines: list[Any], said: str) -> None:
    file = harness_file(tmp_path, lines)
    with pytest.raises(CorruptFile, match=said) as caught:
        import_files([file], store=store)
    assert file in str(caught.value)
    assert store.runs.list() == (), "nothing is written of a file that is refused"


@pytest.mark.parametrize(
    ("samples", "header", "members", "said"),
    [
        ([b"{"], None, {}, r"samples/1_epoch_1.json is no JSON, line 1"),
        ([b"[]"], None, {}, r"samples/1_epoch_1.json is no JSON object"),
        ([inspect_sample(0, 1) | {"id": None}], None, {}, r"samples/1_epoch_1.json has None and 1"),
        ([inspect_sample(0, 1) | {"epoch": 0}], None, {}, r"has 0 and 0"),
        ([inspect_sample(0, 1), inspect_sample(0, 1)], None, {}, "has sample '000000', epoch 0 a second time"),
        ([], None, {}, "it has none"),
        ([inspect_sample(0, 1)], {"version": 2}, {}, "no 'eval' with the name of its task"),
        ([inspect_sample(0, 1)], None, {"../../evil.json": b"{}"}, r"'../../evil.json' leads out of it"),
        ([inspect_sample(0, 1)], None, {"/etc/evil": b"{}"}, "leads out of it"),
        ([inspect_sample(0, 1)], None, {"C:\\evil": b"{}"}, "leads out of it"),
    ],
)
def test_a_bad_log_is_named_with_its_member(
    store: Store, tmp_path: Path, samples: list[Any], header: Any, members: dict[str, bytes], said: str
) -> None:  # fmt: skip
    file = inspect_file(tmp_path / "log.eval", samples, header=header, members=members)
    with pytest.raises(CorruptFile, match=said) as caught:
        import_files([file], store=store)
    assert file in str(caught.value)
    assert store.runs.list() == ()


def test_a_bomb_is_not_unpacked(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_log, "LARGEST", 10_000)
    file = inspect_file(tmp_path / "log.eval", [inspect_sample(0, "C"), b"0" * 50_000])
    assert Path(file).stat().st_size < 2_000
    with pytest.raises(CorruptFile, match="unpacks to more"):
        import_files([file], store=store)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, inspect_log.ZSTD])
def test_a_member_that_unpacks_to_more_than_it_says_is_refused(store: Store, tmp_path: Path, method: int) -> None:
    place = tmp_path / "log.eval"
    inspect_file(place, [inspect_sample(0, "C"), b" " * 50_000])
    content = _as_zstd(place) if method == inspect_log.ZSTD else place.read_bytes()
    lied = content.replace(struct.pack("<I", 50_000), struct.pack("<I", 50))
    assert lied != content
    place.write_bytes(lied)
    with pytest.raises(CorruptFile, match="samples/2_epoch_1.json"):
        import_files([str(place)], store=store)


def test_what_is_no_file_of_samples_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        import_files([str(tmp_path / "none.jsonl")], store=store)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(BadValue, match=r"ends in .jsonl, .eval, .json"):
        import_files([str(tmp_path / "a.txt")], store=store)
    (tmp_path / "a.eval").write_bytes(b"PK no zip")
    with pytest.raises(CorruptFile, match="no JSON"):
        import_files([str(tmp_path / "a.eval")], store=store)
    with pytest.raises(UnknownName, match=r"field of text or number 'topic.nam'.*'name'"):
        import_files([harness(tmp_path)], store=store, cluster="topic.nam")
    harness(tmp_path / "b")
    results = next((tmp_path / "b").glob("samples*")).with_name("results_2026-05-06T07-08-09.123456.json")
    results.write_text("{")
    with pytest.raises(CorruptFile, match="results_2026"):
        import_files([harness(tmp_path / "b")], store=store)


def test_an_imported_task_cannot_be_run(store: Store, tmp_path: Path) -> None:
    for ask in (lambda: SUITE.samples(ImportedSpec(task="quiz")), lambda: SUITE.aggregate([], ImportedSpec())):
        with pytest.raises(Incompatible, match="by another program"):
            ask()
    imported = import_files([harness(tmp_path)], store=store).run
    with pytest.raises(AssayError, match="a run of import"):
        gate(imported, "town", store=store)
