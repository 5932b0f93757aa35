"""Many edited runs of one input: for each cell, an edit or a few at once, what a metric says of the logits.

Equal to one ``model.run(batch, edit=cell)`` a cell, up to rounding, and cheaper by four things:

* a cell's run starts from the unedited run's residual stream at the last place before its first edit;
* where the model is causal and keeps a cache, positions before the first edited one are not run: their keys and values are the unedited
  run's (``past``), and a cell that edits only what comes after every position looked at is not run at all;
* cells run together as rows of one batch, which grows from layer to layer by those that start there;
* logits are computed at the positions looked at, and so is everything after the last layer's keys and values.

Memory is estimated before the first cell runs and bounds how many run together. Every result is handed over as soon as it is there, so
an interrupted sweep keeps what it has computed and goes on with the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from workbench.core.batch import Batch, SequenceBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import Edit, FromTrace, HookedModel, LogitsAt, Progress, Resume, Trace, silent
from workbench.core.sites import Site, SiteTable
from workbench.core.tolerance import agree

MEMORY = 1 << 30
"""Bytes a sweep takes at most, by its own estimate, unless told otherwise."""
ENOUGH = 384
"""Positions in a run's last layers past which its matrix products gain nothing from more: there, cells that start later get a run of
their own."""
MOST = 1536
"""Positions in a run past which what it computes no longer stays in a processor's own memory."""
TOGETHER = 64
"""Cells whose runs end together: what follows the last attention reads all of the unembedding's weights however few rows there are."""
RESIDUAL = ("hook_resid_pre", "hook_resid_mid", "hook_resid_mid_cross", "hook_resid_post")
SIZED = ("hook_resid_post", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "mlp.hook_pre", "mlp.hook_post")
VISIBLE = ("hook_pattern", "hook_attn_scores")
BY_HEAD = ("hook_result", "hook_q_input", "hook_k_input", "hook_v_input")
ASIDE = (*VISIBLE, *BY_HEAD, "hook_normalized", "hook_scale")
"""Sites whose edits take a layer off its fast path, or that cannot be edited together: cells of one run agree in them."""
BESIDE = "modulation."
"""Sites made beside the stream whenever a layer begins, so that a run which stops where the layer begins makes them again, unedited."""

Cell = Edit | Sequence[Edit]
Metric = Callable[[Tensor], Tensor]
"""``metric(logits)``: of one cell's rows at the positions asked for ``[batch, asked, d_vocab]`` (or whatever logits the model has), a
tensor whose shape is the same for every cell."""


@dataclass(frozen=True)
class Planned:
    """A cell ready to be run: its edits with the site of each, where a run of it starts (None: at the input), and the first position it
    changes."""

    index: int
    edits: tuple[tuple[Edit, Site], ...]
    start: str | None
    first: int

    @property
    def aside(self) -> tuple[str | None, ...]:
        """The edited sites that only cells which edit them too, and start where it does, may share a run with."""
        names = sorted({site.name for _, site in self.edits if site.tensor in ASIDE or BESIDE in site.name})
        return (self.start, *names) if names else ()


@dataclass(frozen=True)
class Estimate:
    """Bytes: ``held`` by what the unedited run left, ``cell`` more for each cell run together, at most ``cells`` of them."""

    held: int
    cell: int
    cells: int

    def __str__(self) -> str:
        total = (self.held + self.cells * self.cell) / 2**20
        return f"about {total:,.0f} MiB at most, {self.cells} edited runs at a time"


def sweep(
    model: HookedModel,
    batch: Any,
    cells: Sequence[Cell],
    metric: Metric,
    *,
    logits: LogitsAt = "last",
    memory: int = MEMORY,
    progress: Progress = silent,
    kept: MutableMapping[int, Tensor] | None = None,
) -> Tensor:
    """The metric of every cell, ``[cell, *metric]``. ``kept`` is filled with each cell's value as it comes, and what it holds already is
    not computed again: after Ctrl-C, the same call with the same ``kept`` goes on. Raises as ``prepare`` and ``Sweep.results``."""
    prepared = prepare(model, batch, cells, logits=logits, memory=memory)
    found: MutableMapping[int, Tensor] = kept if kept is not None else {}
    for index, value in prepared.results(metric, done=tuple(found), progress=progress):
        found[index] = value
    return torch.stack([found[index] for index in range(len(cells))])


def prepare(model: HookedModel, batch: Any, cells: Sequence[Cell], *, logits: LogitsAt = "last", memory: int = MEMORY) -> Sweep:
    """Run ``batch`` (token ids ``[batch, pos]`` or a batch of the family's own type) once, unedited, and plan the cells.

    ``logits``: ``"last"`` (the last column), positions, or ``"all"``, as in ``run``; a family whose logits lie along no positions is asked
    for all. Raises BadValue for no cells, a position outside the batch, and where one cell alone takes more than ``memory`` bytes.
    """
    if not cells:
        raise BadValue("the number of cells", 0, "at least 1: a sweep of nothing has no values")
    table, rows = model.sites(), _rows_of(batch)
    listed = [tuple((one, site) for one in _edits(cell) for site in table.select(one.site)) for cell in cells]
    starts = [_start(model, table, [site for _, site in pairs]) for pairs in listed]
    last = _last_layer(table)
    sized = [last[word] for word in SIZED if word in last]
    tail = last.get("hook_resid_mid_cross", last.get("hook_resid_mid"))
    reuses = _reuses(model, batch)
    capture = [*{start for start in starts if start is not None}, *sized, *([tail] if tail and reuses else [])]
    whole = _by_position(table)
    asked = _positions(logits, rows, _width(batch)) if whole else None
    with torch.no_grad():
        trace = model.run(batch, capture=capture, logits="all" if asked is None else asked, cache=reuses)
    width = trace[last["hook_resid_post"]].shape[1] if "hook_resid_post" in last else 0
    if whole and asked is None and not (isinstance(logits, str) and logits == "all"):
        asked = _positions(logits, rows, width)
        trace = replace(trace, logits=_logits(trace)[torch.arange(rows).unsqueeze(1), asked])
    plain = Sweep(model, batch, rows, width, (), trace, asked, reuses, _separate(table), None, Estimate(0, 0, 1))
    planned = tuple(
        Planned(index, pairs, start, plain.first_of(pairs, start)) for index, (pairs, start) in enumerate(zip(listed, starts, strict=True))
    )
    ready = replace(plain, cells=planned, tail=plain.sound_tail(tail))
    return replace(ready, estimate=_estimate(ready, memory))


@dataclass(frozen=True)
class Sweep:
    """A sweep ready to run. ``asked`` ``[batch, n]`` are the positions looked at (None: all, or the family's logits have none); ``tail``
    is where the last attention is over, from which on only those positions run (None: all do)."""

    model: HookedModel
    batch: Any
    rows: int
    width: int
    cells: tuple[Planned, ...]
    trace: Trace
    asked: Tensor | None
    reuses: bool
    separate: bool
    tail: str | None
    estimate: Estimate

    def plain(self, metric: Metric) -> Tensor:
        """The metric of the unedited run."""
        return metric(_logits(self.trace)).detach()

    def results(self, metric: Metric, *, done: Collection[int] = (), progress: Progress = silent) -> Iterator[tuple[int, Tensor]]:
        """(number of the cell, its metric), those in ``done`` left out, in the order they are ready; ``progress`` counts cells and says
        the estimate of memory. Raises BadValue for a metric that is not finite, or whose shape changes from cell to cell."""
        kept, ready = set(done), len(set(done))
        plain = self.plain(metric)
        if not bool(torch.isfinite(plain).all()):
            raise BadValue("the metric of the unedited run", "NaN or infinity", "finite", do="The weights or the input are broken.")
        for chunk, logits in self._logits([cell for cell in self.cells if cell.index not in kept]):
            for k, cell in enumerate(chunk):
                value = plain
                if logits is not None:
                    value = metric(logits[k * self.rows : (k + 1) * self.rows] if self.separate else logits).detach()
                yield cell.index, _checked(cell, value, plain.shape)
            ready += len(chunk)
            progress(ready, len(self.cells), str(self.estimate))

    def _logits(self, cells: Sequence[Planned]) -> Iterator[tuple[Sequence[Planned], Tensor | None]]:
        """Cells with their logits, ``[cell * batch, asked, d_vocab]``; None for those that are not run. What follows the last attention is
        run for many chunks at once, since a matrix product of few rows costs as much as one of many."""
        waiting: list[tuple[list[Planned], Tensor]] = []
        for chunk in self.chunks(cells):
            if self.unmoved(chunk[0]):
                yield chunk, None
                continue
            found = self.run(chunk)
            if not self._stops(chunk):
                yield chunk, found
                continue
            waiting.append((chunk, found))
            if sum(len(one) for one, _ in waiting) >= min(self.estimate.cells, TOGETHER):
                yield self._ended(waiting)
                waiting = []
        if waiting:
            yield self._ended(waiting)

    def _ended(self, waiting: Sequence[tuple[Sequence[Planned], Tensor]]) -> tuple[Sequence[Planned], Tensor]:
        with torch.no_grad():
            trace = self._from_tail(torch.cat([x for _, x in waiting]))
        return [cell for chunk, _ in waiting for cell in chunk], _logits(trace)

    def chunks(self, cells: Sequence[Planned]) -> Iterator[list[Planned]]:
        """Cells that run together, by their starts: like first positions, one kind, and no more than the estimate allows."""
        order, kinds = self._order, {cell.index: self._kind(cell) for cell in cells}
        by_start = lambda cell: order[cell.start]  # noqa: E731
        chunk: list[Planned] = []
        for cell in sorted(cells, key=lambda c: (kinds[c.index], c.first, by_start(c), c.index)):
            if chunk and (kinds[chunk[0].index] != kinds[cell.index] or not self._joins(chunk, cell)):
                yield sorted(chunk, key=by_start)
                chunk = []
            chunk.append(cell)
        if chunk:
            yield sorted(chunk, key=by_start)

    def _kind(self, cell: Planned) -> tuple[str, ...]:
        """What cells of one run agree in: whether they are run at all; the stack they start in and what they let the last layer leave out;
        or, where cells cannot join on the way, the place they start at and the sites that keep others away."""
        if self.unmoved(cell):
            return ("unmoved",)
        if cell.aside or "stop" not in getattr(self.model, "resumes", frozenset()):
            return ("alone", *(word or "" for word in (cell.start, *cell.aside)))
        table = self.model.sites()
        return ("grows", table[cell.start].stack if cell.start is not None else _first_stack(table), str(self._few([cell])))

    def _joins(self, chunk: Sequence[Planned], cell: Planned) -> bool:
        lead = chunk[0]
        positions = len(chunk) * self.rows * (self.width - lead.first)
        enough = MOST if cell.first == lead.first else ENOUGH
        return self.unmoved(lead) or (len(chunk) < self.estimate.cells and positions < enough)

    @cached_property
    def _order(self) -> dict[str | None, int]:
        """The number of each site in the order of a run; None is the input."""
        return {None: -1, **{name: at for at, name in enumerate(self.model.sites())}}

    def unmoved(self, cell: Planned) -> bool:
        """Whether a cell edits only what no position looked at can see."""
        return self.asked is not None and cell.first > int(self.asked.max())

    def run(self, chunk: Sequence[Planned]) -> Tensor:
        """Of a chunk, cell by cell, the logits ``[cell * batch, asked, d_vocab]``; or, where it stops at the tail, the stream there.

        The batch grows: at each place where cells start it stops, and goes on with their rows below those it has.
        """
        first = 0 if self.asked is None else min(min(cell.first for cell in chunk), int(self.asked.min()))
        past = self._past(first, len(chunk)) if first else None
        starts = list(dict.fromkeys(cell.start for cell in chunk))
        x: Tensor | None = None
        with torch.no_grad():
            for start, stop in itertools.pairwise(starts):
                resume, batch, edits = self._piece(chunk, x, past, first, (start, stop))
                x = self.model.run(batch, capture=[str(stop)], edit=edits, logits=None, resume=replace(resume, stop=stop))[str(stop)]
            return self._end(chunk, *self._piece(chunk, x, past, first, (starts[-1], None)), first)

    def _piece(
        self, chunk: Sequence[Planned], x: Tensor | None, past: Any, first: int, between: tuple[str | None, str | None]
    ) -> tuple[Resume, Any, list[Edit]]:
        """From one start to the next (None: the end): the stream so far with the rows that start here, the batch, and the edits."""
        start, stop = between
        held = [cell for cell in chunk if self._order[cell.start] <= self._order[start]]
        own = None if start is None else self._repeated(self.trace[start][:, first:], sum(cell.start == start for cell in held))
        x = own if x is None or own is None else torch.cat([x, own])
        resume = Resume(start=start, residual=x, past=None if past is None else past.leading(len(held) * self.rows))
        batch = _repeated(_later(self.batch, first), len(held)) if self.separate else self.batch
        end = len(self._order) if stop is None else self._order[stop]
        return resume, batch, self._edits(held, (self._order[start], end), first)

    def _edits(self, cells: Sequence[Planned], between: tuple[int, int], first: int) -> list[Edit]:
        """The edits of some cells from one place of a run to another, by site."""
        order = self._order
        by_site: dict[Site, list[tuple[int, Edit]]] = {}
        for k, cell in enumerate(cells):
            for edit, site in cell.edits:
                if between[0] <= order[site.name] < between[1]:
                    by_site.setdefault(site, []).append((k, edit))
        rows = self.rows if self.separate else None
        return [_Together(site.name, rows=rows, edits=tuple(each), first=first) for site, each in by_site.items()]

    def _end(self, chunk: Sequence[Planned], resume: Resume, batch: Any, edits: Sequence[Edit], first: int) -> Tensor:
        """The last piece of a run: to the logits, or to the tail."""
        if self.asked is None:
            return _logits(self.model.run(batch, edit=edits, logits="all", resume=resume))
        at = self._asked(first, len(chunk))
        if self.tail is None or not self._stops(chunk):
            return _logits(self.model.run(batch, edit=edits, logits=at, resume=resume))
        few = self._few(chunk)
        stopped = replace(resume, stop=self.tail, only=at if few else None)
        x = self.model.run(batch, capture=self.tail, edit=edits, logits=None, resume=stopped)[self.tail]
        return x if few else _taken(x, at)

    def _asked(self, first: int, count: int) -> Tensor:
        assert self.asked is not None
        return (self.asked - first).repeat(count, 1)

    def _repeated(self, value: Tensor, count: int) -> Tensor:
        return value.repeat(count, *[1] * (value.ndim - 1)) if self.separate else value

    def _past(self, first: int, count: int) -> Any:
        past = self.trace.past.first(first)
        return past.expand(count) if self.rows == 1 else past.rows(list(range(self.rows)) * count)

    def _few(self, chunk: Sequence[Planned]) -> bool:
        """Whether the last layer's queries can run at the asked positions alone: nothing that lies along them is edited."""
        sites = {site for cell in chunk for _, site in cell.edits}
        return self._queries >= 0 and all(self._order[site.name] < self._queries for site in sites)

    @cached_property
    def _queries(self) -> int:
        """The number of the last layer's first site that need not lie along all positions; -1 where the model cannot leave any out."""
        name = _last_layer(self.model.sites()).get("attn.hook_q")
        return self._order[name] if name is not None and "only" in getattr(self.model, "resumes", frozenset()) else -1

    def _stops(self, chunk: Sequence[Planned]) -> bool:
        """Whether all that the chunk edits lies before the tail, so that its runs stop there."""
        if self.tail is None:
            return False
        order = self._order
        places = [cell.start for cell in chunk] + [site.name for cell in chunk for _, site in cell.edits]
        return all(order[place] <= order[self.tail] for place in places)

    def _from_tail(self, x: Tensor) -> Trace:
        return self.model.run(None, resume=Resume(start=self.tail, residual=x))

    def first_of(self, edits: Sequence[tuple[Edit, Site]], start: str | None) -> int:
        """The first position that edits change; 0 where that is not known to matter."""
        if not self.reuses or self.asked is None or (start is None and not isinstance(self.batch, Tensor | SequenceBatch)):
            return 0
        stack = _last_stack(self.model.sites())
        if start is not None and self.model.sites()[start].stack != stack:  # what is kept of a prefix stands for the stacks before it too
            return 0
        return min(_first(edit, site, self.width) if site.stack == stack else 0 for edit, site in edits)

    def sound_tail(self, tail: str | None) -> str | None:
        """``tail`` where a run of the asked positions alone from there ends in the unedited run's logits, as where nothing after it
        mixes positions or counts them."""
        alone = "positions" in getattr(self.model, "resumes", frozenset())
        if tail is None or not (self.reuses and alone) or self.asked is None or self.asked.shape[1] >= self.width:
            return None
        found = replace(self, tail=tail)._from_tail(_taken(self.trace[tail], self.asked)).logits
        return tail if found is not None and agree(found, _logits(self.trace), "logits") else None


# --- the edits of a chunk -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Together(Edit):
    """The edits of many cells at one site, each on its own ``rows`` (None: one cell, on all); the run began at position ``first``."""

    rows: int | None
    edits: tuple[tuple[int, Edit], ...]
    first: int

    def apply(self, value: Tensor, site: Site) -> Tensor:
        out = value.clone()
        for k, edit in self.edits:
            own = slice(None) if self.rows is None else slice(k * self.rows, (k + 1) * self.rows)
            out[own] = _edited(edit, out[own], site, self.first)
        return out


def _edited(edit: Edit, value: Tensor, site: Site, first: int) -> Tensor:
    """``value``, which begins at position ``first``, with an edit that counts from the beginning."""
    if not first:
        return edit.apply(value, site)
    word = _along(site)
    assert word is not None
    axis, later = site.axes.index(word), value.shape[site.axes.index(word)]
    picked = _picked(edit.at[word], first + later)
    at = {**edit.at, word: [place - first for place in picked] if len(picked) > 1 else picked[0] - first}
    if not isinstance(edit, FromTrace):
        return replace(edit, at=at).apply(value, site)
    stored = edit.trace[edit.source or site.name]
    if stored.ndim != value.ndim or stored.shape[axis] != first + later:
        whole = (*value.shape[:axis], first + later, *value.shape[axis + 1 :])
        raise BadValue(f"the captured '{edit.source or site.name}'", tuple(stored.shape), f"of shape {whole}, as in this run")
    cut = Trace(None, {site.name: stored.narrow(axis, first, later)})
    return FromTrace(site.name, trace=cut, at=at).apply(value, site)


def _edits(cell: Cell) -> tuple[Edit, ...]:
    edits = (cell,) if isinstance(cell, Edit) else tuple(cell)
    if not edits:
        raise BadValue("a cell's edits", "none", "at least one edit")
    return edits


def _along(site: Site) -> str | None:
    """The axis that counts the positions of a site's own stack."""
    return next((word for word in ("pos", "query") if word in site.axes), None)


def _first(edit: Edit, site: Site, width: int) -> int:
    word = _along(site)
    return 0 if word is None or word not in edit.at else min(_picked(edit.at[word], width))


def _picked(chosen: Any, width: int) -> list[int]:
    """The positions an index chooses, counted from 0. Raises BadValue for none, or one outside."""
    if isinstance(chosen, slice):
        places = list(range(*chosen.indices(width)))
    else:
        places = [int(p) for p in torch.as_tensor(chosen).reshape(-1).tolist()]
    if not places or min(places) < -width or max(places) >= width:
        raise BadValue("the positions of an edit", places, f"at least one, within 0 to {width - 1}")
    return [place % width for place in places]


# --- the model and its batch ------------------------------------------------------------------------------------


def _last_stack(table: SiteTable) -> str:
    return [site.stack for site in table.values() if site.layer is not None][-1]


def _first_stack(table: SiteTable) -> str:
    return next((site.stack for site in table.values() if site.layer is not None), "")


def _last_layer(table: SiteTable) -> dict[str, str]:
    """The sites of the last layer of the last stack by what follows ``blocks.N.``."""
    inside = [site for site in table.values() if site.layer is not None]
    if not inside:
        return {}
    prefix = inside[-1].name[: inside[-1].name.index("blocks.")] + f"blocks.{inside[-1].layer}."
    return {name.removeprefix(prefix): name for name in table if name.startswith(prefix)}


def _start(model: HookedModel, table: SiteTable, sites: Sequence[Site]) -> str | None:
    """The last place on the stream at or before the first of ``sites`` from which the model can start."""
    if "start" not in getattr(model, "resumes", frozenset()):
        return None
    names = list(table)
    until = min(names.index(site.name) for site in sites)
    return next((name for name in reversed(names[: until + 1]) if name.rpartition(".")[2] in RESIDUAL), None)


def _reuses(model: HookedModel, batch: Any) -> bool:
    """Whether the unedited run's keys and values stand for the positions before an edit."""
    segmented = getattr(batch, "segments", None) is not None or getattr(batch, "positions", None) is not None
    mask = None if isinstance(batch, SequenceBatch) else getattr(batch, "mask", None)  # of a source, the past remembers it
    segmented = segmented or (mask is not None and not bool(mask.all()))
    return "cache" in model.abilities and {"start", "past"} <= getattr(model, "resumes", frozenset()) and not segmented


def _by_position(table: SiteTable) -> bool:
    """Whether the logits lie along positions."""
    site = table.get("unembed.hook_logits") if "unembed.hook_logits" in table else None
    return site is None or "pos" in site.axes


def _separate(table: SiteTable) -> bool:
    """Whether a row of the batch is run as if alone; false where rows are answers to each other."""
    return "unembed.hook_logits" not in table or "pair" not in table["unembed.hook_logits"].axes


def _rows_of(batch: Any) -> int:
    held = batch if isinstance(batch, Tensor) else next(iter(vars(batch).values())) if isinstance(batch, Batch) else None
    if held is None or held.ndim == 0 or not len(held):
        raise BadValue("the batch", type(batch).__name__, "a tensor or a batch of the family's own type, of at least one row")
    return len(held)


def _width(batch: Any) -> int | None:
    """The positions of the logits, where the batch says so."""
    if isinstance(batch, Tensor):
        return batch.shape[1] if batch.ndim == 2 else None
    tokens = getattr(batch, "tokens", None)
    return None if tokens is None or hasattr(batch, "pixels") else tokens.shape[1]


def _positions(logits: LogitsAt, rows: int, width: int | None) -> Tensor | None:
    """``logits`` as positions ``[batch, n]`` from 0; None for all of them, or where the width is not known yet."""
    if width is None or (isinstance(logits, str) and logits == "all"):
        return None
    if isinstance(logits, str) and logits != "last":
        raise BadValue("logits", logits, "'all', 'last' or positions: a metric reads them")
    if logits is None:
        raise BadValue("logits", None, "'all', 'last' or positions: a metric reads them")
    where = torch.tensor([width - 1]) if isinstance(logits, str) else torch.as_tensor(logits).long().cpu()
    where = where.expand(rows, -1) if where.ndim == 1 else where
    if where.ndim != 2 or where.shape[0] != rows or not where.numel() or int(where.min()) < -width or int(where.max()) >= width:
        raise BadValue("logits", where.tolist(), f"positions [n] or [{rows}, n] within 0 to {width - 1}, at least one")
    return where % width


def _later(batch: Any, first: int) -> Any:
    """The batch from a position on; None where a run that starts on the stream needs none."""
    if not first:
        return batch
    if isinstance(batch, SequenceBatch):
        return replace(batch, tokens=batch.tokens[:, first:], targets=None)
    return batch[:, first:] if isinstance(batch, Tensor) else None


def _repeated(batch: Any, count: int) -> Any:
    if isinstance(batch, Batch):
        return batch.rows(list(range(_rows_of(batch))) * count)
    return None if batch is None else batch.repeat(count, *[1] * (batch.ndim - 1))


def _taken(x: Tensor, at: Tensor) -> Tensor:
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), at.to(x.device)]


def _logits(trace: Trace) -> Tensor:
    if trace.logits is None:
        raise BadValue("the model's logits", None, "there: a sweep's metric reads them")
    return trace.logits


def _checked(cell: Planned, value: Tensor, shape: torch.Size) -> Tensor:
    where = ", ".join(f"'{site.name}'{f' at {dict(edit.at)}' if edit.at else ''}" for edit, site in cell.edits)
    if value.shape != shape:
        raise BadValue(f"the shape of the metric with {where} edited", tuple(value.shape), f"{tuple(shape)}, as without an edit")
    if not bool(torch.isfinite(value).all()):
        raise BadValue(f"the metric with {where} edited", "NaN or infinity", "finite", do="The value put there is broken, or the weights.")
    return value


# --- memory -------------------------------------------------------------------------------------------------


def _estimate(ready: Sweep, memory: int) -> Estimate:
    """What one more cell takes: the streams, queries, keys, values and neurons of a layer, what an edit copies, the past of its own rows,
    and the logits with what a metric makes of them. A bound of thumb: tensors that live at once, each counted where it is largest."""
    trace, rows = ready.trace, ready.rows
    last = _last_layer(ready.model.sites())
    held = sum(value.nbytes for value in trace.at.values()) + _past_bytes(trace.past)
    layer = {word: trace[last[word]].nbytes for word in SIZED if word in last}
    stream = layer.get("hook_resid_post", 0)
    work = 4 * stream + 2 * sum(size for word, size in layer.items() if "attn." in word) + 3 * layer.get("mlp.hook_post", 0)
    edited = {site for cell in ready.cells for _, site in cell.edits}
    if any(site.name.endswith(VISIBLE) for site in edited):
        heads = trace[last["attn.hook_q"]].shape[2] if "attn.hook_q" in last else 1
        work += 4 * 4 * rows * heads * ready.width**2
    if any(site.tensor in BY_HEAD for site in edited):
        heads = trace[last["attn.hook_q"]].shape[2] if "attn.hook_q" in last else 1
        work += 4 * heads * stream
    past = _past_bytes(trace.past) if rows > 1 else 0
    cell = work + past + 4 * _logits(trace).nbytes
    if ready.separate and held + cell > memory:
        raise BadValue(
            "the memory of one edited run", f"about {(held + cell) / 2**20:,.0f} MiB", f"at most {memory / 2**20:,.0f} MiB",
            do="Give fewer items at once, or allow more memory.",
        )  # fmt: skip
    most = max(1, (memory - held) // max(1, cell)) if ready.separate else 1
    return Estimate(held, cell, min(most, len(ready.cells)))


def _past_bytes(past: Any) -> int:
    return 0 if past is None else sum(t.nbytes for pair in (*past.layers, *past.memory) for t in pair)
