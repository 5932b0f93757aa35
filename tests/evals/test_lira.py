"""LiRA: texts told from one another's ease cancels, a planted membership is found and none is not; a slow twin; what does not fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evals.lira import likelihood_ratio, log_odds, offline
from evals.metrics import mean_logprob
from tests.evals.test_contract import WORLD
from workbench.core.errors import BadValue
from workbench.core.measure import Loglikelihood
from workbench.core.stats.counts import rank_auc
from workbench.data.text import BPETokenizer, PackedRows
from workbench.data.worlds.town import Town
from workbench.engine.score import loglikelihoods
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def world(effect: float, shadows: int = 8, texts: int = 400, seed: int = 0) -> Arrays:
    """Texts whose ease differs by 2 (in log-odds), models that differ by 0.5, and members that are ``effect`` easier to those who read
    them."""
    by = np.random.default_rng(seed)
    ease = by.normal(0, 2, texts)
    read = by.random((shadows + 1, texts)) < 0.5
    odds = ease + effect * read + by.normal(0, 0.5, read.shape)
    logprob = -np.log1p(np.exp(-odds))
    return logprob[0], logprob[1:], read[1:], read[0]


def area(score: np.ndarray, member: np.ndarray) -> float:
    kept = np.isfinite(score)
    return rank_auc(score[kept & member], score[kept & ~member]).value


def test_a_planted_membership_is_found_where_the_loss_alone_finds_little() -> None:
    target, shadows, read, member = world(1.0)
    assert area(target, member) < 0.7  # what makes a text easy decides the loss
    assert area(likelihood_ratio(target, shadows, read), member) > 0.85
    nothing = [area(likelihood_ratio(*world(0.0, seed=seed)[:3]), world(0.0, seed=seed)[3]) for seed in range(6)]
    assert np.mean(nothing) == pytest.approx(0.5, abs=0.03)


def test_shadows_that_read_nothing_tell_less_and_more_shadows_tell_more() -> None:
    target, shadows, read, member = world(1.0, shadows=16)
    none = shadows.copy()
    none[read] = -np.log1p(np.exp(-(np.log(np.expm1(-none[read]) ** -1) - 1.0)))  # the same models, had they not read the texts
    whole = area(likelihood_ratio(target, shadows, read), member)
    assert 0.8 < area(offline(target, none), member) <= whole + 0.02
    assert area(likelihood_ratio(target, shadows[:4], read[:4]), member) < whole


def test_scores_are_those_of_a_slow_count() -> None:
    target, shadows, read, _ = world(1.0, shadows=6, texts=30)
    phi = lambda x: math.log(math.exp(x) / (1 - math.exp(x)))  # noqa: E731
    rest: dict[bool, list[float]] = {True: [], False: []}
    mean: dict[tuple[bool, int], float] = {}
    free = {True: 0, False: 0}
    for side in (True, False):
        for t in range(30):
            own = [phi(shadows[s, t]) for s in range(6) if read[s, t] == side]
            if own:
                mean[side, t] = sum(own) / len(own)
                rest[side] += [one - mean[side, t] for one in own]
                free[side] += len(own) - 1
    found = likelihood_ratio(target, shadows, read)
    for t in range(30):
        if (True, t) not in mean or (False, t) not in mean:
            assert np.isnan(found[t])
            continue
        parts = [
            stats.norm.logpdf(phi(target[t]), mean[side, t], math.sqrt(sum(r * r for r in rest[side]) / free[side]))
            for side in (True, False)
        ]
        assert found[t] == pytest.approx(parts[0] - parts[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, s, r: (t[:5], s, r), "shapes"),
        (lambda t, s, r: (t, s, r.astype(float)), "true and false"),
        (lambda t, s, r: (t, s[:1], r[:1]), "at least 2"),
        (lambda t, s, r: (t + 9, s, r), "at most 0"),
        (lambda t, s, r: (t, s[:2] * 0 - 1, np.array([[True], [False]]) & (s[:2] < 0)), "differ on a side"),
    ],
)
def test_what_does_not_fit_is_refused(change: Any, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        likelihood_ratio(*change(*world(1.0)[:3]))


def test_sure_texts_stay_finite() -> None:
    assert np.isfinite(log_odds([0.0, -1e-15, -800.0])).all()


@pytest.mark.full
def test_shadows_of_a_real_training_tell_members() -> None:
    """Small decoders trained on random halves of 64 documents: beside six of them the seventh's members are told."""
    texts = [Town(WORLD).document(i, "train").text[:160] for i in range(64)]
    tokenizer = BPETokenizer.train(texts, 300)
    read = np.random.default_rng(0).random((7, 64)) < 0.5
    means = np.array(
        [_means(_trained(tokenizer, [text for text, own in zip(texts, row, strict=True) if own], k), texts) for k, row in enumerate(read)]
    )
    score = likelihood_ratio(means[0], means[1:], read[1:])
    assert area(score, read[0]) > 0.75  # 0.88 when this was written, where the loss alone has 0.82
    assert area(score, read[0]) > area(means[0], read[0]) - 0.05
    shuffled = np.random.default_rng(1).permutation(read[1:].ravel()).reshape(read[1:].shape)
    assert area(likelihood_ratio(means[0], means[1:], shuffled), read[0]) < 0.75  # shadows of which nothing is known tell little


def _trained(tokenizer: BPETokenizer, texts: list[str], seed: int) -> GPT:
    made = GPT(GPTConfig(n_layers=1, d_model=32, n_heads=2, d_vocab=tokenizer.vocab_size, n_ctx=192), tokenizer, seed=seed)
    spec = TrainSpec.parse({"steps": 50, "batch_rows": 8, "lr": 5e-3, "seed": seed, "threads": 1})
    train(made, PackedRows(texts, tokenizer, 64), spec)
    return made.eval()


def _means(model: GPT, texts: list[str]) -> list[float]:
    found = dict(loglikelihoods(model, [Loglikelihood("", (text,)) for text in texts]))
    return [mean_logprob(found[k][0]) for k in range(len(texts))]
