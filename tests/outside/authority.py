"""An OAuth issuer on loopback: its metadata, its keys, and tokens of it and of those who would be it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "https://mcp.example.com/mcp"
METADATA = "/.well-known/openid-configuration"

Answer = tuple[int, dict[str, str], bytes]


@cache
def key_pair(name: str) -> Any:  # one of cryptography's private keys
    """A key under this name; making an RSA key takes a while, so there is one."""
    return rsa.generate_private_key(65537, 2048) if name.startswith("rsa") else ec.generate_private_key(ec.SECP256R1())


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up on an answer is a case of some tests."""


class Authority:
    """Signs with the keys that it knows by name, and publishes those that a test names."""

    def __init__(self, *published: str, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.published = list(published or ("rsa", "one"))
        self.seen: list[str] = []
        self.answers: dict[str, Callable[[], Answer]] = {}
        """What is answered instead, by path."""

    def __enter__(self) -> Self:
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authority.seen.append(self.path)
                status, headers, body = authority._answer(self.path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                """Say nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _answer(self, path: str) -> Answer:
        if path in self.answers:
            return self.answers[path]()
        if path == METADATA:
            return 200, {}, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        if path == "/keys":
            return 200, {}, json.dumps({"keys": [self.jwk(name) for name in self.published]}).encode()
        return 404, {}, b"not here"

    def jwk(self, name: str) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(algorithm_of(name))
        return {**algorithm.to_jwk(key_pair(name).public_key(), as_dict=True), "kid": name, "use": "sig"}

    @staticmethod
    def now(after: int = 0) -> int:
        return int(time.time()) + after

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good token says; a change to None leaves a claim out."""
        claims = {"iss": self.url, "sub": "anna", "aud": AUDIENCE, "iat": self.now(), "exp": self.now(300)}
        claims |= {"scope": "mj:read mj:spend", "client_id": "an-agent"} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, key: str = "one", *, kid: str | None = None, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """A token signed by this key, under its own name or another."""
        return jwt.encode(
            self.claims(**changes),
            key_pair(key),
            algorithm=algorithm_of(key),
            headers={"kid": kid or key, **(header or {})},
        )

    def unsigned(self) -> str:
        return forged({"alg": "none", "kid": "rsa"}, self.claims(), b"")

    def signed_with_public_key(self) -> str:
        """HS256, with what everybody can read as the secret: a checker that trusts `alg` takes it."""
        public = key_pair("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return forged({"alg": "HS256", "kid": "rsa"}, self.claims(), public)


def algorithm_of(name: str) -> str:
    return "RS256" if name.startswith("rsa") else "ES256"


def forged(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """A token by hand: signed by HMAC, or by nothing."""
    text = f"{_part(json.dumps(header).encode())}.{_part(json.dumps(claims).encode())}"
    return f"{text}.{_part(hmac.digest(secret, text.encode(), hashlib.sha256)) if secret else ''}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
