"""The uplink: sends what the outbox holds and does what the server answers, frame by frame.

A frame leaves the outbox only when the server says `accepted` or `duplicate`. A request that
fails is repeated for ever, with growing pauses; a frame that is rejected is put aside, unless
the rejection is one of those that pass (`RETRYABLE_CODES`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from domain.errors import Unavailable
from edge_agent.outbox import Outbox, PendingFrame, Rejection
from edge_agent.settings import Settings
from edge_agent.uplink.transport import BatchAnswer, FrameResult, RequestFailed, Transport
from edge_agent.waiting import wait_up_to

ASSET_UNKNOWN: Final = "asset.unknown"
TIME_IN_FUTURE: Final = "frame.time_in_future"
"""A frame whose time has not come is put aside; the earliest are sent again now and then."""
FUTURE_RETRY_S: Final = 10.0
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
IDLE_POLL_S: Final = 2.0
"""The outbox is looked at so often even when nobody put a frame: another process may have."""

FRESH_S: Final = 5.0
"""A frame of a live source that is younger goes before those that wait since an outage."""
FRESH_SAMPLE_S: Final = 1.0

_log = logging.getLogger("heddle.edge.uplink")


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

    After an outage what is fresh does not wait for what is old: it goes first in each batch, and
    the old takes the rest (`edge_agent.outbox.selection.FRESH_SHARE`).

    Parameters
    ----------
    frames_waiting : set whenever the outbox has got a frame
    outbox_moved : set by the uplink whenever frames have left the outbox
    """

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        settings: Settings,
        frames_waiting: asyncio.Event,
        outbox_moved: asyncio.Event,
    ) -> None:
        self.counts = UplinkCounts()
        self._outbox = outbox
        self._transport = transport
        self._settings = settings
        self._frames_waiting = frames_waiting
        self._outbox_moved = outbox_moved
        self._backoff = self._new_backoff()
        self._held: dict[str, _Held] = {}
        self._bytes_max = settings.batch_bytes_max
        self._failures: set[str] = set()
        self._failed_since_s = 0.0
        self._rejection_codes: set[str] = set()
        self._put_by: deque[tuple[float, int]] = deque()
        self._early: set[int] = set()
        self._early_due_s = 0.0
        self.last_answer_s: float | None = None

    @property
    def failing_since_s(self) -> float | None:
        """Since when, on the loop's clock, no request was answered; None while they are."""
        return self._failed_since_s if self._failures else None

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
        self._retry_early(now_s)
        held = {source for source, hold in self._held.items() if hold.until_s > now_s}
        frames = self._outbox.pending(
            self._settings.batch_frames_max,
            self._bytes_max - self._transport.frames_bytes_overhead,
            held,
            self._fresh_from(now_s),
        )
        if not frames:
            return None
        try:
            with self._outbox.sending(frames):
                answer = await self._transport.send_frames(frames)
            self.last_answer_s = asyncio.get_running_loop().time()
            return self._settle(frames, answer)
        except RequestFailed as failure:
            return self._after_failure(failure, frames)
        except Unavailable as full:  # the disk: what was acknowledged is sent again
            return self._after_failure(RequestFailed(full.code, full.message), frames)

    def _fresh_from(self, now_s: float) -> int | None:
        """Return the number from which on frames are fresh; None where only recordings are sent."""
        samples = self._put_by
        if not samples or now_s - samples[-1][0] >= FRESH_SAMPLE_S:
            samples.append((now_s, self._outbox.last_sequence))
        while len(samples) > 1 and now_s - samples[1][0] >= FRESH_S:
            samples.popleft()
        return samples[0][1] + 1 if self._outbox.has_live_sources else None

    def _retry_early(self, now_s: float) -> None:
        """Queue some of the frames again for which it was too early.

        No clock is asked: which one was wrong is not known, the server's answer says whether it
        is still too early.
        """
        if now_s < self._early_due_s:
            return
        self._early_due_s = now_s + FUTURE_RETRY_S
        with suppress(Unavailable):  # the disk; in a while again
            count_max = self._settings.batch_frames_max
            self._early |= set(self._outbox.retry_earliest(TIME_IN_FUTURE, count_max))

    async def _wait_for_frames(self) -> None:
        now_s = asyncio.get_running_loop().time()
        waits_s = [hold.until_s - now_s for hold in self._held.values()]
        timeout_s = min([IDLE_POLL_S, *(wait_s for wait_s in waits_s if wait_s > 0)])
        await wait_up_to(self._frames_waiting, timeout_s)

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
            _log.warning("the server at %s takes no frames: %s", self._transport.address, failure)
        return max(failure.retry_after_s, self._backoff.next_delay_s())

    # --- the answer -----------------------------------------------------------------------

    def _settle(self, frames: Sequence[PendingFrame], answer: BatchAnswer) -> float:
        stored: dict[int, int] = {}
        rejections: list[Rejection] = []
        unknown_assets: dict[str, FrameResult] = {}
        passing: dict[str, str] = {}
        answered_sources: set[str] = set()
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
                    stored[frame.sequence] = result.position or 0
                    answered_sources.add(frame.source)
                    if result.status == "accepted":
                        self.counts.accepted += 1
                    else:
                        self.counts.duplicate += 1
        self._outbox.acknowledge(list(stored), max(stored.values(), default=0), stored)
        if not self._early.isdisjoint(stored):
            self._early_due_s = 0.0  # their time has come; there may be more of them
        self._early.difference_update(frame.sequence for frame in frames)
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
