"""A run in the dialects of other programs: whole, read back to the same numbers by the programs' own readers, and inert."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reports.evaluated import HOSTILE, finding, run_of
from workbench.core.finding import Verdict
from workbench.reports.exports import csv_tables, every_eval_ever, inspect_log, junit, lm_eval, model_index, openmetrics, sarif
from workbench.reports.exports.evaluated import Evaluated, Files, labelled, names_of, slug

FORMATS: dict[str, Callable[[Evaluated], Files]] = {
    one.__name__.rpartition(".")[2]: one.files
    for one in (csv_tables, every_eval_ever, inspect_log, junit, lm_eval, model_index, openmetrics, sarif)
}


def only(files: Files, end: str) -> bytes:
    (found,) = [content for name, content in files.items() if name.endswith(end)]
    return found


def rows_of(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.decode("ascii").split("\n") if line]


@pytest.mark.parametrize("form", FORMATS)
def test_equal_runs_give_equal_bytes_under_names_that_stay_in_their_folder(form: str) -> None:
    files = FORMATS[form](run_of(HOSTILE))
    assert files == FORMATS[form](run_of(HOSTILE))
    for name in files:
        path = Path(name)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert len(path.parts) <= 5
        assert name.isascii()
        assert name.isprintable()


def test_names_are_told_apart() -> None:
    assert slug("Share of “yes”, in %") == "share-of-yes-in"
    assert slug("…") == "unnamed"
    same = [finding("one", measure="m"), finding("two", measure="m"), finding("two", measure="m"), finding("x", measure="n")]
    assert [name for name, _ in labelled(same)] == ["m-one", "m-two", "m-two-2", "n"]


def test_numbers_of_a_row_are_all_that_are_finite() -> None:
    first, second, third = run_of().parts[0].rows
    assert first.numbers() == {"acc": True, "nats.0": -0.1, "nats.1": 1e-17, "deep.x": 3}
    assert third.numbers() == {}, "an unscored sample has no number, whatever its record holds"
    assert names_of((first, second, third)) == ["acc", "deep.x", "nats.0", "nats.1"]


# --- lm-evaluation-harness --------------------------------------------------------------------------------------


def test_the_harness_finds_its_fields_and_every_number() -> None:
    files = lm_eval.files(run_of("some/model"))
    assert sorted(files) == ["some__model/results_2026-01-02T03-05-05Z.json", "some__model/samples_suite_2026-01-02T03-05-05Z.jsonl"]
    said = json.loads(only(files, ".json"))
    names = [name for name in said["results"]["suite"] if name.endswith(",none")]
    assert sorted(names) == sorted(
        word for one in ("some-model-some-model", "some-model-some-model-2") for word in (f"{one},none", f"{one}_stderr,none")
    )
    assert said["results"]["suite"]["some-model-some-model,none"] == 0.5
    assert said["results"]["suite"]["some-model-some-model_stderr,none"] == "N/A", "no standard error is made up"
    assert said["n-samples"] == {"suite": {"original": 3, "effective": 2}}
    assert [one["verdict"] for one in said["assay"]["findings"]] == ["detected", "worse", "inconclusive"]
    rows = rows_of(only(files, ".jsonl"))
    assert [row["metrics"] for row in rows] == [["acc", "deep.x", "nats.0", "nats.1"], ["acc", "nats.0", "nats.1"], []]
    assert (rows[0]["acc"], rows[0]["nats.1"], rows[1]["nats.1"]) == (True, 1e-17, 0.30000000000000004)
    assert rows[0]["arguments"]["gen_args_1"] == {"arg_0": "some/model", "arg_1": " no"}
    assert rows[2]["doc"]["unscored"] == "some/model"
    assert all(set(lm_eval.FIELDS) <= set(row) for row in rows)


def test_a_number_that_is_called_like_a_field_hides_none() -> None:
    run = run_of()
    row = run.parts[0].rows[1]
    named = type(row)("s", 0, {"doc_id": 7, "filter": 1.5})
    (said,) = lm_eval.samples(type(run.parts[0])("suite", "suite", (named,)))
    assert (said["doc_id"], said["filter"], said["value.doc_id"], said["value.filter"]) == (0, "none", 7, 1.5)


# --- Inspect ----------------------------------------------------------------------------------------------------


def members(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


def test_a_log_has_the_members_that_its_viewer_reads() -> None:
    found = members(only(inspect_log.files(run_of(HOSTILE)), ".eval"))
    assert sorted(found) == [
        "_journal/start.json", "_journal/summaries/1.json", "header.json", "samples/sample-0_epoch_1.json",
        "samples/second_epoch_1.json", "samples/third_epoch_1.json", "summaries.json",
    ]  # fmt: skip
    header = found["header.json"]
    assert (header["version"], header["status"], header["results"]["completed_samples"]) == (2, "success", 2)
    assert header["eval"]["dataset"]["sample_ids"] == [HOSTILE, "second", "third"]
    assert header["results"]["scores"][0]["metrics"]["low"]["value"] == 0.4
    first, third = found["samples/sample-0_epoch_1.json"], found["samples/third_epoch_1.json"]
    assert {name: one["value"] for name, one in first["scores"].items()} == run_of().parts[0].rows[0].numbers()
    assert (third["scores"], third["metadata"]) == ({}, {"unscored": HOSTILE})
    assert found["samples/second_epoch_1.json"]["choices"] == [" yes", " no"]


def test_inspect_reads_its_log(tmp_path: Path) -> None:
    log = pytest.importorskip(
        "inspect_ai.log", reason="Inspect is not installed beside the other extras; benchmarks/dialects.py reads with it"
    )
    for name, content in inspect_log.files(run_of("model")).items():
        (tmp_path / name).write_bytes(content)
        found = log.read_eval_log(str(tmp_path / name))
        assert [sample.scores["acc"].value for sample in found.samples[:2]] == [True, False]


# --- Every Eval Ever --------------------------------------------------------------------------------------------


def test_a_record_has_what_its_schema_asks_for() -> None:
    said = json.loads(only(every_eval_ever.files(run_of("m")), ".json"))
    assert {
        "schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library", "evaluation_results",
    } <= set(said)  # fmt: skip
    assert (said["schema_version"], said["model_info"]["additional_details"]["deployment_type"]) == ("0.3.0", "self_deployed")
    assert (said["evaluation_timestamp"], said["retrieved_timestamp"]) == ("1767323045", "1767323105")
    assert [one["score_details"]["score"] for one in said["evaluation_results"]] == [0.5, 0.5], "a finding without a value is no result"
    first = said["evaluation_results"][0]
    assert first["score_details"]["uncertainty"] == {
        "confidence_interval": {"lower": 0.4, "upper": 0.6, "confidence_level": 0.95, "method": "bootstrap"}, "num_samples": 2,
    }  # fmt: skip
    assert all(isinstance(value, str) for value in first["score_details"]["details"].values()), "details hold texts only"
    assert first["metric_config"]["lower_is_better"] is True
    accuracy = json.loads(only(every_eval_ever.files(run_of(findings=(finding("m", measure="acc"),))), ".json"))
    assert accuracy["evaluation_results"][0]["metric_config"]["lower_is_better"] is False


# --- Hugging Face -----------------------------------------------------------------------------------------------


def test_the_hub_reads_the_front_matter() -> None:
    text = only(model_index.files(run_of("some/model")), "README.md").decode()
    front = yaml.safe_load(text.split("---\n")[1])
    hub = pytest.importorskip("huggingface_hub.repocard_data", reason="the hub's client comes with the extra `interop`")
    name, results = hub.model_index_to_eval_results(front["model-index"])
    assert name == "some/model"
    assert [(one.metric_name, one.metric_value) for one in results] == [("some/model", 0.5)] * 2
    assert results[0].metric_args["interval"]["low"] == 0.4


# --- CI and monitoring ------------------------------------------------------------------------------------------


def test_without_a_policy_only_what_is_worse_fails() -> None:
    verdicts = (Verdict.DETECTED, Verdict.WORSE, Verdict.BETTER, Verdict.EQUIVALENT, Verdict.NOT_DETECTED, Verdict.INCONCLUSIVE)
    run = run_of(findings=tuple(finding("m", one) for one in verdicts))
    (suite,) = ET.fromstring(only(junit.files(run), ".junit.xml"))
    tags = [[child.tag for child in case if child.tag != "properties"] for case in suite.findall("testcase")]
    assert tags == [["skipped"], ["failure"], [], [], ["skipped"], ["skipped"]]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("6", "1", "3")
    said = json.loads(only(sarif.files(run), ".sarif"))["runs"][0]
    kinds = [(one["kind"], one["level"]) for one in said["results"]]
    told = ("informational", "none")
    assert kinds == [told, ("fail", "warning"), told, told, told, ("open", "none")]
    for one in said["results"]:
        assert one["level"] == "none" or one["kind"] == "fail", "SARIF 2.1.0, 3.27.10: another kind than 'fail' has no level"
        assert said["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
        assert one["message"]["text"]


def test_a_scraper_reads_every_number() -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus-client comes with the extra `dev`")
    text = only(openmetrics.files(run_of(HOSTILE)), ".txt").decode("utf-8")
    assert text.endswith("# EOF\n")
    families = {one.name: one for one in parser.text_string_to_metric_families(text)}
    assert [sample.value for sample in families["assay_effect"].samples] == [0.5, 0.5]
    assert [sample.value for sample in families["assay_effect_low"].samples] == [0.4, 0.4]
    assert {sample.labels["state"]: sample.value for sample in families["assay_samples"].samples} == {"scored": 2.0, "unscored": 1.0}
    assert [sample.labels["verdict"] for sample in families["assay_verdict"].samples] == ["detected", "worse", "inconclusive"]
    assert "<script>" in families["assay_effect"].samples[0].labels["measure"]


# --- spreadsheets -----------------------------------------------------------------------------------------------


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def test_tables_read_back_to_the_same_bits() -> None:
    files = csv_tables.files(run_of())
    first, second, third = table(files["samples-suite.csv"])
    assert (float(first["nats.1"]), float(second["nats.1"]), first["acc"], first["deep.x"]) == (1e-17, 0.30000000000000004, "True", "3")
    assert (third["acc"], third["unscored"]) == ("", "m")
    found = table(files["findings.csv"])
    assert [(one["verdict"], one["effect"]) for one in found] == [("detected", "0.5"), ("worse", "0.5"), ("inconclusive", "")]


@pytest.mark.parametrize("words", ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "\r=1", "＝1"])
def test_no_text_is_a_formula(words: str) -> None:
    assert csv_tables.cell(words).startswith("'")
    assert csv_tables.cell(-1.5) == "-1.5", "a number stays one"
    assert csv_tables.cell("a=1") == "a=1"


# --- whatever it holds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=15, deadline=None)
@given(words=st.text(max_size=30))
def test_words_of_any_kind_are_inert(form: str, words: str) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus-client comes with the extra `dev`")
    for text in (words, words + HOSTILE):
        for name, content in FORMATS[form](run_of(text)).items():
            if name.endswith(".eval"):
                assert len([one for one in members(content) if one.startswith("samples/")]) == 3
            elif name.endswith(".jsonl"):
                assert len(rows_of(content)) == 3
            elif name.endswith((".json", ".sarif")):
                json.loads(content)
            elif name.endswith(".xml"):
                assert len(list(ET.fromstring(content).iter("testcase"))) == 3
            elif name.endswith(".csv"):
                found = table(content)
                assert len(found) == 3
                for cells in found:
                    assert not any(cell.startswith(csv_tables.FORMULA) and not _is_number(cell) for cell in cells.values())
            elif name.endswith(".md"):
                assert len(yaml.safe_load(content.decode("utf-8").split("---\n")[1])["model-index"][0]["results"]) == 2
            else:
                shown = content.decode("utf-8")
                assert sum(len(one.samples) for one in parser.text_string_to_metric_families(shown)) == 1 + 2 + 2 + 2 + 2 + 3


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
