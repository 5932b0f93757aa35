"""Published checkpoints in and out, from the command line: `transformers` folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.adapters import hf
from workbench.core.errors import BadValue
from workbench.core.protocol import Progress, silent
from workbench.data.tokenizer_files import tokenizer_files
from workbench.lab.models import parameters_of
from workbench.lab.published import published
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


def export_folder(ref: str, out: str, architecture: str = "", *, store: Store | None = None, progress: Progress = silent) -> dict[str, Any]:
    """Write a model, with its tokenizer, as a folder that `transformers` opens, and say what it is.

    Raises Incompatible where no published architecture is built alike.
    """
    _free(out)
    model: Any = load(ref, store=store, progress=progress)
    folder = hf.save(model, out, architecture)
    if model.tokenizer is not None:
        # A text that is continued begins with the begin token here (engine.tokens), so it does there.
        for name, text in tokenizer_files(model.tokenizer, begin="generate" in model.abilities).items():
            (folder / name).write_text(text, encoding="utf-8")
    return _facts(model, out)


def _free(out: str) -> None:
    if Path(out).exists():
        raise BadValue("the folder to write", out, "one that is not there yet", do="Nothing is written over.")


def _facts(model: Any, out: str) -> dict[str, Any]:
    return {"folder": str(out), "family": model.family, "parameters": parameters_of(model), "digest": model.digest()}
