"""Where a dictionary's rows come from: a harvest on disk, or a model that runs as it is asked.

Both give the same batches whenever they are asked for from some batch on, so a training cut off goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from probes.dictionaries.spec import Origin
from probes.dictionaries.training import Rows, Stream
from workbench.core.errors import BadValue
from workbench.core.protocol import HookedModel
from workbench.engine.corpus import Corpus
from workbench.engine.harvest_read import Harvest


def from_harvest(harvest: Harvest, site: str, rows: int, *, seed: int = 0, site_out: str = "", buffer: int = 65536) -> Stream:
    """Shuffled batches of ``rows``, epoch after epoch without end; pairs where there is a ``site_out``. What does not fill a batch at the
    end of an epoch is left out of it (another epoch draws another order). Raises BadValue for fewer rows than a batch."""
    sites = [site, site_out] if site_out else [site]
    each = harvest.rows(site) // rows
    if not each:
        raise BadValue("rows", rows, f"at most {harvest.rows(site)}, the rows of this harvest")

    def batches(first: int) -> Iterator[Rows]:
        epoch, start = divmod(first, each)
        while True:
            for found in harvest.batches(sites, rows, seed=seed, epoch=epoch, start=start, buffer=buffer, last=False):
                parts = [_floating(found[name]) for name in sites]
                yield (parts[0], parts[1]) if site_out else parts[0]
            epoch, start = epoch + 1, 0

    return batches


def from_model(model: HookedModel, corpus: Corpus, site: str, items: int, *, seed: int = 0, site_out: str = "", rows: int = 0) -> Stream:
    """Runs ``items`` of the corpus, drawn anew each epoch, for each batch: all their real positions, or ``rows`` of them drawn at random.

    Rows of one batch share their items; a harvest mixes better. Raises BadValue for fewer items than a batch.
    """
    sites = [site, site_out] if site_out else [site]
    each = len(corpus) // items if items > 0 else 0
    if not each:
        raise BadValue("items", items, f"from 1 to {len(corpus)}, the items of this corpus")
    stack = model.sites()[site].stack

    def batches(first: int) -> Iterator[Rows]:
        number = first
        while True:
            epoch, place = divmod(number, each)
            order = torch.randperm(len(corpus), generator=torch.Generator().manual_seed((seed << 32) + epoch))
            chosen = sorted(order[place * items : (place + 1) * items].tolist())
            corpus.lengths(chosen)
            given = corpus.given(chosen)
            trace = model.run(_moved(model, given.batch), capture=sites, logits=None)
            parts = []
            for name in sites:
                value = trace[name].detach()
                real = given.real.get(stack, torch.ones(value.shape[:2], dtype=torch.bool)).to(value.device)
                parts.append(_floating(value[real]))
            if rows:
                draw = torch.Generator().manual_seed((seed << 32) + (1 << 31) + number)
                at = torch.randint(0, len(parts[0]), (rows,), generator=draw).to(parts[0].device)
                parts = [part[at] for part in parts]
            yield (parts[0], parts[1]) if site_out else parts[0]
            number += 1

    return batches


def origin_of(harvest: Harvest, site: str, site_out: str = "") -> Origin:
    """What a dictionary trained on a harvest says of itself."""
    head = harvest.head
    return Origin(model=head["family"], model_digest=head["model"], site=site, site_out=site_out, data_digest=head["data"])


def _floating(rows: Tensor) -> Tensor:
    """Rows in a dtype that a dictionary computes in."""
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.float()


def _moved(model: HookedModel, batch: Any) -> Any:
    weight = next(iter(getattr(model, "parameters", tuple)()), None)
    return batch if weight is None or not hasattr(batch, "to") else batch.to(weight.device)
