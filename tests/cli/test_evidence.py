"""Keys, bundles, verification and gates at the command line, with the exit codes that a pipeline reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.lab.audited import home_with_audit

POLICY = """
name: lean
rules:
  - {{kind: limit, name: no lean, of: occupation-pronoun, measure: "measured dose*", at_most: {at_most}}}
"""


@pytest.fixture
def keys_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys_folder: Path) -> str:
    """The id of an audit in the environment's home."""
    home, run = home_with_audit()
    shutil.copytree(home, tmp_path / "audited")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "audited"))
    return run


def test_keys_are_made_listed_and_trusted(call: Call, keys_folder: Path) -> None:
    assert call("keys", "list").out == "There are no keys here yet. `workbench keys new NAME` makes one.\n"
    made = call("keys", "new", "lab", "--json").document
    assert made["fingerprint"].startswith("sha256:")
    assert Path(made["private"]).stat().st_mode & 0o777 == 0o600
    assert call("keys", "new", "lab").code == 64
    assert call("keys", "trust", str(keys_folder / "lab.pub"), "--as", "the lab").out == f"trusted: {made['fingerprint']} the lab\n"
    listed = call("keys", "list", "--json").document
    assert listed["own"] == {"lab": made["fingerprint"]}
    assert listed["trusted"] == {made["fingerprint"]: "the lab"}
    assert call("keys", "trust", "sha256:12").code == 64


def test_what_is_typed_wrongly_is_64_and_what_is_not_there_is_3(call: Call, tmp_path: Path) -> None:
    assert call("gate", "last").code == 64
    assert call("gate", "last", "--polcy", "x").code == 64
    assert "Did you mean '--policy'" in call("gate", "last", "--polcy", "x").err
    assert call("report", "--key", "own").code == 64
    assert call("verify", "x.zip", "--samples", "0").code == 64
    assert call("verify", "none.zip").code == 3
    said = call("gate", "--schema")
    assert (said.code, json.loads(said.out)["title"]) == (0, "Policy")
    assert call("gate", "--schema", "--json").document == json.loads(said.out)


@pytest.mark.full
def test_a_bundle_is_written_checked_and_doubted(call: Call, audited: str, keys_folder: Path, tmp_path: Path) -> None:
    mark = call("keys", "new", "lab", "--json").document["fingerprint"]
    place = str(tmp_path / "out.zip")
    made = call("report", audited, "--bundle", place, "--key", "lab", "--json").document["bundle"]
    assert made["signer"] == mark
    unknown = call("verify", place)
    assert unknown.code == 2
    assert mark in unknown.out
    assert unknown.out.endswith("inconclusive\n")
    assert call("verify", place, "--key", str(keys_folder / "lab.pub")).code == 0
    assert call("keys", "trust", mark).code == 0
    said = call("verify", place, "--json")
    assert (said.code, said.document["verdict"], said.document["signer"]) == (0, "verified", mark)
    content = bytearray(Path(place).read_bytes())
    at = content.index(b"PAR1")
    content[at] ^= 1
    Path(place).write_bytes(content)
    broken = call("verify", place)
    assert broken.code == 1
    assert "samples/occupation-pronoun.audited.parquet" in broken.out
    assert call("report", audited, "--bundle", place).code == 64, "nothing is written over"


@pytest.mark.full
def test_a_gate_says_by_its_code_what_it_decided(call: Call, audited: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    seen = 0.0
    for at_most, code, word in ((1.0, 0, "pass"), (-1.0, 1, "fail"), (None, 2, "inconclusive")):
        policy.write_text(POLICY.format(at_most=seen if at_most is None else at_most))
        said = call("gate", audited, "--policy", str(policy), "--out", str(tmp_path / "out"), "--json")
        assert (said.code, said.document["state"]) == (code, word)
        seen = said.document["decisions"][0]["effect"]
        assert len(said.document["files"]) == 3
        assert all(Path(file).is_file() for file in said.document["files"])
    assert call("gate", audited, "--policy", str(policy)).out.splitlines()[-4].startswith("lean: inconclusive")
    policy.write_text("name: x\nrules: []\n")
    assert call("gate", audited, "--policy", str(policy)).code == 3
