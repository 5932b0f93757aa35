"""What the bits of a training depend on besides its spec and data: versions and the processor. A run keeps it, and says what changed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

import torch


def made_with(device: torch.device) -> dict[str, str]:
    """The versions and the machine of this process, as plain text."""
    try:
        own = metadata.version("assay-workbench")
    except metadata.PackageNotFoundError:
        own = "not installed"
    computer = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    if device.type == "cuda":
        computer = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return {"assay-workbench": own, "torch": torch.__version__, "processor": computer}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, list[str]]:
    """What is no longer as it was: ``{name: [before, now]}``. A run that kept nothing (of an earlier version) differs in nothing."""
    return {name: [before[name], now[name]] for name in sorted(now) if name in before and before[name] != now[name]}


def in_words(step: int, changed: Mapping[str, list[str]]) -> str:
    """One sentence on what changed at ``step``."""
    parts = ", ".join(f"{name} {before} before and {now} now" for name, (before, now) in changed.items())
    return f"From step {step} on under {parts}: the last bits may differ from those of an unbroken run."
