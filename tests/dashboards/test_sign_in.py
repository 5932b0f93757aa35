"""Signing in through a real provider, in a real browser: nothing shows before, the pages after, and a token that lies opens nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dashboards import launch, people
from tests.dashboards.conftest import Home
from tests.dashboards.provider import CLIENT, LIES, SECRET, provided
from tests.dashboards.test_journey import served
from tests.reports.browser import chromium

pytestmark = pytest.mark.full
INSIDE = "What to do next"
PATIENCE_MS = 60_000
UNSEEN = ("audience in our name", "no id token")
"""Lies that the library takes for a sign-in, and the gate does not."""


def signed_in(browser: Any, url: str, wanted: str) -> Any:
    """A new browser's page after a press on *Sign in*, once it says ``wanted``."""
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.get_by_role("button", name="Sign in").wait_for()
    assert page.get_by_text(INSIDE).count() == 0
    assert page.locator('[data-testid="stSidebarNav"]').count() == 0, "not even which pages there are"
    with page.expect_response(lambda answer: "/oauth2callback" in answer.url):
        page.get_by_role("button", name="Sign in").click()
    page.get_by_text(wanted, exact=True).first.wait_for()
    return page


def test_only_who_a_truthful_provider_names_and_the_list_knows_comes_in(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(launch.TOKEN, raising=False)
    with provided() as provider:
        file = tmp_path / "secrets.toml"
        file.write_text(
            f'[auth]\nredirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"\ncookie_secret = "{"c" * 32}"\nclient_id = "{CLIENT}"\n'
            f'client_secret = "{SECRET}"\nserver_metadata_url = "{provider.url}/.well-known/openid-configuration"\n'
        )
        file.chmod(0o600)
        monkeypatch.setenv(people.FILE, str(file))
        monkeypatch.setenv(people.PEOPLE, "ada@example.org")
        with served(home) as (url, _), chromium() as browser:
            page = signed_in(browser, url, INSIDE)
            assert "/token" in provider.asked
            page.reload()
            page.get_by_text(INSIDE, exact=True).first.wait_for()
            cookies = page.context.cookies()
            page.context.close()

            forged = browser.new_context()
            (own,) = [one for one in cookies if one["name"] == "_streamlit_user"]
            forged.add_cookies([{**own, "value": own["value"][:-3] + ("AAA" if own["value"][-3:] != "AAA" else "BBB")}])
            page = forged.new_page()
            page.goto(url)
            page.get_by_role("button", name="Sign in").wait_for()
            forged.close()

            provider.email = "eve@example.org"
            page = signed_in(browser, url, "Sign out")
            assert "these pages are not open to you" in page.inner_text("body")
            assert INSIDE not in page.inner_text("body")
            page.context.close()

            provider.email = "ada@example.org"
            for lie in LIES:
                provider.lie = lie
                page = signed_in(browser, url, "Sign out" if lie in UNSEEN else "Sign in")
                page.wait_for_timeout(300)
                assert INSIDE not in page.inner_text("body"), lie
                assert page.locator('[data-testid="stSidebarNav"]').count() == 0, lie
                assert "Traceback" not in page.inner_text("body")
                page.context.close()
