"""Which of our sites a TransformerBridge has: found by name, and kept only where a probe shows that they mean there what they mean here.

A bridge answers to the same names, but a name can lead elsewhere. ``hook_resid_mid`` is often the second norm's input, so that an edit
there misses the stream; ``hook_post`` of a mixture of experts is its output; some points never fire, or their edits are not heard.
Small runs tell: they record (shapes, equations), ask for the gradient at every site (where an edit cannot act there is none), and edit the
stream to see whether the equations still hold.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from workbench.blocks.listen import Listener
from workbench.core.protocol import Apply, Edit
from workbench.core.sites import Site, SiteTable
from workbench.core.tolerance import TOLERANCES, gap

Axes = tuple[str, ...]
RESIDUAL: Axes = ("batch", "pos", "d_model")
STACKS = {"blocks": "", "encoder_blocks": "encoder.", "decoder_blocks": "decoder."}
"""Their lists of layers, and what our names begin with."""

_QUERY, _SHARED, _GRID = ("batch", "pos", "head", "d_head"), ("batch", "pos", "kv_head", "d_head"), ("batch", "head", "query", "key")
_NORM: dict[str, Axes] = {"hook_scale": ("batch", "pos", "one"), "hook_normalized": RESIDUAL}
_READERS: dict[str, Axes] = {word: ("batch", "pos", "head" if word == "q" else "kv_head", "d_model") for word in "qkv"}
_ATTENTION: dict[str, Axes] = {
    "hook_q": _QUERY, "hook_k": _SHARED, "hook_v": _SHARED, "hook_rot_q": _QUERY, "hook_rot_k": _SHARED, "hook_attn_scores": _GRID,
    "hook_pattern": _GRID, "hook_z": _QUERY, "hook_result": ("batch", "pos", "head", "d_model"),
}  # fmt: skip
_MLP: dict[str, Axes] = dict.fromkeys(("hook_pre", "hook_pre_linear", "hook_post"), ("batch", "pos", "d_mlp"))
_SWITCHES = {"hook_result": "use_attn_result", "hook_mlp_in": "use_hook_mlp_in"} | {
    f"hook_{word}_input": "use_split_qkv_input" for word in "qkv"
}
"""Points that fire only while a switch of the bridge is on."""


_Candidate = tuple[str, Axes, tuple[str, ...], str]


@dataclass(frozen=True)
class Place:
    """Where a site lies in a bridge.

    ``plain``: at the one point. ``stream``: the point is only what a norm reads of the stream, so what an edit changes there is added at
    the second point, the layer's output. ``shared``: what attention reads, which is there three times, once a reader. Where it does not
    act, it can be read alone: the bridge goes on with numbers of its own.
    """

    site: Site
    points: tuple[str, ...]
    how: str = "plain"
    acts: bool = True

    @property
    def switch(self) -> str:
        """The switch its points need, or nothing."""
        return _SWITCHES.get(self.points[0].rpartition(".")[2], "")


# --- listening ----------------------------------------------------------------------------------------------


@contextmanager
def listening(bridge: Any, points: Mapping[str, Any], places: Sequence[Place], listener: Listener) -> Iterator[None]:
    """Hooks of ``listener`` at ``places`` (``points`` is the bridge's ``hook_dict``), and the switches they need; taken away again
    whatever happens inside."""
    added: list[tuple[Any, Any]] = []
    with switched(bridge, {place.switch for place in places} - {""}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A forward hook edited hook_scale")  # to the last bits other numbers, as the table allows
        try:
            for place in places:
                for point, hook in _hooks(place, listener):
                    added.append((points[point], points[point].add_hook(hook)))
            yield
        finally:
            removed(added)


@contextmanager
def switched(bridge: Any, switches: set[str]) -> Iterator[set[str]]:
    """The ``switches`` that the bridge has, on; as they were afterwards. The two forks of attention's input exclude each other, so the
    coarse one is off meanwhile."""
    before = {name: bool(getattr(bridge.cfg, name, False)) for name in (*sorted(switches), "use_attn_in")}
    on: set[str] = set()
    try:
        if "use_split_qkv_input" in switches and before["use_attn_in"]:
            bridge.set_use_attn_in(False)
        for name in sorted(switches):
            try:
                getattr(bridge, f"set_{name}")(True)
            except NotImplementedError:
                continue
            on.add(name)
        yield on
    finally:
        for name in sorted(on):
            getattr(bridge, f"set_{name}")(before[name])
        if "use_split_qkv_input" in switches and before["use_attn_in"]:
            bridge.set_use_attn_in(True)


Hook = Callable[..., Tensor | None]


def _hooks(place: Place, listener: Listener) -> list[tuple[str, Hook]]:
    name = place.site.name
    if place.how == "plain":

        def plain(tensor: Tensor, hook: Any) -> Tensor | None:
            heard = listener.hear(name, tensor)
            return None if heard is tensor else heard  # None: the bridge goes on with its own tensor

        return [(place.points[0], plain)]
    kept: dict[str, Tensor] = {}
    if place.how == "stream":

        def read(tensor: Tensor, hook: Any) -> Tensor | None:
            heard = listener.hear(name, tensor)
            if heard is tensor:
                return None
            kept["change"] = heard - tensor
            return heard

        def later(tensor: Tensor, hook: Any) -> Tensor | None:
            return tensor + kept.pop("change") if "change" in kept else None

        return [(place.points[0], read), (place.points[1], later)]

    def reader(tensor: Tensor, hook: Any) -> Tensor | None:
        if "heard" not in kept:
            own = tensor[:, :, 0]
            heard = listener.hear(name, own)
            kept["heard"], kept["changed"] = heard, torch.tensor(heard is not own)
        return kept["heard"].unsqueeze(2).expand(tensor.shape) if bool(kept["changed"]) else None

    return [(point, reader) for point in place.points]


# --- candidates ---------------------------------------------------------------------------------------------


def candidates(bridge: Any) -> list[Place]:
    """Every site whose name leads to a point, in the order of a run; what the point means is not known yet."""
    points = bridge.hook_dict
    table: list[_Candidate] = [
        ("hook_embed", RESIDUAL, ("embed.hook_out",), "plain"),
        ("hook_pos_embed", RESIDUAL, ("pos_embed.hook_out",), "plain"),
    ]
    for theirs, ours in STACKS.items():
        for i in range(len(getattr(bridge, theirs, ()))):
            table += [(f"{ours}blocks.{i}.{name}", axes, at, how) for name, axes, at, how in _layer(points, f"{theirs}.{i}.")]
        final = f"{theirs.removesuffix('blocks')}ln_final"
        table += [(f"{ours}ln_final.{name}", axes, (f"{final}.{name}",), "plain") for name, axes in _NORM.items()]
    table += [("unembed.hook_in", RESIDUAL, ("unembed.hook_in",), "plain")]
    table += [("unembed.hook_logits", ("batch", "pos", "d_vocab"), ("unembed.hook_out",), "plain")]
    found = [Place(Site(name, axes), at, how) for name, axes, at, how in table]
    return [place for place in found if all(point in points for point in place.points)]


def _layer(points: Mapping[str, Any], at: str) -> Iterator[_Candidate]:
    attn = "self_attn" if any(name.startswith(f"{at}self_attn.") for name in points) else "attn"
    yield "hook_resid_pre", RESIDUAL, (f"{at}hook_resid_pre",), "plain"
    yield "hook_attn_in", RESIDUAL, tuple(f"{at}{attn}.hook_{word}_input" for word in "qkv"), "shared"
    yield from ((f"ln1.{name}", axes, (f"{at}ln1.{name}",), "plain") for name, axes in _NORM.items())
    yield from ((f"hook_{word}_input", axes, (f"{at}{attn}.hook_{word}_input",), "plain") for word, axes in _READERS.items())
    yield from ((f"attn.{name}", axes, (f"{at}{attn}.{name}",), "plain") for name, axes in _ATTENTION.items())
    yield "hook_attn_out", RESIDUAL, (f"{at}hook_attn_out",), "plain"
    yield from _middle(points, at)
    if f"{at}hook_cross_attn_out" in points:
        yield from ((f"ln2.{name}", axes, (f"{at}ln2.{name}",), "plain") for name, axes in _NORM.items())
        for name, axes in _ATTENTION.items():
            met = ("batch", "key", "kv_head", "d_head") if axes == _SHARED else axes
            yield f"cross_attn.{name}", met, (f"{at}cross_attn.{name}",), "plain"
        yield "hook_cross_attn_out", RESIDUAL, (f"{at}hook_cross_attn_out",), "plain"
        yield "hook_resid_mid_cross", RESIDUAL, (f"{at}hook_resid_mid2",), "plain"
    second = "ln3" if f"{at}hook_cross_attn_out" in points else "ln2"
    yield "hook_mlp_in", RESIDUAL, (f"{at}hook_mlp_in",), "plain"
    yield from ((f"{second}.{name}", axes, (f"{at}{second}.{name}",), "plain") for name, axes in _NORM.items())
    outer = {id(points[name]) for name in (f"{at}hook_mlp_out", f"{at}mlp.hook_in", f"{at}mlp.hook_out") if name in points}
    for name, axes in _MLP.items():
        if id(points.get(f"{at}mlp.{name}")) not in outer:  # experts: the whole MLP's input or output under a neuron's name
            yield f"mlp.{name}", axes, (f"{at}mlp.{name}",), "plain"
    yield "hook_mlp_out", RESIDUAL, (f"{at}hook_mlp_out",), "plain"
    yield "hook_resid_post", RESIDUAL, (f"{at}hook_resid_post",), "plain"


def _middle(points: Mapping[str, Any], at: str) -> Iterator[_Candidate]:
    """The stream between the sublayers: a point of the layer itself lies on it; an alias leads to what the next norm reads of it, and the
    MLP's own copy, where there is one, is read before that."""
    name = f"{at}hook_resid_mid"
    if name in points and points[name].name == name:
        yield "hook_resid_mid", RESIDUAL, (name,), "plain"
    elif name in points:
        copy = points.get(f"{at}hook_mlp_in")
        read = copy.name if copy is not None and copy.name == f"{at}hook_mlp_in" else name
        yield "hook_resid_mid", RESIDUAL, (read, f"{at}hook_out"), "stream"


# --- the probe ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The places that hold; ``apart`` are, for each switch, the sites that do not fire or act as they should while it is on; whether the
    stream adds up, and whether gradients come through."""

    places: tuple[Place, ...]
    apart: Mapping[str, frozenset[str]]
    additive: bool
    grad: bool


def probe(bridge: Any, points: Mapping[str, Any], forward: Callable[[], Tensor]) -> Found:
    """Which sites ``bridge`` has, told by runs of ``forward`` (a small batch of two rows)."""
    found = candidates(bridge)
    seen: dict[str, dict[str, list[Any]]] = {}
    fits: dict[str, list[Place]] = {}
    for switch in ("", *sorted({place.switch for place in found} - {""})):
        heard, reached = _recorded(bridge, points, found, forward, {switch} - {""})
        if reached or not switch:
            seen[switch], fits[switch] = heard, _shaped(found, heard)
    places = [place for place in found if place in fits.get(place.switch, ())]
    values = {place.site.name: _value(place, seen[place.switch]) for place in places}
    like = next(iter(values.values()), torch.zeros(()))
    bound = 4 * TOLERANCES[like.dtype, "activation"].bound
    wrong, additive = _meanings(values, seen[""], bound)
    places = [place for place in places if place.site.name not in wrong]
    acts, grad = {}, True
    for switch in fits:
        group = [place for place in places if place.switch in ("", switch) and place in fits[switch]]
        acts[switch] = _acting(bridge, points, forward, group)
        grad = grad and acts[switch] is not None
    acting = {switch: names or set[str]() for switch, names in acts.items()}
    apart = {switch: frozenset(acting[""] - acting[switch]) for switch in acting if switch}
    places = [replace(place, acts=place.site.name in acting[place.switch]) for place in places]
    if additive:
        broken = _broken_under_edits(bridge, points, forward, [place for place in places if place.acts], 2 * bound)
        places = [place for place in places if place.site.name not in broken]
    return Found(tuple(places), apart, additive, grad)


def _recorded(
    bridge: Any, points: Mapping[str, Any], found: Sequence[Place], forward: Callable[[], Tensor], switches: set[str]
) -> tuple[dict[str, list[Any]], set[str]]:
    """What passed each point with ``switches`` on, and which of those the bridge has."""
    names = {point for place in found for point in place.points}
    names |= {name for name in points if re.search(r"\.ln[12]\.hook_(in|out)$", name)}
    seen: dict[str, list[Any]] = {name: [] for name in names}
    added: list[tuple[Any, Any]] = []
    with switched(bridge, switches) as on:
        try:
            for name in sorted(names):
                note = lambda tensor, hook, into=seen[name]: into.append(tensor)  # noqa: E731  # one a point
                added.append((points[name], points[name].add_hook(note)))
            with torch.no_grad():
                forward()
        finally:
            removed(added)
    return seen, on


def removed(added: Sequence[tuple[Any, Any]]) -> None:
    """Take the hooks of (point, handle) pairs away; those of others stay."""
    for point, handle in added:
        handle.hook.remove()
        point.fwd_hooks[:] = [one for one in point.fwd_hooks if one is not handle]


def _shaped(places: Sequence[Place], seen: Mapping[str, list[Any]]) -> list[Place]:
    """The places whose points fire once, with a float tensor of their axes' sizes (a word has one size in a stack)."""
    sizes: dict[tuple[str, str], int] = {}
    kept: list[Place] = []
    for place in places:
        if not all(len(seen[point]) == 1 and isinstance(seen[point][0], Tensor) for point in place.points):
            continue
        value = _value(place, seen)
        if not value.is_floating_point() or value.ndim != len(place.site.axes):
            continue
        fits = {("", "batch"): 2, ("", "one"): 1}
        for word, size in zip(place.site.axes, value.shape, strict=True):
            own = "" if word in ("batch", "one") else f"{place.site.stack}{'.' if place.site.layer is not None else ' top'}"
            own = f"{own}cross" if word == "key" and ".cross_attn." in place.site.name else own
            word = {"query": "pos", "key": "key" if own.endswith("cross") else "pos"}.get(word, word)
            fits.setdefault((own, word), sizes.setdefault((own, word), size))
            if fits[own, word] != size:
                break
        else:
            kept.append(place)
    return kept


def _value(place: Place, seen: Mapping[str, list[Any]]) -> Tensor:
    value = seen[place.points[0]][0]
    return value[:, :, 0] if place.how == "shared" else value


def _meanings(values: Mapping[str, Tensor], seen: Mapping[str, list[Any]], bound: float) -> tuple[set[str], bool]:
    """The sites whose equation does not hold, and whether every layer adds up."""
    wrong: set[str] = set()
    layers = sorted({name.removesuffix("hook_resid_pre") for name in values if name.endswith("hook_resid_pre")})
    additive = bool(layers)
    for at in layers:
        for part in ("attn", "cross_attn"):
            scores, pattern = values.get(f"{at}{part}.hook_attn_scores"), values.get(f"{at}{part}.hook_pattern")
            wide = torch.promote_types(scores.dtype, torch.float32) if scores is not None else None
            if scores is not None and (pattern is None or gap(scores.to(wide).softmax(-1).to(pattern.dtype), pattern) > bound):
                wrong.add(f"{at}{part}.hook_attn_scores")
            result, out = values.get(f"{at}{part}.hook_result"), values.get(f"{at}hook_{part}_out")
            if result is not None:
                left = (out - result.sum(2)) if out is not None else None  # the bias, the same everywhere
                if left is None or gap(left, left[:1, :1].expand_as(left)) > bound:
                    wrong.add(f"{at}{part}.hook_result")
        if not _adds_up(values, at, bound):
            additive = False
            wrong |= _after_norms(values, seen, at, bound)
    return wrong, additive


def _adds_up(values: Mapping[str, Tensor], at: str, bound: float) -> bool:
    """Whether the layer's stream is the sum that the sites' names say."""
    x = values[f"{at}hook_resid_pre"]
    for out, after in (("attn", "resid_mid"), ("cross_attn", "resid_mid_cross"), ("mlp", "resid_post")):
        if f"{at}hook_{out}_out" in values:
            x = x + values[f"{at}hook_{out}_out"]
        elif out != "cross_attn":
            return False
        if f"{at}hook_{after}" in values and gap(x, values[f"{at}hook_{after}"]) > bound:
            return False
    return f"{at}hook_resid_post" in values


def _after_norms(values: Mapping[str, Tensor], seen: Mapping[str, list[Any]], at: str, bound: float) -> set[str]:
    """Of a layer whose norms follow the sums, the sites that are not what is added there, and the middle, which then is no alias."""
    theirs = at
    for list_name, prefix in STACKS.items():
        if prefix and at.startswith(prefix):
            theirs = f"{list_name}.{at.removeprefix(prefix).removeprefix('blocks.')}"
    wrong = {f"{at}hook_resid_mid"}
    norms = {name: seen.get(f"{theirs}{name}", []) for name in ("ln1.hook_in", "ln1.hook_out", "ln2.hook_in")}
    if any(len(one) != 1 for one in norms.values()):
        return wrong | {f"{at}hook_attn_out", f"{at}hook_mlp_out"}
    for out, source, total in (("attn", values[f"{at}hook_resid_pre"], "ln1.hook_in"), ("mlp", norms["ln1.hook_out"][0], "ln2.hook_in")):
        name = f"{at}hook_{out}_out"
        if name in values and gap(source + values[name], norms[total][0]) > bound:
            wrong.add(name)
    return wrong


def _acting(bridge: Any, points: Mapping[str, Any], forward: Callable[[], Tensor], places: Sequence[Place]) -> set[str] | None:
    """The sites where a change reaches the logits, all heard in one run: their gradient is there and not zero. None: the bridge has no
    gradients."""
    table = SiteTable([place.site for place in places], where="this bridge")
    listener = Listener(table, tuple(table.values()), (), True)
    with torch.enable_grad(), listening(bridge, points, places, listener):
        out = forward()
    if not out.requires_grad:
        return None
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out.device, out.dtype)
    live = {name: value for name, value in listener.finish()[0].items() if value.requires_grad}
    gradients = torch.autograd.grad((out * weights).sum(), list(live.values()), allow_unused=True)
    return {name for name, gradient in zip(live, gradients, strict=True) if gradient is not None and bool(gradient.any())}


def _broken_under_edits(
    bridge: Any, points: Mapping[str, Any], forward: Callable[[], Tensor], places: Sequence[Place], bound: float
) -> set[str]:
    """The middles of the stream that do not carry an edit on: with every sublayer's output and every middle changed, each layer must
    still add up."""
    names = [place.site.name for place in places]
    outs = [name for name in names if re.search(r"hook_(attn|cross_attn|mlp)_out$", name)]
    mids = [name for name in names if re.search(r"hook_resid_mid(_cross)?$", name)]
    ends = [name for name in names if re.search(r"hook_resid_(pre|post)$", name)]
    if not mids:
        return set()
    generator = torch.Generator().manual_seed(1)
    noise: dict[str, Tensor] = {}

    def changed(old: Tensor, site: Site) -> Tensor:
        noise[site.name] = torch.randn(old.shape, generator=generator).to(old.device, old.dtype)
        return old + noise[site.name]

    table = SiteTable([place.site for place in places], where="this bridge")
    edits: list[Edit] = [Apply(name, fn=changed) for name in (*outs, *mids)]
    chosen = table.select([*outs, *mids, *ends])
    listener = Listener(table, chosen, edits, False)
    with torch.no_grad(), listening(bridge, points, [place for place in places if place.site in chosen], listener):
        forward()
    at, _ = listener.finish()
    broken: set[str] = set()
    for name in mids:
        layer = name[: name.rindex("hook_")]
        source = at[f"{layer}hook_resid_mid"] if name.endswith("cross") and f"{layer}hook_resid_mid" in at else at[f"{layer}hook_resid_pre"]
        added = at[f"{layer}hook_{'cross_attn' if name.endswith('cross') else 'attn'}_out"]
        before = gap(at[name] - noise[name], source + added)
        cross = f"{layer}hook_resid_mid_cross"
        carried = cross in at if name.endswith("mid") else False
        after = 0.0 if carried else gap(at[f"{layer}hook_resid_post"], at[name] + at[f"{layer}hook_mlp_out"])
        if max(before, after) > bound:
            broken.add(name)
    return broken
