"""What a mitigation did: the failure and the capability, before and after, item by item, and what is found from those values alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from workbench.core.errors import BadValue
from workbench.core.finding import Denominators, Finding, Interval, Mitigation, Null, Verdict, decide
from workbench.core.protocol import HookedModel
from workbench.core.result import Provenance, Result
from workbench.core.stats.resampling import bootstrap, paired_bootstrap
from workbench.lab import refs
from workbench.lab.internals import Failure, nats_of, scores_of
from workbench.lab.internals_findings import COST

KIND = "mitigation"
PREFIX, PART = "mitigation-", refs.MENDED
"""What the names of its result and of the part that was asked again begin with."""
MENDED = 0.8
"""A mitigation that takes away this share of the failure is said to work."""


@dataclass(frozen=True)
class MitigationResult(Result):
    """``failure``, ``mended`` [item]: how much each held-out item fails before and after; ``cluster`` [item]; ``nats``, ``mended_nats``
    [text]: negative log-likelihood a token of ordinary text. ``kept``: the part as which the audit keeps the mended model, or ``not_kept``:
    why it does not (neither, of audits from before any was kept)."""

    @property
    def share(self) -> float:
        """The share of the failure that is gone."""
        before = float(self.values.failure.mean())
        return float((self.values.failure - self.values.mended).mean()) / before if before else float("nan")

    @property
    def works(self) -> bool:
        """Whether enough of the failure is gone, whatever it costs."""
        return self.share >= MENDED

    def summary(self) -> str:
        v = self.values
        before, after = float(v.failure.mean()), float(v.mended.mean())
        cost = float((v.mended_nats - v.nats).mean())
        said = "takes the failure away" if self.works else "does not take the failure away"
        return (
            f"{v.attrs['method']} {said}: {before:.3g} {v.attrs['unit']} become {after:.3g} on held-out items ({self.share:.0%} of it), "
            f"at {cost:+.3g} nats a token of ordinary text (perplexity {np.exp(v.nats.mean()):.3g} → {np.exp(v.mended_nats.mean()):.3g})"
        )


def outcome(model: HookedModel, mended: Any, failure: Failure, asked: Mitigation, *, kept: str = "", why: str = "") -> MitigationResult:
    """Both models on the items of ``failure`` and on its ordinary texts; the mended one is ``kept`` as this part, or not, for ``why``."""
    values = xr.Dataset(
        {
            "failure": ("item", scores_of(model, failure, [()])[0]), "mended": ("item", scores_of(mended, failure, [()])[0]),
            "cluster": ("item", np.array(failure.clusters, dtype=object)), "nats": ("text", nats_of(model, failure, ())),
            "mended_nats": ("text", nats_of(mended, failure, ())),
        },
        attrs={
            "of": failure.of, "unit": failure.unit, "method": asked.method, "before": model.digest(),
            **({"kept": kept} if kept else {"not_kept": why} if why else {}),
        },
    )  # fmt: skip
    origin = Provenance.here(
        model=str(getattr(mended, "name", mended.family)), model_digest=mended.digest(), data=failure.of,
        dtype=str(getattr(mended, "dtype", "float32")).removeprefix("torch."),
    )  # fmt: skip
    return MitigationResult(KIND, values, asked.model_dump(mode="json"), origin)


def findings(result: MitigationResult, subject: str, level: float) -> list[Finding]:
    """How much of the failure it takes away, and what it costs; both paired with the model as it was."""
    v: Any = result.values
    of, method, items = str(v.attrs["of"]), str(v.attrs["method"]), int(v.sizes["item"])
    null = Null(name="the model as it was", value=0.0)
    facts: dict[str, Any] = {"subject": subject, "source": KIND, "status": "experimental", "null": null}
    claim, measure = f"{method} lessens the failure of {of}", "failure of held-out items, as it was − mended"
    taken, note = _paired(v.failure.values, v.mended.values, v.cluster.values.astype(str), level)
    effect = float((v.failure - v.mended).mean())
    verdict, because = decide(effect, taken, null=0.0, paired="higher is better")
    if verdict is Verdict.BETTER and not result.works:
        because = f"{because}, but only {result.share:.0%} of the failure is gone, and {MENDED:.0%} would be called mended"
    details = {"of": of, "before": float(v.failure.mean()), "after": float(v.mended.mean()), "share": result.share, "works": result.works}
    gap = v.mended_nats.values - v.nats.values
    cost, other = _alone(gap, level)
    costs, why = decide(float(gap.mean()), cost, null=0.0, margin=COST, paired="higher is worse")
    names = {"perplexity_before": "nats", "perplexity_after": "mended_nats"}
    price = {"of": of, "margin": COST, **{name: float(np.exp(v[key].mean())) for name, key in names.items()}}
    asked, texts = Denominators(run=items, scored=items), Denominators(run=len(gap), scored=len(gap))
    return [
        Finding(claim=claim, measure=measure, effect=effect, unit=str(v.attrs["unit"]), interval=taken, verdict=verdict,
                because=note or because, denominators=asked, details=details, **facts),
        Finding(claim=f"{method} costs capability", measure="nats a token of ordinary text, mended − as it was", effect=float(gap.mean()),
                unit="nats", interval=cost, verdict=costs, because=other or why, denominators=texts, details=price, **facts),
    ]  # fmt: skip


def _paired(a: Any, b: Any, clusters: Any, level: float) -> tuple[Interval | None, str]:
    try:
        return paired_bootstrap(a, b, clusters=clusters, level=level).interval, ""
    except BadValue as error:
        return None, str(error)


def _alone(gap: Any, level: float) -> tuple[Interval | None, str]:
    try:
        return bootstrap(gap, level=level).interval, ""
    except BadValue as error:
        return None, str(error)
