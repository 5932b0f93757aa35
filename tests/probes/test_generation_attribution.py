"""Attribution of a whole generation: row by row what the method's instrument says of one token; models that copy; and the null."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes import INSTRUMENTS
from probes.attribution import AttributionResult
from probes.generation_attribution import INSTRUMENT, GenerationAttributionSpec, Method
from probes.generation_result import GenerationAttributionResult, pointed
from tests.contracts.test_instruments import model_of
from tests.probes.planted import trained
from tests.probes.standin import StandIn
from tests.probes.test_places import tiny
from workbench.core.batch import IGNORE, SequenceBatch, TokenBatch
from workbench.core.errors import BadValue, Incompatible, UsageError
from workbench.core.protocol import Inputs
from workbench.families.gpt import GPT, GPTConfig
from workbench.families.seq2seq import Seq2Seq, Seq2SeqConfig
from workbench.families.whisper import Whisper, WhisperConfig

METHODS: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"steps": 3, "max_steps": 6},
    "input-x-gradient": {},
    "saliency": {},
    "occlusion": {},
    "shapley": {"estimator": "exact"},
    "deep-lift": {"filler": "zero"},
}
FAMILIES = {"gpt": ("",), "seq2seq": ("encoder", "decoder"), "whisper": ("encoder", "decoder")}
STEPS = 3


def asked(model: Any, inputs: Inputs, **spec: Any) -> GenerationAttributionResult:
    result = INSTRUMENT(model, inputs, GenerationAttributionSpec.parse(spec))
    assert isinstance(result, GenerationAttributionResult)
    return result


def started(family: str) -> tuple[Any, Inputs]:
    """A tiny model in float64 that has opinions, and what it goes on from: ragged prompts, or sources of which one is padded."""
    model, batch = tiny(family)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():  # fresh weights are so small that a model would write one token for ever
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype))
    if family == "gpt":
        return model, Inputs(batch.tokens[:2, :5], torch.tensor([5, 3]))
    return model, Inputs(replace(batch, tokens=batch.tokens[:, :2], targets=None))


def one_item(inputs: Inputs, row: int) -> Any:
    """What an item goes on from, by itself and unpadded where that is possible."""
    if inputs.lengths is not None:
        return inputs.batch[row : row + 1, : int(inputs.lengths[row])]
    return inputs.batch.rows([row])


def longer(start: Any, made: list[int]) -> Any:
    """The same with tokens behind it."""
    more = torch.tensor([made], dtype=torch.long)
    return replace(start, tokens=torch.cat([start.tokens, more], 1)) if isinstance(start, SequenceBatch) else torch.cat([start, more], 1)


def naive(model: Any, inputs: Inputs, row: int, steps: int) -> tuple[list[int], list[int]]:
    """What a model writes, and the likeliest other token each time: one item, the whole prefix read anew at each step."""
    made: list[int] = []
    others: list[int] = []
    for _ in range(steps):
        order = model.run(longer(one_item(inputs, row), made)).logits[0, -1].argsort(descending=True)
        made.append(int(order[0]))
        others.append(int(order[1]))
    return made, others


# --- the slow twin --------------------------------------------------------------------------------------------


TWINS = [
    pytest.param(family, method, "logit-difference" if method == "integrated-gradients" else "logit", marks=marks)
    for method in METHODS
    for family in FAMILIES
    for marks in [
        () if method == "input-x-gradient" else pytest.mark.slow if family == "gpt" or method == "occlusion" else pytest.mark.full
    ]
]


@pytest.mark.parametrize(("family", "method", "quantity"), TWINS)
def test_every_row_is_what_the_instrument_says_of_that_token(family: str, method: str, quantity: str) -> None:
    model, inputs = started(family)
    found = asked(model, inputs, method=method, settings=METHODS[method], most=STEPS, quantity=quantity).values
    expected = {name: np.full(found.attribution.shape, np.nan) for name in ("attribution", "gap", "baseline_value", "steps")}
    value, tool = np.full(found.value.shape, np.nan), INSTRUMENTS.load(method)
    first = {"": 0, "encoder": 0, "decoder": int((found["stack"].values == "encoder").sum())}
    for row in range(2):
        made, others = naive(model, inputs, row, STEPS)
        assert found.target_id.values[row].tolist() == made
        assert found.foil_id.values[row].tolist() == others
        for step in range(STEPS):
            batch = longer(one_item(inputs, row), made[:step])
            foils = torch.tensor([others[step]]) if quantity == "logit-difference" else None
            for stack in FAMILIES[family]:
                spec = tool.spec.parse({"quantity": quantity, "stack": stack, **METHODS[method]})
                alone: Any = tool(model, Inputs(batch, targets=torch.tensor([made[step]]), foils=foils), spec).values
                here = slice(first[stack], first[stack] + alone.sizes["pos"])
                expected["attribution"][row, step, here] = alone.attribution.values[0]
                value[row, step] = alone.value.values[0]
                for name in ("gap", "baseline_value", "steps"):
                    if name in alone:
                        expected[name][row, step, here] = np.where(alone.is_token.values[0], alone[name].values[0], np.nan)
    for name, numbers in expected.items():
        np.testing.assert_allclose(found[name].values, numbers, rtol=1e-9, atol=1e-10, err_msg=name)
    np.testing.assert_allclose(found.value.values, value, rtol=1e-12, atol=1e-12)
    assert np.isfinite(found.attribution.values).any(-1).all()


@pytest.mark.parametrize("family", [pytest.param(name, marks=pytest.mark.slow if name == "gpt" else pytest.mark.full) for name in FAMILIES])
def test_rows_add_up_and_say_how_far_they_do_not(family: str) -> None:
    """Integrated gradients, exact Shapley values: each question accounts for its own change of the answer, and for nothing else's."""
    model, inputs = started(family)
    whole = asked(model, inputs, method="integrated-gradients", settings={"max_steps": 4096, "tolerance": 1e-6}, most=STEPS)
    said = whole.questions()
    assert len(said) == 2 * STEPS * len(FAMILIES[family])
    for _, row in said.iterrows():
        assert row.gap == pytest.approx(abs(row.total - (row.value - row.baseline_value)), abs=1e-9)
    assert bool(said["converged"].all())
    exact = asked(model, inputs, method="shapley", settings={"estimator": "exact"}, most=STEPS)
    for _, row in exact.questions().iterrows():
        assert row.total == pytest.approx(row.value - row.baseline_value, abs=1e-9)
    assert bool(np.isnan(exact.values.gap.values).all()), "a method without a gap has none"


def test_on_a_linear_model_the_numbers_are_those_worked_out_by_hand() -> None:
    """state[p] = sum over j <= p of weight[j] * embedding[j]: the attribution of j to the token written at p is weight_j x_j . unembed."""
    model = StandIn()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    v = asked(model, Inputs(ids), most=4).values
    for row in range(2):
        read, made = ids[row].tolist(), []
        for step in range(4):
            terms = torch.stack([model.weight_at[j] * model.embed[token] for j, token in enumerate(read)]) @ model.unembed
            made.append(int(terms.sum(0).argmax()))
            np.testing.assert_allclose(v.attribution.values[row, step, : len(read)], terms[:, made[-1]].numpy(), rtol=1e-12)
            assert np.isnan(v.attribution.values[row, step, len(read) :]).all()
            read.append(made[-1])
        assert v.target_id.values[row].tolist() == made


@settings(max_examples=6, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 3))
def test_an_items_rows_do_not_depend_on_what_is_asked_beside_it(prompts: list[list[int]], most: int, seed: int) -> None:
    model = StandIn(seed=seed, squash=torch.tanh)
    lengths = torch.tensor([len(one) for one in prompts])
    ids = torch.tensor([one + [0] * (int(lengths.max()) - len(one)) for one in prompts])
    together = asked(model, Inputs(ids, lengths), most=most).values
    for row, one in enumerate(prompts):
        alone = asked(model, Inputs(torch.tensor([one])), most=most).values
        width = len(one) + most - 1
        assert together.target_id.values[row].tolist() == alone.target_id.values[0].tolist()
        np.testing.assert_allclose(together.attribution.values[row, :, :width], alone.attribution.values[0], rtol=1e-9, atol=1e-12)
        assert np.isnan(together.attribution.values[row, :, width:]).all()
        assert not together.is_input.values[row, :, width:].any()


# --- what is written ------------------------------------------------------------------------------------------


def test_an_item_ends_with_the_end_and_the_end_is_explained_too() -> None:
    model = StandIn()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    free = asked(model, Inputs(ids), most=5).values.target_id.values
    assert not (free[0] == free[1]).all()
    end = int(free[0, 1])
    v = asked(model, Inputs(ids), most=5, end=end).values
    for row in range(2):
        stop = free[row].tolist().index(end) + 1 if end in free[row] else 5
        written = v.target_id.values[row]
        assert written[:stop].tolist() == free[row, :stop].tolist()
        assert (written[stop:] == -1).all()
        assert np.isnan(v.attribution.values[row, stop:]).all()
        assert np.isnan(v.logprob.values[row, stop:]).all()
        assert v.written.values[row].sum() == stop - 1, "the last token written is nobody's input"


def test_given_tokens_are_explained_in_place_of_the_models_own() -> None:
    model, inputs = started("gpt")
    made = [naive(model, inputs, row, STEPS)[0] for row in range(2)]
    own = asked(model, inputs, most=STEPS)
    again = asked(model, replace(inputs, targets=torch.tensor(made)))
    np.testing.assert_array_equal(own.values.attribution.values, again.values.attribution.values)
    assert own.notes[1] != again.notes[1]
    short = torch.tensor([[*made[0][:2], IGNORE], made[1]])
    part = asked(model, replace(inputs, targets=short)).values
    np.testing.assert_allclose(part.attribution.values[1], own.values.attribution.values[1][:, : part.sizes["pos"]], atol=1e-12)
    assert part.target_id.values[0].tolist() == [*made[0][:2], -1]
    one = asked(model, replace(inputs, targets=torch.tensor([7, 9]))).values
    assert one.target_id.values.tolist() == [[7], [9]]


def test_text_is_read_with_its_bos_and_what_follows_is_named() -> None:
    result = asked(model_of(), Inputs(["ab", "abc"], targets=torch.tensor([[5, 6], [7, 8]])))
    v = result.values
    assert v.generated_token.values.tolist() == [["f", "g"], ["h", "i"]]
    assert v.token.values.tolist() == [["<|bos|>", "a", "b", "f", ""], ["<|bos|>", "a", "b", "c", "h"]]
    assert v.written.values.tolist() == [[False, False, False, True, False], [False, False, False, False, True]]
    assert not v.candidate.values[:, :, 0].any(), "a BOS is no candidate"
    assert result.notes[0] == "A BOS was put before each text."
    assert "item 0: 2 tokens written" in result.summary()


def test_one_stack_alone_is_the_same_rows() -> None:
    model, inputs = started("seq2seq")
    both = asked(model, inputs, most=STEPS).values
    for stack in ("encoder", "decoder"):
        one = asked(model, inputs, most=STEPS, stack=stack).values
        here = both["stack"].values == stack
        np.testing.assert_array_equal(one.attribution.values, both.attribution.values[:, :, here])
        assert one.place.values.tolist() == both.place.values[here].tolist()


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "spec", "words"),
    [
        ({"targets": torch.tensor([[1, IGNORE, 2], [1, 2, 3]])}, {}, "only past its end"),
        ({"targets": torch.tensor([[IGNORE], [1]])}, {}, "at least one id an item"),
        ({"targets": torch.tensor([[99], [1]])}, {}, "the model's vocabulary"),
        ({"targets": torch.tensor([[0.5], [1.0]])}, {}, "integer dtype"),
        ({"targets": torch.tensor([1, 2, 3])}, {}, "one each"),
        ({"targets": torch.tensor([1, 2]), "foils": torch.tensor([3, 4])}, {}, "left out for the quantity"),
        ({"foils": torch.tensor([[1], [2]])}, {"quantity": "logit-difference"}, "one for each of inputs.targets"),
        (
            {"targets": torch.tensor([[1], [2]]), "foils": torch.tensor([[1], [3]])},
            {"quantity": "logit-difference"},
            "different from its target",
        ),
        ({"labels": torch.ones(2, 3)}, {}, "not written yet"),
        ({"reference": torch.ones(2, 3)}, {}, "not written yet"),
        ({}, {"most": 23}, "nothing is cut short"),
        ({}, {"end": 11}, "from 0 to 10"),
        ({}, {"max_cells": 3}, "at most max_cells"),
        ({}, {"settings": {"quantity": "logprob"}}, "what this spec says itself"),
        ({}, {"method": "integrated-gradients", "settings": {"baseline": "token"}}, "reference ids"),
    ],
)
def test_what_cannot_be_meant_is_named(changes: dict[str, Any], spec: dict[str, Any], words: str) -> None:
    with pytest.raises(BadValue, match=words):
        asked(StandIn(), Inputs(**{"batch": torch.tensor([[1, 2, 3], [4, 5, 6]]), **changes}), **spec)


def test_settings_and_methods_that_are_not_there_are_named() -> None:
    with pytest.raises(UsageError, match="settings of occlusion"):
        asked(StandIn(), Inputs(torch.tensor([[1, 2]])), method="occlusion", settings={"windows": 2})
    with pytest.raises(UsageError, match="method"):
        GenerationAttributionSpec.parse({"method": "attention-pattern"})
    with pytest.raises(Incompatible, match="what comes after them"):
        asked(tiny("bert")[0], Inputs(torch.tensor([[1, 2]])))
    with pytest.raises(Incompatible, match="does not offer grad"):
        asked(StandIn(abilities=("logits", "edit")), Inputs(torch.tensor([[1, 2]])), method="saliency")


@pytest.mark.parametrize("batch", [torch.zeros(2, 3).long(), SequenceBatch(torch.ones(2, 8).long(), torch.ones(2, 0).long())])
def test_a_source_needs_what_its_decoder_begins_from(batch: Any) -> None:
    with pytest.raises(BadValue):
        asked(tiny("seq2seq")[0], Inputs(batch), most=2)


def test_every_attribution_of_the_catalogue_can_be_asked() -> None:
    """An attribution says which scalar is meant, asks nothing of other instruments, and answers with an AttributionResult."""
    can = set()
    for name in INSTRUMENTS:
        hints = get_type_hints(INSTRUMENTS.load(name).compute)
        can |= {name} if issubclass(hints["return"], AttributionResult) else set()
    assert can == set(get_args(Method))


# --- planted ----------------------------------------------------------------------------------------------------

LENGTH, SYMBOLS = 4, 6
SEPARATOR, ITEMS = SYMBOLS, 32
SHAPE: dict[str, Any] = {"d_model": 32, "n_heads": 4, "d_vocab": SYMBOLS + 1, "init_std": 0.18}
STACKS = {"n_layers_encoder": 1, "n_layers_decoder": 1, **SHAPE}


def strings(count: int, seed: int) -> torch.Tensor:
    """Rows of different symbols, so that what a token was copied from is one place."""
    draw = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([draw.permutation(SYMBOLS)[:LENGTH] for _ in range(count)]))


def prompts(count: int, seed: int) -> TokenBatch:
    """A string, a separator, and the string again."""
    once, between = strings(count, seed), torch.full((count, 1), SEPARATOR)
    rows = torch.cat([once, between, once], 1)
    return TokenBatch(rows[:, :-1], torch.where(torch.arange(2 * LENGTH) < LENGTH, IGNORE, rows[:, 1:]))


def sources(count: int, seed: int) -> SequenceBatch:
    """A string to be written again."""
    once, between = strings(count, seed), torch.full((count, 1), SEPARATOR)
    return SequenceBatch(once, torch.cat([between, once[:, :-1]], 1), once)


def tones(count: int, seed: int) -> SequenceBatch:
    """A tone of two frames and a pause of two for each symbol of a string, which is to be written down."""
    rows, draw = sources(count, seed), np.random.default_rng(seed + 1)
    mel = draw.normal(0, 0.2, (count, SYMBOLS, 4 * LENGTH)).astype(np.float32)
    for row, string in enumerate(rows.source.tolist()):
        for step, band in enumerate(string):
            mel[row, band, 4 * step : 4 * step + 2] += 3
    return replace(rows, source=torch.from_numpy(mel))


def copying(family: str, seed: int) -> Any:
    if family == "gpt":
        return GPT(GPTConfig(**SHAPE, n_layers=1, n_ctx=2 * LENGTH, positions="learned"), seed=seed)
    if family == "seq2seq":
        return Seq2Seq(Seq2SeqConfig(**STACKS, n_ctx=LENGTH, positions="learned"), seed=seed)
    return Whisper(WhisperConfig(**STACKS, n_mels=SYMBOLS, n_ctx_source=2 * LENGTH, n_ctx=LENGTH), seed=seed)


@pytest.mark.parametrize(
    ("family", "make", "steps", "places"),
    [
        pytest.param("gpt", prompts, 120, 1, marks=pytest.mark.slow),
        pytest.param("seq2seq", sources, 200, 1, marks=pytest.mark.full),
        pytest.param("whisper", tones, 250, 2, marks=pytest.mark.full),  # a tone is heard at its own place and at the next
    ],
)
def test_a_copying_model_reads_each_token_from_its_source_and_an_untrained_one_does_not(
    family: str, make: Any, steps: int, places: int
) -> None:
    """Token i is a copy of symbol i: the first candidate of its row, over source and written tokens, is that symbol's place."""
    model, rows = trained(copying(family, 0), make, steps), make(ITEMS, 7)
    if family == "gpt":
        inputs = Inputs(rows.tokens[:, : LENGTH + 1])
    else:
        inputs = Inputs(replace(rows, tokens=rows.tokens[:, :1], targets=None))
    where = np.tile(np.arange(LENGTH) * places, (ITEMS, 1))
    for method in ("integrated-gradients", "occlusion"):
        found, silent = (asked(one, inputs, method=method, most=LENGTH) for one in (model, copying(family, 1).eval()))
        assert (found.values.target_id.values == strings(ITEMS, 7).numpy()).all(), "it copies"
        hit, missed = pointed(found, where, width=places), pointed(silent, where, width=places)
        assert hit.rate >= (0.95 if family != "whisper" else 0.8)
        assert missed.rate <= 0.25
        assert hit.chance == missed.chance < 0.2


def test_pointing_says_what_it_was_asked_and_ties_count_against_it() -> None:
    result = asked(StandIn(), Inputs(torch.tensor([[1, 2, 3]])), most=1)
    numbers = result.values.attribution.values
    numbers[0, 0] = [1.0, -2.0, 1.0]
    at: Any = lambda place, **how: pointed(result, np.array([[place]]), **how)  # noqa: E731
    assert (at(1).rate, at(0).rate, at(0, by="signed").rate, at(0, width=3).rate) == (1, 0, 0, 1)
    assert at(1).chance == pytest.approx(1 / 3)
    with pytest.raises(BadValue, match="place of a candidate"):
        at(9)
    with pytest.raises(BadValue, match="at least one"):
        at(-1)
    with pytest.raises(BadValue, match="shape of where"):
        pointed(result, np.array([[1, 2]]))
