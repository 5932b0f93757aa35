"""One of our gpt models as TransformerLens's own functions want it: its patching, head detector and ActivationCache run on ours.

Our model has no hook points, so nothing is ever registered on it. Here each of its sites gets a HookPoint of TransformerLens that stands
beside the model; a run hands the activation to those points that have hooks, as an edit. Hooks stay until they are removed, as they do
in TransformerLens, so one presented model is for one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from workbench.core.errors import BadValue, EmptySelection, Incompatible
from workbench.core.protocol import Apply, Edit, Tokenizer
from workbench.core.sites import Site

FAMILIES = ("gpt",)
Named = str | Callable[[str], bool]
"""A point's name, or a function that says of a name whether it is meant."""


class Presented(nn.Module):
    """``model`` behind TransformerLens's interface (both protocols of ``transformer_lens.model_protocol``).

    Inputs are token ids ``[batch, pos]`` or ``[pos]``, a text or a list of texts. ``cfg`` says what the model is; its ``use_…`` switches
    change nothing, since every site is always there. Raises Incompatible for a family other than gpt.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if model.family not in FAMILIES:
            raise Incompatible(
                "present", f"this {model.family} model", [f"only {', '.join(FAMILIES)} models are shaped as TransformerLens expects"]
            )
        from transformer_lens.hook_points import HookPoint  # takes seconds, and only presented models need it

        self.model = model
        self.cfg = _config(model)
        self.tokenizer = model.tokenizer
        self.hook_dict: dict[str, Any] = {}
        for name in model.sites():
            self.hook_dict[name] = point = HookPoint()
            point.name = name
        self.mod_dict = self.hook_dict | {other: self.hook_dict[name] for other, name in _aliases(self.hook_dict).items()}
        self.context_level = 0
        self.blocks = [_parts(model, i) for i in range(model.config.n_layers)]
        self.ln_final = _Final(model)
        self.train(model.training)

    # --- hooks ----------------------------------------------------------------------------------------------

    def add_hook(self, name: Named, hook: Callable[..., Any], dir: str = "fwd", is_permanent: bool = False) -> None:
        """Add ``hook(activation, hook=point)`` to the point(s); it stays until it is removed. Raises EmptySelection."""
        for point in self._meant(name):
            point.add_hook(hook, dir=dir, is_permanent=is_permanent, level=self.context_level or None)

    def reset_hooks(self, clear_contexts: bool = True, direction: str = "both", including_permanent: bool = False) -> None:
        """Remove the hooks of every point; those that are permanent only where asked."""
        for point in self.hook_dict.values():
            point.remove_hooks(direction, including_permanent=including_permanent)
            if clear_contexts:
                point.clear_context()

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[Named, Callable[..., Any]]] = (),
        bwd_hooks: Sequence[tuple[Named, Callable[..., Any]]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Presented]:
        """The hooks while the context lasts; those of before stay. Without ``reset_hooks_end`` they stay too."""
        self.context_level += 1
        try:
            for name, hook in fwd_hooks:
                self.add_hook(name, hook)
            for name, hook in bwd_hooks:
                self.add_hook(name, hook, dir="bwd")
            yield self
        finally:
            for point in self.hook_dict.values() if reset_hooks_end else ():
                point.remove_hooks("both", level=self.context_level)
                if clear_contexts:
                    point.clear_context()
            self.context_level -= 1

    def run_with_hooks(
        self,
        *inputs: Any,
        fwd_hooks: Sequence[tuple[Named, Callable[..., Any]]] = (),
        bwd_hooks: Sequence[tuple[Named, Callable[..., Any]]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **options: Any,
    ) -> Any:
        """What ``forward`` gives with the hooks; ``options`` are its own."""
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            return self.forward(*inputs, **options)

    def _meant(self, name: Named) -> list[Any]:
        found = [point for own, point in self.hook_dict.items() if name(own)] if callable(name) else []
        if isinstance(name, str) and name in self.mod_dict:
            found = [self.mod_dict[name]]
        if not found:
            raise EmptySelection("site", str(name), self.mod_dict, where="this model")
        return found

    # --- runs -----------------------------------------------------------------------------------------------

    def forward(
        self, input: Any, return_type: str | None = "logits", *, prepend_bos: bool | None = None, loss_per_token: bool = False
    ) -> Any:
        """Logits ``[batch, pos, d_vocab]``, the next-token loss, ``(logits, loss)`` or None, with every hook heard. Gradients flow where
        they are enabled."""
        return self._answered(input, return_type, prepend_bos, loss_per_token, ())[0]

    def run_with_cache(
        self,
        input: Any,
        names_filter: Any = None,
        *,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        device: Any = None,
        incl_bwd: bool = False,
        pos_slice: Any = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """(what ``forward`` gives, ActivationCache or dict) with every site that ``names_filter`` (None: all; a name, names, a function)
        chooses. ``incl_bwd`` adds the gradients of a loss as ``NAME_grad``. Raises EmptySelection for names that choose nothing."""
        tokens = self._tokens(input, options.get("prepend_bos"))
        if remove_batch_dim and len(tokens) != 1:
            raise BadValue("remove_batch_dim", True, f"false for a batch of {len(tokens)} rows")
        if incl_bwd and options.get("return_type") != "loss":
            raise BadValue("incl_bwd", True, "given with return_type='loss': gradients are of one number")
        names = self._chosen(names_filter)
        with torch.set_grad_enabled(incl_bwd or torch.is_grad_enabled()):
            out, at = self._answered(
                tokens, options.pop("return_type", "logits"), options.pop("prepend_bos", None), options.pop("loss_per_token", False), names
            )
            if options:
                raise BadValue("an option of run_with_cache", sorted(options)[0], "one that this model has")
            kept = dict(at)
            if incl_bwd:
                gradients = torch.autograd.grad(out, list(at.values()), allow_unused=True, retain_graph=True)
                kept |= {f"{name}_grad": value for name, value in zip(at, gradients, strict=True) if value is not None}
        from transformer_lens import ActivationCache
        from transformer_lens.utilities.slice import Slice

        cache: dict[str, Tensor] = {}
        where = Slice.unwrap(pos_slice)
        for name, value in kept.items():
            grid = name.removesuffix("_grad").endswith(("hook_pattern", "hook_attn_scores"))
            value = where.apply(value.detach(), dim=-2 if grid else 1) if pos_slice is not None else value.detach()
            cache[name] = (value[0] if remove_batch_dim else value).to(device)
        return out, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cache

    def _answered(
        self, input: Any, return_type: str | None, prepend_bos: bool | None, loss_per_token: bool, names: Sequence[str]
    ) -> tuple[Any, Mapping[str, Tensor]]:
        if return_type not in ("logits", "loss", "both", None):
            raise BadValue("return_type", return_type, "'logits', 'loss', 'both' or None")
        tokens = self._tokens(input, prepend_bos)
        trace = self.model.run(tokens, capture=names, edit=self._edits(), grad=torch.is_grad_enabled())
        logits = trace.logits
        if return_type in ("logits", None):
            return (logits if return_type == "logits" else None), trace.at
        from transformer_lens.utilities.lm_utils import lm_cross_entropy_loss

        loss = lm_cross_entropy_loss(logits, tokens, None, loss_per_token)
        return (loss if return_type == "loss" else (logits, loss)), trace.at

    def _edits(self) -> list[Edit]:
        """One edit for each point with hooks: the activation goes through the point, where they act, in place or by what they return."""

        def through(point: Any) -> Callable[[Tensor, Site], Tensor]:
            return lambda value, site: point(value.clone())

        return [Apply(name, fn=through(point)) for name, point in self.hook_dict.items() if point.has_hooks()]

    def _chosen(self, names_filter: Any) -> list[str]:
        if names_filter is None:
            return list(self.hook_dict)
        wanted: list[Any] = [names_filter] if isinstance(names_filter, str) or callable(names_filter) else list(names_filter)
        return [point.name for name in wanted for point in self._meant(name)]

    # --- text -----------------------------------------------------------------------------------------------

    def _tokens(self, input: Any, prepend_bos: bool | None) -> Tensor:
        if isinstance(input, Tensor):
            return (input.unsqueeze(0) if input.ndim == 1 else input).to(self.cfg.device)
        return self.to_tokens(input, prepend_bos=prepend_bos)

    def to_tokens(self, input: str | Sequence[str], prepend_bos: bool | None = None, **options: Any) -> Tensor:
        """Ids ``[batch, pos]`` of texts, after BOS where the tokenizer has one (unless ``prepend_bos`` says otherwise), padded on the
        right. Nothing is cut short, whatever ``truncate`` says."""
        tokenizer = self._tokenizer()
        bos = self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos
        rows = [tokenizer.encode(text, bos=bos) for text in ([input] if isinstance(input, str) else input)]
        width = max(len(row) for row in rows)
        if tokenizer.pad_id is None and min(len(row) for row in rows) < width:
            raise BadValue("the lengths of the texts", [len(row) for row in rows], "equal: this tokenizer has no padding token")
        return torch.tensor([row + [tokenizer.pad_id or 0] * (width - len(row)) for row in rows], device=self.cfg.device)

    def to_single_token(self, string: str) -> int:
        """The id of a text that is one token. Raises BadValue."""
        ids = self._tokenizer().encode(string)
        if len(ids) != 1:
            raise BadValue("a token's text", string, f"one token long, and it is {len(ids)}")
        return ids[0]

    def to_string(self, tokens: Any) -> str | list[str]:
        """The text of ids ``[pos]``, or the texts of ids ``[batch, pos]``."""
        ids = torch.as_tensor(tokens)
        return (
            self._tokenizer().decode(ids.reshape(-1).tolist()) if ids.ndim < 2 else [self._tokenizer().decode(row.tolist()) for row in ids]
        )

    def to_str_tokens(self, input: Any, prepend_bos: bool | None = None, **options: Any) -> list[str]:
        """What each id of one text (or row of ids) stands for."""
        ids = input if isinstance(input, Tensor) else self.to_tokens(input, prepend_bos)[0]
        return self._tokenizer().pieces(ids.reshape(-1).tolist())

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise BadValue("the input", "text", "token ids: this model has no tokenizer")
        return self.tokenizer

    # --- weights --------------------------------------------------------------------------------------------

    @property
    def W_U(self) -> Tensor:
        return self.model.weight("W_U")

    @property
    def b_U(self) -> Tensor:
        return self.model.weight("b_U")

    @property
    def W_E(self) -> Tensor:
        return self.model.weight("W_E")

    def tokens_to_residual_directions(self, tokens: Any) -> Tensor:
        """The column of ``W_U`` of each token, ``[..., d_model]``."""
        ids = torch.as_tensor(self.to_single_token(tokens) if isinstance(tokens, str) else tokens, device=self.cfg.device)
        return self.W_U.T[ids.reshape(-1)[0] if ids.numel() == 1 else ids]

    def accumulated_bias(self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True) -> Tensor:
        """The sum ``[d_model]`` of what biases alone write to the stream before ``layer`` (with ``mlp_input``, before its MLP)."""
        total = torch.zeros_like(self.model.weight("blocks.0.attn.b_O"))
        for i in range(layer + mlp_input):
            total = total + self.model.weight(f"blocks.{i}.attn.b_O")
            if include_mlp_biases and i < layer and not self.cfg.attn_only:
                total = total + self.model.weight(f"blocks.{i}.mlp.b_out")
        return total

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        self.cfg.use_split_qkv_input = use_split_qkv_input

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Nothing to do: the site is always there."""

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Nothing to do: the site is always there."""


class _Final:
    """The final norm as a function of the stream."""

    def __init__(self, model: Any) -> None:
        self._norm = model.ln_final

    def __call__(self, x: Tensor) -> Tensor:
        return x if self._norm is None else self._norm(x)


def _config(model: Any) -> Any:
    """Their config of our model."""
    from transformer_lens.config import TransformerLensConfig

    c, like = model.config, model.weight("W_E")
    kind = {"layer": "LN", "rms": "RMS"}[c.norm] if c.norm_placement == "pre" else None  # only a norm before a reader has a scale to apply
    return TransformerLensConfig(
        d_model=c.d_model, d_head=c.d_head, n_layers=c.n_layers, n_ctx=c.n_ctx, n_heads=c.n_heads, d_mlp=c.d_mlp, d_vocab=c.d_vocab,
        device=str(like.device), dtype=like.dtype, eps=c.norm_eps, act_fn=c.act, attn_only=c.act == "none", gated_mlp=c.act == "swiglu",
        n_key_value_heads=c.n_kv_heads if c.n_kv_heads != c.n_heads else None, normalization_type=kind, uses_rms_norm=c.norm == "rms",
        final_rms=c.norm == "rms", positional_embedding_type="rotary" if c.positions == "rope" else "standard",
        default_prepend_bos=model.tokenizer is not None and model.tokenizer.bos_id is not None,
    )  # fmt: skip


def _aliases(points: Mapping[str, Any]) -> dict[str, str]:
    """The names that TransformerLens uses for some of our sites besides ours."""
    out = {"hook_unembed": "unembed.hook_logits", "unembed.hook_out": "unembed.hook_logits", "embed.hook_out": "hook_embed"}
    for name in points:
        head, _, tail = name.rpartition(".")
        if tail in ("hook_q_input", "hook_k_input", "hook_v_input", "hook_attn_in"):
            out[f"{head}.attn.{tail}"] = name
        other = {
            "hook_resid_pre": "hook_in",
            "hook_resid_post": "hook_out",
            "hook_attn_out": "attn.hook_out",
            "hook_mlp_out": "mlp.hook_out",
        }
        if tail in other:
            out[f"{head}.{other[tail]}"] = name
    return {alias: name for alias, name in out.items() if name in points}


def _parts(model: Any, layer: int) -> SimpleNamespace:
    """The weights of a layer as attributes (``attn.W_O``, ``mlp.W_out``)."""
    parts: dict[str, dict[str, Tensor]] = {}
    at = f"blocks.{layer}."
    for name in model.named_weights():
        if name.startswith(at):
            part, _, word = name.removeprefix(at).rpartition(".")
            parts.setdefault(part, {})[word] = model.weight(name)
    return SimpleNamespace(**{part: SimpleNamespace(**weights) for part, weights in parts.items()})
