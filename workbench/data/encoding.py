"""What all tokenizers share: strict Unicode, the alphabet of bytes, and the form they are stored in."""

from __future__ import annotations

import json
from typing import Any

from workbench.core.errors import BadValue, CorruptFile

FORMAT = 1
Span = tuple[int, int]


def utf8(text: str) -> bytes:
    """The bytes of ``text``; BadValue for a lone surrogate, which has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadValue("text", text[error.start : error.end], "Unicode without lone surrogates") from None


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """A text's ids with the control tokens that its tokenizer puts around one: its template's, else its begin token. BadValue for none."""
    ids = tokenizer.encode(text)
    if not ids:
        raise BadValue("a text", text, "of at least one token")
    if (framed := getattr(tokenizer, "framed", None)) is not None:
        return framed(ids)[0]
    return ids if tokenizer.bos_id is None else [tokenizer.bos_id, *ids]


def _byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level BPE writes for each byte (GPT-2's table), inverted.

    Printable bytes stand for themselves; the others take the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}


BYTE_OF = _byte_alphabet()


def json_object(text: str, what: object = "tokenizer") -> dict[str, Any]:
    """The JSON object in ``text``; CorruptFile for anything else."""
    try:
        part = json.loads(text)
    except json.JSONDecodeError as error:
        raise CorruptFile(what, "JSON", f"it is not ({error.msg} at character {error.pos})") from None
    if not isinstance(part, dict):
        raise CorruptFile(what, "a JSON object", f"it is {type(part).__name__}")
    return part


def stored(text: str, kind: str, fields: set[str]) -> dict[str, Any]:
    """A tokenizer of type ``kind`` as it was stored, with exactly ``fields``; CorruptFile for anything else."""
    part = json_object(text)
    if part.get("type") != kind or part.get("format") != FORMAT or set(part) != fields | {"type", "format"}:
        found = f"it has type {part.get('type')!r}, format {part.get('format')!r} and the fields {', '.join(sorted(part))}"
        raise CorruptFile("tokenizer", f"of type '{kind}', format {FORMAT}, with {', '.join(sorted(fields))}", found)
    return part
