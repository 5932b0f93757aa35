"""The planted pronoun bias of the town's decoder, scrubbed from every layer, beside each layer alone and random projections.

    python benchmarks/town_scrubbing.py --seeds 0 1 2 [--where each] [--home assay-runs/scrubbing] [--json]

Each seed's decoder is trained where it is not kept (``organism:town@dose=0.8``; some minutes). Which way an occupation leans is erased by
LEACE, fitted to sentences on *validation* skeletons, all occupations on each: a skeleton says nothing of the lean. Printed:

1. ``erasure`` on other validation skeletons: what the best probe of any site still reads at the last token, the gap of the answer (logit of
   she less he, occupations that lean to she less those to he) with its null, and the price in nats and in perplexity, over held-out
   documents of all kinds and over those that have no pronoun;
2. on *test* skeletons, all 24 occupations: the measured dose (slope of P(she) on lean / 2, as ``occupation-pronoun`` measures it) with its
   interval, beside the slopes of leans dealt anew, and the clean twin's own;
3. on the same: the best probe of any site at the occupation and at each place after it.

``--where spread`` fits one eraser a site to all tokens of the sentences; ``each`` one for each position, on the sentences of one
template and its commonest length, one in twenty or so (the price is then that of those sentences).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.erasure import INSTRUMENT, ErasureSpec, erasers_of
from probes.erasure_result import EVERY, NOTHING, ErasureResult
from probes.erasure_runs import Erasers, erasing
from probes.ridge import Moments, one_hot, predicted
from probes.token_items import read_items, rows_a_pass, slices
from workbench.core.protocol import HookedModel, Inputs, silent
from workbench.core.stats.regression import slope
from workbench.data.worlds.town import Town
from workbench.data.worlds.town_items import PronounItem
from workbench.lab.inputs import LEAST_LEAN, occupation_spans, town_pronouns
from workbench.lab.refs import load
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store

SITES = ("blocks.0.hook_resid_pre", "blocks.*.hook_resid_post")
FIRST = SITES[0]
ASKED = {"sites": SITES, "where": "spread", "quantity": "logit-difference"}
"""What ``erasure`` is told."""
DEALT, TOKENS, TEMPLATE = 999, 16384, 9
PLACES: dict[str, int | None] = {"occupation": 0, "1 after it": 1, "2 after": 2, "3 after": 3, "4 after": 4, "last": None}
"""Where a probe reads: so many tokens after the occupation's last, or the last token, which says the pronoun."""
Numbers = dict[str, dict[str, Any]]


def leaning(model: HookedModel, items: Sequence[PronounItem], texts: Sequence[str] | None = None) -> Inputs:
    """Sentences whose occupation leans, labelled by which way; those of one skeleton are a group."""
    chosen = [item for item in items if abs(item.lean) >= LEAST_LEAN]
    labels = {"lean": ["she" if item.lean > 0 else "he" for item in chosen]}
    return replace(town_pronouns(model, chosen), labels=labels, groups=[item.skeleton for item in chosen], texts=texts)


def run(model: HookedModel, inputs: Inputs, erasers: Erasers, sites: Sequence[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
    """What is answered at each last token (logit of the target less the foil ``[item]``), and the sites ``[item, pos, d_model]``, with
    ``erasers`` at every token."""
    items, answers, found = read_items(model, inputs), [], {site: [] for site in sites}
    edits = [erasing(site, eraser) for site, eraser in erasers.items() if eraser.rank]
    target, foil = torch.as_tensor(inputs.targets), torch.as_tensor(inputs.foils)
    for part in slices(len(items), rows_a_pass(TOKENS, items.width)):
        trace = model.run(items.ids[part], capture=tuple(sites), edit=edits, logits="all")
        assert trace.logits is not None
        at = trace.logits[torch.arange(len(trace.logits)), items.lengths[part] - 1].double()
        answers.append(at.gather(1, target[part, None])[:, 0] - at.gather(1, foil[part, None])[:, 0])
        for site in sites:
            found[site].append(trace[site])
    return torch.cat(answers), {site: torch.cat(rows) for site, rows in found.items()}


@dataclass(frozen=True)
class Dose:
    """The slope of P(she) on lean / 2 over occupations with Student's interval, the size that 95 in 100 slopes stay under when leans are
    dealt anew, and the share of those, the true one among them, that are as large."""

    dose: float
    low: float
    high: float
    null: float
    p: float


def dose(model: HookedModel, items: Sequence[PronounItem], erasers: Erasers) -> Dose:
    """The measured dose with ``erasers`` at every token."""
    share = run(model, town_pronouns(model, items), erasers)[0].sigmoid().numpy()
    names = list(dict.fromkeys(item.occupation for item in items))
    of = np.array([names.index(item.occupation) for item in items])
    lean = np.array([next(item.lean for item in items if item.occupation == name) for name in names]) / 2
    measured = np.bincount(of, weights=share) / np.bincount(of)
    fit, draw = slope(lean, measured), np.random.default_rng(0)
    dealt = np.abs([slope(draw.permutation(lean), measured).slope for _ in range(DEALT)])
    p = float((1 + (dealt >= abs(fit.slope)).sum()) / (1 + DEALT))
    return Dose(fit.slope, fit.interval.low, fit.interval.high, float(np.quantile(dealt, 0.95)), p)


def read(model: HookedModel, items: Sequence[PronounItem], erasers: Erasers) -> dict[str, tuple[float, float]]:
    """By place, the best accuracy of any site's ridge probe: of which way the occupation leans, and of the same dealt anew within each
    skeleton. Fitted on half of the skeletons, tested on the others."""
    inputs = leaning(model, items)
    sites = [site.name for site in model.sites().select(SITES)]
    vectors = run(model, inputs, erasers, sites)[1]
    ends = torch.tensor([end - 1 for _, end in occupation_spans(model, [i for i in items if abs(i.lean) >= LEAST_LEAN])])
    skeletons = np.asarray(inputs.groups)
    assert isinstance(inputs.labels, Mapping)
    assert inputs.lengths is not None
    true = torch.tensor([label == "she" for label in inputs.labels["lean"]]).long()
    rng = np.random.default_rng(0)
    order = np.lexsort((rng.random(len(skeletons)), skeletons))
    dealt = torch.empty_like(true)
    dealt[np.argsort(skeletons, kind="stable")] = true[order]
    codes, train = torch.stack([true, dealt], 1), torch.from_numpy(np.unique(skeletons, return_inverse=True)[1] % 2 == 0)
    out = {}
    for place, after in PLACES.items():
        at = inputs.lengths - 1 if after is None else ends + after
        right = []
        for site in sites:
            x, sums = vectors[site][torch.arange(len(at)), at], Moments()
            sums.add(x[train], one_hot(codes[train], 2))
            said = predicted(sums.solve(1e-3).scores(x[~train]), 2)
            right.append((said == codes[~train]).double().mean(0))
        best = torch.stack(right).amax(0)
        out[place] = float(best[0]), float(best[1])
    return out


# --- one seed -----------------------------------------------------------------------------------------------------


def alike(model: HookedModel, items: Sequence[PronounItem], wanted: int = 0) -> list[PronounItem]:
    """The sentences of template ``TEMPLATE`` and of ``wanted`` tokens (0: the commonest length), of skeletons that have so many under every
    occupation: then each position has one part in all of them."""
    items = [item for item in items if item.template == TEMPLATE]
    lengths, by_skeleton = town_pronouns(model, items).lengths, {}
    assert lengths is not None
    for item, length in zip(items, lengths.tolist(), strict=True):
        by_skeleton.setdefault(item.skeleton, set()).add(length)
    even = {skeleton: min(found) for skeleton, found in by_skeleton.items() if len(found) == 1}
    length = wanted or Counter(even.values()).most_common(1)[0][0]
    return [item for item in items if even.get(item.skeleton) == length]


def erased(
    model: HookedModel, items: Sequence[PronounItem], prices: Mapping[str, list[str] | None], spec: ErasureSpec
) -> tuple[Numbers, str]:
    """What ``erasure`` tells of each version, and the site that hides most when it is erased alone."""
    found: dict[str, ErasureResult] = {}
    for name, texts in prices.items():
        result = INSTRUMENT(model, leaning(model, items, texts), spec, progress=silent)
        assert isinstance(result, ErasureResult)
        found[name] = result
    v, out = found[""].values, {}
    for version in (*v.erased.values.tolist(), "random"):
        at = v.sel(who="random", erased=EVERY) if version == "random" else v.sel(who="erased", erased=version)
        rest = [one.values.sel(who=at.who.item(), erased=at.erased.item()) for name, one in found.items() if name]
        top = at.isel(site=int(at.accuracy.values.argmax()))
        out[version] = {
            **{f"{a}{end}": float(top[f"{a}{end}"]) for a in ("accuracy", "gap", "loss_change") for end in ("", "_low", "_high")},
            "read at": top.site.item(), "gap_null": float(at.gap_null), "gap_p": float(at.gap_p), "rank": at["rank"].values.tolist(),
            "perplexity": float(np.exp(float(v.loss) + float(at.loss_change))), "without": float(rest[0].loss_change) if rest else np.nan,
            "n_fit": int(v.n_fit), "n_probe": int(v.n_probe), "n_test": int(v.n_test),
        }  # fmt: skip
    return out, found[""].best_alone


@dataclass(frozen=True)
class Setting:
    """How many skeletons erasers and probes are fitted and tested on, how many held-out documents are the price, where erasers are fitted
    and applied, and how many sets of random projections there are."""

    contexts: int
    documents: int
    where: str
    randoms: int


def one(seed: int, setting: Setting, store: Store) -> dict[str, Any]:
    """All numbers of one seed."""
    made: Any = ORGANISMS.load("town").configure({"dose": 0.8, "seed": seed})
    town, model = Town(made.world), load(f"organism:town@dose=0.8,seed={seed}", store=store)
    spec = ErasureSpec.parse({**ASKED, "where": setting.where, "randoms": setting.randoms})
    items, tested = town.pronoun_items("validation", per_occupation=setting.contexts), town.pronoun_items("test", per_occupation=40)
    prices: dict[str, list[str] | None] = {"": None}
    if setting.where == "each":
        items = alike(model, items)
        length = town_pronouns(model, items).batch.shape[1]
        tested = alike(model, town.pronoun_items("test", per_occupation=setting.contexts), length)
    else:
        kinds = [(d.kind, d.text) for d in town.documents(split="validation")]
        prices = {"": [text for _, text in kinds][: setting.documents],
                  "without": [text for kind, text in kinds if kind != "pronoun"][: setting.documents]}  # fmt: skip
    versions, best = erased(model, items, prices, spec)
    plans = erasers_of(model, leaning(model, items), spec)
    shown = {name: plans[name] for name in (NOTHING, FIRST, best, EVERY)}
    doses = {name: asdict(dose(model, tested, plan)) for name, plan in shown.items()}
    doses["clean twin"] = asdict(dose(load(f"organism:town@planted=false,seed={seed}", store=store), tested, {}))
    places = {name: read(model, tested, plan) for name, plan in shown.items()}
    return {"seed": seed, "best alone": best, "versions": versions, "doses": doses, "places": places}


def told(found: dict[str, Any]) -> str:
    """The tables of one seed."""
    bounds = lambda d, a, form: f"{d[a]:{form}} [{d[f'{a}_low']:{form}}, {d[f'{a}_high']:{form}}]"  # noqa: E731
    head = found["versions"][NOTHING]
    lines = [
        f"seed {found['seed']}: {head['n_fit']} tokens fit the erasers, {head['n_probe']} sentences the probes, {head['n_test']} test",
        "| erased | best probe | at | gap, logits | null | p | loss, nats | perplexity | loss without pronouns |", "|---" * 9 + "|",
    ]  # fmt: skip
    for name, row in found["versions"].items():
        null = "" if name == "random" else f"{row['gap_null']:.2f} | {row['gap_p']:.3f}"
        lines.append(
            f"| {name} | {bounds(row, 'accuracy', '.3f')} | {row['read at']} | {bounds(row, 'gap', '+.2f')} | {null or ' | '} | "
            f"{bounds(row, 'loss_change', '+.4f')} | {row['perplexity']:.3f} | {row['without']:+.4f} |"
        )
    lines += ["", "| erased | measured dose | dealt leans | p |", "|---" * 4 + "|"]
    for name, row in found["doses"].items():
        lines.append(f"| {name} | {row['dose']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] | {row['null']:.3f} | {row['p']:.3f} |")
    lines += ["", f"| best probe, dealt beside it | {' | '.join(PLACES)} |", "|---" * (1 + len(PLACES)) + "|"]
    for name, row in found["places"].items():
        lines.append(f"| {name} | {' | '.join(f'{own:.3f}, {dealt:.3f}' for own, dealt in row.values())} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The planted pronoun bias, scrubbed.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--contexts", type=int, default=100, help="skeletons that erasers and probes are fitted and tested on")
    parser.add_argument("--documents", type=int, default=400, help="held-out documents whose loss is the price")
    parser.add_argument("--randoms", type=int, default=10, help="sets of random projections")
    parser.add_argument("--where", choices=["spread", "each"], default="spread", help="one eraser a site, or one for each position")
    parser.add_argument("--home", default="", help="where models are kept; '' is the environment's home")
    parser.add_argument("--json", action="store_true", help="one JSON line a seed besides")
    given = parser.parse_args()
    torch.set_num_threads(1)
    store = Store.open(given.home) if given.home else Store.open()
    for seed in given.seeds:
        found = one(seed, Setting(given.contexts, given.documents, given.where, given.randoms), store)
        print(told(found), flush=True)
        if given.json:
            print(json.dumps(found), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
