"""Published checkpoints in and out, from the command line: `transformers` folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.adapters import hf
from workbench.core.errors import BadValue, MissingFile
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.data.pretrained import PretrainedTokenizer
from workbench.lab.models import parameters_of
from workbench.lab.refs import load
from workbench.store.runs import Store
from workbench.training import checkpoint


def import_folder(folder: str, out: str) -> dict[str, Any]:
    """Write the published model in ``folder`` as one of our checkpoints at ``out``, and say what it is.

    Raises MissingFile, CorruptFile, Incompatible (a config field that is not handled), BadValue (``out`` is there).
    """
    _free(out)
    model = published(folder)
    checkpoint.write(out, model)
    return _facts(model, out)


def export_folder(
    ref: str, out: str, architecture: str = "", *, store: Store | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Write a model as a folder that `transformers` opens, and say what it is. Raises Incompatible where none is built alike."""
    _free(out)
    model: Any = load(ref, store=store, progress=progress)
    hf.save(model, out, architecture)
    if isinstance(model.tokenizer, PretrainedTokenizer):
        (Path(out) / "tokenizer.json").write_text(model.tokenizer.published(), encoding="utf-8")
    return _facts(model, out)


def published(name: str) -> HookedModel:
    """The model of a published folder, or of a name in the Hugging Face cache of this machine, with its tokenizer where it has one."""
    folder = Path(name) if Path(name).is_dir() else _cached(name)
    file = folder / "tokenizer.json"
    tokenizer = PretrainedTokenizer.read(folder) if file.is_file() else None
    return hf.load(folder, tokenizer)


def _cached(name: str) -> Path:
    """The folder of a name that was downloaded before; nothing is asked of a network."""
    from huggingface_hub import snapshot_download  # only names need it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise MissingFile(
            name, "published model", do="Give a folder, or a name that is in this machine's Hugging Face cache (`hf download NAME`)."
        ) from None


def _free(out: str) -> None:
    if Path(out).exists():
        raise BadValue("the folder to write", out, "one that is not there yet", do="Nothing is written over.")


def _facts(model: Any, out: str) -> dict[str, Any]:
    return {"folder": str(out), "family": model.family, "parameters": parameters_of(model), "digest": model.digest()}
