"""Task files and their rows: what is read, and what is refused by name; templates fill in words and do nothing else."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from evals.own_task.file import read
from evals.own_task.rows import rows_of
from evals.own_task.template import LONGEST, filled
from workbench.core.errors import AssayError, BadValue, CorruptFile, MissingFile, UnknownName

PLAIN = "task: t\ndata: rows.csv\ndoc_to_text: q\ndoc_to_choice: [yes, no]\ndoc_to_target: a\n"


def task(folder: Path, text: str) -> Any:
    (folder / "t.yaml").write_text(text, encoding="utf-8")
    return read(folder / "t.yaml")


def test_a_file_of_another_program_is_read(tmp_path: Path) -> None:
    text = """
    task: quiz
    tag: [a, b]
    dataset_path: json
    dataset_name: null
    dataset_kwargs: {data_files: {train: train.jsonl, test: [one.jsonl, two.jsonl]}}
    test_split: test
    validation_split: train
    output_type: generate_until
    doc_to_text: "{{question}}"
    doc_to_target: answer
    generation_kwargs: {until: ["\\n", "Q:"], max_gen_toks: 12, do_sample: false, temperature: 0.0}
    metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}]
    num_fewshot: 0
    metadata: {version: 1.0}
    """
    found = task(tmp_path, "\n".join(line.removeprefix("    ") for line in text.splitlines()))
    assert found.data == (str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl"))
    assert (found.until, found.most, found.metrics, found.ignore_case) == (("\n", "Q:"), 12, ("exact_match",), True)


def test_a_file_includes_one_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(PLAIN)
    found = task(tmp_path, "include: base.yaml\ntask: mine\n")
    assert (found.task, found.doc_to_choice) == ("mine", ("True", "False")), "yes and no without quotes are truth values of YAML"
    for other in ("../base.yaml", "t.yaml", "/etc/hosts"):
        with pytest.raises(BadValue, match="another task file of the same folder"):
            task(tmp_path, f"include: {other}\n{PLAIN}")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (PLAIN + "process_docs: !function run.me\n", CorruptFile, "'!function' runs code"),
        (PLAIN + "x: !!python/object/apply:os.system ['true']\n", CorruptFile, "could not determine a constructor"),
        (PLAIN + "process_results: f\n", BadValue, "process_results of task file 't.yaml'.*it runs code"),
        (PLAIN + "filter_list: [{name: x}]\n", BadValue, "answers are compared as they are"),
        (PLAIN + "gen_prefix: A\n", BadValue, "not rebuilt here"),
        (PLAIN + "dataset_path: hellaswag\n", BadValue, "left out where there is `data`"),
        (PLAIN.replace("data: rows.csv", "dataset_path: hellaswag"), BadValue, "csv or json: a task reads files, and fetches none"),
        (PLAIN.replace("rows.csv", "https://there/rows.csv"), BadValue, "nothing is fetched"),
        (PLAIN.replace("rows.csv", "[]"), BadValue, "the path of a file or folder"),
        (PLAIN.replace("doc_to_target: a", ""), BadValue, "the right answer"),
        (PLAIN.replace("doc_to_choice: [yes, no]", ""), BadValue, "a list of choices"),
        (PLAIN + "output_type: perplexity\n", UnknownName, "output_type"),
        (PLAIN + "metric_list: [{metric: f1}]\n", UnknownName, "metric of task file"),
        (PLAIN + "metric_list: acc\n", UnknownName, "metric of task file"),
        (PLAIN + "metric_list: [{metric: acc, aggregation: median}]\n", BadValue, "aggregation of acc"),
        (PLAIN + "num_fewshot: 3\n", BadValue, "another program's draw is not repeated"),
        (PLAIN + "num_fewshot: 3\nfewshot_config: {sampler: first_n}\n", BadValue, "apart from the rows that are asked"),
        (PLAIN + "generation_kwargs: {do_sample: true}\n", BadValue, "greedy"),
        (PLAIN + "generation_kwargs: {top_p: 1}\n", UnknownName, "top_p"),
        (PLAIN + "repeats: 4\n", BadValue, "greedy answer is the same"),
        (PLAIN + "doc_to_txt: q\n", UnknownName, "doc_to_txt.*doc_to_text"),
        ("- a list\n", CorruptFile, "a YAML mapping"),
        ("a: [1\n", CorruptFile, "a YAML file"),
        ("1: 2\n", CorruptFile, "a YAML mapping"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tmp_path: Path, text: str, error: type[AssayError], said: str) -> None:
    with pytest.raises(error, match=said):
        task(tmp_path, text)


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    text = PLAIN.replace("data: rows.csv", "dataset_path: csv\ndataset_kwargs: {data_files: {dev: a.csv}}\ntest_split: test")
    with pytest.raises(UnknownName, match="split 'test'.*dev"):
        task(tmp_path, text)


# --- rows ---------------------------------------------------------------------------------------------------


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text('q,a\n"one, ""two""",1\n\nthree,2\n', encoding="utf-8-sig")
    (tmp_path / "a.jsonl").write_text('{"q": "x"}\n\n{"q": "y"}\n')
    (tmp_path / "c.json").write_text('[{"q": 1}]')
    (tmp_path / "d.tsv").write_text("q\ta\nz\t9\n")
    (tmp_path / "notes.md").write_text("not asked")
    found = [(row.where, row.columns) for row in rows_of([tmp_path])]
    assert found == [
        ("a.jsonl line 1", {"q": "x"}), ("a.jsonl line 3", {"q": "y"}), ("b.csv line 2", {"q": 'one, "two"', "a": "1"}),
        ("b.csv line 4", {"q": "three", "a": "2"}), ("c.json line 1", {"q": 1}), ("d.tsv line 2", {"q": "z", "a": "9"}),
    ]  # fmt: skip


def test_a_long_cell_is_read_and_other_readers_keep_their_limit(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text("q\n" + "x" * 200_000 + "\n")
    assert len(rows_of([tmp_path / "a.csv"])[0].columns["q"]) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"q,a\n1,2\n3\n", "line 3 has 1 cells and there are 2 columns"),
        ("a.csv", b"q,q\n1,2\n", "'q' stands twice"),
        ("a.csv", b'q\n"open\n', "is not"),
        ("a.csv", b"q\n\xff\n", "byte 2 is not"),
        ("a.csv", b"", "there is none"),
        ("a.csv", b"q,a\n", "there is none"),
        ("a.jsonl", b'{"q": 1}\n[1]\n', "line 2 is not one"),
        ("a.jsonl", b'{"q": 1}\n{"q": \n', "line 2 is not"),
        ("a.json", b'{"q": 1}', "it is none"),
        ("a.json", b"[1", "line 1 is not json"),
        ("a.txt", b"q", "it ends in '.txt'"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=said):
        rows_of([tmp_path / name])


def test_no_file_is_named(tmp_path: Path) -> None:
    for place in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(MissingFile, match="Give csv, tsv, jsonl or json files"):
            rows_of([place])


# --- templates ----------------------------------------------------------------------------------------------

ROW: dict[str, Any] = {"who": "Ann", "n": 3, "all": ["x", "y"], "deep": {"a": "b"}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{who}} has {{n * 2}}\n", "Ann has 6\n"),
        ("{% for one in all %}{{loop.index}}. {{one | upper}} {% endfor %}", "1. X 2. Y "),
        ("{{who.lower().replace('a', 'e')}}{{deep.a}}{{deep['a']}}", "ennbb"),
        ("{% if n > 2 %}many{% else %}few{% endif %}", "many"),
        ("{{who | replace('n', 'm')}} {{who | regex_replace('n+', '-')}}", "Amm A-"),
        ("{{all[::-1] | join(', ')}}", "y, x"),
        ("<b>{{'<i>'}}", "<b><i>"),
    ],
)
def test_a_template_fills_in_words(template: str, text: str) -> None:
    assert filled(template, ROW, where="here") == text


@pytest.mark.parametrize(
    "template",
    [
        "{{who.__class__.__mro__}}",
        "{{who.format(n)}}",
        "{{'{:999999999d}'.format(1)}}",
        "{{'%0999999999d' % 1}}",
        "{{'x' * 999999999}}",
        "{{[0] * 999999999}}",
        "{{9 ** 9 ** 9}}",
        "{{who.zfill(999999999)}}",
        "{{who | center(999999999)}}",
        "{{who | indent(999999999)}}",
        "{% for i in range(99999) %}{% endfor %}",
        "{% set a = 'x' %}{{a}}",
        "{% set a %}x{% endset %}{{a}}",
        "{% macro a() %}{{a()}}{% endmacro %}{{a()}}",
        "{% include 'other' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{cycler}}",
        "{{lipsum()}}",
        "{{all.append(1)}}",
        "{{deep.update(a=1)}}",
        "{{all | random}}",
        "{{who | regex_replace('(', '')}}",
        "{{who | regex_replace('" + "a" * 101 + "')}}",
        "{{" + "who.replace('', who)" + ".replace('n', 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn')" * 9 + "}}",
        "{{whom}}",
        "{{ who",
        "{{n / 0}}",
        "{{n.x.y}}",
        "{{who + n}}",
    ],
)
def test_it_does_nothing_else(template: str) -> None:
    with pytest.raises(BadValue, match="here is"):
        filled(template, ROW, where="here")


def test_a_text_without_end_is_cut_off() -> None:
    with pytest.raises(BadValue, match=f"over {LONGEST:,} characters"):
        filled("{% for a in many %}{{many}}{% endfor %}", {"many": "x" * 2_000}, where="here")


def test_a_row_is_not_repeated_in_an_error() -> None:
    with pytest.raises(BadValue) as error:
        filled("{{text + 1}}", {"text": "harmful words"}, where="here")
    assert "harmful" not in str(error.value)
