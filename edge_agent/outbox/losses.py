"""Declared losses: readings that were, or would have been, accepted and are not kept.

Each is counted, told in the status, and reported to the server as a fact of the asset. Losses of
one source and reason that follow each other before they are reported are one: an outage that
drops a frame every second is told as what it is. A loss that cannot be written, because the disk
is full, is held in memory and written with whatever is written next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from domain.identifiers import uuid7
from edge_agent.outbox.records import AgentCommand, Loss
from edge_agent.outbox.store import Store

MUTATION: Final = "reportReadingsLost"
SETTLED_S: Final = 5.0
"""So long a loss may still grow before it is reported."""
OPEN_LOSSES_MAX: Final = 100
"""Losses of a source and reason that are not reported yet; beyond it they are told as one."""
JOINED_NS: Final = 1_000_000_000
"""Losses of unknown size that lie no further apart are one."""


class Losses:
    """The losses of an outbox. Its methods are parts of the outbox's transactions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unwritten: dict[tuple[str, str], Loss] = {}

    def hold(self, source: str, loss: Loss) -> None:
        """Remember `loss` until something can be written; such losses grow together."""
        key = (source, loss.reason)
        before = self._unwritten.get(key)
        self._unwritten[key] = loss if before is None else _joined(before, loss)

    def write_held(self, now_s: float) -> None:
        """Write what could not be written before; call `forget_held` once it is committed."""
        for (source, _), loss in self._unwritten.items():
            self.declare(source, loss, now_s)

    def forget_held(self) -> None:
        """Forget what was held: it is written."""
        self._unwritten.clear()

    @property
    def held(self) -> bool:
        """Whether a loss waits to be written."""
        return bool(self._unwritten)

    def declare(self, source: str, loss: Loss, now_s: float) -> None:
        """Keep and count `loss` of `source`, from the earlier of its times to the later.

        Clocks that are set back turn them round, and the server takes no such loss.
        """
        if loss.to_ns < loss.from_ns:
            loss = replace(loss, from_ns=loss.to_ns, to_ns=loss.from_ns)
        self._store.execute(
            "INSERT INTO loss_total VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET "
            "losses = losses + 1, readings = readings + excluded.readings",
            source,
            loss.reason,
            loss.count or 0,
        )
        latest = self._store.rows(
            "SELECT number, from_ns, to_ns, count FROM loss WHERE told = 0 AND source = ? "
            "AND reason = ? ORDER BY number DESC LIMIT ?",
            source,
            loss.reason,
            OPEN_LOSSES_MAX,
        )
        if latest:
            number, from_ns, to_ns, count = latest[0]
            before = Loss(loss.reason, from_ns, to_ns, count)
            if _are_one(before, loss) or len(latest) >= OPEN_LOSSES_MAX:
                joined = _joined(before, loss)
                self._store.execute(
                    "UPDATE loss SET from_ns = ?, to_ns = ?, count = ?, declared_at_s = ? "
                    "WHERE number = ?",
                    joined.from_ns,
                    joined.to_ns,
                    joined.count,
                    now_s,
                    number,
                )
                return
        self._store.execute(
            "INSERT INTO loss (source, reason, from_ns, to_ns, count, declared_at_s) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            source,
            loss.reason,
            loss.from_ns,
            loss.to_ns,
            loss.count,
            now_s,
        )

    def take_settled(self, now_s: float, agent: str) -> Iterator[AgentCommand]:
        """Yield the reports of losses that do not grow any more, and mark them told.

        Those of a source without an asset, or that is not configured any more, wait.
        """
        settled = self._store.rows(
            "SELECT number, source, asset, reason, from_ns, to_ns, count FROM loss "
            "JOIN source ON source.name = loss.source WHERE told = 0 AND asset <> '' "
            "AND (declared_at_s <= ? OR declared_at_s > ?) ORDER BY number LIMIT 100",
            now_s - SETTLED_S,
            now_s,
        )
        for number, source, asset, reason, from_ns, to_ns, count in settled:
            self._store.execute("DELETE FROM loss WHERE number = ?", number)
            loss_id = uuid7(max(0, to_ns) // 1_000_000, number.to_bytes(10, "big"))
            yield AgentCommand(
                MUTATION,
                {
                    "assetId": asset,
                    "source": source,
                    "reason": reason,
                    "since": _time(from_ns),
                    "until": _time(to_ns),
                    "readingCount": count,
                },
                f"{agent}:loss:{number}:{loss_id}",
            )

    def totals(self) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """Return readings lost by source and reason, and the number of losses by reason."""
        readings: dict[str, dict[str, int]] = {}
        losses: Counter[str] = Counter()
        for source, reason, count, lost in self._store.rows(
            "SELECT source, reason, losses, readings FROM loss_total ORDER BY 1, 2"
        ):
            readings.setdefault(source, {})[reason] = lost
            losses[reason] += count
        return readings, dict(losses)


def _are_one(before: Loss, loss: Loss) -> bool:
    """Whether two losses of a reason are told as one without saying less."""
    if before.count is not None and loss.count is not None:
        return True
    apart = max(before.from_ns, loss.from_ns) - min(before.to_ns, loss.to_ns)
    return before.count is None and loss.count is None and apart <= JOINED_NS


def _joined(before: Loss, loss: Loss) -> Loss:
    known = before.count is not None and loss.count is not None
    return Loss(
        loss.reason,
        min(before.from_ns, loss.from_ns),
        max(before.to_ns, loss.to_ns),
        (before.count or 0) + (loss.count or 0) if known else None,
    )


def _time(time_ns: int) -> str:
    moment = datetime.fromtimestamp(min(max(0, time_ns), 253402300799 * 10**9) / 1e9, UTC)
    return moment.isoformat(timespec="microseconds")
