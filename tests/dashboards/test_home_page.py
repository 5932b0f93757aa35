"""The first page: what runs, what was found, what to do next; useful when empty, and there before torch is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dashboards
from dashboards import gate, launch, shelf
from tests.dashboards.conftest import Home
from tests.dashboards.pages import opened, settled, texts, unlabelled
from workbench.store.runs import Store

HOME_PAGE = Path(dashboards.__file__).parent / "views" / "home.py"
ROOT = Path(__file__).parents[2]


def test_an_empty_home_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "none"))
    page = opened("home.py")
    said = texts(page).replace("\\", "")
    assert "Nothing has been run in this store yet" in said
    assert "No audit is finished yet" in said
    assert "/audit" in said
    assert "/training" in said
    assert not page.error
    assert not (tmp_path / "none").exists(), "looking makes nothing"


def test_a_filled_home_shows_runs_verdicts_and_progress(home: Home) -> None:
    page = opened("home.py")
    said = texts(page).replace("\\", "")
    assert "8 findings: 4 detected" in said
    assert "/lab?model=run" in said
    assert f"/runs?run={home.failed}" in said
    assert "https://example.org" in said
    assert "](https" not in "".join(one.value for one in page.caption), "a run's own words are no link"
    assert {one.value for one in page.header} == {"What to do next", "Running now", "Recent runs"}
    (bar,) = page.get("progress")
    assert bar.proto.value == 25
    assert "audited: training" in bar.proto.text.replace("\\", "")
    assert unlabelled(page) == []


def test_steps_follow_what_the_store_holds(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        assert [step.page for step in shelf.next_steps(store.runs.list())] == ["audit.py", "training.py", "calibration.py"]
        first, second = (store.runs.create("eval", {"suites": {"trigger": {}}, "of": i}, "run:x") for i in range(2))
        for run in (first, second):
            store.runs.finish(run)
        broken = store.runs.create("audit", {}, "organism:town")
        store.runs.finish(broken, "interrupted")
        steps = {step.page: step for step in shelf.next_steps(store.runs.list())}
        assert steps["compare.py"].query == {"first": first, "second": second}
        assert shelf.next_steps(store.runs.list())[0].query == {"run": broken}


def _imported(source: Path) -> set[str]:
    """The modules a file imports when it is imported, and not only for its types."""
    found: set[str] = set()
    tree = ast.parse(source.read_text())
    for node in [*tree.body, *(inner for one in tree.body if isinstance(one, ast.Try) for inner in one.body)]:
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    return found


def test_home_reaches_no_torch_by_its_imports() -> None:
    """Followed file by file, which takes no process; the test below asks a process."""
    todo, seen = [HOME_PAGE], set()
    while todo:
        here = todo.pop()
        for name in _imported(here):
            assert name.partition(".")[0] != "torch", f"{here} imports torch"
            place = ROOT / Path(*name.split("."))
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file() and file not in seen:
                    seen.add(file)
                    todo.append(file)
    assert len(seen) > 10, "the walk went nowhere"


@pytest.mark.full
def test_a_process_that_shows_home_never_loads_torch(home: Home) -> None:
    told = (
        "import sys\nfrom streamlit.testing.v1 import AppTest\n"
        f"page = AppTest.from_file({str(HOME_PAGE)!r}, default_timeout=60).run()\n"
        "assert not page.exception and page.header\nsys.exit(10 if 'torch' in sys.modules else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-500:]


def test_another_address_is_closed_without_a_token(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(launch.TOKEN, raising=False)
    page = opened("../app.py")  # started without launch, Streamlit listens on all addresses
    assert "stay closed until" in page.error[0].value
    assert not page.header
    monkeypatch.setenv(launch.TOKEN, "short")
    assert "stay closed until" in opened("../app.py").error[0].value


def test_the_token_opens_it_and_a_wrong_one_does_not(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "a long enough secret for a test"
    monkeypatch.setenv(launch.TOKEN, secret)
    monkeypatch.setattr(gate, "WAIT_S", 0.0)
    page = opened("../app.py")
    assert not page.header
    page.text_input(key="token").set_value(secret[:-1]).run()
    assert "not the token" in settled(page).error[0].value
    assert not page.header
    page.text_input(key="token").set_value(secret).run()
    assert "What to do next" in [one.value for one in settled(page).header]
    assert secret not in str(page.query_params)


@pytest.mark.parametrize(("address", "local"), [("127.0.0.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("", False),
                                                ("0.0.0.0", False), ("192.168.1.2", False), ("::", False), ("my.host", False)])  # fmt: skip
def test_which_addresses_are_this_machines(address: str, local: bool) -> None:
    assert launch.is_local(address) is local
