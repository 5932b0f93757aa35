"""Published models by folder or name: `hf:` and `tl:` references. Nothing is asked of a network."""

from __future__ import annotations

from pathlib import Path

from workbench.adapters import hf, transformer_lens
from workbench.adapters.local import local
from workbench.core.protocol import HookedModel
from workbench.data.pretrained import PretrainedTokenizer


def published(name: str) -> HookedModel:
    """The model of a published folder, or of a name in the Hugging Face cache of this machine, with its tokenizer where it has one."""
    folder = local(name)
    return hf.load(folder, _tokenizer(folder))


def bridged(name: str) -> HookedModel:
    """The same through TransformerLens, which knows more architectures."""
    folder = transformer_lens.folder_of(name)
    return transformer_lens.load(folder, _tokenizer(folder))


def _tokenizer(folder: Path) -> PretrainedTokenizer | None:
    return PretrainedTokenizer.from_folder(folder) if (folder / "tokenizer.json").is_file() else None
