"""Adapters on their own: a folder of two files, a few per cent of the model's size, that belongs to one base.

    adapter.json  adapter.safetensors

The JSON holds how the model is adapted, the sha256 of the other file, and the digest of the base. Both files are written whole or not at
all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from workbench.core.errors import BadValue, CorruptFile, MissingFile
from workbench.training.checkpoint import begun
from workbench.training.lora import LoRASpec, addition, attach, attached, base_digest, detach, fill

HEAD, TENSORS = "adapter.json", "adapter.safetensors"
FORMAT = 1


def save_adapter(model: Any, folder: Path | str) -> Path:
    """Write the additions of an adapted model to ``folder`` (replacing what is there) and return it. Raises BadValue for a plain one."""
    folder, additions, made = Path(folder), addition(model), attached(model)
    assert made is not None, "a model with additions is adapted"
    content = safetensors.torch.save({name: value.cpu().contiguous() for name, value in additions.items()})
    head = {
        "format": FORMAT, "family": model.family, "base": base_digest(model), "lora": made.spec.model_dump(mode="json"),
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    temporary = begun(folder)
    (temporary / TENSORS).write_bytes(content)
    (temporary / HEAD).write_text(json.dumps(head, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def load_adapter(model: Any, folder: Path | str) -> None:
    """Adapt a plain ``model`` as ``folder`` says, with its additions.

    Raises MissingFile, CorruptFile (a byte changed), and BadValue for a base whose digest is another, or a model that is adapted already;
    the model is then as it was.
    """
    folder = Path(folder)
    for name in (HEAD, TENSORS):
        if not (folder / name).is_file():
            raise MissingFile(folder / name, "adapter file")
    try:
        head = json.loads((folder / HEAD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile(folder / HEAD, "JSON", f"it is not ({error})") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise CorruptFile(folder / HEAD, f"of format {FORMAT}", "it is not")
    content = (folder / TENSORS).read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != head.get("sha256"):
        raise CorruptFile(folder / TENSORS, f"of sha256 {str(head.get('sha256'))[:12]}…", f"it has {found[:12]}…")
    if head.get("base") != (base := base_digest(model)):
        wanted = f"the base these adapters were trained on ({str(head.get('base'))[:12]}…)"
        raise BadValue("the model's digest", f"{base[:12]}…", wanted, do="Load that model first.")
    attach(model, LoRASpec.parse(head.get("lora") or {}, what=f"'{folder / HEAD}'"))
    try:
        fill(model, safetensors.torch.load(content))
    except BaseException:
        detach(model)
        raise
