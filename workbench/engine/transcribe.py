"""Greedy decoding of encoder-decoders: what each row's source is put into, all rows of a batch together, with a key-value cache.

The source is encoded once. Each step reads one token a row; rows that have ended leave the batch when they are half of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from workbench.core.batch import SequenceBatch
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel, Progress, Resume, silent
from workbench.engine.tokens import context_length


def greedy(
    model: HookedModel,
    batch: SequenceBatch,
    *,
    begin: int | Sequence[int],
    end: int | None,
    most: int,
    progress: Progress = silent,
) -> list[list[int]]:
    """For each row the likeliest token after ``begin``, and so on: at most ``most`` ids, up to and without ``end`` (None: no row ends).

    ``begin`` is the id, or the ids, that every row starts from; the batch's own tokens and targets are not read. A model without a
    cache reads the whole prefix at each step. Raises BadValue where ``most`` ids do not fit the model's context: nothing is cut short.
    """
    lead = [begin] if isinstance(begin, int) else list(begin)
    if not lead:
        raise BadValue("begin", lead, "an id, or several: the decoder has to read something")
    if most < 1:
        raise BadValue("most", most, "at least 1")
    limit, needed = context_length(model), len(lead) + most - 1
    if limit is not None and needed > limit:
        raise BadValue("the number of tokens to read", needed, f"at most {limit}, the model's context", do="Nothing is cut short.")
    cached, total = "cache" in model.abilities, len(batch.source)
    made: list[list[int]] = [[] for _ in range(total)]
    rows, ended = list(range(total)), set[int]()  # the rows that still run, and those of all that are done
    given, past = replace(batch, tokens=torch.tensor([lead] * total), targets=None), None
    while True:
        trace = model.run(given, logits="last", resume=Resume(past=past) if past is not None else None, cache=cached)
        assert trace.logits is not None, "logits were asked for"
        past, chosen = trace.past, trace.logits[:, -1].argmax(dim=-1).tolist()
        for row, token in zip(rows, chosen, strict=True):
            if row not in ended and token != end:
                made[row].append(token)
            if token == end or len(made[row]) == most:
                ended.add(row)
        progress(len(ended), total, "transcribing")
        if len(ended) == total:
            return made
        new = torch.tensor(chosen)[:, None]
        # A past holds the source with its mask, so neither is looked at again; without one all of it is read anew.
        given = replace(given, tokens=new, mask=None) if cached else replace(given, tokens=torch.cat([given.tokens, new], dim=1))
        keep = [place for place, row in enumerate(rows) if row not in ended]
        if 2 * len(keep) <= len(rows):
            rows, given = [rows[place] for place in keep], given.rows(keep)
            past = past.rows(keep) if past is not None else None
