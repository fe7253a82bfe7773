"""Signed notes: texts with signatures under them, the keys, and what a witness adds.

References
----------
C2SP signed-note, tlog-cosignature; RFC 8032 (2017), Ed25519.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from domain.errors import InvalidInput

NOTE_BYTES_MAX: Final = 256 * 1024
SIGNATURES_MAX: Final = 64
KEY_ID_BYTES: Final = 4
KEY_BYTES: Final = 32
KEY_NAME_LENGTH_MAX: Final = 255
TIME_S_MAX: Final = 2**63 - 1

_SIGNATURE_BYTES: Final = 64
_MARK: Final = "\u2014 "
_PRIVATE: Final = "PRIVATE+KEY+"


class SignatureKind(IntEnum):
    """The signature types that are checked here (signed-note, "Signature types")."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name: whom a verifier trusts."""

    name: str
    kind: SignatureKind
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that the verifier key string `text` (a vkey) describes.

        Raises
        ------
        InvalidInput
            ``key.malformed``
        """
        name, kind, public, key_id = _parse_key(text.strip())
        key = cls(name, kind, public)
        if key.key_id.hex() != key_id:
            raise _malformed_key(f"key id {key_id} should be {key.key_id.hex()}")
        return key

    @property
    def key_id(self) -> bytes:
        """The first four bytes of the hash over name, kind and key."""
        content = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(content).digest()[:KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The verifier key string."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(bytes([self.kind]) + self.public)}"

    def check(self, text: str, signature: Signature) -> int | None:
        """Return when `signature` of `text` was made (s since 1970), None where it does not say.

        Raises
        ------
        InvalidInput
            ``note.signature_bad``
        """
        content, raw, time_s = text.encode(), signature.value, None
        if self.kind is SignatureKind.COSIGNATURE:
            if len(raw) != 8 + _SIGNATURE_BYTES:
                raise _bad(self)
            (time_s,) = struct.unpack(">Q", raw[:8])
            if time_s > TIME_S_MAX:
                raise _bad(self)
            content, raw = _cosigned(text, time_s), raw[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(raw, content)
        except (InvalidSignature, ValueError) as error:
            raise _bad(self) from error
        return time_s


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key under a name. Its text, which `repr` leaves out, is a secret."""

    name: str
    kind: SignatureKind
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, name: str, kind: SignatureKind = SignatureKind.ED25519) -> Self:
        """Return a fresh key for `name`."""
        check_key_name(name)
        return cls(name, kind, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the key that `text` holds, written as `SigningKey.text` writes it.

        Raises
        ------
        InvalidInput
            ``key.malformed``; the message repeats nothing of the secret
        """
        text = text.strip()
        if not text.startswith(_PRIVATE):
            raise _malformed_key(f"a signing key starts with {_PRIVATE}")
        name, kind, seed, key_id = _parse_key(text.removeprefix(_PRIVATE))
        key = cls(name, kind, seed)
        if key.verifier.key_id.hex() != key_id:
            raise _malformed_key(f"key id {key_id} does not belong to the key")
        return key

    @property
    def text(self) -> str:
        """The key as one line (as ``golang.org/x/mod/sumdb/note`` writes it). A secret."""
        encoded = _base64(bytes([self.kind]) + self.seed)
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{encoded}"

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.kind, self._private().public_key().public_bytes_raw())

    def sign(self, text: str, *, time_s: int = 0) -> Signature:
        """Return the signature of `text`; a witness's says `time_s`, seconds since 1970."""
        if self.kind is SignatureKind.COSIGNATURE:
            value = struct.pack(">Q", time_s) + self._private().sign(_cosigned(text, time_s))
        else:
            value = self._private().sign(text.encode())
        return Signature(self.name, self.verifier.key_id, value)

    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line."""

    name: str
    key_id: bytes
    value: bytes

    @property
    def line(self) -> str:
        """The line with its newline."""
        return f"{_MARK}{self.name} {_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that is good. `time_s`: when a witness saw it, seconds since 1970."""

    key: VerifierKey
    time_s: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends in a newline, and its signatures, good or not."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, written: str | bytes) -> Self:
        """Return the note that `written` is. Nothing is verified yet.

        Raises
        ------
        InvalidInput
            ``note.malformed``, ``note.too_large``
        """
        raw = written.encode(errors="surrogatepass") if isinstance(written, str) else written
        if len(raw) > NOTE_BYTES_MAX:
            raise _too_large(len(raw), NOTE_BYTES_MAX, "bytes")
        try:
            content = raw.decode()
        except UnicodeDecodeError as error:
            raise _malformed("it is not UTF-8") from error
        if any(character < " " and character != "\n" for character in content):
            raise _malformed("it holds a control character")
        text, separator, signatures = content.rpartition("\n\n")
        if not separator or not signatures.endswith("\n"):
            raise _malformed("no empty line with signatures after it")
        lines = signatures[:-1].split("\n")
        if len(lines) > SIGNATURES_MAX:
            raise _too_large(len(lines), SIGNATURES_MAX, "signatures")
        return cls(text + "\n", tuple(parse_signature(line) for line in lines))

    @property
    def written(self) -> str:
        """The note as it is sent."""
        return self.text + "\n" + "".join(signature.line for signature in self.signatures)

    def verify(self, keys: Sequence[VerifierKey]) -> tuple[Verified, ...]:
        """Return the good signatures by `keys`; those of other keys are ignored.

        Raises
        ------
        InvalidInput
            ``note.signature_bad``: a signature by one of `keys` does not verify;
            ``note.unsigned``: none of them signed
        """
        known = {(key.name, key.key_id): key for key in keys}
        good = []
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is not None:
                good.append(Verified(key, key.check(self.text, signature)))
        if not good:
            raise InvalidInput(
                "note.unsigned",
                "no signature is by a known key; signed by "
                + (", ".join(f"{s.name}+{s.key_id.hex()}" for s in self.signatures) or "nobody"),
                hint="known are " + (", ".join(key.vkey for key in keys) or "no keys"),
            )
        return tuple(good)


def sign_note(text: str, keys: Iterable[SigningKey]) -> Note:
    """Return `text`, which ends in a newline, signed by `keys`."""
    return Note(text, tuple(key.sign(text) for key in keys))


def parse_signature(line: str) -> Signature:
    """Return the signature that `line` (without its newline) is.

    Raises
    ------
    InvalidInput
        ``note.malformed``
    """
    name, space, encoded = line.removeprefix(_MARK).partition(" ")
    if not line.startswith(_MARK) or not space or not _is_key_name(name):
        raise _malformed(f"{line!r:.80} is no signature line")
    raw = _from_base64(encoded)
    if raw is None or len(raw) <= KEY_ID_BYTES:
        raise _malformed(f"{encoded!r:.80} is no signature")
    return Signature(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


def check_key_name(name: str) -> str:
    """Return `name` when a key, or a log, may be called so.

    Raises
    ------
    InvalidInput
        ``key.malformed``
    """
    if not _is_key_name(name):
        raise _malformed_key(f"{name!r:.80} cannot name a key")
    return name


def _is_key_name(name: str) -> bool:
    return (
        0 < len(name) <= KEY_NAME_LENGTH_MAX
        and "+" not in name
        and not any(character.isspace() or character < " " for character in name)
        and not any("\ud800" <= character <= "\udfff" for character in name)
    )


def _parse_key(text: str) -> tuple[str, SignatureKind, bytes, str]:
    """Return name, kind, 32 key bytes and the key id as written."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = _from_base64(encoded)
    if not _is_key_name(name) or raw is None or len(raw) != 1 + KEY_BYTES:
        raise _malformed_key("a key is written <name>+<key id>+<base64 of type and 32 bytes>")
    if raw[0] not in tuple(SignatureKind):
        raise _malformed_key(f"signature type {raw[0]:#04x} of {name} is not supported")
    return name, SignatureKind(raw[0]), raw[1:], key_id


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _from_base64(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if _base64(raw) == text else None


def _malformed(reason: str) -> InvalidInput:
    return InvalidInput("note.malformed", f"this is no signed note: {reason}")


def _too_large(count: int, limit: int, what: str) -> InvalidInput:
    return InvalidInput(
        "note.too_large",
        f"a note has at most {limit} {what}, not {count}",
        value=count,
        limit=limit,
    )


def _malformed_key(reason: str) -> InvalidInput:
    return InvalidInput("key.malformed", reason)


def _bad(key: VerifierKey) -> InvalidInput:
    return InvalidInput(
        "note.signature_bad",
        f"the signature by {key.name}+{key.key_id.hex()} does not fit the text",
        hint="the text was changed, or was never signed by this key",
        value=key.vkey,
    )
