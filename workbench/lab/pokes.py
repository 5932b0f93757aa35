"""A model changed while it runs, beside itself: heads and neurons taken out, a stream pushed, and what it answers and writes then.

Nothing is changed in the model: the edits are values of one run, so that two who poke one model do not meet.

    head or neuron taken out    hook_z or hook_post at it := 0, at every position
    pushed                      x + dose * (x(towards) - x(away))    at every position, x(·) the stream at the last token of a text

Source: Turner et al., Activation Addition, 2023 (arXiv:2308.10248), for the push; zero ablation as in Wang et al., Interpretability in the
Wild, 2022 (arXiv:2211.00593).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from probes.target import device_of
from workbench.core.charts.dots import before_after
from workbench.core.charts.heat import shown
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Add, Edit, HookedModel, Inputs, Zero
from workbench.core.result import Provenance, Result
from workbench.engine.generate import generate
from workbench.lab import rows
from workbench.lab.live import probability_words, tokens_of
from workbench.lab.refs import reference_of

MOST_WRITTEN, FARTHEST = 64, 1000.0
_PART = re.compile(r"(?:(?P<stack>[a-z]+)\.)?L(?P<layer>\d+)(?P<kind>[HN])(?P<number>\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A head (``H``) or an MLP's neuron (``N``) of a layer: ``L1H0``, ``decoder.L0N17``."""

    layer: int
    kind: str
    number: int
    stack: str = ""

    @property
    def site(self) -> str:
        at = f"{self.stack}.blocks.{self.layer}." if self.stack else f"blocks.{self.layer}."
        return f"{at}attn.hook_z" if self.kind == "H" else f"{at}mlp.hook_post"

    def __str__(self) -> str:
        return (f"{self.stack}." if self.stack else "") + f"L{self.layer}{self.kind}{self.number}"

    def edit(self) -> Edit:
        return Zero(self.site, at={"head" if self.kind == "H" else "d_mlp": self.number})


@dataclass(frozen=True)
class Push:
    """Add ``dose`` times the difference of two texts' streams (last token of each) to the stream after ``layer``."""

    layer: int
    towards: str
    away: str
    dose: float


def parts_of(model: HookedModel, typed: Sequence[str]) -> tuple[Part, ...]:
    """Parts from words such as ``L0H1`` and ``L1N20``. Raises BadValue for one that cannot be meant or is not there."""
    table, out = model.sites(), []
    for word in typed:
        match = _PART.fullmatch(word.strip())
        if match is None:
            raise BadValue("a part", word, "written as L1H0 (layer 1, head 0) or L1N20 (layer 1, neuron 20 of its MLP)")
        part = Part(int(match["layer"]), match["kind"].upper(), int(match["number"]), match["stack"] or _first_stack(model))
        if part.site not in table:
            layers = sorted({site.layer for site in table.values() if site.stack == part.stack and site.layer is not None})
            raise BadValue(
                "a part", word, f"of a layer that is there: {', '.join(map(str, layers)) or 'none'} of this {model.family} model"
            )
        count = _count_of(model, part)
        if part.number >= count:
            last = replace(part, number=count - 1)
            raise BadValue("a part", word, f"one that is there: {replace(part, number=0)} to {last}")
        out.append(part)
    return tuple(dict.fromkeys(out))


def _count_of(model: HookedModel, part: Part) -> int:
    """How many heads, or neurons, a part's layer has."""
    block = part.site.removesuffix("attn.hook_z").removesuffix("mlp.hook_post")
    weight = model.weight(f"{block}attn.W_Q" if part.kind == "H" else f"{block}mlp.W_out")
    return int(weight.shape[0])


def _first_stack(model: HookedModel) -> str:
    """The stack meant where none is named: the last, which writes the answer."""
    return [site.stack for site in model.sites().values() if site.layer is not None][-1]


def push_edit(model: HookedModel, push: Push) -> tuple[Edit, float]:
    """The edit, and how long the difference is beside the stream it is added to (their lengths' ratio, at the towards text).

    Raises BadValue for texts that end in one stream, and for a dose that no one can mean.
    """
    if model.tokenizer is None:
        raise Incompatible("a push", f"this {model.family} model", ["it has no tokenizer, and a push is read from two texts"])
    if not np.isfinite(push.dose) or abs(push.dose) > FARTHEST:
        raise BadValue("the dose", push.dose, f"a number of at most {FARTHEST:g} in size")
    site = f"blocks.{push.layer}.hook_resid_post"
    if site not in model.sites():
        raise BadValue("the layer", push.layer, "one of this model's single stack")
    ends = [_end(model, text, site) for text in (push.towards, push.away)]
    way = ends[0] - ends[1]
    if not bool(way.any()):
        raise BadValue("the two texts", (push.towards, push.away), "texts whose streams differ at the last token")
    return Add(site, value=push.dose * way), float(way.norm() / ends[0].norm().clamp_min(1e-30))


def _end(model: HookedModel, text: str, site: str) -> Float[Tensor, " d_model"]:
    """The stream at a text's last token."""
    return model.run(batch_of(model, text), capture=site, logits=None)[site][0, -1].detach()


def batch_of(model: HookedModel, text: str) -> Any:
    """A text as the model is run on it."""
    ids = torch.tensor([tokens_of(model, text).ids], device=device_of(model))
    padded = getattr(model, "padded", None)
    return padded(ids, torch.ones_like(ids, dtype=torch.bool)) if padded is not None else ids


# --- before and after ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Changed(Result):
    """Answers before and after: ``before``, ``after`` ``[answer]`` (probabilities) of the likeliest on either side, ``kl`` from before to
    after in nats over all answers; ``written`` ``[version]`` what the model writes after the prompt, where it writes."""

    def summary(self) -> str:
        """How far the answers moved, and what stands first now."""
        v: Any = self.values
        first = [str(v.answer.values[int(np.argmax(v[name].values))]) for name in ("before", "after")]
        now = f"is still '{shown(first[1])}'" if first[0] == first[1] else f"was '{shown(first[0])}' and is '{shown(first[1])}' now"
        return f"{self.spec['what']}: the likeliest answer {now}. The answers moved by {float(v.kl):.3g} nats (KL, before to after)."

    def plot(self) -> Any:
        """The answers, before and after."""
        frame = self.values[["before", "after"]].to_dataframe().reset_index()
        frame["answer"] = [shown(str(name)) for name in frame["answer"]]
        titles = {"title": "Answers before and after", "after": "probability", "answer": "answer"}
        return before_after(frame, "answer", "before", "after", titles=titles, written=probability_words)


def changed(model: HookedModel, given: str | Inputs, edits: Sequence[Edit], what: str, *, most: int = 8, write: int = 0) -> Changed:
    """The model with ``edits`` beside itself, on a text or a row; ``write`` tokens are written too (greedy), where the model writes.

    Raises BadValue for inputs that cannot be meant and for answers that are not finite, Incompatible for predicted pixels.
    """
    if not 0 <= write <= MOST_WRITTEN:
        raise BadValue("the tokens to be written", write, f"from 0 to {MOST_WRITTEN}")
    batch = batch_of(model, given) if isinstance(given, str) else given.batch
    if "height" in _answer_axes(model):
        raise Incompatible("before and after", f"this {model.family} model", ["its answers are the values of a predicted picture"])
    sides = [rows.answers(model, batch, edit)[0].double().softmax(-1) for edit in ((), tuple(edits))]
    if not all(bool(side.isfinite().all()) for side in sides):
        raise BadValue("the answers", "NaN or infinity", "finite", do="The dose is far too large, or the weights are broken.")
    before, after = sides
    top = torch.stack(sides).amax(0).topk(min(most, len(before))).indices
    top = top[before[top].argsort(descending=True, stable=True)]
    names = np.array(rows.names_of(model, top.tolist(), batch), dtype=object)
    kl = torch.where(before > 0, before * (before.clamp_min(1e-300).log() - after.clamp_min(1e-300).log()), 0.0).sum().item()
    values = xr.Dataset(
        {"before": ("answer", before[top].numpy()), "after": ("answer", after[top].numpy()), "kl": max(0.0, kl)},
        coords={"answer": names, "answer_id": ("answer", top.numpy())},
    )
    if write and isinstance(given, str) and "generate" in model.abilities:
        both: list[Any] = [model, Edited(model, edits)]
        versions = [generate(one, [given], most=write)[0] for one in both]
        values = values.assign(written=("version", np.array(versions, dtype=object))).assign_coords(version=["before", "after"])
    origin = Provenance.here(model=reference_of(model), model_digest=model.digest())
    return Changed(kind="changed", values=values, spec={"what": what, "most": most, "write": write}, provenance=origin)


def _answer_axes(model: HookedModel) -> tuple[str, ...]:
    table = model.sites()
    return tuple(table[rows.LOGITS].axes) if rows.LOGITS in table else ()


class Edited:
    """A model with edits in every run."""

    def __init__(self, model: HookedModel, edits: Sequence[Edit]) -> None:
        self._model, self._edits = model, tuple(edits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, batch: Any, *, edit: Sequence[Edit] = (), **named: Any) -> Any:
        return self._model.run(batch, edit=[*edit, *self._edits], **named)
