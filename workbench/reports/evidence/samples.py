"""The samples of one suite on one model as Parquet: one row a sample, in the suite's own order.

A row holds what the store holds of a sample, field by field; ``values`` is its canonical JSON, so that every number comes back exactly.
``facts`` is the sha256 of what was asked (content, cluster, group): the content itself belongs to its data set and is not copied.
Parquet carries the name of the library that wrote it, so the bytes are the same only under one version of pyarrow; what a row is worth
does not depend on them (``digest_of_row``).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.core.errors import CorruptFile
from workbench.core.spec import canonical_json, digest_of

WRITER = f"pyarrow {pa.__version__}"
MOST_ROWS, MOST_BYTES = 5_000_000, 2 << 30
_SCHEMA = pa.schema(
    [
        ("sample", pa.string()), ("epoch", pa.int32()), ("cluster", pa.string()), ("group", pa.string()), ("unscored", pa.string()),
        ("apart", pa.int32()), ("values", pa.string()), ("facts", pa.string()), ("of", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One sample: its record as the store holds it, and the digest of what was asked."""

    record: Mapping[str, Any]
    facts: str

    def digest(self) -> str:
        """sha256 of the record and of what was asked, independent of the file's form."""
        return digest_of([dict(self.record), self.facts])


def to_parquet(rows: Sequence[Row]) -> bytes:
    """The rows as a Parquet file, in their order: the same rows give the same bytes under one version of pyarrow."""
    columns: dict[str, list[Any]] = {name: [row.record[name] for row in rows] for name in _SCHEMA.names if name not in ("values", "facts")}
    columns["values"] = [canonical_json(row.record["values"]) for row in rows]
    columns["facts"] = [row.facts for row in rows]
    out = io.BytesIO()
    table = pa.table({name: columns[name] for name in _SCHEMA.names}, schema=_SCHEMA)
    pq.write_table(table, out, compression="zstd", compression_level=9, write_statistics=False, store_schema=False, version="2.6")
    return out.getvalue()


def from_parquet(content: bytes, name: str) -> list[Row]:
    """The inverse of ``to_parquet``. Raises CorruptFile, naming the file, for anything else, and before more is unfolded than a bundle
    may hold."""
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        meta = file.metadata
        unfolded = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        if meta.num_rows > MOST_ROWS or unfolded > MOST_BYTES:
            raise CorruptFile(
                name, f"of at most {MOST_ROWS:,} rows and {MOST_BYTES:,} bytes", f"it says {meta.num_rows:,} and {unfolded:,}"
            )
        if file.schema_arrow.names != _SCHEMA.names:
            raise CorruptFile(name, f"a table of {', '.join(_SCHEMA.names)}", f"its columns are {', '.join(file.schema_arrow.names)[:200]}")
        rows = file.read().cast(_SCHEMA).to_pylist()
        return [Row({**_without(row, "facts"), "values": json.loads(row["values"])}, row["facts"]) for row in rows]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise CorruptFile(name, "a Parquet file of samples", f"it cannot be read: {first or type(error).__name__}") from None


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}
