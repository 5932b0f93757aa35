"""Structural probe: is there a linear map after which squared distances between words are their distances in the parse tree?

    minimise over B:  mean over sentences of  1 / s^2 * sum_ij | d_tree(i, j) - || B (h_i - h_j) ||^2 |

for sentences of s words. On held-out sentences the minimum spanning tree of the predicted distances is compared with the parse (UUAS: the
share of its edges that are there, directions aside), and predicted distances with true ones by rank (distance Spearman, the mean over the
words of sentences of 5 to 50 words). A chain of neighbours is the floor: many edges of a parse join words that stand side by side.

Source: Hewitt and Manning, A Structural Probe for Finding Syntax in Word Representations, NAACL 2019 (N19-1419), sections 2 and 3. There
the Spearman is averaged within each length first; here every sentence counts alike, so that sentences can be resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import rankdata
from torch import Tensor

from probes.probe_labels import LabelSet, held_out, sentence_groups
from probes.probing import networks_of, sites_of
from probes.target import device_of, model_dtype
from probes.token_items import TokenItems, origin, read_items, rows_a_pass, slices
from workbench.core.batch import IGNORE
from workbench.core.charts.lines import curve_with_band
from workbench.core.errors import BadValue
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import HookedModel, Inputs, Progress
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.core.stats.resampling import bootstrap, fewest

LEAST, BATCH, RATE = 3, 32, 1e-2
RANKED = (5, 50)
"""Words of a sentence that is ranked."""


class StructuralProbeSpec(Spec):
    """Where trees are read from, and how the map is fitted."""

    sites: tuple[str, ...] = Field(default=("hook_embed", "blocks.*.hook_resid_post"), min_length=1, description="names or globs of sites")
    rank: int = Field(default=32, ge=1, description="rows of the map, at most the features")
    epochs: int = Field(default=30, ge=1, description="passes over the training sentences")
    test_share: float = Field(default=0.3, gt=0, lt=1, description="share of sentence groups held out")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    resamples: int = Field(default=1000, ge=400, description="bootstrap resamples of sentence groups")
    seed: int = Field(default=0, ge=0, description="seed of split, first map, order and bootstrap")
    bos: bool = Field(default=True, description="put a BOS before text (ids are taken as they are)")
    tokens_a_pass: int = Field(default=16384, ge=1, description="tokens in one forward pass at most")


@dataclass(frozen=True)
class Tree:
    """One sentence: the positions of its words, and how many edges lie between each two of them."""

    row: int
    places: np.ndarray
    apart: np.ndarray

    @property
    def edges(self) -> set[tuple[int, int]]:
        return {(int(a), int(b)) for a, b in zip(*np.nonzero(np.triu(self.apart == 1)), strict=True)}


def trees_of(items: TokenItems, labels: Any) -> tuple[list[Tree], int]:
    """The sentences with a tree, and how many have too few words. ``labels`` ``[batch, pos]`` names for each word the position of the word
    it depends on (itself: the root); IGNORE where no word is. Raises BadValue for what is no tree."""
    values = labels.values if isinstance(labels, LabelSet) else labels
    heads = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    shape = tuple(items.ids.shape)
    if heads.shape != shape or heads.dtype.kind not in "iu":
        raise BadValue("inputs.labels", f"{heads.dtype} of shape {heads.shape}", f"integers {shape}: the position each word depends on",
                       do="At the command line `--set inputs.labels=ud-english-ewt` gives them.")  # fmt: skip
    out, short = [], 0
    for row in range(shape[0]):
        places = np.flatnonzero(heads[row] != IGNORE)
        if len(places) and places[-1] >= int(items.lengths[row]):
            raise BadValue(f"the tree of item {row}", "a word at padding", "of real tokens")
        if len(places) < LEAST:
            short += 1
            continue
        out.append(Tree(row, places, _apart(row, places, heads[row])))
    if not out:
        raise BadValue("inputs.labels", f"no sentence of at least {LEAST} words", "at least two such sentences")
    return out, short


def _apart(row: int, places: np.ndarray, heads: np.ndarray) -> np.ndarray:
    n, number = len(places), {int(place): i for i, place in enumerate(places)}
    far = np.full((n, n), np.inf)
    np.fill_diagonal(far, 0)
    roots = 0
    for i, place in enumerate(places):
        head = number.get(int(heads[place]))
        if head is None:
            raise BadValue(
                f"the tree of item {row}", f"a word at {place} that depends on position {int(heads[place])}, where no word is", "a tree"
            )
        roots += head == i
        far[i, head] = far[head, i] = min(far[i, head], 0 if head == i else 1)
    for k in range(n):
        far = np.minimum(far, far[:, k, None] + far[None, k])
    if roots != 1 or not np.isfinite(far).all():
        raise BadValue(
            f"the tree of item {row}", f"{roots} roots, {'' if np.isfinite(far).all() else 'not '}connected", "a tree with one root"
        )
    return far


# --- compute ------------------------------------------------------------------------------------------------


def compute(model: HookedModel, inputs: Inputs, spec: StructuralProbeSpec, progress: Progress) -> StructuralProbeResult:
    """Fit a map at every site and score it on held-out sentences."""
    items = read_items(model, inputs, bos=spec.bos)
    networks, sites = networks_of(model, inputs, INSTRUMENT.name), sites_of(model, spec.sites)
    trees, short = trees_of(items, inputs.labels)
    groups = sentence_groups(items, inputs.groups)
    away = held_out(groups[[tree.row for tree in trees]], spec.test_share, spec.seed, "different sentences with trees")
    train = [tree for tree in trees if groups[tree.row] not in away]
    test = [tree for tree in trees if groups[tree.row] in away]
    found: dict[tuple[str, str], list[Tensor]] = {}
    for part in slices(len(items), rows_a_pass(spec.tokens_a_pass, items.width)):
        for name, network in networks.items():
            trace = network.run(items.given(network, part, device_of(network)), capture=sites, logits=None)
            for site in sites:
                value = trace[site].detach().flatten(2).cpu().float()
                if not bool(torch.isfinite(value[items.real[part]]).all()):
                    raise BadValue(f"the activation at '{site.name}'", "NaN or infinity", "finite numbers", do="The weights are broken.")
                for tree in trees:
                    if part.start <= tree.row < part.stop:
                        found.setdefault((name, site.name), []).append(value[tree.row - part.start, torch.from_numpy(tree.places)])
        progress(part.stop, len(items), "items")
    scores = {}
    rows = {tree.row: number for number, tree in enumerate(trees)}
    for place, words in found.items():
        probe = fit([words[rows[t.row]] for t in train], train, rank=spec.rank, epochs=spec.epochs, seed=spec.seed)
        scores[place] = [scored(distances(words[rows[t.row]], probe).numpy(), t) for t in test]
    chain = [scored(np.abs(np.subtract.outer(np.arange(len(t.places)), np.arange(len(t.places)))).astype(float), t) for t in test]
    at = groups[[tree.row for tree in test]]
    heads = inputs.labels.values if isinstance(inputs.labels, LabelSet) else inputs.labels
    untrained = networks["untrained"].digest() if "untrained" in networks else None
    return StructuralProbeResult(
        kind=INSTRUMENT.name,
        values=_values(list(networks), [site.name for site in sites], scores, chain, at, (len(train), len(test), short), spec),
        spec=spec.model_dump(mode="json"),
        provenance=origin(model, seed=spec.seed, dtype=model_dtype(model), ids=items.ids, lengths=items.lengths, groups=groups,
                          untrained=untrained, heads=torch.as_tensor(heads)),
        notes=_notes(networks, len(np.unique(at)), short, spec),
    )  # fmt: skip


def fit(words: list[Tensor], trees: list[Tree], *, rank: int, epochs: int, seed: int) -> Float[Tensor, "feature rank"]:
    """The map, by Adam from a small random one; features share one scale, so that the rate means the same at every site."""
    generator = torch.Generator().manual_seed(seed)
    features = words[0].shape[1]
    spread = torch.cat(words).std(0, correction=0).square().mean().sqrt().clamp_min(1e-12)
    probe = (torch.randn(features, min(rank, features), generator=generator) / features**0.5).requires_grad_()
    optimizer = torch.optim.Adam([probe], lr=RATE)
    for _ in range(epochs):
        for numbers in torch.randperm(len(words), generator=generator).split(BATCH):
            chosen = numbers.tolist()
            with torch.enable_grad():
                losses = []
                for number in chosen:
                    true = torch.from_numpy(trees[number].apart).float()
                    losses.append((true - distances(words[number] / spread, probe)).abs().mean())
                loss = torch.stack(losses).mean()
                (slope,) = torch.autograd.grad(loss, probe)
            probe.grad = slope
            optimizer.step()
    return probe.detach() / spread


def distances(words: Float[Tensor, "word feature"], probe: Float[Tensor, "feature rank"]) -> Float[Tensor, "word word"]:
    """Squared distances after the map."""
    z = words @ probe
    return (z[:, None] - z[None]).square().sum(-1)


def scored(predicted: np.ndarray, tree: Tree) -> tuple[int, int, float]:
    """Edges of the minimum spanning tree that are in the parse, edges of the parse, and the mean rank correlation of each word's distances
    (NaN for sentences that are not ranked)."""
    n = len(tree.places)
    spanning = minimum_spanning_tree(np.triu(predicted + 1e-9, 1)).tocoo()
    right = len({(min(a, b), max(a, b)) for a, b in zip(spanning.row.tolist(), spanning.col.tolist(), strict=True)} & tree.edges)
    if not RANKED[0] <= n <= RANKED[1]:
        return right, n - 1, np.nan
    keep = ~np.eye(n, dtype=bool)
    a, b = (rankdata(d[keep].reshape(n, n - 1), axis=1) for d in (predicted, tree.apart))
    a, b = (one - one.mean(1, keepdims=True) for one in (a, b))
    spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return right, n - 1, float(np.mean(np.divide((a * b).sum(1), spread, out=np.zeros(n), where=spread > 0)))


def _values(
    networks: list[str], sites: list[str], scores: dict[tuple[str, str], list[tuple[int, int, float]]], chain: list[tuple[int, int, float]],
    groups: np.ndarray, counts: tuple[int, int, int], spec: StructuralProbeSpec,
) -> xr.Dataset:  # fmt: skip
    shape = (3, len(networks), len(sites))
    edges, ranks = np.full(shape, np.nan), np.full(shape, np.nan)
    for n, network in enumerate(networks):
        for i, site in enumerate(sites):
            edges[:, n, i], ranks[:, n, i] = _mean(scores[network, site], groups, spec)
    floor, floor_ranks = _mean(chain, groups, spec)
    dims = ("network", "site")
    named = {
        f"{word}{end}": (dims, found[k])
        for word, found in (("uuas", edges), ("spearman", ranks))
        for k, end in enumerate(("", "_low", "_high"))
    }
    alone = {"chain_uuas": floor[0], "chain_spearman": floor_ranks[0], "n_train": counts[0], "n_test": counts[1], "excluded": counts[2]}
    return xr.Dataset(
        {**named, **{name: ((), value) for name, value in alone.items()}},
        coords={"network": networks, "site": sites, "depth": ("site", np.arange(len(sites)))},
    )


def _mean(scores: list[tuple[int, int, float]], groups: np.ndarray, spec: StructuralProbeSpec) -> tuple[list[float], list[float]]:
    """Share of edges and mean rank correlation with their intervals, sentence groups being resampled whole."""
    whole = np.array(scores, dtype=float)
    share, ranked = whole[:, 0].sum() / whole[:, 1].sum(), ~np.isnan(whole[:, 2])
    few: dict[str, Any] = {"level": spec.level, "draws": spec.resamples, "seed": spec.seed}
    out = [[float(share), np.nan, np.nan], [float(whole[ranked, 2].mean()) if ranked.any() else np.nan, np.nan, np.nan]]
    if len(np.unique(groups)) >= fewest(spec.level):
        edges = whole[:, 1].astype(int)
        each = np.concatenate([np.arange(n) < right for right, n in zip(whole[:, 0], edges, strict=True)]).astype(float)
        found = bootstrap(each, clusters=np.repeat(groups, edges), bounds=(0.0, 1.0), **few)
        out[0][1:] = [found.interval.low, found.interval.high]
    if len(np.unique(groups[ranked])) >= fewest(spec.level):
        found = bootstrap(whole[ranked, 2], clusters=groups[ranked], bounds=(-1.0, 1.0), **few)
        out[1][1:] = [found.interval.low, found.interval.high]
    return out[0], out[1]


def _notes(networks: dict[str, HookedModel], tested: int, short: int, spec: StructuralProbeSpec) -> tuple[str, ...]:
    out = [] if "untrained" in networks else ["No untrained network was given: what the architecture alone gives away is not known here."]
    if short:
        out.append(f"{short} items have no tree of at least {LEAST} words and are left out.")
    if tested < fewest(spec.level):
        out.append(f"{tested} sentence groups are tested, too few for an interval.")
    return tuple(out)


# --- result and plot ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StructuralProbeResult(Result):
    """``uuas`` and ``spearman`` with intervals by network and site, beside a chain of neighbours (``chain_uuas``, ``chain_spearman``);
    ``n_train`` and ``n_test`` sentences; ``excluded`` items."""

    columns: ClassVar[tuple[str, ...]] = (
        "network", "site", "depth", "uuas", "uuas_low", "uuas_high", "spearman", "spearman_low", "spearman_high", "chain_uuas",
        "chain_spearman", "n_train", "n_test", "excluded",
    )  # fmt: skip

    def summary(self) -> str:
        """The site whose distances are most the tree's, beside the chain."""
        v: Any = self.values.sel(network="model")
        best = v.isel(site=int(v.uuas.values.argmax()))
        words = (
            f"{self.kind}: at {best.site.item()}, the best of {len(v.site)} sites, {float(best.uuas):.3f} of the edges "
            f"(a chain of neighbours {float(best.chain_uuas):.3f}), rank correlation {float(best.spearman):.3f} "
            f"({float(best.chain_spearman):.3f}); {int(best.n_train)} sentences train, {int(best.n_test)} test."
        )
        return "\n".join([words, *self.notes])

    def plot(self) -> Any:
        """UUAS over depth with its interval, one line a network, and the chain."""
        titles = {
            "title": "Structural probe", "depth": "site, from the embedding up", "uuas": "share of edges found", "network": "network",
            "reference": "a chain of neighbours",
        }  # fmt: skip
        frame = self.to_frame()
        floor = float(self.values.chain_uuas)
        return curve_with_band(frame, "depth", "uuas", "uuas_low", "uuas_high", colour="network", titles=titles, reference=floor)


INSTRUMENT = Instrument(
    name="structural-probe",
    question="Are words as far apart as in their sentence's parse tree, after a linear map?",
    spec=StructuralProbeSpec,
    needs=Needs(reads=("tokens",), sites=("blocks.*.hook_resid_post",), inputs=("batch", "labels"), trees=True),
    compute=compute,
    floors={"null": "a chain of neighbours"},
)
