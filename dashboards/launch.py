"""How the dashboard is started: one process, this machine only, silent towards the outside.

The settings stand both here and in ``.streamlit/config.toml`` beside the app: the command line wins over whatever a user's
own configuration or environment says.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from workbench.core.errors import BadValue, MissingExtra

ADDRESS = "127.0.0.1"
APP = Path(__file__).parent / "app.py"
SETTINGS = {
    "server.address": ADDRESS,
    "server.headless": "true",  # opens no browser, asks for no address, recommends nothing
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "server.maxUploadSize": "1",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "browser.gatherUsageStats": "false",
    "browser.serverAddress": ADDRESS,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
    "client.toolbarMode": "minimal",
    "logger.hideWelcomeMessage": "true",
    "runner.magicEnabled": "false",
}


def address(port: int) -> str:
    """Where a browser finds the dashboard."""
    return f"http://{ADDRESS}:{port}"


def command(port: int) -> list[str]:
    """The command that serves the dashboard on ``port`` of 127.0.0.1 until it is stopped.

    Raises BadValue for a port outside 1 to 65535 and MissingExtra where Streamlit is not installed.
    """
    if not 1 <= port <= 65535:
        raise BadValue("the port", port, "from 1 to 65535")
    if importlib.util.find_spec("streamlit") is None:
        raise MissingExtra("streamlit", "dashboard", "The dashboard")
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    return [sys.executable, "-m", "streamlit", "run", str(APP), f"--server.port={port}", *flags]
