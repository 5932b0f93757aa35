"""Sparse dictionaries: gradients against a dense twin, normalisation and its fold, training that goes on to the same bits, bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from probes.dictionaries import files, folding
from probes.dictionaries.codes import top_of_batch, top_of_rows, where
from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.files import check_fits, load, save
from probes.dictionaries.folding import folded
from probes.dictionaries.gradients import auxiliary, gradients
from probes.dictionaries.normalisation import Normalisation, measured
from probes.dictionaries.spec import KINDS, DictionarySpec, Origin, TrainingSpec
from probes.dictionaries.training import Trainer, train
from tests.families.models import build
from tests.reference.dictionaries import dense_features, dense_forward, dense_loss
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingFile

SHAPES = ("autoencoder", "transcoder")


def shaken(kind: str, shape: str = "autoencoder", *, d_sae: int = 40, seed: int = 0) -> Dictionary:
    """A dictionary in float64 with every number away from its first value, and a normalisation."""
    spec = DictionarySpec.parse({"kind": kind, "d_in": 6, "d_sae": d_sae, "k": 3, "d_out": 5 if shape == "transcoder" else None})
    d = Dictionary(spec, seed=seed).double()
    draw = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in d.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64), alpha=0.2)
        d.decoder.div_(d.decoder.norm(dim=1, keepdim=True))
        if kind in ("jumprelu", "batch-topk"):
            d.threshold.copy_(0.4 + 0.2 * torch.rand(d.threshold.shape, generator=draw, dtype=torch.float64))
        norms = [
            Normalisation(torch.randn(w, generator=draw, dtype=torch.float64) + 2, torch.tensor(s))
            for w, s in ((6, 0.3), (spec.width_out, 1.7))
        ]
        d.normalise(*(norms if spec.transcoder else norms[:1]))
    return d


def rows(count: int, width: int = 6, seed: int = 3) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- what is read, and what a step does -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_reading_is_the_formulas_written_out(kind: str, shape: str) -> None:
    for d_sae in (40, 12):  # gathered, and multiplied with all
        d = shaken(kind, shape, d_sae=d_sae)
        x = d.input.undo(rows(30))
        features, y = dense_forward(d, x)
        torch.testing.assert_close(d.encode(x), features, rtol=0, atol=1e-12)
        torch.testing.assert_close(d(x), y, rtol=0, atol=1e-12)
        torch.testing.assert_close(d.decode(features), y, rtol=0, atol=1e-12)
        assert float((features > 0).any(1).double().mean()) > 0.9
        assert d(x.reshape(5, 6, 6)).shape == (5, 6, d.spec.width_out)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dense_loss(kind: str, shape: str, frozen: bool) -> None:
    spec, price = TrainingSpec(frozen=frozen, bandwidth=0.4), torch.tensor(0.3, dtype=torch.float64)
    for d_sae in (60, 12):
        d = shaken(kind, shape, d_sae=d_sae)
        z, y = rows(25), rows(25, d.spec.width_out, seed=4)
        y = y if d.spec.transcoder else z
        step = gradients(d, z, y, spec, price)
        found = {name: p.grad for name, p in d.named_parameters()}
        loss = dense_loss(d, z, y, spec, float(price))
        names = [name for name in found if not (frozen and name == "decoder")]
        expected = torch.autograd.grad(loss, [dict(d.named_parameters())[name] for name in names])
        for name, gradient in zip(names, expected, strict=True):
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-13, msg=f"{name} of {kind}, {shape}")
            assert bool(gradient.any()), f"nothing is tested of {name}"
        assert (found["decoder"] is None) == frozen
        pre = d.pre(z)
        features = dense_features(d, pre, training=True)
        torch.testing.assert_close(step.loss, (features @ d.decoder + d.decoder_bias - y).square().mean(), rtol=1e-12, atol=0)
        assert float(step.active) == pytest.approx(float((features > 0).sum(1).double().mean()), rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_auxiliary_loss_and_its_gradients_are_as_written_out(shape: str) -> None:
    d = shaken("topk", shape)
    z, residual, dead = rows(20), rows(20, d.spec.width_out, seed=5), torch.tensor([1, 4, 30, 31, 38])
    spec = TrainingSpec()
    for p in d.parameters():
        p.grad = torch.zeros_like(p)
    loss = auxiliary(d, z, residual, dead, spec)
    pre = d.centred(z).detach() @ d.encoder[dead].T + d.encoder_bias[dead]
    top = pre >= pre.sort(1, descending=True)[0][:, 2:3]  # d_in / 2 of them
    expected = spec.auxiliary * ((pre.relu() * top) @ d.decoder[dead] - residual).square().sum() / residual.numel()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    for name, gradient in zip(
        ("encoder", "encoder_bias", "decoder"), torch.autograd.grad(expected, [d.encoder, d.encoder_bias, d.decoder])
    ):
        torch.testing.assert_close(getattr(d, name).grad, gradient, rtol=0, atol=1e-14)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(6, 20), st.integers(1, 6), st.floats(0, 3))
def test_sparse_entries_are_the_dense_choice(seed: int, count: int, width: int, k: int, guess: float) -> None:
    pre = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    entries, value = top_of_rows(pre, k)
    best = pre.sort(1, descending=True)[0][:, k - 1 : k]
    torch.testing.assert_close(entries.dense(value), pre * (pre >= best), rtol=0, atol=0)
    entries, value = top_of_batch(pre, k, guess)
    least = pre.relu().flatten().sort(descending=True)[0][min(k * count, pre.numel()) - 1]
    kept = pre * ((pre >= least) & (pre > 0))
    assert torch.equal(entries.dense(value), kept), "whatever the guess"
    entries, value = where(pre > 0.5, pre)
    assert torch.equal(entries.dense(value), pre * (pre > 0.5))
    matrix, other = torch.randn(width, 3, dtype=torch.float64), torch.randn(count, 4, dtype=torch.float64)
    dense = entries.dense(value)
    torch.testing.assert_close(entries.total(value, matrix), dense @ matrix)
    by_feature = entries.by_feature()
    torch.testing.assert_close(by_feature.total(value, other), dense.T @ other)
    torch.testing.assert_close(by_feature.sums(value), dense.sum(0))


# --- normalisation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_folded_and_apart_read_and_rebuild_raw_rows_alike(kind: str, shape: str) -> None:
    d = shaken(kind, shape)
    x, one = d.input.undo(rows(50)), folded(d)
    assert float(one.scale_in) == float(one.scale_out) == 1.0
    torch.testing.assert_close(one(x), d(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(one.encode(x), d.encode(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(one.decoder.norm(dim=1), torch.ones(40, dtype=torch.float64))
    assert (one(x) - x[:, : d.spec.width_out]).abs().max() > 0.1, "the two are not alike for want of anything to rebuild"


FORGOTTEN = {
    "the decoder's bias": lambda before, after: after.decoder_bias.copy_(before.decoder_bias),
    "the centre": lambda before, after: after.decoder_bias.sub_(before.output.centre),
    "the encoder's bias": lambda before, after: after.encoder_bias.copy_(before.encoder_bias),
    "the threshold": lambda before, after: after.threshold.copy_(before.threshold),
    "the encoder": lambda before, after: after.encoder.mul_(2),
}


@pytest.mark.parametrize("forgotten", FORGOTTEN)
def test_a_fold_that_forgets_a_term_is_refused(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = folding._fold

    def wrong(d: Dictionary) -> None:
        before = d.copied()
        right(d)
        FORGOTTEN[forgotten](before, d)

    monkeypatch.setattr(folding, "_fold", wrong)
    with pytest.raises(BadValue, match="The fold leaves out a term"):
        folded(shaken("jumprelu"))


def test_normalisation_is_measured_on_rows_and_refuses_what_does_not_vary() -> None:
    x = 5 * rows(400).float() + 3
    ways: tuple[tuple[Any, bool], ...] = (("centre-scale", True), ("scale", False), ("none", False))
    for how, centred in ways:
        z = measured(x, how)(x)
        assert (float(z.mean(0).abs().max()) < 1e-5) == centred
        assert (abs(float(z.square().mean()) - 1) < 1e-4) == (how != "none")
    with pytest.raises(BadValue, match="variance of the activations"):
        measured(torch.ones(9, 4), "centre-scale")
    with pytest.raises(BadValue, match="NaN or infinity in 1 of 400 rows"):
        measured(torch.where(torch.arange(400)[:, None] == 7, torch.nan, x), "none")


# --- training -------------------------------------------------------------------------------------------------------

SHORT: dict[str, Any] = {"steps": 30, "rows": 64, "lr": 0.01, "dead_after": 300, "check_every": 5, "resample_every": 10, "penalty": 0.02}


def stream(width_out: int | None = None, first_wrong: int = 10**9):
    def batches(first: int) -> Iterator[Any]:
        for number in range(first, 400):
            x = rows(64, seed=number).float() * torch.linspace(0.5, 3, 6) + 1
            if number >= first_wrong:
                x[3, 2] = torch.nan
            yield x if width_out is None else (x, x[:, :width_out].sin())

    return batches


def fresh(kind: str, shape: str = "autoencoder") -> Dictionary:
    out = 5 if shape == "transcoder" else None
    return Dictionary(DictionarySpec.parse({"kind": kind, "d_in": 6, "d_sae": 24, "k": 2, "d_out": out}), seed=1)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("topk", "autoencoder"),
        *(pytest.param(kind, shape, marks=pytest.mark.slow) for kind in KINDS for shape in SHAPES if (kind, shape) != ("topk", SHAPES[0])),
    ],
)
def test_a_training_cut_off_anywhere_goes_on_to_the_same_bits(kind: str, shape: str, tmp_path: Path) -> None:
    spec = TrainingSpec.parse({**SHORT, "revive": "auxiliary" if kind == "topk" else "auto"})
    source = stream(5 if shape == "transcoder" else None)
    whole = fresh(kind, shape)
    done = train(whole, source, spec)
    part = fresh(kind, shape)

    def cut(first: int) -> Iterator[Any]:
        for number, batch in enumerate(source(first), first):
            if number == 17:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(part, cut, spec, folder=tmp_path, save_every=4)
    again = fresh(kind, shape)
    trainer = train(again, source, spec, folder=tmp_path, save_every=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, load(tmp_path).dictionary.state_dict()[name]), name
    assert trainer.history == done.history
    assert torch.equal(done.price, trainer.price)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dictionary.json",
        "training-00000030.safetensors",
        "weights-00000030.safetensors",
    ]
    first, last = done.history[0]["loss"], done.history[-1]["loss"]
    assert last < first
    torch.testing.assert_close(whole.decoder.norm(dim=1), torch.ones(24))


def test_a_training_goes_on_only_as_it_was_begun(tmp_path: Path) -> None:
    train(fresh("topk"), stream(), TrainingSpec.parse(SHORT), folder=tmp_path)
    with pytest.raises(BadValue, match="'steps': 31.*as it was begun: {'steps': 30}"):
        train(fresh("topk"), stream(), TrainingSpec.parse({**SHORT, "steps": 31}), folder=tmp_path)
    with pytest.raises(BadValue, match="shape of the dictionary"):
        train(fresh("gated"), stream(), TrainingSpec.parse(SHORT), folder=tmp_path)


@pytest.mark.slow
def test_dead_features_come_back_by_the_auxiliary_loss() -> None:
    counts = {}
    for revive in ("auxiliary", "none"):
        d = fresh("topk")
        with torch.no_grad():
            d.encoder_bias[:12] = -2.2
        train(d, stream(), TrainingSpec.parse({**SHORT, "steps": 200, "lr": 0.03, "revive": revive, "auxiliary": 1.0}))
        with torch.no_grad():
            counts[revive] = int((d.encode(next(stream()(99)))[:, :12] > 0).any(0).sum())
    assert counts["none"] == 0
    assert counts["auxiliary"] >= 3


@pytest.mark.parametrize("kind", ["jumprelu", "gated"])
def test_dead_features_are_drawn_anew_from_what_is_left_over(kind: str) -> None:
    d = fresh(kind)
    trainer = Trainer(d, TrainingSpec.parse({**SHORT, "steps": 90}))
    source = stream()(0)
    for _ in range(9):
        trainer.take(next(source))
    trainer.fired[:] = trainer.rows
    trainer.fired[[3, 7]] = -10_000
    with torch.no_grad():
        (d.gate_bias if kind == "gated" else d.encoder_bias)[[3, 7]] = -50.0
    step = trainer.take(next(source))
    left = step.residual / step.residual.norm(dim=1, keepdim=True)
    near = (d.decoder @ left.T).max(1)[0]
    drawn = torch.isclose(near, torch.ones(24))
    assert drawn.nonzero()[:, 0].tolist() == [3, 7]
    torch.testing.assert_close(d.encoder[3] / d.encoder[3].norm(), d.decoder[3])
    for parameter in trainer.trained:
        moment = trainer.optimizer.state[parameter]["exp_avg"]
        if parameter is not d.decoder_bias:
            assert not bool(moment[[3, 7]].any())
            assert bool(moment[[2, 8]].any())
    assert trainer.fired[[3, 7]].tolist() == [640, 640]


def test_a_frozen_decoder_stays_as_it_was_drawn() -> None:
    d = fresh("batch-topk")
    before, encoder = d.decoder.detach().clone(), d.encoder.detach().clone()
    train(d, stream(), TrainingSpec.parse({**SHORT, "frozen": True}))
    assert torch.equal(before, d.decoder)
    assert not torch.equal(encoder, d.encoder)


# --- bad input ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_an_error_and_never_a_number(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="k is 9, and it must be at most d_sae = 8"):
        DictionarySpec.parse({"d_in": 4, "d_sae": 8, "k": 9})
    d, spec = fresh("topk"), TrainingSpec.parse(SHORT)
    with pytest.raises(BadValue, match="NaN or infinity in 1 of 64 rows"):
        train(d, stream(first_wrong=12), spec)
    for wrong, word in (
        (torch.ones(3, 5), r"\[row, 6\]"), (torch.ones(3, 6).long(), "floating-point"), (torch.ones(6), r"\[row, 6\]"),
        (torch.ones(0, 6), "at least one row"), ((torch.ones(3, 6), torch.ones(3, 6)), "pairs of rows"),
    ):  # fmt: skip
        with pytest.raises(BadValue, match=word):
            Trainer(d, spec).take(wrong)
    pair = Trainer(fresh("topk", "transcoder"), spec)
    for wrong, word in (((torch.ones(3, 6), torch.ones(3, 6)), r"\[row, 5\]"), ((torch.ones(3, 6), torch.ones(4, 5)), "equally many")):
        with pytest.raises(BadValue, match=word):
            pair.take(wrong)
    with pytest.raises(BadValue, match="reads vectors of that width"):
        d(torch.ones(3, 7))
    with pytest.raises(BadValue, match="from 0 to 23"):
        d.direction(24)
    with pytest.raises(BadValue, match="30, one a step"):
        train(d, lambda first: iter([rows(64).float()] * 4), spec)
    with pytest.raises(BadValue, match="'empty'"):
        train(d, lambda first: iter([]), spec)
    with pytest.raises(BadValue, match="resample or none"):
        Trainer(fresh("gated"), TrainingSpec(revive="auxiliary"))
    broken = fresh("topk")
    with torch.no_grad():
        broken.encoder[0, 0] = torch.nan
    with pytest.raises(BadValue, match="the loss at step 5 is nan"):
        train(broken, stream(), spec, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_whole_or_refused(tmp_path: Path) -> None:
    d = shaken("gated")
    d.origin = Origin(model="gpt", site="blocks.0.hook_resid_post")
    save(tmp_path, d, about={"rows": 3})
    kept = load(tmp_path)
    x = d.input.undo(rows(9))
    assert torch.equal(kept.dictionary(x), d(x))
    assert kept.dictionary.origin == d.origin
    assert kept.about == {"rows": 3}
    assert not any(path.suffix in (".pt", ".pkl", ".bin") for path in tmp_path.iterdir())
    weights = next(tmp_path.glob("weights-*"))
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptFile, match="of sha256"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(MissingFile, match="the folder is not whole"):
        load(tmp_path)
    head = json.loads((tmp_path / files.HEAD).read_text())
    (tmp_path / files.HEAD).write_text(json.dumps({**head, "format": "other"}))
    with pytest.raises(CorruptFile, match="its format is 'other'"):
        load(tmp_path)
    (tmp_path / files.HEAD).write_text("[1")
    with pytest.raises(CorruptFile, match="it is not"):
        load(tmp_path)
    with pytest.raises(MissingFile, match="No dictionary"):
        load(tmp_path / "nothing")
    broken = shaken("topk")
    with torch.no_grad():
        broken.encoder[0, 0] = torch.nan
    with pytest.raises(CorruptFile, match="'encoder' holds NaN"):
        load(save(tmp_path / "b", broken))
    with pytest.raises(CorruptFile, match="'encoder_bias' is missing"):
        files.fill(shaken("topk"), {name: v for name, v in shaken("topk").state_dict().items() if name != "encoder_bias"}, "x")


def test_a_dictionary_for_another_model_or_site_is_refused() -> None:
    model, other = build("plain"), build("plain", seed=5)
    site = "blocks.0.hook_resid_post"
    origin = Origin(model="gpt", model_digest=model.digest(), site=site)
    d = Dictionary(DictionarySpec(d_in=16, d_sae=32, k=4), origin=origin)
    check_fits(d, model, site)
    with pytest.raises(Incompatible, match=f"of digest {model.digest()[:12]}, and this one has {other.digest()[:12]}.*Load the model"):
        check_fits(d, other, site)
    with pytest.raises(Incompatible, match="its site is 'blocks.0.hook_resid_post', and 'blocks.1.hook_resid_post' was asked for"):
        check_fits(d, model, "blocks.1.hook_resid_post")
    with pytest.raises(Incompatible, match="it is an autoencoder and has no output site"):
        check_fits(d, model, site, "blocks.0.hook_mlp_out")
    with pytest.raises(Incompatible, match="it is a transcoder and no output site"):
        check_fits(Dictionary(DictionarySpec(d_in=16, d_sae=32, k=4, d_out=16)), model, site)
    with pytest.raises(Incompatible, match="its vectors have 8 numbers, and those at .* have 16"):
        check_fits(Dictionary(DictionarySpec(d_in=8, d_sae=32, k=4)), model, site)
