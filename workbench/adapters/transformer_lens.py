"""TransformerLens's models as ours (``load``), and ours as its (``present``).

A TransformerBridge wraps any published architecture that TransformerLens knows. ``load`` gives it our sites where it has them
(``bridge_sites`` says how that is found out), edits as values and logits at chosen positions. A bridge is listened to by hooks, which are
registered inside a lock, for one run, and removed whatever happens; runs of bridges follow one another, also between threads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from workbench.adapters.bridge_sites import STACKS, Found, listening, probe
from workbench.adapters.local import local
from workbench.adapters.presented import Presented
from workbench.blocks.digest import model_digest
from workbench.blocks.inputs import Passage, check_tokens, chosen, passage
from workbench.blocks.listen import Listener
from workbench.blocks.reading import reading
from workbench.core.batch import EncoderBatch, ImageBatch, SequenceBatch, TokenBatch
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingExtra, MissingFile, UnknownName
from workbench.core.protocol import Edit, LogitsAt, Resume, Tokenizer, Trace
from workbench.core.sites import Selection, SiteTable
from workbench.core.spec import Spec, digest_of
from workbench.core.tolerance import agree


class BridgedConfig(Spec):
    """What a bridge says of itself. ``settings`` is the digest of the published config, in which everything else stands."""

    architecture: str
    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    n_types: int = 1
    settings: str


class _Turn:
    """One run at a time. A run that begins inside another of the same thread would hear the outer one's hooks: it is refused."""

    def __init__(self) -> None:
        self._lock, self._owner = threading.Lock(), 0

    def __enter__(self) -> None:
        if self._owner == threading.get_ident():
            raise BadValue("a run of a bridge", "begun inside another", "after it: hooks of the outer run would act in it")
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *exc: object) -> None:
        self._owner = 0
        self._lock.release()


_TURN = _Turn()


class Bridged:
    """A TransformerBridge as one of our models.

    A batch is ids ``[batch, pos]``, a TokenBatch without segments, or text; for an encoder also an EncoderBatch, for an encoder-decoder a
    SequenceBatch of ids, for a vision model pixels or an ImageBatch. Nothing of a run can be reused, so ``resume`` and ``cache`` are
    refused. ``bridge`` is switched to evaluation mode.
    """

    family = "transformer_lens"

    def __init__(self, bridge: Any, tokenizer: Tokenizer | None = None) -> None:
        self.bridge, self.tokenizer = bridge.eval(), tokenizer
        settings = getattr(bridge.original_model, "config", None)
        given = settings.to_dict() if settings is not None and hasattr(settings, "to_dict") else {}
        self._paired = bool(getattr(settings, "is_encoder_decoder", False))
        self._seeing = bool(getattr(bridge.cfg, "is_visual_model", False))
        if getattr(bridge.cfg, "is_audio_model", False):
            raise Incompatible("load", f"the bridge '{bridge.cfg.model_name}'", ["it reads waveforms, which no batch type of ours holds"])
        self._causal = False  # until the probe has shown it
        self.config = _config(bridge, given)
        if tokenizer is not None and tokenizer.vocab_size > self.config.d_vocab:
            raise BadValue("the tokenizer's size", tokenizer.vocab_size, f"at most the model's {self.config.d_vocab}")
        self._points: Mapping[str, Any] = bridge.hook_dict
        with _TURN:
            self._causal = not self._paired and not self._seeing and self._looks_back_only()
            found: Found = probe(bridge, self._points, self._sample())
        self._places = {place.site.name: place for place in found.places}
        self._apart = found.apart
        self._table = SiteTable([place.site for place in found.places], additive=found.additive, where=f"this {self.family} model")
        acting = any(place.acts for place in found.places)
        able = {"logits"} | ({"edit"} if acting else set()) | ({"grad"} if found.grad else set())
        able |= {"logprobs", "generate"} if self._causal else set()
        self._names = _weight_names(bridge)
        self.abilities = frozenset(able | ({"weights"} if {"W_E", "W_U"} <= set(self._names) else set()))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.bridge.parameters()).dtype

    @property
    def reads(self) -> str:
        """What a batch is, in a word (see ``blocks.model``)."""
        return "pixels" if self._seeing else "sequences" if self._paired else "tokens"

    @property
    def both_ways(self) -> bool:
        """Whether tokens read what comes after them."""
        return self.reads == "tokens" and not self._causal

    def padded(self, ids: Tensor, real: Tensor) -> Any:
        """The batch of right-padded ``ids [batch, pos]`` whose real tokens are ``real``."""
        return EncoderBatch(ids, mask=real) if self.both_ways else ids

    def sites(self) -> SiteTable:
        """Every site of ours that the bridge has, in the order of a run."""
        return self._table

    def run(
        self,
        batch: Any,
        *,
        capture: Selection = (),
        edit: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        resume: Resume | None = None,
        cache: bool = False,
    ) -> Trace:
        """One forward pass (see ``HookedModel.run``). A site that is edited or, with ``grad``, captured can change the last bits of a
        norm's output, since the bridge then computes it by another path."""
        if cache or (resume is not None and resume != Resume()):
            name = "cache" if cache else "resume"
            raise BadValue(name, "given", f"left out for a {self.family} model: it reads everything at once")
        sites = self._table.select(capture)
        edited = {site.name for one in edit for site in self._table.select(one.site)}
        passes = self._passes([site.name for site in sites], edited, grad)
        arguments, given = self._read(batch)
        asked = chosen(logits, given) if given is not None else None
        at: dict[str, Tensor] = {}
        out = torch.empty(0)
        with _TURN, torch.set_grad_enabled(grad):
            for names in passes:
                heard = Listener(self._table, [site for site in sites if site.name in names], edit, grad)
                places = [place for name, place in self._places.items() if heard.wants(name)]
                with listening(self.bridge, self._points, places, heard):
                    out = self.bridge.forward(**arguments)
                at |= heard.finish()[0]
        at = {site.name: at[site.name] for site in sites}
        heard_sites = {site.name: site for site in sites}
        if given is None:
            if logits not in ("all", None):
                raise BadValue("logits", logits, "'all' or None: this model gives one answer a row")
            return Trace(out if logits == "all" else None, at, heard_sites)
        return Trace(asked.take(out) if asked is not None else None, at, heard_sites)

    def _passes(self, captured: Sequence[str], edited: set[str], grad: bool) -> list[set[str]]:
        """What each forward pass records. Two passes where sites are asked for that do not fire together: those a switch makes fire, and
        those that fire wrongly while it is on. Raises Incompatible where one pass would be needed."""
        names = set(captured)
        dumb = sorted(name for name in (edited | names if grad else edited) if not self._places[name].acts)
        if dumb:
            why = f"'{dumb[0]}' can be read, but the bridge goes on with numbers of its own, so edits and gradients there would do nothing"
            raise Incompatible("this run", f"this {self.family} model", [why])
        forked = {name for name in names | edited if self._places[name].switch}
        apart = {name for switch in {self._places[name].switch for name in forked} for name in self._apart[switch]} & (names | edited)
        if not apart:
            return [names]
        if grad or forked & edited or apart & edited:
            why = f"'{min(forked)}' and '{min(apart)}' do not fire in one pass of a bridge; ask for them in two runs"
            raise Incompatible("this run", f"this {self.family} model", [why])
        return [names - apart, apart]

    def _looks_back_only(self) -> bool:
        """Whether logits are along the positions and no later token moves them: tried on two rows that differ in their last token."""
        ids = torch.randint(0, self.config.d_vocab, (2, min(6, self.config.n_ctx)), generator=torch.Generator().manual_seed(0))
        ids = ids.to(next(self.bridge.parameters()).device)
        changed = ids.clone()
        changed[:, -1] = (ids[:, -1] + 1) % self.config.d_vocab
        with torch.no_grad():
            one, two = (self.bridge.forward(given) for given in (ids, changed))
        if one.ndim != 3 or one.shape[:2] != ids.shape or one.shape[2] < self.config.d_vocab:
            return False
        return agree(one[:, :-1], two[:, :-1], "logits") and not agree(one, two, "logits")

    def _read(self, batch: Any) -> tuple[dict[str, Any], Passage | None]:
        """What the bridge is given, and the passage the logits lie along (None: they lie along no positions)."""
        like = next(self.bridge.parameters())
        if self._seeing:
            pixels = batch.pixels if isinstance(batch, ImageBatch) else batch
            if not isinstance(pixels, Tensor) or pixels.ndim != 4 or not pixels.is_floating_point():
                raise BadValue("the batch", type(batch).__name__, "pixels [batch, channel, height, width] or an ImageBatch")
            return {"input": pixels.to(like.device, like.dtype)}, None
        if self._paired:
            if not isinstance(batch, SequenceBatch) or batch.source.is_floating_point():
                raise BadValue("the batch", type(batch).__name__, "a SequenceBatch whose source are token ids")
            batch = batch.to(like.device)
            check_tokens(batch.source, self.config.d_vocab)
            given = passage(batch.tokens, Resume(), self.config, tokenizer=None, like=like)
            masked = {"attention_mask": batch.mask.long()} if batch.mask is not None else {}
            return {"input": batch.source, "decoder_input": batch.tokens, **masked}, given
        if self._causal:
            if isinstance(batch, TokenBatch):
                if batch.segments is not None or batch.positions is not None:
                    raise BadValue("the batch's segments or positions", "given", f"left out for a {self.family} model")
                batch = batch.tokens
            given = passage(batch, Resume(), self.config, tokenizer=self.tokenizer, like=like)
            return {"input": given.tokens}, given
        read = reading(batch, Resume(), self.config, n_types=self.config.n_types, tokenizer=self.tokenizer, like=like)
        assert read.tokens is not None, "nothing is resumed, so there are tokens"
        rows = read.valid.expand(read.shape) if read.valid is not None else None
        extra = {"attention_mask": rows.long()} if rows is not None else {}
        extra |= {"token_type_ids": read.types} if self.config.n_types > 1 and isinstance(batch, EncoderBatch) else {}
        return {"input": read.tokens, **extra}, read

    def _sample(self) -> Any:
        """A forward pass of two small rows, for the probe."""
        like = next(self.bridge.parameters())
        generator = torch.Generator().manual_seed(0)
        if self._seeing:
            vision = self.bridge.original_model.config
            side = vision.image_size if isinstance(vision.image_size, int | tuple | list) else 224
            height, width = (side, side) if isinstance(side, int) else side
            batch: Any = torch.randn(2, vision.num_channels, height, width, generator=generator)
        else:
            ids = torch.randint(0, self.config.d_vocab, (2, min(6, self.config.n_ctx)), generator=generator)
            batch = SequenceBatch(ids, ids[:, :4]) if self._paired else ids
        arguments, _ = self._read(batch)
        assert like.device == arguments["input"].device, "the sample lies where the model does"
        return lambda: self.bridge.forward(**arguments)

    def weight(self, name: str) -> Tensor:
        """A weight by TransformerLens's name and shape, detached; biases there are none of are left out."""
        if name not in self._names:
            raise UnknownName("weight", name, self._names, where=f"in this {self.family} model")
        value = _attribute(self.bridge, self._names[name])
        assert value is not None, "it was there when the model was loaded"
        return value.detach()

    def digest(self) -> str:
        """sha256 (hex) over config, weights and tokenizer."""
        weights = {name: value.detach() for name, value in self.bridge.named_parameters()}
        return model_digest(self.family, self.config, weights, self.tokenizer)


def load(name_or_bridge: Any, tokenizer: Tokenizer | None = None) -> Bridged:
    """A TransformerBridge, or the published model in a folder or of a name in this machine's Hugging Face cache, as one of our models.

    Nothing is asked of a network and no code of the folder is run. Raises MissingFile, Incompatible (an architecture TransformerLens does
    not know), CorruptFile, MissingExtra.
    """
    _library()
    from transformer_lens.model_bridge import TransformerBridge  # takes seconds, and only these models need it

    if isinstance(name_or_bridge, TransformerBridge):
        return Bridged(name_or_bridge, tokenizer)
    if not isinstance(name_or_bridge, str | Path):
        raise BadValue("what to load", type(name_or_bridge).__name__, "a folder, a name, or a TransformerBridge")
    return Bridged(_booted(str(name_or_bridge), folder_of(name_or_bridge)), tokenizer)


def present(model: Any) -> Presented:
    """One of our gpt models as TransformerLens's own functions want it. Raises Incompatible for another family."""
    _library()
    return Presented(model)


def folder_of(name: Path | str) -> Path:
    """The folder of a published model on this machine, also by TransformerLens's short names. Raises MissingFile, MissingExtra."""
    if Path(name).is_dir():
        return Path(name)
    _library()
    from transformer_lens.tools.model_registry.registry_io import resolve_model_alias

    return local(name, known_as=resolve_model_alias(str(name)) or "")


def _library() -> None:
    try:
        import transformer_lens  # noqa: F401  # takes seconds, and only these models need it
    except ModuleNotFoundError:
        raise MissingExtra("transformer-lens", "interop", "A TransformerBridge") from None


def _booted(name: str, folder: Path) -> Any:
    """The bridge of a folder: what TransformerLens's own loader does, without a network, remote code or pickles."""
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf, build_bridge_from_module
    from transformer_lens.model_bridge.sources._hf_format import determine_architecture_from_hf_config
    from transformer_lens.model_bridge.sources.transformers.helpers import get_hf_model_class_for_architecture
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise MissingFile(folder / "config.json", "config of a published model")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        do = f"'{pickled[0]}' is a pickle, which can run code when opened; convert it to safetensors first." if pickled else ""
        raise MissingFile(folder, "weights in safetensors", do=do)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        architecture = determine_architecture_from_hf_config(config)
    except ValueError as error:
        raise Incompatible("load", name, [str(error).split(". ")[0].split("\n")[0]]) from None
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    if getattr(config, "pad_token_id", None) is None:
        last = getattr(config, "eos_token_id", None)
        config.pad_token_id = last[0] if isinstance(last, list) and last else last
    adapter = ArchitectureAdapterFactory.select_architecture_adapter(build_bridge_config_from_hf(config, architecture, name, dtype))
    options = {"config": config, "dtype": dtype, "attn_implementation": getattr(adapter.cfg, "attn_implementation", None) or "eager"}
    adapter.prepare_loading(str(folder), options)
    try:
        published: Any = get_hf_model_class_for_architecture(architecture)
        model, loading = published.from_pretrained(
            folder, **options, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CorruptFile(folder, "a published model", str(error).split("\n")[0].rstrip(".")) from None
    if missing := sorted(loading["missing_keys"]):  # transformers would go on with random numbers there
        raise CorruptFile(folder, "the weights of its config", f"'{missing[0]}' is missing")
    return build_bridge_from_module(model.eval(), architecture, hf_config=config, model_name=name)


# --- what a bridge says of itself ---------------------------------------------------------------------------


def _config(bridge: Any, given: Mapping[str, Any]) -> BridgedConfig:
    cfg = bridge.cfg
    whole = lambda name: max(int(getattr(cfg, name, 0) or 0), 0)  # noqa: E731  # some architectures leave a number out
    left_out = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
    settings = digest_of({name: repr(value) for name, value in given.items() if name not in left_out})
    return BridgedConfig(
        architecture=str(cfg.architecture), n_layers=whole("n_layers"), d_model=whole("d_model"), n_heads=whole("n_heads"),
        d_head=whole("d_head"), d_mlp=whole("d_mlp"), d_vocab=whole("d_vocab"), n_ctx=whole("n_ctx"),
        n_types=int(given.get("type_vocab_size") or 1), settings=settings,
    )  # fmt: skip


def _weight_names(bridge: Any) -> dict[str, str]:
    """Our name of each weight the bridge shows in the field's shape, and where it lies there."""
    cfg, out = bridge.cfg, dict[str, str]()
    wanted: list[tuple[str, str, tuple[int | None, ...]]] = [
        ("W_E", "embed.W_E", (None, cfg.d_model)), ("W_pos", "pos_embed.W_pos", (cfg.n_ctx, cfg.d_model)),
        ("W_U", "unembed.W_U", (cfg.d_model, None)), ("b_U", "unembed.b_U", (None,)),
        ("ln_final.w", "ln_final.w", (cfg.d_model,)), ("ln_final.b", "ln_final.b", (cfg.d_model,)),
    ]  # fmt: skip
    parts: dict[str, tuple[int | None, ...]] = {f"attn.W_{word}": (None, cfg.d_model, cfg.d_head) for word in "QKV"}
    parts |= {f"attn.b_{word}": (None, cfg.d_head) for word in "QKV"}
    parts |= {"attn.W_O": (cfg.n_heads, cfg.d_head, cfg.d_model), "attn.b_O": (cfg.d_model,)}
    parts |= {"mlp.W_in": (cfg.d_model, None), "mlp.W_gate": (cfg.d_model, None), "mlp.W_out": (None, cfg.d_model)}
    parts |= {"mlp.b_in": (None,), "mlp.b_out": (cfg.d_model,)}
    parts |= {f"{norm}.{letter}": (cfg.d_model,) for norm in ("ln1", "ln2") for letter in "wb"}
    if getattr(cfg, "rmsnorm_uses_offset", False):  # what is stored is the weight less one
        parts = {name: shape for name, shape in parts.items() if not name.startswith("ln")}
        wanted = [one for one in wanted if not one[0].startswith("ln")]
    for theirs, ours in STACKS.items():
        for i in range(len(getattr(bridge, theirs, ()))):
            wanted += [(f"{ours}blocks.{i}.{name}", f"{theirs}.{i}.{name}", shape) for name, shape in parts.items()]
    for name, path, shape in wanted:
        value = _attribute(bridge, path)
        found = tuple(value.shape) if value is not None else ()
        if len(found) == len(shape) and all(size in (None, own) for size, own in zip(shape, found, strict=True)):
            out[name] = path
    return out


def _attribute(bridge: Any, path: str) -> Tensor | None:
    value = bridge
    for name in path.split("."):
        try:
            value = value[int(name)] if name.isdecimal() else getattr(value, name)
        except (AttributeError, TypeError, NotImplementedError):
            return None
    return value if isinstance(value, Tensor) else None
