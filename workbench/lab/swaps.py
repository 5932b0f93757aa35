"""Two prompts side by side, and one activation of the one put into the run of the other: what a patching grid's cell does.

    denoising    the corrupt prompt is run, and the clean prompt's activation is put in
    noising      the clean prompt is run, and the corrupt prompt's activation is put in

Source: Vig et al., 2020 (arXiv:2004.12265); Meng et al., 2022 (arXiv:2202.05262). The grid itself is ``probes.activation_patching``.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr

from workbench.core.charts.cells import cells
from workbench.core.charts.dots import before_after
from workbench.core.charts.heat import shown
from workbench.core.errors import BadValue
from workbench.core.protocol import FromTrace, HookedModel
from workbench.core.result import Provenance, Result
from workbench.lab import rows
from workbench.lab.live import probability_words, tokens_of
from workbench.lab.pokes import batch_of
from workbench.lab.refs import reference_of

PATCHING = "activation-patching"
COMPONENTS = {
    "resid_pre": "the stream before each layer",
    "attn_out": "what each layer's attention adds",
    "mlp_out": "what each layer's MLP adds",
}
Direction = Literal["denoising", "noising"]


@dataclass(frozen=True)
class Alignment:
    """Two prompts' tokens beside each other; ``equal``: they have as many, so that position meets position."""

    clean: tuple[str, ...]
    corrupt: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return len(self.clean) == len(self.corrupt)

    @property
    def differing(self) -> tuple[int, ...]:
        """Positions whose tokens differ; of prompts of equal length."""
        return tuple(i for i, (a, b) in enumerate(zip(self.clean, self.corrupt, strict=False)) if a != b) if self.equal else ()

    def frame(self) -> pd.DataFrame:
        """One row a place: position, both tokens ('' where one prompt has none), and whether they are the same. Prompts of unequal length
        are aligned by what they share."""
        if self.equal:
            pairs = list(zip(self.clean, self.corrupt, strict=True))
        else:
            pairs = []
            for _, a, b, c, d in SequenceMatcher(None, self.clean, self.corrupt, autojunk=False).get_opcodes():
                left, right = self.clean[a:b], self.corrupt[c:d]
                pairs += [(left[i] if i < len(left) else "", right[i] if i < len(right) else "") for i in range(max(len(left), len(right)))]
        cell = lambda token: shown(token) if token else ""  # noqa: E731
        rows_ = [(i, cell(a), cell(b), "same" if a == b else "differs") for i, (a, b) in enumerate(pairs)]
        return pd.DataFrame(rows_, columns=pd.Index(["place", "clean", "corrupt", "the two"]))

    def words(self) -> str:
        """How they compare, in a sentence."""
        if not self.equal:
            return (
                f"The clean prompt has {len(self.clean)} tokens and the corrupt one {len(self.corrupt)}: patching puts a position into the "
                "same position, so they must have equally many. The table shows where they part."
            )
        if not self.differing:
            return "The two prompts are the same: there is nothing to trace."
        if len(self.differing) == 1:
            (at,) = self.differing
            pair = f"'{shown(self.clean[at])}' against '{shown(self.corrupt[at])}'"
            return f"Both have {len(self.clean)} tokens and differ at position {at} alone: {pair}."
        where = ", ".join(map(str, self.differing))
        return f"Both have {len(self.clean)} tokens and differ at {len(self.differing)} positions: {where}."


def aligned(model: HookedModel, clean: str, corrupt: str) -> Alignment:
    """Both prompts' tokens. Raises BadValue as ``live.tokens_of`` does."""
    return Alignment(tokens_of(model, clean).pieces, tokens_of(model, corrupt).pieces)


def grid_of(result: Any) -> dict[str, Any]:
    """A patching's cells as a grid to press: layers upward, positions across."""
    found = result.grid()
    layers, positions = found["layer"].values.tolist(), found["pos"].values.tolist()
    values = found.transpose("layer", "pos").values
    tokens = {int(p): str(t) for p, t in zip(result.values.pos.values, result.values.token_at.values[:, 0], strict=True)}
    order = np.argsort(-np.array(layers), kind="stable")
    title = f"{result.spec['components'][0]}: {found.name} of {result.spec['direction']}"
    return cells(
        values[order], [f"layer {layers[i]}" for i in order], [tokens.get(int(p), "") for p in positions],
        title=title, unit="0 is the corrupt answer, 1 the clean one", signed=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Swapped(Result):
    """Probabilities of the likeliest answers ``[answer]``: of the run as it is (``plain``), with the activation put in (``patched``), and
    of the run it came from (``source``); ``kl`` from plain to patched, in nats over all answers."""

    def summary(self) -> str:
        """What the swap did to the likeliest answer."""
        v: Any = self.values
        plain, patched = (shown(str(v.answer.values[int(np.argmax(v[name].values))])) for name in ("plain", "patched"))
        now = f"is still '{patched}'" if plain == patched else f"was '{plain}' and is '{patched}' now"
        return f"{self.spec['what']}: the likeliest answer {now}. The answers moved by {float(v.kl):.3g} nats."

    def plot(self) -> Any:
        """The answers without and with the swap."""
        frame = self.to_frame()
        frame["answer"] = [shown(str(name)) for name in frame["answer"]]
        titles = {"title": "Answers of the patched run", "patched": "probability", "answer": "answer"}
        return before_after(frame, "answer", "plain", "patched", titles=titles, written=probability_words)


def swapped(
    model: HookedModel, clean: str, corrupt: str, *, component: str, layer: int, pos: int, direction: Direction = "denoising", most: int = 8
) -> Swapped:
    """One activation put from one prompt's run into the other's. Raises BadValue for a place that is not there."""
    both = aligned(model, clean, corrupt)
    if not both.equal:
        raise BadValue("the two prompts", f"{len(both.clean)} and {len(both.corrupt)} tokens long", "of equally many tokens")
    if component not in COMPONENTS:
        raise BadValue("the component", component, f"one of {', '.join(COMPONENTS)}")
    site = f"blocks.{layer}.hook_{component}"
    if site not in model.sites():
        raise BadValue("the layer", layer, "one of this model's")
    if not 0 <= pos < len(both.clean):
        raise BadValue("the position", pos, f"from 0 to {len(both.clean) - 1}")
    base, other = (corrupt, clean) if direction == "denoising" else (clean, corrupt)
    source = model.run(batch_of(model, other), capture=site)
    edits = ((), (FromTrace(site, trace=source, at={"pos": pos}),))
    plain, patched = (rows.answers(model, batch_of(model, base), edit)[0].double().softmax(-1) for edit in edits)
    there = rows.answers(model, batch_of(model, other))[0].double().softmax(-1)
    top = torch.stack([plain, patched, there]).amax(0).topk(min(most, len(plain))).indices
    top = top[plain[top].argsort(descending=True, stable=True)]
    names = np.array(rows.names_of(model, top.tolist()), dtype=object)
    kl = torch.where(plain > 0, plain * (plain.clamp_min(1e-300).log() - patched.clamp_min(1e-300).log()), 0.0).sum().item()
    values = xr.Dataset(
        {"plain": ("answer", plain[top].numpy()), "patched": ("answer", patched[top].numpy()), "source": ("answer", there[top].numpy()),
         "kl": max(0.0, kl)},
        coords={"answer": names, "answer_id": ("answer", top.numpy())},
    )  # fmt: skip
    token = shown(both.clean[pos] if direction == "denoising" else both.corrupt[pos])
    what = f"{component} of layer {layer} at position {pos} ({token}), {direction}"
    origin = Provenance.here(model=reference_of(model), model_digest=model.digest())
    spec = {"what": what, "component": component, "layer": layer, "pos": pos, "direction": direction, "clean": clean, "corrupt": corrupt}
    return Swapped(kind="swapped", values=values, spec=spec, provenance=origin)
