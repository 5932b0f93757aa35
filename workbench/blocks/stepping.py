"""One more token of every row of a room: what decoding repeats, without anything beside it.

The equations are those of ``stack.Block``. What a run offers to those who listen, and the checks of what it is given, are left out: beside
products of so few rows they count. Queries, keys and values are one product, and masks are made once for all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from workbench.blocks.attention import READERS, Attention
from workbench.blocks.cache import Room
from workbench.blocks.embed import Embed, Unembed
from workbench.blocks.norm import Norm
from workbench.blocks.ragged import ragged
from workbench.blocks.rotary import Rotary
from workbench.blocks.sparse import Pattern
from workbench.blocks.stack import Block, Stack

Turns = Callable[[Int[Tensor, "rows pos"]], Rotary | None]


class Stepper:
    """The parts of a decoder, arranged for steps. It holds copies of weights, so it is made anew where weights may have changed.

    ``turns`` gives the rotary turns of positions (None where the model has none).
    """

    def __init__(self, embed: Embed, stack: Stack, final: Norm | None, unembed: Unembed, *, turns: Turns, pattern: Pattern | None) -> None:
        self.embed, self.final, self.unembed, self.turns, self.pattern = embed, final, unembed, turns, pattern
        made = {block: _Layer(block) for block in dict.fromkeys(stack.layers())}  # layers may share a block
        self.layers = [made[block] for block in stack.layers()]

    @torch.no_grad()
    def __call__(self, tokens: Sequence[int], room: Room) -> Float[Tensor, "row d_vocab"]:
        """The logits after one more token of each row, which ``room`` then holds too (its lengths are the caller's to move)."""
        device = self.embed.token.weight.device
        at = torch.tensor(room.lengths, device=device)
        x = self.embed(torch.tensor(tokens, device=device)[:, None], at[:, None])
        turn, place = self.turns(at[:, None]), (torch.arange(len(tokens), device=device), at)
        seen = ragged(room.lengths, device, self.pattern)
        masks = seen.added(x.dtype)
        attend = lambda q, k, v: seen.attend(q, k, v, masks)  # noqa: E731
        for layer, (keys, values) in zip(self.layers, room.layers, strict=True):
            x = layer(x, turn, (keys[:, : seen.width], values[:, : seen.width]), place, attend)
        x = self.final(x) if self.final is not None else x
        return self.unembed(x, self.embed)[:, 0]


class _Layer:
    """One layer; its weights of queries, keys and values are copied side by side."""

    def __init__(self, block: Block) -> None:
        self.attn, self.mlp, self.before = block.attn, block.mlp, block.placement == "pre"
        self.norms: dict[str, Norm] = {sublayer: getattr(block, name) for sublayer, name in block.norms.items()}
        layers: list[nn.Linear] = [getattr(block.attn, word) for word in READERS]
        self.widths, self.weight = [layer.out_features for layer in layers], torch.cat([layer.weight.detach() for layer in layers])
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = torch.cat(biases) if biases else None

    def __call__(
        self, x: Tensor, turn: Rotary | None, held: tuple[Tensor, Tensor], place: tuple[Tensor, Tensor], attend: Callable[..., Tensor]
    ) -> Float[Tensor, "row 1 d_model"]:
        """The stream after the layer; ``held`` gets the new keys and values at ``place`` (row, column)."""
        whole = functional.linear(self._read(x, "attn"), self.weight, self.bias)
        q, k, v = (part.unflatten(-1, (-1, self.attn.d_head)) for part in whole.split(self.widths, -1))
        if turn is not None:
            q, k = turn.turn(q), turn.turn(k)
        for room, new in zip(held, (k, v)):
            room[place] = new[:, 0]
        z = attend(q.transpose(1, 2), *(self._by_head(room) for room in held))
        x = self._added(x, self.attn.o(z.transpose(1, 2).flatten(2)), "attn")
        return x if self.mlp is None else self._added(x, self.mlp(self._read(x, "mlp")), "mlp")

    def _by_head(self, room: Tensor) -> Float[Tensor, "row head key d_head"]:
        each = self.attn.n_heads // self.attn.n_kv_heads
        return room.transpose(1, 2) if each == 1 else room.transpose(1, 2).repeat_interleave(each, dim=1)

    def _read(self, x: Tensor, sublayer: str) -> Tensor:
        return self.norms[sublayer](x) if self.before and self.norms else x

    def _added(self, x: Tensor, out: Tensor, sublayer: str) -> Tensor:
        return x + out if self.before or not self.norms else self.norms[sublayer](x + out)


def steppable(model: nn.Module) -> bool:
    """Whether a ``Stepper`` is the whole of what ``model`` does: its layers are blocks of this package, none of them wrapped or of a type
    of its own, its maps of queries, keys and values are plain ones with biases in all of them or in none, and nobody has hung a hook on a
    part of it or put another function in the place of a method."""
    return all(_plain(part) for part in model.modules())


def _plain(part: nn.Module) -> bool:
    if part._forward_hooks or part._forward_pre_hooks or any(callable(getattr(type(part), name, None)) for name in vars(part)):
        return False
    if any(isinstance(part, kind) and type(part) is not kind for kind in (Stack, Block, Attention, Norm)):
        return False
    if isinstance(part, Stack):
        return all(type(layer) is Block for layer in part.blocks)
    if isinstance(part, Block):
        return type(part.attn) is Attention and part.cross_attn is None and part.modulation is None
    if isinstance(part, Attention):
        layers = [getattr(part, word) for word in READERS]
        plain = all(type(layer) is nn.Linear and type(layer.weight) is nn.Parameter for layer in layers)
        return plain and len({layer.bias is not None for layer in layers}) == 1
    return True
