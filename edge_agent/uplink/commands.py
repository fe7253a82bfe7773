"""The uplink of commands: predictions, reports and declared losses as mutations, in their order.

Beside the frames, never behind them. A command leaves the outbox when the server has carried it
out, now or before. One that is refused is put aside with its code; one that is refused for
something that passes, such as an asset that nobody has registered yet, goes behind the others.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from domain.errors import Unavailable
from edge_agent.outbox import Outbox, PendingCommand, Rejection
from edge_agent.settings import Settings
from edge_agent.uplink.frames import Backoff
from edge_agent.uplink.transport import RequestFailed, RequestMalformed, Transport

COMMANDS_AT_ONCE_MAX: Final = 200
"""The server's bound on a batch."""
COMMAND_BYTES_MAX: Final = 512 * 1024
POLL_S: Final = 0.2
"""So often the outbox is asked; one indexed look that finds nothing takes microseconds."""
TIDY_EVERY_S: Final = 2.0

_log = logging.getLogger("heddle.edge.uplink")


@dataclass
class CommandCounts:
    """What became of commands since the process started."""

    carried_out: int = 0
    rejected: int = 0
    deferred: int = 0
    failed_requests: int = 0


class CommandUplink:
    """Sends the commands of one outbox to one server."""

    def __init__(self, outbox: Outbox, transport: Transport, settings: Settings) -> None:
        self.counts = CommandCounts()
        self._outbox = outbox
        self._transport = transport
        self._backoff = Backoff(settings.retry_delay_s_min, settings.retry_delay_s_max)
        self._at_once = COMMANDS_AT_ONCE_MAX
        self._failing: set[str] = set()
        self._told: set[str] = set()

    async def run(self) -> None:
        """Send for ever; end by being cancelled."""
        loop = asyncio.get_running_loop()
        tidied_s = -TIDY_EVERY_S
        while True:
            if loop.time() - tidied_s >= TIDY_EVERY_S:
                tidied_s = loop.time()
                self._tidy()
            pause_s = await self.send_batch()
            await asyncio.sleep(POLL_S if pause_s is None else pause_s)

    async def send_batch(self) -> float | None:
        """Send one batch; return the pause before the next, None when nothing can be sent."""
        pending = self._outbox.pending_commands(self._at_once, COMMAND_BYTES_MAX)
        if not pending:
            return None
        try:
            results = await self._transport.send_commands([one.command for one in pending])
        except RequestMalformed as malformed:
            return self._narrowed(pending, malformed)
        except RequestFailed as failure:
            return self._after_failure(failure)
        done: list[int] = []
        deferred: list[int] = []
        rejections: list[Rejection] = []
        for one, result in zip(pending, results, strict=True):
            if not result.code:
                done.append(one.number)
            elif result.is_passing:
                deferred.append(one.number)
                self._tell(one, result.code, result.message, "waits")
            else:
                rejections.append(Rejection(one.number, result.code, result.message))
                self._tell(one, result.code, result.message, "is put aside")
        try:
            self._outbox.settle_commands(done, rejections, deferred)
        except Unavailable as full:  # they are sent again, and recalled by their keys
            return self._after_failure(RequestFailed(full.code, full.message))
        self.counts.carried_out += len(done)
        self.counts.rejected += len(rejections)
        self.counts.deferred += len(deferred)
        self._at_once = COMMANDS_AT_ONCE_MAX
        if self._failing:
            _log.info("the server takes commands again")
            self._failing.clear()
        if deferred and not done and not rejections:
            return self._backoff.next_delay_s()
        self._backoff.reset()
        return 0.0

    def _narrowed(self, pending: list[PendingCommand], malformed: RequestMalformed) -> float:
        """Send fewer at once until the command that spoils the request stands alone."""
        if len(pending) > 1:
            self._at_once = max(1, len(pending) // 2)
            return 0.0
        one = pending[0]
        self._tell(one, malformed.code, malformed.message, "is put aside")
        try:
            self._outbox.settle_commands(
                [], [Rejection(one.number, malformed.code, malformed.message)]
            )
        except Unavailable as full:
            return self._after_failure(RequestFailed(full.code, full.message))
        self.counts.rejected += 1
        self._at_once = COMMANDS_AT_ONCE_MAX
        return 0.0

    def _after_failure(self, failure: RequestFailed) -> float:
        self.counts.failed_requests += 1
        if failure.code not in self._failing:
            self._failing.add(failure.code)
            _log.warning("the server takes no commands: %s", failure)
        return max(failure.retry_after_s, self._backoff.next_delay_s())

    def _tell(self, one: PendingCommand, code: str, message: str, outcome: str) -> None:
        if code not in self._told:
            self._told.add(code)
            _log.warning(
                "the command %s %s: %s: %s (told once for each code)",
                one.command.mutation,
                outcome,
                code,
                message,
            )

    def _tidy(self) -> None:
        try:
            self._outbox.tidy()
        except Unavailable as full:
            if full.code not in self._told:
                self._told.add(full.code)
                _log.error("%s (told once)", full)
