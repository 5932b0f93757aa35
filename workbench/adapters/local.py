"""Where a published model lies on this machine: a folder, or a name that was downloaded before. Nothing is asked of a network."""

from __future__ import annotations

from pathlib import Path

from workbench.core.errors import MissingFile


def local(name: Path | str, known_as: str = "") -> Path:
    """The folder ``name``, or that of the name (``known_as``, where it goes by another there) in this machine's Hugging Face cache.

    Raises MissingFile.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download  # only names need it
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(known_as or str(name), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise MissingFile(
            name, "published model", do="Give a folder, or a name that is in this machine's Hugging Face cache (`hf download NAME`)."
        ) from None
