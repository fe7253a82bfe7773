"""An OpenID provider on loopback: a real HTTP server, real keys, and whatever tokens one likes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "heddle-tests"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def rsa_key() -> rsa.RSAPrivateKey:
    """Return a new RSA key."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


@dataclass
class Provider:
    """A provider, the keys that it publishes, and how often it was asked for them.

    `answers` stands in for what a path answers: a body, or a status.
    """

    issuer: str = ""
    keys: dict[str, PrivateKey] = field(default_factory=lambda: {"first": rsa_key()})
    answers: dict[str, bytes | int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def jwks(self) -> bytes:
        """Return the public keys as a JWK set."""
        keys = []
        for key_id, key in self.keys.items():
            public = key.public_key()
            if isinstance(public, rsa.RSAPublicKey):
                told = RSAAlgorithm.to_jwk(public, as_dict=True)
            else:
                told = ECAlgorithm.to_jwk(public, as_dict=True)
            keys.append({**told, "kid": key_id, "use": "sig"})
        return json.dumps({"keys": keys}).encode()

    def token(
        self,
        claims: Mapping[str, Any] | None = None,
        *,
        key_id: str = "first",
        key: Any = None,
        algorithm: str = "RS256",
        without: tuple[str, ...] = (),
    ) -> str:
        """Return a token that is accepted, but for what is said otherwise."""
        now = int(time.time())
        told = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "jane",
            "roles": ["viewer"],
            "iat": now,
            "exp": now + 300,
            **(claims or {}),
        }
        for name in without:
            del told[name]
        signed_with = self.keys[key_id] if key is None else key
        return jwt.encode(told, signed_with, algorithm=algorithm, headers={"kid": key_id})

    def public_pem(self, key_id: str = "first") -> bytes:
        """Return a public key as anybody can fetch it."""
        public = self.keys[key_id].public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body that a path is answered with."""
        self.asked.append(path)
        told = self.answers.get(path)
        if isinstance(told, int):
            return told, b""
        if told is not None:
            return 200, told
        match path:
            case "/.well-known/openid-configuration":
                discovery = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
                return 200, json.dumps(discovery).encode()
            case "/keys":
                return 200, self.jwks()
        return 404, b""


@contextmanager
def provider() -> Iterator[Provider]:
    """Serve a provider on a free loopback port."""
    served = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = served.answer(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if status in (301, 302):
                self.send_header("location", f"{served.issuer}/keys")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.issuer = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
