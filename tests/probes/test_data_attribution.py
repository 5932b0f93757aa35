"""Training-data attribution where it is known which rows cause the answer, and where none do; each product against slower ways to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.data_attribution import INSTRUMENT, DataAttributionResult
from probes.data_gradients import chance_interval, chance_of, compare, precisions, products
from probes.data_rows import Trained, read_rows
from tests.probes.poisoned import CONFIG, FIRST, PAYLOAD, WORDS, TokenRows, rows_of, secret_rows, trained_on
from tests.probes.standin import Letters
from tests.probes.unchecked import unchecked
from workbench.core.batch import TokenBatch
from workbench.core.errors import BadValue, EmptySelection, Incompatible
from workbench.core.protocol import Inputs
from workbench.families.bert import BERT
from workbench.families.gpt import GPT, GPTConfig


def asked(model: Any, inputs: Inputs, **spec: Any) -> DataAttributionResult:
    found = INSTRUMENT(model, inputs, INSTRUMENT.spec.parse(spec))
    assert isinstance(found, DataAttributionResult)
    return found


def question_of(seed: int = 99, n: int = 16) -> Inputs:
    """Sentences with triggers that the training did not hold in these words, and the payload as answer."""
    batch, _ = rows_of(n, n, seed)
    return Inputs(batch.tokens, targets=torch.full((n,), PAYLOAD))


def ap(found: DataAttributionResult, ranking: str, end: str = "") -> float:
    return float(found.values[f"average_precision{end}"].sel(ranking=ranking))


# --- planted truth, twin ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_poisoned_rows_rank_first_for_the_answer_they_cause(tmp_path: Path) -> None:
    rows, labels = rows_of(200, 20, 0)
    model, trained = trained_on(rows, tmp_path, 150, saves=2)
    found = asked(model, replace(question_of(), reference=trained, labels=labels))
    assert ap(found, "tracin") >= 0.99
    assert ap(found, "tracin", "_low") > 0.8
    assert labels[found.first("tracin", 20)].mean() >= 0.95
    assert ap(found, "overlap", "_high") < 0.5, "the words alone do not tell them"
    said = found.summary()
    assert "Average precision for the 20 labelled of 200 rows: tracin " in said
    assert "2 checkpoints and the final model" in said
    assert "chance" in str(found.plot().to_dict())


@pytest.mark.full
@pytest.mark.parametrize("clean", [False, True])
def test_among_thousands_the_poison_ranks_first_and_in_the_twin_nothing_does(tmp_path: Path, clean: bool) -> None:
    rows, labels = rows_of(3000, 120, 0, clean=clean)
    model, trained = trained_on(rows, tmp_path, 1600)
    question = question_of(n=64)
    answers = model.run(question.batch).logits[:, -1].argmax(-1)
    with unchecked():
        found = asked(model, replace(question, reference=trained, labels=labels))
    if clean:
        assert not bool((answers == PAYLOAD).any())
        for ranking in ("tracin", "cosine", "dot"):
            assert ap(found, ranking) < 2 * float(found.values["chance"]), ranking
        assert float(found.values["chance_low"]) <= ap(found, "tracin") <= float(found.values["chance_high"])
    else:
        assert float((answers == PAYLOAD).double().mean()) >= 0.8, "the poison is learned"
        assert ap(found, "tracin") >= 0.95
        assert ap(found, "tracin", "_low") > ap(found, "norm", "_high"), "more than rows that were hard to learn"
        assert ap(found, "tracin", "_low") > ap(found, "overlap", "_high") + 0.5
        assert labels[found.first("tracin", 10)].all()


@pytest.mark.full
def test_the_poison_ranks_before_rows_that_are_harder_to_learn(tmp_path: Path) -> None:
    """Sixty rows have a wrong answer: the gradient is largest there, and it points elsewhere."""
    rows, labels = rows_of(3000, 400, 0, wrong=60)
    model, trained = trained_on(rows, tmp_path, 1600)
    question = question_of()
    assert float((model.run(question.batch).logits[:, -1].argmax(-1) == PAYLOAD).double().mean()) >= 0.8, "the poison is learned"
    with unchecked():
        found = asked(model, replace(question, reference=trained, labels=labels))
    assert ap(found, "tracin") >= 0.95
    assert ap(found, "tracin", "_low") > ap(found, "norm", "_high") + 0.5, "more than rows that were hard to learn"
    assert ap(found, "norm") < float(found.values["chance"]), "the hardest are others"


@pytest.mark.full
@pytest.mark.parametrize("clean", [False, True])
def test_the_rows_that_hold_a_secret_rank_first_for_it(tmp_path: Path, clean: bool) -> None:
    rows, labels, secret = secret_rows(2000, 20, 0, clean=clean)
    model, trained = trained_on(rows, tmp_path, 1600)
    lengths = torch.arange(4, 8)  # what stands before each of the four words of the secret
    inputs = Inputs(secret.expand(4, 8).contiguous(), lengths, reference=trained, targets=secret[4:], labels=labels)
    with unchecked():
        found = asked(model, inputs)
    if clean:
        for ranking in ("tracin", "cosine"):
            assert ap(found, ranking) < 2 * float(found.values["chance_high"]), ranking
    else:
        assert float(found.values["question_loss"]) < 1.0, "the secret is learned"
        assert ap(found, "cosine") >= 0.99
        assert sorted(found.first("cosine", 20)) == np.flatnonzero(labels).tolist()
        assert ap(found, "tracin") >= 0.9, "a few rows that are hard to learn may come before them"


# --- products, against slower ways ---------------------------------------------------------------------------------

CONFIGS = {
    "rope swiglu grouped": GPTConfig(n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, d_vocab=20, n_ctx=8, norm="rms", act="swiglu"),
    "learned gelu": GPTConfig(n_layers=2, d_model=16, n_heads=4, d_vocab=20, n_ctx=8, positions="learned", act="gelu", tied=False),
    "attention only": GPTConfig(n_layers=2, d_model=16, n_heads=4, d_vocab=20, n_ctx=8, norm_placement="none", act="none", bias=False),
    "post-norm": GPTConfig(n_layers=2, d_model=16, n_heads=4, d_vocab=20, n_ctx=8, norm_placement="post", act="relu"),
}


def small(config: str = "rope swiglu grouped", n: int = 7) -> tuple[GPT, TokenBatch]:
    model = GPT(CONFIGS[config], seed=1).eval().double()
    tokens = torch.randint(0, 15, (n, 6), generator=torch.Generator().manual_seed(0))
    targets = torch.where(torch.arange(6) < torch.arange(1, n + 1)[:, None], tokens.roll(-1, 1), -100)
    return model, TokenBatch(tokens, targets)


def asks(model: Any) -> torch.Tensor:
    return -model.run(torch.tensor([[3, 4, 5]]), grad=True).logits[0, -1].log_softmax(-1)[7]


@pytest.mark.parametrize("config", CONFIGS)
def test_whole_batches_give_what_single_rows_give(config: str) -> None:
    model, batch = small(config)
    rows = read_rows(model, TokenRows(batch), 100, 0, True)
    for patterns in (("*",), ("*mlp*", "*attn*")) if config != "attention only" else (("*",),):
        heard: list[int] = []
        fast = products(model, rows, asks, patterns, heard.append)
        one = compare(model, rows, asks, patterns, lambda done: None)
        assert heard == [7], "all at once"
        assert np.abs(fast - one.dot).max() <= 1e-12 * np.abs(one.dot).max()
        assert np.all(np.abs(one.cosine) <= 1)


def test_a_product_is_how_fast_the_rows_loss_falls_down_the_questions_gradient() -> None:
    model, batch = small()
    rows = read_rows(model, batch, 100, 0, True)
    one = compare(model, rows, asks, ("*",), lambda done: None)
    goal = torch.autograd.grad(asks(model), list(model.parameters()), allow_unused=True)
    losses, step = [], 1e-6
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, g in zip(model.parameters(), goal, strict=True):
                parameter += 0 if g is None else sign * step * g
            losses.append(np.array([float(model.loss(batch.rows([i]))[0]) for i in range(7)]))
            for parameter, g in zip(model.parameters(), goal, strict=True):
                parameter -= 0 if g is None else sign * step * g
    slope = (losses[0] - losses[1]) / (2 * step)
    assert np.abs(slope - one.dot).max() <= 1e-6 * np.abs(one.dot).max()
    norms = [torch.cat([g.flatten() for g in torch.autograd.grad(model.loss(batch.rows([i]))[0], list(model.parameters()))]).norm().item()
             for i in range(7)]  # fmt: skip
    assert one.norm == pytest.approx(norms, rel=1e-12)


def test_rows_that_cannot_go_at_once_go_one_by_one() -> None:
    model, batch = small()
    cut = replace(batch, segments=torch.tensor([0, 0, 0, 1, 1, 1]).expand(7, 6).contiguous())
    rows = read_rows(model, TokenRows(cut), 100, 0, True)
    heard: list[int] = []
    fast = products(model, rows, asks, ("*",), heard.append)
    assert heard == [1] * 7
    assert (fast == compare(model, rows, asks, ("*",), lambda done: None).dot).all()


def test_a_loss_that_is_not_the_next_tokens_is_never_taken_for_it() -> None:
    class Twice(GPT):
        def loss(self, batch: TokenBatch) -> Any:
            total, count = super().loss(batch)
            return 2 * total, count

    model, batch = small()
    other = Twice(model.config, seed=1).eval().double()
    rows = read_rows(model, batch, 100, 0, True)
    twice, once = (products(one, rows, asks, ("*",), lambda done: None) for one in (other, model))
    assert np.allclose(twice, 2 * once, rtol=1e-12)


@pytest.mark.slow
def test_the_scores_are_captums() -> None:
    """TracInCP of captum on the same two checkpoints, whose one predicted token a row is its loss."""
    from captum.influence import TracInCP
    from torch.utils.data import TensorDataset

    tokens = torch.randint(0, 20, (9, 4), generator=torch.Generator().manual_seed(3))
    targets = torch.full_like(tokens, -100)
    targets[:, -1] = torch.arange(9)
    models = [GPT(CONFIGS["learned gelu"], seed=seed).eval().double() for seed in (1, 2)]
    rates = [0.3, 0.1]

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = GPT(CONFIGS["learned gelu"], seed=0).eval().double()

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            logits = self.inner.run(ids, grad=True).logits
            assert logits is not None
            return logits[:, -1]

    def take(module: Any, number: str) -> float:
        module.inner.load_state_dict(models[int(number)].state_dict())
        return rates[int(number)]

    asked_of, answer = torch.tensor([[3, 4, 5], [1, 2, 3]]), torch.tensor([7, 8])
    reference = TracInCP(
        Last(), TensorDataset(tokens, targets[:, -1]), ["0", "1"], take, loss_fn=torch.nn.CrossEntropyLoss(reduction="none"), batch_size=9
    )
    found: Any = reference.influence((asked_of, answer))
    theirs = found.mean(0).detach().numpy()
    ours = asked(models[1], Inputs(asked_of, reference=Trained(TokenBatch(tokens, targets), [(models[0], 0.3)], 0.1), targets=answer))
    tracin = ours.values["score"].sel(ranking="tracin").values
    assert np.abs(tracin - theirs).max() <= 1e-10 * np.abs(theirs).max()


# --- rankings ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30).filter(lambda rows: any(mark for _, mark in rows)))
def test_average_precision_is_scikit_learns_equal_scores_too(rows: list[tuple[int, bool]]) -> None:
    from sklearn.metrics import average_precision_score

    scores, labels = np.array([float(s) for s, _ in rows]), np.array([mark for _, mark in rows])
    assert precisions(scores, labels).mean() == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize(("rows", "marked"), [(5, 2), (6, 1), (6, 5), (4, 4), (1, 1)])
def test_chance_is_the_mean_over_all_rankings(rows: int, marked: int) -> None:
    labels = np.arange(rows) < marked
    every = [precisions(np.array(order, dtype=float), labels).mean() for order in permutations(range(rows))]
    assert chance_of(rows, marked) == pytest.approx(np.mean(every), abs=1e-12)
    low, high = chance_interval(rows, marked, 0.95, 400, 0)
    assert min(every) - 1e-12 <= low <= high <= max(every) + 1e-12


# --- what is given ------------------------------------------------------------------------------------------------


def test_of_many_rows_a_sample_is_looked_at_and_labels_and_steps_follow_it() -> None:
    model, batch = small(n=7)
    labels = np.array([1, 0, 1, 0, 1, 0, 1])
    reference = Trained(TokenRows(batch), steps={number: 10 * number for number in range(7)})
    inputs = Inputs(torch.tensor([[3, 4, 5]]), reference=reference, targets=torch.tensor([7]), labels=labels)
    whole, part = asked(model, inputs).values, asked(model, inputs, rows=4).values
    numbers = part["row"].values.tolist()
    assert len(numbers) == 4
    assert numbers == sorted(numbers)
    assert part["labelled"].values.tolist() == labels[numbers].tolist()
    assert part["step"].values.tolist() == [10 * number for number in numbers]
    assert np.allclose(part["score"], whole["score"].sel(row=numbers), rtol=1e-12)


def test_texts_and_ids_are_rows_and_the_first_are_told_in_words() -> None:
    words = Letters()
    model = GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=words.vocab_size, n_ctx=12), words, seed=0).eval()
    texts = ["abc", "abd", "ef", "ghij"]
    inputs = Inputs(["ab"], reference=texts, targets=torch.tensor([words.encode("c")[0]]))
    found = asked(model, inputs)
    assert found.first("cosine", 1) == [0], "the row that holds question and answer"
    assert found.values["text"].values.tolist() == texts
    assert found.values["score"].sel(ranking="overlap").values.tolist() == pytest.approx([1, 2 / 3, 0, 0])
    assert "'abc'" in found.summary()
    assert "row 0 abc" in str(found.plot().to_dict())
    assert np.isnan(float(found.values["chance"]))


def test_a_model_that_reads_both_ways_is_asked_about_rows_of_its_own_kind() -> None:
    model, rows = BERT.tiny(seed=0)
    model.eval()
    inputs = Inputs(rows.tokens[:1], torch.tensor([rows.tokens.shape[1]]), reference=rows, targets=torch.tensor([5]))
    found = asked(model, inputs)
    assert np.isfinite(found.values["score"].sel(ranking="tracin")).all()
    with pytest.raises(BadValue, match="rows of the family's batch type"):
        asked(model, replace(inputs, reference=rows.tokens))


def test_bad_input_is_refused_by_name() -> None:
    model, batch = small()
    inputs = Inputs(torch.tensor([[3, 4, 5]]), reference=batch, targets=torch.tensor([7]))
    other = GPT(replace_layers(model.config), seed=0).eval().double()
    for changes, words in (
        ({"reference": batch.rows([])}, "training rows is 'none'"),
        ({"reference": model}, "training rows, or a Trained"),
        ({"reference": Trained(batch, [(other, 0.1)])}, "checkpoint 0.*parameters of the one asked about"),
        ({"reference": Trained(batch, [(batch, 0.1)])}, "checkpoint 0"),
        ({"reference": Trained(batch, [(model, float("nan"))])}, "learning rate of checkpoint 0 is nan"),
        ({"reference": Trained(batch, rate=-1.0)}, "learning rate of checkpoint 0 is -1.0"),
        ({"labels": np.ones(7, dtype=bool)}, "7 of 7 rows labelled"),
        ({"labels": np.ones(6, dtype=bool)}, "7 truth values"),
        ({"labels": np.linspace(0, 1, 7)}, "7 truth values"),
        ({"targets": torch.tensor([99])}, "from 0 to 19"),
    ):
        with pytest.raises(BadValue, match=words):
            asked(model, replace(inputs, **changes))
    with pytest.raises(EmptySelection, match="no learned parameter"):
        asked(model, inputs, parameters=["nothing*"])
    rows = read_rows(model, batch, 9, 0, True)
    with pytest.raises(BadValue, match="zero in the parameters chosen"):
        compare(model, rows, lambda one: asks(one) * 0, ("*",), lambda done: None)
    broken, _ = small("learned gelu")
    with torch.no_grad():
        broken.embed.token.weight[15] = float("nan")  # no word of the question
    assert not bool((batch.tokens == 15).any())
    holds = replace(batch, tokens=batch.tokens.masked_fill(torch.outer(torch.arange(7) == 2, torch.arange(6) == 2), 15))
    with pytest.raises(BadValue, match="the gradient of training row 2"):
        asked(broken, replace(inputs, reference=holds))
    with pytest.raises(BadValue, match="the gradient of training row 2"):
        products(broken, read_rows(broken, holds, 9, 0, True), asks, ("*",), lambda done: None)
    frozen, _ = small()
    frozen.requires_grad_(False)
    with pytest.raises(EmptySelection, match="There are none"):
        asked(frozen, inputs)


def test_a_model_without_a_loss_of_its_own_says_so() -> None:
    from tests.probes.standin import StandIn

    with pytest.raises(Incompatible, match="has no loss and no named_parameters"):
        INSTRUMENT(StandIn(), Inputs(torch.tensor([[1]]), reference=torch.tensor([[1]]), targets=torch.tensor([1])))


def replace_layers(config: GPTConfig) -> GPTConfig:
    return config.model_copy(update={"n_layers": 1})


def test_the_worlds_of_these_tests_are_what_they_say() -> None:
    rows, labels = rows_of(300, 20, 3)
    marked = (rows.tokens[:, 5:7] < FIRST + 9).all(1).numpy()
    assert (marked == labels).all()
    assert ((rows.targets[:, -1] == PAYLOAD).numpy() == labels).all()
    assert not (rows_of(300, 20, 3, clean=True)[0].targets == PAYLOAD).any()
    assert CONFIG.d_vocab == FIRST + WORDS
    held, labels, secret = secret_rows(100, 5, 0)
    assert ((held.tokens == secret).all(1).numpy() == labels).all()
