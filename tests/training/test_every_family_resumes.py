"""Every family of the catalogue, cut off and continued to the byte: with dropout, masked tokens, augmented inputs, drawn noise, several
micro-batches and float16 with its scale, at once; the same with evaluations in between; and what a broken generator would do to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from workbench.blocks.init import generator_of
from workbench.core.batch import DiffusionBatch, PairBatch
from workbench.families import FAMILIES
from workbench.training import loop
from workbench.training.loop import train
from workbench.training.precision import Scaler
from workbench.training.spec import TrainSpec

NAMES = list(FAMILIES)
STEPS = 8


class Varied:
    """The rows of a family's tiny batch, again and again: row r is one of them with noise on what is real-valued and some of its text
    (ids below ``d_vocab``) replaced, both drawn from r alone, as augmentation and masking are."""

    def __init__(self, batch: Any, d_vocab: int) -> None:
        self.batch_of, self.d_vocab, self.rows = batch, d_vocab, len(next(iter(vars(batch).values())))

    def __len__(self) -> int:
        return 50

    def batch(self, indices: Sequence[int]) -> Any:
        chosen = self.batch_of.rows([index % self.rows for index in indices])
        changed: dict[str, Any] = {}
        for name, value in vars(chosen).items():
            draws = [generator_of("varied", name, index) for index in indices]
            if value is None:
                changed[name] = None
            elif value.is_floating_point():
                noisy = value + 0.1 * torch.stack([torch.randn(value.shape[1:], generator=draw) for draw in draws])
                changed[name] = noisy.clamp(0, 1) if float(value.min()) >= 0 and float(value.max()) <= 1 else noisy
            elif name == "tokens":
                masked = torch.stack([torch.rand(value.shape[1:], generator=draw) < 0.15 for draw in draws]) & (value < self.d_vocab)
                other = torch.stack([torch.randint(0, self.d_vocab, value.shape[1:], generator=draw) for draw in draws])
                changed[name] = torch.where(masked, other, value)
            else:
                changed[name] = value
        return type(chosen)(**changed)

    def digest(self) -> str:
        return f"varied {self.rows}"


def learner(name: str) -> tuple[Any, Varied]:
    """The tiny model, with dropout where its config has any, and its rows."""
    family = FAMILIES.load(name)
    tiny, batch = family.tiny(seed=0)
    config = tiny.config
    if isinstance(batch, DiffusionBatch):  # noised already: the loss of pictures draws the noise itself
        batch = PairBatch(torch.sigmoid(batch.pixels), batch.tokens, batch.mask)
    if "dropout" in type(config).model_fields:
        config = config.override({"dropout": 0.2})
    return family(config, seed=0), Varied(batch, 5)


SPEC = TrainSpec.parse(
    {"steps": STEPS, "batch_rows": 4, "accumulate": 2, "lr": 1e-2, "min_lr": 1e-3, "warmup": 2, "threads": 1, "save_every": 3,
     "precision": "fp16"}
)  # fmt: skip


class Interrupted(Exception):
    """Stands for whatever ended a process."""


def stop(event: str, state: Any) -> None:
    if event == "step" and state["step"] == 5:
        raise Interrupted


def differing(name: str, folder: Path, skipped: list[int] | None = None) -> list[str]:
    """What of a run that was cut off at its fifth step and continued is not as in the unbroken one, whose ``skipped`` steps are added."""
    model, rows = learner(name)
    whole = train(model, rows, SPEC, out=folder / "whole")
    with pytest.raises(Interrupted):
        train(*learner(name), SPEC, out=folder / "cut", callbacks=[stop])
    torch.rand(7)  # whatever a new process has drawn already
    rest = train(*learner(name), SPEC, out=folder / "cut")
    assert rest["resumed_from"] == 3
    if skipped is not None:
        skipped += whole["scaler"]["skipped"]
    facts = [fact for fact in ("weights", "record", "scaler", "tokens") if rest[fact] != whole[fact]]
    final = [folder / run / "final" for run in ("cut", "whole")]
    return facts + [file for file in ("model.safetensors", "train_state.json") if len({(one / file).read_bytes() for one in final}) > 1]


SCALE = {"vit": 2.0**16, "dalle": 2.0**13, "imagen": 2.0**13, "clip": 2.0**11}
"""Where the gradients' scale begins (else at 2^14): so high that it overflows early, so low that most steps are taken."""


@pytest.fixture
def early_overflow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that overflows at first, so skipped steps lie before the cut, and steps that were taken on both sides of it."""
    called = getattr(request.node, "callspec", None)
    monkeypatch.setattr(Scaler, "START", SCALE.get(called.params.get("name", ""), 2.0**14) if called is not None else 2.0**14)
    monkeypatch.setattr(Scaler, "GROWTH", 2)


GPT_IS_FAST = [name if name == "gpt" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


@pytest.mark.usefixtures("early_overflow")
@pytest.mark.parametrize("name", GPT_IS_FAST)
def test_a_family_cut_off_and_continued_is_the_unbroken_one_to_the_byte(name: str, tmp_path: Path) -> None:
    skipped: list[int] = []
    assert differing(name, tmp_path, skipped) == []
    assert skipped, "a step was skipped"
    assert skipped[0] < 3, "one of them before the checkpoint"
    assert not {0, 1, 2} <= set(skipped), "a step was taken before the checkpoint"
    assert not {3, 4, 5, 6, 7} <= set(skipped), "and one after it"


# --- what is broken is caught -------------------------------------------------------------------------------


class Drifting(Varied):
    """Rows augmented from the process's own generator, as a loader without counters does."""

    def batch(self, indices: Sequence[int]) -> Any:
        return super().batch([int(torch.randint(0, 50, ())) for _ in indices])


def _one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout and noise come from the process's generator."""
    monkeypatch.setattr(loop, "_drawing", lambda *_: nullcontext())


def _from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process seeds alike and counts its own steps."""
    real, calls = loop._drawing, [0]

    def counted(device: torch.device, *_: int) -> Any:
        calls[0] += 1
        return real(device, calls[0])

    monkeypatch.setattr(loop, "_drawing", counted)


def _drifting_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks and augmentation come from the process's generator."""
    real = learner
    monkeypatch.setitem(globals(), "learner", lambda name: (real(name)[0], Drifting(real(name)[1].batch_of, 5)))


def _new_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale of float16 is that of a new run."""
    monkeypatch.setattr(Scaler, "take", lambda self, state: None)


def _new_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimizer is that of a new run."""
    monkeypatch.setattr(loop, "restore", lambda *_: None)


FAULTS = (_one_stream, _from_the_start, _drifting_rows, _new_scale, _new_moments)
DRAWS = ("gpt", "bert", "imagen", "seq2seq", "vit", "whisper")
"""The families whose loss itself is random in training (dropout, noise)."""


@pytest.mark.usefixtures("early_overflow")
@pytest.mark.parametrize("fault", [FAULTS[0], *(pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS[1:])])
def test_each_broken_part_is_caught(fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert "weights" in differing("gpt", tmp_path)


@pytest.mark.full
@pytest.mark.usefixtures("early_overflow")
@pytest.mark.parametrize("name", NAMES)
def test_a_broken_generator_is_caught_in_every_family(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing in the loss is random the generator of the loss cannot be missed; rows are varied in all."""
    with monkeypatch.context() as patched:
        _one_stream(patched)
        assert bool(differing(name, tmp_path / "loss")) == (name in DRAWS)
    _drifting_rows(monkeypatch)
    assert "weights" in differing(name, tmp_path / "rows")


# --- evaluations in between ---------------------------------------------------------------------------------


def disturbing(event: str, state: Any) -> None:
    """What an instrument at a checkpoint may do: run the model, draw, seed, and leave it in evaluation mode."""
    if event in ("step", "checkpoint", "validation"):
        torch.manual_seed(5)
        torch.rand(3)
        state["model"].eval()


def evaluated(name: str, folder: Path) -> tuple[str, str]:
    """The final weights without and with validations, checkpoints and disturbances in between."""
    plain = train(*learner(name), SPEC.model_copy(update={"save_every": 0}))
    often = SPEC.model_copy(update={"validate_every": 2, "save_every": 1})
    rows = learner(name)[1]
    with_all = train(*learner(name), often, out=folder, validation=rows, callbacks=[disturbing])
    assert len(with_all["validation"]) == STEPS // 2
    return plain["weights"], with_all["weights"]


@pytest.mark.usefixtures("early_overflow")
@pytest.mark.parametrize("name", GPT_IS_FAST)
def test_evaluating_in_between_changes_no_bit_of_the_training(name: str, tmp_path: Path) -> None:
    without, with_all = evaluated(name, tmp_path)
    assert without == with_all


@pytest.mark.usefixtures("early_overflow")
def test_an_evaluation_that_leaked_into_the_training_would_be_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one stream for all, what an evaluation draws is missing from the training."""
    _one_stream(monkeypatch)
    without, with_all = evaluated("gpt", tmp_path)
    assert without != with_all


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_dropout_and_drawn_rows_matter(name: str) -> None:
    """What the test above continues is random indeed: rows differ, and where there is dropout two passes do."""
    model, rows = learner(name)
    model.train()
    first = rows.batch([0])
    again = [rows.batch([number * rows.rows]) for number in range(1, 10)]
    assert any(v is not None and not torch.equal(v, getattr(one, f)) for one in again for f, v in vars(first).items())
    if getattr(model.config, "dropout", 0.0):
        torch.manual_seed(0)
        assert float(model.loss(first)[0].detach()) != float(model.loss(first)[0].detach())
