"""The page on gates: its policy is one, its pipelines name commands and options that are there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.cli.conftest import Call
from workbench.lab.gating.policy import Policy, read_policy

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("gates", "evidence")}
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGES["gates"], re.DOTALL)


def test_the_policy_of_the_page_is_one_and_names_every_field() -> None:
    found, _, _ = read_policy(yaml.safe_load(BLOCKS[0]))
    assert found.name == "release"
    assert all(f"{name}:" in BLOCKS[0] for name in Policy.model_fields)


def test_the_pipelines_are_yaml_and_their_commands_exist(call: Call) -> None:
    github, gitlab = (yaml.safe_load(block) for block in BLOCKS[1:])
    steps = [step["run"] for step in github["jobs"]["audit"]["steps"] if "run" in step]
    lines = [line.strip() for text in (*steps, *gitlab["audit"]["script"]) for line in text.splitlines()]
    asked = [line.split() for line in lines if line.startswith("workbench ")]
    assert len(asked) == 5
    for _, name, *words in asked:
        shown = call(name, "--help").out
        assert [word for word in words if word.startswith("--") and f"{word} " not in shown] == []


def test_every_check_and_code_is_on_its_page(call: Call) -> None:
    for name in (
        "container",
        "entries",
        "form",
        "journal",
        "agreement",
        "signature",
        "results",
        "spans",
        "findings",
        "report",
        "samples again",
    ):
        assert f"\n| {name} |" in PAGES["evidence"]
    for code in (0, 1, 2, 3, 64):
        assert f"\n| {code} |" in PAGES["gates"]
