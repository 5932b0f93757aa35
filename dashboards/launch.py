"""How the dashboard is started: one process, this machine only unless told otherwise, silent towards the outside.

The settings stand both here and in ``.streamlit/config.toml`` beside the app: the command line wins over whatever a user's
own configuration or environment says. On an address that other machines reach, nobody sees a page without the token or without having
signed in (``gate``, ``people``), and the names the server answers to are those that were given.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dashboards import people
from workbench.core.errors import BadValue, MissingExtra

ADDRESS = "127.0.0.1"
EVERYWHERE = ("", "0.0.0.0", "::")
TOKEN = "WORKBENCH_DASHBOARD_TOKEN"
SHORTEST = 24
"""Characters of a token at least."""
APP = Path(__file__).parent / "app.py"
SETTINGS = {
    "server.address": ADDRESS,
    "server.headless": "true",  # opens no browser, asks for no address, recommends nothing
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "server.maxUploadSize": "1",
    "server.maxWidgetStateSize": "4",
    "server.enableStaticServing": "false",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "browser.gatherUsageStats": "false",
    "browser.serverAddress": ADDRESS,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "minimal",
    "logger.hideWelcomeMessage": "true",
    "runner.magicEnabled": "false",
    "runner.postScriptGC": "false",  # a quarter of a second after each press, while what it drew waits to be sent; Python collects anyway
}


def is_local(address: str) -> bool:
    """Whether only this machine reaches ``address``. An empty one means all of a machine's addresses."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def token() -> str:
    """The token that is asked for, or '' where none is set."""
    return os.environ.get(TOKEN, "")


def address(port: int, host: str = ADDRESS) -> str:
    """Where a browser finds the dashboard."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def command(port: int, host: str = ADDRESS, names: Sequence[str] = ()) -> list[str]:
    """The command that serves the dashboard on ``port`` of ``host`` until it is stopped. ``names``: what else browsers call that host.

    Raises BadValue for a port outside 1 to 65535, for a host that other machines reach where the environment holds no token and nobody
    signs in, and for all addresses at once (``0.0.0.0``) without a name to answer to; MissingExtra where Streamlit is not installed; and
    what ``people.settings`` raises.
    """
    if not 1 <= port <= 65535:
        raise BadValue("the port", port, "from 1 to 65535")
    if importlib.util.find_spec("streamlit") is None:
        raise MissingExtra("streamlit", "dashboard", "The dashboard")
    signing = people.settings() if people.wanted() else None
    if not is_local(host) and signing is None and len(token()) < SHORTEST:
        raise BadValue(
            "the address", host, f"this machine's own (127.0.0.1) where {TOKEN} holds no token of at least {SHORTEST} characters",
            do=f"Set {TOKEN} to a secret in the environment, or let people sign in ({people.FILE}), and put a proxy with TLS in front.",
        )  # fmt: skip
    if host in EVERYWHERE and not names:
        raise BadValue("the names", "none", f"at least one where all addresses ('{host}') are served", do="Give --name HOST.")
    chosen = {**SETTINGS, "server.address": host}
    if not is_local(host):
        chosen["browser.serverAddress"] = names[0] if names else host
    flags = [f"--{name}={value}" for name, value in chosen.items()]
    flags += [f"--server.allowedHosts={name}" for name in _answered(host, names)]
    flags += [f"--secrets.files={signing}"] if signing is not None else []
    return [sys.executable, "-m", "streamlit", "run", str(APP), f"--server.port={port}", *flags]


def _answered(host: str, names: Sequence[str]) -> list[str]:
    """The names the server answers to: a page elsewhere that points its own name at this address gets nothing."""
    own = ["127.0.0.1", "localhost"] if is_local(host) else []
    return list(dict.fromkeys([*names, *own, *([] if host in EVERYWHERE else [host])]))
