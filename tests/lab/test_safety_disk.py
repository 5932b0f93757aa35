"""A disk that takes no more: the system's own refusal, met by the real process. What was whole stays whole, and the run goes on."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.lab.process import Home, digest, mounted, sentence, stopped
from workbench.training.recovery import is_whole


def home_of_big_checkpoints(folder: Path) -> Home:
    """A run whose checkpoints (0.7 MB) are by far the most it writes."""
    home = Home(folder)
    home.recipe["model"] = {"n_layers": 1, "d_model": 64, "n_heads": 2, "n_ctx": 16}
    home.recipe["train"] = {"steps": 60, "save_every": 5, "keep": 50, "batch_rows": 2, "warmup": 2}
    return home


def fill(path: Path) -> None:
    """Write to ``path`` until its disk takes no more."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 4096)


@pytest.mark.slow
def test_a_disk_that_is_full_and_gets_room_again(tmp_path: Path) -> None:
    """A small disk of its own, where this process may mount one; the next test takes any."""
    whole = home_of_big_checkpoints(tmp_path / "whole")
    wanted = digest(whole.train())
    # Room for three checkpoints, half a one, and the store: the fourth is what does not fit.
    kilobytes = 250 + int(3.5 * sum(file.stat().st_size for file in whole.step(5).iterdir()) / 1024)
    try:
        with mounted(tmp_path / "disk", f"{kilobytes}k") as change:
            home = home_of_big_checkpoints(tmp_path / "disk" / "a")
            said = sentence(home.train())
            step = home.steps()[-1]
            assert step == 15
            assert f"The checkpoint of step {step + 5} could not be written to '{home.checkpoints}': No space left on device. " in said
            assert f"Make room and go on from the last whole checkpoint, '{home.step(step)}'," in said
            assert said.endswith(f"with the same command and `--resume {home.run()}`.")
            assert is_whole(home.step(step))
            assert not list(home.checkpoints.glob(".writing-*")), "half a checkpoint takes no room"
            sentence(home.train("--resume", home.run()))
            change("size=64m")
            assert digest(home.train("--resume", home.run())) == wanted
            assert home.state() == whole.state()
    except PermissionError as error:
        pytest.skip(f"a disk cannot be mounted here: {error}")


@pytest.mark.slow
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The same without a mount: the system lets this process write no file above 150 kB."""
    home = home_of_big_checkpoints(tmp_path / "a")
    said = sentence(home.train(most_bytes=150_000))
    assert f"The checkpoint of step 5 could not be written to '{home.checkpoints}': File too large. " in said
    assert "Make room and go on from the beginning, since no checkpoint had been written, with" in said
    assert not list(home.checkpoints.glob(".writing-*"))
    assert digest(home.train("--resume", home.run())) == digest(home_of_big_checkpoints(tmp_path / "whole").train())


@pytest.mark.full
def test_a_disk_that_somebody_else_fills(tmp_path: Path) -> None:
    """Whatever is written next (the notes of the run, or a checkpoint) says that the disk is full."""
    try:
        with mounted(tmp_path / "disk", "8m"):
            home = Home(tmp_path / "disk" / "a", said=tmp_path)
            running = home.start()
            running.until(lambda: home.steps())
            fill(tmp_path / "disk" / "theirs")
            ended = running.wait()
            assert ended.code == 3, ended.err
            assert "Make room and go on from the last whole checkpoint, '" in ended.err
            assert "Traceback" not in ended.err
            (tmp_path / "disk" / "theirs").unlink()
            assert home.train("--resume", home.run()).code == 0
    except PermissionError as error:
        pytest.skip(f"a disk cannot be mounted here: {error}")


@pytest.mark.slow
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    home = stopped().copy(tmp_path / "a")
    home.checkpoints.chmod(0o555)
    (home.checkpoints / ".lock").chmod(0o444)
    try:
        said = sentence(home.train("--resume", home.run(), plain=True))
    finally:
        home.checkpoints.chmod(0o755)
    assert f"could not be written to '{home.checkpoints}': Permission denied. Make it writable and go on from the last whole" in said
    assert f"'{home.step(home.steps()[-1])}'" in said
    os.chmod(home.checkpoints / ".lock", 0o644)
    running = home.start("--resume", home.run())
    before = home.steps()[-1]
    running.until(lambda: home.steps()[-1] > before)
    running.send(signal.SIGTERM)
    assert running.wait().code == 130, "writable again, it goes on"
