"""``workbench …`` as real processes: started, looked at from outside, ended by real signals, and taken at their word."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TEXT = "the cat sat on the mat and the dog saw it. " * 60
SMALL: dict[str, Any] = {
    "name": "small", "text": {"file": "text.txt", "length": 16}, "tokenizer": {"kind": "char"},
    "model": {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_ctx": 16, "dropout": 0.1},
    "train": {"steps": 600, "batch_rows": 2, "warmup": 2, "save_every": 40, "keep": 3},
}  # fmt: skip
PATIENCE_S = 120


@dataclass
class Ended:
    """How a process ended and what it said."""

    code: int
    out: str
    err: str


class Server:
    """The process that forks the others."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.lab.forking"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.statuses: dict[int, int] = {}
        assert self._answer() == {"ready": True}
        atexit.register(self._end)

    def start(self, **told: Any) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        while "started" not in (answer := self._answer()):
            pass
        return answer["started"]

    def wait(self, pid: int) -> int:
        while pid not in self.statuses:
            self._answer()
        return self.statuses.pop(pid)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the forking process ended"
        answer = json.loads(line)
        if "ended" in answer:
            self.statuses[answer["ended"]] = answer["status"]
        return answer

    def _end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)


server = cache(Server)


@dataclass
class Running:
    """One process. ``pid`` is the system's own number of it."""

    pid: int
    said: tuple[Path, Path]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        code = server().wait(self.pid)
        return Ended(code, *(path.read_text() for path in self.said))

    def until(self, condition: Callable[[], Any], *, pause: float = 0.001) -> Any:
        """What ``condition`` gives once it gives something; the process has to live until then."""
        end = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < end, "it took too long"
            assert self.pid not in server().statuses
            assert _lives(self.pid), f"it ended before: {self.said[1].read_text()}"
            time.sleep(pause)
        return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@dataclass
class Home:
    """A place of its own: a store, a text, and a recipe for it, which names the text as the program finds it from here."""

    folder: Path
    recipe: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(SMALL)))
    number: int = 0
    said: Path | None = None
    """Where what its processes say is kept, unless in ``folder``."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True, parents=True)
        if not self.text.exists():
            self.text.write_text(TEXT)

    @property
    def text(self) -> Path:
        return self.folder / "text.txt"

    def copy(self, folder: Path) -> Home:
        shutil.copytree(self.folder, folder)
        return Home(folder, json.loads(json.dumps(self.recipe)), self.number)

    def start(self, *words: str, env: dict[str, str] | None = None, **told: Any) -> Running:
        """``workbench train`` with this recipe (JSON is YAML) and ``words``."""
        self.number += 1
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(json.dumps(self.recipe))
        said = tuple((self.said or self.folder) / f"{name}-{self.number}" for name in ("out", "err"))
        environment = {"WORKBENCH_HOME": str(self.folder / "home"), **(env or {})}
        pid = server().start(
            words=["train", "./recipe.yaml", *words], env=environment, out=str(said[0]), err=str(said[1]), cwd=str(self.folder), **told
        )
        return Running(pid, (said[0], said[1]))

    def train(self, *words: str, **told: Any) -> Ended:
        return self.start(*words, **told).wait()

    def run(self) -> str:
        """The id of the one run."""
        (found,) = (self.folder / "home" / "runs").iterdir()
        return found.name

    @property
    def checkpoints(self) -> Path:
        return self.folder / "home" / "runs" / self.run() / "checkpoints"

    def steps(self) -> list[int]:
        """The steps with a checkpoint, oldest first; none before there is a run."""
        return sorted(int(path.name[5:]) for path in self.folder.glob("home/runs/*/checkpoints/step-????????"))

    def step(self, number: int) -> Path:
        return self.checkpoints / f"step-{number:08d}"

    def state(self, folder: str = "final") -> dict[str, Any]:
        return json.loads((self.checkpoints / folder / "train_state.json").read_text())

    def stopped_after(self, step: int) -> Home:
        """Train until the checkpoint of ``step`` is there, then SIGTERM."""
        running = self.start()
        running.until(lambda: self.steps() and self.steps()[-1] >= step)
        running.send(signal.SIGTERM)
        ended = running.wait()
        assert ended.code == 130, ended.err
        return self


def digest(ended: Ended) -> str:
    """The digest of the model that a training ended with."""
    assert ended.code == 0, ended.err
    (found,) = re.findall(r"^digest +([0-9a-f]{64})$", ended.out, re.MULTILINE)
    return found


@cache
def unbroken() -> tuple[Home, str]:
    """A home in which the small recipe was trained without a break, and its model's digest. To be copied, not to be changed."""
    home = Home(_lasting() / "unbroken")
    return home, digest(home.train())


@cache
def stopped() -> Home:
    """A home whose run was ended by SIGTERM after step 120. To be copied, not to be changed."""
    return Home(_lasting() / "stopped").stopped_after(120)


@cache
def _lasting() -> Path:
    place = Path(tempfile.mkdtemp(prefix="assay-test-safety-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


# --- the page -----------------------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "training" / "safety.md"


def as_on_the_page(words: str) -> str:
    """What a message says, whatever the run, the place, the number and the digest."""
    for pattern, sign in (
        (r"'[^' ]*/(checkpoints|home|runs/[0-9a-z]{13})(?=[/'])", r"'…/\1"), (r"'/[^' ]*/(?=[a-z]+\.txt)", "'…/"),
        (r"\b1[0-9a-z]{12}\b", "RUN"), (r"\b[0-9a-f]{12}\b", "DIGEST"),
        (r"\b(nan|inf)\b(?= and the gradient norm)", "1"),  # which of all that is not finite, the processor decides
        (r"\d+(\.\d+)*(e[-+]?\d+)?", "N"), (r"(?<=process N on )[\w-]+(\.[\w-]+)*", "HOST"), (r"(?<=step-N/)[\w.]+(?=')", "FILE"),
    ):  # fmt: skip
        words = re.sub(pattern, sign, words)
    return " ".join(words.split())


def sentence(ended: Ended, code: int = 3) -> str:
    """The one line a process ended with, which the page on safety has too."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert len(re.findall(r"[a-z'`0-9)]\. (?=[A-Z'])", lines[0])) <= 2, f"more than three sentences: {lines[0]}"
    page = as_on_the_page(PAGE.read_text(encoding="utf-8"))
    assert as_on_the_page(lines[0]) in page, f"not on the page: {as_on_the_page(lines[0])}"
    return lines[0]


# --- disks --------------------------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A disk of its own at ``folder``; call with other options to change it. Raises PermissionError where mounting is not allowed."""
    folder.mkdir()
    if not shutil.which("mount") or os.geteuid() != 0:
        raise PermissionError("only root mounts")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr.strip())

    def change(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True)

    try:
        yield change
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
