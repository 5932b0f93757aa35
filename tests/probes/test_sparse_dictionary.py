"""The instrument: planted directions are found and their loss recovered, an untrained model has none; scores of truth; sources of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from probes.dictionaries.baselines import random_twin
from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.evaluation import Tally
from probes.dictionaries.files import save
from probes.dictionaries.recovery import recovered
from probes.dictionaries.sources import from_harvest, from_model, origin_of
from probes.dictionaries.spec import KINDS, DictionarySpec, Origin, TrainingSpec
from probes.dictionaries.training import train
from probes.sparse_dictionary import INSTRUMENT, SparseDictionarySpec
from tests.families.models import build, tokens
from workbench.core.errors import BadValue, EmptySelection, Incompatible, UnknownName
from workbench.core.protocol import Add, Inputs, Replace
from workbench.data.worlds.features import Features, FeaturesSpec
from workbench.engine.corpus import TokenCorpus
from workbench.engine.harvest import HarvestSpec, harvest
from workbench.engine.harvest_read import Harvest
from workbench.families.gpt import GPT, GPTConfig

WORDS, WIDTH, SITE = 20, 12, "blocks.0.hook_resid_post"


def follows(seed: int = 0) -> tuple[GPT, Tensor]:
    """A model whose stream holds one of 20 directions in 12 dimensions, that of its token, and whose answer is the next number; and those
    directions. The layer does nothing."""
    config = GPTConfig(
        n_layers=1, d_model=WIDTH, n_heads=2, d_vocab=WORDS, n_ctx=16, act="none", positions="rope", tied=False, bias=False,
        norm_placement="none",
    )  # fmt: skip
    model = GPT(config, seed=seed)
    directions = torch.randn(WORDS, WIDTH, generator=torch.Generator().manual_seed(seed + 500))
    directions /= directions.norm(dim=1, keepdim=True)
    with torch.no_grad():
        model.weight("blocks.0.attn.W_O").zero_()
        model.embed.token.weight.copy_(3 * directions)
        model.weight("W_U").copy_(4 * directions.roll(1, 0).T)
    return model, directions


def walks(rows: int, seed: int, length: int = 12) -> Tensor:
    """Rows that count on from a random number."""
    first = torch.randint(0, WORDS, (rows, 1), generator=torch.Generator().manual_seed(seed))
    return (first + torch.arange(length)) % WORDS


SPEC: dict[str, Any] = {"k": 1, "d_sae": 32, "steps": 300, "rows": 128, "lr": 0.02, "resamples": 400, "site": SITE}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_planted_directions_are_found_and_the_loss_they_carry_recovered(kind: str) -> None:
    model, _ = follows()
    rows = (torch.arange(WORDS)[:, None] + torch.arange(12)) % WORDS
    v: Any = INSTRUMENT(model, Inputs(rows), SparseDictionarySpec.parse({**SPEC, "kind": kind, "test_share": 0.4})).values
    trained, frozen, random = (v.sel(dictionary=name) for name in ("trained", "frozen", "random"))
    least = 0.95 if kind == "topk" else 0.85
    for one in ("zero", "mean"):
        assert float(trained.recovered.sel(ablation=one)) > least, (kind, one)
        assert float(random.recovered.sel(ablation=one)) < float(trained.recovered_low.sel(ablation=one))
    if kind != "topk":  # so few steps do not hold the others to one active feature, and more of them rebuild without directions
        return
    for one in ("zero", "mean"):
        assert float(frozen.recovered.sel(ablation=one)) < float(trained.recovered_low.sel(ablation=one))
    assert float(trained.explained) > 0.95
    assert float(frozen.explained) < 0.9
    shown = v.shown_feature.values
    pieces = v.raised.values
    for i in range(min(5, len(shown))):  # each feature is a token: its examples are that token, and it raises what follows
        words = {text.partition("«")[2] for text in v.example.values[i] if text}
        assert len(words) == 1
        assert pieces[i, 0] == str((int(words.pop().strip("»")) + 1) % WORDS)


def test_scores_are_the_formulas_written_out(tmp_path: Path) -> None:
    model, _ = follows()
    rows = walks(12, 3)
    rows[:, 4] = (rows[:, 4] + torch.arange(12)) % WORDS
    d = Dictionary(DictionarySpec(d_in=WIDTH, d_sae=30, k=2), seed=3, origin=Origin(model_digest=model.digest(), site=SITE))
    with torch.no_grad():
        d.decoder_bias.add_(0.2)
    save(tmp_path, d)
    v: Any = INSTRUMENT(model, Inputs(rows), SparseDictionarySpec.parse({**SPEC, "dictionary": str(tmp_path)})).values
    x = model.run(rows, capture=SITE)[SITE]

    def loss(value: Tensor | None) -> float:
        logits = model.run(rows, edit=[] if value is None else [Replace(SITE, value=value)]).logits
        assert logits is not None
        return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), rows[:, 1:].flatten()))

    flat = x.flatten(0, 1)
    zero, mean, kept, own = loss(torch.zeros_like(x)), loss(flat.mean(0).expand_as(x)), loss(d(x).detach()), loss(None)
    trained = v.sel(dictionary="trained")
    np.testing.assert_allclose(float(v.own_loss), own, rtol=1e-6)
    np.testing.assert_allclose(v.ablated_loss, [zero, mean], rtol=1e-6)
    np.testing.assert_allclose(float(trained.loss), kept, rtol=1e-6)
    np.testing.assert_allclose(trained.recovered, [(zero - kept) / (zero - own), (mean - kept) / (mean - own)], rtol=1e-5)
    error, spread = (d(flat).detach() - flat).square().sum(), (flat - flat.mean(0)).square().sum()
    np.testing.assert_allclose(float(trained.explained), 1 - float(error / spread), rtol=1e-5)
    active = d.encode(flat) > 0
    np.testing.assert_allclose(trained.density, active.double().mean(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(float(trained.active), float(active.sum(1).double().mean()), rtol=1e-12)
    assert float(trained.dead) == float((~active.any(0)).double().mean())
    assert "frozen" not in v.dictionary.values


def test_on_an_untrained_model_nothing_is_told_to_be_recovered() -> None:
    model = GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=WORDS, n_ctx=16), seed=4)
    found = INSTRUMENT(model, Inputs(walks(40, 7)), SparseDictionarySpec.parse({**SPEC, "site": "", "steps": 5}))
    values: Any = found.values
    told = values.recovered.values[np.isfinite(values.recovered.values)]
    notes = " ".join(found.notes)
    assert not len(told) or "nothing can be recovered" in notes
    found.plot()


def test_bad_input_of_the_instrument_is_an_error(tmp_path: Path) -> None:
    model, _ = follows()
    ask = lambda rows, **spec: INSTRUMENT(model, Inputs(rows), SparseDictionarySpec.parse({**SPEC, "steps": 2, **spec}))  # noqa: E731
    rows = walks(9, 1)
    with pytest.raises(BadValue, match="k is 33, and it must be at most d_sae = 32"):
        ask(rows, k=33)
    with pytest.raises((UnknownName, EmptySelection), match="hook_resid_pots"):
        ask(rows, site="blocks.0.hook_resid_pots")
    with pytest.raises(BadValue, match="one vector a token"):
        ask(rows, site="blocks.0.attn.hook_q")
    with pytest.raises(BadValue, match="different sentences"):
        ask(rows[:1])
    other = Dictionary(DictionarySpec(d_in=WIDTH, d_sae=30, k=2), origin=Origin(model="gpt", model_digest="ab" * 32, site=SITE))
    save(tmp_path, other)
    with pytest.raises(Incompatible, match="it was trained on a gpt model of digest abababababab, and this one has"):
        ask(rows, dictionary=str(tmp_path))


def test_a_feature_steers_by_its_direction() -> None:
    model, directions = follows()
    d = Dictionary(DictionarySpec(d_in=WIDTH, d_sae=WORDS, k=1))
    with torch.no_grad():
        d.decoder.copy_(directions)
    logits = model.run(torch.tensor([[0]]), edit=[Add(SITE, value=20 * d.direction(7))]).logits
    assert logits is not None
    assert int(logits[0, -1].argmax()) == 8


# --- known features -------------------------------------------------------------------------------------------------


def test_the_world_is_what_it_says() -> None:
    world = Features(FeaturesSpec(features=60, width=20, active=3.0, parents=4, children=2, zipf=1.0, groups=6, correlation=0.5))
    sample = world.sample(20_000, 0)
    fires = sample.strength > 0
    assert abs(fires.double().mean(0) - world.chance).max() < 0.02
    torch.testing.assert_close(sample.rows, sample.strength @ world.directions.float() + world.mean.float())
    torch.testing.assert_close(world.directions.norm(dim=1), torch.ones(60, dtype=torch.float64))
    children = (world.parent >= 0).nonzero()[:, 0]
    assert len(children) == 8
    for child in children.tolist():
        assert not bool((fires[:, child] & ~fires[:, world.parent[child]]).any())
    corr = np.corrcoef(fires[:, :18].double().T.numpy())
    same = np.arange(18)[:, None] % 6 == np.arange(18) % 6
    assert corr[same & ~np.eye(18, dtype=bool)].mean() > 0.1
    assert abs(corr[~same].mean()) < 0.02
    assert torch.equal(world.sample(5, 3).rows, world.sample(5, 3).rows)
    assert not torch.equal(world.sample(5, 3).rows, world.sample(5, 4).rows)
    with pytest.raises(BadValue, match="features"):
        FeaturesSpec.parse({"features": 10, "parents": 5})


def test_truth_scores_one_and_random_directions_do_not() -> None:
    world = Features(FeaturesSpec(features=40, width=60, active=3.0, parents=4, offset=0.0))
    sample = world.sample(3000, 0)
    fired = sample.strength > 0
    truth = Dictionary(DictionarySpec(kind="jumprelu", d_in=60, d_sae=40, k=3))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        truth.decoder.copy_(world.directions[order].float())
        truth.encoder.copy_(torch.linalg.pinv(world.directions).T[order].float())
        truth.threshold.fill_(0.05)
    found = recovered(truth, world.directions, sample.rows, fired, world.parent)
    assert found.similarity == pytest.approx(1.0, abs=1e-6)
    assert found.found == found.splitting == 1.0
    assert found.f1 == pytest.approx(1.0, abs=1e-9)
    assert found.absorption == 0.0
    assert order[torch.from_numpy(found.partner)].tolist() == list(range(40))
    absorbed = truth.copied()
    with torch.no_grad():  # a parent's feature is switched off by its first child: what absorption is
        for parent in range(4):
            child = int((world.parent == parent).nonzero()[0])
            at, by = int((order == parent).nonzero()[0]), int((order == child).nonzero()[0])
            absorbed.encoder[at] -= 5 * truth.encoder[by]
    again = recovered(absorbed, world.directions, sample.rows, fired, world.parent)
    assert again.absorption > 0.4
    assert again.similarity == pytest.approx(1.0, abs=1e-6)
    random = recovered(random_twin(truth, 3.0, 1), world.directions, sample.rows, fired, world.parent)
    assert random.similarity < 0.5
    assert random.found == 0.0
    assert random.f1 < 0.5
    with pytest.raises(BadValue, match="the truth"):
        recovered(truth, world.directions[:39], sample.rows, fired)


@pytest.mark.slow
def test_a_trained_dictionary_finds_known_features_and_a_frozen_one_does_not() -> None:
    world = Features(FeaturesSpec(features=24, width=12, active=1.5))
    pool, held = world.sample(8192, 1).rows, world.sample(2000, 0)
    scores = {}
    for frozen in (False, True):
        d = Dictionary(DictionarySpec(d_in=12, d_sae=24, k=2), seed=0)
        train(
            d, lambda first: iter(pool.split(128)[first:] * 20), TrainingSpec(steps=600, rows=128, lr=0.01, frozen=frozen, dead_after=4000)
        )
        scores[frozen] = recovered(d, world.directions, held.rows, held.strength > 0)
    assert scores[False].similarity > 0.9
    assert scores[True].similarity < 0.75
    assert scores[False].f1 > scores[True].f1 + 0.2


def test_tallies_add_up_whatever_the_parts() -> None:
    d = Dictionary(DictionarySpec(d_in=6, d_sae=10, k=2))
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    whole, parts = Tally(d, 3), Tally(d, 3)
    whole.add(x, x, torch.arange(50))
    for part in torch.arange(50).split(7):
        parts.add(x[part], x[part], part)
    assert parts.explained == pytest.approx(whole.explained, rel=1e-6)
    assert torch.equal(parts.fired, whole.fired)
    assert torch.equal(parts.place, whole.place)
    best = d.encode(x).max(0)
    assert torch.equal(whole.best[:, 0], best.values)


# --- sources --------------------------------------------------------------------------------------------------------


def test_rows_come_from_a_harvest_or_a_model_and_go_on_from_any_batch(tmp_path: Path) -> None:
    model = build("plain")
    corpus = TokenCorpus(model, [row.tolist() for row in tokens(model, rows=20, length=8)])
    site, out = "blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out"
    harvest(model, corpus, tmp_path, HarvestSpec(sites=(site, out)))
    kept = Harvest.open(tmp_path)
    assert origin_of(kept, site, out) == Origin(
        model="gpt", model_digest=model.digest(), site=site, site_out=out, data_digest=corpus.digest()
    )
    sources = {
        "harvest": from_harvest(kept, site, 30, seed=1),
        "pairs": from_harvest(kept, site, 30, seed=1, site_out=out),
        "model": from_model(model, corpus, site, 4, seed=1),
        "model pairs": from_model(model, corpus, site, 4, seed=1, site_out=out, rows=20),
    }  # fmt: skip
    for name, source in sources.items():
        whole = [batch for batch, _ in zip(source(0), range(13), strict=False)]
        for number in (3, 6, 12):
            again = next(source(number))
            pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (again, whole[number])), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), name
    x, y = next(sources["pairs"](0))
    assert x.shape == y.shape == (30, 16)
    d = Dictionary(DictionarySpec(d_in=16, d_sae=24, k=3, d_out=16), origin=origin_of(kept, site, out))
    trainer = train(d, sources["pairs"], TrainingSpec(steps=60, rows=30, lr=0.01))
    assert trainer.history[-1]["loss"] < 0.7 * trainer.history[0]["loss"]
    with pytest.raises(BadValue, match="at most 160"):
        from_harvest(kept, site, 161)
    with pytest.raises(BadValue, match="from 1 to 20"):
        from_model(model, corpus, site, 21)


def test_a_transcoder_is_scored_at_its_output() -> None:
    model = build("plain")
    spec = {**SPEC, "k": 3, "site": "blocks.0.hook_mlp_in", "site_out": "blocks.0.hook_mlp_out", "steps": 20}
    found = INSTRUMENT(model, Inputs(tokens(model, rows=14, length=8)), SparseDictionarySpec.parse(spec))
    assert "and gives 'blocks.0.hook_mlp_out'" in found.notes[0]
    assert np.isfinite(found.values.explained.values).all()
