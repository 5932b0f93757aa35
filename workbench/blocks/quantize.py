"""Images as short rows of discrete codes (VQ-VAE, van den Oord et al. 2017), patch by patch.

    z      = encoder(patch)                         a patch's latent, d_code numbers
    code   = argmin_k |z - e_k|²                    the nearest row of the codebook
    patch' = decoder(z + sg(e_code - z))            straight through: the decoder reads e_code, its gradient goes to z
    loss   = |patch - patch'|² + |sg(z) - e_code|² + commitment |z - sg(e_code)|²       (sums over a patch; sg: no gradient)

Left alone a codebook collapses: the few rows that are chosen first are the only ones that learn. So a code that no patch chose in
``REST`` batches of training is moved to the latent of a patch of the batch (random restarts, Dhariwal et al. 2020), drawn in proportion
to the squared distance from its nearest row (as k-means++ does, Arthur and Vassilvitskii 2007): where the codebook fits worst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.blocks.frontends import Grid, check_pixels, patches
from workbench.blocks.init import linear, table
from workbench.core.errors import BadValue

REST = 20
"""Batches of training in which a code may go unchosen."""


@dataclass(frozen=True)
class Usage:
    """How much of a codebook is in use: ``used`` of ``codes`` were chosen at least once; ``perplexity`` is exp of the entropy (nats) of
    how often each was, so the number of codes that, chosen equally often, would be as varied."""

    used: int
    codes: int
    perplexity: float


def usage(ids: Int[Tensor, "*any"], n_codes: int) -> Usage:
    """The usage of a codebook of ``n_codes`` in ``ids``. Raises BadValue for no ids and for one outside the codebook."""
    if ids.numel() == 0 or int(ids.min()) < 0 or int(ids.max()) >= n_codes:
        found = [int(ids.min()), int(ids.max())] if ids.numel() else "none"
        raise BadValue("the code ids", found, f"at least one, within 0 to {n_codes - 1}")
    counts = torch.bincount(ids.flatten(), minlength=n_codes).double()
    shares = counts[counts > 0] / counts.sum()
    return Usage(int((counts > 0).sum()), n_codes, math.exp(-float((shares * shares.log()).sum())))


def nearest(z: Float[Tensor, "*any d_code"], book: Float[Tensor, "code d_code"]) -> Int[Tensor, "*any"]:
    """The row of ``book`` nearest to each latent; of equally near ones the first."""
    return (book.square().sum(-1) - 2.0 * z @ book.T).argmin(-1)  # |z|² is the same for all rows


def straight_through(z: Float[Tensor, "*any d_code"], chosen: Float[Tensor, "*any d_code"]) -> Float[Tensor, "*any d_code"]:
    """``chosen`` in value, with the gradient of ``z`` (Bengio et al. 2013)."""
    return z + (chosen - z).detach()


class Coder(nn.Module):
    """Encoder and decoder of one patch, each an MLP of one hidden layer of ``d_hidden``, and the codebook between them."""

    idle: Tensor

    def __init__(self, grid: Grid, channels: int, *, n_codes: int, d_code: int, d_hidden: int, commitment: float) -> None:
        super().__init__()
        self.grid, self.channels, self.commitment, values = grid, channels, commitment, channels * grid.patch**2
        self.encoder = nn.Sequential(linear(values, d_hidden, True), nn.GELU(), linear(d_hidden, d_code, True))
        self.codebook = table(n_codes, d_code)
        self.decoder = nn.Sequential(linear(d_code, d_hidden, True), nn.GELU(), linear(d_hidden, values, True))
        self.register_buffer("idle", torch.zeros(n_codes, dtype=torch.int64))  # batches of training since each code was chosen

    @property
    def n_codes(self) -> int:
        return self.codebook.num_embeddings

    def latents(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch patch d_code"]:
        """What the encoder says of each patch, row by row from the top left. Raises BadValue for pixels of another size."""
        return self.encoder(self._patches(pixels))

    @torch.no_grad()
    def encode(self, pixels: Float[Tensor, "batch channel height width"]) -> Int[Tensor, "batch patch"]:
        """The code of each patch."""
        return nearest(self.latents(pixels), self.codebook.weight)

    def decode(self, ids: Int[Tensor, "batch patch"]) -> Float[Tensor, "batch channel height width"]:
        """The image that codes stand for. Raises BadValue for codes of another number a row, or outside the codebook."""
        wanted = self.grid.rows * self.grid.columns
        if ids.shape[1] != wanted or ids.numel() == 0 or int(ids.min()) < 0 or int(ids.max()) >= self.n_codes:
            raise BadValue("the code ids", f"{tuple(ids.shape)}", f"[batch, {wanted}], each within 0 to {self.n_codes - 1}")
        return unpatched(self.decoder(self.codebook(ids)), self.grid)

    def loss(self, pixels: Float[Tensor, "batch channel height width"]) -> tuple[Float[Tensor, ""], int]:
        """The summed loss (see the module) and the number of patches. In training mode idle codes are moved first; which patches they
        move to is drawn from torch's generator."""
        given = self._patches(pixels)
        z = self.encoder(given)
        ids = nearest(z, self.codebook.weight)
        if self.training and self._restarted(z.detach(), ids):
            ids = nearest(z, self.codebook.weight)
        chosen = self.codebook(ids)
        painted = self.decoder(straight_through(z, chosen))
        error = (given - painted).square().sum()
        pull, commit = (z.detach() - chosen).square().sum(), (z - chosen.detach()).square().sum()
        return error + pull + self.commitment * commit, ids.numel()

    def _patches(self, pixels: Tensor) -> Float[Tensor, "batch patch pixel"]:
        return patches(check_pixels(pixels, self.channels, self.grid, self.codebook.weight), self.grid.patch)

    @torch.no_grad()
    def _restarted(self, z: Float[Tensor, "batch patch d_code"], ids: Int[Tensor, "batch patch"]) -> bool:
        """Count who is idle and move those who have been for long; whether any was."""
        self.idle += 1
        self.idle[ids.unique()] = 0
        dead = (self.idle >= REST).nonzero().flatten()
        if len(dead) == 0:
            return False
        far = (z - self.codebook(ids)).square().sum(-1).flatten().double()
        if float(far.sum()) == 0:
            return False  # every patch has a code of its own already
        self.codebook.weight[dead] = z.flatten(0, 1)[torch.multinomial(far.cpu(), len(dead), replacement=True).to(z.device)]
        self.idle[dead] = 0
        return True

    def weights(self) -> dict[str, Tensor]:
        """``codebook`` [code, d_code]; ``encoder.W_in`` [pixel, d_hidden], ``encoder.W_out`` [d_hidden, d_code], their biases, and the
        decoder's the other way."""
        out = {"codebook": self.codebook.weight}
        for part in ("encoder", "decoder"):
            layers = getattr(self, part)
            for word, layer in (("in", layers[0]), ("out", layers[2])):
                out |= {f"{part}.W_{word}": layer.weight.T, f"{part}.b_{word}": layer.bias}
        return out


def unpatched(flat: Float[Tensor, "batch patch pixel"], grid: Grid) -> Float[Tensor, "batch channel height width"]:
    """The images whose ``patches`` these are."""
    return rearrange(flat, "b (i j) (c p q) -> b c (i p) (j q)", i=grid.rows, j=grid.columns, p=grid.patch, q=grid.patch)
