"""What is signed: an in-toto statement of the bundle's entries, in a DSSE envelope.

The statement (in-toto Statement v1) names every entry with its sha256, and every model, as subjects. The envelope (DSSE v1) carries the
statement in base64 with signatures over its pre-authentication encoding, ``DSSEv1 <len> <type> <len> <body>``. Ed25519 signatures are
determined by key and message, so a signed bundle has one form too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from workbench.core.errors import CorruptFile
from workbench.core.spec import canonical_json
from workbench.reports.evidence.keys import PrivateKey, PublicKey

NAME, ENVELOPE, SIGNER = "statement.json", "attestation.dsse.json", "signer.pem"
UNSIGNED = (NAME, ENVELOPE)
"""The entries a statement cannot name: itself, and the envelope around it."""
STATEMENT_TYPE, PREDICATE_TYPE = "https://in-toto.io/Statement/v1", "urn:assay-workbench:evidence-bundle:1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def statement(entries: Mapping[str, bytes], models: Mapping[str, str], predicate: Mapping[str, Any]) -> str:
    """The statement over ``entries``, ``models`` (sha256 by name) and what is said of them."""
    files = [_subject(name, hashlib.sha256(entries[name]).hexdigest()) for name in sorted(entries) if name not in UNSIGNED]
    weights = [_subject(f"model:{name}", digest) for name, digest in sorted(models.items())]
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": [*files, *weights], "predicateType": PREDICATE_TYPE, "predicate": dict(predicate)}
    )


def _subject(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def digests_in(text: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The sha256 of each subject by name, and the predicate. Raises CorruptFile for what is no statement of ours."""
    try:
        whole = json.loads(text)
        if whole["_type"] != STATEMENT_TYPE or whole["predicateType"] != PREDICATE_TYPE:
            raise CorruptFile(NAME, f"an in-toto statement of {PREDICATE_TYPE}", f"it is of {str(whole['predicateType'])[:80]}")
        found = {str(one["name"]): str(one["digest"]["sha256"]) for one in whole["subject"]}
        if len(found) != len(whole["subject"]):
            raise CorruptFile(NAME, "a statement that names each subject once", "one is named twice")
        return found, dict(whole["predicate"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFile(NAME, "an in-toto statement", f"it is not ({type(error).__name__})") from None


def encoded(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """DSSE's pre-authentication encoding of a payload: what a signature is over."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def envelope(text: str, key: PrivateKey) -> str:
    """The statement ``text`` signed by ``key``, as canonical JSON."""
    payload = text.encode()
    signed = {"keyid": key.public().fingerprint, "sig": base64.b64encode(key.sign(encoded(payload))).decode()}
    return canonical_json({"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signed]})


def payload_of(text: str) -> bytes:
    """The statement inside an envelope. Raises CorruptFile."""
    try:
        whole = json.loads(text)
        if whole["payloadType"] != PAYLOAD_TYPE:
            raise CorruptFile(ENVELOPE, f"an envelope of {PAYLOAD_TYPE}", f"its payload is {str(whole['payloadType'])[:80]}")
        return base64.b64decode(whole["payload"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise CorruptFile(ENVELOPE, "a DSSE envelope", f"it is not ({type(error).__name__})") from None


def keys_of(text: str) -> list[str]:
    """The fingerprints an envelope says it is signed by; none for what is no envelope."""
    try:
        return [str(one["keyid"]) for one in json.loads(text)["signatures"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def signed_by(text: str, key: PublicKey) -> bool:
    """Whether an envelope carries a signature of ``key`` over its payload, and is written in its one form.

    The form counts, since base64 of one signature can be spelt in several ways and JSON in many.
    """
    try:
        whole, payload = json.loads(text), payload_of(text)
        if set(whole) != {"payloadType", "payload", "signatures"} or text != canonical_json(whole):
            return False
        if base64.b64encode(payload).decode() != whole["payload"]:
            return False
        for one in whole["signatures"]:
            raw = base64.b64decode(one["sig"], validate=True)
            same_form = set(one) == {"keyid", "sig"} and base64.b64encode(raw).decode() == one["sig"]
            if one["keyid"] == key.fingerprint and same_form and key.verifies(raw, encoded(payload)):
                return len(whole["signatures"]) == 1
    except (ValueError, KeyError, TypeError, RecursionError, CorruptFile):
        return False
    return False
