"""Every family of the catalogue, cut off and continued to the byte: with dropout, masked tokens, augmented inputs, drawn noise, several
micro-batches and float16 with its scale, at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from workbench.blocks.init import generator_of
from workbench.families import FAMILIES
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
                changed[name] = value + 0.1 * torch.stack([torch.randn(value.shape[1:], generator=draw) for draw in draws])
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


@pytest.mark.parametrize("name", [name if name == "gpt" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_a_family_cut_off_and_continued_is_the_unbroken_one_to_the_byte(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scaler, "START", 2.0**24)  # overflows at first, so skipped steps lie before the cut
    monkeypatch.setattr(Scaler, "GROWTH", 2)
    model, rows = learner(name)
    whole = train(model, rows, SPEC, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(*learner(name), SPEC, out=tmp_path / "cut", callbacks=[stop])
    torch.rand(7)  # whatever a new process has drawn already
    rest = train(*learner(name), SPEC, out=tmp_path / "cut")
    assert rest["resumed_from"] == 3
    assert whole["scaler"]["skipped"]
    assert whole["scaler"]["skipped"][0] < 3
    for fact in ("weights", "record", "scaler", "tokens"):
        assert rest[fact] == whole[fact], fact
    for file in ("model.safetensors", "train_state.json"):
        assert (tmp_path / "cut" / "final" / file).read_bytes() == (tmp_path / "whole" / "final" / file).read_bytes()


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
