"""Published checkpoints in and out: a folder as `transformers` writes it becomes one of our models, and back, without changing a number.

An architecture (one file, one line of the catalogue) says how its config reads as ours and which weight is which. Only safetensors are
read: a pickle can run code when it is opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from workbench.adapters.fields import Fields
from workbench.adapters.weights import Line, exported, imported
from workbench.blocks.economy import PLAIN
from workbench.core.catalog import Catalog
from workbench.core.errors import BadValue, CorruptFile, Incompatible, MissingFile
from workbench.families import FAMILIES

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

ARCHITECTURES = Catalog(
    "architecture",
    {
        "gpt2": ("workbench.adapters.hf_gpt:GPT2", "GPT-2, a decoder with learned positions", "headline"),
        "llama": ("workbench.adapters.hf_gpt:LLAMA", "Llama, a decoder with rotary positions", "headline"),
        "bert": ("workbench.adapters.hf_bert:BERT", "BERT, a bidirectional encoder", "standard"),
        "bart": ("workbench.adapters.hf_bart:BART", "BART, an encoder-decoder", "standard"),
        "whisper": ("workbench.adapters.hf_whisper:WHISPER", "Whisper, an encoder of sound with a decoder", "standard"),
        "vit": ("workbench.adapters.hf_vit:VIT", "ViT, an image classifier over patches", "standard"),
        "clip": ("workbench.adapters.hf_clip:CLIP", "CLIP, images and texts in one space", "standard"),
    },
)
"""What can be imported, by the ``model_type`` of its config."""


@dataclass(frozen=True)
class Architecture:
    """How one published architecture reads as a family.

    ``read(fields, cls)`` gives our config's fields, where ``cls`` is the published class the weights were saved from (one of
    ``classes``); ``write(config)`` gives (class, published fields); ``lines(config)`` the weight table. ``prefix`` is the base model's in
    checkpoints with a head. ``ignored`` are globs of buffers; ``same(config)`` the tied tensors (theirs: equal to); ``inert`` fields
    that change no number. ``older(tensors, config)`` gives the tensors by their present names, without those the published class does
    not load.
    """

    family: str
    classes: tuple[str, ...]
    read: Callable[[Fields, str], dict[str, Any]]
    write: Callable[[Any], tuple[str, dict[str, Any]]]
    lines: Callable[[Any], Sequence[Line]]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    same: Callable[[Any], Mapping[str, str]] = field(default=lambda config: {})
    inert: tuple[str, ...] = ()
    older: Callable[[Mapping[str, Tensor], Any], Mapping[str, Tensor]] = field(default=lambda tensors, config: tensors)


def load(folder: Path | str, tokenizer: Any = None) -> Any:
    """The model in a published ``folder``, in evaluation mode and the dtype of its weights.

    Raises MissingFile, CorruptFile (weights that are not its config's), UnknownName (an architecture that is not handled) and Incompatible
    (a config field that is not handled, by name).
    """
    folder = Path(folder)
    given = _config(folder)
    architecture, config = configured(given, str(folder), lambda: _names(folder))
    family = FAMILIES.load(architecture.family)
    if tokenizer is not None and not hasattr(config, "d_vocab"):
        raise BadValue("the tokenizer", type(tokenizer).__name__, f"None: a {architecture.family} model reads no text")
    if tokenizer is not None and tokenizer.vocab_size > config.d_vocab:
        raise BadValue("the tokenizer's size", tokenizer.vocab_size, f"at most the model's {config.d_vocab}")
    fits = tokenizer is not None and tokenizer.vocab_size == config.d_vocab
    model = family(config, tokenizer if fits else None)
    own = model.state_dict()
    tensors = _tensors(folder)
    dtypes = {value.dtype for value in tensors.values() if value.is_floating_point()}
    state = imported(
        architecture.lines(config), architecture.older(tensors, config), own,
        prefix=architecture.prefix, ignored=architecture.ignored, same=architecture.same(config), path=folder / WEIGHTS,
    )  # fmt: skip
    if len(dtypes) == 1:
        model.to(dtypes.pop())
    model.load_state_dict(state, strict=True)
    model.tokenizer = tokenizer
    return model.eval()


def configured(given: Mapping[str, Any], what: str, names: Callable[[], Collection[str]] = tuple) -> tuple[Architecture, Any]:
    """The architecture of a published config, and our config; ``names`` looks up those of its tensors. Raises UnknownName and
    Incompatible."""
    kind = str(given.get("model_type", ""))
    architecture: Architecture = ARCHITECTURES.load(kind)
    classes = given.get("architectures") or [architecture.classes[0]]
    if len(classes) != 1 or classes[0] not in architecture.classes:
        raise Incompatible("import", what, [f"architectures={classes!r} is not handled (only {', '.join(architecture.classes)})"])
    fields = Fields(given, defaults_of(kind), what, names)
    values = architecture.read(fields, classes[0])
    fields.done(architecture.inert)
    return architecture, FAMILIES.load(architecture.family).config_type.parse(values, what=f"the config of '{what}'")


def defaults_of(kind: str) -> dict[str, Any]:
    """The published defaults of an architecture's config."""
    from transformers import AutoConfig  # takes a second, and only imports need it

    return AutoConfig.for_model(kind).to_dict()


def save(model: Any, folder: Path | str, kind: str = "") -> Path:
    """Write ``model`` as a published folder of architecture ``kind`` (default: the first that can hold it) and return it.

    Raises Incompatible where no published architecture is this model.
    """
    folder = Path(folder)
    kinds = [name for name in ([kind] if kind else ARCHITECTURES) if ARCHITECTURES.load(name).family == model.family]
    if not kinds:
        reason = f"'{kind}' is not built from this family" if kind else "no published architecture is built from this family"
        raise Incompatible("export", f"this {model.family} model", [reason])
    if any(name.endswith(".lora_a") for name in model.state_dict()):
        raise Incompatible("export", f"this {model.family} model", ["it is adapted"], do="Merge its adapters first.")
    if (economy := getattr(model.config, "economy", PLAIN)) != PLAIN:
        raise Incompatible("export", f"this {model.family} model", [f"no published architecture here has its economy, {economy!r}"])
    reasons: list[str] = []
    for name in kinds:
        architecture: Architecture = ARCHITECTURES.load(name)
        try:
            cls, fields = architecture.write(model.config)
        except Incompatible as error:
            reasons.append(f"{name}: {', '.join(error.reasons)}")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        tensors = exported(
            architecture.lines(model.config), model.state_dict(), prefix=architecture.prefix if has_prefix(architecture, cls) else ""
        )
        safetensors.torch.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        config = {"architectures": [cls], "model_type": name, "dtype": dtype, **fields}
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return folder
    raise Incompatible("export", f"this {model.family} model", reasons)


def has_prefix(architecture: Architecture, cls: str) -> bool:
    """Whether checkpoints of a published class carry the base model's prefix: all but the base class, which is listed last."""
    return cls != architecture.classes[-1] or len(architecture.classes) == 1


# --- files --------------------------------------------------------------------------------------------------


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise MissingFile(path, "config of a published model")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile(path, "JSON", f"it is not ({error})") from None
    if not isinstance(given, dict):
        raise CorruptFile(path, "a JSON object", f"it is {type(given).__name__}")
    return given


def _files(folder: Path) -> list[Path]:
    """The files that hold the weights."""
    paths = [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        paths = [folder / Path(name).name for name in sorted(set(names))]
    for path in paths:
        if not path.is_file():
            pickled = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
            do = f"'{pickled[0]}' is a pickle, which can run code when opened; convert it to safetensors first." if pickled else ""
            raise MissingFile(path, "weights in safetensors", do=do)
    return paths


def _names(folder: Path) -> set[str]:
    """The names of all tensors, from the heads of their files."""
    out: set[str] = set()
    for path in _files(folder):
        try:
            with safetensors.safe_open(path, framework="pt") as opened:
                out |= set(opened.keys())
        except safetensors.SafetensorError as error:
            raise CorruptFile(path, "a safetensors file", str(error)) from None
    return out


def _tensors(folder: Path) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for path in _files(folder):
        try:
            out |= safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise CorruptFile(path, "a safetensors file", str(error)) from None
    return out
