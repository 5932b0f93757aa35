"""Perplexity and bits per byte on a held-out text, beside Kneser-Ney n-gram models fitted on the same training split.

Question: how well does the model predict text it was not trained on, and is it better than counting? Bits per byte compare any
two models of one text whatever their tokens; perplexity a token compares only models with the same tokens. The baselines are
byte n-grams (``evals.ngram``), a model under the unigram's bits per byte has not learned the text's language at all.

The town is scored document by document. Longer texts are scored in sections that end at a line end; each section is read after
the ``lead`` characters before it, which are not scored in it (the first ``lead`` characters are never scored), through the sliding
window of ``engine.score.rolling``. Intervals draw whole sections: tokens within one are not independent. A
reference is held to the sections that both read alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import Field

from evals.metrics import LN2, bits_per_byte, perplexity, total
from evals.ngram import MOST_ORDER, KneserNey, as_bytes
from evals.runner import denominators
from workbench.core.charts.lines import bars_with_interval
from workbench.core.errors import BadValue
from workbench.core.finding import Denominators, Finding, Null, decide
from workbench.core.measure import Needs, Rolling, Sample, Score
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.power import minimal_detectable_effect
from workbench.core.stats.resampling import bootstrap, fewest, ratio
from workbench.data.corpora import tinyshakespeare, wikitext2
from workbench.data.worlds.town import Town, TownSpec

NAME = "perplexity"


class PerplexitySpec(Spec):
    """``text``: what is scored. ``world`` and ``documents`` (held out) are the town's; ``section`` and ``lead`` (characters) the others'.

    ``orders``: the Kneser-Ney baselines; 1 is always among them, since it is the capability floor.
    """

    text: Literal["town", "tinyshakespeare", "wikitext-2"] = "town"
    world: TownSpec = TownSpec.parse({})
    documents: int = Field(default=500, ge=1)
    section: int = Field(default=4096, ge=64)
    lead: int = Field(default=256, ge=1)
    orders: tuple[int, ...] = (1, 3, 5)
    seed: int = 0


@dataclass(frozen=True)
class PerplexityResult(Result):
    """``nats``, ``tokens``, ``bytes`` [section]; ``baseline_nats`` [order, section]; ``bits_per_byte`` and ``baseline_bits`` [order]."""

    def summary(self) -> str:
        v = self.values
        others = ", ".join(f"{float(b):.3f} (order {int(o)})" for o, b in zip(v.order.values, v.baseline_bits.values, strict=True))
        floor = v.attrs["floor"]
        return (
            f"{float(v.bits_per_byte):.3f} bits per byte, perplexity {float(v.perplexity):.2f} a token; Kneser-Ney {others}"
            + (f"; not applicable: {floor}" if floor else "")
        )  # fmt: skip

    def plot(self) -> Any:
        v = self.values
        rows = [
            ("this model", v.nats.values),
            *((f"Kneser-Ney order {int(o)}", v.baseline_nats.sel(order=o).values) for o in v.order.values),
        ]
        usable = np.isfinite(v.nats.values)
        octets = v.bytes.values[usable]
        frame = pd.DataFrame([{"model": name, "bits": nats[usable].sum() / LN2 / octets.sum()} for name, nats in rows])
        frame[["low", "high"]] = [_own(nats[usable] / LN2, octets, 0.95, 0) or [np.nan, np.nan] for _, nats in rows]
        titles = {"title": f"Bits per byte on held-out {v.attrs['text']} (less is better)", "bits": "bits per byte"}
        return bars_with_interval(frame, "model", "bits", "low", "high", titles=titles)


class _Perplexity:
    name = NAME
    spec = PerplexitySpec
    needs = Needs(abilities=frozenset({"logprobs"}), inputs=(), tokenizer=True)

    def samples(self, spec: PerplexitySpec) -> Iterator[Sample]:
        if spec.text == "town":
            documents = Town(spec.world).documents(0, min(spec.documents, spec.world.held_out), split="test")
            yield from (Sample(f"{n:05d}", {"context": "", "text": d.text}, group=d.kind) for n, d in enumerate(documents))
        else:
            parts = sections(held_out(spec.text), spec.section, spec.lead)
            yield from (Sample(f"{n:05d}", {"context": context, "text": text}) for n, (context, text) in enumerate(parts))

    def request(self, sample: Sample, spec: PerplexitySpec) -> Rolling:
        return Rolling(sample.facts["text"], context=sample.facts["context"])

    def score(self, sample: Sample, response: list[list[float]], spec: PerplexitySpec) -> Score:
        context, text = sample.facts["context"], sample.facts["text"]
        octets, before = as_bytes(text), as_bytes(context)
        models = baselines(spec.text, spec.world.canonical() if spec.text == "town" else "", orders_of(spec))
        kn = {str(order): float(math.fsum(m.nats(octets, context=before))) for order, m in models.items()}
        return Score(sample.id, {"nats": -total(response[0]), "tokens": len(response[0]), "bytes": len(octets), "kneser_ney": kn})

    def aggregate(self, scores: Sequence[Score], spec: PerplexitySpec) -> PerplexityResult:
        return aggregate(scores, spec)

    def findings(self, result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
        return findings(result, subject=subject, reference=reference, level=level)


SUITE = _Perplexity()


def orders_of(spec: PerplexitySpec) -> tuple[int, ...]:
    """The baselines' orders, ascending, 1 among them. Raises BadValue outside 1 to 5."""
    orders = tuple(sorted({1, *spec.orders}))
    if not 1 <= orders[0] <= orders[-1] <= MOST_ORDER:
        raise BadValue("orders", list(spec.orders), f"within 1 to {MOST_ORDER}")
    return orders


def held_out(text: str) -> str:
    """The held-out part of a public text: its validation tenth, or the test articles one after the other."""
    return tinyshakespeare()["validation"] if text == "tinyshakespeare" else "".join(wikitext2()["test"])


def sections(text: str, size: int, lead: int) -> list[tuple[str, str]]:
    """(context, section) pairs that cover ``text`` from the first line end at or after ``lead`` on; a section ends at a line end.

    Raises BadValue where nothing is left behind the lead.
    """
    ends = [place + 1 for place, letter in enumerate(text) if letter == "\n"]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    out: list[tuple[str, str]] = []
    start = next((end for end in ends if end >= lead), len(text))
    for end in ends:
        if end > start and (end - start >= size or end == len(text)):
            out.append((text[max(0, start - lead) : start], text[start:end]))
            start = end
    if not out:
        raise BadValue("the length of the held-out text", len(text), f"more than the lead of {lead} characters and a line")
    return out


@lru_cache(maxsize=4)
def baselines(text: str, world: str, orders: tuple[int, ...]) -> dict[int, KneserNey]:
    """Byte n-gram models of the text's training split, one an order; ``world`` is a town's spec in canonical form, or empty."""
    if world:
        training: Any = [as_bytes(document) for document in Town(TownSpec.model_validate_json(world)).texts("train")]
    else:
        training = as_bytes(tinyshakespeare()["train"] if text == "tinyshakespeare" else "".join(wikitext2()["train"]))
    return {order: KneserNey(training, order=order) for order in orders}


def aggregate(scores: Sequence[Score], spec: PerplexitySpec) -> PerplexityResult:
    """Per section, and over all scored sections together."""
    orders = orders_of(spec)
    asked = denominators(scores)
    column = lambda name: np.array([np.nan if s.unscored else float(s.values[name]) for s in scores])  # noqa: E731
    kn = np.array([[np.nan if s.unscored else s.values["kneser_ney"][str(order)] for s in scores] for order in orders])
    nats, tokens, octets = column("nats"), column("tokens"), column("bytes")
    floor, bits, ppl, baseline_bits = "none of its sections could be scored", math.nan, math.nan, np.full(len(orders), np.nan)
    if asked.scored:
        bits = bits_per_byte(float(np.nansum(nats)), int(np.nansum(octets)))
        ppl = perplexity(float(np.nansum(nats)), int(np.nansum(tokens)))
        baseline_bits = np.nansum(kn, axis=1) / LN2 / np.nansum(octets)
        unigram = baseline_bits[0]
        floor = "" if bits < unigram else f"its {bits:.2f} bits per byte are not below the {unigram:.2f} of byte frequencies alone"
    values = xr.Dataset(
        {
            "nats": ("section", nats), "tokens": ("section", tokens), "bytes": ("section", octets),
            "baseline_nats": (("order", "section"), kn), "bits_per_byte": ((), bits), "perplexity": ((), ppl),
            "baseline_bits": ("order", baseline_bits),
        },
        coords={
            "section": np.array([s.sample for s in scores], dtype=object), "order": list(orders),
            "kind": ("section", np.array([s.group for s in scores], dtype=object)),
        },
        attrs={"floor": floor, "text": spec.text, "asked": asked.model_dump(mode="json")},
    )  # fmt: skip
    return PerplexityResult(NAME, values)


# --- findings -----------------------------------------------------------------------------------------------


def findings(result: Result, *, subject: str, reference: Result | None = None, level: float = 0.95) -> list[Finding]:
    """Bits per byte against the highest-order baseline on the same sections, and against the reference."""
    spec = PerplexitySpec.parse(result.spec)
    v = result.values
    order = int(v.order.values[-1])
    out = [
        _difference(
            result, v.baseline_nats.sel(order=order).values, spec, level,
            claim="the model predicts held-out text better than counting", measure=f"bits per byte, model − Kneser-Ney order {order}",
            null=Null(name=f"Kneser-Ney order {order}", value=0.0, words="byte n-grams fitted on the training split"), subject=subject,
        )
    ]  # fmt: skip
    if reference is not None:
        alike = read_alike(spec, PerplexitySpec.parse(reference.spec))
        other = {str(s): x for s, x in zip(reference.values.section.values, reference.values.nats.values, strict=True)}
        theirs = np.array([other.get(str(s), np.nan) if alike is None or str(s) in alike else np.nan for s in v.section.values])
        out.append(
            _difference(
                result, theirs, spec, level, claim="the model predicts held-out text as the reference does",
                measure="bits per byte, model − reference", null=Null(name="reference", value=0.0), subject=subject,
            )
        )  # fmt: skip
    return out


def read_alike(mine: PerplexitySpec, theirs: PerplexitySpec) -> frozenset[str] | None:
    """The sections that read the same under both specs, None for all: documents of two worlds may share a number and differ in a word."""
    beside = {"orders", "seed", "documents"}  # decide no text
    if mine.model_dump(exclude=beside) == theirs.model_dump(exclude=beside):
        return None
    texts = [{sample.id: sample.facts for sample in SUITE.samples(spec)} for spec in (mine, theirs)]
    return frozenset(section for section, facts in texts[0].items() if texts[1].get(section) == facts)


def _difference(result: Result, theirs: np.ndarray, spec: PerplexitySpec, level: float, **base: Any) -> Finding:
    """Σ (our nats − their nats) / Σ bytes in bits, drawn by section."""
    v = result.values
    usable = np.isfinite(v.nats.values) & np.isfinite(theirs)
    whole = Denominators.parse(v.attrs["asked"])
    lost = whole.scored - int(usable.sum())
    asked = Denominators(
        run=whole.run,
        scored=whole.scored - lost,
        unscored={**whole.unscored, **({"not in the reference": lost} if lost else {})},
    )
    floor = v.attrs["floor"]
    if usable.sum() < fewest(level):
        verdict, because = decide(None, None, null=None, applicable=not floor)
        return Finding(**base, source=NAME, effect=None, denominators=asked, verdict=verdict, because=floor or because)
    octets = v.bytes.values[usable]
    gap = (v.nats.values[usable] - theirs[usable]) / LN2
    each = gap / octets
    if np.ptp(each) <= 1e-12 * max(1.0, float(np.abs(each).max())):  # the same in every section: no spread to draw from
        effect = float(gap.sum() / octets.sum())
        verdict, because = decide(effect, None, null=0.0, applicable=not floor)
        return Finding(
            **base, source=NAME, effect=effect, unit="bits per byte", denominators=asked, verdict=verdict, because=floor or because
        )
    found = bootstrap(np.stack([gap, octets], axis=1), ratio, level=level, seed=spec.seed)
    mde = minimal_detectable_effect(len(gap), float(_influence(gap, octets).std(ddof=1)), level=level)
    verdict, because = decide(found.value, found.interval, null=0.0, detectable=mde, paired="higher is worse", applicable=not floor)
    return Finding(
        **base, source=NAME, effect=found.value, unit="bits per byte", interval=found.interval, denominators=asked, verdict=verdict,
        because=floor or because, detectable=mde,
        details={
            "bits_per_byte": float(v.bits_per_byte), "bits_per_byte_interval": _own(v.nats.values[usable] / LN2, octets, level, spec.seed),
            "perplexity": float(v.perplexity),
            "baselines": {str(int(o)): float(b) for o, b in zip(v.order.values, v.baseline_bits.values, strict=True)},
            "tokens": int(np.nansum(v.tokens.values)), "bytes": int(octets.sum()),
        },
    )  # fmt: skip


def _own(bits: np.ndarray, octets: np.ndarray, level: float, seed: int) -> list[float] | None:
    """The interval of Σ bits / Σ bytes; None where every section has the same rate or there are too few."""
    if len(bits) < fewest(level) or np.ptp(bits / octets) == 0:
        return None
    interval = bootstrap(np.stack([bits, octets], axis=1), ratio, level=level, seed=seed).interval
    return [interval.low, interval.high]


def _influence(gap: np.ndarray, octets: np.ndarray) -> np.ndarray:
    """Each section's linear part in the ratio Σ gap / Σ bytes, scaled so that its spread / sqrt(n) is the ratio's standard error."""
    return (gap - gap.sum() / octets.sum() * octets) / octets.mean()
