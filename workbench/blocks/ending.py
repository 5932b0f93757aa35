"""Where a run is read at some positions only, what follows the last layer's keys and values runs at those alone.

Other positions are still read there, as keys and values, so a cache is whole; a run made for its cache alone ends with them. The rest is
the last layer's queries, its output map, its MLP, the final norm and the logits: of a layer's ``12 d²`` products a token (``d²`` each for
queries, keys, values and output, ``8 d²`` for the MLP) ``10 d²`` are not made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.blocks.inputs import Chosen, Passage
from workbench.blocks.listen import Listener, under
from workbench.blocks.mask import AttentionMask
from workbench.blocks.rotary import Rotary
from workbench.core.errors import BadValue

if TYPE_CHECKING:
    from workbench.blocks.model import Ask
    from workbench.blocks.stack import Stack

WHOLE = ("hook_resid_pre", "hook_attn_in", "attn.hook_k", "attn.hook_rot_k", "attn.hook_v")
"""Sites of the last layer that every position passes, whichever are read."""


def ending(stack: Stack, ask: Ask, given: Passage, asked: Chosen | None, listener: Listener | None) -> Chosen | None:
    """The positions at which ``stack`` goes on after its last attention; None: at all. They are those told (``resume.only``), or, where
    nobody listens after them, those ``asked`` for (none, for a cache alone); ``listener`` is the stack's. Raises BadValue for what cannot
    be told."""
    told, last = ask.resume.only, stack.depth - 1
    start, stop = ask.start(stack), ask.stop(stack)
    passes = (start is None or start <= stack.entry(last)) and (stop is None or not stop <= stack.entry(last))
    if told is not None:
        if not passes:
            raise BadValue("resume.only", "given", "left out for a run that does not pass the last layer's attention")
        if not (ask.logits is None or (isinstance(ask.logits, str) and ask.logits == "all")):
            raise BadValue("logits", ask.logits, "'all' or None beside resume.only: those are the positions")
        return _told(told, given)
    if not passes:
        return None
    if asked is None:  # a run for its cache alone
        crossed = stack.crossed
        wanted = Chosen(columns=torch.empty(0, dtype=torch.long, device=given.positions.device)) if ask.cache and not crossed else None
    else:
        wanted = asked if asked.count is not None and asked.count < given.shape[1] else None
    here, ends = under(listener, f"blocks.{last}."), (under(listener, "ln_final."), under(ask.listener, "unembed."))
    return wanted if (here is None or here.only(*WHOLE)) and ends == (None, None) else None


def _told(told: Tensor, given: Passage) -> Chosen:
    rows, length = given.shape
    fits = (
        told.ndim == 2 and told.shape[0] in (1, rows) and told.shape[1] > 0 and not (told.is_floating_point() or told.dtype == torch.bool)
    )
    if not fits or int(told.min()) < 0 or int(told.max()) >= length:
        raise BadValue("resume.only", f"{tuple(told.shape)} {told.dtype}", f"integer positions [1 or {rows}, n] within 0 to {length - 1}")
    where = told.to(given.positions.device).long()
    last = told.shape[1] == 1 and int(told.min()) == length - 1
    return Chosen(columns=where[0], last=last) if len(where) == 1 else Chosen(by_row=where, last=last)


def queries_of(only: Chosen, mask: AttentionMask, shape: tuple[int, int], key: int, device: torch.device) -> AttentionMask:
    """``mask`` for the chosen queries of a row; ``shape`` is (batch, query) before."""
    if mask.causal and only.last:
        return AttentionMask()  # it comes after all of them
    shown = mask.shown(shape[1], key, device)
    if shown is None:
        return mask
    if only.by_row is None:
        return AttentionMask(allowed=shown[:, :, only.columns])
    return AttentionMask(allowed=only.take(shown[:, 0].expand(shape[0], -1, -1)).unsqueeze(1))


def turns_of(only: Chosen, rotary: Rotary, rows: int) -> Rotary:
    """The turns at the chosen positions."""
    if only.by_row is None:
        return replace(rotary, cos=only.take(rotary.cos), sin=only.take(rotary.sin))
    whole = (part.expand(rows, *part.shape[1:]) for part in (rotary.cos, rotary.sin))
    return Rotary(*(only.take(part) for part in whole))
