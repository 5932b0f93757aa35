"""Codes for patches: nearest rows, gradients, the loss and the restarts beside slow twins; and a collapse that the restarts prevent."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.blocks import quantize
from workbench.blocks.frontends import Grid, patches
from workbench.blocks.init import initialise
from workbench.blocks.quantize import REST, Coder, nearest, straight_through, unpatched, usage
from workbench.core.errors import BadValue
from workbench.core.tolerance import gap

GRID = Grid(4, 6, 2)


def coder(dtype: torch.dtype = torch.float64, **changes: Any) -> Coder:
    made = Coder(GRID, 2, **{"n_codes": 7, "d_code": 3, "d_hidden": 5, "commitment": 0.3, **changes})
    initialise(made, 0, writes=1, std=0.5)
    return made.to(dtype).eval()


def images(count: int = 3, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.rand(count, 2, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_row_is_the_nearest_by_a_slow_search(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    z, book = torch.randn(5, 4, 3, generator=draw, dtype=dtype), torch.randn(9, 3, generator=draw, dtype=dtype)
    slow = [[min(range(9), key=lambda k: sum((float(a) - float(b)) ** 2 for a, b in zip(one, book[k]))) for one in row] for row in z]
    assert nearest(z, book).tolist() == slow


def test_of_equally_near_rows_the_first_is_chosen() -> None:
    book = torch.tensor([[5.0], [1.0], [-1.0], [1.0]])
    assert nearest(torch.tensor([[1.0], [-3.0]]), book).tolist() == [1, 2]


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other() -> None:
    z, e = (torch.tensor([[0.3, -2.0]], dtype=torch.float64, requires_grad=True) for _ in range(2))
    out = straight_through(z, e * 3)
    assert torch.equal(out, (e * 3).detach())
    (out * torch.tensor([[2.0, 5.0]])).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[2.0, 5.0]]
    assert e.grad is None


def slow_loss(made: Coder, pixels: Tensor) -> float:
    """Van den Oord's sum, patch by patch."""
    total, book = 0.0, made.codebook.weight.detach()
    for image in pixels:
        for row in range(GRID.rows):
            for column in range(GRID.columns):
                patch = image[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
                z = made.encoder(patch).detach()
                chosen = min(book, key=lambda e: float((z - e).square().sum()))
                error, apart = (patch - made.decoder(chosen).detach()).square().sum(), (z - chosen).square().sum()
                total += float(error + apart + made.commitment * apart)
    return total


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_the_loss_is_the_papers_patch_by_patch(dtype: torch.dtype, bound: float) -> None:
    made, pixels = coder(dtype), images(dtype=dtype)
    total, count = made.loss(pixels)
    expected = slow_loss(made, pixels)
    assert count == 3 * 6
    assert abs(total.item() - expected) < bound * expected
    made.commitment = 0.4
    assert abs(made.loss(pixels)[0].item() - expected) > 1e-3  # the twin sees a changed weight


def test_each_part_of_the_loss_moves_what_it_should() -> None:
    """The codebook is only pulled to the latents; the encoder has the decoder's gradient at the codes and the commitment's."""
    made, pixels = coder(), images()
    made.loss(pixels)[0].backward()
    z, book = made.latents(pixels).detach(), made.codebook.weight.detach()
    ids = nearest(z, book)
    pulled = torch.zeros_like(book)
    for one, code in zip(z.flatten(0, 1), ids.flatten()):
        pulled[code] += 2 * (book[code] - one)
    assert gap(made.codebook.weight.grad, pulled) < 1e-12  # type: ignore[arg-type]  # a gradient
    codes = book[ids].requires_grad_()
    (patches(pixels, 2) - made.decoder(codes)).square().sum().backward()
    assert codes.grad is not None
    at_latents = codes.grad + 2 * made.commitment * (z - book[ids])
    live = made.latents(pixels)
    wanted = torch.autograd.grad(live, list(made.encoder.parameters()), at_latents)
    for parameter, expected in zip(made.encoder.parameters(), wanted):
        assert gap(parameter.grad, expected) < 1e-12  # type: ignore[arg-type]  # a gradient


def test_patches_are_put_back_where_they_were_cut() -> None:
    pixels = images()
    assert torch.equal(unpatched(patches(pixels, 2), GRID), pixels)
    made = coder()
    ids = made.encode(pixels)
    painted, other = made.decode(ids), ids.clone()
    other[1, 4] = (other[1, 4] + 1) % 7
    changed = (made.decode(other) != painted).any(1).nonzero().tolist()
    assert sorted(changed) == [[1, row, column] for row in (2, 3) for column in (2, 3)]
    assert gap(made.decode(made.encode(pixels)[:1]), painted[:1]) < 1e-12


def test_usage_counts_and_its_perplexity_is_that_of_the_shares() -> None:
    found = usage(torch.tensor([[0, 0], [3, 1]]), 5)
    assert (found.used, found.codes) == (3, 5)
    assert found.perplexity == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))
    assert usage(torch.arange(8), 8).perplexity == pytest.approx(8)
    assert usage(torch.zeros(4, dtype=torch.long), 8).perplexity == pytest.approx(1)


def test_an_idle_code_is_moved_to_a_latent_of_the_batch_after_its_rest_and_only_in_training() -> None:
    made, pixels = coder(), images()
    far = torch.full_like(made.codebook.weight, 100.0) * torch.arange(1, 8).unsqueeze(1)
    far[0] = 0
    with torch.no_grad():
        made.codebook.weight.copy_(far)
    for _ in range(2 * REST):
        made.loss(pixels)
    assert torch.equal(made.codebook.weight, far)
    assert made.idle.tolist() == [0] * 7
    made.train()
    for done in range(1, REST):
        made.loss(pixels)
        assert made.idle.tolist() == [0] + [done] * 6
    assert torch.equal(made.codebook.weight, far)
    made.loss(pixels)
    assert made.idle.tolist() == [0] * 7
    latents = made.latents(pixels).detach().flatten(0, 1)
    assert torch.equal(made.codebook.weight[0], far[0])
    for moved in made.codebook.weight[1:]:
        assert bool((latents == moved).all(1).any())


def test_where_every_patch_has_its_code_none_is_moved() -> None:
    made, flat = coder(), torch.full((2, 2, 4, 6), 0.5, dtype=torch.float64)
    with torch.no_grad():
        made.codebook.weight[2] = made.latents(flat)[0, 0]
    before = made.codebook.weight.detach().clone()
    made.train()
    for _ in range(REST + 1):
        made.loss(flat)
    assert torch.equal(made.codebook.weight, before)


def test_restarts_keep_the_codebook_in_use_and_without_them_it_collapses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches of eight colours, and a codebook whose first row alone lies near the latents."""
    colours = torch.rand(8, 2, generator=torch.Generator().manual_seed(2))
    pick = torch.randint(0, 8, (40, 2, 3), generator=torch.Generator().manual_seed(3))
    pixels = colours[pick].permute(0, 3, 1, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)

    def trained() -> tuple[int, float]:
        made = coder(torch.float32, n_codes=12, d_hidden=16)
        with torch.no_grad():
            made.codebook.weight[1:] += 50.0
        made.train()
        optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
        torch.manual_seed(0)
        loss = torch.zeros(())
        for _ in range(150):
            total, count = made.loss(pixels)
            loss = total / count
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return usage(made.encode(pixels), 12).used, float(loss.detach())

    used, loss = trained()
    monkeypatch.setattr(quantize, "REST", 10**6)
    collapsed, left = trained()
    assert used >= 8
    assert collapsed == 1
    assert loss < 0.2 * left


def test_weights_have_their_public_shapes() -> None:
    shapes = {name: tuple(w.shape) for name, w in coder().weights().items()}
    assert shapes == {
        "codebook": (7, 3), "encoder.W_in": (8, 5), "encoder.b_in": (5,), "encoder.W_out": (5, 3), "encoder.b_out": (3,),
        "decoder.W_in": (3, 5), "decoder.b_in": (5,), "decoder.W_out": (5, 8), "decoder.b_out": (8,),
    }  # fmt: skip


def test_bad_input_is_refused_with_the_rule_it_breaks() -> None:
    made = coder()
    with pytest.raises(BadValue, match=r"the shape of the pixels is \(3, 2, 4, 4\), but it must be \[batch, 2, 4, 6\]"):
        made.encode(images()[..., :4])
    with pytest.raises(BadValue, match=r"must be \[batch, 6\], each within 0 to 6"):
        made.decode(torch.zeros(1, 5, dtype=torch.long))
    with pytest.raises(BadValue, match=r"each within 0 to 6"):
        made.decode(torch.full((1, 6), 7))
    with pytest.raises(BadValue, match=r"the code ids is 'none', but it must be at least one"):
        usage(torch.zeros(0, dtype=torch.long), 4)
    with pytest.raises(BadValue, match=r"\[0, 4\].*within 0 to 3"):
        usage(torch.tensor([0, 4]), 4)
