"""BLiMP: pairs whole or refused, accuracies by hand, published ones over the same paradigms, ties that earn nothing."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evals.runner import run_suite
from evals.suites.blimp import ALL, SAME, SUITE, BLiMPSpec, aggregate, mean_over, pairs_of, published_over, right
from evals.suites.blimp_data import load, load_published
from tests.engine.models import words, wordy
from tests.reference.scoring import logprobs
from workbench.core.errors import CorruptFile, EmptySelection, MissingFile
from workbench.core.finding import Verdict
from workbench.core.measure import Score
from workbench.core.result import Result
from workbench.data import sources


def row(number: int, paradigm: str = "p0", **changes: Any) -> dict[str, Any]:
    return {
        "sentence_good": "the cat sat here", "sentence_bad": f"the cat {'mat' if number % 2 else 'unbelievable'} here", "UID": paradigm,
        "field": "syntax" if paradigm < "p4" else "semantics", "linguistics_term": "a term", "pairID": str(number), **changes,
    }  # fmt: skip


def rows(paradigms: int = 8, each: int = 3) -> list[dict[str, Any]]:
    return [row(n, f"p{p}") for p in range(paradigms) for n in range(each)]


def text(items: Sequence[Any]) -> str:
    return "".join(f"{item if isinstance(item, str) else json.dumps(item)}\n" for item in items)


def write(path: Path, items: Sequence[Any]) -> Path:
    path.write_text(text(items), encoding="utf-8")
    return path


# --- files --------------------------------------------------------------------------------------------------


def test_a_file_a_folder_and_a_zip_are_read_alike(tmp_path):
    (tmp_path / "data").mkdir()
    for p in range(8):
        write(tmp_path / "data" / f"p{p}.jsonl", rows()[3 * p : 3 * p + 3])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        for p in (7, 6, 5, 4, 3, 2, 1, 0):
            pack.writestr(f"p{p}.jsonl", text(rows()[3 * p : 3 * p + 3]))
    one = load(write(tmp_path / "all.jsonl", rows()))
    assert len(one) == 24
    assert load(tmp_path / "data") == load(tmp_path / "a.zip") == one
    assert pairs_of(BLiMPSpec(files=(str(tmp_path / "data"),), paradigms=("p2",), most=2)) == one[6:8]
    with pytest.raises(EmptySelection, match="'p9' matches no paradigm"):
        pairs_of(BLiMPSpec(files=(str(tmp_path / "data"),), paradigms=("p9",)))


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([row(0), "{"], "line 2 is not"),
        ([row(0), "[]"], "line 2 is not one"),
        ([""], "it has none"),
        ([row(0), row(1, sentence_bad=" ")], "text in every 'sentence_bad', but line 2"),
        ([row(0, pairID=None)], "text in every 'pairID', but line 1"),
        ([row(0, UID=True)], "text in every 'UID', but line 1"),
        ([row(0), row(0)], "p0 has pair 0 twice"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_field(items, says, tmp_path):
    with pytest.raises(CorruptFile, match=says) as error:
        load(write(tmp_path / "bad.jsonl", items))
    assert "bad.jsonl" in str(error.value)


def test_other_bad_files(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(MissingFile, match="No BLiMP file"):
            load(path)
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(CorruptFile, match="a zip file"):
        load(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as pack:
        pack.writestr("notes.txt", "none")
    with pytest.raises(CorruptFile, match="a zip of jsonl files"):
        load(tmp_path / "b.zip")
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(CorruptFile, match="byte 0 is not"):
        load(tmp_path / "latin.jsonl")
    figures = {"UID": "p0", "linguistics_term": "t", "ngram": 0.5, "lstm": 0.6, "txl": 0.7, "gpt2": 0.8}
    for change in ({"gpt2": 80}, {"gpt2": None}, {"gpt2": True}, {"gpt2": "0.8"}, {"UID": 3}):
        with pytest.raises(CorruptFile, match="line 2 has none"):
            load_published(write(tmp_path / "p.jsonl", [figures, figures | change]))
    with pytest.raises(MissingFile, match="published"):
        load_published(tmp_path / "no.jsonl")


# --- scores -------------------------------------------------------------------------------------------------


def result_of(gaps: dict[str, Sequence[float]], published: dict[str, dict[str, float]] | None = None, unscored: int = 0) -> Result:
    """A result whose grammatical sentence is ahead by ``gaps`` nats, by paradigm."""
    made = [
        Score(f"{name}/{n}", {"good": -20.0 + gap, "bad": -20.0}, cluster=name, group="syntax" if name < "p4" else "semantics")
        for name, own in gaps.items()
        for n, gap in enumerate(own)
    ]
    made += [Score(f"u{n}", unscored=SAME, cluster=min(gaps), group="syntax") for n in range(unscored)]
    return aggregate(made, dict.fromkeys(gaps, "a term"), published or {})


def test_paradigms_count_alike_and_fields_are_means_of_theirs():
    result = result_of({"p0": [1.0] * 9, "p1": [-1.0], "p4": [1.0, -1.0]})
    assert mean_over(result).value == pytest.approx((1 + 0 + 0.5) / 3)  # a mean over pairs would say 10/12
    assert mean_over(result, "syntax").value == 0.5
    assert mean_over(result, "semantics").value == 0.5


def test_the_error_of_a_mean_over_paradigms_is_not_that_of_the_pooled_pairs():
    """D8: pooling the pairs of eight paradigms, half of them always right and half never, gives an error of 0.018 for 0.14 and more."""
    result = result_of({f"p{k}": [1.0 if k % 2 else -1.0] * 100 for k in range(8)})
    found = mean_over(result)
    assert found.value == 0.5
    pooled = math.sqrt(0.5 * 0.5 / 800)
    assert pooled == pytest.approx(0.0177, abs=1e-4)
    assert found.interval is not None
    assert found.interval.high - found.interval.low > 2 * 1.96 * 7 * pooled


def test_ties_earn_nothing():
    """D14: with ties given to index 0, where the grammatical sentence stands, a model that knows nothing has accuracy 1."""
    flat = result_of({f"p{k}": [0.0] * 20 for k in range(8)})
    assert np.mean([int(np.argmax(pair)) == 0 for pair in zip(flat.values.good.values, flat.values.bad.values, strict=True)]) == 1.0
    finding = SUITE.findings(flat, subject="m")[0]
    assert finding.effect == 0.0
    assert finding.null is not None
    assert finding.null.value == 0.0
    assert finding.verdict == Verdict.NOT_DETECTED


def test_rounded_numbers_do_not_win():
    """D10: 85.1 and 84.9 nats are one number in bfloat16; ties to index 0 would then call 40 of 40 right where half are."""
    exact = torch.tensor([[-84.9, -85.1], [-85.1, -84.9]] * 20)
    rounded = exact.bfloat16().float()
    assert (rounded.argmax(dim=1) == 0).float().mean() == 1.0

    def accuracy(table: torch.Tensor) -> float | None:
        made = [Score(f"p/{n}", {"good": a, "bad": b}, cluster="p0", group="syntax") for n, (a, b) in enumerate(table.tolist())]
        return mean_over(aggregate(made, {"p0": "t"}, {})).value

    assert (accuracy(exact), accuracy(rounded)) == (0.5, 0.0)


def test_a_capable_model_is_above_chance_and_a_blind_one_is_not():
    rng = np.random.default_rng(0)
    good = result_of({f"p{k}": rng.normal(1, 1, 50).tolist() for k in range(8)}, unscored=2)
    blind = result_of({f"p{k}": rng.normal(0, 1, 50).tolist() for k in range(8)})
    found = {f.measure: f for f in SUITE.findings(good, subject="m", reference=blind)}
    whole = found["accuracy over paradigms, all"]
    assert whole.verdict == Verdict.DETECTED
    assert whole.denominators is not None
    assert whole.denominators.unscored == {SAME: 2}
    assert found["difference in accuracy over paradigms, all"].verdict == Verdict.BETTER
    assert SUITE.findings(blind, subject="m")[0].verdict == Verdict.NOT_DETECTED
    syntax = found["accuracy over paradigms, syntax"]
    assert sorted(syntax.details["by_paradigm"]) == ["p0", "p1", "p2", "p3"]
    assert syntax.interval is None  # four paradigms
    against = result_of({f"p{k}": [-1.0] * 50 for k in range(8)})
    assert len(SUITE.findings(against, subject="m")[0].details["below_chance"]) == 8


def test_published_figures_stand_beside_the_same_paradigms_only(tmp_path):
    figures = {f"p{k}": {"ngram": 0.1 * k, "lstm": 0.2, "txl": 0.3, "gpt2": 1.0 - 0.1 * k} for k in range(3)}
    result = result_of({"p0": [1.0], "p1": [1.0]}, figures)
    assert published_over(result) == pytest.approx({"ngram": 0.05, "lstm": 0.2, "txl": 0.3, "gpt2": 0.95})
    assert published_over(result_of({"p0": [1.0], "p9": [1.0]}, figures)) == {}
    file = write(tmp_path / "a.jsonl", rows(2))
    beside = write(tmp_path / "p.jsonl", [{"UID": name, "linguistics_term": "t", **one} for name, one in figures.items()])
    shown = run_suite(SUITE, wordy(), BLiMPSpec(files=(str(file),), published=str(beside)))
    assert "published over the same: ngram 5.0%" in shown.summary()


def test_whole_sentences_are_scored_from_bos(tmp_path):
    items = [*rows(2), row(7, sentence_bad="the cat sat here")]
    result = run_suite(SUITE, wordy(), BLiMPSpec(files=(str(write(tmp_path / "a.jsonl", items)),)))
    model, bos = wordy(), words().bos_id
    for n, item in enumerate(items[:-1]):
        for column, sentence in ((result.values.good, item["sentence_good"]), (result.values.bad, item["sentence_bad"])):
            assert float(column[n]) == pytest.approx(math.fsum(logprobs(model, [bos], words().encode(sentence))), abs=1e-4)
    assert result.values.attrs["asked"]["unscored"] == {SAME: 1}
    assert np.isnan(right(result)[-1])
    stored = result.to_json()
    assert "unbelievable" not in stored
    assert Result.from_json(stored).canonical() == result.canonical()


# --- the real files -----------------------------------------------------------------------------------------

mirrored = pytest.mark.skipif(not sources.mirror_folder() or not sources.available("blimp"), reason="blimp is not mirrored")


@mirrored
def test_the_published_file_has_the_published_means():
    """GPT-2 81.4 … as the file's own averages: of the 67 paradigms 0.8302, of control and raising 0.8192."""
    known = load_published(sources.path("blimp", "models_summary.jsonl"))
    assert len(known) == 67
    means = {model: np.mean([one[model] for one in known.values()]) for model in ("ngram", "lstm", "txl", "gpt2")}
    assert means == pytest.approx({"ngram": 0.6124029851, "lstm": 0.698119403, "txl": 0.6962537313, "gpt2": 0.830238806}, abs=1e-9)


@mirrored
@pytest.mark.slow
def test_the_whole_set_is_read():
    pairs = pairs_of(BLiMPSpec())
    assert len(pairs) == 47_000
    assert {field: len({p.paradigm for p in pairs if p.field == field}) for field in sorted({p.field for p in pairs})} == {
        "morphology": 13, "semantics": 5, "syntax": 20, "syntax_semantics": 9,
    }  # fmt: skip
    known = load_published(sources.path("blimp", "models_summary.jsonl"))
    assert {p.paradigm for p in pairs} <= set(known)
    assert sum(p.good == p.bad for p in pairs) == 2
    assert ALL not in {p.field for p in pairs}
