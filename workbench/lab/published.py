"""Published models by folder or name: `hf:` and `tl:` references. Nothing is asked of a network."""

from __future__ import annotations

from pathlib import Path

from workbench.adapters import hf, transformer_lens
from workbench.core.errors import MissingFile
from workbench.core.protocol import HookedModel
from workbench.data.pretrained import PretrainedTokenizer


def published(name: str) -> HookedModel:
    """The model of a published folder, or of a name in the Hugging Face cache of this machine, with its tokenizer where it has one."""
    folder = Path(name) if Path(name).is_dir() else _cached(name)
    return hf.load(folder, _tokenizer(folder))


def bridged(name: str) -> HookedModel:
    """The same through TransformerLens, which knows more architectures."""
    folder = transformer_lens.local(name)
    return transformer_lens.load(folder, _tokenizer(folder))


def _tokenizer(folder: Path) -> PretrainedTokenizer | None:
    return PretrainedTokenizer.from_folder(folder) if (folder / "tokenizer.json").is_file() else None


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
