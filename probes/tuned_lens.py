"""The tuned lens: the logit lens through an affine map a layer, fitted so that a layer is read in the last layer's terms.

    lens(h) = unembed(final norm(h + h A + b))       A, b of that place, fitted by KL to the model's own answers (``probes.lens_fit``)

Sentences are split in three: maps are fitted on the first part, the best step of each is chosen on the second, and all that is told is
of the third. Beside the tuned lens stand the logit lens on the same tokens and a *constant* lens, the mean of the model's answers over the
fitted tokens, which reads nothing. ``gain`` is the logit lens's distance less the tuned lens's. A small distance to the model's answers is
no knowledge of the text where the model has none: ``knowledge`` is how much likelier the lens makes the token that does follow than the
constant lens does, in nats, and on a model that knows nothing it is nothing.

Source: Belrose et al., Eliciting Latent Predictions from Transformers with the Tuned Lens, 2023 (arXiv:2303.08112).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from probes.attention import check_cells
from probes.lens_fit import Fitting, StreamTokens, Translators, divergence, fit, log_answers, parts
from probes.probe_labels import held_out, sentence_groups
from probes.read_out import AnswerInstrument, Asked, read_asked
from probes.stream import end_of, places_on
from probes.target import model_dtype
from probes.token_items import TokenItems, origin
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.measure import Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.resampling import bootstrap, fewest

LENSES = ("tuned", "logit", "constant")


class TunedLensSpec(Spec):
    """Where maps are fitted, how, and how they are scored."""

    layers: tuple[int, ...] | None = Field(default=None, description="layers, counted from 0; None is all; 0 brings what stands before it")
    steps: int = Field(default=400, ge=1, description="steps of Adam")
    lr: float = Field(default=3e-3, gt=0, le=1, description="rate of the first step; it falls to nothing in a line")
    tokens_a_step: int = Field(default=256, ge=1, description="tokens drawn in a step")
    test_share: float = Field(default=0.3, gt=0, lt=1, description="share of sentence groups that are scored and never fitted")
    choose_share: float = Field(default=0.2, gt=0, lt=1, description="share of the other groups on which the best step is chosen")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of the split, the draws and the bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=100_000_000, ge=1, description="numbers of the stream kept at most")
    tokens_a_pass: int = Field(default=4096, ge=1, description="tokens in one forward pass at most")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: TunedLensSpec, progress: Progress) -> TunedLensResult:
    """Fit and score. Raises BadValue for inputs that cannot be meant and for too few sentences."""
    for name in ("targets", "foils"):
        if getattr(inputs, name) is not None:
            raise BadValue(f"inputs.{name}", "given", "left out: the lens is fitted to all answers, and scored on the token that follows")
    asked = read_asked(model, inputs, stack="", bos=spec.bos, tokens_a_pass=spec.tokens_a_pass)
    items = asked.items
    assert isinstance(items, TokenItems), "the needs ask for tokens read one way"
    sites = [name for name in places_on(model, asked.stack, spec.layers) if name != end_of(model, asked.stack)]
    if not sites:
        raise BadValue("layers", list(spec.layers or ()), "one whose end is not the last place: there the model answers by itself")
    groups = sentence_groups(items, inputs.groups)
    tokens = _streams(asked, items, sites, groups, spec, progress)
    train, choose, test = _split(tokens, groups, spec)
    settings = Fitting(spec.steps, spec.tokens_a_step, spec.lr, spec.seed)
    maps = fit(model, asked.stack, train, choose, settings, progress)
    constant = _mean_answers(model, asked.stack, train, spec)
    scored = _score(model, asked.stack, test, maps, constant, spec)
    return TunedLensResult(
        kind=INSTRUMENT.name,
        values=_values(sites, scored, test, maps, (len(train), len(choose)), constant.shape[0], spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), groups=groups, **items.data()),
        notes=(
            f"Fitted on {len(train)} tokens, the step chosen on {len(choose)}, scored on {len(test)} of other sentences; control tokens "
            "are left out.",
            items.added,
        ),
    )


def _streams(
    asked: Asked, items: TokenItems, sites: Sequence[str], groups: np.ndarray, spec: TunedLensSpec, progress: Progress
) -> StreamTokens:  # fmt: skip
    """The stream of every real token that is no control token. Raises BadValue for NaN or infinity there, and above ``max_cells``."""
    last, kept, ends = end_of(asked.model, asked.stack), [], []
    counted = items.real & ~items.control
    for part, batch in asked.passes():
        trace = asked.model.run(batch, capture=[*sites, last], logits=None)
        check_cells(int(counted.sum()) * (len(sites) + 1) * trace[last].shape[-1], spec.max_cells, "stream")
        some = counted[part]
        kept.append(torch.stack([trace[site].detach().cpu()[some] for site in sites]))
        ends.append(trace[last].detach().cpu()[some])
        if not bool(torch.isfinite(kept[-1]).all()) or not bool(torch.isfinite(ends[-1]).all()):
            raise BadValue("the stream", "NaN or infinity at a real token", "finite numbers", do="The weights are broken.")
        progress(part.stop, len(items), "items")
    ids = items.ids.masked_fill(~counted, -1)
    following = torch.cat([ids[:, 1:], torch.full((len(ids), 1), -1)], 1)[counted]
    group = torch.from_numpy(groups)[:, None].expand_as(ids)[counted]
    return StreamTokens(torch.cat(kept, 1), torch.cat(ends), following, group)


def _split(tokens: StreamTokens, groups: np.ndarray, spec: TunedLensSpec) -> tuple[StreamTokens, StreamTokens, StreamTokens]:
    """Tokens to fit, to choose and to score, by sentence groups. Raises BadValue where there are too few."""
    test = held_out(groups, spec.test_share, spec.seed, "different sentences or groups")
    left = np.array(sorted(set(groups.tolist()) - test))
    choose = held_out(left, spec.choose_share, spec.seed + 1, "different sentences or groups that are not held out")
    out = [tokens.rows(torch.from_numpy(np.isin(tokens.group.numpy(), list(part))).nonzero()[:, 0])
           for part in (set(left.tolist()) - choose, choose, test)]  # fmt: skip
    if min(map(len, out)) == 0:
        raise BadValue("the numbers of tokens to fit, choose and score", [len(part) for part in out], "above 0", do="Give more sentences.")
    return out[0], out[1], out[2]


def _mean_answers(model: HookedModel, stack: str, train: StreamTokens, spec: TunedLensSpec) -> Tensor:
    """The log of the mean of the model's answers: what is best said without looking."""
    total = torch.zeros(1)
    for part in parts(len(train), spec.tokens_a_step):
        total = total + log_answers(model, stack, train.end[part]).double().exp().sum(0)
    return (total / len(train)).log()


@dataclass(frozen=True)
class Scored:
    """Of every scored token, in nats: the distance to the model's answer and the surprise at what follows (NaN where nothing does), by lens
    and place ``[lens, site, token]``, and the model's own surprise ``[token]``."""

    kl: np.ndarray
    surprise: np.ndarray
    own: np.ndarray


def surprise_at(logs: Tensor, ids: Tensor) -> Tensor:
    """What log-probabilities ``[..., token, answer]`` say against each token's id, in nats; NaN where there is none (-1)."""
    at = ids.clamp(min=0).expand(logs.shape[:-1]).unsqueeze(-1)
    return torch.where(ids >= 0, -logs.gather(-1, at).squeeze(-1), torch.nan)


def _score(model: HookedModel, stack: str, test: StreamTokens, maps: Translators, constant: Tensor, spec: TunedLensSpec) -> Scored:
    kl, surprise, own = [], [], []
    sites = len(test.at)
    for part in parts(len(test), spec.tokens_a_step):
        some = test.rows(part)
        end = log_answers(model, stack, some.end).double()
        lenses = [log_answers(model, stack, x.flatten(0, 1)).double().unflatten(0, (sites, -1)) for x in (maps(some.at), some.at)]
        lenses.append(constant.expand(sites, len(some), -1))
        kl.append(torch.stack([divergence(end, here) for here in lenses]))
        surprise.append(torch.stack([surprise_at(here, some.following) for here in lenses]))
        own.append(surprise_at(end, some.following))
    return Scored(torch.cat(kl, 2).numpy(), torch.cat(surprise, 2).numpy(), torch.cat(own).numpy())


def _interval(numbers: np.ndarray, groups: np.ndarray, spec: TunedLensSpec) -> tuple[float, float, float]:
    """The mean with its interval, sentence groups being resampled whole; NaN bounds where they are too few, or show no spread."""
    known = np.isfinite(numbers)
    numbers, groups = numbers[known], groups[known]
    if not len(numbers):
        return np.nan, np.nan, np.nan
    if not numbers.any():  # a map that is still the logit lens: no difference, whatever is drawn
        return 0.0, 0.0, 0.0
    _, group = np.unique(groups, return_inverse=True)
    means = np.bincount(group, numbers) / np.bincount(group)
    if len(means) < fewest(spec.level) or np.ptp(means) <= 1e-9 * abs(means).max():
        return float(numbers.mean()), np.nan, np.nan
    found = bootstrap(numbers, clusters=groups, level=spec.level, draws=spec.resamples, seed=spec.seed)
    return found.value, found.interval.low, found.interval.high


def _values(
    sites: list[str], scored: Scored, test: StreamTokens, maps: Translators, counts: tuple[int, int], answers: int, spec: TunedLensSpec
) -> xr.Dataset:
    groups, both, per = test.group.numpy(), ("lens", "site"), ("site",)
    each = lambda table: [[_interval(row, groups, spec) for row in lens] for lens in table]  # noqa: E731
    variables: dict[str, Any] = {}
    for name, dims, found in (
        ("kl", both, each(scored.kl)),
        ("surprise", both, each(scored.surprise)),
        ("knowledge", both, each(scored.surprise[2] - scored.surprise)),
        ("gain", per, each([scored.kl[1] - scored.kl[0]])[0]),
    ):
        table = np.array(found)
        variables |= {f"{name}{end}": (dims, table[..., i]) for i, end in enumerate(("", "_low", "_high"))}
    known = scored.own[np.isfinite(scored.own)]
    variables |= {
        "own_surprise": known.mean() if len(known) else np.nan, "chance": np.log(answers), "step": (per, maps.step.numpy()),
        "n_train": counts[0], "n_choose": counts[1], "n_test": len(test),
        "matrix": (("site", "row", "column"), maps.matrix.float().numpy()), "shift": (("site", "column"), maps.shift.float().numpy()),
    }  # fmt: skip
    return xr.Dataset(variables, coords={"lens": list(LENSES), "site": sites, "depth": ("site", np.arange(len(sites)))})


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TunedLensResult(Result):
    """By lens and site, in nats with intervals: ``kl`` to the model's answers, ``surprise`` at the token that follows, ``knowledge`` (the
    constant lens's surprise less this one's); by site ``gain`` (the logit lens's KL less the tuned lens's) and the ``step`` kept (0: the
    logit lens). ``own_surprise`` the model's, ``chance`` that of equal odds. ``matrix`` and ``shift`` are the maps."""

    columns: ClassVar[tuple[str, ...]] = (
        "lens", "site", "depth", "kl", "kl_low", "kl_high", "surprise", "surprise_low", "surprise_high", "knowledge", "knowledge_low",
        "knowledge_high", "gain", "gain_low", "gain_high", "step", "own_surprise", "chance", "n_train", "n_choose", "n_test",
    )  # fmt: skip
    aside: ClassVar[tuple[str, ...]] = ("row", "column")

    def translators(self) -> Translators:
        """The fitted maps."""
        v = self.values
        return Translators(*(torch.from_numpy(np.array(v[name].values)) for name in ("matrix", "shift", "step")))

    def summary(self) -> str:
        """For each place the distance by each lens, and whether the text is known there."""
        v: Any = self.values
        lines = [f"{self.kind}: the model's own surprise is {float(v.own_surprise):.3f} nats (equal odds {float(v.chance):.3f})."]
        for site in v.site.values:
            one = v.sel(site=site)
            tuned, logit, constant = (float(one.kl.sel(lens=lens)) for lens in LENSES)
            known, low = (float(one[name].sel(lens="tuned")) for name in ("knowledge", "knowledge_low"))
            said = "knows what follows" if low > 0 else "not shown to know what follows"
            lines.append(
                f"{site}: KL {tuned:.3f} tuned, {logit:.3f} logit, {constant:.3f} constant; {said} "
                f"({known:+.3f} nats against the constant lens); {'step ' + str(int(one.step)) if int(one.step) else 'no map helped'}."
            )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Distance to the model's answers over depth, one line a lens."""
        frame = pd.DataFrame(self.to_frame())
        titles = {"title": "Distance to the model's answers on held-out text", "depth": "place on the stream, from its start",
                  "kl": "KL, nats", "lens": "lens"}  # fmt: skip
        return curve_with_band(frame, "depth", "kl", "kl_low", "kl_high", colour="lens", titles=titles)


INSTRUMENT = AnswerInstrument(
    name="tuned-lens",
    question="What does each layer say, read in the last layer's terms, and is it more than a constant guess?",
    spec=TunedLensSpec,
    needs=Needs(
        reads=("tokens",), one_way=True, abilities=frozenset({"logits", "edit", "grad"}), sites=("blocks.*.hook_resid_post",),
    ),
    compute=compute,
    begins=True,
    items=400,
)  # fmt: skip
