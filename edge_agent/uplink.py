"""The uplink: sends what the outbox holds and does what the server answers, frame by frame.

A frame leaves the outbox only when the server says `accepted` or `duplicate`. A request that
fails is repeated for ever, with growing pauses; a frame that is rejected is put aside, unless
the rejection is one of those that pass (`RETRYABLE_CODES`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Literal

import httpx
import msgspec
from opentelemetry import propagate, trace

from domain.errors import Unavailable
from domain.frame_batches import BATCH_MEDIA_TYPE, BatchItem, encode_batch
from edge_agent.outbox import Outbox, PendingFrame, Rejection
from edge_agent.settings import Settings
from edge_agent.waiting import wait_up_to

FRAMES_PATH: Final = "/v1/frames"
ASSET_UNKNOWN: Final = "asset.unknown"
ACCESS_DENIED: Final = "access.denied"
BATCH_UNPACKS_TOO_FAR: Final = "batch.unpacks_too_far"
RETRYABLE_CODES: Final = frozenset(
    {
        ACCESS_DENIED,
        ASSET_UNKNOWN,
        BATCH_UNPACKS_TOO_FAR,
        "batch.truncated",
        "frame.checksum",
        "ledger.unavailable",
    }
)
"""Rejections that pass: the frame was harmed on its way, or its time has not come yet."""
BATCH_HEADER_BYTES: Final = len(encode_batch(()))
RESPONSE_BYTES_MAX: Final = 4 * 1024 * 1024
RETRY_AFTER_S_MAX: Final = 3600.0
IDLE_POLL_S: Final = 2.0
"""The outbox is looked at so often even when nobody put a frame: another process may have."""

_log = logging.getLogger("heddle.edge.uplink")
_tracer = trace.get_tracer("heddle.edge")


class FrameResult(msgspec.Struct, frozen=True):
    """What became of one frame of a batch."""

    index: int
    status: Literal["accepted", "duplicate", "rejected"]
    sequence: int | None = None
    position: int | None = None
    code: str = ""
    message: str = ""
    hint: str = ""


class BatchAnswer(msgspec.Struct, frozen=True):
    """The server's answer to a batch: one result a frame, in order."""

    results: list[FrameResult]


class RequestFailed(Unavailable):
    """A whole request failed; nothing is known of its frames and all are sent again.

    Parameters
    ----------
    retry_after_s : the pause the server asked for, 0 without one
    too_large : the server refuses bodies of this size
    """

    def __init__(
        self, code: str, message: str, *, retry_after_s: float = 0.0, too_large: bool = False
    ) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s
        self.too_large = too_large


@dataclass
class UplinkCounts:
    """What the uplink has done since the process started."""

    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    failed_requests: int = 0


@dataclass
class Backoff:
    """Pauses after failures: exponential, with full jitter, bounded.

    References
    ----------
    M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015 ("full jitter").
    """

    delay_s_min: float
    delay_s_max: float
    random: random.Random = field(default_factory=random.Random)
    failures: int = 0

    def next_delay_s(self) -> float:
        """Return the pause after one more failure."""
        longest_s = min(self.delay_s_max, self.delay_s_min * 2.0 ** min(self.failures, 64))
        self.failures += 1
        return self.random.uniform(0.0, longest_s)

    def reset(self) -> None:
        """Forget the failures."""
        self.failures = 0


@dataclass
class _Held:
    """A source whose asset the server does not know, or not from us, and when it tries again."""

    backoff: Backoff
    until_s: float = 0.0


class Uplink:
    """Sends frames of one outbox to one server.

    Parameters
    ----------
    client : whose base URL is the server
    frames_waiting : set whenever the outbox has got a frame
    outbox_moved : set by the uplink whenever frames have left the outbox
    """

    def __init__(
        self,
        outbox: Outbox,
        client: httpx.AsyncClient,
        settings: Settings,
        frames_waiting: asyncio.Event,
        outbox_moved: asyncio.Event,
    ) -> None:
        self.counts = UplinkCounts()
        self._outbox = outbox
        self._client = client
        self._settings = settings
        self._frames_waiting = frames_waiting
        self._outbox_moved = outbox_moved
        self._backoff = self._new_backoff()
        self._held: dict[str, _Held] = {}
        self._bytes_max = settings.batch_bytes_max
        self._failures: set[str] = set()
        self._failed_since_s = 0.0
        self._rejection_codes: set[str] = set()

    async def run(self) -> None:
        """Send for ever; end by being cancelled."""
        while True:
            pause_s = await self.send_batch()
            if pause_s is None:
                await self._wait_for_frames()
            else:
                await asyncio.sleep(pause_s)

    async def send_batch(self) -> float | None:
        """Send one batch; return the pause before the next, None when nothing can be sent."""
        self._frames_waiting.clear()
        now_s = asyncio.get_running_loop().time()
        held = {source for source, hold in self._held.items() if hold.until_s > now_s}
        frames = self._outbox.pending(
            self._settings.batch_frames_max, self._bytes_max - BATCH_HEADER_BYTES, held
        )
        if not frames:
            return None
        try:
            answer = await self._post(frames)
            return self._settle(frames, answer)
        except RequestFailed as failure:
            return self._after_failure(failure, frames)
        except Unavailable as full:  # the disk: what was acknowledged is sent again
            return self._after_failure(RequestFailed(full.code, full.message), frames)

    async def _wait_for_frames(self) -> None:
        now_s = asyncio.get_running_loop().time()
        waits_s = [hold.until_s - now_s for hold in self._held.values()]
        timeout_s = min([IDLE_POLL_S, *(wait_s for wait_s in waits_s if wait_s > 0)])
        await wait_up_to(self._frames_waiting, timeout_s)

    # --- the request ----------------------------------------------------------------------

    async def _post(self, frames: Sequence[PendingFrame]) -> BatchAnswer:
        body = encode_batch(BatchItem(frame.event_id, frame.encoded) for frame in frames)
        headers = {
            "content-type": BATCH_MEDIA_TYPE,
            "accept": "application/json",
            "accept-encoding": "identity",
        }
        attributes = {"heddle.frame_count": len(frames), "heddle.body_bytes": len(body)}
        with _tracer.start_as_current_span("heddle.edge.send", attributes=attributes):
            propagate.inject(headers)
            try:
                async with (
                    asyncio.timeout(self._settings.request_timeout_s),
                    self._client.stream(
                        "POST", FRAMES_PATH, content=body, headers=headers
                    ) as response,
                ):
                    raw = await _bounded_body(response)
            except TimeoutError as error:
                told = f"no answer within {self._settings.request_timeout_s:g} s"
                raise RequestFailed("uplink.timeout", told) from error
            except httpx.HTTPError as error:
                told = f"{type(error).__name__}: {error}"
                raise RequestFailed("uplink.unreachable", told) from error
        _check_status(response, raw)
        return _answer(raw, frames)

    def _after_failure(self, failure: RequestFailed, frames: Sequence[PendingFrame]) -> float:
        self.counts.failed_requests += 1
        if failure.too_large and len(frames) > 1:
            sent_bytes = sum(len(frame.encoded) for frame in frames)
            self._bytes_max = max(1, min(self._bytes_max, sent_bytes) // 2)
            _log.info("the server takes no such body; batches of %d bytes now", self._bytes_max)
            return 0.0
        if failure.too_large:
            self._put_aside([Rejection(frames[0].sequence, failure.code, failure.message)])
            return 0.0
        if not self._failures:
            self._failed_since_s = asyncio.get_running_loop().time()
        if failure.code not in self._failures:
            self._failures.add(failure.code)
            _log.warning("the server at %s takes no frames: %s", self._settings.server_url, failure)
        return max(failure.retry_after_s, self._backoff.next_delay_s())

    # --- the answer -----------------------------------------------------------------------

    def _settle(self, frames: Sequence[PendingFrame], answer: BatchAnswer) -> float:
        stored: list[int] = []
        rejections: list[Rejection] = []
        unknown_assets: dict[str, FrameResult] = {}
        passing: dict[str, str] = {}
        answered_sources: set[str] = set()
        position = 0
        for result, frame in zip(answer.results, frames, strict=False):
            match result:
                case FrameResult(status="rejected", code=code) if code in (
                    ASSET_UNKNOWN,
                    ACCESS_DENIED,
                ):
                    unknown_assets[frame.source] = result
                case FrameResult(status="rejected", code=code) if code in RETRYABLE_CODES:
                    passing[code] = result.message
                case FrameResult(status="rejected"):
                    told = f"{result.message} ({result.hint})" if result.hint else result.message
                    rejections.append(Rejection(frame.sequence, result.code, told))
                    answered_sources.add(frame.source)
                case _:
                    stored.append(frame.sequence)
                    answered_sources.add(frame.source)
                    position = max(position, result.position or 0)
                    if result.status == "accepted":
                        self.counts.accepted += 1
                    else:
                        self.counts.duplicate += 1
        self._outbox.acknowledge(stored, position)
        self._put_aside(rejections)
        self._outbox_moved.set()
        self._hold(unknown_assets, answered_sources)
        if stored:  # the frames before them were taken, so these come first the next time
            passing.pop(BATCH_UNPACKS_TOO_FAR, None)
        unanswered = len(frames) - len(answer.results)
        if passing or unanswered > 0:
            code, told = next(iter(passing.items()), ("uplink.unanswered", ""))
            told = told or f"{unanswered} frames of the batch were not answered"
            return self._after_failure(RequestFailed(code, told), frames)
        self._recovered()
        return 0.0

    def _put_aside(self, rejections: Sequence[Rejection]) -> None:
        self._outbox.reject(rejections)
        self.counts.rejected += len(rejections)
        for rejection in rejections:
            if rejection.code not in self._rejection_codes:
                self._rejection_codes.add(rejection.code)
                _log.error(
                    "frame %d was rejected and put aside: %s: %s (told once for each code; "
                    "`heddle agent status` counts them)",
                    rejection.sequence,
                    rejection.code,
                    rejection.message,
                )

    def _hold(self, unknown_assets: dict[str, FrameResult], answered_sources: set[str]) -> None:
        for source in answered_sources - unknown_assets.keys():
            if self._held.pop(source, None):
                _log.info("source %s: its asset is known now", source)
        for source, result in unknown_assets.items():
            if source not in self._held:
                self._held[source] = _Held(self._new_backoff())
                awaited = "registered" if result.code == ASSET_UNKNOWN else "this agent's"
                _log.warning(
                    "source %s waits until its asset is %s: %s", source, awaited, result.message
                )
            hold = self._held[source]
            hold.until_s = asyncio.get_running_loop().time() + hold.backoff.next_delay_s()

    def _recovered(self) -> None:
        if self._failures:
            lasted_s = asyncio.get_running_loop().time() - self._failed_since_s
            _log.info("the server takes frames again after %.1f s", lasted_s)
        self._failures.clear()
        self._backoff.reset()

    def _new_backoff(self) -> Backoff:
        return Backoff(self._settings.retry_delay_s_min, self._settings.retry_delay_s_max)


async def _bounded_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > RESPONSE_BYTES_MAX:
            raise RequestFailed(
                "uplink.answer_too_large", f"the answer takes more than {RESPONSE_BYTES_MAX} bytes"
            )
    return bytes(body)


def _check_status(response: httpx.Response, raw: bytes) -> None:
    """Raise `RequestFailed` unless the answer is about the frames."""
    status = response.status_code
    if status == httpx.codes.OK:
        return
    told = f"HTTP {status} {raw[:200].decode(errors='replace')!r}"
    raise RequestFailed(
        f"uplink.http_{status}",
        told,
        retry_after_s=_retry_after_s(response.headers.get("retry-after", "")),
        too_large=status == httpx.codes.REQUEST_ENTITY_TOO_LARGE,
    )


def _retry_after_s(text: str) -> float:
    """Return the pause a Retry-After header asks for, bounded; 0 when it asks for none."""
    if text.isascii() and text.isdigit():
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    wait_s = (moment - datetime.now(UTC)).total_seconds()
    return min(max(0.0, wait_s), RETRY_AFTER_S_MAX)


def _answer(raw: bytes, frames: Sequence[PendingFrame]) -> BatchAnswer:
    """Return the answer in `raw` if it is one to `frames`; otherwise nothing is believed of it."""
    try:
        answer = msgspec.json.decode(raw, type=BatchAnswer)
    except msgspec.DecodeError as error:
        told = f"the answer is not one to a batch of frames: {error}"
        raise RequestFailed("uplink.unreadable_answer", told) from error
    for index, result in enumerate(answer.results):
        expected = frames[index].sequence if index < len(frames) else None
        if result.index != index or (result.sequence not in (None, expected)):
            told = f"result {index} speaks of index {result.index}, sequence {result.sequence}"
            raise RequestFailed("uplink.unreadable_answer", told)
    return answer
