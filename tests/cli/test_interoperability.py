"""``workbench runs export`` and ``import``: what the page says to type, and what is said of what cannot be."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.lab.exported import asked, plain
from tests.lab.importing_files import harness_file, harness_row
from workbench.lab.exporting import FORMATS
from workbench.store.runs import Store

PAGE = (Path(__file__).parents[2] / "docs" / "interoperability.md").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A finished evaluation in the environment's store; the folder is the current one."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with Store.open() as store:
        return asked(store, plain(tmp_path))


def test_every_command_of_the_page_that_exports_works(call: Call, run: str, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("name: p\nrules:\n  - {kind: limit, name: r, of: own-task, measure: acc, at_least: 0.0}\n")
    lines = re.findall(r"^    (workbench runs export last .*)$", PAGE, re.MULTILINE)
    assert {words[words.index("--to") + 1] for words in map(shlex.split, lines)} == set(FORMATS)
    for line in lines:
        words = shlex.split(line)
        said = call(*words[1:])
        assert said.code == 0, said.err
        assert all(Path(place).is_relative_to(words[words.index("--out") + 1]) for place in said.out.splitlines())
    for form in FORMATS:
        assert f"| `{form}` |" in PAGE


def test_an_import_is_told_of_and_can_be_compared(call: Call, run: str, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        file = harness_file(tmp_path / name, [harness_row(doc, float(doc % 3 == (name == "a"))) for doc in range(30)], model_name=name)
        said = call("runs", "import", file, "--cluster", "topic.name")
        assert said.code == 0, said.err
        assert said.out.splitlines()[0].startswith("quiz: acc 0.")
        runs.append(said.out.split()[-3])
    compared = call("compare", *runs)
    assert compared.code == 0
    assert "quiz: 30 pairs of 30 samples" in compared.out
    shown = call("runs", "show", runs[0], "--json").document
    assert (shown["kind"], shown["ref"], shown["samples"]) == ("import", "a", {"quiz": 30})
    assert call("runs", "export", runs[0], "--to", "csv").code == 0
    mixed = call("compare", run, runs[0], "--suite", "quiz")
    assert mixed.code == 64
    assert "There is no suite 'quiz' in both runs" in mixed.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("runs", "export", "last"), 64, "Which format? There are lm-eval, inspect"),
        (("runs", "export", "last", "--to", "inspct"), 64, "There is no export format 'inspct'. Did you mean 'inspect'?"),
        (("runs", "export", "nope", "--to", "csv"), 64, "There is no run 'nope'"),
        (("runs", "import"), 64, "Missing argument"),
        (("runs", "import", "none.jsonl"), 3, "none.jsonl"),
        (("runs", "import", "rows.jsonl"), 3, "line 1 has no doc_id, arguments and metrics"),
        (("eval", "own-task", "-m", "family:gpt", "--engine", "rays"), 64, "engine is 'rays', but it must be local, ray, or ray:N"),
    ],
)
def test_what_cannot_be_is_said(call: Call, run: str, words: tuple[str, ...], code: int, said: str) -> None:
    found = call(*words)
    assert (found.code, said in found.err) == (code, True), found.err
    assert "Traceback" not in found.err
