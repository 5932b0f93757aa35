"""Signing in through an OpenID Connect provider: Streamlit's own login, and who of those it knows may see the pages.

    WORKBENCH_DASHBOARD_OIDC      the file with Streamlit's ``[auth]`` (client, provider, cookie secret), readable by its owner alone
    WORKBENCH_DASHBOARD_PEOPLE    who may come in, by commas: addresses (ada@example.org) and whole domains (@example.org)

A provider says who somebody is and not that they may see this: without a list nobody may.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.core.errors import BadValue, CorruptFile, MissingExtra, MissingFile

FILE, PEOPLE = "WORKBENCH_DASHBOARD_OIDC", "WORKBENCH_DASHBOARD_PEOPLE"
OF_ALL, OF_ONE = ("redirect_uri", "cookie_secret"), ("client_id", "client_secret", "server_metadata_url")
SHORTEST = 24
"""Characters of the cookie's secret at least."""


def wanted() -> bool:
    """Whether people sign in through a provider."""
    return bool(os.environ.get(FILE, ""))


def people() -> tuple[str, ...]:
    """Who may come in, in small letters."""
    return tuple(one.strip().lower() for one in os.environ.get(PEOPLE, "").split(",") if one.strip())


def may_enter(user: Mapping[str, Any], listed: Sequence[str]) -> bool:
    """Whether somebody whom the provider signed in is among those listed. An address that the provider calls unverified is nobody's;
    some say so in words ("false")."""
    address = str(user.get("email") or "").strip().lower()
    name, at, domain = address.partition("@")
    if not (name and at and domain) or "@" in domain or not _verified(user):
        return False
    return address in listed or f"@{domain}" in listed


def _verified(user: Mapping[str, Any]) -> bool:
    """Whether nothing is said against the address: not every provider says whether it is verified."""
    said = user.get("email_verified")
    return said is None or str(said).strip().lower() == "true"


def meant_for_us(user: Mapping[str, Any]) -> bool:
    """Whether the provider made the token for this server. The library that checks it lets one made for somebody else pass where it names
    this client as the party it was issued to (``azp``), and checks nothing where the provider's answer holds no ID token: what that answer
    says about a user is then taken as it is, and names nobody it was made for."""
    meant = user.get("aud")
    known = tomllib.loads(Path(os.environ[FILE]).read_text(encoding="utf-8"))["auth"]["client_id"]
    return known in (meant if isinstance(meant, list) else [meant])


def settings() -> Path:
    """The file, checked. Raises MissingExtra, MissingFile, CorruptFile, and BadValue where it is open to others or nobody is listed."""
    if importlib.util.find_spec("authlib") is None:
        raise MissingExtra("authlib", "oidc", "Signing in through a provider")
    place = Path(os.environ.get(FILE, ""))
    if not place.is_file():
        raise MissingFile(place, "file with Streamlit's [auth]", do=f"Name one in {FILE}.")
    if place.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadValue(
            f"the mode of '{place}'", oct(place.stat().st_mode & 0o777), "0o600: it holds secrets", do=f"Run `chmod 600 {place}`."
        )
    try:
        auth = tomllib.loads(place.read_text(encoding="utf-8")).get("auth")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CorruptFile(place, "a TOML file", f"it is not ({error})") from None
    if not isinstance(auth, dict):
        raise CorruptFile(place, "a TOML file with a table [auth]", "it has none")
    lacking = [name for name in (*OF_ALL, *OF_ONE) if not isinstance(auth.get(name), str) or not auth[name]]
    if lacking:
        raise CorruptFile(place, f"a table [auth] with {', '.join((*OF_ALL, *OF_ONE))}", f"it lacks {', '.join(lacking)}")
    if len(auth["cookie_secret"]) < SHORTEST:
        raise BadValue("cookie_secret", f"{len(auth['cookie_secret'])} characters", f"at least {SHORTEST}")
    if not auth["redirect_uri"].endswith("/oauth2callback"):
        raise BadValue("redirect_uri", auth["redirect_uri"], "the pages' own address with /oauth2callback behind it")
    if not people():
        raise BadValue(PEOPLE, "empty", "who may come in, by commas: addresses (ada@example.org) or domains (@example.org)")
    return place
