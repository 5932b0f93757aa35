"""Which activations are patched: the components that can be named, and one cell for each choice of layer, head, position, key or neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from workbench.core.errors import BadValue, UnknownName
from workbench.core.protocol import HookedModel
from workbench.core.sites import Site

WORDS = ("head", "pos", "key", "neuron")
"""What a cell can be one of, besides a layer."""
WHOLE = -1
"""The number of an axis taken whole."""


@dataclass(frozen=True)
class Component:
    """``site``: what follows ``blocks.N.``; ``axes``: the site's axis for each word a grid can have; ``usual``: the grid unless told."""

    site: str
    axes: Mapping[str, str]
    usual: tuple[str, ...]


def _stream(name: str) -> Component:
    return Component(f"hook_{name}", {"pos": "pos"}, ("pos",))


def _head(part: str, name: str, head: str = "head", pos: str = "pos", **more: str) -> Component:
    return Component(f"{part}{name}", {"head": head, **({"pos": pos} if pos else {}), **more}, ("head",))


_STREAMS = (
    "resid_pre", "resid_mid", "resid_mid_cross", "resid_post",
    "attn_in", "attn_out", "cross_attn_in", "cross_attn_out", "mlp_in", "mlp_out",
)  # fmt: skip
COMPONENTS: dict[str, Component] = {
    **{name: _stream(name) for name in _STREAMS},
    **{name: _head("attn.hook_", name) for name in ("z", "result", "q", "rot_q")},
    **{name: _head("attn.hook_", name, "kv_head") for name in ("k", "v", "rot_k")},
    **{name: _head("attn.hook_", name, pos="query", key="key") for name in ("pattern", "attn_scores")},
    "q_input": _head("hook_", "q_input"),
    **{name: _head("hook_", name, "kv_head") for name in ("k_input", "v_input")},
    **{f"cross_{name}": _head("cross_attn.hook_", name) for name in ("z", "result", "q")},
    **{f"cross_{name}": _head("cross_attn.hook_", name, "kv_head", "", key="key") for name in ("k", "v")},
    "cross_pattern": _head("cross_attn.hook_", "pattern", pos="query", key="key"),
    "neurons": Component("mlp.hook_post", {"neuron": "d_mlp", "pos": "pos"}, ("neuron",)),
}


@dataclass(frozen=True)
class Place:
    """One cell: a component of a layer, and the number of each word (``WHOLE``: all of that axis)."""

    component: str
    site: Site
    layer: int
    at: Mapping[str, int]

    @property
    def pos(self) -> int:
        """The position, or ``WHOLE``."""
        return self.at.get("pos", WHOLE)

    def index(self, since: int) -> dict[str, Any]:
        """The edit's index. Of positions taken whole, those from ``since`` on: before it there is nothing to replace."""
        axes = COMPONENTS[self.component].axes
        out: dict[str, Any] = {axes[word]: number for word, number in self.at.items()}
        if since and "pos" in axes and "pos" not in self.at:
            out[axes["pos"]] = slice(since, None)
        return out

    def __str__(self) -> str:
        named = [f"{word} {number}" for word, number in self.at.items()]
        return ", ".join([f"{self.component} of layer {self.layer}", *named])


def sites_of(model: HookedModel, names: Sequence[str], layers: Sequence[int] | None, stack: str) -> dict[str, dict[int, Site]]:
    """The site of each component in each chosen layer of a stack, by component and layer. Raises UnknownName and BadValue."""
    if not names:
        raise BadValue("components", list(names), "at least one")
    if len(set(names)) != len(names):
        raise BadValue("components", list(names), "different ones")
    out: dict[str, dict[int, Site]] = {}
    for name in names:
        if name not in COMPONENTS:
            raise UnknownName("component", name, COMPONENTS, where="to patch")
        ending = f".{COMPONENTS[name].site}"
        every = {
            site.layer: site
            for site in model.sites().values()
            if site.layer is not None and site.stack == stack and site.name.endswith(f"blocks.{site.layer}{ending}")
        }
        if not every:
            has = [one for one, it in COMPONENTS.items() if any(n.endswith(f".{it.site}") for n in _names(model, stack))]
            raise BadValue("components", name, f"one that this {model.family} model has: {', '.join(has)}")
        chosen = list(every) if layers is None else list(layers)
        if not chosen or any(layer not in every for layer in chosen) or len(set(chosen)) != len(chosen):
            raise BadValue("layers", chosen, f"different numbers from 0 to {max(every)}, at least one")
        out[name] = {layer: every[layer] for layer in chosen}
    return out


def _names(model: HookedModel, stack: str) -> list[str]:
    return [site.name for site in model.sites().values() if site.layer is not None and site.stack == stack]


@dataclass(frozen=True)
class Choice:
    """Which numbers of each word (None: all), and the words a grid has (None: each component's usual ones)."""

    per: Sequence[str] | None = None
    numbers: Mapping[str, Sequence[int] | None] | None = None

    def places(self, sites: Mapping[str, Mapping[int, Site]], shapes: Mapping[str, Sequence[int]]) -> list[Place]:
        """Every cell, component by component, layer by layer; ``shapes`` are those of the sites. Raises BadValue."""
        out: list[Place] = []
        numbers = dict(self.numbers or {})
        used: set[str] = set()
        for name, by_layer in sites.items():
            axes = COMPONENTS[name].axes
            words = COMPONENTS[name].usual if self.per is None else tuple(self.per)
            if len(set(words)) != len(words) or any(word not in axes for word in words):
                raise BadValue("per", list(words), f"different ones of {', '.join(axes)} for the component '{name}'")
            used |= set(words)
            for layer, site in by_layer.items():
                ranges = [_numbers(word, numbers.get(word), shapes[site.name][site.axis(axes[word])]) for word in words]
                out += [Place(name, site, layer, dict(zip(words, cell, strict=True))) for cell in product(*ranges)]
        for word, given in numbers.items():
            if given is not None and word not in used:
                raise BadValue(
                    _FIELDS[word], list(given), f"left out: the grid has no '{word}'", do=f"Name it in `per`, as in per=['{word}']."
                )
        return out


_FIELDS = {"head": "heads", "pos": "positions", "key": "keys", "neuron": "neurons"}


def _numbers(word: str, given: Sequence[int] | None, count: int) -> list[int]:
    if given is None:
        return list(range(count))
    if not given or min(given) < 0 or max(given) >= count or len(set(given)) != len(given):
        raise BadValue(_FIELDS[word], list(given), f"different numbers from 0 to {count - 1}, at least one")
    return list(given)
