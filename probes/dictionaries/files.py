"""A dictionary in a folder of plain files, written so that a crash at any moment leaves the last whole one.

    dictionary.json                  shape, origin, and the name and sha256 of each file of tensors; replaced last, in one move
    weights-STEP.safetensors         encoder, decoder, biases, thresholds, and the normalisation of both sites
    training-STEP.safetensors        what a training needs to go on, where one is under way

Nothing is pickled. A dictionary is read only where every byte is what was written, and it is used only on the model and site it was trained
on: ``check_fits`` refuses any other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from probes.dictionaries.dictionary import Dictionary
from probes.dictionaries.spec import DictionarySpec, Origin
from workbench.core.errors import CorruptFile, Incompatible, MissingFile
from workbench.core.protocol import HookedModel

FORMAT = "assay-dictionary/1"
HEAD = "dictionary.json"


@dataclass(frozen=True)
class Kept:
    """What a folder holds: the dictionary, and the training's tensors and facts where it was kept to go on."""

    dictionary: Dictionary
    tensors: Mapping[str, Tensor] | None
    facts: Mapping[str, Any] | None
    about: Mapping[str, Any]


def save(
    folder: Path | str, dictionary: Dictionary, *, tensors: Mapping[str, Tensor] | None = None, facts: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write a dictionary (and, to go on, its training) into ``folder``, and return the folder. ``about`` is JSON that is kept beside."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    step = facts["step"] if facts is not None else 0
    parts = {"weights": dict(dictionary.state_dict())} | ({"training": dict(tensors)} if tensors is not None else {})
    files: dict[str, dict[str, str]] = {}
    for word, table in parts.items():
        content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in table.items()})
        name = f"{word}-{step:08d}.safetensors"
        _write(folder / name, content)
        files[word] = {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
    head = {
        "format": FORMAT, "spec": dictionary.spec.model_dump(mode="json"), "origin": dictionary.origin.model_dump(mode="json"),
        "dtype": str(dictionary.decoder.dtype).removeprefix("torch."), "files": files, "training": facts, "about": dict(about or {}),
    }  # fmt: skip
    _write(folder / HEAD, (json.dumps(head, sort_keys=True, indent=1, allow_nan=False) + "\n").encode())
    kept = {one["file"] for one in files.values()}
    for path in folder.glob("*.safetensors"):
        if path.name not in kept and path.name.startswith(("weights-", "training-")):
            path.unlink()
    return folder


def load(folder: Path | str) -> Kept:
    """Read and verify. Raises MissingFile and CorruptFile."""
    folder = Path(folder)
    if not (folder / HEAD).is_file():
        raise MissingFile(folder / HEAD, "dictionary", do="A folder written by `save` holds one; for SAELens's use `sae_lens.load`.")
    try:
        head = json.loads((folder / HEAD).read_text())
        files = head["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(folder / HEAD, "the JSON of a dictionary", f"it is not ({error})") from None
    if head.get("format") != FORMAT:
        raise CorruptFile(folder / HEAD, f"of format {FORMAT}", f"its format is {head.get('format')!r}")
    spec = DictionarySpec.parse(head["spec"], what=f"'{folder / HEAD}'")
    dictionary = Dictionary(spec, origin=Origin.parse(head["origin"], what=f"'{folder / HEAD}'"))
    dictionary.to(getattr(torch, head["dtype"]))
    fill(dictionary, _tensors(folder, files["weights"]), folder / files["weights"]["file"])
    tensors = _tensors(folder, files["training"]) if "training" in files else None
    return Kept(dictionary, tensors, head["training"], head["about"])


def fill(dictionary: Dictionary, tensors: Mapping[str, Tensor], path: object) -> None:
    """Copy tensors into a dictionary of their shape. Raises CorruptFile for missing, unexpected, misshapen ones and for NaN."""
    own = dictionary.state_dict()
    if odd := sorted(set(own) ^ set(tensors)):
        where = "missing" if odd[0] in own else "unexpected"
        raise CorruptFile(path, f"the tensors of a {dictionary.spec.kind} dictionary", f"'{odd[0]}' is {where}")
    for name, value in tensors.items():
        if value.shape != own[name].shape:
            raise CorruptFile(path, f"'{name}' of shape {tuple(own[name].shape)}", f"it has shape {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise CorruptFile(path, "finite numbers", f"'{name}' holds NaN or infinity")
    dictionary.load_state_dict(dict(tensors))


def check_fits(dictionary: Dictionary, model: HookedModel, site: str, site_out: str = "") -> None:
    """Raises Incompatible where the dictionary is of another model, site or width than what it is to be used on."""
    origin, spec, table = dictionary.origin, dictionary.spec, model.sites()
    reasons = []
    if origin.model_digest and origin.model_digest != model.digest():
        name = f"{origin.model} model" if origin.model else "model"
        reasons.append(f"it was trained on a {name} of digest {origin.model_digest[:12]}, and this one has {model.digest()[:12]}")
    for word, here, there in (("site", site, origin.site), ("output site", site_out, origin.site_out)):
        if there and here != there:
            reasons.append(f"its {word} is '{there}', and '{here or 'none'}' was asked for")
    if spec.transcoder != bool(site_out):
        reasons.append(
            "it is a transcoder and no output site was given" if spec.transcoder else "it is an autoencoder and has no output site"
        )
    widths = ((site, spec.d_in), (site_out, spec.width_out)) if site_out else ((site, spec.d_in),)
    for name, width in widths:
        found = getattr(model.config, "d_model", None)
        if name in table and table[name].axes[-1] == "d_model" and found is not None and found != width:
            reasons.append(f"its vectors have {width} numbers, and those at '{name}' have {found}")
    if reasons:
        do = "Load the model it was trained on, or train a dictionary on this one: features of another model mean nothing here."
        raise Incompatible("sparse-dictionary", "this dictionary", reasons, do=do)


def _tensors(folder: Path, listed: Mapping[str, str]) -> dict[str, Tensor]:
    path = folder / listed["file"]
    if not path.is_file():
        raise MissingFile(path, "file of a dictionary", do=f"'{HEAD}' lists it: the folder is not whole.")
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != listed["sha256"]:
        raise CorruptFile(path, f"of sha256 {listed['sha256'][:12]}… as '{HEAD}' says", f"it has {found[:12]}…", do="Restore it.")
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise CorruptFile(path, "a safetensors file", str(error)) from None


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".writing-{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
