"""Documents' files over HTTP: as they were released, or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from domain.documents.document import DocumentKind, ReleaseDocument
from eventlog.documents import CHUNK_BYTES, ContentStore, add_document, content_path
from projections.objects import ObjectProjection
from tests.api.graphql.server import START, Server, serving

pytestmark = pytest.mark.anyio

SMALL = b"%PDF-1.7 a shaft"


@pytest.fixture
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(
        database_url, projections=(ObjectProjection(),), documents_url=str(tmp_path)
    ) as running:
        yield running


async def released(
    server: Server, tmp_path: Path, content: bytes, revision: str = "B", **told: str
) -> str:
    """Store and release `content`; return its hash."""
    command = ReleaseDocument(
        "DRW-7",
        revision,
        DocumentKind.DESIGN,
        "Shaft",
        "",
        0,
        told.get("media_type", "application/pdf"),
        "PN-7",
        START,
    )
    _, stored = await add_document(
        server.ledger,
        ContentStore(str(tmp_path)),
        io.BytesIO(content),
        command,
        actor="user:mara",
        occurred_at=START,
        event_id=lambda _: server.services.new_event_id(),
    )
    await server.settle()
    return stored.sha256


async def test_a_file_comes_as_it_was_released(server: Server, tmp_path: Path) -> None:
    sha256 = await released(server, tmp_path, SMALL)
    told = await server.ask('{ documentRevision(name: "DRW-7@B") { fileUrl sha256 sizeBytes } }')
    assert told["documentRevision"] == {
        "fileUrl": f"/v1/documents/{sha256}",
        "sha256": hashlib.sha256(SMALL).hexdigest(),
        "sizeBytes": len(SMALL),
    }
    answer = await server.http.get(told["documentRevision"]["fileUrl"])
    assert (answer.status_code, answer.content) == (200, SMALL)
    headers = answer.headers
    assert headers["content-type"] == "application/pdf"
    assert headers["content-length"] == str(len(SMALL))
    assert headers["content-disposition"] == 'attachment; filename="DRW-7@B.pdf"'
    assert headers["etag"] == f'"{sha256}"'
    digest = base64.b64encode(hashlib.sha256(SMALL).digest()).decode()
    assert headers["repr-digest"] == f"sha-256=:{digest}:"
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert "private" in headers["cache-control"]


async def test_who_has_it_is_not_sent_it_again(server: Server, tmp_path: Path) -> None:
    sha256 = await released(server, tmp_path, SMALL)
    path = f"/v1/documents/{sha256}"
    head = await server.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(SMALL))
    for given in (head.headers["etag"], f'"x", W/"{sha256}"', "*"):
        again = await server.http.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content) == (304, b"")
    other = await server.http.get(path, headers={"If-None-Match": '"x"'})
    assert other.status_code == 200


async def test_a_large_file_comes_whole(server: Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"the end"
    sha256 = await released(server, tmp_path, content, media_type="model/step")
    answer = await server.http.get(f"/v1/documents/{sha256}")
    assert answer.content == content
    assert answer.headers["content-disposition"].endswith('"DRW-7@B.step"')


@pytest.mark.parametrize("size", [len(SMALL), 2 * CHUNK_BYTES + 5])
async def test_a_file_that_was_changed_never_comes_to_its_end(
    server: Server, tmp_path: Path, size: int
) -> None:
    sha256 = await released(server, tmp_path, bytes(size))
    stored = tmp_path / content_path(sha256)
    stored.write_bytes(bytes(size - 1) + b"!")
    with pytest.raises(httpx.RemoteProtocolError):
        await server.http.get(f"/v1/documents/{sha256}")


async def test_only_what_is_released_is_had(server: Server, tmp_path: Path) -> None:
    stored = ContentStore(str(tmp_path)).put(io.BytesIO(b"nobody released this"))
    for sha256, status, code in (
        (stored.sha256, 404, "documents.content_unknown"),
        ("0" * 64, 404, "documents.content_unknown"),
        ("nonsense", 400, "sha256.malformed"),
    ):
        answer = await server.http.get(f"/v1/documents/{sha256}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    sha256 = await released(server, tmp_path, SMALL)
    (tmp_path / content_path(sha256)).unlink()
    answer = await server.http.get(f"/v1/documents/{sha256}")
    assert (answer.status_code, answer.json()["code"]) == (503, "documents.file_missing")
    assert str(tmp_path) not in answer.text
