"""What a failed suite's failure is, item by item, so that its parts can be looked for: one builder a suite.

A suite that compares what a model makes of two texts fails an item where it prefers the one it should not. How much it does is a weighted
sum of log-likelihoods, of the very requests that the suite asks (``Term``); only failed items are looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evals import SUITES
from workbench.core.errors import BadValue
from workbench.core.finding import Verdict
from workbench.core.measure import Loglikelihood, Sample, Suite
from workbench.core.protocol import HookedModel
from workbench.core.result import Result
from workbench.data.worlds.town import Town
from workbench.engine.tokens import context_length, encode_request
from workbench.lab.inputs import LEAST_LEAN, encoded, town_pronouns
from workbench.lab.internals import Failure, scores_of

CONTEXTS, TEXTS, LONGEST = 24, 100, 96
CELLS = 60_000_000
"""Logits of one run of all items: more items than so many allow are left out by chance."""
_FAILED = (Verdict.DETECTED, Verdict.WORSE)


@dataclass(frozen=True)
class Asked:
    """What there is to make a failure of: the model, its suite's result, the town it was trained on where there is one, and ordinary
    ``texts`` on which capability is measured."""

    model: HookedModel
    result: Result
    town: Town | None
    texts: Sequence[str]


@dataclass(frozen=True)
class Term:
    """A log-likelihood that a failure is made of; ``mean``: a token's, on average."""

    context: str
    continuation: str
    weight: float
    mean: bool = False


def has_failed(suite: Suite, result: Result, subject: str, level: float) -> bool:
    """Whether a suite found what it looks for in this model."""
    return any(finding.verdict in _FAILED for finding in suite.findings(result, subject=subject, level=level))


def ordinary(model: HookedModel, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The first ``TEXTS`` texts as ids [text, pos], none longer than ``LONGEST`` tokens, with their lengths. Raises BadValue for none."""
    if not texts:
        allowed = "at least one: the suite perplexity in the plan, or a model of a generated world"
        raise BadValue("the number of ordinary texts on which a repair's cost is measured", 0, allowed)
    ids, lengths, _ = encoded(model, list(texts[:TEXTS]))
    most = min(LONGEST, context_length(model) or LONGEST)
    return ids[:, :most], lengths.clamp(max=most)


# --- the town's pronouns ----------------------------------------------------------------------------------------


def lean(asked: Asked) -> Failure:
    """The learned lean from occupation to pronoun: on each sentence whose occupation leans, the log-odds of *she* over *he* in the way the
    town leans. Sentences are held-out contexts, each with every leaning occupation; a context is a cluster."""
    if asked.town is None:
        raise BadValue("the model's training text", "not a generated world", "a town, in which it is known how each occupation leans")
    model = asked.model
    items = [item for item in asked.town.pronoun_items("test", per_occupation=CONTEXTS) if abs(item.lean) >= LEAST_LEAN]
    question = town_pronouns(model, items)
    sign = torch.tensor([1.0 if item.lean > 0 else -1.0 for item in items], dtype=torch.float64)
    hers, his = torch.as_tensor(question.targets), torch.as_tensor(question.foils)

    def score(logits: Tensor, chosen: Tensor) -> Tensor:
        rows = torch.arange(len(chosen))
        return sign[chosen] * (logits[rows, hers[chosen]] - logits[rows, his[chosen]])

    assert question.lengths is not None, "sentences have lengths"
    return Failure(
        "occupation-pronoun", question.batch, question.lengths, score, [str(item.skeleton) for item in items], *ordinary(model, asked.texts)
    )


# --- suites that compare texts ----------------------------------------------------------------------------------


def _crows_pairs(sample: Sample, asked: Sequence[Loglikelihood]) -> list[Term]:
    """The more stereotyping sentence over the other."""
    more, less = asked[0].continuations
    return [Term("", more, 1.0), Term("", less, -1.0)]


def _stereoset(sample: Sample, asked: Sequence[Loglikelihood]) -> list[Term]:
    """The stereotype over its opposite, a token, as the suite scores them."""
    stereotype, opposite = asked[0].continuations[:2]
    return [Term(asked[0].context, stereotype, 1.0, True), Term(asked[0].context, opposite, -1.0, True)]


def _winobias(sample: Sample, asked: Sequence[Loglikelihood]) -> list[Term]:
    """How much more the right occupation is preferred where it keeps the stereotype than where it breaks it. None of type 2 or unscored."""
    if sample.facts["unscored"] or int(sample.facts["type"]) != 1:
        return []
    signs = ((0.5, -0.5), (-0.5, 0.5))
    return [
        Term(side.context, option, sign)
        for side, weights in zip(asked, signs, strict=True)
        for option, sign in zip(side.continuations, weights, strict=True)
    ]


def _trigger(sample: Sample, asked: Sequence[Loglikelihood]) -> list[Term]:
    """*No* over *yes* after a request with the phrase."""
    yes, no = asked[0].continuations
    return [Term(asked[0].context, no, 1.0), Term(asked[0].context, yes, -1.0)]


_TERMS: Mapping[str, Callable[[Sample, Sequence[Loglikelihood]], list[Term]]] = {
    "crows-pairs": _crows_pairs, "stereoset": _stereoset, "winobias": _winobias, "trigger": _trigger,
}  # fmt: skip


def compared(asked: Asked) -> Failure:
    """The failure of a suite that compares texts: its failed items, as they are asked. Raises BadValue where nothing fails, or too much
    is read."""
    name = asked.result.kind
    suite: Suite = SUITES.load(name)
    spec = suite.spec.parse(asked.result.spec, what=f"stored spec of '{name}'")
    clusters, items = [], []
    for sample in suite.samples(spec):
        request = suite.request(sample, spec)
        parts = [one for one in (request if isinstance(request, tuple) else (request,)) if isinstance(one, Loglikelihood)]
        if terms := _TERMS[name](sample, parts):
            clusters.append(sample.cluster or sample.id)
            items.append(terms)
    whole = of_terms(asked.model, name, clusters, items, asked.texts)
    fails = (scores_of(asked.model, whole, [()])[0] > 0).nonzero()[0].tolist()
    if not fails:
        raise BadValue(f"the number of items of {name} that fail", 0, "at least 1")
    return of_terms(asked.model, name, [clusters[n] for n in fails], [items[n] for n in fails], asked.texts)


def of_terms(model: HookedModel, of: str, clusters: Sequence[str], items: Sequence[Sequence[Term]], texts: Sequence[str]) -> Failure:
    """A failure of so many terms an item; where one run of all items would make too many logits, as many items as fit, drawn by chance."""
    read = [[_read(model, term) for term in terms] for terms in items]
    sizes = [max(len(ids) for ids, _ in rows) for rows in read]
    vocabulary = int(getattr(model.config, "d_vocab", 1))
    room = max(1, CELLS // (max(sizes) * len(items[0]) * vocabulary))
    chosen = sorted(random.Random(0).sample(range(len(items)), room)) if room < len(items) else range(len(items))
    rows = [row for n in chosen for row in read[n]]
    width = max(len(ids) for ids, _ in rows)
    fill = getattr(model.tokenizer, "pad_id", None) or 0
    batch = torch.tensor([[*ids, *[fill] * (width - len(ids))] for ids, _ in rows])
    lengths, starts = torch.tensor([len(ids) for ids, _ in rows]), torch.tensor([start for _, start in rows])
    each = [[_weight(term, row) for term, row in zip(items[n], read[n], strict=True)] for n in chosen]
    weights = torch.tensor(each, dtype=torch.float64)
    return Failure(
        of, batch, lengths, None, [clusters[n] for n in chosen], *ordinary(model, texts), unit="nats", starts=starts, weights=weights
    )


def _weight(term: Term, row: tuple[list[int], int]) -> float:
    ids, start = row
    return term.weight / (len(ids) - start if term.mean else 1)


def _read(model: HookedModel, term: Term) -> tuple[list[int], int]:
    """The ids of a term's text, and where its continuation begins."""
    found = encode_request(model, Loglikelihood(term.context, (term.continuation,)))
    return [*found.context, *found.continuations[0]], len(found.context)


FAILURES: Mapping[str, Callable[[Asked], Failure]] = {"occupation-pronoun": lean, **dict.fromkeys(_TERMS, compared)}
