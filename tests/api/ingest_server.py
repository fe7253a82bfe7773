"""A whole server for tests of ingest: real socket, real database, and an agent's view of it."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn

from api.app import create_app, open_services
from api.services import Services
from api.settings import ServerSettings
from domain.frame_batches import BATCH_MEDIA_TYPE, BatchItem, encode_batch
from domain.frame_decoding import decode
from domain.frame_encoding import encode
from domain.frames import Frame
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, read_page

FRAMES_PATH: Final = "/v1/frames"
FRAMES: Final = EventFilter(types=("asset.frame_recorded",))
PATIENCE_S: Final = 60.0
BODY_BYTES_MAX: Final = 1_000_000
_NAMESPACE = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")

Result = dict[str, Any]


@dataclass
class Served:
    """A running server and an HTTP client of it."""

    services: Services
    http: httpx.AsyncClient

    @property
    def ledger(self) -> Ledger:
        """The log that the server writes."""
        return self.services.ledger

    async def post(self, body: bytes, **headers: str) -> httpx.Response:
        """Send `body` as a batch of frames."""
        return await self.http.post(
            FRAMES_PATH,
            content=body,
            headers={"content-type": BATCH_MEDIA_TYPE}
            | {name.replace("_", "-"): value for name, value in headers.items()},
        )

    async def send(self, *frames: Frame | bytes) -> list[Result]:
        """Send `frames`, those given as bytes as they are; return the result of each."""
        return results_of(await self.post(batch_of(*frames)))

    async def recorded(self) -> list[RecordedEvent]:
        """Return the frames of the log in its order."""
        return await read_page(self.ledger, 0, limit=2_000, wanted=FRAMES)

    async def sequences(self) -> list[int]:
        """Return the sequence numbers of the frames of the log, in its order."""
        return [event.frame.sequence for event in await self.recorded()]

    async def folded(self) -> None:
        """Return once every projection has folded the whole log."""
        head = await self.ledger.head()
        for runner in self.services.runners.values():
            await runner.wait_for(head, PATIENCE_S)


def batch_of(*frames: Frame | bytes) -> bytes:
    """Return the body that carries `frames`; the id of each follows from what it says."""
    return encode_batch(item_of(frame) for frame in frames)


def item_of(frame: Frame | bytes) -> BatchItem:
    """Return `frame` as an agent puts it into a batch."""
    if isinstance(frame, bytes):
        return BatchItem(uuid.uuid5(_NAMESPACE, str(zlib.crc32(frame))), frame)
    header = frame.header
    name = f"{header.asset}/{header.agent}/{frame.sequence}/{frame.canonical_sha256.hex()}"
    return BatchItem(uuid.uuid5(_NAMESPACE, name), encode(frame))


def results_of(response: httpx.Response) -> list[Result]:
    """Return the results of an answered batch."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    results: list[Result] = response.json()["results"]
    assert [result["index"] for result in results] == list(range(len(results)))
    return results


def told(results: Sequence[Result]) -> list[str]:
    """Return the status of each result, or the code where it was rejected."""
    return [r["code"] if r["status"] == "rejected" else r["status"] for r in results]


def as_stored(frame: Frame) -> Frame:
    """Return `frame` as it comes out of its bytes."""
    return decode(encode(frame))


@asynccontextmanager
async def serving(database_url: str, now: datetime | None = None) -> AsyncIterator[Served]:
    """Serve the database at `database_url` on a free loopback port."""
    with tempfile.TemporaryDirectory(prefix="heddle-tests-") as folder:
        settings = ServerSettings(
            database_url=database_url,
            data_dir=Path(folder),
            ingest_bytes_max=BODY_BYTES_MAX,
            connections_max=12,
        )
        async with _serving(settings, database_url, now) as served:
            yield served


@asynccontextmanager
async def _serving(
    settings: ServerSettings, database_url: str, now: datetime | None
) -> AsyncIterator[Served]:
    async with open_services(settings, database_url) as services:
        if now is not None:
            services = Services(
                settings,
                services.ledger,
                services.tail,
                services.runners,
                services.checkpoints,
                now=lambda: now.astimezone(UTC),
            )
        config = uvicorn.Config(
            create_app(services),
            log_level="error",
            lifespan="off",
            http="httptools",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        server = _QuietServer(config)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            running = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await server.listens.wait()
                async with httpx.AsyncClient(
                    base_url=url, timeout=PATIENCE_S, trust_env=False
                ) as http:
                    yield Served(services, http)
            finally:
                server.should_exit = True
                await running


class _QuietServer(uvicorn.Server):
    """uvicorn's server, which says when it listens and leaves signals to pytest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()
