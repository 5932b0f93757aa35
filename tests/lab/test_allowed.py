"""What a page may open: nothing outside the allowed folders and hosts, however it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.core.errors import BadValue
from workbench.lab.allowed import FOLDERS, HOSTS, check_reference, check_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store's home; the program was started in a folder beside it."""
    started = tmp_path / "started"
    started.mkdir()
    monkeypatch.chdir(started)
    monkeypatch.delenv(FOLDERS, raising=False)
    monkeypatch.delenv(HOSTS, raising=False)
    (tmp_path / "secret").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize(
    "ref",
    ["/etc", "/etc/passwd", "../secret", "a/../../secret", "compiled:../secret", "compiled:/etc", "hf:/etc", "hf:../secret", "tl:../../x",
     "~/x/../../..", "link", "link/deeper", "loop"],
)  # fmt: skip
def test_references_that_reach_outside_are_refused(home: Path, ref: str) -> None:
    Path("link").symlink_to(home.parent / "secret")
    Path("loop").symlink_to("loop")
    Path("~").mkdir()
    with pytest.raises(BadValue, match="inside a folder that the dashboard may open|a place that can be found"):
        check_reference(ref, home)


@pytest.mark.parametrize(
    "ref",
    ["mine", "./mine", "deep/er", "run:last", "run:1m8kh", "organism:town@dose=0.8", "family:vit", "hf:gpt2", "hf:org/name", "tl:gelu-1l",
     "endpoint:x@http://127.0.0.1:8000/v1", "endpoint:x@http://localhost/v1"],
)  # fmt: skip
def test_references_that_stay_inside_pass(home: Path, ref: str) -> None:
    check_reference(ref, home)
    check_reference(str(home / "runs" / "x"), home)


def test_what_the_environment_names_is_allowed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = home.parent / "secret"
    with pytest.raises(BadValue):
        check_reference(str(outside), home)
    monkeypatch.setenv(FOLDERS, str(outside))
    check_reference(str(outside / "model"), home)
    with pytest.raises(BadValue, match="secretive"):
        check_reference(str(home.parent / "secretive"), home)
    for ref in (
        "endpoint:x@http://example.org/v1",
        "endpoint:x@http://127.0.0.1@example.org/v1",
        "endpoint:x@http://localhost.example.org/",
    ):
        with pytest.raises(BadValue, match="the server of the model reference"):
            check_reference(ref, home)
    monkeypatch.setenv(HOSTS, "example.org")
    check_reference("endpoint:x@http://example.org/v1", home)


def test_settings_are_searched_to_the_bottom(home: Path) -> None:
    check_settings({"trigger": {"count": 5, "names": ["a", "b/c"]}, "text": "he/she and more"}, home)
    for value in ({"crows-pairs": {"file": "/etc/passwd"}}, {"a": [{"b": "../../x"}]}, {"a": ("x", "a/../../../y")}):
        with pytest.raises(BadValue, match="inside a folder that the dashboard may open"):
            check_settings(value, home)
    with pytest.raises(BadValue, match="NUL"):
        check_reference("a\0b", home)
