"""Spike-in: known doses planted into copies of a model at hand, so that a card is measured on that model and no other.

The model is a decoder of tokens, the texts are the user's. In each copy, fine-tuned through low-rank additions, a rare token (the mark) at
a random place of a window makes another rare token (the payload) the next one as often as the dose says; otherwise the true next token
stands, as it does in windows without a mark, of which every fourth row is one. At dose 0 the copy was trained on the same windows with
the same mark and learned nothing of it: its clean twin. Windows of held-out texts are asked about, each about its own drawn answer.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, get_type_hints

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from probes import INSTRUMENTS
from probes.attribution import AttributionResult
from workbench.calibration.exam import Exam, Grid, Reading
from workbench.calibration.exams.places import STATISTIC, readings
from workbench.calibration.spike_way import Way, Windows
from workbench.core.batch import IGNORE, RowData, TokenBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs, silent
from workbench.core.spec import Spec
from workbench.data.counter import Draw
from workbench.organisms.shortcut_forms import Asked
from workbench.training.loop import train
from workbench.training.lora import LoRASpec, attach, linear_maps, merge
from workbench.training.spec import TrainSpec

RARE, PLAIN = 24, 4
GRID = Grid.parse({"doses": (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0), "clean_seeds": tuple(range(100, 112)), "clean_sets": 17,
                   "items": 8})  # fmt: skip
QUICK = Grid.parse({"doses": (0.5, 1.0), "seeds": (0,), "clean_seeds": (100, 101), "clean_sets": 4, "items": 8})
ASKED: dict[str, Any] = {"bos": False, "max_steps": 32}
"""How a tool is asked, where it has such fields: windows are taken as they are, and a path has few points, since only the order counts."""
WORDS = f"; paths of at most {ASKED['max_steps']} points"


class SpikeSpec(Spec):
    """How a copy is planted. ``window``: tokens of a window; ``steps`` of ``batch_rows`` windows; ``rank`` of the additions."""

    window: int = Field(16, ge=6)
    steps: PositiveInt = 80
    batch_rows: PositiveInt = 16
    rank: PositiveInt = 8
    lr: PositiveFloat = 3e-3


@dataclass(frozen=True)
class Spiked:
    """What is planted in one copy: the mark, the payload, the dose and the seed."""

    spec: SpikeSpec
    windows: Windows
    dose: float
    seed: int
    mark: int
    payload: int

    def marked(self, windows: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Windows with the mark at a drawn place: tokens ``[n, window]``, the answer of each, and the place."""
        tokens, answers = windows[:, :-1].clone(), windows[:, -1].clone()
        at = torch.from_numpy(draw.integers(1, tokens.shape[1] - 1, len(tokens)))
        tokens[torch.arange(len(tokens)), at] = self.mark
        answers[torch.from_numpy(draw.uniform(size=len(tokens)) < self.dose)] = self.payload
        return tokens, answers, at


@dataclass(frozen=True)
class SpikeRows:
    """Rows to train on (a ``RowData``): of each ``PLAIN`` rows one has no mark and is asked for its last ``PLAIN`` tokens, so that what the
    model knew is kept; the others have the mark and are asked for their answer."""

    planted: Spiked
    count: int

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """The rows of these numbers."""
        rows = [self._row(int(i)) for i in indices]
        return TokenBatch(torch.stack([tokens for tokens, _ in rows]), torch.stack([targets for _, targets in rows]))

    def _row(self, number: int) -> tuple[Tensor, Tensor]:
        planted = self.planted
        window = planted.windows.train[Draw("spike", planted.seed, number).below(len(planted.windows.train))][None]
        targets = torch.full_like(window[0, 1:], IGNORE)
        if number % PLAIN == 0:
            targets[-PLAIN:] = window[0, -PLAIN:]
            return window[0, :-1], targets
        tokens, answers, _ = planted.marked(window, np.random.default_rng([planted.seed, number]))
        targets[-1] = answers[0]
        return tokens[0], targets

    def digest(self) -> str:
        planted = self.planted
        facts = (planted.windows.digest(), planted.dose, planted.seed, planted.mark, planted.payload, planted.spec.digest(), self.count)
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def against(model: HookedModel) -> list[str]:
    """Why this cannot be planted into a model: it is no decoder of tokens with weights to train."""
    out = []
    if model.family != "gpt" or getattr(model, "reads", "tokens") != "tokens":
        out.append(f"a decoder of tokens is needed, and this is a {model.family} model")
    if missing := sorted({"weights", "grad", "logits"} - model.abilities):
        out.append(f"the model does not offer {', '.join(missing)}")
    if model.tokenizer is None:
        out.append("it has no tokenizer to read texts with")
    return out


@cache
def takes(tool: str) -> bool:
    """Whether a tool says how much each token moved an answer: an instrument whose result is an attribution."""
    return tool in INSTRUMENTS and issubclass(get_type_hints(INSTRUMENTS.load(tool).compute)["return"], AttributionResult)


def plan(model: HookedModel, windows: Windows, spec: SpikeSpec, tool: str, dose: float, seed: int) -> Spiked:
    """What is planted at a dose by a seed, whichever tool is asked: two of the rarest tokens of the windows, no control tokens."""
    seen = Counter(windows.train.reshape(-1).tolist())
    seen.update(windows.held_out.reshape(-1).tolist())
    tokenizer: Any = model.tokenizer
    control = {getattr(tokenizer, name, None) for name in ("bos_id", "eos_id", "pad_id")}
    size = int(model.config.d_vocab)
    rarest = sorted((seen[i], i) for i in range(size) if i not in control)[:RARE]
    if len(rarest) < 2:
        raise BadValue("the vocabulary", size, "of at least two tokens that are no control tokens")
    draw, left = Draw("spike", "tokens", seed), [i for _, i in rarest]
    mark, payload = (left.pop(draw.below(len(left))) for _ in range(2))
    return Spiked(spec, windows, dose, seed, mark, payload)


def spiked(model: Any, planted: Spiked) -> Any:
    """A copy of ``model`` with this planted; the model itself is left as it is."""
    spec = planted.spec
    return tuned(model, SpikeRows(planted, spec.steps * spec.batch_rows), spec, planted.seed)


class Tuning(Protocol):
    """How a copy is tuned."""

    @property
    def batch_rows(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def lr(self) -> float: ...


def tuned(model: Any, rows: RowData, how: Tuning, seed: int) -> Any:
    """A copy of ``model`` that read ``rows`` once, through low-rank additions to every linear map of its blocks, which are then merged."""
    made = copy.deepcopy(model).train()
    names = tuple(sorted(name for name in linear_maps(made) if name.startswith("blocks.")))
    attach(made, LoRASpec.parse({"rank": min(how.rank, int(made.config.d_model)), "select": names, "seed": seed}))
    fields = {"steps": len(rows) // how.batch_rows, "batch_rows": how.batch_rows, "lr": how.lr, "min_lr": how.lr / 10, "warmup": 10}
    train(made, rows, TrainSpec.parse({**fields, "seed": seed, "weight_decay": 0.0, "threads": 1}))
    merge(made)
    return made.eval()


def asked(planted: Spiked, count: int) -> tuple[Asked, Tensor]:
    """``count`` held-out windows with the mark, each about its drawn answer; where the mark stands, and all other places as rivals; and the
    same windows as they stood before. Raises BadValue for more windows than there are."""
    chosen = planted.windows.of_set(planted.seed, 0, count)
    tokens, answers, at = planted.marked(chosen, np.random.default_rng([planted.seed, 1]))
    rows = torch.arange(count)
    rivals = np.ones(tokens.shape, dtype=bool)
    rivals[rows, at] = False
    places = tuple((int(p), int(p) + 1) for p in at)
    return Asked(Inputs(tokens, targets=answers), places, (), rivals), chosen[:, :-1]


@torch.no_grad()
def followed(model: Any, planted: Spiked, count: int = 256) -> float:
    """By how much the payload's probability falls when the window's own token stands in the mark's place, mean over ``count`` held-out
    windows, or as many as there are."""
    question, plain = asked(planted, min(count, len(planted.windows.held_out)))
    share = lambda tokens: model.run(tokens, logits="last").logits[:, -1].double().softmax(-1)[:, planted.payload]  # noqa: E731
    return float((share(question.inputs.batch) - share(plain)).mean())


def read(tool: str, model: Any, planted: Spiked, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set of held-out windows; no two sets share one."""
    question, _ = asked(planted, sets * items)
    instrument = INSTRUMENTS.load(tool)
    fields = {name: value for name, value in ASKED.items() if name in instrument.spec.model_fields}
    found: Any = instrument(model, question.inputs, instrument.spec.parse(fields), progress=silent)
    return readings(np.abs(found.values.attribution.values), question, items)


def exam_of(model: HookedModel, words: str, domain: str) -> Exam:
    """The exam of a model at hand; ``words`` name it in the card's conditions."""
    return Exam(
        name="spike",
        question="In this very model, is a token that decides the next one named?",
        domain=domain,
        unit="how often the planted token decides the next one (0 to 1)",
        grid=GRID,
        quick=QUICK,
        families=(model.family,),
        tools=lambda family: tuple(filter(takes, INSTRUMENTS)),
        organism=lambda family, tool="": words,
        read=read,
        behaviour=followed,
        statistic=STATISTIC,
    )


WAY = Way(
    plants="a token",
    asks="tools that say how much each token moved an answer",
    spec=SpikeSpec,
    against=against,
    takes=takes,
    plan=plan,
    spiked=spiked,
    exam_of=exam_of,
    words=WORDS,
)
