"""A bundle's results follow from its samples alone: what aggregating reads of the data is kept beside them, and holds no readable text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from evals import SUITES
from evals.runner import MemorySink, run_suite, score_of
from tests.lab.trained import home_with_model
from workbench.core.catalog import Catalog
from workbench.core.measure import Needs, Sample, Score
from workbench.core.result import Provenance, Result
from workbench.core.spec import Spec
from workbench.lab import rederive
from workbench.lab import told as telling
from workbench.lab.refs import load
from workbench.lab.told import aggregated, told_name, told_of
from workbench.reports.evidence.verify import Content
from workbench.store.runs import Store


@dataclass(frozen=True)
class _Reading:
    """A suite whose aggregate reads a label and the letters of a text, or, where ``words`` is set, its words."""

    name: str = "toy"
    spec: type[Spec] = Spec
    needs: Needs = field(default_factory=Needs)
    words: bool = False

    def samples(self, spec: Any) -> list[Sample]:
        return [Sample(f"{n:02d}", {"text": f"sentence number {n} of them", "label": f"kind {n % 2}", "unread": n}) for n in range(20)]

    def aggregate(self, scores: Any, spec: Any) -> Result:
        asked = list(self.samples(spec))
        found = [len(s.facts["text"].split()[0]) if self.words else s.facts["text"].count("e") for s in asked]
        labels = np.array([s.facts["label"] for s in asked], dtype=object)
        values = xr.Dataset({"x": ("i", np.array(found) + np.array([s.values["v"] for s in scores])), "label": ("i", labels)})
        return Result("toy", values)


LETTERS, WORDS = _Reading(), _Reading(words=True)


@pytest.mark.parametrize("name", ["LETTERS", "WORDS"])
def test_what_is_read_is_kept_without_the_texts_or_not_at_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "SUITES", Catalog("suite", {"toy": (f"tests.lab.test_told:{name}", "a toy", "standard")}))
    suite: Any = {"LETTERS": LETTERS, "WORDS": WORDS}[name]
    samples = suite.samples(Spec())
    scores = [Score(sample.id, {"v": float(n)}) for n, sample in enumerate(samples)]
    result = replace(suite.aggregate(scores, Spec()), provenance=Provenance(data_digest="d" * 64))
    kept = told_of(result, samples, scores)
    if name == "WORDS":
        assert kept == {}, "the words would have to be copied, so nothing is"
        return
    assert set(kept["columns"]) == {"text", "label"}
    assert kept["columns"]["label"] == [sample.facts["label"] for sample in samples]
    assert all(sorted(text) == list(text) for text in kept["columns"]["text"])
    assert not any(sample.facts["text"] in json.dumps(kept) for sample in samples)
    monkeypatch.setattr(_Reading, "samples", lambda *_: pytest.fail("the data were read"))
    assert aggregated(result, scores, kept).canonical() == replace(result, provenance=Provenance()).canonical()
    with pytest.raises(ValueError, match="column 'label' has 20 entries for 19 samples"):
        aggregated(result, scores[:-1], kept)
    other = json.loads(json.dumps(kept))
    other["columns"]["text"][0] = "e" * 9
    assert aggregated(result, scores, other).canonical() != aggregated(result, scores, kept).canonical(), "a change is seen"
    assert told_name(result) != told_name(replace(result, provenance=Provenance(data_digest="e" * 64)))


def test_what_no_result_reads_is_named() -> None:
    (found,) = rederive._results(Content({}, told={"toy-0": {"columns": {}}}))
    assert [str(fault) for fault in found.faults] == ["told/toy-0.json: no result reads it"]


def own_task(folder: Path) -> dict[str, Any]:
    rows = [{"q": f"one and {n}", "a": str(n % 3)} for n in range(12)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = {"task": "sums", "data": "rows.jsonl", "output_type": "multiple_choice", "doc_to_text": "{{q}}",
            "doc_to_choice": ["0", "1", "2"], "doc_to_target": "{{a}}", "metric_list": [{"metric": "acc"}]}  # fmt: skip
    (folder / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return {"file": str(folder / "task.yaml")}


def membership(folder: Path) -> dict[str, Any]:
    for name, word in (("members", "red"), ("others", "blue")):
        (folder / f"{name}.txt").write_text("\n".join(f"the {word} house number {n} is here" for n in range(30)), encoding="utf-8")
    return {"members": str(folder / "members.txt"), "others": str(folder / "others.txt"), "count": 30}


def crows_pairs(folder: Path) -> dict[str, Any]:
    head = ",sent_more,sent_less,stereo_antistereo,bias_type,annotations,anon_writer,anon_annotators"
    rows = [f"{n},one zeb {n} likes tea .,one tesk {n} likes tea .,stereo,age,[],w{n % 4},[]" for n in range(14)]
    (folder / "pairs.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    return {"file": str(folder / "pairs.csv")}


@pytest.mark.full
@pytest.mark.parametrize("make", [own_task, membership, crows_pairs], ids=["own-task", "membership", "crows-pairs"])
def test_results_follow_once_the_files_are_gone(make: Any, tmp_path: Path) -> None:
    name = make.__name__.replace("_", "-")
    suite: Any = SUITES.load(name)
    spec = suite.spec.parse(make(tmp_path))
    sink = MemorySink()
    home, run = home_with_model()
    with Store.open(home) as store:
        result = run_suite(suite, load(f"run:{run}", store=store), spec, sink)
    by_name = {record["sample"]: score_of(record) for record in sink.read()}
    samples = list(suite.samples(spec))
    scores = [by_name[sample.id] for sample in samples]
    kept = json.loads(json.dumps(told_of(result, samples, scores)))
    assert kept
    for place in tmp_path.iterdir():
        place.unlink()
    said = json.loads(aggregated(result, scores, kept).canonical())["values"]
    assert said == json.loads(result.canonical())["values"]
    assert not any(word in json.dumps(kept) for word in ("likes tea", "house number", "one and", str(tmp_path)))
