"""What models there are, and what one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from workbench.core.errors import StoreError
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.core.sites import SiteTable
from workbench.lab.refs import checkpoint_of, load, mended_in, mended_of
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store
from workbench.training.loop import FINAL


def known(store: Store | None = None) -> list[dict[str, str]]:
    """Organisms, then the finished trainings, newest first: ``ref``, ``family``, ``words``, ``digest`` ('' where not known yet)."""
    out = [
        {"ref": f"organism:{name}", "family": ORGANISMS.load(name).family, "words": entry.words, "digest": ""}
        for name, entry in ORGANISMS.items()
    ]
    try:
        store = store if store is not None else Store.open(create=False)
    except StoreError:
        return out
    for run in store.runs.list(kind="train", status="done"):
        final = checkpoint_of(store, run.id) / FINAL
        if final.is_dir():
            digest = str(run.provenance.get("model_digest", ""))
            words = f"{run.ref.removeprefix('recipe:')}, {run.created}"
            out.append({"ref": f"run:{run.id}", "family": _family(final), "words": words, "digest": digest})
    return out + [_mended(f"run:{run.id}/{part}", store) for run in store.runs.list(kind="audit") for part in mended_in(store, run.id)]


def _mended(ref: str, store: Store) -> dict[str, str]:
    found = mended_of(ref, store)
    assert found is not None, "it is one of those that are kept"
    return {"ref": ref, "family": _family(found.folder), "words": f"{found.audited} after {found.method}", "digest": ""}


def _family(folder: Path) -> str:
    """What a checkpoint says of itself, unverified; '' where that cannot be read: a list must not fail over one model."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["family"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def described(ref: str, *, store: Store | None = None, progress: Progress = silent) -> dict[str, Any]:
    """A model's family, config, parameters, digest, tokenizer and abilities, as plain values."""
    model = load(ref, store=store, progress=progress)
    tokenizer = model.tokenizer
    return {
        "ref": ref,
        "family": model.family,
        "parameters": parameters_of(model),
        "digest": model.digest(),
        "tokenizer": f"{type(tokenizer).__name__} of {tokenizer.vocab_size} tokens" if tokenizer is not None else "",
        "abilities": sorted(model.abilities),
        "sites": len(model.sites()),
        "config": model.config.model_dump(mode="json"),
    }


def parameters_of(model: HookedModel) -> int:
    """How many numbers the model has; shared ones count once."""
    return sum(p.numel() for p in model.parameters()) if isinstance(model, nn.Module) else 0


def sites_of(ref: str, *, store: Store | None = None, progress: Progress = silent) -> SiteTable:
    """Every site of a model."""
    return load(ref, store=store, progress=progress).sites()
