"""Randomness of a training step from its place alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from workbench.blocks.init import generator_of


@contextmanager
def drawing(device: torch.device, *parts: int) -> Iterator[None]:
    """Randomness (dropout) from ``parts`` alone; the global state is as before afterwards.

    The generators are set themselves: ``torch.manual_seed`` would also queue a call, with a stack trace, for every absent device.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index if device.index is not None else torch.cuda.current_device()])
    states = [generator.get_state() for generator in generators]
    seed = generator_of("dropout", *parts).initial_seed()
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states):
            generator.set_state(state)
