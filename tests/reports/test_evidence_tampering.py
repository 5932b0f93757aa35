"""Whatever is done to a bundle is caught and named: by the bytes, by the hashes, by the chain or by the signature."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reports.evidence import bundle, entries_of, evidence, key_at, sealed, swapped
from workbench.core.spec import canonical_json
from workbench.reports.evidence import bundle as contents
from workbench.reports.evidence import journal, statement
from workbench.reports.evidence.container import pack, unpack
from workbench.reports.evidence.keys import PrivateKey
from workbench.reports.evidence.samples import from_parquet, to_parquet
from workbench.reports.evidence.verify import Verification, check_signature, examine

NAMES = sorted(entries_of(bundle(evidence())))
OFTEN, LONG = settings(max_examples=12, deadline=None), settings(max_examples=500, deadline=None)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return key_at(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return key_at(tmp_path_factory.mktemp("others"))


@pytest.fixture(scope="module")
def whole(key: PrivateKey) -> bytes:
    return bundle(evidence(), key)


def verified(data: bytes, key: PrivateKey) -> Verification:
    """Bytes and signature, with ``key`` the one signer that is trusted."""
    content, checks = examine(data)
    entries = content.entries if content is not None else unpack(data)[0]
    signed, signer = check_signature(entries, None, {key.public().fingerprint: "us"})
    return Verification((*checks, signed), signer)


def named(found: Verification) -> Iterator[str]:
    yield from (str(fault) for fault in found.faults)


def test_a_bundle_as_it_was_written_holds_and_has_one_form(whole: bytes, key: PrivateKey) -> None:
    found = verified(whole, key)
    assert [(one.name, one.state) for one in found.checks if one.state != "holds"] == []
    assert (found.exit_code, found.signer) == (0, key.public().fingerprint)
    assert bundle(evidence(), key) == whole
    assert pack(entries_of(whole)) == whole
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == sorted(opened.namelist())
        assert {name: opened.read(name) for name in opened.namelist()} == entries_of(whole)


def flipped(whole: bytes, key: PrivateKey, data: st.DataObject) -> None:
    """One byte changed, anywhere: broken, and where it lies in an entry, that entry is named."""
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    changed = whole[:at] + bytes([whole[at] ^ other]) + whole[at + 1 :]
    found = verified(changed, key)
    assert found.exit_code == 1
    assert found.faults
    for name, content in entries_of(whole).items():
        start = whole.index(content)
        if start <= at < start + len(content):
            assert any(name in words for words in named(found)), (name, list(named(found)))


@OFTEN
@given(st.data())
def test_one_changed_byte_anywhere_is_named(whole: bytes, key: PrivateKey, data: st.DataObject) -> None:
    flipped(whole, key, data)


@pytest.mark.full
@LONG
@given(st.data())
def test_one_changed_byte_at_any_of_many_places_is_named(whole: bytes, key: PrivateKey, data: st.DataObject) -> None:
    flipped(whole, key, data)


@OFTEN
@given(st.data())
def test_what_is_cut_off_or_put_on_is_named(whole: bytes, key: PrivateKey, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(whole) - 1))
    assert verified(whole[:at], key).exit_code == 1
    more = data.draw(st.binary(min_size=1, max_size=40))
    (check, *_) = verified(whole + more, key).checks
    assert f"{len(more)} bytes stand after its end" in str(check.faults[0])


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_that_is_left_out_is_named(whole: bytes, key: PrivateKey, name: str) -> None:
    entries = entries_of(whole)
    left = {other: content for other, content in entries.items() if other != name}
    found = verified(pack(left), key)
    assert found.exit_code == 1
    assert any(name in words for words in named(found))
    if name != statement.NAME:  # somebody who also writes a new statement cannot sign it
        again = verified(sealed(left) if name != journal.NAME else pack(left), key)
        assert again.exit_code == 1
        assert any(words.startswith((name, statement.ENVELOPE)) for words in named(again))


@OFTEN
@given(st.permutations(NAMES))
def test_another_order_is_refused(key: PrivateKey, order: list[str]) -> None:
    entries = entries_of(bundle(evidence(), key))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        for name in [*order, statement.ENVELOPE, statement.SIGNER]:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o100644 << 16
            out.writestr(info, entries[name])
    found = verified(content.getvalue(), key)
    assert found.exit_code == 1
    assert "names must be sorted" in next(named(found))


def test_zipped_again_it_is_another_container(whole: bytes, key: PrivateKey) -> None:
    for how, words in ((zipfile.ZIP_DEFLATED, "is compressed"), (zipfile.ZIP_STORED, "another version, flag or time")):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", how) as out:
            for name, entry in entries_of(whole).items():
                out.writestr(zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6)), entry, compress_type=how)
        assert words in next(named(verified(content.getvalue(), key)))


@pytest.mark.parametrize("way", ["repacked", "with a new statement", "signed by a stranger"])
def test_swapped_samples_are_named_or_the_signer_is(whole: bytes, key: PrivateKey, stranger: PrivateKey, way: str) -> None:
    entries = entries_of(whole)
    name = "samples/toy.a.parquet"
    rows = from_parquet(entries[name], name)
    first, second = rows[0].record["values"], rows[1].record["values"]
    changed = {**entries, name: to_parquet([replace(rows[0], record={**rows[0].record, "values": second}),
                                            replace(rows[1], record={**rows[1].record, "values": first}), *rows[2:]])}  # fmt: skip
    if way == "repacked":
        found = verified(pack(changed), key)
        assert {"sample toy.a/0000#0", "sample toy.a/0001#0", name} <= {fault.where for fault in found.faults}
    elif way == "with a new statement":
        found = verified(sealed(changed), key)
        assert {"sample toy.a/0000#0", "sample toy.a/0001#0", statement.ENVELOPE} <= {fault.where for fault in found.faults}
    else:  # everything made anew: only the signer tells, and the statistics (tests/lab)
        found = verified(bundle(swapped(), stranger), key)
        assert (found.exit_code, found.signer) == (2, stranger.public().fingerprint)
        assert stranger.public().fingerprint in found.checks[-1].words


@OFTEN
@given(st.data())
def test_the_chain_tells_what_was_left_out_moved_put_in_or_changed(data: st.DataObject) -> None:
    text = entries_of(bundle(evidence()))[journal.NAME].decode()
    lines = text.splitlines()
    way = data.draw(st.sampled_from(["leave out", "move", "put in", "change", "cut"]))
    at = data.draw(st.integers(0, len(lines) - 2))
    if way == "leave out":
        changed = lines[:at] + lines[at + 1 :]
    elif way == "move":
        changed = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
    elif way == "put in":
        changed = [*lines[: at + 1], lines[at], *lines[at + 1 :]]
    elif way == "change":
        entry = json.loads(lines[at])
        changed = [*lines[:at], canonical_json({**entry, "name": f"{entry['name']}!"}), *lines[at + 1 :]]
    else:
        _, faults = journal.read(text[:-1])
        assert "cut short" in str(faults[0])
        return
    _, faults = journal.read("\n".join(changed) + "\n")
    assert faults
    assert f"line {at + (2 if way == 'put in' else 1)} " in faults[0].where
    assert journal.read(text) == (journal.read(text)[0], [])


def test_a_journal_chained_anew_still_has_to_hold_every_sample(key: PrivateKey) -> None:
    entries = entries_of(bundle(evidence(), key))
    told, _ = journal.read(entries[journal.NAME].decode())
    left = [entry for entry in told if entry.get("name") != "toy.b/0003#0"]
    found = verified(sealed({**entries, journal.NAME: journal.written(left).encode()}, key), key)
    assert [str(fault) for fault in found.faults] == ["sample toy.b/0003#0: it is in the bundle, but not in the journal"]
    moved = [*told[:3], told[4], told[3], *told[5:]]
    found = verified(sealed({**entries, journal.NAME: journal.written(moved).encode()}, key), key)
    assert [fault.words for fault in found.faults] == ["it does not stand in the journal's order"]


def test_a_forged_signature_and_a_strangers_are_told_apart(whole: bytes, key: PrivateKey, stranger: PrivateKey) -> None:
    entries = entries_of(whole)
    envelope = json.loads(entries[statement.ENVELOPE])
    forged = {**envelope, "signatures": [{**envelope["signatures"][0], "sig": "A" * 86 + "=="}]}
    found = verified(pack({**entries, statement.ENVELOPE: canonical_json(forged).encode()}), key)
    assert (found.exit_code, found.checks[-1].name) == (1, "signature")
    assert "forged or changed" in str(found.checks[-1].faults[0])
    # a stranger's signature under the name of the trusted key
    theirs = json.loads(statement.envelope(entries[statement.NAME].decode(), stranger))
    theirs["signatures"][0]["keyid"] = key.public().fingerprint
    found = verified(pack({**entries, statement.ENVELOPE: canonical_json(theirs).encode()}), key)
    assert "forged or changed" in str(found.checks[-1].faults[0])
    resigned = verified(bundle(evidence(), stranger), key)
    assert (resigned.exit_code, resigned.signer) == (2, stranger.public().fingerprint)
    unsigned = verified(bundle(evidence()), key)
    assert (unsigned.exit_code, unsigned.signer) == (2, "")
    stripped = verified(pack({name: c for name, c in entries.items() if name != statement.ENVELOPE}), key)
    assert stripped.exit_code == 2, "its key is left, its signature is not"


def test_a_signature_has_one_spelling(whole: bytes, key: PrivateKey) -> None:
    entries = entries_of(whole)
    text = entries[statement.ENVELOPE].decode()
    assert statement.signed_by(text, key.public())
    sig = json.loads(text)["signatures"][0]["sig"]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = sig[:-3] + letters[letters.index(sig[-3]) ^ 1] + "=="  # the same 64 bytes: the last bits of base64 are not used
    assert not statement.signed_by(text.replace(sig, other), key.public())
    assert not statement.signed_by(text.replace(":", ": ", 1), key.public())
    twice = json.loads(text)
    twice["signatures"] *= 2
    assert not statement.signed_by(canonical_json(twice), key.public())


def test_what_an_earlier_version_said_in_the_readme_is_no_fault_and_anything_else_is(
    key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = "What a bundle was said to be before.\n"
    with monkeypatch.context() as then:
        then.setattr(contents, "WORDS", former)
        old = bundle(evidence(), key)
    assert [fault.where for one in examine(old)[1] for fault in one.faults] == [contents.README]
    monkeypatch.setattr(contents, "EARLIER", frozenset({hashlib.sha256(former.encode()).hexdigest()}))
    assert [fault for one in examine(old)[1] for fault in one.faults] == []


def test_the_readme_that_paired_by_name_alone_is_one_of_the_earlier_ones() -> None:
    now, then = contents.WORDS.split("sample: its name"), (
        ", the same for every model that was asked it (a paired difference is that of two rows of one name). cluster: what it\n"
        "shares with others, such as a speaker or a template; intervals are over clusters. group: its subgroup. unscored: why it has no"
        " score;\nsuch rows enter no rate. apart:"
    )  # fmt: skip
    former = f"{now[0]}sample: its name{then}{now[1].partition(' apart:')[2]}"
    assert hashlib.sha256(former.encode()).hexdigest() in contents.EARLIER
    assert all(word in now[1] for word in ("name and epoch", "equal digest in asked/", "where the name of their method says so"))


def test_the_private_key_is_never_in_a_bundle(tmp_path: Path) -> None:
    key = key_at(tmp_path)
    data = bundle(evidence(), key)
    text = (tmp_path / "own.key").read_text()
    assert "PRIVATE" in text
    assert b"PRIVATE" not in data
    assert text.splitlines()[1].encode() not in data
    assert statement.SIGNER in entries_of(data)
