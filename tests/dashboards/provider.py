"""A small OpenID Connect provider on this machine: the authorization code flow with a signed ID token, and lies a bad one could tell."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT, SECRET = "assay", "a-secret-of-the-test"
LIES = ("audience", "audience in our name", "nonce", "no nonce", "another key", "no signature", "issuer", "expired", "no id token")


def packed(content: bytes) -> str:
    """Base64 as tokens have it."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Provider:
    """Signs in whoever comes as ``email`` without asking, and tells one ``lie`` ('' for none)."""

    def __init__(self) -> None:
        self.email, self.lie, self.url = "ada@example.org", "", ""
        self.key, self.other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
        self.given: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url, "authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys", "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"], "code_challenge_methods_supported": ["S256"],
        }  # fmt: skip

    def keys(self) -> dict[str, Any]:
        numbers = self.key.public_key().public_numbers()
        n, e = (packed(one.to_bytes((one.bit_length() + 7) // 8, "big")) for one in (numbers.n, numbers.e))
        return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one", "n": n, "e": e}]}

    def code(self, asked: dict[str, str]) -> str:
        """A code for what the browser was sent with."""
        code = secrets.token_urlsafe(16)
        self.given[code] = asked
        return code

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """What a code is good for, once, to the client it was made for."""
        asked = self.given.pop(form.get("code", ""), None)
        challenge = packed(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        knows = authorization == "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked is None or not knows or asked.get("code_challenge") != challenge:
            return None
        answer = {"access_token": "opaque", "token_type": "Bearer", "expires_in": 60}
        if self.lie == "no id token":  # the library takes what stands here for what it has read in a token
            return {**answer, "userinfo": {"sub": self.email, "email": self.email, "email_verified": True}}
        return {**answer, "id_token": self.signed(asked.get("nonce", ""))}

    def signed(self, nonce: str) -> str:
        """The ID token, or what a lie makes of it."""
        now = int(time.time())
        claims: dict[str, Any] = {"iss": self.url, "sub": self.email, "aud": CLIENT, "exp": now + 60, "iat": now, "nonce": nonce,
                                  "email": self.email, "email_verified": True}  # fmt: skip
        claims |= {
            "audience": {"aud": "another"}, "audience in our name": {"aud": "another", "azp": CLIENT}, "nonce": {"nonce": "another"},
            "issuer": {"iss": "http://127.0.0.1:1"}, "expired": {"exp": now - 3600, "iat": now - 7200},
        }.get(self.lie, {})  # fmt: skip
        if self.lie == "no nonce":
            del claims["nonce"]
        header = {"alg": "none" if self.lie == "no signature" else "RS256", "kid": "one", "typ": "JWT"}
        text = ".".join(packed(json.dumps(part).encode()) for part in (header, claims))
        if self.lie == "no signature":
            return f"{text}."
        key = self.other if self.lie == "another key" else self.key
        return f"{text}.{packed(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@contextmanager
def provided() -> Iterator[Provider]:
    """One on a free port of this machine, until the block ends."""
    one = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            one.asked.append(asked.path)
            query = {name: values[0] for name, values in parse_qs(asked.query).items()}
            if asked.path == "/authorize":
                self.send_response(302)
                back = urlencode({"code": one.code(query), "state": query.get("state", "")})
                self.send_header("Location", f"{query['redirect_uri']}?{back}")
                self.end_headers()
                return
            self.answer({"/.well-known/openid-configuration": one.metadata(), "/keys": one.keys()}.get(asked.path))

        def do_POST(self) -> None:
            one.asked.append(self.path)
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(text).items()}
            self.answer(one.token(form, self.headers.get("Authorization", "")))

        def answer(self, found: dict[str, Any] | None) -> None:
            content = json.dumps(found if found is not None else {"error": "invalid_grant"}).encode()
            self.send_response(200 if found is not None else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is said."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        one.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield one
        finally:
            server.shutdown()
