"""Ingest: a batch of frames in, one outcome per frame out.

Every frame is judged alone: a bad one is rejected with its reason and its neighbours are
recorded. ``accepted`` means recorded and flushed to disk; ``duplicate`` that it was before.
The body is described in docs/frame-format.md.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from opentelemetry import propagate, trace
from starlette.requests import Request
from starlette.responses import Response

from api.body import check_content_type, read_body
from api.problem import problem
from api.services import Services
from api.tracing import traceparent_of
from domain.asset import (
    Asset,
    Registered,
    Retired,
    asset_stream,
    retired_asset,
    telemetry_stream,
    unknown_asset,
)
from domain.asset_types import asset_type
from domain.errors import HeddleError, InvalidInput, MalformedFrame, Unavailable
from domain.frame_batches import BATCH_MEDIA_TYPE, BatchItem, decode_batch
from domain.frame_checks import check_units, mark_out_of_range
from domain.frames import Frame, decode, peek, time_from_ns
from eventlog.commands import load_asset
from eventlog.database import CONNECTION_LOST
from eventlog.envelope import NewEvent, new_frame
from eventlog.ledger import Appended, Ledger
from eventlog.reading import stream_versions

FRAMES_AT_ONCE: Final = 8
UNPACKED_BYTES_AT_ONCE: Final = 4 * 1024 * 1024
"""What is unpacked and judged before other requests get their turn."""

UNPACKED_BYTES_MAX: Final = 64 * 1024 * 1024
"""What all frames of a batch may unpack to: a few bytes can declare a million readings."""

MESSAGE_LENGTH_MAX: Final = 500
"""A message may quote what arrived; an answer stays small whatever that was."""

ASSETS_KNOWN_MAX: Final = 10_000

tracer = trace.get_tracer("heddle.ingest")


class IngestEndpoint:
    """``POST /v1/frames``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._assets = AssetDirectory(services.ledger)
        self._places = asyncio.Semaphore(services.settings.ingest_concurrency_max)

    async def __call__(self, request: Request) -> Response:
        """Answer one batch."""
        context = propagate.extract(request.headers)
        with tracer.start_as_current_span("ingest", context=context) as span:
            try:
                check_content_type(request, BATCH_MEDIA_TYPE)
                async with self._places:
                    body = await read_body(request, self._services.settings.ingest_bytes_max)
                    outcomes = await self._record(body, traceparent_of(span))
            except HeddleError as error:
                return problem(error)
            span.set_attribute("heddle.frames", len(outcomes))
        return Response(orjson.dumps({"results": outcomes}), media_type="application/json")

    async def _record(self, body: bytes, traceparent: str | None) -> list[dict[str, Any]]:
        """Return the outcome of each frame in `body`, in order.

        Raises
        ------
        Unavailable
            when a frame may or may not have been recorded: the batch has to be sent again
        """
        outcomes: list[dict[str, Any]] = []
        appends: list[tuple[dict[str, Any], asyncio.Task[Appended]]] = []
        assets: dict[str, Asset] = {}
        asked: set[str] = set()
        for group in _groups(decode_batch(body)):
            await asyncio.sleep(0)
            entries = [_decoded(item) for item in group]
            named = {e.frame.header.asset for e in entries if isinstance(e, _Decoded)}
            if not named <= asked:
                assets |= await self._assets.known(named - asked)
                asked |= named
            for entry in entries:
                outcome: dict[str, Any] = {"index": len(outcomes)}
                outcomes.append(outcome)
                try:
                    if isinstance(entry, HeddleError):
                        raise entry
                    outcome["sequence"] = entry.frame.sequence
                    event = self._judged(entry, assets, traceparent)
                    append = asyncio.create_task(self._services.ledger.append([event]))
                    appends.append((outcome, append))
                except HeddleError as error:
                    outcome |= _rejection(error)
        results = await asyncio.gather(*(task for _, task in appends), return_exceptions=True)
        for (outcome, _), result in zip(appends, results, strict=True):
            match result:
                case Appended():
                    outcome["status"] = "duplicate" if result.duplicate else "accepted"
                    outcome["position"] = result.position
                case HeddleError() if not isinstance(result, Unavailable):
                    outcome |= _rejection(result)
                case _:
                    raise result
        return outcomes

    def _judged(
        self, entry: _Decoded, assets: Mapping[str, Asset], traceparent: str | None
    ) -> NewEvent:
        """Return the event that records a frame, or raise what is wrong with it."""
        frame = entry.frame
        asset_id = frame.header.asset
        asset = assets.get(asset_id)
        if isinstance(asset, Retired):
            raise retired_asset(asset_id)
        if not isinstance(asset, Registered):
            raise unknown_asset(asset_id)
        described = asset_type(asset.asset_type)
        check_units(frame.header, described)
        self._check_time(frame)
        marked = mark_out_of_range(frame, described)
        return new_frame(
            telemetry_stream(asset_id),
            marked,
            event_id=entry.event_id,
            occurred_at=time_from_ns(marked.window_end_ns),
            encoded=entry.encoded if marked is frame else None,
            traceparent=traceparent,
        )

    def _check_time(self, frame: Frame) -> None:
        if frame.window_start_ns < 0:
            raise InvalidInput(
                "frame.time_before_1970",
                f"the frame starts at {frame.window_start_ns} ns, before 1970",
                value=frame.window_start_ns,
                limit=0,
            )
        future_s_max = self._services.settings.frame_future_s_max
        latest_ns = int((self._services.now().timestamp() + future_s_max) * 1e9)
        if frame.window_end_ns > latest_ns:
            raise InvalidInput(
                "frame.time_in_future",
                f"the frame ends at {frame.window_end_ns} ns, more than {future_s_max} s ahead "
                "of the server's clock",
                hint="check the clock and the time zone of the source",
                value=frame.window_end_ns,
                limit=latest_ns,
            )


@dataclass(frozen=True, slots=True)
class _Decoded:
    frame: Frame
    encoded: bytes
    event_id: uuid.UUID


def _groups(items: Iterable[BatchItem | MalformedFrame]) -> Iterator[list[BatchItem | HeddleError]]:
    """Yield `items` in groups that are unpacked together, none of them large."""
    group: list[BatchItem | HeddleError] = []
    group_bytes = batch_bytes = 0
    for item in items:
        entry: BatchItem | HeddleError = item
        if isinstance(item, BatchItem):
            try:
                unpacked = peek(item.encoded).body_length
                if batch_bytes + unpacked > UNPACKED_BYTES_MAX:
                    raise _unpacks_too_far(batch_bytes + unpacked)
                batch_bytes += unpacked
                group_bytes += unpacked
            except HeddleError as error:
                entry = error
        group.append(entry)
        if len(group) == FRAMES_AT_ONCE or group_bytes > UNPACKED_BYTES_AT_ONCE:
            yield group
            group, group_bytes = [], 0
    if group:
        yield group


def _unpacks_too_far(unpacked: int) -> InvalidInput:
    return InvalidInput(
        "batch.unpacks_too_far",
        f"the batch unpacks to {unpacked} bytes or more, over the limit of {UNPACKED_BYTES_MAX}",
        hint="send this frame again in another batch",
        value=unpacked,
        limit=UNPACKED_BYTES_MAX,
    )


def _decoded(item: BatchItem | HeddleError) -> _Decoded | HeddleError:
    if isinstance(item, HeddleError):
        return item
    try:
        return _Decoded(decode(item.encoded), item.encoded, item.event_id)
    except HeddleError as error:
        return error


def _rejection(error: HeddleError) -> dict[str, Any]:
    return {
        "status": "rejected",
        "code": error.code,
        "message": error.message[:MESSAGE_LENGTH_MAX],
        "hint": error.hint[:MESSAGE_LENGTH_MAX],
    }


class AssetDirectory:
    """The assets that frames name, as of the version of their streams; bounded."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, tuple[int, Asset]] = {}

    async def known(self, asset_ids: set[str]) -> dict[str, Asset]:
        """Return those of `asset_ids` that exist, as they are now.

        One statement, and a load for each asset that has changed.
        """
        if len(self._known) > ASSETS_KNOWN_MAX:
            self._known.clear()
        streams = {asset_stream(asset_id): asset_id for asset_id in asset_ids}
        found: dict[str, Asset] = {}
        try:
            versions = await stream_versions(
                self._ledger.pool, self._ledger.ledger_id, list(streams)
            )
            for stream, version in versions.items():
                asset_id = streams[stream]
                entry = self._known.get(asset_id)
                if entry is None or entry[0] != version:
                    asset, loaded = await load_asset(self._ledger, asset_id)
                    entry = self._known[asset_id] = (loaded, asset)
                found[asset_id] = entry[1]
        except CONNECTION_LOST as error:
            raise Unavailable(
                "ledger.unavailable",
                "the database cannot be reached",
                hint="send the batch again; nothing is recorded twice",
            ) from error
        return found
