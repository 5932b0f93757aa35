"""How a model's answers are read off its last stream: which stack is read, where, through which norm, and by which map.

Where the map is linear, one answer (or the difference of two) is a dot product with the normalised stream:

    answer = mean over places p of  (x_p [- mean x_p]) / scale_p * w . d  +  b . d  +  c

d is a column of W_U (or the difference of two), w and b the final norm's, c the unembedding's bias. The scale is that of the run: held
there, the answer is linear in the stream. Of two towers, d = W_joint t exp(logit_scale) / |projected|, t the other row's unit vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.places import Places, is_own_batch, place_target, prefix_of, read_places, stack_of
from probes.target import Quantity, Target, device_of, read_target
from probes.token_items import TokenItems, read_items, rows_a_pass, slices
from workbench.core.batch import EncoderBatch
from workbench.core.errors import BadValue, Incompatible, UnknownName
from workbench.core.measure import Instrument
from workbench.core.protocol import HookedModel, Inputs, Trace
from workbench.core.tolerance import gap, tolerance

LOGITS, UNEMBED_IN, POOLED, JOINT, PROJECTED = "unembed.hook_logits", "unembed.hook_in", "hook_pooled", "hook_joint", "hook_projected"
NO_CHOICE = ("span", "regression")
"""Heads of an encoder whose outputs are no choice among answers."""


# --- which models -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnswerInstrument(Instrument):
    """An instrument that reads answers off the stream. ``linear``: it also needs the answer to be linear in the last stream; ``begins``: a
    run that begins at the stream."""

    linear: bool = False
    begins: bool = False

    def explain_incompatibility(self, model: HookedModel) -> list[str]:
        """What the needs say; then why the answers cannot be read off a stream."""
        if found := self.needs.objections(model):
            return found
        found = read_out_objections(model, linear=self.linear)
        if self.begins and "start" not in getattr(model, "resumes", ()):
            found.append("its runs cannot begin at the stream, as fitting needs")
        return found


def read_out_objections(model: HookedModel, *, linear: bool) -> list[str]:
    """Why the model's answers cannot be read off its stream; empty where they can."""
    table = model.sites()
    if LOGITS not in table:
        return ["no site 'unembed.hook_logits' tells what its answers are read from"]
    if "height" in table[LOGITS].axes:
        return ["its answers are the values of a predicted picture, not a choice among tokens or classes"]
    if getattr(model.config, "head", "") in NO_CHOICE:
        return [f"its head '{model.config.head}' does not choose among tokens or classes"]
    if linear and any(name.startswith(("pooler.", "transform.")) for name in table):
        return ["a layer with a non-linearity stands between its last stream and its answers, so that no parts of the stream add up to one"]
    return []


def read_stack(model: HookedModel, stack: str) -> str:
    """The stack whose stream the answers are read from; of two towers the one asked for (by default the last). Raises BadValue for one
    that the answers are not read from."""
    known = list(dict.fromkeys(site.stack for site in model.sites().values() if site.layer is not None))
    readable = known if is_paired(model) else known[-1:]
    if not stack:
        return readable[-1]
    if stack_of(model, stack) not in readable:
        raise BadValue(
            "stack", stack, f"'{readable[-1]}': the answers of this {model.family} model are read from that stack's stream alone"
        )
    return stack


def is_paired(model: HookedModel) -> bool:
    """Whether the items of a batch are answers to each other (images and texts)."""
    return "pair" in model.sites()[LOGITS].axes


def depth_of(model: HookedModel, stack: str) -> int:
    """How many layers the stack has."""
    return 1 + max(site.layer for site in model.sites().values() if site.layer is not None and site.stack == stack)


# --- what is asked ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """The items and how a run of some of them is given to the model. ``along``: the logits have the positions of the stack."""

    model: HookedModel
    items: TokenItems | Places
    stack: str
    along: bool
    tokens_a_pass: int

    @property
    def prefix(self) -> str:
        """What the stack's sites begin with."""
        return prefix_of(self.stack)

    def passes(self) -> Iterator[tuple[slice, Any]]:
        """The items in parts, and the batch of each: whole where items are answers to each other."""
        device = device_of(self.model)
        if isinstance(self.items, Places):
            yield from self.items.passes(device, together=is_paired(self.model))
            return
        for part in slices(len(self.items), rows_a_pass(self.tokens_a_pass, self.items.width)):
            yield part, self.items.given(self.model, part, device)

    def answers(self, logits: Tensor) -> Tensor:
        """Logits with this stack's items first and the answers last."""
        towers = list(dict.fromkeys(site.stack for site in self.model.sites().values() if site.layer is not None))
        return logits.T if is_paired(self.model) and self.stack != towers[-1] else logits

    def target(self, inputs: Inputs, quantity: Quantity, position: int | None) -> Target:
        """What is asked of each item, checked against the model's answers."""
        if isinstance(self.items, TokenItems):
            return read_target(self.model, self.items, inputs, quantity, position)
        rows = len(self.items) if is_paired(self.model) else 1
        logits = self.model.run(self.items.batch.rows(slice(0, rows)).to(device_of(self.model))).logits
        assert logits is not None, "logits were asked for"
        return place_target(
            self.answers(logits), inputs, quantity, position, len(self.items), self.items.ends if self.along else None
        )  # fmt: skip


def read_asked(model: HookedModel, inputs: Inputs, *, stack: str, bos: bool, tokens_a_pass: int) -> Asked:
    """The items of ``inputs``: tokens, or the positions of the stack that is read where the batch is of the family's own type."""
    where = read_stack(model, stack)
    along = "pos" in model.sites()[LOGITS].axes
    if is_own_batch(model, inputs.batch):
        return Asked(model, read_places(model, inputs, where), where, along, tokens_a_pass)
    items: TokenItems | Places = read_items(model, inputs, bos=bos)
    if getattr(model, "both_ways", False):
        items = Places(EncoderBatch(items.ids, mask=items.real), where, items.pieces, items.control)
    return Asked(model, items, where, along, tokens_a_pass)


def weight_or_none(model: HookedModel, name: str) -> Tensor | None:
    """The weight in float64, or None where the model has none of that name."""
    try:
        return model.weight(name).double()
    except UnknownName:
        return None


# --- the linear read-out --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """The answers of one pass as dot products with their streams, in float64.

    ``direction`` ``[batch, d_model]`` has the norm's gain and centring in it; ``share`` ``[batch, pos]`` is 1 / scale at the places read,
    over their number (0 elsewhere); ``norm_bias`` and ``bias`` ``[batch]`` are what the norm and the unembedding add by themselves.
    """

    direction: Float[Tensor, "batch d_model"]
    share: Float[Tensor, "batch pos"]
    norm_bias: Float[Tensor, " batch"]
    bias: Float[Tensor, " batch"]

    def read(self, value: Float[Tensor, "batch pos *rest"]) -> Float[Tensor, "batch *rest"]:
        """``value`` at the places that are read, over the scale there; NaN elsewhere does not enter."""
        wide = value.double()
        flat = torch.where(self.share[:, :, None] != 0, wide.flatten(2), 0.0)
        return torch.einsum("bp,bpx->bx", self.share, flat).unflatten(1, wide.shape[2:])

    def of_stream(self, value: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, " batch"]:
        """What a part of the stream adds to the answer."""
        return (self.read(value) * self.direction).sum(-1)

    def of_constant(self, vector: Float[Tensor, " d_model"]) -> Float[Tensor, " batch"]:
        """What a vector that is the same at every position adds."""
        return self.share.sum(1) * (self.direction @ vector.double().to(self.direction.device))

    def through(self, value: Float[Tensor, "batch pos *part"], matrix: Float[Tensor, "*part d_model"]) -> Float[Tensor, "batch *lead"]:
        """What each row of ``matrix`` adds, weighted by ``value``; of heads (``value [batch, pos, head, d_head]``) each head's sum."""
        each = torch.einsum("...m,bm->b...", matrix.double().to(self.direction.device), self.direction)
        found = self.read(value) * each
        return found.sum(-1) if found.ndim > 2 else found


def end_sites(model: HookedModel, stack: str) -> list[str]:
    """What has to be captured for ``linear_read_out``."""
    prefix, table = prefix_of(stack), model.sites()
    wanted = [f"{prefix}blocks.{depth_of(model, stack) - 1}.hook_resid_post"]
    wanted += [f"{prefix}ln_final.{word}" for word in ("hook_scale", "hook_normalized")]
    wanted += [f"{prefix}{POOLED}", f"{prefix}{PROJECTED}", UNEMBED_IN]
    towers = [name for name in table if name.endswith(JOINT)]
    return [name for name in [*wanted, *towers] if name in table]


def linear_read_out(asked: Asked, trace: Trace, target: Target) -> Linear:
    """The answers of one pass as dot products. Raises Incompatible where the final norm is not one of the two known."""
    model, prefix = asked.model, asked.prefix
    stream = trace[f"{prefix}blocks.{depth_of(model, asked.stack) - 1}.hook_resid_post"].double()
    normed, scale, centred = _final_norm(trace, prefix, stream, model)
    gain, shift = (weight_or_none(model, f"{prefix}ln_final.{letter}") if scale is not None else None for letter in "wb")
    read = normed if gain is None else normed * gain.to(normed.device)
    read = read if shift is None else read + shift.to(normed.device)
    share = _places_read(asked, trace, target, read)
    vector, bias = _columns(asked, trace, target)
    norm_bias = share.sum(1) * (vector @ shift.to(vector.device)) if shift is not None else torch.zeros_like(bias)
    if scale is not None:
        share = share / scale.squeeze(-1)
    vector = vector if gain is None else vector * gain.to(vector.device)
    return Linear(vector - vector.mean(-1, keepdim=True) if centred else vector, share, norm_bias, bias)


def _final_norm(trace: Trace, prefix: str, stream: Tensor, model: HookedModel) -> tuple[Tensor, Tensor | None, bool]:
    """The normalised last stream, its scale (None: no norm) and whether its mean was taken out: told from the numbers themselves."""
    if f"{prefix}ln_final.hook_scale" not in trace.at:
        return stream, None, False
    scale, normed = (trace[f"{prefix}ln_final.{word}"].double() for word in ("hook_scale", "hook_normalized"))
    bound = 10 * tolerance(trace[f"{prefix}ln_final.hook_scale"].dtype, "activation").bound
    for centred in (True, False):
        if gap((stream - stream.mean(-1, keepdim=True) if centred else stream) / scale, normed) <= bound:
            return normed, scale, centred
    if not bool(torch.isfinite(normed).all()):
        raise BadValue("the last stream", "NaN or infinity", "finite numbers", do="The weights are broken.")
    raise Incompatible("the read-out", f"this {model.family} model", ["its final norm is neither a layer norm nor an RMS norm"])


def _places_read(asked: Asked, trace: Trace, target: Target, read: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
    """The weight of each place: one at the target's position, or at that which was pooled, or an equal share of those averaged."""
    share = torch.zeros(read.shape[:2], dtype=torch.float64, device=read.device)
    rows = torch.arange(len(read), device=read.device)
    if asked.along:
        share[rows, target.positions.to(read.device)] = 1.0
        return share
    name = f"{asked.prefix}{POOLED}" if f"{asked.prefix}{POOLED}" in trace.at else UNEMBED_IN
    pooled = trace[name].double()
    away = (read - pooled[:, None]).abs().amax(-1)
    bound = 100 * tolerance(trace[name].dtype, "activation").bound * max(1.0, float(pooled.abs().max()))
    if float(away.amin(1).max()) <= bound:
        share[rows, away.argmin(1)] = 1.0
        return share
    for first in (1, 0):  # the mean of the patches, without the class token or of all there are
        if float((read[:, first:].mean(1) - pooled).abs().max()) <= bound:
            share[:, first:] = 1.0 / (read.shape[1] - first)
            return share
    raise Incompatible("the read-out", f"this {asked.model.family} model", ["what is pooled is neither one position nor their mean"])


def _columns(asked: Asked, trace: Trace, target: Target) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
    """What the normalised stream is multiplied with, and what is added besides."""
    model, minus = asked.model, target.foils
    if not is_paired(model):
        matrix, bias = weight_or_none(model, "W_U"), weight_or_none(model, "b_U")
        if matrix is None:
            raise Incompatible("the read-out", f"this {model.family} model", ["its unembedding W_U cannot be read"])
        bias = matrix.new_zeros(matrix.shape[1]) if bias is None else bias
        pick = lambda of, ids: of[..., ids.to(of.device)]  # noqa: E731
        vector, added = pick(matrix, target.ids).T, pick(bias, target.ids)
        return (vector, added) if minus is None else (vector - pick(matrix, minus).T, added - pick(bias, minus))
    other = next(name for name in trace.at if name.endswith(JOINT) and name != f"{asked.prefix}{JOINT}")
    answers = trace[other].double()
    chosen = answers[target.ids.to(answers.device)]
    chosen = chosen if minus is None else chosen - answers[minus.to(answers.device)]
    length = trace[f"{asked.prefix}{PROJECTED}"].double().norm(dim=-1, keepdim=True)
    project, scale = model.weight(f"{asked.prefix}W_joint").double(), model.weight("logit_scale").double().exp()
    return chosen @ project.T * scale / length, chosen.new_zeros(len(chosen))
