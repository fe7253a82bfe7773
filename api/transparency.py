"""The log over HTTP for whoever does not trust us: checkpoint, tiles, entries and proofs.

References
----------
C2SP tlog-tiles, tlog-checkpoint, tlog-proof.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.access.guard import Admit, anybody
from api.problem import problem
from api.settings import ServerSettings
from domain.errors import HeddleError, InvalidInput, NotFound, Unavailable
from eventlog.database import CONNECTION_LOST, Pool
from eventlog.transparency.merkle import parse_tile_path
from eventlog.transparency.notes import SigningKey, VerifierKey
from eventlog.transparency.proofs import prove
from eventlog.transparency.signing import CheckpointPublisher, CheckpointSigner, SigningRefused
from eventlog.transparency.signing_keys import SigningKeys, origin_of
from eventlog.transparency.tiles import LedgerTiles, check_tile

CHECKPOINT_MAX_AGE_S: Final = 1
FOR_EVER: Final = "public, max-age=31536000, immutable"
FOR_SECONDS: Final = f"public, max-age={CHECKPOINT_MAX_AGE_S}"
GZIP_LEVEL: Final = 3

TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"

Handler = Callable[[Request], Awaitable[Response]]


def signing_keys(settings: ServerSettings) -> SigningKeys:
    """Return where the key of the served ledger is."""
    given = None if settings.signing_key is None else SigningKey.parse(settings.signing_key)
    return SigningKeys(
        settings.keys_folder,
        settings.ledger,
        settings.origin or origin_of(settings.ledger),
        given,
    )


async def open_signer(pool: Pool, settings: ServerSettings) -> CheckpointSigner:
    """Return the signer for the served ledger.

    Raises
    ------
    NotFound
        ``ledger.unknown``
    """
    tiles = await LedgerTiles.of(pool, settings.ledger)
    witnesses = [VerifierKey.parse(vkey) for vkey in settings.witnesses]
    return CheckpointSigner(tiles, signing_keys(settings), witnesses)


def transparency_routes(publisher: CheckpointPublisher, admit: Admit) -> list[Route]:
    """Return the routes below ``/tlog/<ledger>/`` for the ledger of `publisher`.

    Parameters
    ----------
    admit : says who may come in; what not everybody may see is kept in no shared cache
    """
    endpoints = TransparencyEndpoints(publisher)
    prefix = "/tlog/{ledger}"
    return [
        Route(f"{prefix}/{path}", _guarded(publisher, admit, handler), methods=["GET"])
        for path, handler in (
            ("checkpoint", endpoints.checkpoint),
            ("vkey", endpoints.vkey),
            ("tile/{tile:path}", endpoints.tile),
            ("proof/{position:int}", endpoints.proof),
            ("consistency/{old:int}/{new:int}", endpoints.consistency),
        )
    ]


class TransparencyEndpoints:
    """What an auditor, a witness or a mirror fetches. Nothing unsigned is shown."""

    def __init__(self, publisher: CheckpointPublisher) -> None:
        self._publisher = publisher
        self._tiles = publisher.signer.tiles

    async def checkpoint(self, _request: Request) -> Response:
        """Answer the last signed checkpoint, with the cosignatures of witnesses."""
        await self._publisher.current()
        note = await self._publisher.signer.latest()
        assert note is not None, "a checkpoint was signed"
        return _answer(note.written.encode(), TEXT, FOR_SECONDS)

    async def vkey(self, _request: Request) -> Response:
        """Answer the key's verifier string; compare it with what you were told elsewhere."""
        key = await asyncio.to_thread(self._publisher.signer.keys.current)
        return _answer(f"{key.verifier.vkey}\n".encode(), TEXT, FOR_SECONDS)

    async def tile(self, request: Request) -> Response:
        """Answer a tile's hashes, or a bundle of entries."""
        path = f"tile/{request.path_params['tile']}"
        parsed = parse_tile_path(path)
        size = await self._signed_size()
        if parsed is None:
            raise _no_tile(path, "it is not written as the specification says")
        level, number, width = parsed
        try:
            tile = check_tile(0 if level == "entries" else level, number, width, size)
        except InvalidInput as error:
            raise _no_tile(path, error.message) from error
        if level != "entries":
            return _answer(await self._tiles.read(tile), BYTES, FOR_EVER)
        bundle = await self._tiles.bundle(number, width)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return _answer(bundle, BYTES, FOR_EVER, Vary="Accept-Encoding")
        return _answer(
            gzip.compress(bundle, GZIP_LEVEL, mtime=0),
            BYTES,
            FOR_EVER,
            Vary="Accept-Encoding",
            Content_Encoding="gzip",
        )

    async def proof(self, request: Request) -> Response:
        """Answer the proof file of the event at a position, its entry included."""
        position: int = request.path_params["position"]
        head = (await self._tiles.head()).size
        if not 1 <= position <= head:
            raise NotFound(
                "event.unknown",
                f"the log has {head} events, none at position {position}",
                value=str(position),
                limit=head,
            )
        note = await self._publisher.current(covering=position)
        found = await prove(self._tiles, position, note)
        return _answer(
            found.text.encode(),
            TEXT,
            FOR_SECONDS,
            Content_Disposition=f'attachment; filename="{self._tiles.name}-{position}.tlog-proof"',
        )

    async def consistency(self, request: Request) -> Response:
        """Answer the proof that one tree begins with the other, as JSON."""
        old, new = request.path_params["old"], request.path_params["new"]
        size = await self._signed_size()
        if not 0 <= old <= new <= size:
            raise NotFound(
                "proof.unknown_size",
                f"no proof from {old} to {new}: the log is signed up to {size}",
                value=str(new),
                limit=size,
            )
        found = await self._tiles.consistency_proof(old, new)
        document = {"from": old, "to": new, "proof": [_base64(sibling) for sibling in found]}
        return _answer(orjson.dumps(document), "application/json", FOR_EVER)

    async def _signed_size(self) -> int:
        await self._publisher.current()  # refuses where the log contradicts what was signed
        return await self._publisher.signer.signed_size()


def _guarded(publisher: CheckpointPublisher, admit: Admit, handler: Handler) -> Handler:
    """Return `handler` with expected failures told as problems, never cached."""
    served = publisher.signer.tiles.name

    async def guarded(request: Request) -> Response:
        ledger = request.path_params["ledger"]
        try:
            await admit(request)
            if ledger != served:
                raise NotFound(
                    "ledger.unknown", f"there is no ledger {ledger!r:.80} here", value=ledger[:80]
                )
            response = await handler(request)
            if admit is not anybody:
                kept = response.headers["cache-control"]
                response.headers["cache-control"] = kept.replace("public", "private")
            return response
        except SigningRefused as error:
            failure: HeddleError = Unavailable(error.code, error.message, hint=error.hint)
        except HeddleError as error:
            failure = error
        except CONNECTION_LOST as error:
            failure = Unavailable("log.unavailable", f"the log cannot be read now: {error}")
        return problem(failure, {"Cache-Control": "no-store"})

    return guarded


def _no_tile(path: str, reason: str) -> NotFound:
    return NotFound("tile.unknown", f"there is no {path[:80]}: {reason}", value=path[:80])


def _answer(body: bytes, media_type: str, cache: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(body, 200, {"Cache-Control": cache, **named}, media_type)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
