"""Activation sites: values with a name, a stack, a layer and axes.

Names are TransformerLens's (``blocks.3.attn.hook_pattern``); families with several stacks put the stack
first (``decoder.blocks.3.hook_resid_pre``). A selection that matches nothing is an error with the nearest names.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from workbench.core.errors import EmptySelection, UnknownName

_BLOCK = re.compile(r"^(?:(?P<stack>(?!blocks\.)\w+)\.)?blocks\.(?P<layer>\d+)\.(?P<rest>.+)$")
_PARTS = ("hook_", "ln_", "embed", "unembed", "head", "pooler")  # what stands beside the stack of a family that has one


@dataclass(frozen=True, order=True)
class Site:
    """One place in a model where an activation can be read or edited.

    ``name`` is the full text form; ``axes`` are axis words of ``core.types`` (``one`` is an axis of length 1).
    """

    name: str
    axes: tuple[str, ...]

    @property
    def layer(self) -> int | None:
        """The layer, counted from 0; None outside the stack."""
        match = _BLOCK.match(self.name)
        return int(match["layer"]) if match else None

    @property
    def stack(self) -> str:
        """The stack's prefix (``encoder``, ``decoder`` …), empty for single-stack families."""
        match = _BLOCK.match(self.name)
        if match:
            return match["stack"] or ""
        head, _, rest = self.name.partition(".")
        return head if rest and not head.startswith(_PARTS) else ""

    @property
    def tensor(self) -> str:
        """The last word of the name, such as ``hook_pattern``."""
        return self.name.rpartition(".")[2]

    def axis(self, word: str) -> int:
        """The position of an axis word; raises UnknownName."""
        if word not in self.axes:
            raise UnknownName("axis", word, self.axes, where=f"at site '{self.name}'")
        return self.axes.index(word)

    def __str__(self) -> str:
        return self.name


Selection = str | Site | Iterable["str | Site"]
REMEMBERED = 512
"""Selections a table remembers at most."""


class SiteTable(Mapping[str, Site]):
    """All sites of one model, in the order a run passes them.

    ``additive`` is true where ``resid_mid - resid_pre = attn_out`` and ``resid_post - resid_mid = mlp_out`` hold;
    instruments that need additivity refuse a table where it is false.
    """

    def __init__(self, sites: Iterable[Site], *, additive: bool = True, where: str = "this model") -> None:
        self._sites = {site.name: site for site in sites}
        self._selected: dict[tuple[str, ...], tuple[Site, ...]] = {}  # a loop of runs asks for the same again and again
        self.additive = additive
        self.where = where

    def __getitem__(self, name: str) -> Site:
        try:
            return self._sites[name]
        except KeyError:
            raise UnknownName("site", name, self._sites, where=f"in {self.where}", hint="`workbench sites REF` lists them.") from None

    def __contains__(self, name: object) -> bool:
        return name in self._sites

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def select(self, selection: Selection) -> tuple[Site, ...]:
        """The sites named by exact names, globs or Site values, in table order and without repeats.

        Every member of the selection must match: one that matches nothing raises EmptySelection.
        """
        members = [selection] if isinstance(selection, str | Site) else list(selection)
        texts = tuple(member.name if isinstance(member, Site) else member for member in members)
        if texts not in self._selected:
            names = selected(texts, self._sites, kind="site", where=self.where, hint="`workbench sites REF` lists them.")
            if len(self._selected) >= REMEMBERED:
                self._selected.clear()
            self._selected[texts] = tuple(self._sites[name] for name in names)
        return self._selected[texts]


def selected(patterns: Iterable[str], names: Collection[str], *, kind: str, where: str, hint: str = "") -> tuple[str, ...]:
    """The ``names`` that exact names or globs choose, in their own order and without repeats; EmptySelection for one that matches none."""
    chosen: set[str] = set()
    for text in patterns:
        found = [text] if text in names else [name for name in names if fnmatch.fnmatchcase(name, text)]
        if not found:
            raise EmptySelection(kind, text, names, where=where, hint=hint)
        chosen.update(found)
    return tuple(name for name in names if name in chosen)
