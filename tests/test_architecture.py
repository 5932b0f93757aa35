"""Imports point one way, files are small, `import workbench` is free; each rule is tried on a planted violation."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture import FORBIDDEN_FILES, MAY_IMPORT, OURS, import_violations, size_violations

ROOT = Path(__file__).parents[1]


def test_imports_point_one_way() -> None:
    assert [str(v) for v in import_violations(ROOT)] == []


def test_sizes_and_names() -> None:
    assert [str(v) for v in size_violations(ROOT)] == []


def test_every_package_is_in_the_layer_table() -> None:
    found = {f"workbench.{folder.name}" for folder in (ROOT / "workbench").iterdir() if (folder / "__init__.py").exists()}
    assert found <= set(MAY_IMPORT), found - set(MAY_IMPORT)


PLANTED = {
    "upward": ("workbench/core/planted.py", "import probes.attention_pattern\n", "workbench.core may not import probes"),
    "sideways": ("workbench/engine/planted.py", "from workbench.store.runs import x\n", "workbench.engine may not import workbench.store"),
    "front": ("evals/planted.py", "import workbench\n", "not from the front"),
    "hidden": ("evals/planted.py", "def f():\n    import workbench.core.sites\n", "inside a function"),
    "relative": ("evals/planted.py", "from . import runner\n", "relative import"),
    "numerics": ("dashboards/planted.py", "import numpy\n", "a shell holds no numerics"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_import_is_caught(kind: str, tmp_path: Path) -> None:
    place, text, rule = PLANTED[kind]
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(text)
    found = import_violations(tmp_path)
    assert len(found) == 1
    assert rule in found[0].rule


def test_planted_sizes_are_caught(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    body = "\n".join("    x = 1" for _ in range(81))
    (tmp_path / "evals" / "long.py").write_text("\n" * 600 + f"def f(a, b, c, d, e, f, g, h, i):\n{body}\n")
    (tmp_path / "evals" / sorted(FORBIDDEN_FILES)[0]).write_text("")
    rules = " | ".join(v.rule for v in size_violations(tmp_path))
    for word in ("lines; at most 600", "a body of 81 lines", "9 parameters", "says nothing"):
        assert word in rules


def test_importing_the_front_is_free() -> None:
    code = "import sys, workbench; print(sorted(m for m in ('torch','numpy','pandas','xarray','altair') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_light_modules_stay_light() -> None:
    code = (
        "import sys, workbench.core.catalog, workbench.core.errors, workbench.core.spec, probes, evals, workbench.families; "
        "print(sorted(m for m in ('torch','numpy','pandas','xarray','altair') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_test_folder_has_seconds_in_the_budget() -> None:
    budget = tomllib.loads((ROOT / "tests" / "budget.toml").read_text())
    folders = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir() and any(p.glob("test_*.py"))} | {"."}
    for tier, limit in budget["limits"].items():
        seconds = budget["seconds"][tier]
        assert set(seconds) == folders, f"{tier}: {set(seconds) ^ folders}"
        assert sum(seconds.values()) <= limit, f"{tier} sums to {sum(seconds.values())} s; at most {limit}"


SUPPRESSIONS_AT_MOST = 40


def test_type_suppressions_have_reasons_and_only_fall() -> None:
    bare: list[str] = []
    count = 0
    for top in (*OURS, "tests"):
        for path in sorted((ROOT / top).rglob("*.py")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                mark = "type: " + "ignore" if "type: " + "ignore" in line else "pyright: " + "ignore"
                if f"# {mark}" in line:
                    count += 1
                    if "#" not in line.split(mark, 1)[1]:
                        bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert bare == [], "a type suppression needs a reason after a second #"
    assert count <= SUPPRESSIONS_AT_MOST, f"{count} type suppressions; the number may only fall from {SUPPRESSIONS_AT_MOST}"
