"""The only way to look into a run or to change it: one listener, passed down ``forward`` as an argument.

Nothing is registered on a module, so nothing can be left behind: the listener dies with the call, also when the call fails.
``None`` in its place means that nobody listens and costs one comparison; ``under`` turns into ``None`` wherever no
selected site lies below, so a layer nobody asked about runs as if there were no listener at all.

Two rules keep the numbers of a run the same whoever listens. A tensor that is only recorded is never recomputed into the
stream. Where a site is not on the fast path (a norm's scale, one head's result), its edit enters as a *difference*
``heard - computed``, which is exactly zero where nothing changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from torch import Tensor

from workbench.core.errors import BadValue
from workbench.core.protocol import Apply, Edit
from workbench.core.sites import Site, SiteTable


class Listener:
    """What one run records and edits.

    ``capture`` are sites of ``sites``; every edit's pattern must match at least one site (EmptySelection) and name axes the
    site has (UnknownName). Recorded tensors are detached unless ``grad``.
    """

    __slots__ = ("_above", "_at", "_captured", "_edits", "_prefix", "grad", "sites")

    def __init__(self, sites: SiteTable, capture: Sequence[Site], edits: Sequence[Edit], grad: bool) -> None:
        self.sites, self.grad, self._prefix = sites, grad, ""
        self._captured = frozenset(site.name for site in capture)
        self._edits: dict[str, list[Edit]] = {}
        self._at: dict[str, Tensor | None] = {}  # what was heard; None where it was edited but not asked for
        for edit in edits:
            for site in sites.select(edit.site):
                for word in edit.at:
                    site.axis(word)
                self._edits.setdefault(site.name, []).append(edit)
        self._above = _beginnings(self._captured.union(self._edits))

    def under(self, prefix: str) -> Listener | None:
        """The same listener with ``prefix`` before every name, or None where nothing below it was selected."""
        whole = self._prefix + prefix
        if whole not in self._above:
            return None
        view = object.__new__(Listener)
        view.sites, view.grad, view._prefix, view._above = self.sites, self.grad, whole, self._above
        view._captured, view._edits, view._at = self._captured, self._edits, self._at
        return view

    def wants(self, *names: str) -> bool:
        """Whether any of the sites is recorded or edited."""
        return any(self._prefix + name in self._captured or self._prefix + name in self._edits for name in names)

    def enters(self, *names: str) -> bool:
        """Whether any of the sites must be part of the computation: edited, or recorded with gradients."""
        return any(self._prefix + name in self._edits or (self.grad and self._prefix + name in self._captured) for name in names)

    def edits(self, *names: str) -> bool:
        """Whether any of the sites is edited."""
        return any(self._prefix + name in self._edits for name in names)

    def hears(self, whole: str) -> bool:
        """Whether a site, by its whole name, is recorded or edited."""
        return whole in self._captured or whole in self._edits

    def only(self, *names: str) -> bool:
        """Whether nothing below is recorded or edited but these sites."""
        own = {self._prefix + name for name in names}
        return all(name in own for held in (self._captured, self._edits) for name in held if name.startswith(self._prefix))

    def hear(self, name: str, tensor: Tensor) -> Tensor:
        """Apply the edits of a site, record it if asked, and return what the run goes on with."""
        whole = self._prefix + name
        edits = self._edits.get(whole)
        if edits is None and whole not in self._captured:
            assert whole in self.sites, f"'{whole}' is heard but not in the table of sites"
            return tensor
        assert whole not in self._at, f"'{whole}' is heard twice in one run"
        for edit in edits or ():
            tensor = _applied(edit, tensor, self.sites[whole])
        if whole not in self._captured:
            self._at[whole] = None
        elif self.grad:
            # A node of its own in the graph: the gradient at `hook_attn_in` is what attention reads, not all of the stream.
            tensor = self._at[whole] = tensor.view_as(tensor)
        else:
            self._at[whole] = tensor.detach() if tensor.requires_grad else tensor
        return tensor

    def finish(self) -> tuple[Mapping[str, Tensor], Mapping[str, Site]]:
        """Exactly what was selected, in the order of the table. Raises BadValue for a site the run never passed."""
        if len(self._at) < len(self._captured | self._edits.keys()):
            missed = next(name for name in self.sites if (name in self._captured or name in self._edits) and name not in self._at)
            raise BadValue("the selection", missed, "sites this run passes: it lies before its start or after its stop")
        at = {name: value for name in self.sites if (value := self._at.get(name)) is not None}
        return at, {name: self.sites[name] for name in at}


@lru_cache(maxsize=256)
def _beginnings(names: frozenset[str]) -> frozenset[str]:
    """What the names begin with up to each of their dots: asked for at every layer of every run, so it is one look-up."""
    return frozenset(name[: at + 1] for name in names for at, sign in enumerate(name) if sign == ".")


def _applied(edit: Edit, tensor: Tensor, site: Site) -> Tensor:
    try:
        return edit.apply(tensor, site)
    except RuntimeError as error:
        if isinstance(edit, Apply):  # the user's own function failed: its error says more than ours could
            raise
        found = f"{type(edit).__name__} with {dict(edit.at)}" if edit.at else type(edit).__name__
        raise BadValue(
            f"the edit at '{site.name}'", found, f"one whose value fits the activation of shape {tuple(tensor.shape)} ({error})"
        ) from error


def hear(listener: Listener | None, name: str, tensor: Tensor) -> Tensor:
    """``tensor`` as the run goes on with it; what every block calls at each of its sites."""
    return tensor if listener is None else listener.hear(name, tensor)


def under(listener: Listener | None, prefix: str) -> Listener | None:
    """``listener.under(prefix)``, None-safe."""
    return None if listener is None else listener.under(prefix)
