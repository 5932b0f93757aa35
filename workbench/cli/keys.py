"""``workbench keys``."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.group import new_app
from workbench.cli.output import show, table

app = new_app("Keys that sign evidence bundles, and signers that are trusted.")


@app.command("new")
def new_key(name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called here.")] = "own") -> None:
    """Make an Ed25519 key pair. The private part stays in your folder of keys, readable by you alone."""
    from workbench.reports.evidence import keys

    place = keys.folder()
    made = keys.new(name, place)
    document = {"name": name, "fingerprint": made.fingerprint, "public": str(place / f"{name}.pub"), "private": str(place / f"{name}.key")}
    show(document, [made.fingerprint, f"public   {document['public']}  (give this to whoever checks)", f"private  {document['private']}"])


@app.command("list")
def list_keys() -> None:
    """List your keys and the signers you trust."""
    from workbench.reports.evidence import keys

    place = keys.folder()
    own = {name: keys.read_public(place / f"{name}.pub").fingerprint for name in keys.names(place)}
    trusted = keys.trusted(place)
    rows = [("own", mark, name) for name, mark in own.items()] + [("trusted", mark, words) for mark, words in trusted.items()]
    lines = table(rows, ("kind", "fingerprint", "name")) if rows else ["There are no keys here yet. `workbench keys new NAME` makes one."]
    show({"folder": str(place), "own": own, "trusted": trusted}, lines)


@app.command("trust")
def trust_key(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A public key's file, or a fingerprint (sha256:…).")],
    words: Annotated[str, typer.Option("--as", metavar="WORDS", help="Whose key it is.")] = "",
) -> None:
    """Believe a signer from now on."""
    from workbench.reports.evidence import keys

    mark = key if key.startswith("sha256:") else keys.read_public(key).fingerprint
    keys.trust(mark, words, keys.folder())
    show({"fingerprint": mark, "words": words}, f"trusted: {mark} {words}".rstrip())
