"""Ingest: a batch of frames in, one outcome per frame out.

Every frame is judged alone: a bad one is rejected with its reason and its neighbours are
recorded. ``accepted`` means recorded and flushed to disk; ``duplicate`` that it was before.
The body is described in docs/frame-format.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from opentelemetry import propagate, trace
from starlette.requests import Request
from starlette.responses import Response

from api.access.frame_scope import FrameScope, check_may_ingest
from api.body import check_content_type, read_body
from api.headers import read_headers
from api.problem import problem
from api.services import Services
from api.tracing import traceparent_of
from domain.asset import asset_stream, telemetry_stream
from domain.asset_decider import (
    Asset,
    Registered,
    Retired,
    evolve,
    retired_asset,
    unknown_asset,
)
from domain.asset_types import asset_type
from domain.errors import CommandRejected, HeddleError, InvalidInput, MalformedFrame, Unavailable
from domain.frame_batches import BATCH_MEDIA_TYPE, BatchItem, decode_batch
from domain.frame_checks import check_units, mark_all_out_of_range
from domain.frame_decoding import decode_many
from domain.frame_header import FrameHeader
from domain.frame_layout import peek
from domain.frame_stacks import hash_frames
from domain.frames import Frame, time_from_ns
from domain.records import CORRECTED, SIGNED
from eventlog.appending.lookup import read_versions
from eventlog.commands import load_asset
from eventlog.database import CONNECTION_LOST
from eventlog.envelope import NewEvent, frame_windows, new_frame
from eventlog.ledger import Appended, Ledger, Placed
from eventlog.reading import read_stream

FRAMES_AT_ONCE: Final = 32
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
                client = request.client
                identity = await self._services.authenticator.identify(
                    read_headers(request.scope), client.host if client else None
                )
                check_may_ingest(identity)
                scope = FrameScope(identity, await self._services.sights.of(identity))
                check_content_type(request, BATCH_MEDIA_TYPE)
                async with self._places:
                    body = await read_body(request, self._services.settings.ingest_bytes_max)
                    outcomes = await self._record(body, scope, traceparent_of(span))
            except HeddleError as error:
                return problem(error)
            span.set_attribute("heddle.frames", len(outcomes))
        return Response(orjson.dumps({"results": outcomes}), media_type="application/json")

    async def _record(
        self, body: bytes, scope: FrameScope, traceparent: str | None
    ) -> list[dict[str, Any]]:
        """Return the outcome of each frame in `body`, in order.

        Raises
        ------
        Unavailable
            when a frame may or may not have been recorded: the batch has to be sent again
        """
        outcomes: list[dict[str, Any]] = []
        events: list[NewEvent] = []
        of_events: list[dict[str, Any]] = []
        for group in _groups(decode_batch(body)):
            await asyncio.sleep(0)
            for judged in await self._judged(group, scope, traceparent):
                outcome: dict[str, Any] = {"index": len(outcomes)}
                outcomes.append(outcome)
                if judged.sequence is not None:
                    outcome["sequence"] = judged.sequence
                if isinstance(judged.verdict, HeddleError):
                    outcome |= _rejection(judged.verdict)
                else:
                    events.append(judged.verdict)
                    of_events.append(outcome)
        for outcome, result in zip(of_events, await self._append(events), strict=True):
            outcome |= _rejection(result) if isinstance(result, HeddleError) else result
        return outcomes

    async def _judged(
        self, group: Sequence[BatchItem | HeddleError], scope: FrameScope, traceparent: str | None
    ) -> list[_Judged]:
        """Return for each frame of `group` the event that records it, or what is wrong with it."""
        items = [item for item in group if isinstance(item, BatchItem)]
        decoded = iter(decode_many([item.encoded for item in items]))
        read: list[Frame | HeddleError] = [
            next(decoded) if isinstance(item, BatchItem) else item for item in group
        ]
        frames = [frame for frame in read if isinstance(frame, Frame)]
        assets = await self._assets.known({frame.header.asset for frame in frames})
        settings, now = self._services.settings, self._services.now()
        check = _FrameCheck(assets, now, settings.frame_future_s_max)
        faults = [scope.fault(frame.header) or check.fault(frame) for frame in frames]
        sound = [frame for frame, fault in zip(frames, faults, strict=True) if fault is None]
        marked = check.marked(sound)
        hash_frames(marked)
        ready = iter(zip(sound, marked, frame_windows(marked), strict=True))
        verdicts = iter(faults)
        judged = []
        for item, frame in zip(group, read, strict=True):
            if isinstance(frame, HeddleError):
                judged.append(_Judged(None, frame))
                continue
            assert isinstance(item, BatchItem), "a frame was decoded from an item"
            fault = next(verdicts)
            if fault is not None:
                judged.append(_Judged(frame.sequence, fault))
                continue
            delivered, stored, window = next(ready)
            event = new_frame(
                telemetry_stream(stored.header.asset),
                stored,
                event_id=item.event_id,
                occurred_at=time_from_ns(stored.window_end_ns),
                encoded=item.encoded if stored is delivered else None,
                traceparent=traceparent,
                window=window,
            )
            judged.append(_Judged(stored.sequence, event))
        return judged

    async def _append(self, events: Sequence[NewEvent]) -> list[dict[str, Any] | HeddleError]:
        """Record `events`, each with an outcome of its own.

        They are appended together. Where one of them is refused, or was recorded before, that
        fails as a whole and records nothing; then each is appended alone.
        """
        if not events:
            return []
        try:
            together = await self._services.ledger.append(events)
        except Unavailable:
            raise
        except HeddleError as refused:
            if len(events) == 1:
                return [refused]
        else:
            return [_recorded(placed, together.duplicate) for placed in together.placed]
        alone = await asyncio.gather(
            *(self._services.ledger.append([event]) for event in events), return_exceptions=True
        )
        results: list[dict[str, Any] | HeddleError] = []
        for result in alone:
            match result:
                case Appended():
                    results.append(_recorded(result.placed[0], result.duplicate))
                case HeddleError() if not isinstance(result, Unavailable):
                    results.append(result)
                case _:
                    raise result
        return results


@dataclass(frozen=True, slots=True)
class _Judged:
    """A frame's own number, where it could be read, and the event that records it or its fault."""

    sequence: int | None
    verdict: NewEvent | HeddleError


class _FrameCheck:
    """Holds frames against their assets, their types and the clock.

    Parameters
    ----------
    assets : the assets that the frames name, as they are now, or why they cannot be read
    future_s_max : how far ahead of `now` a frame may end
    """

    def __init__(
        self, assets: Mapping[str, Asset | HeddleError], now: datetime, future_s_max: float
    ) -> None:
        self._assets = assets
        self._future_s_max = future_s_max
        self._latest_ns = int((now.timestamp() + future_s_max) * 1e9)
        self._unit_faults: dict[tuple[int, str], HeddleError | None] = {}

    def fault(self, frame: Frame) -> HeddleError | None:
        """Return why `frame` cannot be recorded, or None."""
        asset_id = frame.header.asset
        match self._assets.get(asset_id):
            case HeddleError() as unreadable:
                return unreadable
            case Retired():
                return retired_asset(asset_id)
            case Registered() as asset:
                return self._unit_fault(frame.header, asset) or self._time_fault(frame)
            case _:
                return unknown_asset(asset_id)

    def marked(self, frames: Sequence[Frame]) -> list[Frame]:
        """Return `frames`, all without a fault, with what is out of range marked BAD."""
        marked = list(frames)
        by_type: dict[str, list[int]] = {}
        for place, frame in enumerate(frames):
            asset = self._assets[frame.header.asset]
            assert isinstance(asset, Registered), "a frame of another asset has a fault"
            by_type.setdefault(asset.asset_type, []).append(place)
        for name, places in by_type.items():
            of_type = mark_all_out_of_range([frames[place] for place in places], asset_type(name))
            for place, frame in zip(places, of_type, strict=True):
                marked[place] = frame
        return marked

    def _unit_fault(self, header: FrameHeader, asset: Registered) -> HeddleError | None:
        # The frames of a request hold their headers, so nobody else comes by the same identity.
        key = (id(header.alike), asset.asset_type)
        if key not in self._unit_faults:
            try:
                check_units(header, asset_type(asset.asset_type))
            except HeddleError as error:
                self._unit_faults[key] = error
            else:
                self._unit_faults[key] = None
        return self._unit_faults[key]

    def _time_fault(self, frame: Frame) -> HeddleError | None:
        if frame.window_start_ns < 0:
            return InvalidInput(
                "frame.time_before_1970",
                f"the frame starts at {frame.window_start_ns} ns, before 1970",
                value=frame.window_start_ns,
                limit=0,
            )
        if frame.window_end_ns > self._latest_ns:
            return InvalidInput(
                "frame.time_in_future",
                f"the frame ends at {frame.window_end_ns} ns, more than {self._future_s_max} s "
                "ahead of the server's clock",
                hint="check the clock and the time zone of the source",
                value=frame.window_end_ns,
                limit=self._latest_ns,
            )
        return None


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


def _recorded(placed: Placed, duplicate: bool) -> dict[str, Any]:
    return {"status": "duplicate" if duplicate else "accepted", "position": placed.position}


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

    async def known(self, asset_ids: set[str]) -> dict[str, Asset | HeddleError]:
        """Return those of `asset_ids` that exist, as they are now.

        One statement, and a load for each asset that has changed. In place of an asset whose
        facts cannot be read stands the error `asset.unreadable`.
        """
        if len(self._known) > ASSETS_KNOWN_MAX:
            self._known.clear()
        streams = {asset_stream(asset_id): asset_id for asset_id in asset_ids}
        found: dict[str, Asset | HeddleError] = {}
        if not streams:
            return found
        try:
            versions = await read_versions(self._ledger.pool, self._ledger.ledger_id, list(streams))
            for stream, version in versions.items():
                found[streams[stream]] = await self._at(streams[stream], version)
        except CONNECTION_LOST as error:
            raise Unavailable(
                "ledger.unavailable",
                "the database cannot be reached",
                hint="send the batch again; nothing is recorded twice",
            ) from error
        return found

    async def _at(self, asset_id: str, version: int) -> Asset | HeddleError:
        entry = self._known.get(asset_id)
        if entry is None or entry[0] != version:
            try:
                asset, loaded = await self._gone_on(asset_id, version) or await load_asset(
                    self._ledger, asset_id
                )
            except Unavailable:
                raise
            except (HeddleError, AssertionError) as error:
                # An unknown fact, or one that has no place in the life of an asset. It is not
                # remembered: a server that can read it ends this at once.
                return CommandRejected(
                    "asset.unreadable",
                    f"what is recorded of asset {asset_id!r} cannot be read: {error}",
                    hint="its frames wait until a server that can read it runs",
                    value=asset_id,
                )
            entry = self._known[asset_id] = (loaded, asset)
        return entry[1]

    async def _gone_on(self, asset_id: str, version: int) -> tuple[Asset, int] | None:
        """Return the asset as what has come since makes it, and its version.

        None where it has to be told from its beginning: it was not known, or what has come is no
        simple continuation. An asset has alerts for years, and each would else be read again.
        """
        if asset_id not in self._known:
            return None
        known, asset = self._known[asset_id]
        stream = asset_stream(asset_id)
        events = await read_stream(self._ledger, stream, from_version=known + 1)
        if not events or events[-1].version < version:
            return None
        if any(event.erased or event.type in (CORRECTED, SIGNED) for event in events):
            return None
        for event in events:
            asset = evolve(asset, event.fact)
        return asset, events[-1].version
