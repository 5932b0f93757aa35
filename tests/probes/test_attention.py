"""Attention instruments on planted patterns, beside loop-style twins."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from probes.attention import pattern_sites
from probes.attention_flow import flow
from probes.attention_pattern import INSTRUMENT as PATTERN
from probes.attention_pattern import AttentionPatternSpec
from probes.attention_rollout import INSTRUMENT as ROLLOUT
from probes.attention_rollout import AttentionRolloutSpec, mixed_weights
from probes.attention_rollout import rollout as rollout_of
from probes.head_rows import seen_keys
from probes.head_scores import INSTRUMENT as HEADS
from probes.head_scores import HeadScoresSpec, keys_in_question, repeated_random
from probes.token_items import read_items
from tests.probes.standin import StandIn
from tests.probes.test_places import tiny
from workbench.core.errors import BadValue
from workbench.core.protocol import Inputs
from workbench.core.result import Result
from workbench.families.gpt import GPT, GPTConfig

IDS = torch.tensor([[1, 2, 1, 2, 5], [5, 4, 3, 0, 0]])
LENGTHS = torch.tensor([5, 3])


class Tokens:
    """A tokenizer of ten letters; 0 is BOS, 10 is padding."""

    vocab_size, bos_id, eos_id, pad_id = 11, 0, None, 10

    def encode(self, text, *, bos=False):
        return ([0] if bos else []) + [ord(c) - ord("a") + 1 for c in text]

    def decode(self, ids):
        return "".join(self.pieces(ids))

    def pieces(self, ids):
        return ["^" if i == 0 else "_" if i == 10 else chr(ord("a") + i - 1) for i in ids]

    def digest(self):
        return "letters"


def random_patterns(layers, heads=2, seed=0):
    """Causal rows that sum to one, a function of nothing but the shape."""

    def make(ids):
        width = ids.shape[1]
        rng = torch.Generator().manual_seed(seed)
        raw = torch.rand(layers, 8, heads, 24, 24, generator=rng, dtype=torch.float64)[:, : len(ids), :, :width, :width].tril()
        return raw / raw.sum(-1, keepdim=True)

    return make


# --- patterns -------------------------------------------------------------------------------------------------


def test_patterns_are_as_captured_with_padding_left_out():
    model = StandIn(planted=random_patterns(2))
    result = PATTERN(model, Inputs(batch=IDS, lengths=LENGTHS))
    planted = random_patterns(2)(IDS).transpose(1, 2).numpy()
    np.testing.assert_array_equal(result.values.pattern.values[:, :, 0], planted[:, :, 0])
    np.testing.assert_array_equal(result.values.pattern.values[:, :, 1, :3, :3], planted[:, :, 1, :3, :3])
    assert np.isnan(result.values.pattern.values[:, :, 1, 3:]).all()
    assert np.isnan(result.values.pattern.values[:, :, 1, :, 3:]).all()
    assert float(result.values.row_error.max()) < 1e-12
    assert result.values.to_first.values[1, 0, 1] == pytest.approx(planted[1, 0, 1, :3, 0].mean())


def test_layers_and_heads_are_chosen_by_number_in_the_order_asked():
    model = StandIn(planted=random_patterns(3), layers=3)
    whole = PATTERN(model, Inputs(batch=IDS)).values.pattern
    part = PATTERN(model, Inputs(batch=IDS), AttentionPatternSpec(layers=(2, 0), heads=(1,))).values.pattern
    assert part.layer.values.tolist() == [2, 0]
    np.testing.assert_array_equal(part.values, whole.sel(layer=[2, 0], head=[1]).values)


def test_attention_that_leaves_the_real_tokens_shows_as_a_row_error():
    def to_the_end(ids):
        width = ids.shape[1]
        return torch.nn.functional.one_hot(torch.full((width,), width - 1), width).double().expand(2, len(ids), 2, width, width)

    assert float(PATTERN(StandIn(planted=to_the_end), Inputs(batch=IDS, lengths=LENGTHS)).values.row_error.max()) == 1.0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"layers": (2,)}, "different numbers from 0 to 1"),
        ({"layers": ()}, "at least one"),
        ({"layers": (0, 0)}, "different numbers"),
        ({"heads": (-1,)}, "different numbers from 0 to 1"),
        ({"max_cells": 10}, "200 numbers"),
    ],
)
def test_layers_heads_and_sizes_are_checked(spec, words):
    with pytest.raises(BadValue, match=words):
        PATTERN(StandIn(), Inputs(batch=IDS), AttentionPatternSpec(**spec))


def test_broken_weights_are_an_error_not_a_map():
    broken = lambda ids: torch.full((2, len(ids), 2, ids.shape[1], ids.shape[1]), float("nan"))  # noqa: E731
    for instrument in (PATTERN, ROLLOUT):
        with pytest.raises(BadValue, match="NaN or infinity"):
            instrument(StandIn(planted=broken), Inputs(batch=IDS))


# --- rollout --------------------------------------------------------------------------------------------------


def slow_rollout(patterns, residual):
    """One query at a time, one layer at a time."""
    layers, batch, heads, width, _ = patterns.shape
    out = np.zeros((layers, batch, width, width))
    for b in range(batch):
        below = np.eye(width)
        for layer in range(layers):
            now = np.zeros((width, width))
            for q in range(width):
                row = [
                    (1 - residual) * sum(patterns[layer, b, h, q, k] for h in range(heads)) / heads + residual * (q == k)
                    for k in range(width)
                ]
                row = np.array(row) / sum(row)
                for k in range(width):
                    now[q] += row[k] * below[k]
            below = now
            out[layer, b] = now
    return out


@settings(deadline=None)  # time is measured elsewhere, and machines are shared
@given(layers=st.integers(1, 3), width=st.integers(1, 5), seed=st.integers(0, 99), residual=st.sampled_from([0.0, 0.5, 0.9]))
def test_rollout_equals_the_slow_twin_and_its_rows_sum_to_one(layers, width, seed, residual):
    patterns = random_patterns(layers, seed=seed)(torch.zeros(2, width))
    fast = rollout_of(patterns, residual).numpy()
    np.testing.assert_allclose(fast, slow_rollout(patterns.numpy(), residual), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(fast.sum(-1), 1, rtol=1e-12)


def test_heads_that_stay_at_home_leave_the_identity():
    at_home = lambda ids: torch.eye(ids.shape[1], dtype=torch.float64).expand(2, len(ids), 2, ids.shape[1], ids.shape[1])  # noqa: E731
    found = ROLLOUT(StandIn(planted=at_home), Inputs(batch=IDS)).values.rollout.values
    np.testing.assert_array_equal(found, np.broadcast_to(np.eye(5), found.shape))


def test_rollout_of_an_item_does_not_depend_on_its_padding():
    model = StandIn(planted=random_patterns(2))
    padded = ROLLOUT(model, Inputs(batch=IDS.flip(0), lengths=LENGTHS.flip(0))).values.rollout.values[:, 0, :3, :3]
    alone = ROLLOUT(model, Inputs(batch=IDS[1:, :3])).values.rollout.values[:, 0]
    np.testing.assert_allclose(padded, alone, rtol=1e-12)
    small = ROLLOUT(model, Inputs(batch=IDS.flip(0)[:1], lengths=LENGTHS.flip(0)[:1]), AttentionRolloutSpec(tokens_a_pass=1))
    np.testing.assert_array_equal(small.values.rollout.values[:, 0, :3, :3], padded)


# --- flow -------------------------------------------------------------------------------------------------------


def slow_flow(mixed, query, key):
    """The most that pipes of these widths carry from ``query`` after the last layer to ``key``, as a linear program over every pipe."""
    layers, width, _ = mixed.shape
    pipes = [(layer, i, j) for layer in range(layers) for i in range(width) for j in range(width)]
    balance, inside = [], [(depth, place) for depth in range(layers + 1) for place in range(width)]
    for node in inside:
        if node in ((layers, query), (0, key)):
            continue
        balance.append([((layer, j) == node) * 1.0 - ((layer + 1, i) == node) * 1.0 for layer, i, j in pipes])
    arriving = [-1.0 if (layer, j) == (0, key) else 0.0 for layer, _, j in pipes]
    found = linprog(
        arriving, A_eq=np.array(balance).reshape(-1, len(pipes)), b_eq=np.zeros(len(balance)), bounds=[(0, mixed[pipe]) for pipe in pipes]
    )
    assert found.success
    return -found.fun


@settings(deadline=None, max_examples=12)  # time is measured elsewhere, and machines are shared
@given(layers=st.integers(1, 3), width=st.integers(1, 4), seed=st.integers(0, 99), residual=st.sampled_from([0.0, 0.5, 0.9]))
def test_flow_equals_the_linear_program_and_is_never_less_than_the_rollout(layers, width, seed, residual):
    patterns = random_patterns(layers, seed=seed)(torch.zeros(1, width))
    mixed = mixed_weights(patterns, residual)[:, 0].numpy()
    fast = flow(mixed)
    for layer in range(layers):
        for query in range(width):
            expected = [slow_flow(mixed[: layer + 1], query, key) for key in range(width)]
            np.testing.assert_allclose(fast[layer, query], expected, atol=1e-7)
    assert (fast >= rollout_of(patterns, residual)[:, 0].numpy() - 1e-7).all()
    assert (fast <= 1 + 1e-7).all()


def test_a_way_through_two_places_carries_what_its_narrowest_pipes_do():
    """From place 2: half stays, half goes to 1; from each of them a quarter and three quarters of a pipe lead on to 0."""
    mixed = np.array([[[1, 0, 0], [0.75, 0.25, 0], [0.25, 0, 0.75]], [[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]], dtype=float)
    found = flow(mixed)
    np.testing.assert_allclose(found[1, 2], [0.25 + 0.5, 0.25, 0.5], atol=1e-8)
    np.testing.assert_allclose((mixed[1] @ mixed[0])[2], [0.125 + 0.375, 0.125, 0.375], atol=1e-12)  # the rollout multiplies


def test_flow_is_asked_as_the_rollout_is():
    model = StandIn(planted=random_patterns(2))
    result = ROLLOUT(model, Inputs(batch=IDS.flip(0), lengths=LENGTHS.flip(0)), AttentionRolloutSpec(method="flow"))
    found = result.values.flow.values
    alone = ROLLOUT(model, Inputs(batch=IDS[1:, :3]), AttentionRolloutSpec(method="flow")).values.flow.values
    np.testing.assert_array_equal(found[:, 0, :3, :3], alone[:, 0])
    assert np.isnan(found[:, 0, 3:]).all()
    assert np.isnan(found[:, 0, :, 3:]).all()
    followed = ROLLOUT(model, Inputs(batch=IDS.flip(0), lengths=LENGTHS.flip(0))).values.rollout.values
    np.testing.assert_allclose(found[0], followed[0], atol=1e-12)
    assert set(result.to_frame().columns) == {"layer", "batch", "query", "key", "query_token", "key_token", "flow"}
    assert "attention can flow most on" in result.summary()
    assert "Attention flow" in str(result.plot().to_dict()["title"])
    assert type(Result.from_json(result.to_json())) is type(result)


def test_flow_stays_at_home_where_heads_do_and_asks_before_it_takes_long():
    at_home = lambda ids: torch.eye(ids.shape[1], dtype=torch.float64).expand(2, len(ids), 2, ids.shape[1], ids.shape[1])  # noqa: E731
    found = ROLLOUT(StandIn(planted=at_home), Inputs(batch=IDS), AttentionRolloutSpec(method="flow")).values.flow.values
    np.testing.assert_array_equal(found, np.broadcast_to(np.eye(5), found.shape))
    with pytest.raises(BadValue, match="at most max_flows = 49"):
        ROLLOUT(StandIn(), Inputs(batch=IDS), AttentionRolloutSpec(method="flow", max_flows=49))


# --- head scores ----------------------------------------------------------------------------------------------


def slow_scores(ids, lengths, control, patterns):
    """The definitions, one pair of positions at a time; sum of attention and count of queries for each score."""
    layers, batch, heads = patterns.shape[:3]
    sums, queries = np.zeros((3, layers, heads)), np.zeros(3)
    for b in range(batch):
        for q in range(lengths[b]):
            if ids[b][q] in control:
                continue
            for s in range(3):
                keys = []
                for k in range(q):
                    if ids[b][k] in control:
                        continue
                    previous, duplicate = k == q - 1, ids[b][k] == ids[b][q]
                    induction = k >= 1 and ids[b][k - 1] == ids[b][q] and ids[b][k - 1] not in control
                    if (previous, duplicate, induction)[s]:
                        keys.append(k)
                queries[s] += bool(keys)
                sums[s] += patterns[:, b, :, q][:, :, keys].sum(-1)
    return sums, queries


def slow_positional(ids, lengths, control, patterns):
    """The best offset of each head, one query and one offset at a time; None where there is none to look at."""
    layers, batch, heads, width = patterns.shape[:4]
    fresh = [
        (b, q)
        for b in range(batch)
        for q in range(lengths[b])
        if ids[b][q] not in control and not any(ids[b][k] == ids[b][q] for k in range(q))
    ]
    best, at = np.full((layers, heads), -1.0), np.zeros((layers, heads))
    for offset in range(-width, 1):
        pairs = [(b, q) for b, q in fresh if q + offset >= 0 and ids[b][q + offset] not in control]
        if not pairs or len(pairs) < len(fresh) / 2:
            continue
        mean = sum(patterns[:, b, :, q, q + offset] for b, q in pairs) / len(pairs)
        at, best = np.where(mean > best, offset, at), np.maximum(mean, best)
    return None if best.max() < 0 else (best, at)


@settings(deadline=None)  # time is measured elsewhere, and machines are shared
@given(st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=8), min_size=1, max_size=4), st.integers(0, 50))
def test_head_scores_equal_the_definitions(rows, seed):
    width = max(map(len, rows))
    ids = torch.tensor([row + [10] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    make = random_patterns(2, seed=seed)
    v = HEADS(StandIn(planted=make, tokenizer=Tokens()), Inputs(batch=ids, lengths=lengths)).values
    sums, queries = slow_scores(ids.tolist(), lengths.tolist(), {0, 10}, make(ids).numpy())
    assert v.queries.values[:3].tolist() == queries.tolist()
    best = slow_positional(ids.tolist(), lengths.tolist(), {0, 10}, make(ids).numpy())
    found = v.sel(score="positional")
    assert bool(found.queries == 0) == (best is None)
    if best is None:
        assert np.isnan(found.attention.values).all()
        assert np.isnan(found.offset.values).all()
    else:
        np.testing.assert_allclose(found.attention.values, best[0], rtol=1e-12)
        np.testing.assert_array_equal(found.offset.values, best[1])
    for s in range(3):
        if queries[s]:
            np.testing.assert_allclose(v.attention.values[s], sums[s] / queries[s], rtol=1e-12)
        else:
            assert np.isnan(v.attention.values[s]).all()


def planted_heads(ids):
    """Head 0 attends to the previous token, head 1 to the token after the last occurrence of this one, head 2 to that occurrence."""
    width = ids.shape[1]
    out = torch.zeros(1, len(ids), 3, width, width, dtype=torch.float64)
    for b, row in enumerate(ids.tolist()):
        for q in range(width):
            earlier = [k for k in range(q) if row[k] == row[q]]
            out[0, b, 0, q, max(0, q - 1)] = 1
            out[0, b, 1, q, earlier[-1] + 1 if earlier else 0] = 1
            out[0, b, 2, q, earlier[-1] if earlier else 0] = 1
    return out


@pytest.mark.parametrize("tokenizer", [Tokens(), None])
def test_planted_heads_are_found_on_random_repeats(tokenizer):
    model = StandIn(planted=planted_heads, layers=1, tokenizer=tokenizer)
    result = HEADS(model, Inputs(batch=None), HeadScoresSpec(sequences=4, period=6))
    rest = 0 if tokenizer else 1 / 11  # without a BOS, query 1 of the two resting heads rests on its previous token
    np.testing.assert_allclose(result.values.attention.values[:3, 0], [[1, rest, rest], [0, 0, 1], [0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(result.values.se.values[:, 0], 0, atol=1e-12)
    # the head on the previous token is found by position; resting on the first token is no offset, and repeats are not looked at
    away = 0 if tokenizer else 1 / 3  # without a BOS, three of six queries have an offset of -3, one of which rests there
    np.testing.assert_allclose(result.values.attention.values[3, 0], [1, away, away], atol=1e-12)
    assert result.values.offset.values[0, 0] == -1
    np.testing.assert_allclose(result.values.entropy.values, 0, atol=1e-12)
    first = 1 if tokenizer else 0
    assert result.values.queries.sel(score="induction") == 24
    assert result.values.uniform.sel(score="induction") == pytest.approx(np.mean([1 / (first + 6 + k + 1) for k in range(6)]))
    assert result.provenance.seed == 0


def test_an_even_head_scores_what_uniform_says():
    v = HEADS(StandIn(), Inputs(batch=None), HeadScoresSpec(period=5)).values
    for score in v.score.values:
        np.testing.assert_allclose(v.attention.sel(score=score), float(v.uniform.sel(score=score)), rtol=1e-12)


@pytest.mark.parametrize("offset", [0, -2, -3])
def test_a_head_that_goes_by_position_is_found_at_its_offset_and_one_that_goes_by_content_is_not(offset):
    def planted(ids):
        """Head 0 reads at the offset; head 1 reads the largest id seen so far, which stands anywhere."""
        width = ids.shape[1]
        out = torch.zeros(1, len(ids), 2, width, width, dtype=torch.float64)
        for b, row in enumerate(ids.tolist()):
            for q in range(width):
                out[0, b, 0, q, max(0, q + offset)] = 1
                out[0, b, 1, q, int(np.argmax(row[: q + 1]))] = 1
        return out

    v = HEADS(StandIn(planted=planted, layers=1, tokenizer=Tokens()), Inputs(batch=None), HeadScoresSpec(sequences=40, period=8)).values
    found = v.attention.sel(score="positional").values[0]
    assert found[0] == pytest.approx(1)
    assert v.offset.values[0, 0] == offset
    assert found[1] < 0.5


def test_entropy_is_the_definitions_and_rows_that_see_one_key_are_left_out():
    make = random_patterns(2, seed=4)
    v = HEADS(StandIn(planted=make, tokenizer=Tokens()), Inputs(batch=IDS, lengths=LENGTHS)).values
    patterns, whole, share = make(IDS).numpy(), np.zeros((2, 2)), np.zeros((2, 2))
    rows = 0
    for b, length in enumerate(LENGTHS.tolist()):
        for q in range(1, length):  # row 0 sees itself alone
            rows += 1
            for layer in range(2):
                for head in range(2):
                    one = -sum(p * np.log(p) for p in patterns[layer, b, head, q, : q + 1])
                    whole[layer, head] += one
                    share[layer, head] += one / np.log(q + 1)
    np.testing.assert_allclose(v.entropy.values, whole / rows, rtol=1e-12)
    np.testing.assert_allclose(v.entropy_share.values, share / rows, rtol=1e-12)
    assert v.rows.values.tolist() == [6, 6]
    assert v.rows_left_out.values.tolist() == [2, 2]


def test_an_even_head_has_all_the_entropy_there_is_and_no_rows_have_none():
    v = HEADS(StandIn(), Inputs(batch=IDS, lengths=LENGTHS)).values
    np.testing.assert_allclose(v.entropy_share.values, 1, rtol=1e-12)
    np.testing.assert_allclose(v.entropy.values, np.mean([np.log(n) for n in (2, 3, 4, 5, 2, 3)]), rtol=1e-12)
    lone = HEADS(StandIn(), Inputs(batch=torch.tensor([[1]])))
    assert np.isnan(lone.values.entropy.values).all()
    assert lone.values.rows_left_out.values.tolist() == [1, 1]
    assert "no row may see two keys" in lone.summary()


@pytest.mark.parametrize("window", [0, 3])
def test_what_a_query_may_see_is_what_its_scores_say(window):
    """A window leaves fewer keys, so the same entropy is a larger share; the even head's scores are within the window too."""
    config = GPTConfig.parse({"n_layers": 1, "d_model": 8, "n_heads": 2, "d_vocab": 20, "n_ctx": 16, "economy": {"window": window}})
    model = GPT(config).double()
    items = read_items(model, Inputs(torch.arange(12).reshape(2, 6), torch.tensor([6, 4])))
    seen = seen_keys(model, items, pattern_sites(model, None))
    width = window or 6
    assert torch.equal(seen[0], torch.ones(6, 6).tril().triu(1 - width).bool())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # an even head
    v = HEADS(model, Inputs(torch.arange(12).reshape(2, 6), torch.tensor([6, 4]))).values
    np.testing.assert_allclose(v.entropy_share.values, 1, rtol=1e-12)
    for score in ("previous-token", "positional"):
        np.testing.assert_allclose(v.attention.sel(score=score).values, float(v.uniform.sel(score=score)), rtol=1e-12)


def test_an_encoders_even_head_sees_what_comes_after_it():
    model, batch = tiny("bert")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    v = HEADS(model, Inputs(batch.tokens[:, :4])).values
    np.testing.assert_allclose(v.attention.sel(score="previous-token").values, 0.25, rtol=1e-12)
    assert float(v.uniform.sel(score="previous-token")) == pytest.approx(0.25)
    assert v.rows_left_out.values.tolist() == [0] * v.sizes["layer"]


def test_random_repeats_are_distinct_controls_left_out_and_the_seed_decides():
    model = StandIn(tokenizer=Tokens())
    spec = HeadScoresSpec(sequences=5, period=9)
    ids = repeated_random(model, spec)
    assert (ids[:, 0] == 0).all()
    assert torch.equal(ids[:, 1:10], ids[:, 10:])
    assert all(sorted(row.tolist()) == list(range(1, 10)) for row in ids[:, 1:10])
    assert torch.equal(ids, repeated_random(model, spec))
    assert not torch.equal(ids, repeated_random(model, spec.model_copy(update={"seed": 1})))


@pytest.mark.parametrize(("changes", "words"), [({"d_vocab": 9}, "at most the 9 tokens"), ({"n_ctx": 10}, "must fit the context of 10")])
def test_a_period_that_does_not_fit_is_refused(changes, words):
    with pytest.raises(BadValue, match=words):
        HEADS(StandIn(**changes), Inputs(batch=None), HeadScoresSpec(period=11))


def test_a_score_without_queries_is_not_a_zero():
    result = HEADS(StandIn(), Inputs(batch=torch.tensor([[1, 2, 3]])))
    assert np.isnan(result.values.attention.sel(score="induction").values).all()
    assert any("No query has a key for 'induction'" in note for note in result.notes)
    assert "induction: no query has such a key" in result.summary()


# --- reading ----------------------------------------------------------------------------------------------------


def test_text_gets_its_bos_only_by_the_spec_and_positions_follow():
    model = StandIn(tokenizer=Tokens())
    inputs = Inputs(batch=["abc", "de"])
    with_bos, without = read_items(model, inputs), read_items(model, inputs, bos=False)
    assert with_bos.ids.tolist() == [[0, 1, 2, 3], [0, 4, 5, 10]]
    assert with_bos.lengths.tolist() == [4, 3]
    assert with_bos.control.tolist() == [[True, False, False, False], [True, False, False, True]]
    assert with_bos.pieces.tolist() == [["^", "a", "b", "c"], ["^", "d", "e", ""]]
    assert with_bos.bos_added
    assert without.ids.tolist() == [[1, 2, 3], [4, 5, 10]]
    note = PATTERN(model, inputs, AttentionPatternSpec(bos=False)).notes[0]
    assert note.startswith("No BOS")


def test_keys_in_question_never_touch_padding_or_control_tokens():
    items = read_items(StandIn(tokenizer=Tokens()), Inputs(batch=torch.tensor([[0, 1, 1, 10]]), lengths=torch.tensor([3])))
    asked = keys_in_question(items)
    assert not asked[..., 0].any()
    assert not asked[..., 3].any()
    assert not asked[:, :, 3].any()
    assert not asked[:, :, 0].any()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (Inputs(batch=torch.zeros(0, 3).long()), "at least one item"),
        (Inputs(batch=torch.zeros(3).long()), "at least one item"),
        (Inputs(batch=torch.zeros(1, 3)), "integer dtype"),
        (Inputs(batch=torch.tensor([[11]])), "from 0 to 10"),
        (Inputs(batch=torch.tensor([[-1]])), "from 0 to 10"),
        (Inputs(batch=torch.zeros(1, 25).long()), "context of 24"),
        (Inputs(batch=torch.tensor([[1, 10]])), "the padding id 10"),
        (Inputs(batch=torch.tensor([[1, 2]]), lengths=torch.tensor([3])), "counts from 1 to 2"),
        (Inputs(batch=torch.tensor([[1, 2]]), lengths=torch.tensor([1, 2])), "1 counts"),
        (Inputs(batch=["a", ""]), "at least one token"),
        (Inputs(batch="ab", lengths=torch.tensor([2])), "left out for text"),
        (Inputs(batch={"ids": 1}), "token ids"),
    ],
)
def test_batches_that_cannot_be_meant_are_named(inputs, words):
    with pytest.raises(BadValue, match=words):
        read_items(StandIn(tokenizer=Tokens()), inputs)


def test_text_that_becomes_a_control_token_is_refused():
    class Careless(Tokens):
        def encode(self, text, *, bos=False):
            return [0] if text == "<|bos|>" else super().encode(text, bos=bos)

    with pytest.raises(BadValue, match="encoded without control tokens"):
        read_items(StandIn(tokenizer=Careless()), Inputs(batch=["<|bos|>"]))
