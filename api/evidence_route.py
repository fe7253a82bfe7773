"""``GET /v1/evidence``: a signed bundle of all that the trace of some things rests on.

The file is made in a folder of its own and streamed from there, whatever its size, and few are
made at once. `heddle verify-bundle` checks it without the log (docs/evidence.md).

Query: ``root`` (1 to 20 keys, repeated), ``direction`` (BACK, FORWARD or BOTH), ``position`` or
``recordedAt`` (as it was known), ``validAt`` (as it was true), ``documents`` (true: with the files
of documents).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from starlette.background import BackgroundTask
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from api.access.guard import identify
from api.access.requirements import denied
from api.access.rights import Right
from api.evidence import evidence_of, write_bundle
from api.problem import problem
from api.services import Services
from domain.errors import HeddleError, InvalidInput, Unavailable
from domain.events import format_time
from eventlog.database import CONNECTION_LOST
from eventlog.documents import ContentStore
from projections.as_of import AsOf
from projections.thread.projection import ThreadProjection
from projections.thread.traced import Direction

PATH: Final = "/v1/evidence"
MEDIA_TYPE: Final = "application/x-ndjson"
ROOTS_MAX: Final = 20
BUNDLES_AT_ONCE_MAX: Final = 2
WAIT_S_MAX: Final = 30.0
_PARAMETERS: Final = frozenset(
    {"root", "direction", "position", "recordedAt", "validAt", "documents"}
)


def evidence_href(root: str, position: int, valid_at: datetime | None) -> str:
    """Return the path under which the bundle of `root`, as known at `position`, is had."""
    query = {"root": root, "position": str(position)}
    if valid_at is not None:
        query["validAt"] = format_time(valid_at)
    return f"{PATH}?{urlencode(query)}"


def evidence_routes(services: Services) -> list[Route]:
    """Return the route of bundles."""
    return [Route(PATH, EvidenceBundles(services).__call__, methods=["GET"])]


class EvidenceBundles:
    """The endpoint of bundles."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._turns = asyncio.Semaphore(BUNDLES_AT_ONCE_MAX)
        self._contents = ContentStore(
            settings.documents_url or str(settings.data_dir / "documents")
        )

    async def __call__(self, request: Request) -> Response:
        """Answer with the bundle, or a problem that says why not."""
        try:
            identity = await identify(self._services, request)
            if Right.AUDIT not in identity.rights:
                raise denied("a bundle of evidence", Right.AUDIT, identity)
            roots, direction, as_of, with_documents = _asked(request.query_params)
            await self._caught_up(as_of.position)
            sight = await self._services.sights.of(identity)
            publisher = self._services.checkpoints
            if publisher is None:
                raise Unavailable(
                    "evidence.no_signer",
                    "this server signs no checkpoints, and a bundle needs one",
                    hint="ask a server that serves the log's checkpoints",
                )
            try:
                async with asyncio.timeout(WAIT_S_MAX):
                    await self._turns.acquire()
            except TimeoutError:
                raise Unavailable(
                    "evidence.busy",
                    f"{BUNDLES_AT_ONCE_MAX} bundles are being made already",
                    hint="ask again",
                    limit=BUNDLES_AT_ONCE_MAX,
                ) from None
            folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="heddle-evidence-"))
            try:
                evidence = await evidence_of(
                    self._services.ledger, roots, sight.visible, direction=direction, as_of=as_of
                )
                path = folder / "bundle"
                contents = self._contents if with_documents else None
                await write_bundle(publisher.signer, evidence, path, contents=contents)
            except BaseException:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
                raise
            finally:
                self._turns.release()
        except HeddleError as error:
            return problem(error)
        except CONNECTION_LOST:
            return problem(
                Unavailable("database.unavailable", "the database cannot be reached now")
            )
        name = "-".join(root.replace(":", "-") for root in roots)[:100]
        return _OnceFile(
            path,
            media_type=MEDIA_TYPE,
            filename=f"{name}.bundle",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
            background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
        )

    async def _caught_up(self, position: int | None) -> None:
        """Return once the thread holds what was known at `position`, where this server folds it."""
        runner = self._services.runners.get(ThreadProjection.name)
        if position is not None and runner is not None:
            await runner.wait_for(min(position, await self._services.ledger.head()), WAIT_S_MAX)


class _OnceFile(FileResponse):
    """A file that is gone once it was sent, or once whoever wanted it is."""

    async def __call__(self, *arguments: object) -> None:
        background, self.background = self.background, None
        try:
            await super().__call__(*arguments)  # type: ignore[arg-type]
        finally:
            if background is not None:
                await background()


def _asked(query: QueryParams) -> tuple[list[str], Direction, AsOf, bool]:
    """Return roots, direction, as of when, and whether with documents' files.

    Raises
    ------
    InvalidInput
        ``evidence.query``, ``time.malformed``, ``event.naive_time``
    """
    unknown = set(query) - _PARAMETERS
    if unknown:
        raise _malformed(f"{sorted(unknown)[0]!r:.80} is no parameter", sorted(unknown)[0][:80])
    roots = query.getlist("root")
    if not 1 <= len(roots) <= ROOTS_MAX or not all(root.isprintable() for root in roots):
        raise _malformed(f"{len(roots)} roots; it has to be 1 to {ROOTS_MAX} keys", len(roots))
    told = query.get("direction", Direction.BOTH.value)
    if told not in Direction.__members__.values():
        raise _malformed(f"{told!r:.80} is no direction: BACK, FORWARD or BOTH", told[:80])
    position = query.get("position")
    if position is not None and not (
        position.isascii() and position.isdigit() and len(position) <= 16
    ):
        raise _malformed(f"{position!r:.40} is no position", position[:40])
    documents = query.get("documents", "false")
    if documents not in ("true", "false"):
        raise _malformed(f"documents is {documents!r:.40}, not true or false", documents[:40])
    as_of = AsOf(
        None if position is None else int(position),
        _time(query.get("recordedAt")),
        _time(query.get("validAt")),
    )
    return roots, Direction(told), as_of, documents == "true"


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _malformed(f"{text!r:.80} is no time: RFC 3339 with a zone", text[:80]) from None
    format_time(found)  # refuses a time without a zone
    return found


def _malformed(what: str, value: object) -> InvalidInput:
    return InvalidInput(
        "evidence.query",
        what,
        hint=f"GET {PATH}?root=part:SN-1042&direction=BOTH&position=9000",
        value=value,
    )
