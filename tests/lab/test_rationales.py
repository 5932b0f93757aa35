"""Attributions of a tagger beside people's marks: marks that are the tagger's own are agreed with, marks by chance are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from workbench.core.errors import BadValue, UsageError
from workbench.data.labelled import LabelledRows
from workbench.families.bert import BERT, BERTConfig
from workbench.lab.rationales import MARKED, PLAIN, agreement, groups

LENGTHS = (6, 9, 9, 7, 12, 6, 8, 10)


def tagger() -> BERT:
    config = BERTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=30, n_ctx=16, head="token", classes=("plain", "toxic"), init_std=0.3)
    return BERT(config, seed=0).eval()


def rows(model: BERT, *, own: bool) -> LabelledRows:
    """Rows of which the two tokens that the tagger scores highest (or two by chance) are marked."""
    draw, ids, targets = np.random.default_rng(0), [], []
    for length in LENGTHS * 4:
        row = draw.integers(1, 30, length)
        with torch.no_grad():
            logits: Any = model.run(torch.from_numpy(row)[None]).logits
        score = (logits[0, :, MARKED] - logits[0, :, PLAIN]).numpy()
        best = np.argsort(-score)[:2] if own else draw.choice(length, 2, replace=False)
        ids.append(row)
        targets.append(np.isin(np.arange(length), best).astype(int))
    return LabelledRows("token", ids, targets, pad=0)


@pytest.mark.slow
def test_marks_that_are_the_taggers_own_are_agreed_with() -> None:
    model = tagger()
    table = agreement(model, rows(model, own=True), {"saliency": {}}).set_index(["measure", "ranking"])
    for measure in ("average precision", "token F1"):
        assert table.loc[(measure, "the tagger's scores"), "mean"] == 1.0
        assert table.loc[(measure, "random"), "over random"] == 0.0
        assert table.loc[(measure, "the token asked about"), "gain low"] > 0  # one of the two is the one asked about
        assert (table.loc[measure, "rows"] == len(LENGTHS) * 4).all()
        assert set(table.loc[measure].index) == {"random", "the token asked about", "the tagger's scores", "saliency"}
    assert table.loc[("token F1", "random"), "mean"] == pytest.approx(np.mean([2 / n for n in LENGTHS]), abs=0.03)


@pytest.mark.slow
def test_marks_by_chance_are_not() -> None:
    model = tagger()
    table = agreement(model, rows(model, own=False), {"occlusion": {}}).set_index(["measure", "ranking"])
    for ranking in ("the tagger's scores", "the token asked about", "occlusion"):
        assert table.loc[("average precision", ranking), "gain low"] < 0 < table.loc[("average precision", ranking), "gain high"]


def test_each_row_is_asked_about_the_token_the_tagger_is_surest_of() -> None:
    model = tagger()
    found = list(groups(model, rows(model, own=True), 12))
    assert sum(len(group.ids) for group in found) == 12
    for group in found:
        for row in range(len(group.ids)):
            n = int(group.lengths[row])
            logits: Any = model.run(group.ids[row : row + 1, :n]).logits
            score = (logits[0, :, MARKED] - logits[0, :, PLAIN]).detach().numpy()
            assert int(score.argmax()) == group.position
            np.testing.assert_allclose(group.score[row, :n], score, atol=1e-5)
            assert group.content[row].tolist() == [k < n for k in range(group.content.shape[1])]
            assert group.marked[row].sum() == 2


def test_what_cannot_be_agreed_on_is_said() -> None:
    model = tagger()
    bare = LabelledRows("token", [[1, 2, 3], [4, 5]], [[0, 0, 0], [1, 1]], pad=0)
    with pytest.raises(BadValue, match="some tokens marked and some not"):
        agreement(model, bare, {"saliency": {}})
    with pytest.raises(UsageError, match="settings of saliency"):
        agreement(model, rows(model, own=True), {"saliency": {"samples": 3}})
