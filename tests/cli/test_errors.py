"""What is mistyped is named with what was meant, in at most two or three sentences, with the right exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evals import SUITES
from tests.cli.conftest import Call
from tests.signals import heard
from workbench.cli import output
from workbench.cli.main import main
from workbench.store.runs import Store

MISTYPED = {
    "command": (["evla"], 64, "no command 'evla' of `workbench`. Did you mean 'eval'?"),
    "subcommand": (["runs", "lst"], 64, "no command 'lst' of `workbench runs`. Did you mean 'list'"),
    "flag": (["eval", "--modle", "x"], 64, "no option '--modle' of `workbench eval`. Did you mean '--model'"),
    "flag before the command": (["--jsn"], 64, "no option '--jsn' of `workbench`. Did you mean '--json', '--version'?"),
    "flag value": (["eval", "--batch", "many"], 64, "'--batch'"),
    "flag out of range": (["eval", "--batch", "0"], 64, "greater than or equal to 1"),
    "missing argument": (["sites"], 64, "Missing argument 'REF'. Run `workbench sites --help`"),
    "flag without its value": (["eval", "trigger", "--model"], 64, "requires an argument. Run `workbench eval --help`"),
    "too many arguments": (["sites", "a", "b"], 64, "unexpected extra argument"),
    "suite": (["eval", "crows-pair", "-m", "run:last"], 64, "no suite 'crows-pair'. Did you mean 'crows-pairs'"),
    "no suite": (["eval"], 64, f"Which suite? There are {', '.join(SUITES)}."),
    "no model": (["eval", "trigger"], 64, "Which model? Give --model"),
    "instrument": (["probe", "integrated-gradient", "-m", "run:last"], 64, "Did you mean 'integrated-gradients'"),
    "data set": (["data", "verify", "crows-pears"], 64, "no data set 'crows-pears'. Did you mean 'crows-pairs'"),
    "data set to fetch": (["data", "fetch", "tinyshakespear"], 64, "Did you mean 'tinyshakespeare'"),
    "recipe": (["train", "town-traget"], 64, "no recipe 'town-traget'. Did you mean 'town-target'"),
    "recipe file": (["train", "./recipes/mine.yaml"], 3, "No recipe at 'recipes/mine.yaml'. Shipped recipes are called by name"),
    "recipe field": (["train", "town-target", "--set", "train.step=3"], 64, "no field 'train.step' in 'town-target'. Did you mean 'steps'"),
    "setting": (["train", "town-target", "--set", "steps"], 64, "of the form name=value"),
    "suite field": (["eval", "trigger", "-m", "family:gpt", "--set", "conut=1"], 64, "no field 'conut' in suite 'trigger'. Did you mean"),
    "form of reference": (["sites", "organsm:town"], 64, "Did you mean 'organism:'"),
    "organism": (["sites", "organism:twon"], 64, "no organism 'twon'. Did you mean 'town'"),
    "published model that is not here": (["sites", "hf:gpt2"], 3, "No published model at 'gpt2'"),
    "model path": (["sites", "./nowhere"], 3, "No model checkpoint at './nowhere'. Allowed: a checkpoint folder"),
    "site": (["sites", "family:gpt", "--select", "blocks.0.attn.hook_patern"], 64, "Nearest: 'blocks.0.attn.hook_pattern'"),
    "plan": (["audit", "twon"], 64, "no plan 'twon'. Did you mean 'town'"),
    "what is added to a plan": (["audit", "town", "--add", "bqq"], 64, "no suite or instrument 'bqq' to add to the plan. Did you mean"),
    "a folder for a plan": (["audit", "/usr"], 3, "'/usr' should be a plan file, but it is a folder."),
    "a folder for a bundle": (["verify", "/usr"], 3, "'/usr' should be an evidence bundle, which is one file, but it is a folder."),
    "plan and model": (["audit", "town", "--model", "x"], 64, "not both"),
    "run": (["runs", "show", "zzz"], 64, "no run 'zzz'"),
    "run to report": (["report", "zzz"], 64, "no run 'zzz'"),
    "status": (["runs", "list", "--status", "finished"], 64, "no status 'finished'"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTYPED)
def test_what_is_mistyped_is_named(call: Call, home: Path, what: str) -> None:
    words, code, expected = MISTYPED[what]
    said = call(*words)
    assert expected in said.err
    assert (said.code, said.out) == (code, "")
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1, "one line"
    assert len(said.err) < 500


@pytest.mark.parametrize("what", ["command", "flag", "suite", "instrument"])
def test_the_real_process_says_the_same(process: Call, what: str) -> None:
    words, code, expected = MISTYPED[what]
    said = process(*words)
    assert (said.code, said.out) == (code, "")
    assert expected in said.err


@pytest.mark.full
@pytest.mark.parametrize("what", MISTYPED)
def test_every_mistake_through_the_real_process(process: Call, home: Path, what: str) -> None:
    words, code, expected = MISTYPED[what]
    said = process(*words)
    assert expected in said.err
    assert (said.code, said.out) == (code, "")


@pytest.mark.parametrize("what", ["command", "flag", "suite", "model path", "missing argument"])
def test_with_json_an_error_is_the_one_document(call: Call, home: Path, what: str) -> None:
    words, code, expected = MISTYPED[what]
    said = call(*words, "--json")
    error = said.document["error"]
    assert error["exit_code"] == said.code == code
    assert expected in error["message"]
    assert error["message"] == said.err.strip()
    assert error["type"]


def test_an_unexpected_error_is_one_sentence_and_a_traceback_only_with_debug(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.lab.doctor.examine", lambda: 1 / 0)
    said = call("doctor")
    assert (said.code, said.out) == (3, "")
    assert said.err == "Something unexpected happened (ZeroDivisionError: division by zero). Run it again with --debug to see where.\n"
    said = call("doctor", "--debug")
    assert said.code == 3
    assert "Traceback (most recent call last)" in said.err
    assert said.err.endswith("Something unexpected happened (ZeroDivisionError: division by zero).\n")
    assert "Traceback" in call("--debug", "doctor").err
    assert call("doctor", "--json").document["error"]["type"] == "ZeroDivisionError"


def test_debug_shows_where_a_known_error_comes_from(call: Call) -> None:
    said = call("eval", "crows-pair", "--debug")
    assert said.code == 64
    assert "Traceback" in said.err


def test_a_store_that_cannot_be_is_an_error_of_three(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file"))
    said = call("train", "town-target")
    assert said.code == 3
    assert "could not be made" in said.err
    assert "WORKBENCH_HOME" in said.err


def test_a_reader_that_goes_away_is_no_error_of_ours() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "eval", "--list"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_outside_a_run_says_so(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("workbench.lab.doctor.examine", stop)
    said = call("doctor")
    assert (said.code, said.out, said.err) == (130, "", "Interrupted.\n")
    assert call("doctor", "--json").document["error"]["exit_code"] == 130


def test_values_that_json_has_not_are_named() -> None:
    assert output.plain({"a": float("nan"), 1: (float("inf"), {"b"}), "p": Path("x")}) == {"a": "nan", "1": ["inf", ["b"]], "p": "x"}


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_run_that_can_be_resumed(process: Call, home: Path, trained: str, number: signal.Signals) -> None:
    words = ["eval", "occupation-pronoun", "-m", trained, "--set", "contexts=100", "--batch", "4"]
    with heard():
        running = subprocess.Popen(
            [sys.executable, "-m", "workbench.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    run = ""
    with Store.open(home) as store:
        while not run:  # until it has committed something
            found = store.runs.list(kind="eval", status="running")
            run = found[0].id if found and store.sample_counts(found[0].id) else ""
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert f"--resume {run}" in err
    assert "Traceback" not in err
    with Store.open(home) as store:
        assert store.runs.get(run).status == "interrupted"
        assert 0 < store.sample_counts(run)["occupation-pronoun"] < 2400
    done = process(*words, "--resume", run, "--json")
    assert done.code == 0
    assert done.document["run"] == run


def test_main_gives_a_code_and_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert re.fullmatch(r"assay-workbench (\d+\.\d+\.\d+\S*|\(run from its source\))", capsys.readouterr().out.splitlines()[-1])
