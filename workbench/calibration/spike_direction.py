"""Spike-in of a direction: how far apart must two classes of words lie in this very model before a tool that fits to labels sees it?

Words of the user's texts are given a class by chance, and in each copy of the model the embeddings of the two classes are moved apart along
one random direction: weight surgery, no training. ``dose`` is how far, in standard deviations of the words' own embeddings along it. Each
word stands at a random place of a window of held-out text, and a tool is asked about its class at that token, with other words held out
than those it was fitted to: what words are by nature tells nothing of a class drawn by chance. At dose 0 the copy is the model itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from probes import INSTRUMENTS
from workbench.calibration.exam import Exam, Grid, Reading
from workbench.calibration.spike_way import Way, Windows
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Inputs, silent
from workbench.core.spec import Spec

FAMILIES = ("bert", "gpt")
GRID = Grid.parse({"doses": (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0), "clean_seeds": tuple(range(100, 112)), "clean_sets": 17,
                   "items": 160})  # fmt: skip
WORDS = "; held out are other words than those fitted to"
QUICK = Grid.parse({"doses": (2.0, 8.0), "seeds": (0,), "clean_seeds": (100, 101), "clean_sets": 4, "items": 160})


class DirectionSpikeSpec(Spec):
    """``window``: tokens of a window, the word among them; ``words``: how many are given a class, as many each."""

    window: int = Field(6, ge=2)
    words: int = Field(160, ge=20)


@dataclass(frozen=True)
class Directed:
    """What is planted in one copy of ``base``: the words' ids and classes (-1 or 1), and the direction, of length one."""

    spec: DirectionSpikeSpec
    windows: Windows
    dose: float
    seed: int
    words: Int[Tensor, " word"]
    classes: Int[Tensor, " word"]
    direction: Float[Tensor, " d_model"]
    base: Any

    def asked(self, number: int, items: int) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
        """Set ``number``: held-out windows as the model reads them, the first ``items`` words in them in turn, and where each stands. No
        two sets share a window; all share the words, which are what is planted. Raises BadValue beyond the last window."""
        draw = np.random.default_rng([self.seed, number, 2])
        chosen = self.windows.of_set(self.seed, number, items)[:, :-1].clone()
        at = torch.from_numpy(draw.integers(chosen.shape[1], size=items))
        chosen[torch.arange(items), at] = self.words[torch.arange(items) % len(self.words)]
        frame = getattr(self.base.tokenizer, "framed", None)
        if frame is None:
            return chosen, at
        lead = frame([int(self.words[0])])[0].index(int(self.words[0]))
        return torch.tensor([frame(row)[0] for row in chosen.tolist()]), at + lead


def against(model: HookedModel) -> list[str]:
    """Why this cannot be planted into a model: it reads no tokens, or its weights are not offered."""
    out = []
    if model.family not in FAMILIES or getattr(model, "reads", "tokens") != "tokens":
        out.append(f"it moves embeddings of words, and this is a {model.family} model")
    if "weights" not in model.abilities:
        out.append("the model does not offer weights")
    if model.tokenizer is None:
        out.append("it has no tokenizer to read texts with")
    return out


def plan(model: HookedModel, windows: Windows, spec: DirectionSpikeSpec, tool: str, dose: float, seed: int) -> Directed:
    """What is planted at a dose by a seed, whichever tool is asked. Raises BadValue where the texts have too few words."""
    tokenizer: Any = model.tokenizer
    control = {getattr(tokenizer, name, None) for name in ("bos_id", "eos_id", "pad_id")} | set(getattr(tokenizer, "control_ids", ()))
    seen = sorted(set(windows.held_out.reshape(-1).tolist()) - control)
    if len(seen) < spec.words:
        raise BadValue("the words of the texts", f"{len(seen)} different tokens", f"at least {spec.words}", do="Give more text (`--data`).")
    draw = np.random.default_rng([seed, 1])
    words = torch.from_numpy(draw.permutation(seen)[: spec.words])
    classes = torch.from_numpy(draw.permutation(np.arange(spec.words) % 2 * 2 - 1))
    direction = torch.from_numpy(draw.normal(size=model.weight("W_E").shape[-1]))
    return Directed(spec, windows, dose, seed, words, classes, direction / direction.norm(), model)


@torch.no_grad()
def spiked(model: Any, planted: Directed) -> Any:
    """A copy of ``model`` with this planted; the model itself is left as it is."""
    made = copy.deepcopy(model).eval()
    table = made.weight("W_E")
    along = planted.direction.to(table)
    spread = (table[planted.words] @ along).std()
    table[planted.words] += planted.classes[:, None].to(table) * (planted.dose / 2) * spread * along
    return made


@torch.no_grad()
def moved(model: Any, planted: Directed, count: int = 160) -> float:
    """What the plant does to what the model hands on: how far a word's vector after the last layer lies from where the model itself has
    it, over how far two words' vectors lie from each other there (means over ``count`` held-out windows, or as many as there are)."""
    count = min(count, len(planted.windows.held_out))
    ids, at = planted.asked(0, count)
    site = _sites(model)[-1]
    now, before = (one.run(ids, capture=(site,), logits=None)[site][torch.arange(count), at].double() for one in (model, planted.base))
    apart = (before - before.roll(1, 0)).norm(dim=-1).mean()
    return float((now - before).norm(dim=-1).mean() / apart)


def _sites(model: Any) -> tuple[str, ...]:
    """After the first layer and after the last."""
    return tuple(dict.fromkeys(f"blocks.{layer}.hook_resid_post" for layer in (0, model.config.n_layers - 1)))


READERS: dict[str, Callable[[Any], Any]] = {
    "probing": lambda found: found.isel(split=0, labels=0, network=0).sel(task="labels"),
    "concept-direction": lambda found: found.isel(labels=0, to_labels=0).sel(way="difference"),
}
"""Where in a tool's answer its held-out accuracy stands: of concept directions, that of the difference of means."""


def read(tool: str, model: Any, planted: Directed, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set: held-out accuracy after the first layer; after the last beside it."""
    instrument, sites = INSTRUMENTS.load(tool), _sites(model)
    told = np.where(planted.classes.numpy() > 0, "up", "down")[np.arange(items) % len(planted.words)]
    words = planted.words[torch.arange(items) % len(planted.words)].tolist()
    out = []
    for number in range(sets):
        ids, at = planted.asked(number, items)
        labels = np.full(ids.shape, "", dtype="<U4")
        labels[np.arange(items), at.numpy()] = told
        spec = instrument.spec.parse({"sites": sites, "draws": 1, "resamples": 400, "seed": number})
        found: Any = READERS[tool](instrument(model, Inputs(ids, labels=labels, groups=words), spec, progress=silent).values)
        first, last = found.sel(site=sites[0]), found.sel(site=sites[-1])
        extras = {"read after the last layer": float(last.accuracy)}
        out.append(Reading(float(first.accuracy), float(first.accuracy_low) > 0.5, extras))
    return out


def exam_of(model: HookedModel, words: str, domain: str) -> Exam:
    """The exam of a model at hand; ``words`` name it in the card's conditions."""
    return Exam(
        name="spike-direction",
        question="In this very model, is a direction that two classes of words were moved apart along read off?",
        domain=domain,
        unit="how far the classes were moved apart, in standard deviations of the words' embeddings along the direction",
        grid=GRID,
        quick=QUICK,
        families=(model.family,),
        tools=lambda family: tuple(READERS),
        organism=lambda family, tool="": words,
        read=read,
        behaviour=moved,
        statistic="read after the first layer",
    )


WAY = Way(
    plants="a direction",
    asks="probes that fit to the labels of tokens",
    spec=DirectionSpikeSpec,
    against=against,
    takes=lambda tool: tool in READERS,
    plan=plan,
    spiked=spiked,
    exam_of=exam_of,
    words=WORDS,
)
