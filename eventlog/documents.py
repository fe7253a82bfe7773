"""Documents' content: files by their SHA-256, in a directory or anything that fsspec reaches.

A file stands under its hash only after every byte of it was written, read back and hashed, and
whoever reads it hashes it again. So a name is a promise of content: storing the same file twice
is storing it once, and what a disk or a hand has changed is found out by whoever wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, ClassVar, Final

from domain.documents.document import Document, ReleaseDocument, document_stream
from domain.errors import InvalidInput, NotFound, Unavailable
from domain.texts import check_sha256
from eventlog.commands import Handled, handle, load
from eventlog.file_store import FileStore
from eventlog.ledger import Ledger

CHUNK_BYTES: Final = 1024 * 1024
DOCUMENT_BYTES_MAX: Final = 2 * 1024**3


class ContentCorrupt(Unavailable):
    """Stored content that is not what its name promises (``documents.corrupt``)."""


@dataclass(frozen=True, slots=True)
class Content:
    """A file by its hash (hex) and size."""

    sha256: str
    size_bytes: int


class _DocumentFiles(FileStore):
    kind: ClassVar[str] = "documents"


class ContentStore:
    """Files by the SHA-256 of their content. Its methods block: call them in a thread.

    Memory is bounded by `CHUNK_BYTES` and the file system's own buffers, whatever a file's size.

    Parameters
    ----------
    url : a directory, or a URL that fsspec knows
    bytes_max : largest file
    """

    def __init__(self, url: str, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> None:
        self._files = _DocumentFiles(url)
        self.url = self._files.url
        self.bytes_max = bytes_max

    def put(self, source: IO[bytes], *, expected_sha256: str | None = None) -> Content:
        """Store what `source` holds from where it stands to its end, once, durably.

        Content that is there already is checked, and stored anew where it is damaged.

        Raises
        ------
        InvalidInput
            ``documents.too_large``, ``documents.hash_mismatch`` when it is not
            `expected_sha256`, ``documents.source_unreadable``, ``sha256.malformed``
        Unavailable
            ``documents.unavailable``, ``documents.corrupt`` when it is read back differently
        """
        if expected_sha256 is not None:
            check_sha256("the expected hash", expected_sha256)
        incoming = f"incoming/{uuid.uuid4().hex}.part"
        try:
            content = self._write(source, incoming)
            if expected_sha256 not in (None, content.sha256):
                raise InvalidInput(
                    "documents.hash_mismatch",
                    f"the content is {content.sha256}, not {expected_sha256}",
                    hint="was the file changed or cut on its way?",
                    value=content.sha256,
                    limit=expected_sha256,
                )
            if not self.is_intact(content.sha256):
                self._check(incoming, content.sha256)
                self._files.move(incoming, content_path(content.sha256))
            return content
        finally:
            # Moved away, or in nobody's way: the first failure is the one to tell.
            with contextlib.suppress(Unavailable):
                self._files.delete(incoming)

    def has(self, sha256: str) -> bool:
        """Return whether there is a file of that hash; whether it is intact is not looked at."""
        return self._files.find_size(content_path(sha256)) is not None

    def is_intact(self, sha256: str) -> bool:
        """Return whether the content of that hash is there and hashes to it."""
        path = content_path(sha256)
        if self._files.find_size(path) is None:
            return False
        try:
            self._check(path, sha256)
        except ContentCorrupt:
            return False
        return True

    def get(self, sha256: str, target: IO[bytes]) -> Content:
        """Write the content of that hash to `target`.

        It is known to be right once this returns; see `save` for one that never shows half.

        Raises
        ------
        InvalidInput
            ``documents.target_unwritable``, ``sha256.malformed``
        NotFound
            ``documents.content_unknown``
        Unavailable
            ``documents.corrupt``: what `target` has got is not to be used;
            ``documents.unavailable``
        """
        path = content_path(sha256)
        if self._files.find_size(path) is None:
            raise NotFound(
                "documents.content_unknown",
                f"there is no content {sha256} below {self.url}",
                hint="was it stored elsewhere? see HEDDLE_DOCUMENTS_URL",
                value=sha256,
            )
        return self._check(path, sha256, target)

    def find_size(self, sha256: str) -> int | None:
        """Return the bytes of the file of that hash, or None where there is none."""
        return self._files.find_size(content_path(sha256))

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """Yield the content of that hash, piece by piece; the last one only once all is right.

        So whoever is told beforehand how long it is never gets all of what is not what its hash
        promises.

        Raises
        ------
        Unavailable
            ``documents.corrupt``, ``documents.file_missing``, ``documents.unavailable``
        """
        path = content_path(sha256)
        hasher, held = hashlib.sha256(), b""
        with self._files.opened(path) as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                if held:
                    yield held
                held = chunk
        if hasher.hexdigest() != sha256:
            raise self._corrupt(path, hasher.hexdigest(), sha256)
        yield held

    def save(self, sha256: str, path: Path) -> Content:
        """Write the content of that hash to the local file `path`, all of it or nothing.

        Raises
        ------
        InvalidInput, NotFound, Unavailable
            as `get`
        """
        with _replacing(path) as file:
            return self.get(sha256, file)

    def _write(self, source: IO[bytes], path: str) -> Content:
        hasher, size_bytes = hashlib.sha256(), 0
        with self._files.written(path) as file:
            for chunk in _chunks(source):
                size_bytes += len(chunk)
                if size_bytes > self.bytes_max:
                    raise InvalidInput(
                        "documents.too_large",
                        f"a document has at most {self.bytes_max} bytes",
                        value=size_bytes,
                        limit=self.bytes_max,
                    )
                hasher.update(chunk)
                file.write(chunk)
        return Content(hasher.hexdigest(), size_bytes)

    def _check(self, path: str, sha256: str, target: IO[bytes] | None = None) -> Content:
        """Read the file `path`, write it to `target` and compare its hash."""
        hasher, size_bytes = hashlib.sha256(), 0
        with self._files.opened(path) as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                size_bytes += len(chunk)
                if target is not None:
                    _write_to(target, chunk)
        if hasher.hexdigest() != sha256:
            raise self._corrupt(path, hasher.hexdigest(), sha256)
        return Content(sha256, size_bytes)

    def _corrupt(self, path: str, found: str, sha256: str) -> ContentCorrupt:
        return ContentCorrupt(
            "documents.corrupt",
            f"{self._files.name(path)} holds {found}",
            hint="restore it from a backup, or add the document again from the original",
            value=found,
            limit=sha256,
        )


def content_path(sha256: str) -> str:
    """Return where the content of that hash lies below the store's URL.

    Raises
    ------
    InvalidInput
        ``sha256.malformed``
    """
    check_sha256("the content's hash", sha256)
    return f"sha256/{sha256[:2]}/{sha256}"


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            chunk = source.read(CHUNK_BYTES)
        except OSError as error:
            raise InvalidInput(
                "documents.source_unreadable", f"the file cannot be read: {error}"
            ) from error
        if not chunk:
            return
        yield chunk


def _write_to(target: IO[bytes], chunk: bytes) -> None:
    try:
        target.write(chunk)
    except OSError as error:
        raise InvalidInput(
            "documents.target_unwritable", f"what was stored cannot be written: {error}"
        ) from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that takes its place when the block ends without an error."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise InvalidInput(
            "documents.target_unwritable", f"{path} cannot be written: {error}", value=str(path)
        ) from error
    finally:
        beside.unlink(missing_ok=True)


# --- revisions ----------------------------------------------------------------------------


async def add_document(
    ledger: Ledger,
    contents: ContentStore,
    source: IO[bytes],
    command: ReleaseDocument,
    *,
    actor: str,
    occurred_at: datetime,
    event_id: Callable[[int], uuid.UUID],
) -> tuple[Handled, Content]:
    """Store what `source` holds, and then release it: what is released can be had.

    Parameters
    ----------
    command : hash and size are taken from the content

    Raises
    ------
    HeddleError
        as `ContentStore.put` and the document's `decide`
    """
    content = await asyncio.to_thread(contents.put, source)
    command = replace(command, sha256=content.sha256, size_bytes=content.size_bytes)
    handled = await handle(ledger, command, actor=actor, occurred_at=occurred_at, event_id=event_id)
    return handled, content


async def read_document(ledger: Ledger, document_id: str) -> Document:
    """Return a document with its revisions; without any nobody has released one."""
    document: Document
    document, _ = await load(ledger, document_stream(document_id))
    return document
