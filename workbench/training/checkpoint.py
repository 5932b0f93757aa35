"""Checkpoints: a folder of plain files, written whole or not at all, and checked before a byte of it is believed.

    config.json  model.safetensors  [tokenizer.json]  [optimizer.safetensors]  train_state.json  MANIFEST.sha256

Where several processes hold a part of each tensor, shard-*.safetensors of their parts stand in the place of the two files of tensors.
A folder is written under a temporary name, flushed, and renamed; ``latest`` and ``best`` are small files that name one and are
replaced atomically. So a run that dies at any moment leaves its last whole checkpoint. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from workbench.core.catalog import Entry
from workbench.core.errors import CorruptFile, MissingFile
from workbench.data.text import tokenizer_from_json
from workbench.training.lora import LoRASpec, attach, attached
from workbench.training.parallel.shards import PATTERN, assembled

FORMAT = 1
MANIFEST = "MANIFEST.sha256"
LATEST, BEST, FINAL = "latest", "best", "final"
MODEL, OPTIMIZER = "model.", "optimizer."
"""What names in files of parts begin with."""
_STEP = re.compile(r"step-\d{8}")
_UNFINISHED = ".writing-"
# Families are found through their catalogue by name, as a user's reference is: training knows none of them.
_FAMILIES = Entry("families", "workbench.families:FAMILIES", "every model family by name", "headline")


@dataclass(frozen=True)
class Checkpoint:
    """The verified content of one folder."""

    folder: Path
    family: str
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    tokenizer: Any
    optimizer: Mapping[str, Tensor] | None
    train_state: Mapping[str, Any]
    cut: bool = False
    """Whether its tensors are in files of parts."""
    lora: Mapping[str, Any] | None = None
    """How the model was adapted, where it was."""


def write(
    folder: Path | str, model: Any, optimizer_state: Mapping[str, Tensor] | None = None, train_state: Mapping[str, Any] | None = None
) -> Path:
    """Write one checkpoint to exactly ``folder`` (replacing what is there) and return it. ``model`` is a family's module."""
    temporary = begun(Path(folder))
    files = {"model.safetensors": _tensors(model.state_dict())}
    if optimizer_state is not None:
        files["optimizer.safetensors"] = _tensors(optimizer_state)
    return sealed(temporary, Path(folder), model, train_state or {}, files)


def begun(folder: Path) -> Path:
    """An empty folder under a temporary name, to become ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f"{_UNFINISHED}{folder.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return temporary


def sealed(temporary: Path, folder: Path, model: Any, train_state: Mapping[str, Any], tensors: Mapping[str, bytes]) -> Path:
    """Write what belongs to ``model`` beside ``tensors`` and what ``temporary`` holds already, and rename it to ``folder``."""
    digests = {path.name: _digest(path) for path in temporary.iterdir()}
    head = {"format": FORMAT, "family": model.family, "config": model.config.model_dump(mode="json")}
    if (adapted := attached(model)) is not None:
        head["lora"] = adapted.spec.model_dump(mode="json")
    files: dict[str, bytes] = {
        "config.json": _json(head),
        **tensors,
        "train_state.json": _json(dict(train_state)),
    }
    if model.tokenizer is not None:
        files["tokenizer.json"] = model.tokenizer.to_json().encode()
    digests |= {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[MANIFEST] = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()
    try:
        for name, content in files.items():
            _flushed(temporary / name, content)
    except OSError:  # a full disk gets its room back
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _settled(folder.parent)
    return folder


def save(root: Path | str, model: Any, optimizer_state: Mapping[str, Tensor] | None, train_state: Mapping[str, Any], keep: int) -> Path:
    """Write ``root/step-XXXXXXXX`` (from ``train_state["step"]``), point ``latest`` at it, and drop all but the last ``keep`` steps
    and the one ``best`` names."""
    folder = write(step_folder(root, train_state["step"]), model, optimizer_state, train_state)
    settle(folder, keep)
    return folder


def step_folder(root: Path | str, step: int) -> Path:
    """Where the checkpoint of ``step`` is."""
    return Path(root) / f"step-{step:08d}"


def settle(folder: Path, keep: int) -> None:
    """Point ``latest`` at a step's new ``folder``, and drop all but the last ``keep`` steps and the one ``best`` names."""
    root = folder.parent
    point(root, LATEST, folder.name)
    steps = sorted(path.name for path in root.iterdir() if _STEP.fullmatch(path.name))
    spared = {*steps[-keep:], folder.name, *(p.name for p in [pointed(root, BEST)] if p is not None)}
    for name in steps:
        if name not in spared:
            shutil.rmtree(root / name)


def point(root: Path, pointer: str, name: str) -> None:
    """Make ``root/pointer`` name a step, atomically."""
    temporary = root / f"{_UNFINISHED}{pointer}"
    _flushed(temporary, f"{name}\n".encode())
    os.replace(temporary, root / pointer)
    _settled(root)


def pointed(root: Path | str, pointer: str) -> Path | None:
    """The folder ``root/pointer`` names; None where there is no pointer. Raises CorruptFile where it names none that is there."""
    path = Path(root) / pointer
    if not path.is_file():
        return None
    name = path.read_text(errors="replace").strip()
    if not _STEP.fullmatch(name) or not (path.parent / name).is_dir():
        raise CorruptFile(path, "the name of a checkpoint beside it", f"it says '{name[:40]}'")
    return path.parent / name


def clean(root: Path) -> None:
    """Remove what a run that died was in the middle of writing."""
    for path in root.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def read(folder: Path | str, *, tensors: bool = True) -> Checkpoint:
    """Read and verify one checkpoint. With ``tensors`` false, files of parts are left unread, for those who hold parts to read.

    Raises MissingFile and CorruptFile.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFile(folder, "checkpoint folder")
    if not (folder / MANIFEST).is_file():
        inside = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
        own = f"A folder without one is no checkpoint made here. If a published model is in it, its reference is hf:{folder}."
        raise MissingFile(
            folder / MANIFEST, "checkpoint manifest", do=f"There are checkpoints inside it: {', '.join(inside)}." if inside else own
        )
    listed = _manifest(folder / MANIFEST)
    known = {MANIFEST, *(name for _, name in listed)}
    if odd := sorted(path.name for path in folder.iterdir() if path.name not in known and not path.name.startswith(".")):
        expected = "listed in its manifest, as every file of a checkpoint is"
        raise CorruptFile(folder / odd[0], expected, "it is not", do="Move it out of that folder.")
    shards = {name: digest for digest, name in listed if Path(name).match(PATTERN)}
    files = {name: _verified(folder / name, digest) for digest, name in listed if name not in shards}
    for name in ("config.json", *([] if shards else ["model.safetensors"]), "train_state.json"):
        if name not in files:
            raise CorruptFile(folder / MANIFEST, f"a list with '{name}' in it", "it is not listed")
    head = _object(folder / "config.json", files["config.json"])
    if head.get("format") != FORMAT:
        raise CorruptFile(folder / "config.json", f"of format {FORMAT}", f"its format is {head.get('format')!r}")
    weights, optimizer = _parts(folder, shards) if shards and tensors else ({}, None)
    if not shards:
        weights, content = _loaded(folder / "model.safetensors", files["model.safetensors"]), files.get("optimizer.safetensors")
        optimizer = _loaded(folder / "optimizer.safetensors", content) if content is not None else None
    return Checkpoint(
        folder=folder,
        family=str(head.get("family")),
        config=head.get("config") or {},
        weights=weights,
        tokenizer=tokenizer_from_json(files["tokenizer.json"].decode()) if "tokenizer.json" in files else None,
        optimizer=optimizer,
        train_state=_object(folder / "train_state.json", files["train_state.json"]),
        cut=bool(shards),
        lora=head.get("lora"),
    )


def load_model(folder: Path | str) -> Any:
    """The model in ``folder``, in evaluation mode: config, tokenizer and weights, in the dtype they were saved in, and adapted as it was.

    Raises MissingFile, CorruptFile (a byte changed, or weights that are not this config's) and UnknownName (no such family).
    """
    found = read(folder)
    family = _FAMILIES.load().load(found.family)
    model = family(family.config_type.parse(found.config, what=f"'{found.folder / 'config.json'}'"), found.tokenizer)
    if found.lora is not None:
        attach(model, LoRASpec.parse(found.lora, what=f"'{found.folder / 'config.json'}'"))
    fill(model, found.weights, found.folder / "model.safetensors")
    return model.eval()


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: object) -> None:
    """Copy ``weights`` into ``model``, which takes on their dtype. Missing, unexpected and misshapen ones raise CorruptFile."""
    own = model.state_dict()
    if odd := sorted(set(own) ^ set(weights)):
        words = f"'{odd[0]}' is {'missing' if odd[0] in own else 'unexpected'}" + (f" (and {len(odd) - 1} more)" if len(odd) > 1 else "")
        raise CorruptFile(path, "the weights of its config", words)
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise CorruptFile(path, "the weights of its config", f"'{name}' has shape {tuple(value.shape)}, not {tuple(own[name].shape)}")
    dtypes = {value.dtype for value in weights.values() if value.is_floating_point()}
    if len(dtypes) == 1:
        model.to(dtypes.pop())
    model.load_state_dict(dict(weights), strict=True)


# --- files --------------------------------------------------------------------------------------------------


def _json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _tensors(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def _flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _settled(folder: Path) -> None:
    """Let the names in ``folder`` outlast a loss of power, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _manifest(path: Path) -> list[tuple[str, str]]:
    lines = [line.split("  ", 1) for line in path.read_text(errors="replace").splitlines()]
    if not lines or any(len(line) != 2 or "/" in line[1] or not re.fullmatch("[0-9a-f]{64}", line[0]) for line in lines):
        raise CorruptFile(path, "lines of a sha256, two spaces and a file name", "it is not")
    return [(digest, name) for digest, name in lines]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(folder: Path, shards: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Weights and optimizer state from files of parts, each verified."""
    check_shards(folder, shards)
    tables: dict[str, dict[str, Tensor]] = {MODEL: {}, OPTIMIZER: {}}
    for name, value in assembled(folder).items():
        prefix = MODEL if name.startswith(MODEL) else OPTIMIZER
        tables[prefix][name.removeprefix(prefix)] = value
    return tables[MODEL], tables[OPTIMIZER] or None


def check_shards(folder: Path, shards: Mapping[str, str] | None = None, *, share: slice = slice(None)) -> None:
    """Verify the files of parts in ``folder``, or a ``share`` of them. Raises MissingFile and CorruptFile."""
    if shards is None:
        shards = {name: digest for digest, name in _manifest(folder / MANIFEST) if Path(name).match(PATTERN)}
    for name in sorted(shards)[share]:
        _same(folder / name, shards[name])


def _same(path: Path, digest: str, content: bytes | None = None) -> None:
    if not path.is_file():
        raise MissingFile(path, "checkpoint file", do=f"'{MANIFEST}' lists it: the folder is not whole.")
    found = _digest(path) if content is None else hashlib.sha256(content).hexdigest()
    if found != digest:
        raise CorruptFile(
            path, f"of sha256 {digest[:12]}… as its manifest says", f"it has {found[:12]}…", do="Restore it, or use another checkpoint."
        )


def _verified(path: Path, digest: str) -> bytes:
    content = path.read_bytes() if path.is_file() else b""
    _same(path, digest, content)
    return content


def _object(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise CorruptFile(path, "JSON", f"it is not ({error})") from None
    if not isinstance(value, dict):
        raise CorruptFile(path, "a JSON object", f"it is {type(value).__name__}")
    return value


def _loaded(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise CorruptFile(path, "a safetensors file", str(error)) from None
