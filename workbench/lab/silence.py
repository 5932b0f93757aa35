"""The switches that keep dependencies from sending anything anywhere. Standard library only: set before they are imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SWITCHES: dict[str, str] = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    "WANDB_MODE": "disabled",
    "WANDB_DISABLED": "true",
    "WANDB_SILENT": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "COMET_MODE": "disabled",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment variable → the value that means silence. Every one is set, also for packages that are not installed."""


def silence(environment: MutableMapping[str, str] | None = None) -> None:
    """Set every switch, in ``environment`` or in this process. A value someone set before is replaced: silence is promised."""
    (os.environ if environment is None else environment).update(SWITCHES)


def loud(environment: MutableMapping[str, str] | None = None) -> list[str]:
    """The switches that do not stand on silence."""
    found = os.environ if environment is None else environment
    return [name for name, value in SWITCHES.items() if found.get(name) != value]
