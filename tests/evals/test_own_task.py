"""Tasks of one's own: every output type against a slow twin of the rules, ties and rows that are no questions, findings beside chance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.runner import MemorySink, run_suite
from evals.suites.own_task import SUITE, OwnTaskSpec, chance, overall
from tests.evals.own_tasks import CHOICE, ROWS, write
from tests.evals.test_contract import model
from workbench.core.errors import BadValue, EmptySelection, UnknownName
from workbench.core.finding import Verdict
from workbench.core.measure import Loglikelihood, Rolling, Sample
from workbench.core.result import Result
from workbench.engine.score import loglikelihoods
from workbench.engine.tokens import encode_request


def ask(file: str, **fields: Any) -> Result:
    return run_suite(SUITE, model(), OwnTaskSpec.parse({"file": file, **fields}), batch=4)


def logp(context: str, text: str) -> float:
    """Asked alone."""
    encoded = encode_request(model(), Loglikelihood(context, (text,)))
    ((_, found),) = loglikelihoods(model(), [encoded])
    return math.fsum(found[0])


def test_choices_are_scored_as_by_hand(tmp_path: Path) -> None:
    result = ask(write(tmp_path))
    plain, per_character = [], []
    for row in ROWS:
        nats = [logp(f"Q: who is {row['who']}?\nA:", " " + option) for option in row["options"]]
        plain.append(float(int(np.argmax(nats)) == row["answer"]))
        per_character.append(float(int(np.argmax([n / len(o) for n, o in zip(nats, row["options"], strict=True)])) == row["answer"]))
    assert result.values.above.sel(metric="acc").values.tolist() == plain
    assert result.values.above.sel(metric="acc_norm").values.tolist() == per_character
    assert chance(result) == pytest.approx(1 / 3)
    north = overall(result, "acc", "north")
    assert (north.value, north.n) == (pytest.approx(np.mean(plain[1::2])), 4)
    alone, *_ = SUITE.findings(result, subject="m")
    assert alone.null is not None
    assert (alone.null.value, alone.details["clusters"]) == (pytest.approx(1 / 3), 9)
    assert set(alone.details["by_subgroup"]) == {"north", "south"}


def sample(**facts: Any) -> Sample:
    how = {"output_type": "multiple_choice", "ignore_case": False, "ignore_punctuation": False}
    return Sample(
        "0", {"unscored": "", "choices": ["ab", "abcd"], "right": [0], "target": "", **facts, "task": how | facts.get("task", {})}
    )


def test_a_tie_is_not_right() -> None:
    score = SUITE.score(sample(), [[-1.0], [-1.0]], OwnTaskSpec())
    assert score.values == {"acc": 0.0, "acc_norm": 0.0, "chance": 0.5}, "numpy's argmax would have given acc 1"
    assert SUITE.score(sample(), [[-1.0], [-3.0]], OwnTaskSpec()).values == {"acc": 1.0, "acc_norm": 1.0, "chance": 0.5}
    assert SUITE.score(sample(), [[-1.0], [-1.5]], OwnTaskSpec()).values["acc_norm"] == 0.0
    assert SUITE.score(sample(right=[0, 1]), [[-1.0], [-1.5]], OwnTaskSpec()).values["chance"] == 1.0


@pytest.mark.parametrize(
    ("told", "answer", "right"),
    [
        ({}, "Paris", 1.0),
        ({}, "paris", 0.0),
        ({"ignore_case": True}, "paris", 1.0),
        ({}, "Paris.", 0.0),
        ({"ignore_punctuation": True}, "Paris.", 1.0),
        ({}, "", 0.0),
    ],
)
def test_an_answer_is_compared_as_told(told: dict[str, Any], answer: str, right: float) -> None:
    asked = sample(target="Paris", task={"output_type": "generate_until", **told})
    assert SUITE.score(asked, answer, OwnTaskSpec()).values["exact_match"] == right


TEXTS = [{"text": text} for text in ("the nurse met sam ", "at  the market\nshe had bread", "because", "of a question for her friend")]


def test_perplexities_are_the_closed_forms(tmp_path: Path) -> None:
    result = ask(write(tmp_path, "task: texts\ndata: rows.jsonl\noutput_type: loglikelihood_rolling\ndoc_to_target: text\n", TEXTS))
    nats = -math.fsum(logp("", row["text"]) for row in TEXTS)
    words, octets = 5 + 6 + 1 + 6, sum(len(row["text"].encode()) for row in TEXTS)
    assert overall(result, "word_perplexity").value == pytest.approx(math.exp(nats / words), rel=1e-6)
    assert overall(result, "byte_perplexity").value == pytest.approx(math.exp(nats / octets), rel=1e-6)
    assert overall(result, "bits_per_byte").value == pytest.approx(nats / octets / math.log(2), rel=1e-6)
    for finding in SUITE.findings(result, subject="m"):
        assert (finding.null, finding.verdict) == (None, Verdict.INCONCLUSIVE), "a perplexity alone says nothing"
    assert isinstance(SUITE.request(next(iter(SUITE.samples(OwnTaskSpec(file=str(tmp_path / "task.yaml"))))), OwnTaskSpec()), Rolling)

    task = "task: ends\ndata: rows.jsonl\noutput_type: loglikelihood\ndoc_to_text: 'Say:'\ndoc_to_target: '{{text.strip()}}'\n"
    result = ask(write(tmp_path, task, TEXTS))
    expected = math.exp(-np.mean([logp("Say:", " " + row["text"].strip()) for row in TEXTS]))
    assert overall(result, "perplexity").value == pytest.approx(expected, rel=1e-6)


def test_a_row_that_is_no_question_is_counted_and_not_scored(tmp_path: Path) -> None:
    rows = [{**row, "answer": row["answer"] if k else 7} for k, row in enumerate(ROWS)]
    result = ask(write(tmp_path, rows=rows))
    assert result.values.attrs["asked"]["unscored"] == {"its answer is none of its choices": 1}
    assert np.isnan(result.values.above.values[:, 0]).all()
    assert "of 8 items" in result.summary()
    nothing = ask(write(tmp_path, rows=[{**row, "answer": "other"} for row in ROWS]))
    assert nothing.values.attrs["floor"] == "nothing was scored"
    assert [f.verdict for f in SUITE.findings(nothing, subject="m")] == [Verdict.NOT_APPLICABLE] * 2


def test_examples_stand_before_every_question(tmp_path: Path) -> None:
    shots = """who,options,answer\nZed,"['a nurse', 'a cook']",1\nYan,"['a cook', 'a spy']",0\n"""
    (tmp_path / "shots.csv").write_text(shots)
    more = 'num_fewshot: 2\nfewshot_config: {sampler: first_n}\nfewshot_data: shots.csv\ndescription: "Trades.\\n"\n'
    first = next(iter(SUITE.samples(OwnTaskSpec(file=write(tmp_path, CHOICE + more)))))
    assert first.facts["context"] == "Trades.\nQ: who is Zed?\nA: a cook\n\nQ: who is Yan?\nA: a cook\n\nQ: who is Ann?\nA:"


def test_the_same_rows_in_another_task_are_other_data(tmp_path: Path) -> None:
    sink = MemorySink()
    run_suite(SUITE, model(), OwnTaskSpec(file=write(tmp_path)), sink)
    with pytest.raises(Exception, match="another model, spec, data or suite"):
        run_suite(SUITE, model(), OwnTaskSpec(file=write(tmp_path, CHOICE.replace("Q:", "Ask:"))), sink)


def test_only_the_first_rows_are_asked_where_told(tmp_path: Path) -> None:
    assert len(ask(write(tmp_path), most=2).values.item) == 2


@pytest.mark.parametrize(
    ("task", "error", "said"),
    [
        (CHOICE.replace("cluster: who", "cluster: street"), EmptySelection, "street"),
        (CHOICE.replace("{{who}}", "{{whom}}"), BadValue, r"doc_to_text \(rows.jsonl line 1\).*columns who, options, answer, place"),
        (CHOICE.replace("doc_to_choice: options", "doc_to_choice: place"), BadValue, r"doc_to_choice \(rows.jsonl line 1\).*at least two"),
    ],
)
def test_what_a_row_lacks_is_named_with_its_line(tmp_path: Path, task: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        ask(write(tmp_path, task))


def test_a_task_must_be_named() -> None:
    with pytest.raises(BadValue, match="--set file=my-task.yaml"):
        list(SUITE.samples(OwnTaskSpec()))


SPLITS = """
task: trades
dataset_path: json
dataset_kwargs: {data_files: {train: shots.jsonl, test: rows.jsonl}}
test_split: test
doc_to_text: "Q: who is {{who}}?\\nA:"
doc_to_choice: options
doc_to_target: "{{answer}}"
num_fewshot: 2
fewshot_config: {sampler: first_n}
"""


def contexts(file: str) -> list[str]:
    return [sample.facts["context"] for sample in SUITE.samples(OwnTaskSpec(file=file))]


@pytest.mark.parametrize("named", ["training_split: train\n", "fewshot_split: train\n", "fewshot_split: train\ntraining_split: test\n"])
def test_examples_come_from_the_split_that_the_task_names(tmp_path: Path, named: str) -> None:
    shots = [{"who": name, "options": ["a spy", "a cook"], "answer": 1} for name in ("Zed", "Yan", "Xia")]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shots))
    found = contexts(write(tmp_path, SPLITS + named))
    before = "Q: who is Zed?\nA: a cook\n\nQ: who is Yan?\nA: a cook\n\n"
    assert found == [f"{before}Q: who is {row['who']}?\nA:" for row in ROWS]


def test_no_question_stands_among_its_own_examples(tmp_path: Path) -> None:
    """Where the examples are of the rows that are asked, each question is left out of its own."""
    found = contexts(write(tmp_path, SPLITS + "fewshot_split: test\n"))
    shown = [[line.split()[3].rstrip("?") for line in context.split("\n") if line.startswith("Q:")] for context in found]
    assert shown[:4] == [["Bob", "Cid", "Ann"], ["Ann", "Cid", "Bob"], ["Ann", "Bob", "Cid"], ["Ann", "Bob", "Dot"]]
    assert all(len(set(names)) == 3 for names in shown)


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("fewshot_split: test", "fewshot_split: dev", UnknownName, "There is no split 'dev'"),
        ("num_fewshot: 2", "num_fewshot: 9", BadValue, "num_fewshot is 9, but it must be at most 8"),
        ("first_n", "default", BadValue, "first_n"),
    ],
)
def test_a_split_that_gives_no_examples_is_named(tmp_path: Path, old: str, new: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        contexts(write(tmp_path, (SPLITS + "fewshot_split: test\n").replace(old, new)))


def test_a_perplexity_beside_its_equal_has_no_interval_and_no_error(tmp_path: Path) -> None:
    """Nothing bounds a difference of nats, so forty equal ones are no certainty."""
    rows = [{"text": f"the cat number {k}"} for k in range(40)]
    text = 'task: t\ndata: rows.jsonl\noutput_type: loglikelihood\ndoc_to_text: "Say:"\ndoc_to_target: "{{text}}"\n'
    result = ask(write(tmp_path, text, rows))
    own, against = SUITE.findings(result, subject="m", reference=result)
    assert own.effect is not None
    assert (against.effect, against.interval, against.verdict) == (0.0, None, Verdict.INCONCLUSIVE)
    same = ask(write(tmp_path, text, [{"text": "the cat"}] * 40))
    found = overall(same, "perplexity")
    assert found.value == pytest.approx(math.exp(-logp("Say:", " the cat")))
    assert found.interval is None
