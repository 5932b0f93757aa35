"""Which training rows gave a model its answer: gradients of training rows beside the gradient of the question.

    tracin   sum over checkpoints of  rate * (gradient of the row's loss . gradient of the question's loss)
    dot      the same of the final model alone, without its rate
    cosine   that product over both sizes

A step down a row's gradient lowers the question's loss by rate times the product, to first order, so a high score says that learning the
row made the answer likelier. Beside them two rankings that know nothing of the question or nothing of the model: the size of a row's
gradient, and how many of the question's words it holds. Where it is told which rows were planted, each ranking's average precision is
given with its interval, beside that of random rankings.

Source: Pruthi, Liu, Kale and Sundararajan, Estimating Training Data Influence by Tracing Gradient Descent, NeurIPS 2020 (arXiv:2002.08484).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from probes.data_gradients import Compared, chance_interval, chance_of, chosen_parameters, compare, precisions, products
from probes.data_rows import Rows, Trained, overlap, read_rows, read_trained, said
from probes.patch_given import Side
from probes.target import Target, device_of, model_dtype, read_target
from probes.token_items import TokenItems, origin, read_items
from workbench.core.charts.lines import bars_with_interval
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.resampling import bootstrap, fewest

RANKINGS = ("tracin", "cosine", "dot", "norm", "overlap")
"""The rankings: three by gradients, and two to compare with: a row's gradient alone, and words in common."""


class DataAttributionSpec(Spec):
    """Which rows and parameters are looked at, and how rankings are scored."""

    parameters: tuple[str, ...] = Field(default=("*",), min_length=1, description="names or globs of the learned parameters compared")
    rows: int = Field(default=5000, ge=1, description="training rows at most; of more, a random sample")
    position: int | None = Field(default=None, description="where the answer is asked for: None is the last real token")
    top: int = Field(default=10, ge=1, le=1000, description="rows told in words")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of labelled rows, and random rankings")
    seed: int = Field(default=0, ge=0, description="seed of the sample of rows, the bootstrap and the random rankings")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: DataAttributionSpec, progress: Progress) -> DataAttributionResult:
    """Compare every row with the question at every checkpoint. Raises BadValue for inputs that cannot be meant."""
    _check_still(model)
    items = read_items(model, inputs, bos=spec.bos)
    target = read_target(model, items, inputs, "logprob", spec.position)
    trained = read_trained(inputs.reference)
    rows = read_rows(model, trained.rows, spec.rows, spec.seed, spec.bos)
    labelled = _labelled(inputs.labels, rows)
    names = list(chosen_parameters(model, spec.parameters))
    for number, (one, _) in enumerate(trained.checkpoints):
        if not isinstance(one, torch.nn.Module) or list(chosen_parameters(one, spec.parameters)) != names:
            raise BadValue(f"checkpoint {number}", type(one).__name__, "a model with the parameters of the one asked about")
    done, total = 0, (len(trained.checkpoints) + 1) * len(rows)

    def tell(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total, "rows")

    question = lambda one: _loss(one, items, target)  # noqa: E731
    tracin = np.zeros(len(rows))
    for one, rate in trained.checkpoints:
        tracin += rate * products(one, rows, question, spec.parameters, tell)
    last = compare(model, rows, question, spec.parameters, tell)
    tracin += trained.rate * last.dot
    asked = [set(items.ids[i, : int(items.lengths[i])].tolist()) | {int(target.ids[i])} for i in range(len(items))]
    scores = np.stack([tracin, last.cosine, last.dot, last.norm, overlap(model, rows, asked)])
    count = sum(value.numel() for value in chosen_parameters(model, spec.parameters).values())
    return DataAttributionResult(
        kind=INSTRUMENT.name,
        values=_values(model, rows, trained, scores, last, labelled, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths, targets=target.ids,
                          rows=np.array(rows.digest), rates=[*(rate for _, rate in trained.checkpoints), trained.rate], labels=labelled,
                          checkpoints=np.array([one.digest() for one, _ in trained.checkpoints] or [""])),
        notes=(
            f"{len(rows)} of {rows.total} training rows, {len(trained.checkpoints)} checkpoints and the final model, {count:,} parameters.",
            *([] if trained.checkpoints else ["No earlier checkpoint was given: 'tracin' is 'dot' times the rate."]),
            items.added,
        ),
    )  # fmt: skip


def _check_still(model: Any) -> None:
    if getattr(model, "training", False) and getattr(model.config, "dropout", 0.0):
        raise BadValue("the model's mode", "training, with dropout", "evaluation: gradients would be drawn", do="Call `model.eval()`.")


def _loss(model: Any, items: TokenItems, target: Target) -> Float[Tensor, ""]:
    """The mean over questions of minus the log-probability of the answer, in the graph."""
    device = device_of(model)
    where, place = torch.unique(target.positions, return_inverse=True)
    logits = model.run(Side(model, items).batch(slice(0, len(items))), logits=where.tolist(), grad=True).logits
    found = logits[torch.arange(len(items), device=device), place.to(device)]
    return -target.read(found.to(torch.promote_types(found.dtype, torch.float32))).mean()


def _labelled(given: Any, rows: Rows) -> np.ndarray | None:
    """True at the rows that are told to be planted, one truth value a row of the whole training data."""
    if given is None:
        return None
    marks = np.asarray(given)
    if marks.shape != (rows.total,) or not (marks.dtype == bool or (marks.dtype.kind in "iu" and np.isin(marks, (0, 1)).all())):
        raise BadValue("inputs.labels", f"{marks.dtype} of shape {marks.shape}", f"{rows.total} truth values, one a training row")
    chosen = marks.astype(bool)[list(rows.numbers)]
    if not 0 < chosen.sum() < len(chosen):
        raise BadValue("inputs.labels", f"{int(chosen.sum())} of {len(chosen)} rows labelled", "some, and not all, of the rows looked at")
    return chosen


def _values(
    model: HookedModel, rows: Rows, trained: Trained, scores: Float[np.ndarray, "method row"], last: Compared, labelled: np.ndarray | None,
    spec: DataAttributionSpec,
) -> xr.Dataset:  # fmt: skip
    """Scores by ranking and row; average precisions by ranking, NaN where no row is labelled."""
    ap = np.full((len(RANKINGS), 3), np.nan)
    chance = (np.nan,) * 3
    if labelled is not None:
        count = int(labelled.sum())
        ap = np.array([_average_precision(one, labelled, spec) for one in scores])
        chance = (chance_of(len(rows), count), *chance_interval(len(rows), count, spec.level, spec.resamples, spec.seed))
    shown = {int(i) for one in scores[:2] for i in np.argsort(-one, kind="stable")[: spec.top]}
    words = [said(model, row) if number in shown else "" for number, row in enumerate(rows.each())]
    variables: dict[str, Any] = {
        "score": (("ranking", "row"), scores),
        "average_precision": (("ranking",), ap[:, 0]), "average_precision_low": (("ranking",), ap[:, 1]),
        "average_precision_high": (("ranking",), ap[:, 2]),
        "chance": chance[0], "chance_low": chance[1], "chance_high": chance[2],
        "loss": (("row",), last.loss), "question_loss": last.question_loss,
        "labelled": (("row",), np.full(len(rows), -1) if labelled is None else labelled.astype(int)),
        "step": (("row",), np.array([trained.steps.get(number, -1) for number in rows.numbers])),
        "text": (("row",), np.array(words, dtype=object)),
    }  # fmt: skip
    return xr.Dataset(variables, coords={"ranking": list(RANKINGS), "row": list(rows.numbers)})


def _average_precision(scores: np.ndarray, labelled: np.ndarray, spec: DataAttributionSpec) -> tuple[float, float, float]:
    """With its interval over labelled rows; NaN bounds where they are too few, all NaN where there is no ranking."""
    if not np.isfinite(scores).all():
        return np.nan, np.nan, np.nan
    each = precisions(scores, labelled)
    if len(each) < fewest(spec.level):
        return float(each.mean()), np.nan, np.nan
    found = bootstrap(each, level=spec.level, draws=spec.resamples, seed=spec.seed, bounds=(0.0, 1.0))
    return found.value, found.interval.low, found.interval.high


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataAttributionResult(Result):
    """By ranking and training row: ``score``; by row its ``loss`` (nats) in the final model, the ``step`` that first read it (-1: not
    known), whether it is ``labelled`` (-1: nothing is), and its ``text`` where it is among the first. By ranking ``average_precision``
    with its interval; ``chance``, that of random rankings, with the middle of them. ``question_loss`` is the final model's."""

    columns: ClassVar[tuple[str, ...]] = (
        "ranking", "row", "score", "average_precision", "average_precision_low", "average_precision_high", "chance", "chance_low",
        "chance_high", "loss", "question_loss", "labelled", "step", "text",
    )  # fmt: skip

    def first(self, ranking: str = "tracin", most: int = 10) -> list[int]:
        """The numbers of the rows with the highest scores, best first."""
        v = self.values.sel(ranking=ranking)
        return [int(v["row"].values[i]) for i in np.argsort(-v["score"].values, kind="stable")[:most]]

    def summary(self) -> str:
        """The first rows by each ranking of gradients, and how well the rankings find what is labelled."""
        v = self.values
        lines = [f"The question's loss is {float(v['question_loss']):.3f} nats in the final model."]
        for method in ("tracin", "cosine"):
            best = self.first(method, 1)[0]
            at = v.sel(ranking=method, row=best)
            step = f", first read at step {int(at['step'])}" if int(at["step"]) >= 0 else ""
            lines.append(f"First by {method}: row {best} ({float(at['score']):.3g}{step}): '{at['text'].item()}'.")
        if np.isfinite(float(v["chance"])):
            marked, rows = int((v["labelled"] == 1).sum()), v.sizes["row"]
            told = "; ".join(f"{m} {_said(v, m)}" for m in RANKINGS if np.isfinite(v["average_precision"].sel(ranking=m).item()))
            lines.append(
                f"Average precision for the {marked} labelled of {rows} rows: {told}. Random rankings: {float(v['chance']):.3f} "
                f"[{float(v['chance_low']):.3f}, {float(v['chance_high']):.3f}]."
            )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Average precision of each ranking where rows are labelled; else the first rows' TracIn scores."""
        if np.isfinite(float(self.values["chance"])):
            frame: Any = self.to_frame()
            frame = frame[frame["row"] == frame["row"].iloc[0]].dropna(subset=["average_precision"])
            titles = {"title": "Average precision for the labelled rows", "average_precision": "average precision", "reference": "chance"}
            bands = ("ranking", "average_precision", "average_precision_low", "average_precision_high")
            return bars_with_interval(frame, *bands, titles=titles, reference=float(self.values["chance"]))
        some = self.values.sel(ranking="tracin", row=self.first())
        names = [f"row {n} {text}"[:46] for n, text in zip(some["row"].values.tolist(), some["text"].values.tolist(), strict=True)]
        bars = some["score"].to_dataframe().reset_index().assign(label=names, low=np.nan, high=np.nan)
        titles = {"title": "The training rows that made the answer likeliest", "score": "TracIn score"}
        return bars_with_interval(bars, "label", "score", "low", "high", titles=titles)


def _said(v: xr.Dataset, method: str) -> str:
    at = v.sel(ranking=method)
    return f"{float(at['average_precision']):.3f} [{float(at['average_precision_low']):.3f}, {float(at['average_precision_high']):.3f}]"


@dataclass(frozen=True)
class TrainingInstrument(Instrument):
    """An instrument whose ``inputs.reference`` is what the model was trained on."""

    def explain_incompatibility(self, model: HookedModel) -> list[str]:
        """What the needs say; then that a model must know its loss and show its parameters."""
        if found := self.needs.objections(model):
            return found
        missing = [name for name in ("loss", "named_parameters") if not callable(getattr(model, name, None))]
        return [f"it has no {' and no '.join(missing)}, whose gradients are compared"] if missing else []


INSTRUMENT = TrainingInstrument(
    name="data-attribution",
    question="Which training rows gave the model its answer?",
    spec=DataAttributionSpec,
    needs=Needs(reads=("tokens",), abilities=frozenset({"logits", "grad"}), inputs=("batch", "reference", "targets"), reference="training"),
    compute=compute,
)
