"""A catalogue as an answer."""

from __future__ import annotations

from workbench.cli.output import show, table
from workbench.core.catalog import Catalog


def show_catalog(catalog: Catalog, plural: str, column: str) -> None:
    """Print a catalogue: names, how far each is to be trusted, and what it does in ten words."""
    rows = [(name, entry.status, entry.words) for name, entry in catalog.items()]
    document = [{"name": name, "status": status, "words": words} for name, status, words in rows]
    show({plural: document}, table(rows, (catalog.kind, "status", column)))
