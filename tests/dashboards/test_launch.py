"""The dashboard is served to this machine only and sends nothing, whatever a user's own settings say."""

from __future__ import annotations

import ast
import importlib.util
import tomllib
from pathlib import Path

import pytest
from streamlit import config as streamlit_config

import dashboards
from dashboards import launch
from tests.reports.accessibility import contrast
from workbench.core.charts import palette
from workbench.core.errors import BadValue, MissingExtra

FOLDER = Path(dashboards.__file__).parent
CONFIG = tomllib.loads((FOLDER / ".streamlit" / "config.toml").read_text())


def test_the_command_serves_this_machine_and_is_silent() -> None:
    words = launch.command(8123)
    assert words[1:5] == ["-m", "streamlit", "run", str(FOLDER / "app.py")]
    assert Path(words[4]).is_file()
    for flag in (
        "--server.port=8123",
        "--server.address=127.0.0.1",
        "--browser.gatherUsageStats=false",
        "--client.showErrorDetails=none",
        "--client.toolbarMode=minimal",
        "--server.fileWatcherType=none",
        "--server.headless=true",
    ):
        assert words.count(flag) == 1
    assert launch.address(8123) == "http://127.0.0.1:8123"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_there_is_not_is_refused(port: int) -> None:
    with pytest.raises(BadValue, match="from 1 to 65535"):
        launch.command(port)


def test_another_address_needs_a_token_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(launch.TOKEN, raising=False)
    for host in ("0.0.0.0", "192.168.1.7", "::", "", "my.host"):
        with pytest.raises(BadValue, match="holds no token of at least 24 characters"):
            launch.command(8123, host, ["my.host"])
    monkeypatch.setenv(launch.TOKEN, "x" * 23)
    with pytest.raises(BadValue, match="holds no token"):
        launch.command(8123, "192.168.1.7")
    monkeypatch.setenv(launch.TOKEN, "x" * 24)
    with pytest.raises(BadValue, match="at least one where all addresses"):
        launch.command(8123, "0.0.0.0")
    words = launch.command(8123, "0.0.0.0", ["my.host"])
    assert words.count("--server.address=0.0.0.0") == 1
    assert [word for word in words if "allowedHosts" in word] == ["--server.allowedHosts=my.host"]
    assert "--server.enableXsrfProtection=true" in words
    assert "x" * 24 not in " ".join(words), "the secret stands on no command line"


def test_this_machine_answers_to_its_own_names_only() -> None:
    words = launch.command(8123)
    assert [word.partition("=")[2] for word in words if "allowedHosts" in word] == ["127.0.0.1", "localhost"]


def test_without_streamlit_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"assay-workbench\[dashboard\]"):
        launch.command(8123)


def test_every_setting_exists_and_file_and_command_agree() -> None:
    known = streamlit_config.get_config_options()
    flat = {f"{part}.{name}": value for part, values in CONFIG.items() if part != "theme" for name, value in values.items()}
    for name in (*launch.SETTINGS, *flat):
        assert name in known, f"streamlit has no setting '{name}'"
    said = {name: str(value).lower() for name, value in flat.items()}
    assert {name: value for name, value in said.items() if name in launch.SETTINGS} == {
        name: launch.SETTINGS[name] for name in said if name in launch.SETTINGS
    }
    assert {"server.address", "browser.gatherUsageStats", "client.showErrorDetails", "client.toolbarMode", "server.fileWatcherType"} <= set(
        said
    )


@pytest.mark.parametrize(("theme", "ground"), [("light", palette.LIGHT), ("dark", palette.DARK)])
def test_the_theme_is_that_of_the_charts_and_can_be_read(theme: str, ground: str) -> None:
    colours = CONFIG["theme"][theme]
    assert colours["backgroundColor"] == ground
    for behind in (colours["backgroundColor"], colours["secondaryBackgroundColor"]):
        assert contrast(colours["textColor"], behind) >= 4.5
        assert contrast(colours["linkColor"], behind) >= 4.5
        assert contrast(colours["primaryColor"], behind) >= 3


def test_pages_hold_no_numerics_and_no_access_of_their_own() -> None:
    allowed = {
        "streamlit",
        "dashboards",
        "workbench.core",
        "collections.abc",
        "typing",
        "workbench.lab.asking",
        "workbench.lab.live",
        "workbench.reports",
        "workbench.store.records",
        "__future__",
    }
    for page in sorted((FOLDER / "views").glob("*.py")):
        for node in ast.walk(ast.parse(page.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert any(name == root or name.startswith(f"{root}.") for root in allowed), f"{page.name} imports {name}"


def test_the_entry_is_only_a_router() -> None:
    lines = [line for line in (FOLDER / "app.py").read_text().splitlines() if line.strip()]
    assert len(lines) < 25
    assert "st.navigation(" in "\n".join(lines)


def test_a_link_to_a_page_runs_the_entry_first() -> None:
    """Until the app has run once, Streamlit serves the files of a folder ``pages`` beside it by themselves, without its navigation."""
    assert not (FOLDER / "pages").exists()
    assert (FOLDER / "views").is_dir()
