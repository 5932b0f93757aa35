"""Integrated gradients: closed forms, the rules of quadrature, the account of its own error, baselines, and captum."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from probes.attribution import FirstHit, first_hit, ranks
from probes.integrated_gradients import INSTRUMENT, IntegratedGradientsSpec, quadrature
from tests.probes.standin import StandIn
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Inputs, Replace

IDS = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 0, 0], [7, 7, 2, 9, 0]])
LENGTHS = torch.tensor([5, 3, 4])
TARGETS = torch.tensor([3, 8, 10])
FOILS = torch.tensor([4, 1, 2])
RULES = ["left", "right", "midpoint", "trapezoid", "gauss-legendre"]


def run(model: Any, spec: dict[str, Any] | None = None, **changes: Any) -> Any:
    given = {"batch": IDS, "lengths": LENGTHS, "targets": TARGETS, **changes}
    return INSTRUMENT(model, Inputs(**given), IntegratedGradientsSpec(**(spec or {})))


def closed_form(model, ids, lengths, targets, start):
    """Linear model: attribution_j = weight_j * (x_j - x0_j) . unembed[:, target], position by position, in plain loops."""
    out = np.full(ids.shape, np.nan)
    for row, length in enumerate(lengths.tolist()):
        for pos in range(length):
            change = model.embed[ids[row, pos]] - start[row, pos]
            out[row, pos] = float(model.weight_at[pos] * change @ model.unembed[:, targets[row]])
    return out


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_a_linear_model_gives_the_closed_form_under_every_rule(rule):
    model = StandIn()
    result = run(model, {"rule": rule, "steps": 2, "focus": 1})
    expected = closed_form(model, IDS, LENGTHS, TARGETS, torch.zeros(3, 5, 6, dtype=torch.float64))
    np.testing.assert_allclose(result.values.attribution.values, expected, rtol=1e-12)
    assert result.values.converged.all()
    assert (result.values.steps == 2).all()


@pytest.mark.parametrize("rule", RULES)
def test_rules_integrate_a_smooth_function(rule):
    nodes, weights = quadrature(rule, 400)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert nodes.min() >= 0
    assert nodes.max() <= 1
    tolerance = {"left": 3e-3, "right": 3e-3}.get(rule, 1e-5)
    assert weights @ np.exp(nodes) == pytest.approx(np.e - 1, abs=tolerance)


@pytest.mark.parametrize("rule", ["midpoint", "gauss-legendre"])
@pytest.mark.parametrize("focus", [1.0, 2.5, 6.0])
def test_a_focus_changes_the_walk_and_not_the_integral(rule, focus):
    nodes, weights = quadrature(rule, 2000 if rule == "midpoint" else 60, focus)
    assert weights @ np.exp(nodes) == pytest.approx(np.e - 1, abs=1e-5)
    assert (np.diff(nodes) > 0).all()


def test_two_trapezoid_points_are_exact_for_a_line():
    nodes, weights = quadrature("trapezoid", 2)
    assert (weights * nodes).sum() == 0.5


def test_steps_double_until_the_attributions_add_up():
    model = StandIn(squash=torch.tanh)
    result = run(model, {"steps": 2, "max_steps": 4096, "tolerance": 1e-6})
    v = result.values
    assert v.converged.all()
    assert (v.steps > 2).any()
    difference = v.value - v.baseline_value
    np.testing.assert_allclose(np.nansum(v.attribution.values, 1), difference, rtol=1e-6)
    assert (v.evaluations >= v.steps).all()
    assert all(steps & (steps - 1) == 0 for steps in v.steps.values.tolist())


def test_a_gap_that_stays_is_a_flag_and_a_note_not_a_silence():
    result = run(StandIn(squash=lambda s: torch.tanh(5 * s)), {"rule": "left", "steps": 1, "max_steps": 2, "tolerance": 1e-9})
    assert not result.values.converged.all()
    left = int((~result.values.converged).sum())
    assert any(f"in {left} of 3 items" in note and "do not add up" in note for note in result.notes)
    assert (result.values.gap.values[~result.values.converged.values] > 0).all()


def test_an_item_is_given_up_when_doubling_stops_helping():
    """A kink that no rule of equal steps resolves: the steps stop long before max_steps and the best round is kept."""
    model = StandIn(squash=lambda s: torch.tanh(1e5 * s))
    v = run(model, {"rule": "gauss-legendre", "focus": 1, "steps": 4, "max_steps": 4096, "tolerance": 1e-9}).values
    assert not v.converged.all()
    assert int(v.evaluations.max()) < 4096
    assert (v.steps <= v.evaluations).all()


def test_an_item_that_is_done_is_not_done_again():
    model = StandIn(squash=lambda s: s + 0.0 * s)
    assert (run(model, {"steps": 4}).values.evaluations == 4).all()


def test_items_do_not_depend_on_their_batch_or_the_pass_budget():
    model = StandIn(squash=torch.tanh)
    spec = {"steps": 8, "max_steps": 8}
    whole = run(model, spec).values.attribution.values
    small = run(model, {**spec, "tokens_a_pass": 7}).values.attribution.values
    np.testing.assert_allclose(whole, small, rtol=1e-12)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = run(model, spec, batch=IDS[row : row + 1, :length], lengths=None, targets=TARGETS[row : row + 1])
        np.testing.assert_allclose(alone.values.attribution.values[0], whole[row, :length], rtol=1e-12)


def test_log_probability_and_difference_complete_too():
    model = StandIn(squash=torch.tanh)
    for quantity, more in (("logprob", {}), ("logit-difference", {"foils": FOILS})):
        v = run(model, {"quantity": quantity, "steps": 32, "tolerance": 1e-8}, **more).values
        np.testing.assert_allclose(np.nansum(v.attribution.values, 1), v.value - v.baseline_value, rtol=1e-8)
    trace: Any = model.run(IDS, logits="all")
    last = trace.logits[torch.arange(3), LENGTHS - 1]
    np.testing.assert_allclose(v.value, last[torch.arange(3), TARGETS] - last[torch.arange(3), FOILS], rtol=1e-12)


def test_a_position_before_the_end_sees_nothing_after_it():
    v = run(StandIn(squash=torch.tanh), {"position": 1}).values
    assert (v.attribution.values[:, 2][LENGTHS > 2] == 0).all()
    assert (v.position == 1).all()
    assert run(StandIn(), {"position": -2}).values.position.values.tolist() == [3, 1, 2]


def test_finite_differences_agree_at_the_linear_end():
    """An independent derivation: attribution along a straight line equals small differences summed along it."""
    model: Any = StandIn(squash=torch.tanh)
    v = run(model, {"steps": 64, "tolerance": 1e-10}).values
    x, n = model.embed[IDS], 400
    read = lambda e: model.run(IDS, edit=[_replace(e)]).logits[torch.arange(3), LENGTHS - 1, TARGETS]  # noqa: E731
    for pos in range(3):
        total = torch.zeros(3, dtype=torch.float64)
        for k in range(n):
            middle = x * (k + 0.5) / n
            up, down = middle.clone(), middle.clone()
            up[:, pos] += x[:, pos] / (2 * n)
            down[:, pos] -= x[:, pos] / (2 * n)
            total += read(up) - read(down)
        np.testing.assert_allclose(v.attribution.values[:, pos], total.numpy(), rtol=1e-5, atol=1e-8)


def _replace(embeddings):
    return Replace("hook_embed", value=embeddings)


# --- baselines ------------------------------------------------------------------------------------------------


def test_unknown_token_moves_content_only_and_says_so():
    model = StandIn(squash=torch.tanh)
    content = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 1, 1, 0]]).bool()
    result = run(model, {"baseline": "unknown-token", "neutral_id": 6}, labels=content)
    v = result.values
    frame = v.is_token.values & ~content.numpy()
    assert (v.attribution.values[frame] == 0).all()
    assert (v.candidate.values == content.numpy()).all()
    assert v.candidates.values.tolist() == [2, 1, 2]
    assert v.chance.values.tolist() == [0.5, 1.0, 0.5]
    assert any("zero by construction" in note and "1 to 2 candidates" in note and "0.667" in note for note in result.notes)
    start = model.embed[IDS.masked_fill(content, 6)]
    linear = run(StandIn(), {"baseline": "unknown-token", "neutral_id": 6}, labels=content)
    np.testing.assert_allclose(
        linear.values.attribution.values, closed_form(StandIn(), IDS, LENGTHS, TARGETS, start), rtol=1e-10, atol=1e-15
    )


def test_token_baseline_compares_position_by_position():
    reference = IDS.clone()
    reference[:, 1] = 9
    v = run(StandIn(), {"baseline": "token"}, reference=reference).values
    expected = closed_form(StandIn(), IDS, LENGTHS, TARGETS, StandIn().embed[reference])
    np.testing.assert_allclose(v.attribution.values, expected, rtol=1e-10, atol=1e-15)
    assert v.candidates.values.tolist() == [1, 1, 1]


def test_template_mean_is_over_the_other_sentences_slot_by_slot():
    """Slots may differ in length and place; the slow twin collects each slot's tokens of the other items of the group."""
    model = StandIn()
    slots = torch.tensor([[0, 1, 1, 0, 2], [1, 0, 2, 0, 0], [0, 1, 2, 2, 0], [2, 1, 0, 0, 0]])
    ids = torch.cat([IDS, torch.tensor([[8, 6, 1, 1, 0]])])
    lengths, groups, targets = torch.tensor([5, 3, 4, 2]), ["a", "b", "a", "b"], torch.tensor([3, 8, 10, 1])
    inputs = {"batch": ids, "lengths": lengths, "targets": targets, "labels": slots, "groups": groups}
    v = run(model, {"baseline": "template-mean"}, **inputs).values
    start = model.embed[ids].clone()
    for row in range(4):
        for pos in range(5):
            if slots[row, pos]:
                cells = [
                    (r, p) for r in range(4) for p in range(5) if r != row and groups[r] == groups[row] and slots[r, p] == slots[row, pos]
                ]
                start[row, pos] = torch.stack([model.embed[ids[r, p]] for r, p in cells]).mean(0)
    np.testing.assert_allclose(v.attribution.values, closed_form(model, ids, lengths, targets, start), rtol=1e-9, atol=1e-12)


def test_template_mean_over_a_pool_of_other_sentences():
    """The pool's own lengths and slots count, and slot names may be words."""
    model = StandIn()
    pool_ids, pool_names = torch.tensor([[6, 7, 8], [9, 10, 0], [1, 2, 3]]), [["who", "", "what"], ["who", "what"], ["what", "who", ""]]
    pool = Inputs(batch=pool_ids, lengths=torch.tensor([3, 2, 3]), labels=pool_names, groups=["a", "a", "b"])
    names = [["", "who", "who", "", "what"], ["what"], ["", "", "who", ""]]
    v = run(model, {"baseline": "template-mean"}, labels=names, groups=["a", "b", "a"], reference=pool).values
    means = {("a", "who"): [6, 9], ("a", "what"): [8, 10], ("b", "who"): [2], ("b", "what"): [1]}
    start = model.embed[IDS].clone()
    for row, (template, line) in enumerate(zip("aba", names, strict=True)):
        for pos, name in enumerate(line):
            if name:
                start[row, pos] = model.embed[means[template, name]].mean(0)
    np.testing.assert_allclose(v.attribution.values, closed_form(model, IDS, LENGTHS, TARGETS, start), rtol=1e-9, atol=1e-12)
    assert v.candidates.values.tolist() == [3, 1, 1]
    with pytest.raises(BadValue, match="slot 'who' of template 'c'"):
        run(model, {"baseline": "template-mean"}, labels=names, groups=["a", "b", "c"], reference=pool)


def test_template_mean_takes_embeddings_too():
    given = torch.randn(3, 5, 6, dtype=torch.float64)
    v = run(StandIn(), {"baseline": "template-mean"}, reference=given).values
    np.testing.assert_allclose(v.attribution.values, closed_form(StandIn(), IDS, LENGTHS, TARGETS, given), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "changes", "words"),
    [
        ({"baseline": "unknown-token"}, {}, "neutral_id is None"),
        ({"baseline": "unknown-token", "neutral_id": 99}, {}, "neutral_id is 99"),
        ({"baseline": "token"}, {}, "inputs.reference is None"),
        ({"baseline": "token"}, {"reference": IDS}, "item 0 equal to its reference"),
        ({"baseline": "token"}, {"reference": IDS + 50}, "a token id of inputs.reference"),
        ({"baseline": "zero"}, {"reference": IDS}, "left out for the baseline 'zero'"),
        ({"baseline": "template-mean"}, {}, "inputs.groups"),
        ({"baseline": "template-mean"}, {"groups": ["a", "b", "a"]}, "slot 4 of template 'a' (item 0)"),
        ({"baseline": "template-mean"}, {"labels": [["a"], ["b"], [""]], "groups": "xyz"}, "item 2 without content"),
        ({"baseline": "template-mean"}, {"labels": [["a"] * 6] * 3, "groups": "xyz"}, "slot names"),
        ({"baseline": "template-mean", "position": 0}, {"reference": Inputs(batch=IDS), "groups": "xyz"}, "inputs.reference.groups"),
        ({"baseline": "template-mean"}, {"reference": torch.full((3, 5, 6), float("nan"))}, "NaN"),
        ({"baseline": "unknown-token", "neutral_id": 1}, {"labels": torch.zeros(3, 5).bool()}, "item 0 without content"),
        ({"baseline": "unknown-token", "neutral_id": 1}, {"labels": torch.ones(3, 5).bool()}, "content at padding"),
        ({"baseline": "unknown-token", "neutral_id": 1}, {"labels": torch.ones(3, 4).bool()}, "inputs.labels"),
        ({"quantity": "logit-difference"}, {}, "inputs.foils is None"),
        ({"quantity": "logit-difference"}, {"foils": TARGETS}, "different from the item's target"),
        ({}, {"foils": FOILS}, "left out for the quantity 'logit'"),
        ({}, {"targets": torch.tensor([3, 8, 11])}, "inputs.targets is 11"),
        ({}, {"targets": torch.tensor([3, 8])}, "the shape of inputs.targets"),
        ({}, {"targets": torch.tensor([3.0, 8.0, 1.0])}, "the dtype of inputs.targets"),
        ({"position": 3}, {}, "the shortest has 3 tokens"),
        ({"position": -4}, {}, "position is -4"),
    ],
)
def test_inputs_that_cannot_be_meant_are_named(spec, changes, words):
    with pytest.raises(BadValue, match=re.escape(words)):
        run(StandIn(), spec, **changes)


@pytest.mark.parametrize("field", [{"steps": 32, "max_steps": 16}, {"steps": 0}, {"tolerance": 0}, {"rule": "trapezoid", "steps": 1}])
def test_specs_that_cannot_be_meant_are_refused(field):
    with pytest.raises(BadValue):
        IntegratedGradientsSpec.parse(field)


def test_a_model_without_gradients_is_refused_with_the_reason():
    with pytest.raises(Incompatible, match="does not offer grad"):
        run(StandIn(abilities=("logits", "edit")))


# --- ranking ------------------------------------------------------------------------------------------------


def test_a_planted_token_is_found_at_its_own_position_not_beside_it():
    """Frames must not shift by one: only position p carries weight, and p is where the attribution is."""
    model = StandIn(n_ctx=6)
    for planted in range(5):
        model.weight_at = torch.zeros(6, dtype=torch.float64)
        model.weight_at[planted] = 1.0
        result = run(model, batch=IDS[:1], lengths=None, targets=TARGETS[:1])
        assert (result.values.attribution.values[0] != 0).nonzero()[0].tolist() == [planted]
        assert first_hit(result, [(planted, planted + 1)]) == FirstHit(1, 1, 0.2)
        beside = (planted + 1) % 5
        assert first_hit(result, [(beside, beside + 1)]).hits == 0


def test_ranks_count_ties_against_the_span_and_know_their_chance():
    model = StandIn(n_ctx=6)
    model.weight_at = torch.zeros(6, dtype=torch.float64)
    result = run(model)
    frame = ranks(result, [(0, 1), (0, 2), (1, 2)])
    assert frame["first"].tolist() == [False, False, False]
    assert frame["rank"].tolist() == [5, 2, 4]
    assert frame["chance"].tolist() == pytest.approx([1 / 5, 2 / 3, 1 / 4])


def test_signed_and_absolute_ranks_differ_where_a_token_speaks_against():
    model = StandIn(n_ctx=6)
    result = run(model)
    row = result.values.attribution.values[0]
    most, largest = int(row.argmax()), int(np.abs(row).argmax())
    spans = [(most, most + 1), (0, 1), (0, 1)]
    assert ranks(result, spans, by="signed")["rank"].tolist()[0] == 1
    assert ranks(result, [(largest, largest + 1), (0, 1), (0, 1)])["rank"].tolist()[0] == 1


@pytest.mark.parametrize("spans", [[(0, 1)], [(0, 1), (3, 4), (0, 1)], [(0, 1), (1, 1), (0, 1)], [(0, 1), (0, 1), (0, 9)]])
def test_spans_that_hold_no_candidate_are_refused(spans):
    with pytest.raises(BadValue):
        ranks(run(StandIn()), spans)


# --- captum -------------------------------------------------------------------------------------------------


CAPTUM = {"left": "riemann_left", "right": "riemann_right", "midpoint": "riemann_middle", "gauss-legendre": "gausslegendre"}


@pytest.mark.parametrize("rule", [*CAPTUM, "trapezoid"])
def test_the_same_numbers_as_captum(rule):
    captum = pytest.importorskip("captum.attr")
    model: Any = StandIn(squash=torch.tanh)
    ids = IDS[:1]

    def forward(embeddings, target_id):
        trace = model.run(ids.expand(len(embeddings), -1), edit=[_replace(embeddings)], grad=True, logits="all")
        return trace.logits[:, -1].gather(1, target_id.expand(len(embeddings), 1))[:, 0]

    steps = 20
    theirs = captum.IntegratedGradients(forward).attribute(
        model.embed[ids], torch.zeros(1, 5, 6, dtype=torch.float64), additional_forward_args=(TARGETS[:1, None],),
        n_steps=steps, method=CAPTUM.get(rule, "riemann_trapezoid"),
    ).sum(-1)  # fmt: skip
    ours = run(model, {"rule": rule, "steps": steps, "max_steps": steps, "focus": 1}, batch=ids, lengths=None, targets=TARGETS[:1])
    # captum's trapezoid spreads n points over [0, 1] but weighs them as n panels, so its weights add up to 1 - 1/n; ours to 1.
    scale = (steps - 1) / steps if rule == "trapezoid" else 1.0
    np.testing.assert_allclose(ours.values.attribution.values * scale, theirs.detach().numpy(), rtol=1e-6)
