"""Erasing a concept that is planted: gone where it is written, back where it is written again, and gone once every site is scrubbed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from probes.concept_erasers import Eraser, leace
from probes.erasure import INSTRUMENT, ErasureSpec, _bench
from probes.erasure_parts import read_parts
from probes.erasure_result import EVERY, NOTHING, ErasureResult
from probes.erasure_runs import erasing
from probes.ridge import Moments, one_hot
from probes.token_items import read_items
from tests.probes.rewritten import NO, YES, Rewritten, rewritten
from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue, EmptySelection, Incompatible, UnknownName, UsageError
from workbench.core.protocol import Inputs
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.families.bert import BERT, BERTConfig
from workbench.organisms import planted_direction as organism
from workbench.organisms.planted_direction import Planted, planted_direction

FIRST, *LAYERS = SITES = ("blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(3)))
CHANCE = 0.5


def asked(
    model: Any, ids: Any, labels: Any, *, answers: tuple[int, int] | None = (YES, NO), texts: Any = None, **spec: Any
) -> ErasureResult:
    n = len(ids)
    given: dict[str, Any] = {}
    if answers is not None:
        given = {"targets": torch.full((n,), answers[0]), "foils": torch.full((n,), answers[1])}
    words = {"randoms": 3, "resamples": 400} | ({"quantity": "logit-difference"} if answers is not None else {})
    found = INSTRUMENT(model, Inputs(ids, labels=labels, texts=texts, **given), INSTRUMENT.spec.parse(words | spec))
    assert isinstance(found, ErasureResult)
    return found


@pytest.fixture(scope="module")
def twice() -> Rewritten:
    return rewritten()


@pytest.fixture(scope="module")
def found(twice: Rewritten) -> ErasureResult:
    ids, differ = twice.sentences()
    return asked(twice.model, ids, differ)


def at_chance(found: ErasureResult, erased: str, site: str) -> bool:
    at = found.values.sel(who="erased", erased=erased, site=site)
    return bool(at["accuracy_low"] <= CHANCE <= at["accuracy_high"]) and float(at["accuracy_high"]) < 0.65


def of(found: ErasureResult, name: str, erased: str, who: str = "erased") -> float:
    return float(found.values[name].sel(who=who, erased=erased))


# --- written twice: a single site is undone, scrubbing is not -----------------------------------------------------


def test_as_it_is_the_concept_is_read_everywhere_and_the_gap_is_the_planted_one(found: ErasureResult) -> None:
    assert (found.values["accuracy"].sel(who="erased", erased=NOTHING) == 1.0).all()
    assert of(found, "gap", NOTHING) == pytest.approx(4 * (1.0 + 1.0), rel=1e-5)
    assert float(found.values["gap_null"].sel(erased=NOTHING)) < 2.0
    assert float(found.values["gap_p"].sel(erased=NOTHING)) == 0.001


def test_erased_with_the_embedding_alone_it_is_gone_there_and_back_where_it_is_written_again(found: ErasureResult) -> None:
    for site in (FIRST, LAYERS[0]):
        assert at_chance(found, FIRST, site)
    for site in LAYERS[1:]:
        assert float(found.values["accuracy"].sel(who="erased", erased=FIRST, site=site)) > 0.99
    assert of(found, "gap", FIRST) == pytest.approx(4 * 1.0, rel=0.1), "what the later layer writes"
    assert of(found, "gap_low", FIRST) > float(found.values["gap_null"].sel(erased=FIRST))


def test_scrubbed_at_every_site_it_is_at_chance_and_the_gap_within_its_null(found: ErasureResult) -> None:
    assert all(at_chance(found, EVERY, site) for site in SITES)
    gap, null = of(found, "gap", EVERY), float(found.values["gap_null"].sel(erased=EVERY))
    assert abs(gap) <= null < 0.25 * 4
    assert float(found.values["gap_p"].sel(erased=EVERY)) > 0.05
    assert found.values["rank"].sel(erased=EVERY).values.tolist() == [1, 0, 1, 0], "where it is written, and no second time for nothing"


def test_erased_late_alone_the_answer_is_without_it_and_earlier_sites_are_not(found: ErasureResult) -> None:
    """The last site is all that the answer reads, so there a single eraser closes the gap; probes before it still read the concept."""
    last = LAYERS[-1]
    assert abs(of(found, "gap", last)) <= float(found.values["gap_null"].sel(erased=last))
    assert (found.values["accuracy"].sel(who="erased", erased=last, site=list(SITES[:-1])) == 1.0).all()


def test_random_projections_of_the_same_rank_leave_it(found: ErasureResult) -> None:
    random = found.values.sel(who="random", erased=EVERY)
    assert (random["accuracy"] > 0.95).all()
    assert float(random["gap"]) > 0.5 * 8
    said = found.summary()
    assert f"Erased at {found.best_alone} alone, the best single site: probes are right on at most 1 " in said
    assert "Scrubbed at every site: probes are right on at most 0." in said
    assert "Random projections of the same ranks at every site leave probes right on up to 0.99" in said


@pytest.mark.slow
def test_null_space_projection_scrubs_it_too(twice: Rewritten) -> None:
    ids, differ = twice.sentences()
    other = asked(twice.model, ids, differ, way="inlp")
    assert all(at_chance(other, EVERY, site) for site in SITES)
    assert abs(of(other, "gap", EVERY)) < 0.05 * 8
    assert of(other, "gap", FIRST) > 0.4 * 8
    assert (other.values["rank"].sel(erased=EVERY, site=[FIRST, LAYERS[1]]) >= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("probe", ["logistic", "mlp"])
def test_what_a_bent_probe_still_reads(twice: Rewritten, probe: str) -> None:
    """Erasing is of what linear maps read. The bits are still there, and a probe that computes c from them is not at chance."""
    ids, differ = twice.sentences()
    found = asked(twice.model, ids, differ, probe=probe, sites=[FIRST], randoms=2, strength=1e-3)
    accuracy = float(found.values["accuracy"].sel(who="erased", erased=EVERY, site=FIRST))
    assert accuracy > 0.75 if probe == "mlp" else accuracy < 0.65


# --- the planted direction: written once, from layer 1 on ----------------------------------------------------------


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_direction(d_model=48, words=80)


@pytest.fixture(scope="module")
def once(planted: Planted) -> ErasureResult:
    ids, differ = planted.sentences(2000)
    return asked(planted.model, ids, differ, answers=(organism.YES, organism.NO))


@pytest.mark.slow
def test_erased_where_it_is_written_it_is_at_chance_and_the_gap_within_its_null(once: ErasureResult) -> None:
    at, later = LAYERS[1], LAYERS[2]
    assert (once.values["accuracy"].sel(who="erased", erased=NOTHING, site=[at, later]) > 0.98).all()
    assert of(once, "gap", NOTHING) > 7.5
    for erased in (at, EVERY):
        assert at_chance(once, erased, at)
        assert at_chance(once, erased, later)
        assert abs(of(once, "gap", erased)) <= float(once.values["gap_null"].sel(erased=erased)) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("erased", [FIRST, LAYERS[0]])
def test_erased_before_it_is_written_nothing_comes_of_it(once: ErasureResult, erased: str) -> None:
    """There is no linear trace of it there: what is erased is the sample's noise, which costs what a random direction does."""
    assert at_chance(once, NOTHING, erased)
    assert float(once.values["accuracy"].sel(who="erased", erased=erased, site=LAYERS[1])) > 0.95
    assert of(once, "gap", erased) > 0.85 * of(once, "gap", NOTHING)


@pytest.mark.slow
def test_an_eraser_for_each_position_does_as_much(planted: Planted, once: ErasureResult) -> None:
    ids, differ = planted.sentences(2000)
    each = asked(planted.model, ids, differ, answers=(organism.YES, organism.NO), where="each", sites=[LAYERS[1]], randoms=2)
    assert at_chance(each, EVERY, LAYERS[1])
    same = once.values["gap"].sel(who="erased", erased=LAYERS[1])
    assert of(each, "gap", EVERY) == pytest.approx(float(same), abs=1e-3), "at the last position it is the same eraser"


# --- a slow twin ----------------------------------------------------------------------------------------------------


def test_scrubbing_is_fitted_in_order_to_what_was_left_and_made_where_it_says(twice: Rewritten) -> None:
    """Two sites by hand, in the model's own order: the second eraser is of the model that the first has changed."""
    ids, differ = twice.sentences()
    spec = ErasureSpec.parse({"sites": [FIRST, LAYERS[1]], "randoms": 2, "resamples": 400, "where": "labelled"})
    inputs = Inputs(ids, labels=differ)
    items = read_items(twice.model, inputs)
    parts = read_parts(items, inputs, spec)
    bench = _bench(twice.model, inputs, items, parts, spec)
    scrubbed = bench.scrubbed()

    rows = np.setdiff1d(np.arange(len(ids)), parts.rows)
    mine, y = ids[rows], differ[rows]
    last = torch.tensor([[False, True]]).expand(len(rows), 2)
    by_hand: dict[str, Any] = {}
    for site in (FIRST, LAYERS[1]):
        edits = [erasing(name, eraser, last) for name, eraser in by_hand.items()]
        x = twice.model.run(mine, capture=site, edit=edits)[site][:, -1]
        sums = Moments()
        sums.add(x, one_hot(y[:, None], 2))
        by_hand[site] = leace(sums)
    for site, eraser in by_hand.items():
        again = scrubbed[site]
        assert isinstance(again, Eraser)
        assert torch.allclose(again.left @ again.right.T, eraser.left @ eraser.right.T, atol=1e-9)
        assert torch.allclose(again.mean, eraser.mean, atol=1e-9)
    both = twice.model.run(mine, capture="*", edit=[erasing(s, e, last) for s, e in by_hand.items()])
    plain = twice.model.run(mine, capture="*")
    for site in SITES:
        assert torch.equal(both[site][:, 0], plain[site][:, 0]), "nothing at the token that has no label"
    z = y.double() - y.double().mean()
    for site in (FIRST, LAYERS[1]):
        assert float((z @ both[site][:, -1].double()).abs().max() / len(z)) < 1e-6


def test_parts_are_by_groups_and_no_sentence_is_in_two(twice: Rewritten) -> None:
    ids, differ = twice.sentences()
    ids = torch.cat([ids, ids])  # every sentence twice
    inputs = Inputs(ids, labels=torch.cat([differ, differ]))
    parts = read_parts(read_items(twice.model, inputs), inputs, ErasureSpec())
    sets = [
        {tuple(row) for row in some.tolist()}
        for some in (parts.fit.items.ids, parts.held.items.ids[~parts.test], parts.held.items.ids[parts.test])
    ]
    assert sum(map(len, sets)) == len(set.union(*sets)) == len(differ)
    assert [len(one) for one in sets] == [400, 200, 200]
    assert parts.fitted == 400


def test_an_edit_of_heads_is_of_one_vector_over_all_of_them() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 6, generator=draw, dtype=torch.float64), torch.arange(50) % 2
    sums = Moments()
    sums.add(x, one_hot(y[:, None], 2))
    eraser = leace(sums)
    old = x.view(25, 2, 2, 3)
    new = erasing("blocks.0.attn.hook_z", eraser).apply(old, Site("blocks.0.attn.hook_z", ("batch", "pos", "head", "d_head")))
    assert torch.allclose(new.reshape(50, 6), eraser(x), atol=1e-12)


# --- labels of tokens, several classes, encoders, texts ---------------------------------------------------------------


@pytest.mark.slow
def test_classes_of_tokens_in_an_encoder() -> None:
    """Three classes written in the embeddings of an encoder: read at the first site, and no longer once scrubbed."""
    draw = torch.Generator().manual_seed(0)
    model = BERT(BERTConfig(n_layers=2, d_model=16, n_heads=2, d_vocab=62, n_ctx=8), None, seed=0).eval()
    with torch.no_grad():
        word = model.weight("W_E")
        word[:, :3] += 3 * torch.nn.functional.one_hot(torch.arange(62) % 3, 3)
    ids = torch.randint(2, 62, (300, 6), generator=draw)
    labels = torch.where(torch.arange(6) > 0, ids % 3, IGNORE)
    found = asked(model, ids, labels, answers=None, sites=["blocks.0.hook_resid_pre", "blocks.*.hook_resid_post"], randoms=2)
    plain, scrubbed, random = (found.values["accuracy"].sel(who=who, erased=erased)
                               for who, erased in (("erased", NOTHING), ("erased", EVERY), ("random", EVERY)))  # fmt: skip
    assert float(plain.isel(site=0)) > 0.98
    assert float(scrubbed.max()) < 0.45
    assert float(random.isel(site=0)) > 0.9
    assert (found.values["rank"].sel(erased=EVERY) == 2).all()
    assert np.isnan(found.values["gap"]).all()
    assert np.isnan(found.values["loss_change"]).all()
    assert "this model does not predict the next token" in found.summary()


def test_a_model_that_only_has_streams_is_probed_and_not_followed() -> None:
    model = BERT(BERTConfig(n_layers=1, d_model=8, n_heads=2, d_vocab=40, n_ctx=8, head="none"), None, seed=0).eval()
    ids = torch.randint(2, 40, (60, 4), generator=torch.Generator().manual_seed(0))
    given = Inputs(ids, labels=ids[:, -1] % 2)
    spec = INSTRUMENT.spec.parse({"randoms": 2, "resamples": 400})
    found = INSTRUMENT(model, given, spec)
    assert np.isfinite(found.values["accuracy"]).all()
    assert np.isnan(float(found.values["loss"]))
    assert "few for 8 features: other tokens may still tell much" in found.summary()
    with pytest.raises(Incompatible, match="does not offer logits"):
        INSTRUMENT(model, replace(given, targets=torch.zeros(60).long()), spec)


def test_the_price_is_of_the_texts_where_there_are_texts_and_survives_storage() -> None:
    from tests.probes.standin import Letters
    from workbench.families.gpt import GPT, GPTConfig

    words = Letters()
    model = GPT(GPTConfig(n_layers=1, d_model=8, n_heads=2, d_vocab=words.vocab_size, n_ctx=12, tied=False), words, seed=0)
    texts = [f"{a}{b}{c}" for a in "abcd" for b in "efgh" for c in "ij"]
    spec = {"sites": ["blocks.0.hook_resid_post"], "randoms": 2}
    found = asked(model, texts, np.arange(32) % 2, answers=None, texts=["aaaa", "bcdbcd"], **spec)
    ids = [[words.bos_id, *words.encode(text)] for text in ("aaaa", "bcdbcd")]
    by_hand = []
    for row in ids:
        logits = model.run(torch.tensor([row])).logits
        assert logits is not None
        by_hand.append(float(torch.nn.functional.cross_entropy(logits[0, :-1].double(), torch.tensor(row[1:]))))
    assert float(found.values["loss"]) == pytest.approx(np.mean(by_hand), rel=1e-6)
    assert Result.from_json(found.to_json()).digest() == found.digest()


def test_what_cannot_be_meant_is_refused(twice: Rewritten) -> None:
    ids, differ = twice.sentences()
    ids, differ = ids[:80], differ[:80]
    few = {"sites": [FIRST], "randoms": 2}
    with pytest.raises(BadValue, match="fewer|at least two that occur"):
        asked(twice.model, ids, torch.zeros(80).long(), **few)
    with pytest.raises(BadValue, match=r"at least 4: some to fit erasers to"):
        INSTRUMENT(twice.model, Inputs(ids, labels=differ, groups=["one", "two"] * 40), INSTRUMENT.spec.parse(few))
    with pytest.raises(BadValue, match=r"concept is '2'.*0, 1"):
        asked(twice.model, ids, differ, concept="2", **few)
    with pytest.raises(UnknownName, match=r"label set.*'shape'"):
        of_two_sets(twice, ids, differ, "shape", few)
    by_token = torch.stack([torch.full((80,), IGNORE), differ], 1)
    for where in ("spread", "each"):
        with pytest.raises(BadValue, match=f"where is '{where}'.*'all' or 'labelled'"):
            asked(twice.model, ids, by_token, where=where, **few)
    given = Inputs(ids, lengths=1 + torch.arange(80) % 2, labels=differ)
    with pytest.raises(BadValue, match="different lengths"):
        INSTRUMENT(twice.model, given, INSTRUMENT.spec.parse(few | {"where": "each"}))
    with pytest.raises(BadValue, match=r"inputs\.foils is .given., but it must be left out"):
        INSTRUMENT(twice.model, Inputs(ids, labels=differ, foils=torch.full((80,), NO)), INSTRUMENT.spec.parse(few))
    with pytest.raises(BadValue, match="max_cells"):
        asked(twice.model, ids, differ, way="inlp", max_cells=10, **few)
    groups = [f"{row % 4}" for row in range(80)]
    spec = INSTRUMENT.spec.parse(few | {"way": "inlp", "test_share": 0.25, "probe_share": 0.5})
    with pytest.raises(BadValue, match="way=inlp, which checks itself"):
        INSTRUMENT(twice.model, Inputs(ids, labels=differ, groups=groups), spec)
    with pytest.raises(EmptySelection):
        asked(twice.model, ids, differ, sites=["blocks.9.hook_resid_post"])
    with pytest.raises(UsageError, match="below 1, not 1"):
        INSTRUMENT.spec.parse({"test_share": 0.5, "probe_share": 0.5})


def of_two_sets(twice: Rewritten, ids: Any, labels: Any, name: str, spec: dict[str, Any]) -> Any:
    return INSTRUMENT(twice.model, Inputs(ids, labels={"c": labels, "d": labels}), INSTRUMENT.spec.parse(spec | {"labels": name}))


def test_of_several_label_sets_the_first_or_the_named_one_is_erased_and_the_result_says_so(twice: Rewritten) -> None:
    ids, differ = twice.sentences()
    other = torch.from_numpy(np.random.default_rng(0).integers(0, 2, len(differ)))
    spec = INSTRUMENT.spec.parse({"sites": [FIRST], "randoms": 2, "resamples": 400})
    first = INSTRUMENT(twice.model, Inputs(ids, labels={"c": differ, "d": other}), spec)
    named = INSTRUMENT(twice.model, Inputs(ids, labels={"d": other, "c": differ}), spec.model_copy(update={"labels": "c"}))
    assert "Of the label sets c, d, 'c' was erased." in first.summary()
    assert np.array_equal(first.values["accuracy"].values, named.values["accuracy"].values)
