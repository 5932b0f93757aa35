"""Direct logit attribution: what each component writes straight into an answer.

The last stream is a sum, and with the final norm's scale held at its value in the run the answer is linear in it:

    answer = c + b . d + sum over components of  (out [- mean out]) / scale * w . d        (letters as in ``probes.read_out``)

so every component's own share is one number and they add up to the answer, which is checked against the model's own logit for each
item. What a component does *through* others is not in its share. ``accumulated`` is the sum up to and including a component: the answer as
it would be read there, at the final scale.

Source: Elhage et al., A Mathematical Framework for Transformer Circuits, 2021 (the stream as a sum of paths); Wang et al.,
Interpretability in the Wild, 2022 (arXiv:2211.00593, logit differences by head); nostalgebraist, interpreting GPT: the logit lens, 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from probes.attention import check_cells
from probes.read_out import AnswerInstrument, Asked, Linear, depth_of, end_sites, linear_read_out, read_asked, weight_or_none
from probes.target import Target, model_dtype
from probes.token_items import TokenItems, origin
from workbench.core.charts.heat import grid
from workbench.core.charts.lines import bars_with_interval
from workbench.core.errors import BadValue, Incompatible
from workbench.core.measure import Needs
from workbench.core.protocol import HookedModel, Inputs, Progress, Trace
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.tolerance import tolerance

By = Literal["component", "head", "neuron"]
SHOWN = 20
"""Bars in a chart at most."""
FAR = 20
"""A sum this many bounds from the answer is no rounding: something stands between stream and answer that is not accounted for."""


class DirectLogitAttributionSpec(Spec):
    """What is split, and how finely."""

    by: By = Field(default="head", description="component: a layer's attention and MLP whole; head: by head; neuron: MLPs by neuron too")
    quantity: Literal["logit", "logit-difference"] = Field(
        default="logit", description="the answer; 'logit-difference' is target minus foil"
    )
    position: int | None = Field(default=None, description="whose logits are read: None is each item's last real token")
    stack: str = Field(default="", description="of two towers, the one whose stream is split; '' is the stack that is read")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most")
    tokens_a_pass: int = Field(default=4096, ge=1, description="tokens in one forward pass at most")


# --- components ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A captured tensor and how it enters the stream: as it is, through a matrix (by row or by head), or a constant vector."""

    kind: str
    layer: int
    site: str = ""
    matrix: str = ""

    def names(self, count: int) -> list[str]:
        """What each part is called."""
        at = f"L{self.layer} " if self.layer >= 0 else ""
        if self.kind in ("head", "cross head"):
            return [f"L{self.layer}{'X' if self.kind == 'cross head' else 'H'}{i}" for i in range(count)]
        return [f"{at}neuron {i}" for i in range(count)] if self.kind == "neuron" else [f"{at}{self.kind}"]


def sources(model: HookedModel, stack: str, prefix: str, by: By) -> list[Source]:
    """All that is added to the stream, in the order of a run."""
    table = model.sites()
    normed = any(name.startswith((f"{prefix}ln_embed.", f"{prefix}ln_pre.")) for name in table)
    split = f"{prefix}hook_embed" in table and not normed
    out = [Source("embed", -1, f"{prefix}hook_embed") if split else Source("start", -1, f"{prefix}blocks.0.hook_resid_pre")]
    if split and f"{prefix}hook_pos_embed" in table:
        out.append(Source("positions", -1, f"{prefix}hook_pos_embed"))
    for layer in range(depth_of(model, stack)):
        at = f"{prefix}blocks.{layer}."
        for part, word in (("attn", "head"), ("cross_attn", "cross head")):
            if f"{at}hook_{part}_out" in table:
                bias = f"{word.removesuffix('head')}attention bias"
                out += (
                    [Source(part.replace("_attn", " attention").replace("attn", "attention"), layer, f"{at}hook_{part}_out")]
                    if by == "component"
                    else [Source(bias, layer, matrix=f"{at}{part}.b_O"), Source(word, layer, f"{at}{part}.hook_z", f"{at}{part}.W_O")]
                )
        if f"{at}hook_mlp_out" in table:
            whole = by != "neuron"
            out += (
                [Source("mlp", layer, f"{at}hook_mlp_out")]
                if whole
                else [Source("mlp bias", layer, matrix=f"{at}mlp.b_out"), Source("neuron", layer, f"{at}mlp.hook_post", f"{at}mlp.W_out")]
            )
    return out


def shares(model: HookedModel, trace: Trace, linear: Linear, every: list[Source]) -> dict[Source, Tensor]:
    """``[batch, parts]`` of each source; what a bias adds is 0 where there is none."""
    out: dict[Source, Tensor] = {}
    for source in every:
        if not source.site:
            vector = weight_or_none(model, source.matrix)
            out[source] = (torch.zeros_like(linear.bias) if vector is None else linear.of_constant(vector))[:, None]
        elif not source.matrix:
            out[source] = linear.of_stream(trace[source.site])[:, None]
        else:
            out[source] = linear.through(trace[source.site], model.weight(source.matrix))
    return out


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: DirectLogitAttributionSpec, progress: Progress) -> DirectLogitAttributionResult:
    """Split the answer of each item. Raises BadValue for inputs that cannot be meant, Incompatible where the parts do not add up."""
    asked = read_asked(model, inputs, stack=spec.stack, bos=spec.bos, tokens_a_pass=spec.tokens_a_pass)
    target = asked.target(inputs, spec.quantity, spec.position)
    every = sources(model, asked.stack, asked.prefix, spec.by)
    sites = [*end_sites(model, asked.stack), *(source.site for source in every if source.site)]
    parts: list[Tensor] = []
    facts: list[Tensor] = []
    labels: list[tuple[str, str, int, int]] = []
    for part, batch in asked.passes():
        trace = model.run(batch, capture=list(dict.fromkeys(sites)))
        wanted = target.rows(part)
        value = _value(asked, trace, wanted)
        linear = linear_read_out(asked, trace, wanted)
        found = {Source("unembed bias", -1): linear.bias[:, None], Source("norm bias", -1): linear.norm_bias[:, None]}
        found |= shares(model, trace, linear, every)
        labels = _labels(found)
        check_cells(len(labels) * len(asked.items), spec.max_cells, "contributions")
        parts.append(torch.cat(list(found.values()), 1).cpu())
        facts.append(torch.stack([value.cpu(), _scale(linear).cpu()], 1))
        progress(part.stop, len(asked.items), "items")
    values = _values(torch.cat(parts), torch.cat(facts), labels, target, model)
    return DirectLogitAttributionResult(
        kind=INSTRUMENT.name,
        values=values,
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=model_dtype(model), targets=target.ids, foils=target.foils,
                          positions=target.positions, **asked.items.data()),
        notes=_notes(spec, asked, values),
    )  # fmt: skip


def _value(asked: Asked, trace: Trace, target: Target) -> Tensor:
    """The model's own answer of each item. Raises BadValue where it is not finite."""
    assert trace.logits is not None, "logits were asked for"
    logits = asked.answers(trace.logits).double()
    if logits.ndim == 3:
        logits = logits[torch.arange(len(logits), device=logits.device), target.positions.to(logits.device)]
    value = target.read(logits)
    if not bool(torch.isfinite(value).all()):
        raise BadValue("the answer", "NaN or infinity", "finite", do="The model's weights are broken.")
    return value


def _scale(linear: Linear) -> Tensor:
    """The scale of the final norm that was held (1 where there is no norm; the harmonic mean of the places where there are several)."""
    return 1.0 / linear.share.sum(1)


def _labels(found: dict[Source, Tensor]) -> list[tuple[str, str, int, int]]:
    """Name, kind, layer and number of every part."""
    out = []
    for source, value in found.items():
        count = value.shape[1]
        numbered = source.kind in ("head", "cross head", "neuron")
        out += [(name, source.kind, source.layer, i if numbered else -1) for i, name in enumerate(source.names(count))]
    return out


def _values(parts: Tensor, facts: Tensor, labels: list[tuple[str, str, int, int]], target: Target, model: HookedModel) -> xr.Dataset:
    contribution, value = parts.numpy(), facts[:, 0].numpy()
    accumulated = contribution.cumsum(1)
    biggest = np.maximum(1.0, np.maximum(np.abs(contribution).max(1), np.abs(accumulated).max(1)))
    away = np.abs(contribution.sum(1) - value) / biggest
    bound = tolerance(model_dtype(model), "logits").bound
    if (worst := float(away.max())) > FAR * bound:
        raise Incompatible("direct-logit-attribution", f"this {model.family} model",
                           [f"its parts miss the answer by {worst:.1e} of the largest part, where rounding gives {bound:.0e}: something "
                            "between the stream and the answer is not accounted for"])  # fmt: skip
    names, kinds, layers, numbers = zip(*labels, strict=True)
    foils = np.full(len(value), -1) if target.foils is None else target.foils.numpy()
    return xr.Dataset(
        {
            "contribution": (("batch", "component"), contribution),
            "accumulated": (("batch", "component"), accumulated),
            "value": ("batch", value),
            "gap": ("batch", away),
            "complete": ("batch", away <= bound),
            "scale": ("batch", facts[:, 1].numpy()),
            "position": ("batch", target.positions.numpy()),
            "target_id": ("batch", target.ids.numpy()),
            "foil_id": ("batch", foils),
        },
        coords={"batch": np.arange(len(value)), "component": list(names), "kind": ("component", list(kinds)),
                "layer": ("component", np.array(layers)), "index": ("component", np.array(numbers))},
    )  # fmt: skip


def _notes(spec: DirectLogitAttributionSpec, asked: Asked, values: xr.Dataset) -> tuple[str, ...]:
    out = [f"The final norm's scale was held at its value in the run; weights are as they are (nothing folded); split by {spec.by}."]
    if spec.quantity == "logit":
        out.append("A logit by itself holds what all answers share: a difference to a foil leaves that out.")
    if not bool(values.complete.values.all()):
        out.append(f"In {int((~values.complete.values).sum())} items the parts miss the answer by more than rounding should.")
    if isinstance(asked.items, TokenItems):
        out.append(asked.items.added)
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DirectLogitAttributionResult(Result):
    """``contribution`` ``[batch, component]`` in logits, in the order of a run (what is the same for every input first);
    ``accumulated`` the sum up to and including each; for each item ``value`` the model's own answer, ``gap`` how far the parts miss it
    (over the largest part, at least 1), ``complete`` whether that is rounding, ``scale`` the final norm's."""

    columns: ClassVar[tuple[str, ...]] = (
        "batch", "component", "kind", "layer", "index", "contribution", "accumulated",
        "value", "gap", "complete", "scale", "position", "target_id", "foil_id",
    )  # fmt: skip

    def mean(self) -> pd.DataFrame:
        """The mean over items of each component's contribution, with the tenth and the ninetieth percentile, strongest first."""
        v: Any = self.values
        found = v.contribution.values
        low, high = np.quantile(found, [0.1, 0.9], axis=0)
        frame = pd.DataFrame(
            {"component": v.component.values, "kind": v.kind.values, "layer": v.layer.values, "index": v["index"].values,
             "contribution": found.mean(0), "low": np.minimum(low, found.mean(0)), "high": np.maximum(high, found.mean(0))}
        )  # fmt: skip
        return frame.sort_values("contribution", key=np.abs, ascending=False, kind="stable").reset_index(drop=True)

    def summary(self) -> str:
        """The strongest components on average, and how exactly the parts add up."""
        v, first = self.values, self.mean().head(5)
        told = [f"{name} {number:+.3g}" for name, number in zip(first["component"], first["contribution"], strict=True)]
        return "\n".join(
            [
                f"{self.kind}: on {v.sizes['batch']} items the answer is {float(v.value.mean()):+.3g} on average, the sum of "
                f"{v.sizes['component']} parts to within {float(v.gap.max()):.1e}. The largest: {', '.join(told)}.",
                *self.notes,
            ]
        )

    def plot(self) -> Any:
        """By component or head, a grid of layers; by neuron the strongest parts as bars, with where the middle 80 % of items lie."""
        frame = self.mean()
        if "neuron" in frame["kind"].tolist():
            titles = {
                "title": f"The strongest of {len(frame)} parts",
                "contribution": "logits, mean and middle 80 %",
            }
            return bars_with_interval(frame.head(SHOWN), "component", "contribution", "low", "high", titles=titles)
        part = [f"{kind} {i}" if i >= 0 else str(kind) for kind, i in zip(frame["kind"], frame["index"], strict=True)]
        cells = frame.assign(part=part, place=[f"layer {layer}" if layer >= 0 else "outside" for layer in frame["layer"]])
        order = {name: i for i, name in enumerate(dict.fromkeys(_in_run_order(self.values)))}
        cells = cells.sort_values(["layer", "part"], key=lambda c: c.map(order) if c.name == "part" else -c, kind="stable")
        words = {"title": "Direct contribution to the answer, mean over items", "contribution": "logits", "place": "", "part": "part"}
        return grid(cells, "part", "place", "contribution", titles=words)


def _in_run_order(values: Any) -> list[str]:
    pairs = zip(values.kind.values, values["index"].values, strict=True)
    return [f"{kind} {i}" if i >= 0 else str(kind) for kind, i in pairs]


INSTRUMENT = AnswerInstrument(
    name="direct-logit-attribution",
    question="How much does each component write straight into the answer?",
    spec=DirectLogitAttributionSpec,
    needs=Needs(
        abilities=frozenset({"logits", "weights"}), sites=("*blocks.*.hook_resid_post",), additive=True,
        inputs=("batch", "targets"),
    ),
    compute=compute,
    linear=True,
)  # fmt: skip
