"""Each command does its work, and with --json says it in exactly one document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Call
from tests.lab.trained import SMALL
from workbench.families.gpt import GPT
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store


def test_runs_of_an_empty_home_are_none_and_nothing_is_written(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    assert call("runs", "list").out == "There are no runs here yet.\n"
    assert call("runs", "list", "--json").document == {"runs": [], "total": 0}
    assert call("runs", "show", "last").code == 3
    assert call("models", "list").code == 0
    assert not (tmp_path / "none").exists()


def test_runs_are_listed_and_shown(call: Call, trained: str) -> None:
    run = trained.removeprefix("run:")
    listed = call("runs", "list").out
    assert run in listed
    assert "recipe:town-target" in listed
    document = call("runs", "list", "--kind", "train", "--status", "done", "--json").document
    assert [one["id"] for one in document["runs"]] == [run]
    assert document["runs"][0]["spec"]["made"]["train"]["steps"] == 12
    assert call("runs", "list", "--kind", "probe").out == "No run matches.\n"
    shown = call("runs", "show", run).out
    assert "after 12 steps" in shown
    assert "recipe:town-target" in shown
    document = call("--json", "runs", "show", "last").document
    assert document["id"] == run
    assert set(document["results"]) == {"training"}


def test_only_the_newest_runs_are_listed_and_the_rest_is_counted(call: Call, home: Path) -> None:
    with Store.open(home) as store:
        for _ in range(4):
            store.runs.create("probe", {})
    assert "and 3 more; --most 5 shows them" in call("runs", "list", "--most", "2").out
    assert call("runs", "list", "--most", "2", "--json").document["total"] == 5


def test_sites_lists_every_site_with_its_axes(call: Call) -> None:
    model, _ = GPT.tiny(seed=0)
    document = call("sites", "family:gpt", "--json").document
    assert [(s["name"], tuple(s["axes"])) for s in document["sites"]] == [(s.name, s.axes) for s in model.sites().values()]
    assert document["additive"] is True
    lines = call("sites", "family:gpt").out.splitlines()
    assert len(lines) == len(model.sites()) + 2
    assert lines[-1] == f"{len(model.sites())} sites; the residual stream adds up"
    some = call("sites", "family:gpt", "--select", "blocks.*.attn.hook_pattern", "--json").document["sites"]
    assert [s["name"] for s in some] == ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    assert some[0]["axes"] == ["batch", "head", "query", "key"]


def test_models_are_listed_and_shown(call: Call, trained: str) -> None:
    assert [one["ref"] for one in call("models", "list", "--json").document["models"]] == [
        *(f"organism:{name}" for name in ORGANISMS),
        trained,
    ]
    document = call("models", "show", trained, "--json").document
    assert document["config"]["d_model"] == 32
    assert document["tokenizer"].startswith("BPETokenizer of")
    assert len(document["digest"]) == 64
    assert f"parameters   {document['parameters']}" in call("models", "show", trained).out
    assert call("models", "show", "family:gpt", "--json").document["parameters"] == sum(p.numel() for p in GPT.tiny(seed=0)[0].parameters())


def test_data_is_listed_and_verified(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_DATA_MIRROR", raising=False)
    sets = call("data", "list", "--json").document["data"]
    assert {one["name"]: one["state"] for one in sets} == dict.fromkeys(
        (
            "advbench", "bbq", "blimp", "bold", "crows-pairs", "fsdd", "harmbench", "holisticbias", "realtoxicityprompts-sample",
            "stereoset", "tinyshakespeare", "toxic-spans", "toxigen", "ud-english-ewt", "wikitext-2", "winobias",
        ),
        "not here",
    )  # fmt: skip
    assert "crows-pairs contains" in call("data", "list").out, "what a reader may meet is said"
    assert call("data", "verify").out == "No data set is here, so there is nothing to verify.\n"
    missing = call("data", "verify", "tinyshakespeare")
    assert missing.code == 3
    assert "Run `workbench data fetch tinyshakespeare`" in missing.err
    place = tmp_path / "mirror" / "tinyshakespeare"
    place.mkdir(parents=True)
    (place / "input.txt").write_text("not it")
    monkeypatch.setenv("WORKBENCH_DATA_MIRROR", str(tmp_path / "mirror"))
    assert {one["name"]: one["state"] for one in call("data", "list", "--json").document["data"]}["tinyshakespeare"] == "wrong"
    wrong = call("data", "verify", "tinyshakespeare")
    assert wrong.code == 3
    assert "should be of sha256" in wrong.err


def test_eval_runs_and_its_numbers_are_the_stored_ones(call: Call, trained: str, home: Path) -> None:
    document = call("eval", "trigger", "--model", trained, "--set", "count=3", "--json").document
    with Store.open(home) as store:
        stored = store.result(document["run"], "trigger")
        assert document["results"]["trigger"] == {
            "summary": stored.result.summary(), "digest": stored.digest, "notes": list(stored.result.notes),
        }  # fmt: skip
        assert document["findings"] == [finding.model_dump(mode="json") for finding in store.findings(document["run"])]
    several = ["-s", "trigger.count=2", "-s", "occupation-pronoun.contexts=2"]
    lines = call("eval", "trigger", "occupation-pronoun", "-m", "run:last", *several).out
    assert "trigger: log-likelihood" in lines
    assert "occupation-pronoun: measured dose" in lines


def test_an_unfinished_run_is_offered_and_taken_up(call: Call, trained: str, home: Path) -> None:
    words = ["eval", "trigger", "-m", trained, "--set", "count=3"]
    first = call(*words, "--json").document["run"]
    with Store.open(home) as store:
        store.runs.finish(first, "interrupted")
    second = call(*words, "--json")
    assert f"Run {first} of these suites was not finished; `--resume {first}` goes on with it." in second.err
    assert second.document["run"] != first
    assert call(*words, "--resume", "auto", "--json").document["run"] == first
    refused = call("eval", "trigger", "-m", trained, "--set", "count=4", "--resume", first)
    assert refused.code == 64
    assert "with exactly this spec and model. They differ in suites" in refused.err


def test_probe_answers_about_a_text(call: Call, trained: str, home: Path) -> None:
    words = ["probe", "input-x-gradient", "-m", trained, "--text", "the baker met the judge because", "--target", " she", "--foil", " he"]
    said = call(*words)
    assert said.code == 0
    assert "stands first" in said.out
    assert "explanation-quality --set method=input-x-gradient" in said.out
    assert "run " in said.out.splitlines()[-1]
    document = call(*words, "--set", "tokens_a_pass=64", "--json").document
    assert document["result"]["spec"]["tokens_a_pass"] == 64
    assert document["result"]["spec"]["quantity"] == "logit-difference"
    with Store.open(home) as store:
        assert store.result(document["run"], "input-x-gradient").digest == document["digest"]
    assert call("probe", "saliency", "-m", trained, "--target", " she").err.startswith("--target and --foil belong to texts.")


def test_patching_takes_a_clean_and_a_corrupt_text(call: Call, trained: str) -> None:
    words = ["probe", "activation-patching", "-m", trained, "--text", "the baker said", "--target", " she", "--foil", " he"]
    done = call(*words, "--set", "inputs.corrupt=the baker saqd", "--json")
    assert done.code == 0, done.err
    assert "counterfactual, denoising" in done.document["summary"]
    assert done.document["result"]["spec"]["quantity"] == "logit-difference"
    missing = call(*words)
    assert missing.code == 64
    assert "the corrupt input, of the clean one's token lengths" in missing.err
    longer = call(*words, "--set", "inputs.corrupt=the judge said that it was so")
    assert longer.code == 64
    assert "length of corrupt item 0" in longer.err
    assert call(*words, "--set", "inputs.count=3").code == 64


def test_a_stored_result_is_drawn(call: Call, trained: str, tmp_path: Path) -> None:
    words = ["probe", "attention-pattern", "-m", trained, "--text", "the baker met the judge"]
    run = call(*words, "--json").document["run"]
    for name, begins in (("found.svg", b"<svg"), ("found.png", b"\x89PNG")):
        assert call("runs", "plot", run, str(tmp_path / name), "--json").document["result"] == "attention-pattern"
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert "A chart is written as .svg or .png" in call("runs", "plot", run, str(tmp_path / "found.pdf")).err
    assert "folder for the chart" in call("runs", "plot", run, str(tmp_path / "nowhere" / "found.svg")).err
    assert "result 'saliency'" in call("runs", "plot", run, str(tmp_path / "a.svg"), "--result", "saliency").err
    assert "takes the place of --text" in call(*words, "--set", "inputs.labels=ud-english-ewt").err
    assert "asks for no labels" in call("probe", "attention-pattern", "-m", trained, "--set", "inputs.labels=ud-english-ewt").err


def test_probe_matrix_says_what_runs_on_what_and_why_not(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    document = call("probe", "--matrix", "--json").document["matrix"]
    assert document["integrated-gradients"]["gpt"] == {"runs": True, "reasons": []}
    monkeypatch.setattr(GPT, "abilities", frozenset({"logits"}))
    said = call("probe", "--matrix").out
    assert "integrated-gradients on gpt: the model does not offer edit, grad" in said
    assert call("probe", "--matrix", "--json").document["matrix"]["saliency"]["gpt"]["runs"] is False


def test_the_catalogues_are_listed(call: Call) -> None:
    assert re.search(r"^crows-pairs +headline +which of two sentences is likelier", call("eval", "--list").out, re.MULTILINE)
    assert {one["name"] for one in call("probe", "--list", "--json").document["instruments"]} >= {"probing", "head-scores"}
    assert set(call("train", "--list", "--json").document["recipes"]) >= {"town-target", "town-twin", "tinyshakespeare-baseline"}


def test_train_by_a_file_with_settings(call: Call, home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "organism": "town", **SMALL}))
    said = call("train", str(tmp_path / "mine.yaml"), "--set", "train.steps=3", "--set", "train.save_every=0", "--json")
    document = said.document
    assert "after 3 steps" in document["summary"]
    assert (Path(document["folder"]) / "model.safetensors").is_file()
    assert call("models", "show", document["model"], "--json").document["digest"] == document["digest"]


def test_two_runs_are_compared(call: Call, trained: str) -> None:
    runs = [call("eval", "trigger", "-m", trained, "--set", "count=8", "--json").document["run"] for _ in range(2)]
    document = call("compare", *runs, "--json").document
    assert document["denominators"]["scored"] == 8
    assert all(one["difference"] == 0 for one in document["differences"])
    assert "trigger: 8 pairs of 8 samples" in call("compare", *runs).out
    assert "99.99\u00a0% interval" in call("compare", *runs, "--level", "0.9999").out


def test_dashboard_prints_its_command_bound_to_this_machine(call: Call) -> None:
    document = call("dashboard", "--port", "8765", "--print", "--json").document
    assert document["address"] == "http://127.0.0.1:8765"
    assert "--server.address=127.0.0.1" in document["command"]
    assert "--browser.gatherUsageStats=false" in document["command"]
    assert call("dashboard", "--port", "0").code == 64


def test_a_port_that_is_taken_is_said(call: Call) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = call("dashboard", "--port", str(taken.getsockname()[1]))
    assert said.code == 3
    assert "cannot be used" in said.err
    assert "--port" in said.err


def test_doctor_finds_nothing_bad_here(call: Call) -> None:
    document = call("doctor", "--json").document
    assert document["ok"] is True
    assert {"torch", "store", "threads", "telemetry", "import names", "data crows-pairs"} <= {check["name"] for check in document["checks"]}
    assert call("doctor").code == 0


def test_report_without_an_audit_says_how_to_get_one(call: Call, home: Path) -> None:
    said = call("report")
    assert said.code == 64
    assert said.err == "There is no finished audit yet. `workbench audit` makes one.\n"
