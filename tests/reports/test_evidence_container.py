"""The container refuses what no bundle is: names that leave the folder, entries given twice, what unfolds, and records that are hidden."""

from __future__ import annotations

import io
import struct
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reports.evidence import bundle, evidence, sample
from workbench.core.errors import BadValue, CorruptFile
from workbench.reports.evidence import samples
from workbench.reports.evidence.container import MOST_LETTERS, Fault, pack, unpack
from workbench.reports.evidence.samples import from_parquet, to_parquet

SLIPS = (
    "../evil",
    "/etc/passwd",
    "a/../../b",
    "a\\b",
    "C:evil",
    "a//b",
    "a/",
    ".hidden",
    "a/.b",
    "",
    "a\0b",
    "ü",
    "a b",
    "x" * (MOST_LETTERS + 1),
)


@pytest.mark.parametrize("name", SLIPS)
def test_a_name_that_is_no_plain_path_is_refused_on_both_sides(name: str) -> None:
    with pytest.raises(BadValue, match="an entry's name"):
        pack({name: b"x"})
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        info = zipfile.ZipInfo("a", (1980, 1, 1, 0, 0, 0))
        info.filename = name  # past what zipfile would put right
        out.writestr(info, b"x")
    entries, faults = unpack(content.getvalue())
    assert entries == {}
    assert faults


def test_an_entry_given_twice_is_refused() -> None:
    once = pack({"a": b"one"})
    local = once[: once.index(b"PK\x01\x02")]
    entries, faults = unpack(local + local + once[len(local) :])
    assert (entries, [str(f) for f in faults]) == ({"a": b"one"}, ["a: it is there twice"])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        out.writestr(zipfile.ZipInfo("a", (1980, 1, 1, 0, 0, 0)), b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            out.writestr(zipfile.ZipInfo("a", (1980, 1, 1, 0, 0, 0)), b"two")
    assert "it is there twice" in str(unpack(content.getvalue())[1][0])


def test_a_zip_bomb_is_refused_before_anything_is_unfolded() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(zipfile.ZipInfo("plan.json", (1980, 1, 1, 0, 0, 0)), bytes(20_000_000), compress_type=zipfile.ZIP_DEFLATED)
    assert len(content.getvalue()) < 30_000
    entries, (fault,) = unpack(content.getvalue())
    assert entries == {}
    assert "'plan.json' is compressed" in str(fault)
    assert "for 20,000,000" in str(fault)


def test_a_table_that_would_unfold_is_refused_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    names = ("sample", "epoch", "cluster", "group", "unscored", "apart", "values", "facts", "of")
    pq.write_table(pa.table({name: pa.array(["x"]).take(pa.array([0] * 200_000)) for name in names}), out, compression="zstd")
    assert len(out.getvalue()) < 20_000
    monkeypatch.setattr(samples, "MOST_ROWS", 100_000)
    with pytest.raises(CorruptFile, match="it says 200,000"):
        from_parquet(out.getvalue(), "samples/x.parquet")


def test_entries_over_each_other_and_bytes_between_them_are_refused() -> None:
    whole = pack({"a": b"one", "b": b"two"})
    second = whole.index(b"PK\x03\x04", 4)
    between = whole[:second] + b"hidden" + whole[second:]
    assert f"after 'a' (byte {second:,}) stands neither an entry nor the directory" in str(unpack(between)[1][0])
    # a directory that points at the first entry twice, as bombs of overlapping entries do
    place = whole.rindex(b"PK\x01\x02")
    overlapping = whole[: place + 42] + struct.pack("<I", 0) + whole[place + 46 :]
    assert "the record of 'b'" in str(unpack(overlapping)[1][0])
    commented = whole[:-2] + struct.pack("<H", 3) + b"abc"
    assert unpack(commented)[1]
    assert "no evidence bundle" in str(unpack(b"not a zip")[1][0])
    assert unpack(b"")[1]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}(/[a-z]{1,6}\.json)?", fullmatch=True), st.binary(max_size=60), min_size=1, max_size=6))
def test_any_entries_come_back_and_are_what_zipfile_reads(entries: dict[str, bytes]) -> None:
    whole = pack(entries)
    assert unpack(whole) == (dict(sorted(entries.items())), [])
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == entries


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_a_fault_and_never_a_crash(data: bytes) -> None:
    assert unpack(data)[1]
    assert unpack(b"PK\x03\x04" + data)[1]
    with pytest.raises(CorruptFile):
        from_parquet(data, "samples/x.parquet")


def test_what_is_printed_of_a_fault_holds_no_control_characters() -> None:
    assert str(Fault("sample a\x1b[31m", "b\u202e\nc")) == "sample a\\u001b[31m: b\\u202e\\u000ac"


def test_samples_come_back_in_every_number_and_are_told_apart_by_all_they_hold() -> None:
    rows = [sample(number, number > 2, "a") for number in range(6)]
    odd = {**rows[0].record, "values": {"text": "=1+1\n<b>\u202e", "x": [0.1 + 0.2, 5e-324, None, True], "n": {"a": -0.0}}}
    rows.append(samples.Row(odd, "f"))
    found = from_parquet(to_parquet(rows), "x")
    assert found == rows
    assert [row.digest() for row in found] == [row.digest() for row in rows]
    assert to_parquet(found) == to_parquet(rows)
    assert len({row.digest() for row in rows}) == len(rows)
    assert bundle(evidence()) == bundle(evidence())
    out = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), out)
    with pytest.raises(CorruptFile, match="its columns are"):
        from_parquet(out.getvalue(), "samples/x.parquet")
