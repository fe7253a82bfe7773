"""Missing data: an alert while an asset in service says nothing for longer than its type allows.

That something did not happen is no event, so two parts share the work. `MissingDataPolicy` follows
the log: it remembers when each asset was last heard, and clears the alert when a frame arrives.
`SilenceWatch` looks at the clock now and then, and raises the alerts that are due.

An alert's identifier follows from the asset and from where in the log it was last heard. So several
processes that watch raise one alert, and an alert that was raised while a frame was on its way is
known as outdated when the policy reads it, and cleared at once.

Silence is counted by knowledge time (`recorded_at`): an agent that replays what it has kept is
heard. It is counted from the start of the watch at the earliest: while nobody listened nobody was
silent. An asset whose commissioning was told as history, with a factory's past that was imported,
is waited for once its first frame has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar, Final

from domain.asset import (
    AlertRaised,
    AssetCommissioned,
    AssetRegistered,
    AssetRetired,
    ClearAlert,
    RaiseAlert,
)
from domain.asset_model import EVERY_CHANNEL, Severity
from domain.asset_types import asset_type, asset_types
from domain.errors import CommandRejected, HeddleError, NotFound, Unavailable
from domain.events import FRAME_RECORDED
from domain.identifiers import derived_uuid7
from domain.maintenance.policy import is_history
from eventlog.commands import handle
from eventlog.database import CONNECTION_LOST, Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import PayloadOf
from projections.running.runner import ProjectionRunner

logger = logging.getLogger("heddle.projections")

ACTOR: Final = "policy:missing-data"
RULE: Final = "data_missing"
INTERVAL_S: Final = 10.0
FOLD_TIMEOUT_S: Final = 10.0
ALERTS_AT_ONCE_MAX: Final = 100
"""Alerts that one look raises; the rest, longest silent first, is raised by the next."""


NEVER: Final = 0
"""Where an asset was last heard that is known from history alone: nobody waits for it."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """When and where in the log an asset was last heard, and the alert that is raised for it."""

    asset_type: str
    in_service: bool
    at: datetime
    position: int
    alert_id: uuid.UUID | None = None


def alert_of(ledger: Ledger, asset_id: str, heard_at: datetime, heard_position: int) -> uuid.UUID:
    """Return the identifier of the alert for the silence after `heard_position`."""
    time_ms = int(heard_at.timestamp() * 1000)
    return derived_uuid7(time_ms, ledger.name, ACTOR, asset_id, str(heard_position))


# --- what follows the log -----------------------------------------------------------------


class MissingDataPolicy:
    """Remembers when assets were heard, and clears the alert of one that is heard again."""

    name: ClassVar[str] = "missing-data"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (
        FRAME_RECORDED,
        "asset.registered",
        "asset.commissioned",
        "asset.retired",
        "asset.alert_raised",
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("telemetry_silence",)
    commands_as: ClassVar[str] = ACTOR

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`, and clear the alerts that they outdate."""
        known = await _load(connection, ledger, events)
        retired: set[str] = set()
        for event in events:
            asset_id = event.stream.partition(":")[2]
            heard = known.get(asset_id)
            if event.is_frame:
                if heard is not None:
                    known[asset_id] = await _hear(ledger, asset_id, heard, event)
                continue
            match event.fact:
                case AssetRegistered(asset_type=type_name):
                    known[asset_id] = _Heard(type_name, False, event.recorded_at, event.position)
                case AssetCommissioned() if heard is not None:
                    history = is_history(event.occurred_at, event.recorded_at)
                    at, position = event.recorded_at, NEVER if history else event.position
                    known[asset_id] = replace(heard, in_service=True, at=at, position=position)
                case AssetRetired():
                    known.pop(asset_id, None)
                    retired.add(asset_id)
                case AlertRaised(rule=rule, alert_id=alert_id) if heard and rule == RULE:
                    known[asset_id] = await _note(ledger, asset_id, heard, alert_id, event)
        await _store(connection, ledger.ledger_id, known)
        if retired:
            await connection.execute(
                "delete from telemetry_silence where ledger_id = $1 and asset_id = any($2)",
                ledger.ledger_id,
                sorted(retired),
            )


async def _hear(ledger: Ledger, asset_id: str, heard: _Heard, frame: RecordedEvent) -> _Heard:
    """Return that the asset was heard; the alert that stands is cleared."""
    if heard.alert_id is not None:
        await _clear(ledger, asset_id, heard.alert_id, frame)
    return replace(heard, at=frame.recorded_at, position=frame.position, alert_id=None)


async def _note(
    ledger: Ledger, asset_id: str, heard: _Heard, alert_id: uuid.UUID, raised: RecordedEvent
) -> _Heard:
    """Return that an alert stands; one for a silence that is over by now is cleared."""
    if alert_id == alert_of(ledger, asset_id, heard.at, heard.position):
        return replace(heard, alert_id=alert_id)
    if raised.actor == ACTOR:
        await _clear(ledger, asset_id, alert_id, raised)
    return heard


async def _clear(ledger: Ledger, asset_id: str, alert_id: uuid.UUID, cause: RecordedEvent) -> None:
    key = f"{ACTOR}:{alert_id}:clear"
    time_ms = int(cause.recorded_at.timestamp() * 1000)
    try:
        await handle(
            ledger,
            ClearAlert(asset_id, alert_id, value=0.0),
            actor=ACTOR,
            occurred_at=cause.recorded_at,
            event_id=lambda n: derived_uuid7(time_ms, ledger.name, key, str(n)),
            idempotency=IdempotencyKey.of(key, key.encode()),
            causation_id=cause.event_id,
            traceparent=cause.traceparent,
        )
    except (NotFound, CommandRejected) as refused:
        # It was retired meanwhile, or somebody else cleared the alert: nothing is left to do.
        logger.info("missing data: alert of %s is not cleared: %s", asset_id, refused)


async def _load(
    connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
) -> dict[str, _Heard]:
    rows = await connection.fetch(
        "select asset_id, asset_type, in_service, heard_at, heard_position, alert_id "
        "from telemetry_silence where ledger_id = $1 and asset_id = any($2)",
        ledger.ledger_id,
        list({event.stream.partition(":")[2] for event in events}),
    )
    return {asset_id: _Heard(*heard) for asset_id, *heard in rows}


async def _store(connection: Connection, ledger_id: int, known: dict[str, _Heard]) -> None:
    # Sorted, so that two processes that fold at once lock rows in one order.
    asset_ids = sorted(known)
    heard = [known[asset_id] for asset_id in asset_ids]
    await connection.execute(
        """
        insert into telemetry_silence
            (ledger_id, asset_id, asset_type, in_service, heard_at, heard_position, alert_id)
        select $1, * from unnest(
            $2::text[], $3::text[], $4::boolean[], $5::timestamptz[], $6::bigint[], $7::uuid[])
        on conflict (ledger_id, asset_id) do update set
            asset_type = excluded.asset_type, in_service = excluded.in_service,
            heard_at = excluded.heard_at, heard_position = excluded.heard_position,
            alert_id = excluded.alert_id
        """,
        ledger_id,
        asset_ids,
        [one.asset_type for one in heard],
        [one.in_service for one in heard],
        [one.at for one in heard],
        [one.position for one in heard],
        [one.alert_id for one in heard],
    )


# --- what looks at the clock --------------------------------------------------------------


class SilenceWatch:
    """Raises the alerts of assets that have been silent for too long.

    Parameters
    ----------
    runner : folds a `MissingDataPolicy`; nothing is judged before it has caught up
    now : the time, UTC
    """

    def __init__(
        self, ledger: Ledger, runner: ProjectionRunner, now: Callable[[], datetime]
    ) -> None:
        self.failure: str | None = None
        self._ledger = ledger
        self._runner = runner
        self._now = now
        self._since = now()
        self._task: asyncio.Task[None] | None = None

    def start(self, interval_s: float = INTERVAL_S) -> None:
        """Look every `interval_s` from now on, until it is closed."""
        self._task = asyncio.create_task(self._run(interval_s), name="silence-watch")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> int:
        """Raise at most `ALERTS_AT_ONCE_MAX` alerts that are due; return how many were.

        Raises
        ------
        Unavailable
            ``projection.behind``: whoever was heard lately cannot be told from whoever was not
        """
        now = self._now()
        await self._runner.wait_for(await self._ledger.head(), FOLD_TIMEOUT_S)
        silent = await self._silent(now)
        for asset_id, type_name, heard_at, heard_position in silent:
            await self._raise(asset_id, type_name, heard_at, heard_position)
        return len(silent)

    async def _silent(self, now: datetime) -> list[tuple[str, str, datetime, int]]:
        """Return those that were silent too long at `now`, longest first, with when last heard."""
        limits = {
            described.name: described.stale_after_s
            for described in asset_types().values()
            if described.channels
        }
        rows = await self._ledger.pool.fetch(
            f"""
            select asset_id, asset_type, heard_at, heard_position
            from telemetry_silence
            join unnest($2::text[], $3::float8[]) as limits(asset_type, silent_s_max)
                using (asset_type)
            where ledger_id = $1 and in_service and alert_id is null and heard_position > {NEVER}
                and greatest(heard_at, $4) + silent_s_max * interval '1 second' < $5
            order by heard_at, asset_id limit $6
            """,
            self._ledger.ledger_id,
            list(limits),
            list(limits.values()),
            self._since,
            now,
            ALERTS_AT_ONCE_MAX,
        )
        return [tuple(row) for row in rows]

    async def _raise(
        self, asset_id: str, type_name: str, heard_at: datetime, heard_position: int
    ) -> None:
        silent_s_max = asset_type(type_name).stale_after_s
        alert_id = alert_of(self._ledger, asset_id, heard_at, heard_position)
        key = f"{ACTOR}:{alert_id}:raise"
        due_at = max(heard_at, self._since) + timedelta(seconds=silent_s_max)
        command = RaiseAlert(
            asset_id=asset_id,
            alert_id=alert_id,
            rule=RULE,
            severity=Severity.WARNING,
            channel=EVERY_CHANNEL.name,
            value=silent_s_max,
            limit=silent_s_max,
            since=heard_at,
            message=f"nothing was heard for more than {silent_s_max:g} s",
        )
        time_ms = int(heard_at.timestamp() * 1000)
        try:
            # The key alone is the content: another process may have begun to watch later.
            await handle(
                self._ledger,
                command,
                actor=ACTOR,
                occurred_at=due_at,
                event_id=lambda n: derived_uuid7(time_ms, self._ledger.name, key, str(n)),
                idempotency=IdempotencyKey.of(key, key.encode()),
            )
        except (NotFound, CommandRejected) as refused:
            logger.info("missing data: no alert for %s: %s", asset_id, refused)

    async def _run(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.look()
            except (HeddleError, *CONNECTION_LOST) as error:
                if self.failure is None and not isinstance(error, Unavailable):
                    logger.error("missing data is not watched: %s", error)
                self.failure = str(error)
            except Exception as error:
                if self.failure is None:
                    logger.exception("missing data is not watched")
                self.failure = f"{type(error).__name__}: {error}"
            else:
                if self.failure is not None:
                    logger.info("missing data is watched again")
                self.failure = None
