"""What holds for every family of the catalogue, tried on its tiny model: sites, equations, edits, kernels, rows, loss, files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from workbench.core.protocol import Apply, Resume, Trace
from workbench.core.tolerance import gap
from workbench.families import FAMILIES
from workbench.training.checkpoint import load_model, write

NAMES = list(FAMILIES)


def tiny(name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """The tiny model with weights moved, so that no part of it is the identity, and its batch."""
    model, batch = FAMILIES.load(name).tiny(seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    model = model.to(dtype).eval()
    cast = {f: v.to(dtype) if v is not None and v.is_floating_point() else v for f, v in vars(batch).items()}
    return model, type(batch)(**cast)


def whole(model: Any, batch: Any) -> Trace:
    """A run that captures every site."""
    return model.run(batch, capture="*")


def misdeclared(trace: Trace) -> list[str]:
    """Sites whose tensor does not have its declared axes: one size a word in a stack, and ``one`` is 1."""
    sizes: dict[tuple[str, str], tuple[int, str]] = {}
    out: list[str] = []
    for name, value in trace.at.items():
        site = trace.sites[name]
        if value.ndim != len(site.axes):
            out.append(f"{name}: {tuple(value.shape)} is not {site.axes}")
            continue
        cross = "cross_attn" in name
        for word, size in zip(site.axes, value.shape, strict=True):
            place = site.stack if word not in ("batch",) else ""
            if word == "one":
                known = (1, "its meaning")
            else:
                word = "pos" if word == "query" or (word == "key" and not cross) else f"other {word}" if cross and word == "key" else word
                known = sizes.setdefault((place, word), (size, name))
            if size != known[0]:
                out.append(f"{name}: axis {word} has {size}, and {known[1]} says {known[0]}")
    return out


def unequal(trace: Trace) -> list[str]:
    """Places where the residual equations do not hold."""
    out: list[str] = []
    for name in trace.at:
        if not name.endswith("hook_resid_pre"):
            continue
        block = name.removesuffix("hook_resid_pre")
        steps = [("resid_pre", "resid_mid", "attn_out")]
        cross = f"{block}hook_resid_mid_cross" in trace.at
        if cross:
            steps.append(("resid_mid", "resid_mid_cross", "cross_attn_out"))
        if f"{block}hook_mlp_out" in trace.at:
            steps.append(("resid_mid_cross" if cross else "resid_mid", "resid_post", "mlp_out"))
        for before, after, added in steps:
            if gap(trace[f"{block}hook_{after}"], trace[f"{block}hook_{before}"] + trace[f"{block}hook_{added}"]) > 1e-12:
                out.append(f"{block}: {after} is not {before} + {added}")
    return out


@pytest.mark.parametrize("name", NAMES)
def test_every_site_is_as_declared_and_the_equations_hold(name: str) -> None:
    model, batch = tiny(name)
    trace = whole(model, batch)
    assert list(trace.at) == list(model.sites())
    assert misdeclared(trace) == []
    assert bool(unequal(trace)) == (not model.sites().additive), unequal(trace)


def test_a_broken_family_is_caught() -> None:
    model, batch = tiny("gpt")
    trace = whole(model, batch)
    wrong = {**trace.at, "blocks.0.hook_attn_out": trace["blocks.0.hook_attn_out"] * 1.001}
    assert unequal(Trace(None, wrong, trace.sites)) == ["blocks.0.: resid_mid is not resid_pre + attn_out"]
    turned = {**trace.at, "blocks.1.attn.hook_k": trace["blocks.1.attn.hook_k"].transpose(1, 2)}
    assert any("blocks.1.attn.hook_k" in one for one in misdeclared(Trace(None, turned, trace.sites)))


@pytest.mark.parametrize("name", NAMES)
def test_listening_changes_nothing_and_the_fused_kernel_agrees_with_the_visible_one(name: str) -> None:
    model, batch = tiny(name)
    plain, heard = model.run(batch).logits, whole(model, batch).logits
    assert plain is not None
    assert heard is not None
    assert gap(heard, plain) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_at_any_site_reaches_what_comes_after(name: str) -> None:
    """Bent by a direction that no norm takes out; keys of one token and scales are bent unevenly too."""
    model, batch = tiny(name)
    plain = model.run(batch).logits

    def bend(value: torch.Tensor, site: Any) -> torch.Tensor:
        noise = torch.rand(value.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return value * (1 + noise.to(value.dtype))

    def moved(site: Any) -> float:
        logits = model.run(batch, edit=[Apply(site, fn=bend)]).logits
        assert logits is not None
        assert plain is not None
        return gap(logits, plain)

    silent = [site for site in model.sites() if moved(site) < 1e-9]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_a_row_alone_is_the_row_of_a_batch(name: str) -> None:
    model, batch = tiny(name)
    together, alone = whole(model, batch), whole(model, batch.rows(slice(0, 1)))
    for site, value in alone.at.items():
        axes = together.sites[site].axes
        if "pair" not in axes and axes[0] == "batch":
            assert gap(value, together[site][:1]) < 1e-12, site


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_stops_has_the_stream_and_no_logits(name: str) -> None:
    model, batch = tiny(name)
    full = whole(model, batch)
    for place in [site for site in model.sites() if "hook_resid" in site]:
        trace = model.run(batch, capture=place, resume=Resume(stop=place))
        assert trace.logits is None
        assert gap(trace[place], full[place]) < 1e-12, place


@pytest.mark.parametrize("name", NAMES)
def test_a_run_from_a_place_ends_as_the_whole_run(name: str) -> None:
    model, batch = tiny(name)
    full = whole(model, batch)
    assert full.logits is not None
    for place in [site for site in model.sites() if "hook_resid" in site]:
        trace = model.run(batch, resume=Resume(start=place, residual=full[place]))
        assert trace.logits is not None
        assert gap(trace.logits, full.logits) < 1e-12, place


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name: str) -> None:
    model, batch = tiny(name, torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        total, count = model.loss(batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        losses.append(float(total.detach() / count))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_saving_and_loading_changes_nothing(name: str, tmp_path: Path) -> None:
    model, batch = tiny(name)
    loaded = load_model(write(tmp_path / name, model))
    assert loaded.digest() == model.digest()
    assert torch.equal(loaded.run(batch).logits, model.run(batch).logits)


@pytest.mark.parametrize("name", NAMES)
def test_first_values_follow_from_the_seed_alone(name: str) -> None:
    state = torch.random.get_rng_state()
    first = FAMILIES.load(name).tiny(seed=0)[0]
    torch.rand(3)
    assert FAMILIES.load(name).tiny(seed=0)[0].digest() == first.digest() != FAMILIES.load(name).tiny(seed=1)[0].digest()
    torch.random.set_rng_state(state)
    before = copy.deepcopy(first.state_dict())
    first.run(FAMILIES.load(name).tiny(seed=0)[1])
    assert all(torch.equal(value, first.state_dict()[key]) for key, value in before.items())
