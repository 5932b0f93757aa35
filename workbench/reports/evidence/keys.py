"""Ed25519 keys: made, kept, named by fingerprint, and the list of those a user trusts.

A key is two files in the user's folder (``WORKBENCH_KEYS``, default ``~/.config/assay-workbench/keys``): ``NAME.key`` (PKCS 8 PEM, mode
0600, refused when others may read it) and ``NAME.pub`` (PEM). Its fingerprint is the sha256 of the public key's DER form, which
``openssl pkey -pubin -outform DER -in NAME.pub | sha256sum`` prints too. ``trusted`` in that folder names the signers whose bundles are
believed: a fingerprint and words a line.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import AssayError, BadValue, CorruptFile, MissingExtra, MissingFile, StoreError, UnknownName

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
except ImportError:  # the extra is not installed: what needs it says so when it is asked
    InvalidSignature, serialization, ed25519 = Exception, None, None

FOLDER, TRUSTED = "WORKBENCH_KEYS", "trusted"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


def _library() -> tuple[Any, Any]:
    if ed25519 is None:
        raise MissingExtra("cryptography", "evidence", "Signing and checking signatures")
    return ed25519, serialization


@dataclass(frozen=True)
class PublicKey:
    """A public key by its PEM text."""

    pem: str
    fingerprint: str
    _key: Any

    @classmethod
    def parse(cls, text: str, name: str) -> PublicKey:
        """The key of a PEM text. Raises CorruptFile, naming the file, for anything but one Ed25519 public key."""
        curve, forms = _library()
        try:
            key = forms.load_pem_public_key(text.encode())
        except (ValueError, TypeError, AssertionError):
            raise CorruptFile(name, "a public key in PEM form", "it is not", do="`workbench keys new` writes one as NAME.pub.") from None
        if not isinstance(key, curve.Ed25519PublicKey):
            raise CorruptFile(name, "an Ed25519 public key", "it is a key of another kind")
        return _public(key)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` is this key's over ``message``."""
        try:
            self._key.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A private key; it has no text form here, so it cannot be written anywhere but by ``new``."""

    name: str
    _key: Any

    def public(self) -> PublicKey:
        return _public(self._key.public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature over ``message``: 64 bytes, the same whenever it is made again."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"PrivateKey({self.name!r})"


def _public(key: Any) -> PublicKey:
    _, forms = _library()
    der = key.public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo).decode()
    return PublicKey(pem, f"sha256:{hashlib.sha256(der).hexdigest()}", key)


def folder(given: str | Path | None = None) -> Path:
    """The folder of the user's keys; it need not be there."""
    if given is not None:
        return Path(given)
    if named := os.environ.get(FOLDER):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "assay-workbench" / "keys"


def new(name: str, place: Path) -> PublicKey:
    """Make a key pair in ``place`` and return its public part. Nothing is written over."""
    curve, forms = _library()
    if not _NAME.fullmatch(name):
        raise BadValue("the key's name", name, "letters, digits, - and _, at most 64")
    if (place / f"{name}.key").exists() or (place / f"{name}.pub").exists():
        raise BadValue(
            "the key's name", name, "one that is not taken", do="A key is never written over: what it signed must stay checkable."
        )
    key = curve.Ed25519PrivateKey.generate()
    text = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(place / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(text)
        (place / f"{name}.pub").write_text(_public(key.public_key()).pem, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"The key could not be written to '{place}'", error.strerror or str(error)) from error
    return _public(key.public_key())


def load(name: str, place: Path) -> PrivateKey:
    """The private key ``name`` of a folder, or in the file of that path. Raises UnknownName, CorruptFile, and AssayError where others
    may read it."""
    curve, forms = _library()
    file = Path(name) if "/" in name or name.endswith((".key", ".pem")) else place / f"{name}.key"
    if not file.is_file():
        if file.parent != place:
            raise MissingFile(file, "private key")
        raise UnknownName("key", name, names(place), hint="`workbench keys new NAME` makes one.")
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise AssayError(f"The private key '{file}' can be read by others, so what it signs proves nothing. Run `chmod 600 '{file}'`.")
    try:
        key = forms.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise CorruptFile(file, "a private key in PEM form without a password", "it is not") from None
    if not isinstance(key, curve.Ed25519PrivateKey):
        raise CorruptFile(file, "an Ed25519 private key", "it is a key of another kind")
    return PrivateKey(file.stem, key)


def names(place: Path) -> list[str]:
    """The names of the keys in a folder."""
    return sorted(file.stem for file in place.glob("*.key"))


def read_public(file: str | Path) -> PublicKey:
    """The public key in a file. Raises MissingFile and CorruptFile."""
    path = Path(file)
    if not path.is_file():
        raise MissingFile(path, "public key", do="`workbench keys list` shows where yours lie.")
    return PublicKey.parse(path.read_text(encoding="utf-8", errors="replace"), str(path))


# --- trust --------------------------------------------------------------------------------------------------


def trusted(place: Path) -> dict[str, str]:
    """The fingerprints that are believed, with their words. Raises CorruptFile for a line that is none."""
    file = place / TRUSTED
    out: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.is_file() else (), 1):
        mark, _, words = line.strip().partition(" ")
        if not mark or mark.startswith("#"):
            continue
        if not _FINGERPRINT.fullmatch(mark):
            raise CorruptFile(file, "lines of a fingerprint and words", f"line {number} begins with {mark[:40]!r}")
        out[mark] = words.strip()
    return out


def trust(mark: str, words: str, place: Path) -> None:
    """Believe the signer with this fingerprint from now on; once is enough."""
    if not _FINGERPRINT.fullmatch(mark):
        raise BadValue("the fingerprint", mark, "sha256: and 64 hexadecimal digits")
    known: Mapping[str, str] = trusted(place)
    if mark in known:
        return
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (place / TRUSTED).open("a", encoding="utf-8") as out:
            out.write(f"{mark} {' '.join(words.split())}\n")
    except OSError as error:
        raise StoreError(f"The list of trusted keys in '{place}' could not be written", error.strerror or str(error)) from error
