"""The encoders that judges of text read with, by name: given by whoever can load them, since this package loads none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from workbench.core.errors import UnknownName
from workbench.core.protocol import HookedModel

_ENCODERS: dict[str, Callable[[], HookedModel]] = {}


def provide(name: str, load: Callable[[], HookedModel]) -> None:
    """Make an encoder known by name; it is loaded when a judge first reads with it."""
    _ENCODERS[name] = load


@cache
def encoder(name: str) -> HookedModel:
    """The encoder of that name. Raises UnknownName, and what its loader raises."""
    if name not in _ENCODERS:
        raise UnknownName("encoder", name, _ENCODERS, where="for a judge of text")
    return _ENCODERS[name]()


@cache
def encoder_digest(name: str) -> str:
    """The digest of that encoder, counted once for all texts. Raises what ``encoder`` does."""
    return encoder(name).digest()
