"""Keys are private where they must be, named by fingerprint, and believed only where the user says so."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from pathlib import Path

import pytest

from tests.reports.evidence import bundle, entries_of, evidence, key_at
from workbench.core.errors import AssayError, BadValue, CorruptFile, MissingExtra, MissingFile, UnknownName
from workbench.reports.evidence import keys, statement
from workbench.reports.evidence.verify import check_signature


def test_a_key_is_for_its_owner_alone_and_never_written_over(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "keys"
    made = keys.new("own", place)
    assert stat.S_IMODE((place / "own.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert keys.names(place) == ["own"]
    body = (place / "own.pub").read_text().splitlines()[1]
    assert made.fingerprint == f"sha256:{hashlib.sha256(base64.b64decode(body)).hexdigest()}"
    assert keys.load("own", place).public() == keys.read_public(place / "own.pub") != keys.new("other", place)
    with pytest.raises(BadValue, match="not taken"):
        keys.new("own", place)
    with pytest.raises(BadValue, match="letters, digits"):
        keys.new("../own", place)
    with pytest.raises(UnknownName, match="no key 'onw'. Did you mean 'own'"):
        keys.load("onw", place)
    (place / "own.key").chmod(0o640)
    with pytest.raises(AssayError, match="can be read by others"):
        keys.load("own", place)
    assert "PRIVATE" not in repr(keys.load(str(place / "other.key"), tmp_path))


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(CorruptFile, match="a public key in PEM form"):
        keys.read_public(tmp_path / "x.pub")
    with pytest.raises(MissingFile):
        keys.read_public(tmp_path / "none.pub")
    (tmp_path / "x.key").touch(mode=0o600)
    with pytest.raises(CorruptFile, match="a private key in PEM form"):
        keys.load("x", tmp_path)


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = entries_of(bundle(evidence(), key_at(tmp_path / "before")))
    monkeypatch.setattr(keys, "ed25519", None)
    checked, _ = check_signature(entries, None, {})
    assert (checked.state, "assay-workbench[evidence]" in checked.words) == ("not checked", True)
    with pytest.raises(MissingExtra, match=r"assay-workbench\[evidence\]"):
        keys.new("own", tmp_path)


def test_trust_is_by_fingerprint_and_a_given_key_comes_first(tmp_path: Path) -> None:
    key, other = key_at(tmp_path), key_at(tmp_path, "other")
    mark = key.public().fingerprint
    keys.trust(mark, "the  lab\n", tmp_path)
    keys.trust(mark, "again", tmp_path)
    list_of_keys = tmp_path / keys.TRUSTED
    list_of_keys.write_text(list_of_keys.read_text() + "# a remark\n\n")
    assert keys.trusted(tmp_path) == {mark: "the lab"}
    entries = entries_of(bundle(evidence(), key))
    assert check_signature(entries, None, keys.trusted(tmp_path))[0].state == "holds"
    assert check_signature(entries, key.public(), {})[0].state == "holds"
    given, _ = check_signature(entries, other.public(), keys.trusted(tmp_path))
    assert given.state == "not checked"
    assert other.public().fingerprint in given.words
    with pytest.raises(BadValue, match="64 hexadecimal digits"):
        keys.trust("sha256:ab", "", tmp_path)
    list_of_keys.write_text("nonsense words\n")
    with pytest.raises(CorruptFile, match="line 1 begins with 'nonsense'"):
        keys.trusted(tmp_path)


def test_the_folder_of_keys_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_KEYS", str(tmp_path))
    assert keys.folder() == tmp_path
    monkeypatch.delenv("WORKBENCH_KEYS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert keys.folder() == tmp_path / "config" / "assay-workbench" / "keys"


def test_the_statement_is_in_toto_in_a_dsse_envelope(tmp_path: Path) -> None:
    """The pre-authentication encoding is the one of the DSSE protocol's own example, and the envelope can be checked by hand."""
    assert statement.encoded(b"hello world", "http://example.com/HelloWorld") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    key = key_at(tmp_path)
    entries = entries_of(bundle(evidence(), key))
    said = json.loads(entries[statement.NAME])
    assert (said["_type"], said["predicateType"]) == (statement.STATEMENT_TYPE, statement.PREDICATE_TYPE)
    files = {one["name"]: one["digest"]["sha256"] for one in said["subject"]}
    assert files.pop("model:model:a") == "a" * 64
    assert files.pop("model:model:b") == "b" * 64
    assert files == {n: hashlib.sha256(c).hexdigest() for n, c in entries.items() if n not in (statement.NAME, statement.ENVELOPE)}
    assert said["predicate"]["verdicts"]["detected"] == 2
    envelope = json.loads(entries[statement.ENVELOPE])
    body = base64.b64decode(envelope["payload"])
    assert body == entries[statement.NAME]
    assert key.public().verifies(base64.b64decode(envelope["signatures"][0]["sig"]), statement.encoded(body))
