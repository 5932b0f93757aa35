"""A harvest on several processes, of this machine or of a Ray cluster: each makes every n-th shard of one folder.

Nothing but its items decides a shard's bytes, so the folder is the same to the byte as one process would leave it. A worker that dies is
begun again and goes on behind the shards that are whole. All workers must see the folder: on a cluster it lies on a shared disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from workbench.core.errors import AssayError
from workbench.core.protocol import Progress, silent
from workbench.engine.harvest import begin
from workbench.engine.harvest_read import Harvest
from workbench.lab.harvesting import corpus_of, harvested, specs_of
from workbench.lab.rays import TRIES, cluster, last_line, parse, refuse_memory
from workbench.lab.refs import load
from workbench.lab.silence import silence
from workbench.store.runs import Store

LOOK_S = 0.5
"""Seconds between two looks at how many shards there are."""


def harvested_on(
    engine: str, ref: str, out: Path | str, settings: Mapping[str, Any], *, store: Store | None = None, progress: Progress = silent
) -> Harvest:
    """As ``harvested``, by ``local``, ``ray`` or ``ray:N`` workers. Raises BadValue, MissingExtra, Incompatible for a model that has no
    lasting reference, AssayError where a part ends ``TRIES`` workers, and what ``harvested`` raises."""
    count = parse(engine)
    if not count:
        return harvested(ref, out, settings, store=store, progress=progress)
    refuse_memory(ref)
    store = store if store is not None else Store.open()
    corpus, spec = specs_of(settings)
    model = load(ref, store=store, progress=progress)
    folder = Path(out).absolute()
    shards = begin(model, corpus_of(model, corpus, ref, store), folder, spec)
    given = (ref, store.address, str(folder), dict(settings))
    with cluster() as ray:
        task = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_part)
        running = [task.remote(*given, (k, count), torch.get_num_threads(), os.getcwd()) for k in range(count)]
        while running:
            ready, running = ray.wait(running, num_returns=1, timeout=LOOK_S)
            for one in ready:
                _told(ray, one)
            progress(len(list(folder.glob("shard-*.json"))), shards, "shards")
    return harvested(ref, folder, settings, store=store, progress=progress)  # every shard is compared with its receipt


def _part(ref: str, address: str, out: str, settings: dict[str, Any], part: tuple[int, int], threads: int, folder: str) -> str:
    """One process's shards; the sentence of what ended it, where one of our errors did."""
    silence()
    if Path(folder).is_dir():
        os.chdir(folder)  # references and files of texts may be relative
    torch.set_num_threads(threads)
    try:
        with Store.open(address) as store:
            harvested(ref, out, settings, part=part, store=store)
    except AssayError as error:
        return str(error)
    return ""


def _told(ray: Any, one: Any) -> None:
    try:
        said = ray.get(one)
    except ray.exceptions.RayError as error:
        raise AssayError(f"A worker of the harvest failed: {last_line(error)}. Whole shards are kept.") from None
    if said:
        raise AssayError(said)
