"""Signing in: the file must be whole and closed to others, nobody comes in who is not listed, and the gate stays shut meanwhile."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboards import launch, people
from workbench.core.errors import AssayError

AUTH = """
[auth]
redirect_uri = "https://audit.example.org/oauth2callback"
cookie_secret = "0123456789abcdef01234567"
client_id = "assay"
client_secret = "s3cret"
server_metadata_url = "https://id.example.org/.well-known/openid-configuration"
"""
LISTED = ("ada@example.org", "@lab.example")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "authlib" else real(name))
    place = tmp_path / "secrets.toml"
    place.write_text(AUTH)
    place.chmod(0o600)
    monkeypatch.setenv(people.FILE, str(place))
    monkeypatch.setenv(people.PEOPLE, "Ada@Example.org, @lab.example")
    monkeypatch.delenv(launch.TOKEN, raising=False)
    return place


@pytest.mark.parametrize(
    ("user", "enters"),
    [
        ({"email": "ADA@example.org"}, True),
        ({"email": "bob@lab.example", "email_verified": True}, True),
        ({"email": "bob@lab.example", "email_verified": "true"}, True),
        ({"email": "bob@lab.example", "email_verified": None}, True),
        ({"email": "bob@lab.example", "email_verified": False}, False),
        ({"email": "bob@lab.example", "email_verified": "false"}, False),
        ({"email": "bob@lab.example", "email_verified": " False "}, False),
        ({"email": "bob@lab.example", "email_verified": 0}, False),
        ({"email": "bob@lab.example", "email_verified": ""}, False),
        ({"email": "bob@example.org"}, False),
        ({"email": "x@evil.org@lab.example"}, False),
        ({"email": "@lab.example"}, False),
        ({"email": ""}, False),
        ({}, False),
        ({"email": "bob@notlab.example"}, False),
    ],
)
def test_only_who_is_listed_enters(user: dict[str, Any], enters: bool) -> None:
    assert people.may_enter(user, LISTED) is enters
    assert not people.may_enter(user, ()), "without a list nobody may"


def test_the_command_takes_the_file_in_the_place_of_a_token(file: Path) -> None:
    words = launch.command(8123, "192.168.1.7")
    assert f"--secrets.files={file}" in words
    assert not any("s3cret" in word for word in words), "the secret stands on no command line"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p, m: p.unlink(), "No file with Streamlit"),
        (lambda p, m: p.chmod(0o644), "0o600: it holds secrets"),
        (lambda p, m: p.write_text("["), "a TOML file"),
        (lambda p, m: p.write_text("x = 1"), r"with a table \[auth\]"),
        (lambda p, m: p.write_text(AUTH.replace("client_id", "client")), "it lacks client_id"),
        (lambda p, m: p.write_text(AUTH.replace("0123456789abcdef01234567", "short")), "5 characters"),
        (lambda p, m: p.write_text(AUTH.replace("/oauth2callback", "/")), "/oauth2callback behind it"),
        (lambda p, m: m.setenv(people.PEOPLE, " , "), "who may come in"),
    ],
)
def test_a_file_that_would_not_do_is_said_before_anything_is_served(
    file: Path, monkeypatch: pytest.MonkeyPatch, change: Any, said: str
) -> None:
    change(file, monkeypatch)
    with pytest.raises(AssayError, match=said):
        launch.command(8123, "192.168.1.7")


def test_without_authlib_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "authlib" else real(name))
    with pytest.raises(AssayError, match=r"assay-workbench\[oidc\]"):
        launch.command(8123, "192.168.1.7")


def gated() -> None:
    import streamlit as st

    from dashboards.gate import pass_or_stop

    pass_or_stop()
    st.markdown("inside")


@pytest.mark.parametrize(
    ("user", "inside", "button"),
    [
        ({"is_logged_in": False}, False, "Sign in"),
        ({"is_logged_in": True, "email": "eve@example.org", "aud": "assay"}, False, "Sign out"),
        ({"is_logged_in": True, "email": "ada@example.org"}, False, "Sign out"),
        ({"is_logged_in": True, "email": "ada@example.org", "aud": None}, False, "Sign out"),
        ({"is_logged_in": True, "email": "ada@example.org", "aud": []}, False, "Sign out"),
        ({"is_logged_in": True, "email": "ada@example.org", "aud": "assay"}, True, ""),
        ({"is_logged_in": True, "email": "ada@example.org", "aud": ["other", "assay"]}, True, ""),
        ({"is_logged_in": True, "email": "ada@example.org", "aud": "other"}, False, "Sign out"),
        ({"is_logged_in": True, "email": "ada@example.org", "aud": ["assay2"]}, False, "Sign out"),
    ],
)
def test_the_gate_opens_to_who_is_listed_and_to_nobody_else(
    file: Path, monkeypatch: pytest.MonkeyPatch, user: dict[str, Any], inside: bool, button: str
) -> None:
    monkeypatch.setattr("streamlit.user", user)
    page = AppTest.from_function(gated).run()
    assert not page.exception
    assert [one.value for one in page.markdown if one.value == "inside"] == (["inside"] if inside else [])
    assert [one.label for one in page.button] == ([button] if button else [])
