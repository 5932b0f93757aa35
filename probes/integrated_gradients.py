"""Integrated gradients: how much each input token, patch or frame moved the answer, from a named baseline.

    attribution_j = sum_d (x - x0)_jd * integral over a in [0, 1] of d f(x0 + a (x - x0)) / d x_jd

on the embedding site of a stack, with f the target's scalar. Completeness, sum_j attribution_j = f(x) - f(x0), is
what the quadrature is judged by: steps double until the gap is small, and gap and steps are part of the result.

Source: Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017 (arXiv:1703.01365).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from probes.asked import Asked, ask
from probes.attribution import AttributionResult, attribution_values
from probes.baselines import Baseline, BaselineName, make_baseline
from probes.gradient_once import ANSWERS
from probes.pictures import with_picture
from probes.places import noise_note
from probes.removal import replacement_of
from probes.target import Quantity
from probes.token_items import TokenItems, origin, rows_a_pass, slices
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.spec import Spec, later

Rule = Literal["left", "right", "trapezoid", "midpoint", "gauss-legendre"]


class IntegratedGradientsSpec(Spec):
    """What is explained, from where, and how finely."""

    baseline: BaselineName = Field(default="zero", description="where the path starts")
    quantity: Quantity = Field(default="logit", description="the scalar explained; 'logit-difference' is target minus foil")
    position: int | None = Field(
        default=None, description="whose logits are read: None is each item's last real token, negative counts from it"
    )
    rule: Rule = Field(default="gauss-legendre", description="how the path is sampled")
    steps: int = Field(default=16, ge=1, le=4096, description="points on the path to begin with")
    max_steps: int = Field(default=512, ge=1, le=4096, description="steps double up to this many, unless that stops helping")
    focus: float | None = Field(
        default=None, ge=1, le=16, description="points stand at u**focus; None is 6 for 'zero' with 'gauss-legendre', else 1"
    )
    tolerance: float = Field(default=1e-3, gt=0, description="largest completeness gap, as a share of |f(x) - f(x0)|")
    neutral_id: int | None = Field(default=None, description="the id of the 'unknown-token' baseline; None is the padding id")
    stack: str = later("", description="whose input is asked about, in a family of several stacks; '' is the first")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    tokens_a_pass: int = Field(default=4096, ge=1, description="tokens in one forward pass at most")

    @model_validator(mode="after")
    def _fits(self) -> IntegratedGradientsSpec:
        if self.max_steps < self.steps:
            raise ValueError(f"max_steps at least as many as steps, not {self.max_steps} < {self.steps}")
        if self.rule == "trapezoid" and self.steps < 2:
            raise ValueError("two steps or more for the trapezoid rule")
        return self

    def focused(self) -> float:
        """The exponent in use. Near the zero embedding a norm turns from linear to scale-free over a tiny piece of the path."""
        return self.focus if self.focus is not None else 6.0 if (self.baseline, self.rule) == ("zero", "gauss-legendre") else 1.0


# --- compute ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def quadrature(rule: Rule, steps: int, focus: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and weights, both float64 ``[steps]``; weights sum to one at focus 1.

    The trapezoid rule has ``steps`` nodes and ``steps - 1`` panels, so it is exact for linear integrands. ``focus`` walks the
    same line as a = u**focus: the integral is the same, and the nodes crowd at the start.
    """
    k = np.arange(steps, dtype=np.float64)
    weights = np.full(steps, 1.0 / steps)
    if rule == "left":
        nodes = k / steps
    elif rule == "right":
        nodes = (k + 1) / steps
    elif rule == "midpoint":
        nodes = (k + 0.5) / steps
    elif rule == "trapezoid":
        nodes, weights = k / (steps - 1), np.full(steps, 1.0 / (steps - 1))
        weights[[0, -1]] /= 2
    else:
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        nodes, weights = (nodes + 1) / 2, weights / 2
    return nodes**focus, weights * focus * nodes ** (focus - 1)


@dataclass(frozen=True)
class Path:
    """The straight line each item walks, from ``start`` to ``end``, and what is read along it."""

    asked: Asked
    start: Float[Tensor, "batch pos d_model"]

    def attribution(self, chosen: Tensor, rule: Rule, steps: int, focus: float) -> Float[Tensor, "item pos"]:
        """Attribution of the ``chosen`` items at a fixed number of steps, in float64; (item, step) pairs share passes."""
        nodes, weights = (torch.from_numpy(a) for a in quadrature(rule, steps, focus))
        x, items = self.asked.x, self.asked.items
        change = (x - self.start)[chosen.to(x.device)]
        mean_gradient = torch.zeros(change.shape, dtype=torch.float64, device=change.device)
        pairs = torch.cartesian_prod(torch.arange(len(chosen)), torch.arange(steps))
        for part in slices(len(pairs), rows_a_pass(self.asked.tokens_a_pass, int(items.lengths[chosen].max()))):
            which, step = pairs[part].unbind(1)
            rows = chosen[which]
            # No work on columns that are padding in all of these rows; a family's own batch is run as it is.
            width = int(items.lengths[rows].max()) if isinstance(items, TokenItems) else items.width
            alpha = nodes[step].to(change)[:, None, None]
            points = self.start[rows.to(change.device), :width] + alpha * change[which.to(change.device), :width]
            gradient = self.asked.gradients(rows, points)
            weighted = gradient.double() * weights[step].to(change.device)[:, None, None]
            mean_gradient[:, :width].index_add_(0, which.to(change.device), weighted)
        return (mean_gradient * change.double()).sum(-1)


def integrate(path: Path, difference: Float[Tensor, "batch"], spec: IntegratedGradientsSpec, progress: Progress) -> dict[str, np.ndarray]:
    """Attribution ``[batch, pos]`` with, for each item, its gap, steps, evaluations and whether the gap is within tolerance.

    Items whose gap is too large are done again with twice the steps, the others are left as they are. An item keeps the
    round with its smallest gap, and is given up once two doublings together have not halved it.
    """
    batch, width = path.asked.x.shape[:2]
    wanted = difference.double().cpu().numpy()
    attribution, gap = np.zeros((batch, width)), np.full(batch, np.inf)
    steps_used, evaluations = np.zeros(batch, dtype=np.int64), np.zeros(batch, dtype=np.int64)
    history: list[np.ndarray] = []
    pending, steps = np.arange(batch), spec.steps
    while len(pending):
        found = path.attribution(torch.from_numpy(pending), spec.rule, steps, spec.focused()).cpu().numpy()
        if not np.isfinite(found).all():
            raise BadValue("the gradient along the path", "NaN or infinity", "finite", do="Choose another baseline, or run in float64.")
        found_gap = np.abs(found.sum(1) - wanted[pending])
        better = found_gap < gap[pending]
        attribution[pending[better]], gap[pending[better]], steps_used[pending[better]] = found[better], found_gap[better], steps
        evaluations[pending] += steps
        history.append(gap.copy())
        going = ~(gap <= spec.tolerance * np.abs(wanted))
        if len(history) > 2:
            going &= gap <= history[-3] / 2
        pending = pending[going[pending]] if steps * 2 <= spec.max_steps else pending[:0]
        progress(batch - len(pending), batch, f"{steps} steps")
        steps *= 2
    converged = gap <= spec.tolerance * np.abs(wanted)
    return {"attribution": attribution, "gap": gap, "steps": steps_used, "evaluations": evaluations, "converged": converged}


def compute(model: HookedModel, inputs: Inputs, spec: IntegratedGradientsSpec, progress: Progress) -> IntegratedGradientsResult:
    """Integrated gradients of every item. Raises BadValue for inputs that cannot be meant, NaN included."""
    asked = ask(model, inputs, spec)
    items, target, value = asked.items, asked.target, asked.value.double()
    base = _baseline(asked, inputs, spec)
    every = torch.arange(len(asked))
    start = torch.cat([asked.values(every[part], base.embeddings[part.start : part.stop]) for part in asked.passes(len(asked))])
    found = integrate(Path(asked, base.embeddings), value - start, spec, progress)
    candidate = base.moved & items.real & ~items.control
    extra = {
        "baseline_value": ("batch", start.cpu().numpy()),
        **{name: ("batch", found[name]) for name in ("gap", "steps", "evaluations", "converged")},
        "on_control": ("batch", np.where(items.control.numpy(), found["attribution"], 0.0).sum(1)),
    }
    return IntegratedGradientsResult(
        kind=INSTRUMENT.name,
        values=with_picture(attribution_values(items, target, found["attribution"], value, candidate, extra), model, items),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=None, dtype=asked.x.dtype, targets=target.ids, foils=target.foils, positions=target.positions,
                          baseline=base.embeddings, **items.data()),
        notes=(*_notes(base.notes, asked, found, (value - start).numpy(), spec), *noise_note(items)),
    )  # fmt: skip


def _baseline(asked: Asked, inputs: Inputs, spec: IntegratedGradientsSpec) -> Baseline:
    """Where the path starts. Raises BadValue for what a baseline needs and did not get, and for one that only tokens read one way have."""
    if isinstance(asked.items, TokenItems):
        return make_baseline(spec.baseline, asked.model, asked.items, inputs, asked.x, neutral_id=spec.neutral_id, bos=spec.bos,
                             tokens_a_pass=spec.tokens_a_pass)  # fmt: skip
    if inputs.reference is not None or spec.baseline not in ("zero", "unknown-token"):
        raise BadValue("baseline", spec.baseline, "'zero' or 'unknown-token', without inputs.reference, for this family's own batches")
    name = "zero" if spec.baseline == "zero" else "token"
    there, _ = replacement_of(asked, name, spec.neutral_id)
    moved = asked.items.real if name == "zero" else asked.features
    words = "the zero embedding at every position" if name == "zero" else "the mask or padding token at every position that is no control"
    return Baseline(torch.where(moved.to(asked.x.device)[..., None], there.to(asked.x), asked.x), moved, (f"Baseline: {words}.",))


def _notes(
    notes: tuple[str, ...], asked: Asked, found: dict[str, np.ndarray], difference: np.ndarray, spec: IntegratedGradientsSpec
) -> tuple[str, ...]:
    out = [*notes, *([asked.items.added] if isinstance(asked.items, TokenItems) else [])]
    left = int((~found["converged"]).sum())
    if left:
        share = found["gap"] / np.maximum(np.abs(difference), np.finfo(float).tiny)
        out.append(
            f"The completeness gap stays above {spec.tolerance:g} of the effect in {left} of {len(asked)} items "
            f"at up to {int(found['steps'].max())} steps (largest gap {found['gap'].max():.3g}, median share {np.median(share):.3g}): "
            "their attributions do not add up to the effect."
        )
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IntegratedGradientsResult(AttributionResult):
    """AttributionResult with the account of its own error.

    For each item: ``value`` f(x), ``baseline_value`` f(x0), ``gap`` |sum of attribution - (f(x) - f(x0))|, ``steps`` of
    the round kept, ``evaluations`` over all rounds, ``converged``, and ``on_control``, what fell on control tokens.
    """

    columns: ClassVar[tuple[str, ...]] = (
        *AttributionResult.columns, "baseline_value", "gap", "steps", "evaluations", "converged", "on_control",
    )  # fmt: skip

    def account(self, item: Any) -> str:
        return f"the answer goes from {float(item.baseline_value):.3g} to {float(item.value):.3g}"

    def summary(self) -> str:
        v: Any = self.values
        done, n = int(v.converged.sum()), len(v.batch)
        steps = int(v.steps.max())
        return (
            f"{super().summary()}\nThe attributions of {done} of {n} items add up to the effect within tolerance ({steps} steps at most)."
        )


INSTRUMENT = Instrument(
    name="integrated-gradients",
    question="How much did each input token move the answer, starting from a named baseline?",
    spec=IntegratedGradientsSpec,
    needs=Needs(reads=ANSWERS, abilities=frozenset({"logits", "edit", "grad"}), sites=("*hook_embed",), inputs=("batch", "targets")),
    compute=compute,
    floors={"organism": "town", "first_hit_rate": 0.9, "null": "clean twin at chance"},
)
