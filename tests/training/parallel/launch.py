"""``torchrun`` as a process of the tests: start it, find one of its children, wait for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.signals import heard

ROOT = Path(__file__).parents[3]


def started(processes: int, *words: str) -> subprocess.Popen[str]:
    """The real ``torchrun`` of this environment, on this machine, with ``words`` as the module and its arguments; a group of its own, as a
    terminal makes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::UserWarning:__main__"}
    with heard():
        return subprocess.Popen(
            [*launcher, "-m", *words], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )


def answers(processes: int, jobs: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What ``driver`` finds for each of ``jobs``, in one start of ``processes``."""
    folder.mkdir(exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(list(jobs)))
    process = started(processes, "tests.training.parallel.driver", str(folder / "jobs.json"), str(folder / "answers.json"))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, f"{out}\n{err}"
    return json.loads((folder / "answers.json").read_text())


def ranks(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """The process id of each rank that ``launcher`` started."""
    found: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == launcher.pid:
                words = dict(word.split("=", 1) for word in (folder / "environ").read_text().split("\0") if "=" in word)
                found[int(words["RANK"])] = int(folder.name)
        except (OSError, KeyError):
            continue
    return found


def kill(launcher: subprocess.Popen[str], rank: int) -> None:
    """SIGKILL to one rank."""
    os.kill(ranks(launcher)[rank], signal.SIGKILL)
