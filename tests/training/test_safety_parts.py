"""The parts that keep a training safe, one by one; what the real process does with them is in ``tests/lab/test_safety_*``."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.signals import heard
from tests.training.setting import Copying, model, spec
from workbench.core.errors import (
    AssayError,
    BadValue,
    Changed,
    CorruptFile,
    Damaged,
    Diverged,
    MissingFile,
    Occupied,
    StoreError,
    Unwritable,
)
from workbench.lab.going_on import folders_of, go_back, kept, named
from workbench.training import checkpoint, loop
from workbench.training.checkpoint import pointed
from workbench.training.lock import LOCK, held, holder
from workbench.training.loop import train
from workbench.training.made_with import differences, in_words, made_with
from workbench.training.recovery import is_whole, last_whole, rewind, steps_in
from workbench.training.stopping import stopping

CPU = torch.device("cpu")


# --- the lock -----------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from workbench.training.lock import held
with held(Path(sys.argv[1])):
    print(1, flush=True)
    input()
"""


def test_a_folder_has_one_holder_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"1\n"
    with pytest.raises(Occupied, match=rf"is being trained in by process {other.pid} on "), held(tmp_path / "run"):
        pytest.fail("it was held")
    with pytest.raises(Occupied):
        train(model(), Copying(), spec(), out=tmp_path / "run")
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert f"process {other.pid}" in holder(tmp_path / "run"), "it had no time to take its name away"
    with held(tmp_path / "run"):
        assert f"process {os.getpid()} on " in holder(tmp_path / "run")


def test_two_threads_of_one_process_are_two(tmp_path: Path) -> None:
    met: list[BaseException] = []

    def second() -> None:
        try:
            train(model(), Copying(), spec(), out=tmp_path)
        except Occupied as error:
            met.append(error)

    def at_once(event: str, state: Any) -> None:
        if event == "step" and state["step"] == 1:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    train(model(), Copying(), spec(steps=2), out=tmp_path, callbacks=[at_once])
    assert len(met) == 1


def test_a_lock_whose_holder_has_said_nothing_yet(tmp_path: Path) -> None:
    for text in ("", "{", "[]", "{}"):
        (tmp_path / LOCK).write_text(text)
        assert holder(tmp_path) == "another process"
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable, match="Make it writable"), held(tmp_path / "file"):
        pytest.fail("a file is no folder")


# --- stopping -----------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests themselves were started with it ignored."""
    with heard():
        yield


def test_the_first_signal_waits_and_the_second_does_not(ctrl_c: None, monkeypatch: pytest.MonkeyPatch) -> None:
    own = lambda *_: None  # noqa: E731
    before = signal.signal(signal.SIGTERM, own)
    try:
        with stopping() as asked:
            assert signal.getsignal(signal.SIGTERM) is own, "what a program has made of a signal stays"
            os.kill(os.getpid(), signal.SIGINT)
            assert asked.stop
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            asked.stop = False
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with pytest.raises(KeyboardInterrupt), stopping():
            os.kill(os.getpid(), signal.SIGINT)  # nothing in the block heeds it, and it is not lost
    finally:
        signal.signal(signal.SIGTERM, before)
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(_inside()))
    thread.start()
    thread.join()
    assert seen == [False], "in another thread there are no signals to take"


def _inside() -> bool:
    with stopping() as asked:
        return asked.stop


def test_a_run_that_is_asked_to_stop_ends_after_its_step_with_a_checkpoint(ctrl_c: None, tmp_path: Path) -> None:
    whole = train(model(), Copying(), spec(), out=tmp_path / "whole")

    def ask(event: str, state: Any) -> None:
        if event == "step" and state["step"] == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"after step 7, whose checkpoint is '.*step-00000007'"):
        train(model(), Copying(), spec(), out=tmp_path / "cut", callbacks=[ask])
    rest = train(model(), Copying(), spec(), out=tmp_path / "cut")
    assert (rest["resumed_from"], rest["weights"]) == (7, whole["weights"])
    with pytest.raises(KeyboardInterrupt, match="after step 7$"):
        train(model(), Copying(), spec(), callbacks=[ask])


# --- going back ---------------------------------------------------------------------------------------------


def made(folder: Path, **fields: Any) -> dict[str, Any]:
    """A finished run with checkpoints of steps 4, 8 … 20."""
    return train(model(), Copying(), spec(save_every=4, keep=9, **fields), out=folder, validation=Copying(seed=1))


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_going_back_sets_aside_what_is_newer(tmp_path: Path) -> None:
    wanted = made(tmp_path)["weights"]
    assert steps_in(tmp_path) == [20, 16, 12, 8, 4]
    spoil(tmp_path / "step-00000016" / "optimizer.safetensors")
    assert not is_whole(tmp_path / "step-00000016")
    assert last_whole(tmp_path, before=20) == tmp_path / "step-00000012"
    for step in (16, 7, 24):
        with pytest.raises(BadValue, match=rf"from is {step}, but it must be a step with a whole checkpoint in .*: 20, 12, 8, 4, 0 "):
            rewind(tmp_path, step)
    for again in ("", "-2"):
        assert rewind(tmp_path, 12) == ["final", "step-00000020", "step-00000016"]
        assert (tmp_path / f"aside-final{again}").is_dir()
        assert steps_in(tmp_path) == [12, 8, 4]
        assert train(model(), Copying(), spec(save_every=4, keep=9), out=tmp_path, validation=Copying(seed=1))["weights"] == wanted
    rewind(tmp_path, 0)
    assert (steps_in(tmp_path), pointed(tmp_path, "latest")) == ([], None)
    assert made(tmp_path)["weights"] == wanted


def test_damage_at_the_best_step_goes_back_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With patience the final weights are the best step's: where they are damaged, nothing newer stands in for them."""
    script = [3.0, 2.0, 1.0, 5.0, 6.0]
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: (script[seen.pop(0)], 7))
    patient = spec(validate_every=4, patience=2, keep=9)
    seen = [0, 1, 2, 3, 4]
    wanted = train(model(), Copying(), patient, out=tmp_path / "whole", validation=Copying(seed=1))
    assert wanted["best"] == {"step": 12, "loss": 1.0}

    def cut(event: str, state: Any) -> None:
        if event == "step" and state["step"] == 18:
            raise ZeroDivisionError

    out, seen = tmp_path / "cut", [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        train(model(), Copying(), patient, out=out, validation=Copying(seed=1), callbacks=[cut])
    spoil(out / "step-00000012" / "model.safetensors")
    seen = [3, 4]
    with pytest.raises(Damaged, match=r"step-00000012.*The last whole checkpoint is '.*step-00000008'.*`rewind\(out, 8\)`"):
        train(model(), Copying(), patient, out=out, validation=Copying(seed=1))
    assert not (out / "final").exists()
    rewind(out, 8)
    assert pointed(out, "best") == out / "step-00000004", "as it was before step 8 was validated"
    seen = [1, 2, 3, 4]
    assert train(model(), Copying(), patient, out=out, validation=Copying(seed=1))["weights"] == wanted["weights"]


def test_a_best_step_that_is_not_the_one_pointed_to_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = [1.0, 2.0, 3.0]
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: (script.pop(0), 7))

    def mislead(event: str, state: Any) -> None:
        if event == "checkpoint" and state["step"] == 12:
            checkpoint.point(tmp_path, checkpoint.BEST, "step-00000008")

    with pytest.raises(Damaged, match="step-00000004' is missing"):
        train(model(), Copying(), spec(validate_every=4, patience=2, keep=9), out=tmp_path, validation=Copying(seed=1), callbacks=[mislead])


def test_what_is_not_a_file_of_the_run_is_no_damage_of_it(tmp_path: Path) -> None:
    class Broken(Copying):
        def batch(self, indices: Any) -> Any:
            raise CorruptFile("elsewhere/rows.bin", "whole", "it is not")

    with pytest.raises(CorruptFile, match="elsewhere") as met:
        train(model(), Broken(), spec(), out=tmp_path)
    assert not isinstance(met.value, Damaged)


# --- what changed -------------------------------------------------------------------------------------------


def test_validation_data_that_are_gone_are_another(tmp_path: Path) -> None:
    def cut(event: str, state: Any) -> None:
        if event == "step" and state["step"] == 6:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(model(), Copying(), spec(save_every=4), out=tmp_path, validation=Copying(seed=1), callbacks=[cut])
    with pytest.raises(Changed, match=r"another validation data \([0-9a-f]{12} then, none now\).*step-00000004'") as met:
        train(model(), Copying(), spec(save_every=4), out=tmp_path)
    assert met.value.exit_code == 3


def test_versions_are_compared_where_both_are_known() -> None:
    now = made_with(CPU)
    assert set(now) == {"assay-workbench", "torch", "processor"}
    assert now["torch"] == torch.__version__
    assert differences({}, now) == differences(now, now) == {}
    assert differences({**now, "torch": "1.0"}, now) == {"torch": ["1.0", now["torch"]]}
    assert in_words(5, {"torch": ["1.0", "2.0"]}).startswith("From step 5 on under torch 1.0 before and 2.0 now: the last bits may differ")


def test_a_run_under_other_versions_keeps_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[str] = []

    def under(version: str, cut: int = 0) -> Any:
        def note(event: str, state: Any) -> None:
            if event == "changed":
                words.append(state["words"])
            if event == "step" and state["step"] == cut:
                raise ZeroDivisionError

        monkeypatch.setattr(loop, "made_with", lambda device: {"torch": version})
        with pytest.raises(ZeroDivisionError) if cut else nullcontext():
            return train(model(), Copying(), spec(save_every=5), out=tmp_path / "cut", callbacks=[note])

    whole = train(model(), Copying(), spec(save_every=5), out=tmp_path / "whole")
    under("1.0", cut=6)
    under("2.0", cut=11)
    under("2.0", cut=16)
    history = under("3.0")
    assert [one[:15] for one in words] == ["From step 5 on ", "From step 15 on"]
    assert history["changes"] == [{"step": 5, "changed": {"torch": ["1.0", "2.0"]}}, {"step": 15, "changed": {"torch": ["2.0", "3.0"]}}]
    assert history["weights"] == whole["weights"]
    assert whole["changes"] == []


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words"), [("weight", r"'embed\.token\.weight' is not finite"), ("moment", "the optimizer's moments are")]
)
def test_what_is_not_finite_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, words: str) -> None:
    """Spoilt after the step, so that its loss and gradient are sound."""
    real = torch.optim.AdamW.step

    def spoilt(self: Any, *given: Any) -> Any:
        out = real(self, *given)
        first = (
            self.param_groups[0]["params"][0]
            if what == "moment"
            else next(p for g in self.param_groups for p in g["params"] if p.shape == (11, 16))
        )
        with torch.no_grad():
            (self.state[first]["exp_avg_sq"] if what == "moment" else first).view(-1)[3] = torch.inf
        return out

    monkeypatch.setattr(torch.optim.AdamW, "step", spoilt)
    with pytest.raises(Diverged, match=rf"stopped at step 1: {words}.*No checkpoint had been written"):
        train(model(), Copying(), spec(save_every=1), out=tmp_path)
    with pytest.raises(Diverged, match="stopped at step 1: "):
        train(model(), Copying(), spec(steps=1, warmup=0), out=tmp_path / "last")
    assert not (tmp_path / "last" / "final").exists()


# --- what the lab adds --------------------------------------------------------------------------------------


def test_whatever_ends_a_run_names_it_and_its_last_checkpoint(tmp_path: Path) -> None:
    made(tmp_path)
    last = tmp_path / "step-00000020"

    def ended_by(error: BaseException) -> str:
        with pytest.raises(BaseException) as met, named("abc", tmp_path, [], tmp_path / "notes"):
            raise error
        return str(met.value)

    for error in (StoreError("The store could not be written", "database or disk is full (x)"), OSError(errno.ENOSPC, "No space left")):
        assert f"Make room and go on from the last whole checkpoint, '{last}', with the same command and `--resume abc`." in ended_by(error)
    assert "could not be written to 'x': Read-only" in ended_by(Unwritable("A thing", "x", "Read-only file system"))
    gone = ended_by(MissingFile("text.txt", "text"))
    assert gone == f"No text at 'text.txt'. Then go on from '{last}' with the same command and `--resume abc`."
    assert ended_by(KeyboardInterrupt()) == f"with '{last}' as its last whole checkpoint"
    assert ended_by(KeyboardInterrupt("after step 3")) == "after step 3"
    assert ended_by(BadValue("x", 1, "2")) == "x is 1, but it must be 2."
    assert ended_by(StoreError("x", "it is locked")) == "x: it is locked."
    assert "--resume abc --from 16`" in ended_by(CorruptFile(last / "config.json", "whole", "it is not"))
    with pytest.raises(FileNotFoundError), named("abc", tmp_path, [], tmp_path):
        raise FileNotFoundError(errno.ENOENT, "a mistake of ours is none of the disk's")
    with pytest.raises(KeyboardInterrupt, match="before a checkpoint was written"), named("abc", tmp_path / "none", [], tmp_path):
        raise KeyboardInterrupt


def test_the_damaged_training_of_several_is_the_one_that_goes_back(tmp_path: Path) -> None:
    first, last = folders_of(tmp_path, ["coder", ""])
    assert (first, last) == (tmp_path / "phases" / "coder", tmp_path)
    made(first)
    assert kept(tmp_path, ["coder"]) == str(first / "step-00000020")
    made(last)
    assert kept(tmp_path, ["coder"]) == str(last / "step-00000020")
    spoil(first / "final" / "model.safetensors")
    assert go_back(tmp_path, ["coder"], 16) == {"step": 16, "aside": ["final", "step-00000020"], "of": "coder"}
    assert steps_in(last)[0] == 20
    assert go_back(tmp_path, ["coder"], 16)["of"] == ""
    (last / "latest").write_text("nothing")
    with pytest.raises(AssayError, match="a step with a whole checkpoint"):
        go_back(tmp_path, ["coder"], 20)
    assert go_back(tmp_path / "none", [], 0) == {"step": 0, "aside": [], "of": ""}
