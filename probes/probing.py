"""Linear probing of every layer in one pass, with the controls that tell knowledge from memory.

For each site (or each head) a ridge probe in closed form, a logistic one or a small MLP is fitted to the labels, to control tasks (one
random label a word *type*) and to shuffled labels, and scored on held-out sentences:

    selectivity = accuracy on the labels - accuracy on the control tasks

An untrained network (the same config with fresh weights, given as ``inputs.reference``) shows what the architecture and the
embedding lottery give away for nothing. Nothing here says that the model *uses* what a probe finds.

Source: Hewitt and Liang, Designing and Interpreting Probes with Control Tasks, EMNLP 2019 (arXiv:1909.03368); untrained
networks as a baseline: Conneau et al., What you can cram into a single vector, ACL 2018 (arXiv:1805.01070).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from probes.panels import joined
from probes.probe_fit import Cell, How, Job, make_jobs
from probes.probe_labels import TASKS, Split, Task, held_out, make_splits, read_labels, sentence_groups
from probes.target import device_of, model_dtype
from probes.token_items import TokenItems, origin, read_items, rows_a_pass, slices
from probes.word_baseline import word_baseline
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue, Incompatible
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec, later
from workbench.core.stats.resampling import bootstrap, fewest

COUNTS: tuple[str, ...] = ("n_train", "n_test", "groups_train", "groups_test", "excluded", "majority", "seen_types")
WORDS = ("words", "words_low", "words_high")


class ProbingSpec(Spec):
    """Where the probes read and how they are fitted and scored."""

    sites: tuple[str, ...] = Field(default=("hook_embed", "blocks.*.hook_resid_post"), min_length=1, description="names or globs of sites")
    position: int | None = Field(default=None, description="where labels of whole items are read: None is the last real token")
    strength: float = Field(default=1e-3, gt=0, description="ridge penalty, as a share of n times the features' mean variance")
    test_share: float = Field(default=0.3, gt=0, lt=1, description="share of sentence groups held out")
    new_types: bool = Field(default=False, description="also split so that no word type of the test set was trained on")
    draws: int = Field(default=5, ge=1, le=100, description="control tasks and shuffles, averaged")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of split, controls, shuffles and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of held-out features kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")
    probe: Literal["ridge", "logistic", "mlp"] = later("ridge", description="the kind of probe")
    hidden: int = later(64, ge=1, description="hidden units of an MLP probe")
    epochs: int = later(20, ge=1, description="passes over the training tokens of an MLP probe")
    heads: bool = later(False, description="at sites of heads, a probe for each head instead of one for all")
    least: int = later(5, ge=1, description="classes of fewer labelled tokens are left out, and named")


# --- compute ------------------------------------------------------------------------------------------------


def untrained_copy(model: Any, seed: int = 1) -> HookedModel:
    """The same family and config with fresh weights, for ``inputs.reference``; works where ``type(model)(config)`` does.

    The caller's random state is left as it was.
    """
    takes = inspect.signature(type(model)).parameters
    more = {name: value for name, value in (("tokenizer", model.tokenizer), ("seed", seed)) if name in takes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model)(model.config, **more)
    return fresh.to(device_of(model), model_dtype(model)).eval()


def compute(model: HookedModel, inputs: Inputs, spec: ProbingSpec, progress: Progress) -> ProbingResult:
    """Fit and score all probes. Raises BadValue for inputs that cannot be meant, and EmptySelection for sites that are not there."""
    items = read_items(model, inputs, bos=spec.bos)
    networks = networks_of(model, inputs, INSTRUMENT.name)
    sites = sites_of(model, spec.sites)
    tasks = read_labels(items, inputs.labels, spec.position, spec.least)
    groups = sentence_groups(items, inputs.groups)
    test_groups = held_out(groups, spec.test_share, spec.seed, "different sentences or groups")
    width = items.ids.shape[1]
    plans = [
        make_splits(t, groups[t.where // width], test_groups, new_types=spec.new_types, fraction=spec.test_share, seed=spec.seed)
        for t in tasks
    ]
    how = How(spec.probe, spec.strength, spec.hidden, spec.epochs, spec.seed)
    jobs = make_jobs(tasks, plans, draws=spec.draws, how=how)
    still, places = _one_pass(networks, items, sites, jobs, spec, progress)
    cells = {(job.split, cell.task, net, place): cell for job in jobs for net in networks for place in places
             for cell in job.score(net, place)}  # fmt: skip
    words = [[word_baseline(t, split, items, spec.strength) for split in splits] for t, splits in zip(tasks, plans, strict=True)]
    data = {f"{part}.{t.name}": getattr(t, part) for t in tasks for part in ("where", "codes", "classes", "types")}
    untrained = networks["untrained"].digest() if "untrained" in networks else None
    return ProbingResult(
        kind=INSTRUMENT.name,
        values=_values(tasks, plans, groups, width, list(networks), places, cells, words, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths, groups=groups,
                          untrained=untrained, **data),
        notes=(*_notes(tasks, plans, groups, width, networks, spec), *still),
    )  # fmt: skip


def networks_of(model: HookedModel, inputs: Inputs, asked: str) -> dict[str, HookedModel]:
    """The ``model`` and, where the inputs give one, the ``untrained`` network. Raises BadValue and Incompatible."""
    networks = {"model": model}
    untrained = inputs.reference
    if untrained is not None:
        if not isinstance(untrained, HookedModel):
            raise BadValue("inputs.reference", type(untrained).__name__, "an untrained model of the same config, or None")
        if untrained.digest() == model.digest():
            raise BadValue("inputs.reference", "the audited model itself", "an untrained model: one with fresh weights")
        if list(untrained.sites()) != list(model.sites()):
            raise Incompatible(asked, "the reference given", ["its sites are not the model's: it must have the same config"])
        networks["untrained"] = untrained
    return networks


def sites_of(model: HookedModel, patterns: tuple[str, ...]) -> tuple[Site, ...]:
    """The sites chosen. Raises EmptySelection, and BadValue for one without a vector a token."""
    sites = model.sites().select(patterns)
    for site in sites:
        if site.axes[:2] != ("batch", "pos"):
            raise BadValue(f"the axes of site '{site.name}'", site.axes, "batch and pos first: a probe reads one vector a token")
    return sites


def _one_pass(
    networks: dict[str, HookedModel], items: TokenItems, sites: tuple[Site, ...], jobs: list[Job], spec: ProbingSpec, progress: Progress
) -> tuple[tuple[str, ...], list[str]]:
    """Run every item once through every network; ridge probes take training features into sums, other features are kept. Returns notes on
    features that never vary, and the names of what is read: sites, or their heads."""
    kept = sum(int((job.test | (job.train if spec.probe != "ridge" else job.test)).sum()) for job in jobs)
    varies: dict[tuple[str, str], tuple[Tensor, bool]] = {}
    for part in slices(len(items), rows_a_pass(spec.tokens_a_pass, items.ids.shape[1])):
        for name, network in networks.items():
            trace = network.run(items.given(network, part, device_of(network)), capture=sites, logits=None)
            real = items.real[part].flatten().to(device_of(network))
            for site in sites:
                _check_features(trace[site].flatten(2).flatten(0, 1), site, kept * len(sites) * len(networks), spec)
                for place, features in _places(trace[site].detach(), site, spec.heads):
                    first, varied = varies.get((name, place)) or (features[int(real.nonzero()[0])].clone(), False)
                    varies[name, place] = first, varied or bool((features[real] != first).any())
                    for job in jobs:
                        job.take(name, place, features, first=part.start * items.ids.shape[1])
        progress(part.stop, len(items), "items")
    still = [f"At '{place}' of the {name if name != 'model' else 'audited'} network no feature varies: "
             "its probes answer with what is frequent." for (name, place), (_, varied) in varies.items() if not varied]  # fmt: skip
    return tuple(still), list(dict.fromkeys(place for _, place in varies))


def _places(value: Tensor, site: Site, heads: bool) -> list[tuple[str, Tensor]]:
    """What is read at a site ``[token, feature]``: all of it, or each head by itself."""
    if heads and len(site.axes) == 4 and site.axes[2] in ("head", "kv_head"):
        return [(f"{site.name}[{head}]", value[:, :, head].flatten(0, 1)) for head in range(value.shape[2])]
    return [(site.name, value.flatten(2).flatten(0, 1))]


def _check_features(features: Tensor, site: Site, rows: int, spec: ProbingSpec) -> None:
    if rows * features.shape[1] > spec.max_cells:
        raise BadValue(
            "the size of the held-out features", f"{rows * features.shape[1]:,} numbers", f"at most max_cells = {spec.max_cells:,}",
            do="Give fewer items or sites, hold out less, or raise max_cells.",
        )  # fmt: skip
    if not bool(torch.isfinite(features).all()):
        raise BadValue(f"the activation at '{site.name}'", "NaN or infinity", "finite numbers", do="The weights are broken.")


# --- scores ---------------------------------------------------------------------------------------------------

Bounds = tuple[float, float]


def _mean(right: np.ndarray, groups: np.ndarray, spec: ProbingSpec, bounds: Bounds = (0.0, 1.0)) -> tuple[float, float, float]:
    """The mean over tokens with its interval, sentence groups being resampled whole (NaN bounds where they are too few)."""
    if np.isnan(right).any() or len(np.unique(groups)) < fewest(spec.level):
        return float(right.mean()), np.nan, np.nan
    found = bootstrap(right, clusters=groups, level=spec.level, draws=spec.resamples, seed=spec.seed, bounds=bounds)
    return found.value, found.interval.low, found.interval.high


def _values(
    tasks: list[Task], plans: list[list[Split]], groups: np.ndarray, width: int, networks: list[str], places: list[str],
    cells: dict[tuple[str, str, str, str], Cell], words: list[list[np.ndarray]], spec: ProbingSpec,
) -> xr.Dataset:  # fmt: skip
    splits = [split.name for split in plans[0]]
    shape = (len(splits), len(tasks), len(TASKS), len(networks), len(places))
    accuracy, selectivity = np.full((3, *shape), np.nan), np.full((3, *shape[:2], *shape[3:]), np.nan)
    gain, alone = np.full((3, *shape[:2], shape[4]), np.nan), np.full((3, *shape[:2]), np.nan)
    for s, split in enumerate(splits):
        for t, task in enumerate(tasks):
            at = groups[task.where[plans[t][s].test] // width]
            alone[:, s, t] = _mean(words[t][s], at, spec)
            for i, place in enumerate(places):
                found = [_with_control(cells[split, task.name, network, place], task) for network in networks]
                for n, cell in enumerate(found):
                    accuracy[:, s, t, :, n, i] = np.transpose(
                        [_mean(right, at, spec) for right in (cell.labels, cell.control, cell.shuffled)]
                    )
                    selectivity[:, s, t, n, i] = _mean(cell.labels - cell.control, at, spec, (-1.0, 1.0))
                if len(found) == 2:
                    gain[:, s, t, i] = _mean(found[0].labels - found[1].labels, at, spec, (-1.0, 1.0))
    whole, part, paired = (
        ("split", "labels", "task", "network", "site"),
        ("split", "labels", "network", "site"),
        ("split", "labels", "site"),
    )
    names = lambda word, dims, found: {n: (dims, a) for n, a in zip((word, f"{word}_low", f"{word}_high"), found, strict=True)}  # noqa: E731
    return xr.Dataset(
        {**names("accuracy", whole, accuracy), **names("selectivity", part, selectivity), **names("gain", paired, gain),
         **names("words", ("split", "labels"), alone), **_counts(tasks, plans, groups, width)},
        coords={"split": splits, "labels": [t.name for t in tasks], "task": list(TASKS), "network": networks,
                "site": places, "depth": ("site", np.arange(len(places)))},
    )  # fmt: skip


def _with_control(cell: Cell, task: Task) -> Cell:
    """The cell without its control scores where the task has one word type only: such a control has one class."""
    return cell if len(np.unique(task.types)) > 1 else replace(cell, control=np.full_like(cell.control, np.nan))


def _counts(tasks: list[Task], plans: list[list[Split]], groups: np.ndarray, width: int) -> dict[str, Any]:
    """How many tokens and sentence groups stand on each side, what is left out, and what guessing would give."""
    rows: dict[str, list[list[float]]] = {name: [] for name in COUNTS}
    for s in range(len(plans[0])):
        line: dict[str, list[float]] = {name: [] for name in COUNTS}
        for task, splits in zip(tasks, plans, strict=True):
            train, test, of = splits[s].train, splits[s].test, groups[task.where // width]
            common = np.bincount(task.codes[train]).argmax()
            facts = (train.sum(), test.sum(), len(np.unique(of[train])), len(np.unique(of[test])), splits[s].excluded,
                     (task.codes[test] == common).mean(), np.isin(task.types[test], task.types[train]).mean())  # fmt: skip
            for name, fact in zip(COUNTS, facts, strict=True):
                line[name].append(fact)
        for name in COUNTS:
            rows[name].append(line[name])
    out: dict[str, Any] = {name: (("split", "labels"), np.array(rows[name])) for name in COUNTS}
    out["classes"] = ("labels", np.array([len(t.classes) for t in tasks]))
    out["types"] = ("labels", np.array([len(np.unique(t.types)) for t in tasks]))
    return out


def _notes(
    tasks: list[Task], plans: list[list[Split]], groups: np.ndarray, width: int, networks: dict[str, HookedModel], spec: ProbingSpec
) -> tuple[str, ...]:
    out = []
    if "untrained" not in networks:
        out.append("No untrained network was given: what the architecture alone gives away is not known here.")
    if spec.new_types:
        out.append("In the split 'sentence+type' control accuracy is chance by construction: no test type was seen with its random label.")
    for task, splits in zip(tasks, plans, strict=True):
        if task.rare:
            names = ", ".join(f"'{name}' ({count})" for name, count in task.rare)
            out.append(f"'{task.name}': left out are classes of fewer than {spec.least} tokens: {names}.")
        if len(np.unique(task.types)) == 1:
            out.append(
                f"'{task.name}' stands on one word type only: it has no control task. Give LabelSet(values, types) to name the words."
            )
        for split in splits:
            tested = len(np.unique(groups[task.where[split.test] // width]))
            if tested < fewest(spec.level):
                out.append(f"'{task.name}', split '{split.name}': {tested} sentence groups are tested, too few for an interval.")
            if unseen := set(task.codes[split.test]) - set(task.codes[split.train]):
                names = ", ".join(f"'{task.classes[code]}'" for code in sorted(unseen))
                out.append(f"'{task.name}', split '{split.name}': never trained on {names}, so those test tokens cannot be right.")
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbingResult(Result):
    """Accuracy by split, label set, task, network and site, each with its interval (cluster bootstrap over sentence groups).

    ``words`` is what the words alone tell (see ``word_baseline``); ``selectivity`` labels minus control; ``gain`` model minus untrained
    (NaN without one); ``majority`` the accuracy of always answering the most frequent training label; ``seen_types`` the share of
    test tokens whose word type was trained on;
    ``excluded`` tokens on neither side.
    """

    columns: ClassVar[tuple[str, ...]] = (
        "split", "labels", "task", "network", "site", "depth", "accuracy", "accuracy_low", "accuracy_high",
        "selectivity", "selectivity_low", "selectivity_high", "gain", "gain_low", "gain_high", *WORDS, *COUNTS, "classes", "types",
    )  # fmt: skip

    def summary(self) -> str:
        """For each label set and split, the site with the highest selectivity (accuracy where there is no control) and its scores."""
        lines = [f"{self.kind}:"]
        for name in self.values["labels"].values:
            for split in self.values["split"].values:
                v: Any = self.values.sel(labels=name, split=split, network="model")
                by = v.selectivity if bool(v.selectivity.notnull().all()) else v.accuracy.sel(task="labels")
                best = v.isel(site=int(by.values.argmax()))
                hit, control, chance = (float(best.accuracy.sel(task=task)) for task in TASKS)
                counts = f"{int(best.n_train)} tokens train, {int(best.n_test)} test"
                lines.append(
                    f"'{name}', split by {split}: at {best.site.item()}, the best of {len(v.site)} sites, {hit:.3f} on the labels, "
                    f"{control:.3f} on control tasks, {chance:.3f} on shuffled labels (majority {float(best.majority):.3f}); {counts}."
                )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Accuracy over depth with its interval, one panel a label set, one line a task and network; the first split."""
        frame = self.to_frame()
        frame = frame[frame["split"] == self.values["split"].values[0]].assign(line=lambda f: f["network"] + ", " + f["task"])
        panels = []
        for name, part in frame.dropna(subset=["accuracy"]).groupby("labels", sort=False):
            titles = {
                "title": f"Probing for '{name}'", "depth": "site, from the embedding up", "accuracy": "accuracy on held-out sentences",
                "line": "network, task", "reference": "majority",
            }  # fmt: skip
            bands = ("depth", "accuracy", "accuracy_low", "accuracy_high")
            panels.append(curve_with_band(part, *bands, colour="line", titles=titles, reference=float(part["majority"].iloc[0])))
        return panels[0] if len(panels) == 1 else joined(panels, "Probing over layers", columns=2)


INSTRUMENT = Instrument(
    name="probing",
    question="From which layer on can a linear map read a property, beyond what it could memorise of words?",
    spec=ProbingSpec,
    needs=Needs(reads=("tokens",), sites=("blocks.*.hook_resid_post",), inputs=("batch", "labels")),
    compute=compute,
    floors={"organism": "town", "null": "shuffled labels at the majority rate"},
)
