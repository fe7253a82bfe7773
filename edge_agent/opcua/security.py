"""How a session is secured: policy, mode, our certificate, and the server's, which is pinned."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies, uacrypto
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
)

from domain.errors import InvalidInput

POLICIES: Final[dict[str, Any]] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
"""Basic128Rsa15 and Basic256 are left out: SHA-1 is broken (OPC 10000-7)."""
MODES: Final = ("SignAndEncrypt", "Sign")
PEM_MARK: Final = b"-----BEGIN"


@dataclass(frozen=True, kw_only=True)
class Security:
    """What a secure channel needs; the files are read again at every connection."""

    policy: str
    mode: str
    certificate: Path
    key: Path
    key_password: str | None
    server_certificate: Path

    async def apply(self, client: Client) -> None:
        """Let `client` connect in this way and to nobody but the server of that certificate.

        Raises
        ------
        InvalidInput
            ``connection.certificate``, ``connection.key``: a file is not what it was
        """
        # The server compares the URI in the certificate with the one the session tells.
        uri = application_uri(read_certificate(self.certificate))
        client.application_uri = uri or f"urn:{socket.gethostname()}:heddle:agent"
        read_certificate(self.server_certificate)
        check_key(self.key, self.key_password)
        await client.set_security(
            POLICIES[self.policy],
            _content(self.certificate),
            _content(self.key, self.key_password),
            server_certificate=_content(self.server_certificate),
            mode=ua.MessageSecurityMode[self.mode],
        )


def _content(file: Path, password: str | None = None) -> uacrypto.CertProperties:
    raw = file.read_bytes()
    extension = "pem" if PEM_MARK in raw else "der"
    return uacrypto.CertProperties(raw, extension=extension, password=password)


def read_certificate(file: Path) -> x509.Certificate:
    """Return the certificate in `file`, PEM or DER.

    Raises
    ------
    InvalidInput
        ``connection.certificate``
    """
    try:
        raw = file.read_bytes()
        if PEM_MARK in raw:
            return x509.load_pem_x509_certificate(raw)
        return x509.load_der_x509_certificate(raw)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            "connection.certificate", f"{file} is no readable certificate: {error}"
        ) from error


def check_key(file: Path, password: str | None) -> None:
    """Raise unless `file` holds a private key that `password` opens.

    Raises
    ------
    InvalidInput
        ``connection.key``
    """
    secret = None if password is None else password.encode()
    try:
        raw = file.read_bytes()
        load = load_pem_private_key if PEM_MARK in raw else load_der_private_key
        load(raw, secret)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            "connection.key", f"{file} is no readable private key: {error}"
        ) from error


def application_uri(certificate: x509.Certificate) -> str | None:
    """Return the application's URI that `certificate` names, if it names one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return str(uris[0]) if uris else None
