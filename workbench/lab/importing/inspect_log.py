"""Logs of Inspect: ``.eval`` (a zip of JSON) and ``.json``, read without Inspect.

A score's value becomes a number as Inspect itself takes it: C is 1, I is 0, P is 0.5. A sample that was stopped by an error, or whose
answer could not be read (N, NaN), is not scored, where Inspect would count 0. Messages are compared by role and content: the ids they carry
differ from run to run.

Nothing is unpacked to disk. A member whose name leads out of the archive, that unpacks to more than it says, or to too much in all, is
refused. Members may be compressed by zstd, as newer logs are.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from evals.imported import asked_digest
from workbench.core.errors import CorruptFile
from workbench.lab.importing.read import DIRECTIONS, HIGHER, LARGEST, Imported, Log, as_truths, label, number, whole

FORM = "inspect"
GIVE = "Give a log of Inspect, as `inspect eval` writes it."
LETTERS = {"C": 1, "I": 0, "P": 0.5}
NO_ANSWER = "N"
MOST_MEMBERS = 1_000_000
ZSTD = 93
_LOCAL = struct.Struct("<4s22xHH")
"""Of a member's own header: mark, then the lengths of its name and of what comes before its bytes."""


def read(place: Path, *, cluster: str = "", group: str = "") -> Log:
    """The samples of a log. ``cluster`` and ``group`` are fields of a sample's ``metadata``. Raises CorruptFile, naming file and member."""
    content = whole(place, GIVE)
    header, samples = _archive(place, content) if zipfile.is_zipfile(io.BytesIO(content)) else _document(place, content)
    spec = header.get("eval")
    if not isinstance(spec, dict) or not isinstance(spec.get("task"), str) or not spec["task"]:
        raise CorruptFile(place, "a log of Inspect", "it has no 'eval' with the name of its task", do=GIVE)
    left: Counter[str] = Counter()
    marks: set[str] = set()
    made: dict[tuple[str, int], Imported] = {}
    for where, row in samples:
        one = _sample(place, where, row, (cluster, group), left, marks)
        if made.setdefault((one.sample, one.epoch), one) is not one:
            raise CorruptFile(place, "a log with each sample once", f"{where} has sample '{one.sample}', epoch {one.epoch} a second time")
    if not made:
        raise CorruptFile(place, "a log with samples", "it has none", do="Run Inspect without --no-log-samples.")
    notes = [f"{count} values of {name} are no numbers and were not taken over" for name, count in sorted(left.items())]
    if header.get("status") not in ("success", None):
        notes.append(f"the log's status is {header['status']}: it may not hold every sample")
    names = {name for one in made.values() for name in one.values}
    packages = spec.get("packages")
    return Log(
        FORM, spec["task"], str(spec.get("model") or ""), hashlib.sha256(content).hexdigest(), tuple(as_truths(list(made.values()))),
        {name: HIGHER if name in marks else DIRECTIONS.get(name, "") for name in names}, str(spec.get("created") or ""),
        str(packages.get("inspect_ai", "")) if isinstance(packages, dict) else "", tuple(notes),
    )  # fmt: skip


# --- the file ---------------------------------------------------------------------------------------------------

Rows = Iterator[tuple[str, dict[str, Any]]]


def _document(place: Path, content: bytes) -> tuple[dict[str, Any], Rows]:
    found = _json(place, "the file", content)
    rows = found.get("samples") or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CorruptFile(place, "a log of Inspect", "its samples are no list of objects", do=GIVE)
    return found, ((f"sample {number_}", row) for number_, row in enumerate(rows, start=1))


def _archive(place: Path, content: bytes) -> tuple[dict[str, Any], Rows]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CorruptFile(place, "a zip", str(error) or "it is none", do=GIVE) from None
    members = archive.infolist()
    if len(members) > MOST_MEMBERS or sum(one.file_size for one in members) > LARGEST:
        raise CorruptFile(place, f"at most {MOST_MEMBERS:,} members and {LARGEST:,} bytes", "it unpacks to more", do=GIVE)
    newest: dict[str, zipfile.ZipInfo] = {}
    for one in members:  # a log that was edited has its header twice, and the last one counts
        path = PurePosixPath(one.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise CorruptFile(place, "members inside the archive", f"'{one.filename[:80]}' leads out of it", do=GIVE)
        newest[one.filename] = one
    first = next((newest[name] for name in ("header.json", "_journal/start.json") if name in newest), None)
    if first is None:
        raise CorruptFile(place, "a log of Inspect", "it has neither header.json nor _journal/start.json", do=GIVE)
    rows = [one for name, one in sorted(newest.items()) if name.startswith("samples/") and name.endswith(".json")]
    unpacked = lambda one: _json(place, one.filename, _unpacked(place, archive, content, one))  # noqa: E731
    return unpacked(first), ((one.filename, unpacked(one)) for one in rows)


def _unpacked(place: Path, archive: zipfile.ZipFile, content: bytes, one: zipfile.ZipInfo) -> bytes:
    """A member's bytes, of the size and checksum that the archive says."""
    try:
        if one.compress_type == ZSTD:
            found = _zstd(content, one)
        else:
            with archive.open(one) as stream:
                found = stream.read(one.file_size + 1)
    except (zipfile.BadZipFile, EOFError, zlib.error, OSError, pa.ArrowException, struct.error, ValueError, RuntimeError) as error:
        raise CorruptFile(place, "a whole zip", f"member '{one.filename[:80]}' cannot be unpacked ({error})", do=GIVE) from None
    if len(found) != one.file_size or zlib.crc32(found) != one.CRC:
        raise CorruptFile(place, "a whole zip", f"member '{one.filename[:80]}' is not what the archive says of it", do=GIVE)
    return found


def _zstd(content: bytes, one: zipfile.ZipInfo) -> bytes:
    """Python reads this compression from 3.14 on. At most as many bytes as the archive says are unpacked."""
    mark, name, extra = _LOCAL.unpack_from(content, one.header_offset)
    if mark != b"PK\x03\x04":
        raise ValueError("no member begins where the archive says")
    start = one.header_offset + 30 + name + extra
    packed = pa.BufferReader(content[start : start + one.compress_size])
    with pa.CompressedInputStream(packed, "zstd") as stream:
        return stream.read(one.file_size + 1)


def _json(place: Path, where: str, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:  # also a whole number of thousands of digits
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise CorruptFile(place, "a log of Inspect", f"{where} is no JSON{line}", do=GIVE) from None
    if not isinstance(found, dict):
        raise CorruptFile(place, "a log of Inspect", f"{where} is no JSON object", do=GIVE)
    return found


# --- a sample ---------------------------------------------------------------------------------------------------


def _sample(
    place: Path, where: str, row: Mapping[str, Any], fields: tuple[str, str], left: Counter[str], marks: set[str]
) -> Imported:  # fmt: skip
    """A sample; ``left`` counts values that are no numbers, ``marks`` gathers scores that say right or wrong."""
    name, epoch = row.get("id"), row.get("epoch", 1)
    if not isinstance(name, str | int) or isinstance(name, bool) or name == "" or type(epoch) is not int or epoch < 1:
        raise CorruptFile(place, "samples with an id and an epoch", f"{where} has {name!r} and {epoch!r}", do=GIVE)
    values, reasons = _values(row, left, marks)
    why = "" if values else "an error stopped it" if row.get("error") else next(iter(reasons), "the log has no score for it")
    facts, here = row.get("metadata") or {}, f"the metadata of {where} in '{place.name}'"
    asked = asked_digest(_text(row.get("input")), _text(row.get("target")), row.get("choices") or [])
    return Imported(
        f"{name:06d}" if isinstance(name, int) else name, epoch - 1, values, asked, why,
        *(label(facts, field, here) for field in fields),
    )  # fmt: skip


def _values(row: Mapping[str, Any], left: Counter[str], marks: set[str]) -> tuple[dict[str, Any], list[str]]:
    """The numbers of a sample's scores by scorer (``scorer.key`` of a score with several), and why others are none."""
    scores = row.get("scores") or {}
    values: dict[str, Any] = {}
    reasons: list[str] = []
    if row.get("error") or not isinstance(scores, Mapping):
        return values, reasons
    for scorer, score in scores.items():
        value = score.get("value") if isinstance(score, Mapping) else score
        for name, one in _named(str(scorer), value):
            if one == NO_ANSWER or (isinstance(one, float) and number(one) is None):
                reasons.append("no answer could be read")
            elif isinstance(one, str) and one in LETTERS:
                values[name] = LETTERS[one]
                marks.add(name)
            elif (found := number(one)) is not None:
                values[name] = found
            else:
                left[name] += 1
    return values, reasons


def _named(scorer: str, value: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f"{scorer}.{name}", one) for name, one in value.items()]
    if isinstance(value, list):
        return [(f"{scorer}.{place}", one) for place, one in enumerate(value)]
    return [(scorer, value)]


def _text(value: Any) -> Any:
    """An input or target without what differs from run to run."""
    if isinstance(value, list):
        return [{"role": one.get("role"), "content": _content(one.get("content"))} if isinstance(one, Mapping) else one for one in value]
    return value


def _content(content: Any) -> Any:
    """A message's content: text, or parts, of which only kind and text are compared."""
    if isinstance(content, list):
        keep: Callable[[Any], Any] = lambda part: {name: part[name] for name in sorted(part) if name not in ("id", "internal")}  # noqa: E731
        return [keep(part) if isinstance(part, Mapping) else part for part in content]
    return content
