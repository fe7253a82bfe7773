"""Documents' files: under their hash stands what hashes to it, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from domain.documents.document import DocumentKind, ReleaseDocument
from domain.errors import CommandRejected, InvalidInput, NotFound, Unavailable
from eventlog.documents import (
    CHUNK_BYTES,
    Content,
    ContentCorrupt,
    ContentStore,
    add_document,
    content_path,
    read_document,
)
from eventlog.ledger import Ledger

NOON = datetime(2025, 4, 28, 12, tzinfo=UTC)
_buckets = itertools.count(1)


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    """An empty store: in a directory, and in a file system that fsspec reaches by a URL."""
    if request.param == "directory":
        yield ContentStore(str(tmp_path / "documents"))
        return
    bucket = f"memory://bucket-{next(_buckets)}"
    yield ContentStore(bucket)
    filesystem, root = fsspec.core.url_to_fs(bucket)
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)


def bytes_of(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(store: ContentStore, content: bytes) -> Content:
    return store.put(io.BytesIO(content))


def got(store: ContentStore, of: str) -> bytes:
    target = io.BytesIO()
    store.get(of, target)
    return target.getvalue()


def files_in(store: ContentStore) -> dict[str, bytes]:
    """Return every file below the store's URL, by its path there."""
    filesystem, root = fsspec.core.url_to_fs(store.url)
    filesystem.invalidate_cache()
    root = str(root).rstrip("/")
    found = filesystem.find(root) if filesystem.exists(root) else []
    return {str(name)[len(root) + 1 :]: filesystem.cat_file(name) for name in found}


def overwrite(store: ContentStore, path: str, content: bytes) -> None:
    """Change a file behind the store's back."""
    filesystem, root = fsspec.core.url_to_fs(store.url)
    filesystem.pipe_file(f"{str(root).rstrip('/')}/{path}", content)


# --- in and out ---------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_what_goes_in_comes_out(store: ContentStore, length: int) -> None:
    content = bytes_of(length)
    assert put(store, content) == Content(sha256(content), length)
    assert store.has(sha256(content))
    assert store.is_intact(sha256(content))
    assert got(store, sha256(content)) == content


def test_a_file_stands_under_its_hash_and_nothing_else_is_left(store: ContentStore) -> None:
    put(store, b"drawing")
    name = sha256(b"drawing")
    assert files_in(store) == {f"sha256/{name[:2]}/{name}": b"drawing"}


def test_the_same_content_is_stored_once(store: ContentStore) -> None:
    first = put(store, b"drawing")
    path = content_path(first.sha256)
    before = files_in(store)
    stamp = fsspec.core.url_to_fs(store.url)[0].modified(f"{_root(store)}/{path}")
    assert put(store, b"drawing") == first
    assert files_in(store) == before
    assert fsspec.core.url_to_fs(store.url)[0].modified(f"{_root(store)}/{path}") == stamp


def _root(store: ContentStore) -> str:
    return str(fsspec.core.url_to_fs(store.url)[1]).rstrip("/")


def test_a_source_is_stored_from_where_it_stands(store: ContentStore) -> None:
    source = io.BytesIO(b"headerbody")
    source.seek(6)
    assert store.put(source).sha256 == sha256(b"body")


def test_content_that_is_not_there_is_told(store: ContentStore) -> None:
    missing = "ab" * 32
    assert not store.has(missing)
    assert not store.is_intact(missing)
    with pytest.raises(NotFound) as refused:
        store.get(missing, io.BytesIO())
    assert (refused.value.code, refused.value.value) == ("documents.content_unknown", missing)


@pytest.mark.parametrize("name", ["", "ab", "../" * 20 + "etc/passwd", "AB" * 32, "ab" * 32 + "\n"])
def test_what_is_no_hash_names_no_content(store: ContentStore, name: str) -> None:
    for ask in (store.has, store.is_intact, lambda name: store.get(name, io.BytesIO())):
        with pytest.raises(InvalidInput) as refused:
            ask(name)
        assert refused.value.code == "sha256.malformed"


def test_content_is_saved_whole_or_not_at_all(store: ContentStore, tmp_path: Path) -> None:
    content = bytes_of(2 * CHUNK_BYTES + 7)
    put(store, content)
    target = tmp_path / "out" / "drawing.step"
    target.parent.mkdir()
    target.write_bytes(b"older")
    assert store.save(sha256(content), target).size_bytes == len(content)
    assert target.read_bytes() == content
    overwrite(store, content_path(sha256(content)), content[:-1] + b"!")
    target.write_bytes(b"older")
    with pytest.raises(ContentCorrupt):
        store.save(sha256(content), target)
    assert target.read_bytes() == b"older"
    assert [path.name for path in target.parent.iterdir()] == ["drawing.step"]


def test_a_target_that_cannot_be_written_is_told(store: ContentStore, tmp_path: Path) -> None:
    put(store, b"drawing")
    with pytest.raises(InvalidInput) as refused:
        store.save(sha256(b"drawing"), tmp_path / "nowhere" / "drawing.step")
    assert refused.value.code == "documents.target_unwritable"


# --- what must not get in -----------------------------------------------------------------


def test_a_file_of_the_largest_size_is_stored_and_one_byte_more_is_not(
    store: ContentStore,
) -> None:
    bounded = ContentStore(store.url, bytes_max=1000)
    put(bounded, bytes_of(1000))
    before = files_in(store)
    with pytest.raises(InvalidInput) as refused:
        put(bounded, bytes_of(1001))
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "documents.too_large",
        1001,
        1000,
    )
    assert files_in(store) == before


def test_content_that_is_not_what_was_announced_is_not_stored(store: ContentStore) -> None:
    with pytest.raises(InvalidInput) as refused:
        store.put(io.BytesIO(b"cut"), expected_sha256=sha256(b"whole"))
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "documents.hash_mismatch",
        sha256(b"cut"),
        sha256(b"whole"),
    )
    assert files_in(store) == {}
    assert store.put(io.BytesIO(b"whole"), expected_sha256=sha256(b"whole")).size_bytes == 5


class Unreadable(io.RawIOBase):
    """A file whose disk fails in its second chunk."""

    def __init__(self) -> None:
        self._chunks = iter([b"x" * CHUNK_BYTES])

    def read(self, _size: int = -1) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            raise OSError(5, "Input/output error") from None


def test_a_source_that_breaks_off_leaves_nothing(store: ContentStore) -> None:
    source: Any = Unreadable()
    with pytest.raises(InvalidInput) as refused:
        store.put(source)
    assert refused.value.code == "documents.source_unreadable"
    assert files_in(store) == {}


@pytest.mark.parametrize("url", ["", "nosuch://bucket", "s3://key:s3cret@bucket/documents"])
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ContentStore(url)
    assert refused.value.code == "documents.url"
    assert "s3cret" not in str(refused.value)


# --- damage -------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"drawinG", b"drawing and more"])
def test_damaged_content_is_never_taken_for_the_right_one(
    store: ContentStore, damage: bytes
) -> None:
    put(store, b"drawing")
    name = sha256(b"drawing")
    overwrite(store, content_path(name), damage)
    assert store.has(name)
    assert not store.is_intact(name)
    with pytest.raises(ContentCorrupt) as refused:
        store.get(name, io.BytesIO())
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "documents.corrupt",
        sha256(damage),
        name,
    )
    # Whoever has the original mends it.
    put(store, b"drawing")
    assert got(store, name) == b"drawing"


def test_content_that_is_read_back_differently_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ContentStore(str(tmp_path / "documents"))
    synced = os.fsync

    def forgetful(descriptor: int) -> None:
        """Sync, and lose the last byte of a file, as a failing disk does."""
        synced(descriptor)
        if os.fstat(descriptor).st_size == len(b"drawing"):
            os.truncate(descriptor, 6)

    monkeypatch.setattr(os, "fsync", forgetful)
    with pytest.raises(ContentCorrupt):
        put(store, b"drawing")
    assert files_in(store) == {}


def test_a_store_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    (tmp_path / "documents").write_bytes(b"a file, where a folder is due")
    store = ContentStore(str(tmp_path / "documents"))
    for act in (lambda: put(store, b"drawing"), lambda: store.has("ab" * 32)):
        with pytest.raises(Unavailable) as refused:
            act()
        assert refused.value.code == "documents.unavailable"


# --- many, and killed ---------------------------------------------------------------------


def test_many_writers_of_the_same_and_of_other_content_leave_each_once(
    store: ContentStore,
) -> None:
    contents = [bytes_of(300_000, seed) for seed in range(4)] * 6
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda content: put(ContentStore(store.url), content), contents))
    assert [one.sha256 for one in stored] == [sha256(content) for content in contents]
    assert files_in(store) == {content_path(sha256(one)): one for one in contents[:4]}


_KILLED_WHILE_WRITING = """
import os, signal, sys
from eventlog.documents import CHUNK_BYTES, ContentStore

class Source:
    chunks = 0
    def read(self, size):
        self.chunks += 1
        if self.chunks > 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return b"x" * CHUNK_BYTES

ContentStore(sys.argv[1]).put(Source())
"""


def test_a_writer_that_is_killed_leaves_no_half_file_under_a_hash(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path / "documents"))
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_WHILE_WRITING, store.url], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    left = files_in(store)
    assert [path.partition("/")[0] for path in left] == ["incoming"]
    content = b"x" * (3 * CHUNK_BYTES)
    assert not store.has(sha256(content))
    put(store, content)
    assert got(store, sha256(content)) == content


class Endless(io.RawIOBase):
    """A source of `chunks` chunks that holds none of them."""

    def __init__(self, chunks: int) -> None:
        self._left = chunks

    def read(self, _size: int = -1) -> bytes:
        if not self._left:
            return b""
        self._left -= 1
        return bytes(CHUNK_BYTES)


class Counted(io.RawIOBase):
    """A target that keeps nothing but the count."""

    size = 0

    def write(self, chunk: Any) -> int:
        self.size += len(chunk)
        return len(chunk)


def test_memory_is_bounded_whatever_the_size_of_a_file(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path / "documents"))
    source: Any = Endless(64)
    target: Any = Counted()
    tracemalloc.start()
    try:
        content = store.put(source)
        store.get(content.sha256, target)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert target.size == content.size_bytes == 64 * CHUNK_BYTES
    assert peak_bytes < 8 * CHUNK_BYTES


# --- released -----------------------------------------------------------------------------


RELEASE = ReleaseDocument(
    "DRW-7", "B", DocumentKind.DESIGN, "Housing", "", 0, "model/step", "HSG-100", NOON
)


async def add(ledger: Ledger, store: ContentStore, content: bytes) -> int:
    handled, _ = await add_document(
        ledger,
        store,
        io.BytesIO(content),
        RELEASE,
        actor="user:mara",
        occurred_at=NOON,
        event_id=lambda _: uuid.uuid4(),
    )
    return len(handled.events)


@pytest.mark.anyio
async def test_a_document_is_stored_and_released_once(ledger: Ledger, store: ContentStore) -> None:
    assert await add(ledger, store, b"drawing") == 1
    released = (await read_document(ledger, "DRW-7")).revisions["B"].released
    assert (released.sha256, released.size_bytes) == (sha256(b"drawing"), 7)
    assert got(store, released.sha256) == b"drawing"
    assert await add(ledger, store, b"drawing") == 0


@pytest.mark.anyio
async def test_a_released_revision_is_not_released_with_other_content(
    ledger: Ledger, store: ContentStore
) -> None:
    await add(ledger, store, b"drawing")
    with pytest.raises(CommandRejected) as refused:
        await add(ledger, store, b"redrawn")
    assert refused.value.code == "document.revision_exists"
    assert (refused.value.value, refused.value.limit) == (sha256(b"redrawn"), sha256(b"drawing"))


@pytest.mark.anyio
async def test_what_cannot_be_stored_is_not_released(ledger: Ledger, store: ContentStore) -> None:
    with pytest.raises(InvalidInput):
        await add(ledger, ContentStore(store.url, bytes_max=3), b"drawing")
    assert await ledger.head() == 0
    assert (await read_document(ledger, "DRW-7")).revisions == {}
