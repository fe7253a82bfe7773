"""Trusted documents: those that a client's build wrote down, asked for by their SHA-256.

The file is a JSON object, as build tools write it: SHA-256 in hexadecimal (with or without
``sha256:`` before it) to the document's text. A server may be told to execute nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from domain.errors import InvalidInput, NotFound, Unavailable

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
PREFIX: Final = "sha256:"

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class NamesDocument(Protocol):
    """What asks for a document: by its text, by its hash, or by both."""

    @property
    def query(self) -> str | None:
        """The document."""

    @property
    def document_sha256(self) -> str | None:
        """Its SHA-256 in hexadecimal."""


class TrustedDocuments:
    """Documents by their SHA-256, in hexadecimal."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    @classmethod
    def of(cls, path: Path | None) -> TrustedDocuments:
        """Return the documents in the file at `path`; without one there are none.

        Raises
        ------
        HeddleError
            ``documents.unreadable`` where the file is no such file, or a hash is not its text's
        """
        if path is None:
            return cls({})
        try:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise ValueError(f"it takes more than {FILE_BYTES_MAX} bytes")
            given = orjson.loads(path.read_bytes())
            if not isinstance(given, dict):
                raise ValueError("it is no JSON object of hash and document")
            return cls({_checked(name, text): text for name, text in given.items()})
        except (OSError, ValueError, InvalidInput) as error:
            raise Unavailable(
                "documents.unreadable",
                f"the trusted documents in {path} cannot be used: {error}",
                hint='write {"<sha256>": "<document>", …}',
                value=str(path),
            ) from error

    def find(self, request: NamesDocument, otherwise: Callable[[str], str | None]) -> str:
        """Return the document that `request` means.

        Parameters
        ----------
        otherwise : finds a document that was sent in full before; not asked where there is a file

        Raises
        ------
        HeddleError
            ``document.unknown``, or ``document.not_trusted``
        """
        wanted = request.document_sha256
        if wanted is None and request.query is not None:
            wanted = hashlib.sha256(request.query.encode()).hexdigest()
        assert wanted is not None, "a request names its document"
        found = self._sources.get(wanted)
        if found is None and not self._sources:
            found = otherwise(wanted)
        if found is not None:
            return found
        if request.query is not None:
            raise InvalidInput(
                "document.not_trusted",
                "this server executes only documents that were registered with it",
                hint="register the document when the client is built",
                value=wanted,
            )
        raise NotFound(
            "document.unknown",
            "PersistedQueryNotFound",  # the words that clients of persisted queries look for
            hint="send the document itself once, or register it with the server",
            value=wanted,
        )


def hash_of(document_id: object, extensions: Mapping[str, Any] | None) -> str | None:
    """Return the SHA-256 by which a request names its document; None where it names none.

    Parameters
    ----------
    document_id : the request's ``documentId``, ``sha256:`` and the hash
    extensions : with ``persistedQuery: {"version": 1, "sha256Hash": …}``

    Raises
    ------
    InvalidInput
        ``document.malformed_id``
    """
    persisted = (extensions or {}).get("persistedQuery")
    if document_id is None and persisted is None:
        return None
    given = document_id
    if given is None:
        given = persisted.get("sha256Hash") if isinstance(persisted, dict) else persisted
    text = given.removeprefix(PREFIX).lower() if isinstance(given, str) else ""
    if not _SHA256.fullmatch(text):
        raise InvalidInput(
            "document.malformed_id",
            f"{given!r:.80} is no document id",
            hint="documentId: sha256:<64 hexadecimal digits>, or "
            'extensions: {"persistedQuery": {"version": 1, "sha256Hash": "<64 digits>"}}',
        )
    return text


def check_hash(source: str, sha256: str) -> None:
    """Raise `InvalidInput` (``document.hash_mismatch``) unless `sha256` is that of `source`."""
    if hashlib.sha256(source.encode()).hexdigest() != sha256:
        raise InvalidInput(
            "document.hash_mismatch",
            "the document's SHA-256 is not the one given with it",
            hint="hash the UTF-8 bytes of the document as it is sent",
            value=sha256,
        )


def _checked(name: str, text: object) -> str:
    """Return the hash `name`, if `text` has it."""
    if not isinstance(text, str):
        raise ValueError(f"{name[:80]!r} names no text")
    sha256 = name.removeprefix(PREFIX).lower()
    check_hash(text, sha256)
    return sha256
