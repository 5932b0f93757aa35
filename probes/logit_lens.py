"""The logit lens: what the model would answer if it stopped here, at every place on the stream.

    lens(x) = unembed(final norm(x))        for x the stream before the first layer, and after each layer (or sublayer)

The model's own read-out is used, whatever it is, so the last row is the model's own answer. Each place tells its likeliest answers, the
followed answer's log-probability and rank, the entropy, and what is still to come: KL(the model's answer || this place), in nats.

A layer was not trained to be read so: where the stream is turned or shifted between layers, the lens says less than the stream holds
(``tuned-lens`` fits that). Nothing says that later layers use what is read here.

Source: nostalgebraist, interpreting GPT: the logit lens, 2020; on where it fails, Belrose et al., Eliciting Latent Predictions from
Transformers with the Tuned Lens, 2023 (arXiv:2303.08112).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from probes.attention import check_cells
from probes.panels import joined
from probes.places import Places
from probes.read_out import AnswerInstrument, Asked, read_asked
from probes.stream import end_of, places_on, positions_of, read_from
from probes.target import model_dtype
from probes.token_items import TokenItems, origin
from workbench.core.charts.heat import grid
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue, Incompatible
from workbench.core.measure import Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.tolerance import gap, tolerance

SHOWN = 24
"""Positions in a chart at most."""
FAR = 10
"""The last place may miss the model's own answer by this many roundings: some models are run again in another way."""
Follow = Literal["auto", "given", "answer", "next"]


class LogitLensSpec(Spec):
    """Where the stream is read and which answer is followed."""

    points: Literal["layers", "sublayers"] = Field(default="layers", description="after each layer, or after each of its parts too")
    layers: tuple[int, ...] | None = Field(default=None, description="layers, counted from 0; None is all; 0 brings what stands before it")
    follow: Follow = Field(
        default="auto", description="given: the targets; answer: the model's own; next: the token that follows; auto: given, or else answer"
    )
    position: int | None = Field(default=None, description="one position an item (negative: from its end); None is all")
    top: int = Field(default=5, ge=1, le=100, description="the likeliest answers kept at each place, at most as many as there are")
    stack: str = Field(default="", description="of two towers, the one whose stream is read; '' is the stack that is read")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=20_000_000, ge=1, description="numbers kept at most")
    tokens_a_pass: int = Field(default=2048, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What is kept of the answers at one place of the stream, in nats; rank 0 is the likeliest, and ties count against."""

    logprob: Float[Tensor, "batch pos"]
    rank: Float[Tensor, "batch pos"]
    entropy: Float[Tensor, "batch pos"]
    kl: Float[Tensor, "batch pos"]
    top_id: Int[Tensor, "batch pos top"]
    top_logprob: Float[Tensor, "batch pos top"]


def read(
    here: Float[Tensor, "batch pos answer"], end: Float[Tensor, "batch pos answer"], followed: Int[Tensor, "batch pos"], top: int
) -> Reading:
    """``here`` and ``end`` are logits of a place and of the model; all is computed in float64."""
    here, end = here.double().log_softmax(-1), end.double().log_softmax(-1)
    own = here.gather(-1, followed.unsqueeze(-1))
    likeliest = here.topk(top, dim=-1)
    share, sure = here.exp(), end.exp()
    return Reading(
        logprob=own.squeeze(-1),
        rank=((here >= own).sum(-1) - 1).double(),
        entropy=-torch.where(share > 0, share * here, 0.0).sum(-1),
        kl=torch.where(sure > 0, sure * (end - here), 0.0).sum(-1),
        top_id=likeliest.indices,
        top_logprob=likeliest.values,
    )


def compute(model: HookedModel, inputs: Inputs, spec: LogitLensSpec, progress: Progress) -> LogitLensResult:
    """Read the stream everywhere. Raises BadValue for inputs that cannot be meant and for answers that are not finite."""
    asked = read_asked(model, inputs, stack=spec.stack, bos=spec.bos, tokens_a_pass=spec.tokens_a_pass)
    follow, given = _followed(asked, inputs, spec)
    sites, at = places_on(model, asked.stack, spec.layers, sublayers=spec.points == "sublayers"), _positions(asked, spec)
    cells = len(sites) * at.numel() * (4 + 2 * spec.top)
    check_cells(cells, spec.max_cells, "lens")
    found: dict[str, list[Tensor]] = {field.name: [] for field in fields(Reading)}
    ids: list[Tensor] = []
    last_gap, answers = float("nan"), 0
    for part, batch in asked.passes():
        trace = model.run(batch, capture=sites)
        assert trace.logits is not None, "logits were asked for"
        end = _at(asked, trace.logits, at[part])
        _check_finite(end, at[part])
        answers, followed = end.shape[-1], _ids(end, follow, given, part)
        ids.append(followed.cpu())
        rows: list[Reading] = []
        for site in sites:
            here = _at(asked, read_from(model, batch, asked.stack, trace[site]), at[part])
            rows.append(read(here, end, followed, min(spec.top, answers)))
            last_gap = _last_gap(model, here, end, last_gap) if site == end_of(model, asked.stack) else last_gap
        for name, kept in found.items():
            kept.append(torch.stack([getattr(row, name) for row in rows], 1).cpu())
        progress(part.stop, len(asked.items), "items")
    values = _values(asked, sites, at, {name: torch.cat(kept) for name, kept in found.items()}, torch.cat(ids), answers)
    return LogitLensResult(
        kind=INSTRUMENT.name,
        values=values.assign(last_gap=last_gap),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=model_dtype(model), targets=given if follow == "given" else None, **asked.items.data()),
        notes=_notes(asked, follow, answers),
    )


def _followed(asked: Asked, inputs: Inputs, spec: LogitLensSpec) -> tuple[str, Tensor | None]:
    """Whose rank and probability are told, and the ids (one an item, or one a position); None: the model's own answer."""
    if inputs.foils is not None:
        raise BadValue("inputs.foils", "given", "left out: a lens follows one answer")
    follow = spec.follow if spec.follow != "auto" else "answer" if inputs.targets is None else "given"
    if follow == "given":
        if inputs.targets is None:
            raise BadValue("inputs.targets", None, "given: one answer an item, where follow is 'given'")
        return follow, asked.target(inputs, "logit", spec.position).ids
    if inputs.targets is not None:
        raise BadValue("inputs.targets", "given", f"left out where follow is '{follow}'")
    if follow == "answer":
        return follow, None
    if not isinstance(asked.items, TokenItems):
        raise BadValue("follow", "next", "'given' or 'answer': this model does not write one token after another")
    return follow, asked.items.ids.roll(-1, 1)


def _positions(asked: Asked, spec: LogitLensSpec) -> Tensor:
    """``[batch, place]``: the positions read, -1 at padding and, with 'next', at each item's last token, which nothing follows."""
    items = asked.items
    if not asked.along:
        if spec.position is not None:
            raise BadValue("position", spec.position, "left out: this model's answers have no positions")
        return torch.zeros(len(items), 1, dtype=torch.long)
    lengths = items.lengths - int(spec.follow == "next")
    if int(lengths.min()) < 1:
        raise BadValue("the length of an item", 1, "2 or more: with follow 'next' a token has to follow")
    if isinstance(items, Places):  # padding may lie before what is real
        every = torch.where(items.real, torch.arange(items.width), -1)
        if spec.position is None:
            return every
        if not -items.width <= spec.position < items.width or bool((every[:, spec.position] < 0).any()):
            raise BadValue("position", spec.position, f"a real position of every item, within 0 to {items.width - 1}")
        return every[:, [spec.position]]
    return positions_of(spec.position, lengths, items.width)


def _at(asked: Asked, logits: Tensor, at: Tensor) -> Float[Tensor, "batch place answer"]:
    """The answers of this stack's items at the places asked about."""
    out = asked.answers(logits)
    if out.ndim == 2:
        return out[:, None]
    rows = torch.arange(len(out), device=out.device)[:, None]
    return out[rows, at.clamp(min=0).to(out.device)]


def _check_finite(end: Tensor, at: Tensor) -> None:
    if not bool(torch.isfinite(end[(at >= 0).to(end.device)]).all()):
        raise BadValue("the model's answers", "NaN or infinity", "finite", do="The weights are broken.")


def _ids(end: Tensor, follow: str, given: Tensor | None, part: slice) -> Tensor:
    """The answer followed at each place."""
    if given is None:
        return end.argmax(-1)
    chosen = given[part].to(end.device)
    return chosen[:, None].expand(end.shape[:2]) if follow == "given" else chosen[:, : end.shape[1]]


def _last_gap(model: HookedModel, here: Tensor, end: Tensor, before: float) -> float:
    """How far the last place is from the model's own answer. Raises Incompatible where that is no rounding."""
    away = gap(here, end)
    if away > FAR * tolerance(end.dtype, "logits").bound:
        raise Incompatible("logit-lens", f"this {model.family} model",
                           [f"read at its last place, the stream gives other answers than the model (by {away:.1e})"])  # fmt: skip
    return max(away, 0.0 if np.isnan(before) else before)


def _values(asked: Asked, sites: list[str], at: Tensor, found: dict[str, Tensor], ids: Tensor, answers: int) -> xr.Dataset:
    real = (at >= 0)[:, None]
    dims = ("batch", "site", "pos")
    flat = {name: (dims, found[name].masked_fill(~real, float("nan")).numpy()) for name in ("logprob", "rank", "entropy", "kl")}
    top_id = found["top_id"].masked_fill(~real.unsqueeze(-1), -1).numpy()
    names = answer_names(asked.model, answers)
    followed = ids.masked_fill(at < 0, -1).numpy()
    pieces = asked.items.pieces if asked.along else np.full((len(asked.items), 1), "", dtype=object)
    token = np.where(at >= 0, np.take_along_axis(pieces, np.maximum(at.numpy(), 0), 1), "")
    return xr.Dataset(
        {
            **flat,
            "top_id": ((*dims, "top"), top_id),
            "top_answer": ((*dims, "top"), names[top_id]),
            "top_logprob": ((*dims, "top"), found["top_logprob"].masked_fill(~real.unsqueeze(-1), float("nan")).numpy()),
            "followed_id": (("batch", "pos"), followed),
            "followed": (("batch", "pos"), names[followed]),
            "position": (("batch", "pos"), at.numpy()),
        },
        coords={
            "batch": np.arange(len(at)), "site": sites, "depth": ("site", np.arange(len(sites))), "pos": np.arange(at.shape[1]),
            "top": np.arange(top_id.shape[-1]), "token": (("batch", "pos"), token.astype(object)),
        },
    )  # fmt: skip


def answer_names(model: HookedModel, answers: int) -> np.ndarray:
    """What each answer is called, '' at the end so that -1 means none: classes, the tokenizer's pieces, or numbers."""
    config, tokenizer = model.config, model.tokenizer
    for field in ("class_names", "classes"):
        if len(named := getattr(config, field, ())) == answers:
            return np.array([*named, ""], dtype=object)
    if tokenizer is not None and tokenizer.vocab_size == answers:
        return np.array([*tokenizer.pieces(list(range(answers))), ""], dtype=object)
    return np.array([*map(str, range(answers)), ""], dtype=object)


def _notes(asked: Asked, follow: str, answers: int) -> tuple[str, ...]:
    words = {"given": "the target given", "answer": "the model's own answer at each place", "next": "the token that follows"}
    out = [f"Followed: {words[follow]}, among {answers} answers; read through the model's own read-out."]
    if not asked.model.sites().additive:
        out.append("Norms follow the sums here: each place is a norm's output, read as the last one is, and no sum of parts.")
    if isinstance(asked.items, TokenItems):
        out.append(asked.items.added)
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogitLensResult(Result):
    """By item, site and position (NaN at padding): ``logprob`` and ``rank`` (0 is first) of the followed answer, ``entropy`` and ``kl``
    (nats), and the ``top`` likeliest answers. ``last_gap``: how far the last place is from the model's own logits (over the largest)."""

    columns: ClassVar[tuple[str, ...]] = (
        "batch", "site", "depth", "pos", "top", "token", "logprob", "rank", "entropy", "kl", "top_id", "top_answer", "top_logprob",
        "followed_id", "followed", "position", "last_gap",
    )  # fmt: skip

    def by_depth(self) -> pd.DataFrame:
        """For each place of the stream the mean over items and positions of every number, and the middle 80 % of ``kl``."""
        v: Any = self.values
        mean = v[["logprob", "rank", "entropy", "kl"]].mean(("batch", "pos")).to_dataframe().reset_index()
        flat = v.kl.transpose("site", "batch", "pos").values.reshape(v.sizes["site"], -1)
        low, high = np.nanquantile(flat, [0.1, 0.9], axis=1)
        first = (v["rank"] == 0).where(v["rank"].notnull()).mean(("batch", "pos")).values
        return mean.assign(kl_low=np.minimum(low, mean["kl"]), kl_high=np.maximum(high, mean["kl"]), first=first)

    def summary(self) -> str:
        """How far from the end the answer stands at each place."""
        frame = self.by_depth()
        lines = [
            f"{site}: the followed answer is first at {first:.0%} of places (mean rank {rank:.1f}), {kl:.3g} nats from the model's answer"
            for site, first, rank, kl in zip(*(frame[name] for name in ("site", "first", "rank", "kl")), strict=True)
        ]
        return "\n".join([f"{self.kind}:", *lines, *self.notes])

    def plot(self) -> Any:
        """Distance to the model's answer over depth (mean and middle 80 % of places), and item 0's probabilities place by place."""
        v: Any = self.values
        titles = {"title": "Distance to the model's answer", "depth": "place on the stream, from its start", "kl": "KL, nats"}
        curve = curve_with_band(self.by_depth(), "depth", "kl", "kl_low", "kl_high", titles=titles)
        item = v.isel(batch=0, top=0)
        kept = np.flatnonzero(item.position.values >= 0)[:SHOWN]
        rows = [(int(n), str(site).replace("hook_", ""), float(np.exp(p)))
                for site, line in zip(v.site.values, item.logprob.values[:, kept], strict=True) for n, p in enumerate(line)]  # fmt: skip
        frame = pd.DataFrame(rows[::-1], columns=["place", "site", "probability"]).sort_values("place", kind="stable")
        labels = [str(token) or "the answer" for token in item.token.values[kept]]
        words = {
            "title": "Item 0: probability of the followed answer",
            "place": "position",
            "site": "stream at",
            "probability": "probability",
        }
        return joined([curve, grid(frame, "place", "site", "probability", titles=words, signed=False, x_labels=labels)],
                      "What the stream already says", columns=1)  # fmt: skip


INSTRUMENT = AnswerInstrument(
    name="logit-lens",
    question="At which layer does the model's answer appear on the stream?",
    spec=LogitLensSpec,
    needs=Needs(abilities=frozenset({"logits", "edit"}), sites=("*blocks.*.hook_resid_post",)),
    compute=compute,
)
