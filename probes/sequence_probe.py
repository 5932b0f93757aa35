"""Probing whole sequences: what can be read from anywhere in them, where a probe has to find the place itself.

At each site three readers are fitted to one label a sequence and scored on held-out sentence groups: an attention-pooled probe
(``probes.attention_probe``), a logistic probe on the mean of the tokens, and one on the last token. Beside them: the attention-pooled
probe on shuffled labels, an untrained network (``inputs.reference``), and a ridge probe on the bag of the words. A reader that looks
everywhere has more ways to be right by chance than one that looks at one token: read it against its own shuffled labels.

Source: attention-pooled probes: Kantamneni et al., Are Sparse Autoencoders Useful?, ICML 2025 (arXiv:2502.16681). Bags of words and
untrained networks as baselines: Conneau et al., What you can cram into a single vector, ACL 2018 (arXiv:1805.01070).
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

from probes import attention_probe, logistic
from probes.over_groups import Sampling, mean_over_groups
from probes.panels import joined
from probes.probe_labels import Split, Task, codes_tensor, held_out, make_splits, read_labels, sentence_groups, shuffled_codes
from probes.probing import networks_of, sites_of
from probes.target import device_of, model_dtype
from probes.token_items import TokenItems, origin, read_items, rows_a_pass, slices
from probes.word_baseline import word_baseline
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.core.spec import Spec
from workbench.core.stats.resampling import fewest

READERS = ("attention", "mean", "last")
COUNTS = ("n_train", "n_test", "majority", "classes")


class SequenceProbeSpec(Spec):
    """Where sequences are read, and how the attention-pooled probe is fitted."""

    sites: tuple[str, ...] = Field(default=("hook_embed", "blocks.*.hook_resid_post"), min_length=1, description="names or globs of sites")
    queries: int = Field(default=1, ge=1, le=64, description="places that the attention-pooled probe may look at separately")
    epochs: int = Field(default=30, ge=1, description="passes over the training sequences")
    strength: float = Field(default=1e-3, gt=0, description="penalty on the weights that read what was pooled")
    least: int = Field(default=5, ge=1, description="classes of fewer sequences are left out, and named")
    test_share: float = Field(default=0.3, gt=0, lt=1, description="share of sentence groups held out")
    draws: int = Field(default=2, ge=1, le=100, description="shuffles of the labels, averaged")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of split, first queries, order, shuffles and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    max_cells: int = Field(default=200_000_000, ge=1, description="numbers of features kept at most")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


@dataclass(frozen=True)
class Cell:
    """What one reader got right on the held-out sequences of one task: 0 or 1 on the labels, means over shuffles; and, where it attends,
    how many tokens it reads as one (exp of the attention's mean entropy)."""

    labels: np.ndarray
    shuffled: np.ndarray
    tokens_read: float = np.nan


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: SequenceProbeSpec, progress: Progress) -> SequenceProbeResult:
    """Fit and score all readers. Raises BadValue for inputs that cannot be meant, and EmptySelection for sites that are not there."""
    items = read_items(model, inputs, bos=spec.bos)
    networks, sites = networks_of(model, inputs, INSTRUMENT.name), sites_of(model, spec.sites)
    tasks = read_labels(items, inputs.labels, None, spec.least)
    for task in tasks:
        if not task.whole:
            raise BadValue(f"inputs.labels of '{task.name}'", "one a token", "one an item [batch]: a sequence is read as a whole",
                           do="For labels of tokens ask 'probing'.")  # fmt: skip
    groups = sentence_groups(items, inputs.groups)
    away = held_out(groups, spec.test_share, spec.seed, "different sentences or groups")
    splits = [make_splits(t, groups[t.where // items.width], away, new_types=False, fraction=spec.test_share, seed=spec.seed)[0]
              for t in tasks]  # fmt: skip
    cells: dict[tuple[str, str, str], dict[str, Cell]] = {}
    total = len(networks) * len(sites)
    for n, (name, network) in enumerate(networks.items()):
        kept = _features(network, items, sites, spec, len(networks))
        for s, site in enumerate(sites):
            for task, split in zip(tasks, splits, strict=True):
                cells[name, site.name, task.name] = _cells(kept[site.name], items, task, split, spec)
            progress(n * len(sites) + s + 1, total, "sites")
    words = [word_baseline(task, split, items, spec.strength) for task, split in zip(tasks, splits, strict=True)]
    untrained = networks["untrained"].digest() if "untrained" in networks else None
    data = {f"{part}.{t.name}": getattr(t, part) for t in tasks for part in ("where", "codes", "classes")}
    return SequenceProbeResult(
        kind=INSTRUMENT.name,
        values=_values(tasks, splits, groups, items, list(networks), [site.name for site in sites], cells, words, spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths, groups=groups,
                          untrained=untrained, **data),
        notes=_notes(tasks, splits, groups, items, networks, spec),
    )  # fmt: skip


def _features(
    network: HookedModel, items: TokenItems, sites: tuple[Site, ...], spec: SequenceProbeSpec, networks: int
) -> dict[str, Float[Tensor, "item pos feature"]]:
    """Every token's features at every site, float32."""
    found: dict[str, list[Tensor]] = {site.name: [] for site in sites}
    for part in slices(len(items), rows_a_pass(spec.tokens_a_pass, items.width)):
        trace = network.run(items.given(network, part, device_of(network)), capture=sites, logits=None)
        for site in sites:
            value = trace[site].detach().flatten(2).cpu().float()
            if (size := len(items) * items.width * value.shape[2] * len(sites) * networks) > spec.max_cells:
                raise BadValue("the size of the features", f"{size:,} numbers", f"at most max_cells = {spec.max_cells:,}",
                               do="Give fewer items or sites, or raise max_cells.")  # fmt: skip
            if not bool(torch.isfinite(value[items.real[part]]).all()):
                raise BadValue(f"the activation at '{site.name}'", "NaN or infinity", "finite numbers", do="The weights are broken.")
            found[site.name].append(value)
    return {name: torch.cat(rows) for name, rows in found.items()}


def _cells(x: Float[Tensor, "item pos feature"], items: TokenItems, task: Task, split: Split, spec: SequenceProbeSpec) -> dict[str, Cell]:
    """What each reader gets right of one task at one site."""
    rows = torch.from_numpy(task.where // items.width)
    x, real = x[rows], items.real[rows]
    codes = codes_tensor(np.concatenate([task.codes[:, None], shuffled_codes(task, spec.draws, spec.seed)], 1))
    train, test, classes = torch.from_numpy(split.train), torch.from_numpy(split.test), len(task.classes)
    said, attends = [], np.nan
    for number, y in enumerate(codes[train].T):
        probe = attention_probe.fit(
            x[train], real[train], y, classes, queries=spec.queries, strength=spec.strength, epochs=spec.epochs, seed=spec.seed
        )
        said.append(probe.scores(x[test], real[test]).argmax(-1))
        if number == 0:
            weights = probe.attention(x[test], real[test])
            attends = float(-(weights * weights.clamp_min(1e-30).log()).sum(1).mean(1).mean())
    out = {"attention": _cell(torch.stack(said, 1), codes[test], float(np.exp(attends)))}
    real = real[..., None]
    mean = x.masked_fill(~real, 0.0).sum(1) / real.sum(1)
    last = x[torch.arange(len(x)), items.lengths[rows] - 1]
    for name, vectors in (("mean", mean), ("last", last)):
        found = logistic.fit(vectors[train][None], codes[train], classes, strength=spec.strength)
        out[name] = _cell(found.scores(vectors[test][None])[0].argmax(-1), codes[test])
    return out


def _cell(said: Tensor, codes: Tensor, tokens_read: float = np.nan) -> Cell:
    """Right or wrong of each held-out sequence, each set of answers held against its own labels."""
    right = (said == codes).double().numpy()
    return Cell(right[:, 0], right[:, 1:].mean(1), tokens_read)


# --- scores ---------------------------------------------------------------------------------------------------


def _values(
    tasks: list[Task], splits: list[Split], groups: np.ndarray, items: TokenItems, networks: list[str], places: list[str],
    cells: dict[tuple[str, str, str], dict[str, Cell]], words: list[np.ndarray], spec: SequenceProbeSpec,
) -> xr.Dataset:  # fmt: skip
    how, shape = Sampling(spec.level, spec.resamples, spec.seed), (len(tasks), len(networks), len(places))
    accuracy, shuffled = np.full((3, len(READERS), *shape), np.nan), np.full((len(READERS), *shape), np.nan)
    gain, read, bag = np.full((3, *shape), np.nan), np.full(shape, np.nan), np.full((3, len(tasks)), np.nan)
    for t, (task, split) in enumerate(zip(tasks, splits, strict=True)):
        at = groups[task.where[split.test] // items.width]
        bounded = lambda right, least=0.0, at=at: mean_over_groups(right, at, how, (least, 1.0))  # noqa: E731
        bag[:, t] = bounded(words[t])
        for n, network in enumerate(networks):
            for i, place in enumerate(places):
                found = cells[network, place, task.name]
                for r, reader in enumerate(READERS):
                    accuracy[:, r, t, n, i] = bounded(found[reader].labels)
                    shuffled[r, t, n, i] = found[reader].shuffled.mean()
                gain[:, t, n, i] = bounded(found["attention"].labels - found["mean"].labels, -1.0)
                read[t, n, i] = found["attention"].tokens_read
    over = ("labels", "network", "site")
    out: dict[str, Any] = {"shuffled": (("reader", *over), shuffled), "tokens_read": (over, read), **_counts(tasks, splits)}
    for word, dims, values in (("accuracy", ("reader", *over), accuracy), ("gain", over, gain), ("words", over[:1], bag)):
        out |= {f"{word}{end}": (dims, values[k]) for k, end in enumerate(("", "_low", "_high"))}
    return xr.Dataset(
        out, coords={"reader": list(READERS), "labels": [t.name for t in tasks], "network": networks, "site": places,
                     "depth": ("site", np.arange(len(places)))},
    )  # fmt: skip


def _counts(tasks: list[Task], splits: list[Split]) -> dict[str, Any]:
    """How many sequences stand on each side, and what always answering the most frequent training label gives."""
    rows = []
    for task, split in zip(tasks, splits, strict=True):
        common = np.bincount(task.codes[split.train]).argmax()
        rows.append((split.train.sum(), split.test.sum(), (task.codes[split.test] == common).mean(), len(task.classes)))
    return {name: ("labels", np.array(column)) for name, column in zip(COUNTS, zip(*rows, strict=True), strict=True)}


def _notes(
    tasks: list[Task], splits: list[Split], groups: np.ndarray, items: TokenItems, networks: dict[str, HookedModel], spec: SequenceProbeSpec
) -> tuple[str, ...]:
    out = [] if "untrained" in networks else ["No untrained network was given: what the architecture alone gives away is not known here."]
    for task, split in zip(tasks, splits, strict=True):
        if task.rare:
            names = ", ".join(f"'{name}' ({count})" for name, count in task.rare)
            out.append(f"'{task.name}': left out are classes of fewer than {spec.least} sequences: {names}.")
        if (tested := len(np.unique(groups[task.where[split.test] // items.width]))) < fewest(spec.level):
            out.append(f"'{task.name}': {tested} sentence groups are tested, too few for an interval.")
        if unseen := set(task.codes[split.test]) - set(task.codes[split.train]):
            names = ", ".join(f"'{task.classes[code]}'" for code in sorted(unseen))
            out.append(f"'{task.name}': never trained on {names}, so those test sequences cannot be right.")
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SequenceProbeResult(Result):
    """By reader, label set, network and site ``accuracy`` with its interval and ``shuffled``; by label set, network and site ``gain``
    (attention less mean) and ``tokens_read``; by label set ``words`` and counts."""

    columns: ClassVar[tuple[str, ...]] = (
        "reader", "labels", "network", "site", "depth", *(f"{w}{e}" for w in ("accuracy", "gain", "words") for e in ("", "_low", "_high")),
        "shuffled", "tokens_read", *COUNTS,
    )  # fmt: skip

    def summary(self) -> str:
        """For each label set the site where the attention-pooled probe is right most often, beside the other readers."""
        lines = [f"{self.kind}:"]
        for name in self.values["labels"].values:
            v: Any = self.values.sel(labels=name, network="model")
            best = v.isel(site=int(v.accuracy.sel(reader="attention").values.argmax()))
            own, mean, last = (_told(best.sel(reader=reader)) for reader in READERS)
            lines.append(
                f"'{name}': at {best.site.item()}, the best of {len(v.site)} sites, {own} attending to {float(best.tokens_read):.1f} "
                f"tokens (shuffled labels {float(best.shuffled.sel(reader='attention')):.3f}), {mean} on the mean of all tokens, {last} on "
                f"the last; words alone {float(best.words):.3f}, majority {float(best.majority):.3f}; {int(best.n_train)} sequences train, "
                f"{int(best.n_test)} test."
            )
        return "\n".join([*lines, *self.notes])

    def plot(self) -> Any:
        """Accuracy over depth with its interval, one panel a label set, one line a network and reader."""
        frame: Any = self.to_frame()
        frame, panels = frame.assign(line=frame["network"] + ", " + frame["reader"]), []
        for name, part in frame.groupby("labels", sort=False):
            titles = {
                "title": f"Reading sequences for '{name}'", "depth": "site, from the embedding up", "line": "network, read from",
                "accuracy": "accuracy on held-out sequences", "reference": "majority",
            }  # fmt: skip
            bands = ("depth", "accuracy", "accuracy_low", "accuracy_high")
            panels.append(curve_with_band(part, *bands, colour="line", titles=titles, reference=float(part["majority"].iloc[0])))
        return panels[0] if len(panels) == 1 else joined(panels, "Reading sequences over layers", columns=2)


def _told(one: Any) -> str:
    value, low, high = (float(one[f"accuracy{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


INSTRUMENT = Instrument(
    name="sequence-probe",
    question="What can be read of a whole sequence, where the probe has to find the place that tells it?",
    spec=SequenceProbeSpec,
    needs=Needs(reads=("tokens",), sites=("blocks.*.hook_resid_post",), inputs=("batch", "labels"), whole=True),
    compute=compute,
)
