"""What every model does alike: name its sites and weights, and turn one forward pass into a Trace.

A subclass gives its wiring (``_pass``) and its loss; selection, edits, listening, gradients, resuming and identity are here, so that
they mean the same in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.blocks.cache import KVCache
from workbench.blocks.digest import model_digest
from workbench.blocks.embed import Axes
from workbench.blocks.frontends import Grid
from workbench.blocks.init import STD, initialise
from workbench.blocks.listen import Listener, under
from workbench.blocks.naming import row_names, row_picture, token_names
from workbench.blocks.stack import POINTS, Point, Stack
from workbench.core.batch import EncoderBatch
from workbench.core.errors import BadValue, UnknownName
from workbench.core.picture import Picture
from workbench.core.protocol import Edit, LogitsAt, Resume, Tokenizer, Trace
from workbench.core.sites import Selection, Site, SiteTable


@dataclass(frozen=True)
class Ask:
    """What one run was asked for. ``starts`` and ``stops`` are places on the stream, with the stack each lies in."""

    logits: LogitsAt
    resume: Resume
    cache: bool
    listener: Listener | None
    starts: tuple[Stack, Point] | None = None
    stops: tuple[Stack, Point] | None = None

    def start(self, stack: Stack) -> Point | None:
        """Where ``stack`` begins; None: at its first layer, from what was embedded."""
        return self.starts[1] if self.starts is not None and self.starts[0] is stack else None

    def stop(self, stack: Stack) -> Point | None:
        """Where ``stack`` ends; None: after its last layer."""
        return self.stops[1] if self.stops is not None and self.stops[0] is stack else None

    def under(self, prefix: str) -> Listener | None:
        """The listener below ``prefix``."""
        return under(self.listener, prefix) if prefix else self.listener


class Model(nn.Module):
    """Base of the models. First values depend on ``seed`` and the shapes alone; the global random state is not touched."""

    family: ClassVar[str]
    config_type: ClassVar[Any]
    abilities: frozenset[str] = frozenset({"logits", "edit", "grad", "weights"})
    resumes: ClassVar[frozenset[str]] = frozenset({"start", "stop", "residual"})
    reads: ClassVar[str] = "tokens"
    """What a batch is, in a word: ``tokens``, ``pixels``, ``pairs`` (pixels with text), ``sequences`` (a source and tokens), ``noise``."""
    both_ways: ClassVar[bool] = False
    """Whether tokens read what comes after them, so that padding must be masked."""
    parts: ClassVar[tuple[str, ...]] = ()
    """The parts that learn one after the other (``learn(part)``), where they do not all learn at once."""
    grids: Mapping[str, Grid] = {}
    """The patches of each stack that reads ``pixels``."""
    one_row: ClassVar[bool] = False
    """Whether a text, a begin token and an image's patches are one row of positions."""
    moves: ClassVar[bool] = False
    """Whether ``loss`` checks a TokenBatch where it is and moves it itself, so that one in the host's memory costs no wait for a device."""
    config: Any

    def __init__(self, config: Any, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        if tokenizer is not None and tokenizer.vocab_size != config.d_vocab:
            raise BadValue("d_vocab", config.d_vocab, f"the tokenizer's {tokenizer.vocab_size}")
        self.config, self.tokenizer = config, tokenizer

    def _finish(self, table: Mapping[str, Axes], *, additive: bool, seed: int, writes: int, std: float = STD) -> None:
        """Fill the parameters and fix the table of sites; the last line of a subclass's ``__init__``."""
        initialise(self, seed, writes=writes, std=std)
        self._table = SiteTable([Site(*line) for line in table.items()], additive=additive, where=f"this {self.family} model")

    def sites(self) -> SiteTable:
        """Every place that can be read or edited, in the order a run passes them."""
        return self._table

    def run(
        self,
        batch: Any,
        *,
        capture: Selection = (),
        edit: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        resume: Resume | None = None,
        cache: bool = False,
    ) -> Trace:
        """One forward pass without dropout (see ``HookedModel.run``; the subclass says what ``batch`` and the logits' axes are).

        Sites are captured whole, whatever ``logits`` asks for. Without logits and cache a run ends after the last site it is asked for.
        """
        sites, resume = self._table.select(capture), resume or Resume()
        listener = Listener(self._table, sites, edit, grad) if sites or edit else None
        if logits is None and listener is not None and not cache:
            resume = self._until(listener, resume)
        ask = Ask(logits, resume, cache, listener, *self._span(resume))
        self._check(ask)
        with torch.set_grad_enabled(grad):
            out, past = self._pass(batch, ask)
        at, heard = listener.finish() if listener is not None else ({}, {})
        return Trace(out, at, heard, past if cache else None)

    def _until(self, listener: Listener, resume: Resume) -> Resume:
        """``resume`` with a stop at the first place on the stream that nothing heard lies after, where there is one."""
        names = list(self._table)
        last = max(at for at, name in enumerate(names) if listener.hears(name))
        first = names.index(resume.start) if resume.start is not None and resume.start in self._table else 0
        stop = next((name for name in names[max(last, first) :] if name.rpartition(".")[2] in POINTS), None)
        untouched = resume.stop is None and resume.only is None and "stop" in self.resumes and last >= first
        return replace(resume, stop=stop) if untouched and stop is not None else resume

    def _pass(self, batch: Any, ask: Ask) -> tuple[Tensor | None, KVCache | None]:
        """The logits (None where none are asked for or the run stops before them) and what later tokens may reuse."""
        raise NotImplementedError

    def padded(self, ids: Tensor, real: Tensor) -> Any:
        """The batch of right-padded ``ids [batch, pos]`` whose real tokens are ``real``: ids alone where the model is causal and never
        reads what comes later, else with padding masked."""
        return EncoderBatch(ids, mask=real) if self.both_ways else ids

    def places(self, batch: Any, stack: str = "") -> list[list[str]] | None:
        """A name for each position of a stack in each row, '' at padding: patches by row and column, tokens by piece (without a tokenizer,
        by id); None: positions have numbers alone."""
        grid, tokens = self.grids.get(stack), getattr(batch, "tokens", None)
        if grid is not None and not self.one_row:
            return [grid.names()] * len(batch.pixels)
        words = None if tokens is None else token_names(tokens, getattr(batch, "mask", None), self.tokenizer)
        return words if words is None or grid is None else row_names(words, grid)

    def picture(self, batch: Any, stack: str = "") -> Picture | None:
        """What the positions of a stack are parts of, where it is an image or a spectrogram."""
        if (grid := self.grids.get(stack)) is None or getattr(batch, "pixels", None) is None:
            return None
        return row_picture(batch, grid) if self.one_row else Picture(batch.pixels, grid.boxes())

    def stacks(self) -> list[Stack]:
        """The stacks, in the order a run passes them."""
        return [module for module in self.modules() if isinstance(module, Stack)]

    def _span(self, resume: Resume) -> tuple[tuple[Stack, Point] | None, tuple[Stack, Point] | None]:
        start, stop = (self._place(name) if name else None for name in (resume.start, resume.stop))
        if start and stop:
            order = self.stacks()
            if (order.index(start[0]), start[1].layer, start[1].at) > (order.index(stop[0]), stop[1].layer, stop[1].at):
                raise BadValue("resume.stop", resume.stop, f"at or after resume.start, '{resume.start}'")
        return start, stop

    def _place(self, name: str) -> tuple[Stack, Point]:
        stacks = self.stacks()
        named = [stack for stack in stacks if name.startswith(stack.prefix)] if len(stacks) > 1 else stacks
        stack = named[0] if named else stacks[0]
        return stack, stack.point(name)

    def _check(self, ask: Ask) -> None:
        given = {name for name, value in vars(ask.resume).items() if value is not None}
        if odd := sorted(given - self.resumes):
            raise BadValue(f"resume.{odd[0]}", "given", f"left out for a {self.family} model, which resumes with {sorted(self.resumes)}")
        if ask.cache and "cache" not in self.abilities:
            raise BadValue("cache", True, f"false for a {self.family} model: it reads everything at once")
        if ask.cache and (ask.starts or ask.stops):
            raise BadValue("cache", True, "false for a part of a run: the past would lack layers")

    def named_weights(self) -> dict[str, Tensor]:
        """Every weight by its public name."""
        raise NotImplementedError

    def weight(self, name: str) -> Tensor:
        """A weight by TransformerLens's name and shape (``blocks.0.attn.W_Q``, ``blocks.0.mlp.W_in``, ``W_E``, ``W_pos``, ``W_U``,
        ``ln_final.w`` …), detached; biases there are none of are zeros. A view where shapes allow: clone before writing."""
        named = self.named_weights()
        if name not in named:
            raise UnknownName("weight", name, named, where=f"in this {self.family} model")
        return named[name].detach()

    def digest(self) -> str:
        """sha256 (hex) over config, weights and tokenizer."""
        return model_digest(self.family, self.config, self.state_dict(), self.tokenizer)


def prefixed(prefix: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` with ``prefix`` before every name."""
    return {f"{prefix}{name}": value for name, value in table.items()}
