"""The sink a runner streams into: samples of one suite of one run, each kept once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core.errors import BadValue
from workbench.store.tables import Tables

MOST_LETTERS = 512


class StoreSink:
    """A ``core.protocol.Sink`` on the samples table.

    ``put`` commits its records in one transaction and keeps the first of two with the same (sample, epoch), so a batch
    that is computed again after a kill changes nothing.
    """

    def __init__(self, tables: Tables, run: str, suite: str) -> None:
        self._tables, self.run, self.suite = tables, run, checked_name("the suite's name", suite)

    def done(self) -> set[tuple[str, int]]:
        return {(row["sample"], row["epoch"]) for row in self._tables.select_sample_keys(self.run, self.suite)}

    def put(self, records: Sequence[Mapping[str, Any]]) -> None:
        self._tables.insert_samples([self._row(record) for record in records])

    def read(self) -> list[dict[str, Any]]:
        rows = self._tables.select_samples(self.run, self.suite)
        rows.sort(key=lambda row: (row["sample"], row["epoch"]))  # here, since databases order text by their locale
        return [json.loads(row["record"]) for row in rows]

    def _row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(record.get("sample"), str) or type(record.get("epoch")) is not int:
            raise BadValue(
                "a record", {k: record.get(k) for k in ("sample", "epoch")}, "one with a text 'sample' and a whole number 'epoch'"
            )
        sample = checked_name("a sample's id", record["sample"])
        try:
            text = json.dumps(dict(record), sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadValue(f"the record of sample '{sample}'", _culprit(record), f"made of plain finite JSON values ({error})") from None
        return {"run": self.run, "suite": self.suite, "sample": sample, "epoch": record["epoch"], "record": text}


def checked_name(what: str, text: str) -> str:
    """``text``, which every database can hold as a key: not empty, not too long, without NUL or half a character."""
    whole = text.isprintable() or not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)
    if not text or len(text) > MOST_LETTERS or not whole:
        raise BadValue(what, text[:40], f"1 to {MOST_LETTERS} characters of valid text")
    return text


def _culprit(record: Mapping[str, Any]) -> str:
    for name, value in record.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            return f"{name}={value!r}"[:120]
    return "a key that is not text"
