"""The log over HTTP, read by a client that was written from the specifications alone.

The client below shares no code with the log: hashes, tiles, notes and proofs are its own.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import uvicorn
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from starlette.applications import Starlette
from typer.testing import CliRunner

from api.access.guard import anybody
from api.transparency import transparency_routes
from api.transparency_cli import register
from eventlog.ledger import Ledger
from eventlog.transparency.signing import CheckpointPublisher
from tests.database import as_superuser, execute
from tests.eventlog.new_events import fact, frame_event, frame_of, opened
from tests.eventlog.signing import grow, signer_for

pytestmark = pytest.mark.anyio

SIZE = 700
PREFIX = "/tlog/plant-1"
ORIGIN = "heddle.example/plant-1"

# --- a client from scratch ----------------------------------------------------------------


@dataclass
class Client:
    """Follows tlog-tiles; knows an origin and a public key, and believes nothing else."""

    http: httpx.AsyncClient
    origin: str
    key_id: bytes
    key: bytes
    known: dict[str, list[bytes]] = field(default_factory=dict)

    async def get(self, path: str) -> bytes:
        response = await self.http.get(f"{PREFIX}/{path}")
        assert response.status_code == 200, response.text
        body: bytes = response.content
        return body

    async def checkpoint(self) -> tuple[int, bytes]:
        return self.open(await self.get("checkpoint"))

    def open(self, note: bytes) -> tuple[int, bytes]:
        text, _, signatures = note.rpartition(b"\n\n")
        text += b"\n"
        origin, size, root = text.decode().split("\n")[:3]
        assert origin == self.origin
        good = 0
        for line in signatures.decode().splitlines():
            dash, name, signature = line.split(" ")
            raw = base64.b64decode(signature)
            if (dash, name, raw[:4]) == ("—", self.origin, self.key_id):
                Ed25519PublicKey.from_public_bytes(self.key).verify(raw[4:], text)
                good += 1
        assert good == 1
        return int(size), base64.b64decode(root)

    async def tile(self, level: int, number: int, size: int) -> list[bytes]:
        """Hashes of a tile in a tree of `size`, or none where the tree has none there."""
        in_level = size >> 8 * level
        width = min(256, in_level - number * 256)
        if width <= 0:
            return []
        path = f"tile/{level}/{path_of(number)}{partial(width)}"
        if path not in self.known:
            raw = await self.get(path)
            assert len(raw) == 32 * width
            self.known[path] = [raw[i : i + 32] for i in range(0, len(raw), 32)]
        return self.known[path]

    async def subtree(self, start: int, end: int, size: int) -> bytes:
        """MTH(D[start:end]) from tiles: split as the RFC says, stop at a hash that is served."""
        length = end - start
        if length & (length - 1) == 0:
            level = 0
            while length > 1 and length % 256 == 0:
                length //= 256
                level += 1
            if length == 1:
                first = start >> 8 * level
                return (await self.tile(level, first // 256, size))[first % 256]
        k = 1
        while 2 * k < end - start:
            k *= 2
        return node(
            await self.subtree(start, start + k, size), await self.subtree(start + k, end, size)
        )

    async def entries(self, number: int, size: int) -> list[bytes]:
        width = min(256, size - number * 256)
        raw = await self.get(f"tile/entries/{path_of(number)}{partial(width)}")
        found = []
        while raw:
            length = int.from_bytes(raw[:2], "big")
            found.append(raw[2 : 2 + length])
            raw = raw[2 + length :]
        assert len(found) == width
        return found

    async def verify_inclusion(self, index: int, entry: bytes, size: int, root: bytes) -> None:
        """Walk from the leaf to the root, taking each sibling from the tiles."""

        async def above(start: int, end: int) -> bytes:
            if end - start == 1:
                return hashlib.sha256(b"\0" + entry).digest()
            k = 1
            while 2 * k < end - start:
                k *= 2
            if index < start + k:
                return node(await above(start, start + k), await self.subtree(start + k, end, size))
            return node(await self.subtree(start, start + k, size), await above(start + k, end))

        assert await above(0, size) == root


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def path_of(number: int) -> str:
    digits = f"{number:03d}"
    while len(digits) % 3:
        digits = "0" + digits
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join(["x" + group for group in groups[:-1]] + groups[-1:])


def partial(width: int) -> str:
    return "" if width == 256 else f".p/{width}"


# --- a server -----------------------------------------------------------------------------


@dataclass
class Served:
    ledger: Ledger
    publisher: CheckpointPublisher
    http: httpx.AsyncClient
    client: Client


@pytest.fixture
async def served(ledger: Ledger, tmp_path: Path) -> AsyncIterator[Served]:
    """A signed log behind a real socket."""
    await ledger.append([fact("first"), frame_event(frame_of(1))])
    await grow(ledger, SIZE)
    publisher = CheckpointPublisher(signer_for(ledger, tmp_path), interval_s=60)
    await publisher.current(covering=SIZE)
    app = Starlette(routes=transparency_routes(publisher, anybody))
    server = _QuietServer(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        running = asyncio.create_task(server.serve(sockets=[listening]))
        await server.listens.wait()
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
            name, key_id, key = (await http.get(f"{PREFIX}/vkey")).text.strip().split("+", 2)
            raw = base64.b64decode(key)
            assert (name, raw[:1]) == (ORIGIN, b"\1")
            assert hashlib.sha256(name.encode() + b"\n" + raw).hexdigest()[:8] == key_id
            client = Client(http, ORIGIN, bytes.fromhex(key_id), raw[1:])
            yield Served(ledger, publisher, http, client)
        server.should_exit = True
        await running
    await publisher.close()


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


# --- following the specification ----------------------------------------------------------


async def test_a_client_verifies_entries_against_the_signed_root(served: Served) -> None:
    client = served.client
    size, root = await client.checkpoint()
    assert size == SIZE
    for index in (0, 1, 255, 256, 599, 699):
        entries = await client.entries(index // 256, size)
        await client.verify_inclusion(index, entries[index % 256], size, root)
    with pytest.raises(AssertionError):
        await client.verify_inclusion(5, (await client.entries(0, size))[6], size, root)


async def test_a_monitor_rebuilds_the_tree_from_the_entries_alone(served: Served) -> None:
    client = served.client
    size, root = await client.checkpoint()
    hashes = [
        hashlib.sha256(b"\0" + entry).digest()
        for number in range((size + 255) // 256)
        for entry in await client.entries(number, size)
    ]

    def mth(d: list[bytes]) -> bytes:
        if len(d) == 1:
            return d[0]
        k = 1
        while 2 * k < len(d):
            k *= 2
        return node(mth(d[:k]), mth(d[k:]))

    assert mth(hashes) == root
    level_1 = await client.tile(1, 0, size)
    assert level_1 == [mth(hashes[:256]), mth(hashes[256:512])]


async def test_a_client_that_holds_an_older_checkpoint_checks_consistency(served: Served) -> None:
    client = served.client
    old_size, old_root = await client.checkpoint()
    await grow(served.ledger, SIZE + 100)
    await served.publisher.current(covering=SIZE + 100)
    size, root = await client.checkpoint()
    assert size == SIZE + 100
    assert await client.subtree(0, old_size, size) == old_root
    assert await client.subtree(0, size, size) == root
    answer = (await served.http.get(f"{PREFIX}/consistency/{old_size}/{size}")).json()
    assert (answer["from"], answer["to"]) == (old_size, size)
    # RFC 9162, section 2.1.4.2
    path = [base64.b64decode(sibling) for sibling in answer["proof"]]
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    assert (fr, sr, sn) == (old_root, root, 0)


async def test_partial_tiles_of_every_signed_size_stay_served(served: Served) -> None:
    await grow(served.ledger, SIZE + 200)
    await served.publisher.current(covering=SIZE + 200)
    assert len(await served.client.get("tile/0/002.p/188")) == 32 * 188
    assert len(await served.client.get("tile/1/000.p/2")) == 32 * 2
    assert len(await served.client.get("tile/0/002")) == 8_192


async def test_a_proof_file_verifies_line_by_line(served: Served) -> None:
    text = (await served.http.get(f"{PREFIX}/proof/2")).text
    head, _, checkpoint = text.partition("\n\n")
    magic, extra, index, *path = head.split("\n")
    assert (magic, index) == ("c2sp.org/tlog-proof@v1", "index 1")
    entry = base64.b64decode(extra.removeprefix("extra "))
    assert json.loads(entry)["type"] == "asset.frame_recorded"
    size, root = served.client.open(checkpoint.encode())
    fn, sn, r = 1, size - 1, hashlib.sha256(b"\0" + entry).digest()
    for sibling in map(base64.b64decode, path):
        if fn & 1 or fn == sn:
            r = node(sibling, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, sibling)
        fn, sn = fn >> 1, sn >> 1
    assert (r, sn) == (root, 0)


async def test_an_event_newer_than_the_last_checkpoint_is_proved_by_a_new_one(
    served: Served,
) -> None:
    await grow(served.ledger, SIZE + 1)
    text = (await served.http.get(f"{PREFIX}/proof/{SIZE + 1}")).text
    assert served.client.open(text.partition("\n\n")[2].encode())[0] == SIZE + 1
    assert (await served.client.checkpoint())[0] == SIZE + 1


async def test_a_signature_of_another_key_is_not_accepted_by_the_client(served: Served) -> None:
    served.client.key = bytes(32)
    with pytest.raises((InvalidSignature, ValueError)):
        await served.client.checkpoint()


# --- HTTP ---------------------------------------------------------------------------------


async def test_content_types_and_caching_are_the_specification_s(served: Served) -> None:
    expected = {
        "checkpoint": ("text/plain; charset=utf-8", "public, max-age=1"),
        "tile/0/000": ("application/octet-stream", "public, max-age=31536000, immutable"),
        "tile/0/002.p/188": ("application/octet-stream", "public, max-age=31536000, immutable"),
        "tile/entries/000": ("application/octet-stream", "public, max-age=31536000, immutable"),
    }
    for path, (media_type, caching) in expected.items():
        response = await served.http.get(f"{PREFIX}/{path}")
        assert response.headers["content-type"] == media_type
        assert response.headers["cache-control"] == caching


async def test_entries_are_compressed_for_whoever_can_read_that(served: Served) -> None:
    path = f"{PREFIX}/tile/entries/000"
    plain = await served.http.get(path, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    request = served.http.build_request("GET", path, headers={"accept-encoding": "gzip"})
    packed = await served.http.send(request, stream=True)
    raw = b"".join([chunk async for chunk in packed.aiter_raw()])
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(raw) == plain.content
    assert len(raw) < len(plain.content) / 3


NOT_THERE = [
    ("tile/0/003", "tile.unknown"),
    ("tile/0/002", "tile.unknown"),
    ("tile/0/002.p/189", "tile.unknown"),
    ("tile/1/000", "tile.unknown"),
    ("tile/2/000.p/1", "tile.unknown"),
    ("tile/0/2.p/10", "tile.unknown"),
    ("tile/0/000.p/256", "tile.unknown"),
    ("tile/0/x000/000", "tile.unknown"),
    ("tile/64/000", "tile.unknown"),
    ("tile/0/x999/x999/x999/x999/x999/x999/999", "tile.unknown"),
    ("tile/entries/002.p/189", "tile.unknown"),
    ("proof/0", "event.unknown"),
    (f"proof/{SIZE + 1}", "event.unknown"),
    (f"proof/{10**30}", "event.unknown"),
    (f"consistency/1/{SIZE + 1}", "proof.unknown_size"),
    ("consistency/5/4", "proof.unknown_size"),
]


async def test_what_is_not_there_is_a_problem_with_a_code(served: Served) -> None:
    for path, code in NOT_THERE:
        response = await served.http.get(f"{PREFIX}/{path}")
        assert (response.status_code, response.json()["code"]) == (404, code), path
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["cache-control"] == "no-store"


async def test_another_ledger_is_not_served_here(served: Served) -> None:
    response = await served.http.get("/tlog/plant-2/checkpoint")
    assert (response.status_code, response.json()["code"]) == (404, "ledger.unknown")


async def test_what_is_not_signed_yet_is_not_shown(served: Served) -> None:
    await grow(served.ledger, SIZE + 68)
    assert (await served.http.get(f"{PREFIX}/tile/0/002")).status_code == 404
    await served.publisher.current(covering=SIZE + 68)
    assert (await served.http.get(f"{PREFIX}/tile/0/002")).status_code == 200


async def test_a_log_that_contradicts_its_checkpoints_serves_none(served: Served) -> None:
    keys = served.publisher.signer.keys
    note = keys.published()
    assert note is not None
    await grow(served.ledger, SIZE + 1)
    await served.publisher.current(covering=SIZE + 1)
    beyond = note.written.replace(f"\n{SIZE}\n", f"\n{SIZE + 50}\n")
    _write(keys.folder / "plant-1.checkpoint", beyond)
    await grow(served.ledger, SIZE + 2)
    response = await served.http.get(f"{PREFIX}/proof/{SIZE + 2}")
    assert (response.status_code, response.json()["code"]) == (503, "checkpoint.log_shorter")


def _write(path: Path, text: str) -> None:
    path.write_text(text)


# --- the command --------------------------------------------------------------------------


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings under which the command finds a log of 300 events."""

    async def fill() -> None:
        async with opened(database_url) as ledger:
            await ledger.append([fact("part", stream="part:SN-1"), frame_event(frame_of(1))])
            await grow(ledger, 300)

    asyncio.run(fill())
    return {
        "HEDDLE_DATABASE_URL": database_url,
        "HEDDLE_DATA_DIR": str(tmp_path),
        "HEDDLE_LEDGER": "plant-1",
    }


def run(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any]]:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, [*arguments, "--json"], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def test_the_command_verifies_proves_exports_and_rotates(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code, unsigned = run(environment, "verify")
    assert (code, unsigned["clean"], unsigned["events"]) == (0, True, 300)
    proof, bundle = tmp_path / "e.tlog-proof", tmp_path / "part.bundle"
    assert run(environment, "prove", "2", "--out", str(proof))[1]["size"] == 300
    code, exported = run(environment, "export-bundle", "part:SN-1", "--out", str(bundle))
    assert (code, exported["events"]) == (0, 1)
    vkey = exported["vkey"]
    for file in (proof, bundle):
        code, checked = run({}, "verify-bundle", str(file), "--vkey", vkey)
        assert (code, checked["clean"], checked["size"]) == (0, True, 300)
    code, signed = run(environment, "verify")
    assert (code, signed["clean"], signed["checkpoints"], signed["signatures"]) == (0, True, 2, 2)
    code, rotated = run(environment, "rotate-key", "--reason", "yearly")
    assert code == 0
    assert rotated["vkey"] != vkey
    code, after = run(environment, "verify", "--vkey", vkey)
    assert (code, after["events"], after["checkpoints"]) == (0, 301, 3)
    code, ranged = run(environment, "export-bundle", "1-301", "--out", str(bundle))
    assert (code, ranged["vkey"]) == (0, rotated["vkey"])
    assert run({}, "verify-bundle", str(bundle))[1]["trusted"] is False


def test_the_command_fails_with_what_it_found(
    environment: dict[str, str], tmp_path: Path, database_url: str
) -> None:
    bundle = tmp_path / "b"
    run(environment, "export-bundle", "10-20", "--out", str(bundle))
    execute(
        as_superuser(database_url),
        "set session_replication_role = replica; "
        "update event set actor = 'user:mallory' where position = 7",
    )
    code, report = run(environment, "verify")
    assert code == 1
    first = report["findings"][0]
    assert (first["code"], first["position"]) == ("event.leaf_mismatch", 7)
    bundle.write_bytes(bundle.read_bytes().replace(b'"first":10', b'"first":11'))
    code, report = run({}, "verify-bundle", str(bundle))
    assert (code, report["clean"]) == (1, False)
