"""Steering on a model in which a direction is planted: a known response to a known push, at its layer and at no earlier one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from probes.steering import INSTRUMENT, SteeringResult
from probes.steering_runs import Push
from tests.probes.standin import Letters
from workbench.core.errors import BadValue, UsageError
from workbench.core.protocol import Inputs
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms.planted_direction import NO, YES, Planted, planted_direction

AT, BEFORE, LAST = (f"blocks.{layer}.hook_resid_post" for layer in (1, 0, 2))
DOSE = 2.0


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_direction(dose=DOSE)


def asked(planted: Planted, n: int = 200, *, labels: Any = None, reference: Any = None, **spec: Any) -> SteeringResult:
    ids, differ = planted.sentences(n)
    given = Inputs(
        ids, labels=differ if labels is None else labels, reference=reference, targets=torch.full((n,), YES), foils=torch.full((n,), NO)
    )
    words = {"sites": [BEFORE, AT], "quantity": "logit-difference", "randoms": 20, "doses": [1.0, 2.0]}
    found = INSTRUMENT(planted.model, given, INSTRUMENT.spec.parse(words | spec))
    assert isinstance(found, SteeringResult)
    return found


@pytest.fixture(scope="module")
def exact(planted: Planted) -> SteeringResult:
    """Along the planted direction itself, whose effect is known: the two answers' logits are the stream along it, and minus that."""
    return asked(planted, reference=planted.direction * 2 * DOSE, sites=[AT, LAST])


@pytest.mark.slow
def test_the_response_to_a_push_along_the_planted_direction_is_what_the_weights_say(exact: SteeringResult) -> None:
    own = exact.values.sel(who="direction")
    for site in (AT, LAST):  # nothing between the two sites and the answer changes the push
        at = own.sel(site=site)
        assert at["change"].values == pytest.approx([2 * 2 * DOSE * dose for dose in (1.0, 2.0)], rel=1e-5)
        assert np.allclose(at["change_low"], at["change"], rtol=1e-4)
        assert float(at["unit"]) == pytest.approx(2 * DOSE, rel=1e-6)
    assert (exact.values["change_p"] <= 2 / 21 + 1e-12).all(), "hardly one of 20 random directions does as much"
    assert (abs(exact.values["change"].sel(who="random")) < 0.35 * abs(own["change"])).all()


@pytest.mark.slow
def test_taken_out_the_answer_no_longer_depends_on_what_was_planted(planted: Planted, exact: SteeringResult) -> None:
    ids, _ = planted.sentences(40)
    push = Push(AT, planted.direction.double(), None)
    logits = planted.model.run(ids, edit=[push.edit()]).logits
    assert logits is not None
    assert torch.allclose(logits[:, -1, YES] - logits[:, -1, NO], torch.zeros(40), atol=1e-5)
    one = exact.values.sel(site=AT, who="direction")
    assert float(one["ablated_change"]) == pytest.approx(-float(exact.values["answer"]), abs=1e-4)


@pytest.mark.slow
def test_the_fitted_direction_moves_the_answer_at_its_layer_and_not_before_it(planted: Planted) -> None:
    found = asked(planted).values
    there, before = (found.sel(site=site, who="direction") for site in (AT, BEFORE))
    assert float(there["change"].sel(dose=1.0)) == pytest.approx(4 * DOSE, rel=0.02)
    assert float(there["change_low"].sel(dose=1.0)) > 7.0
    assert (found["change_p"].sel(site=AT) <= 2 / 21 + 1e-12).all()
    assert float(abs(before["change"].sel(dose=1.0))) < 0.15 * 4 * DOSE, "before the layer the means are told apart by chance alone"
    assert (found["change_p"].sel(site=BEFORE) > 0.05).all()


@pytest.mark.slow
def test_a_label_that_is_not_in_the_network_moves_no_more_than_random_directions(planted: Planted) -> None:
    labels = np.random.default_rng(5).integers(0, 2, 200)
    found = asked(planted, labels=labels, sites=[AT]).values
    assert float(abs(found["change"].sel(site=AT, who="direction", dose=1.0))) < 0.15 * 4 * DOSE


@pytest.mark.slow
def test_the_price_is_the_next_token_loss_and_grows_with_the_dose(planted: Planted, exact: SteeringResult) -> None:
    ids, _ = planted.sentences(20)
    push = Push(AT, planted.direction.double(), 3.0)
    logits = planted.model.run(ids, edit=[push.edit()]).logits
    assert logits is not None
    by_hand = [-sum(float(logits[row, p].double().log_softmax(-1)[ids[row, p + 1]]) for p in range(2)) / 2 for row in range(20)]
    runs = {"sites": [AT], "doses": [3.0 / (2 * DOSE)], "randoms": 2, "test_share": 0.5}
    found = asked(planted, 20, reference=planted.direction * 2 * DOSE, **runs)
    held = found.values["loss"].item() + found.values["loss_change"].sel(site=AT, who="direction").item()
    assert min(by_hand) <= held <= max(by_hand)
    cost = exact.values["loss_change"].sel(site=AT, who="direction")
    assert float(cost.sel(dose=2.0)) > float(cost.sel(dose=1.0))


@pytest.mark.parametrize("where", ["all", "last"])
def test_a_push_is_made_where_it_is_asked_for(planted: Planted, where: str) -> None:
    ids, _ = planted.sentences(3)
    last = torch.arange(3) == torch.tensor([2, 1, 0])[:, None]
    push = Push(AT, planted.direction.double(), 2.5, where)
    plain = planted.model.run(ids, capture=AT)[AT]
    moved = planted.model.run(ids, capture=AT, edit=[push.edit(last if where == "last" else None)])[AT]
    expected = 2.5 * planted.direction * (last[..., None] if where == "last" else 1.0)
    assert torch.allclose(moved - plain, expected.expand_as(plain), atol=1e-5)


def test_a_push_of_heads_is_one_vector_over_all_of_them() -> None:
    site = Site("blocks.0.attn.hook_z", ("batch", "pos", "head", "d_head"))
    draw = torch.Generator().manual_seed(0)
    along = torch.nn.functional.normalize(torch.randn(6, generator=draw), dim=0)
    old = torch.randn(2, 3, 2, 3, generator=draw)
    gone = Push(site.name, along, None).edit().apply(old, site)
    assert torch.allclose(gone.flatten(2) @ along, torch.zeros(2, 3), atol=1e-6)
    kept = old.flatten(2) - (old.flatten(2) @ along)[..., None] * along
    assert torch.allclose(gone.flatten(2), kept, atol=1e-6)


def test_what_is_written_before_and_after(planted: Planted) -> None:
    """An answer's letter is written under a push towards it, whatever the text."""
    words = Letters()
    model = GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=words.vocab_size, n_ctx=24, tied=False), words, seed=0)
    letter = words.encode("e")[0]
    texts = [f"a{c}{d}" for c in "bcdfgh" for d in "ijk"]
    given = Inputs(texts, labels=np.arange(18) % 2, targets=torch.full((18,), letter), reference=model.weight("W_U")[:, letter] * 1e4)
    spec = INSTRUMENT.spec.parse({"sites": ["blocks.0.hook_resid_post"], "doses": [-1.0, 1.0], "randoms": 2, "write": 3})
    found = INSTRUMENT(model, given, spec)
    written = found.values["written"].isel(site=0)
    assert written.dims == ("version", "prompt")
    assert set(written.sel(version="dose 1").values) == {"eee"}
    assert set(written.sel(version="plain").values) != {"eee"}
    assert Result.from_json(found.to_json()).digest() == found.digest()


@pytest.mark.slow
def test_the_summary_says_response_price_and_null_and_the_chart_has_both(exact: SteeringResult) -> None:
    said = exact.summary()
    assert f"At {AT}, where the answer moves most (2 sites asked), dose 2 changes it by +16 [+16, +16]" in said
    assert "The price is +" in said
    assert len(exact.plot().to_dict()["concat"]) == 2


def test_what_cannot_be_meant_is_refused(planted: Planted) -> None:
    with pytest.raises(BadValue, match="2 label sets"):
        asked(planted, 40, labels={"a": np.arange(40) % 2, "b": np.arange(40) % 2})
    with pytest.raises(BadValue, match=r"inputs\.reference is '\(3,\)'.*24 finite numbers"):
        asked(planted, 40, reference=torch.ones(3))
    with pytest.raises(BadValue, match="24 finite numbers"):
        asked(planted, 40, reference=torch.zeros(24))
    for doses in ([0.0], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(UsageError, match="ascending, each once, and not 0"):
            INSTRUMENT.spec.parse({"doses": doses})
