"""What is kept of webhooks beside the log: how far each is, and its deliveries.

A delivery is one message to one address, made once: each attempt sends the same id and the same
body. It waits (``PENDING``) until it is settled: ``DELIVERED``, ``DEAD`` (given up, and kept until
somebody has it tried again), or ``WITHDRAWN`` (what it tells of is out of sight now).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import asyncpg

from eventlog.database import Connection
from eventlog.ledger import Ledger
from projections.webhooks import WebhookRow

PRUNED_AT_ONCE_MAX: Final = 5_000


def utc_now() -> datetime:
    """Return the time, UTC: of attempts, which happen when they do."""
    return datetime.now(UTC)


class DeliveryState(StrEnum):
    """What became of a delivery."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """What is to be delivered.

    Parameters
    ----------
    after_position, position : it tells of what lies beyond the one, up to the other
    event_id, event_type, subject, occurred_at : of the last event that it tells of
    lane : deliveries of one lane go out one by one
    body : the JSON of the result
    sight : what the body was allowed to tell of, as `planning.fingerprint` has it
    """

    after_position: int
    position: int
    event_id: uuid.UUID
    event_type: str
    subject: str
    lane: str
    occurred_at: datetime
    body: bytes
    sight: bytes


@dataclass(slots=True)
class Delivery:
    """A delivery as it is kept; all but its body."""

    delivery_id: int
    webhook_id: str
    run: int
    after_position: int
    position: int
    event_id: uuid.UUID
    event_type: str
    subject: str
    lane: str
    occurred_at: datetime
    is_test: bool
    sight: bytes
    state: DeliveryState
    attempts: int
    created_at: datetime
    next_try_at: datetime | None
    attempted_at: datetime | None
    status_code: int | None
    duration_s: float | None
    failure_code: str | None
    failure: str | None

    @property
    def message_id(self) -> str:
        """The same for every attempt, and for whatever replays the event: ``webhook-id``."""
        return f"{self.webhook_id}_{self.event_id}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to.

    Parameters
    ----------
    quiet_until : until when the address asks to be left alone
    """

    state: DeliveryState
    at: datetime
    duration_s: float
    status_code: int | None = None
    next_try_at: datetime | None = None
    failure_code: str | None = None
    failure: str | None = None
    quiet_until: datetime | None = None


_COLUMNS: Final = ", ".join(Delivery.__slots__)


def _delivery(row: asyncpg.Record) -> Delivery:
    values: dict[str, Any] = dict(row)
    values["state"] = DeliveryState(values["state"])
    return Delivery(**values)


# --- how far ------------------------------------------------------------------------------


async def begin_run(ledger: Ledger, row: WebhookRow) -> int:
    """Return the position up to which the log is told in deliveries of `row`'s run.

    A run that is new begins where the webhook says; what waited of the one before is dropped, for
    it comes again.
    """
    async with ledger.pool.acquire() as connection, connection.transaction():
        held = await connection.fetchrow(
            "select run, planned_to from webhook_progress "
            "where ledger_id = $1 and webhook_id = $2 for update",
            ledger.ledger_id,
            row.webhook_id,
        )
        if held is not None and held["run"] >= row.run:
            planned_to: int = held["planned_to"]
            return planned_to
        await connection.execute(
            "delete from webhook_delivery where ledger_id = $1 and webhook_id = $2 "
            "and state = 'PENDING'",
            ledger.ledger_id,
            row.webhook_id,
        )
        await connection.execute(
            """
            insert into webhook_progress (ledger_id, webhook_id, run, planned_to)
            values ($1, $2, $3, $4)
            on conflict (ledger_id, webhook_id) do update
            set run = excluded.run, planned_to = excluded.planned_to
            """,
            ledger.ledger_id,
            row.webhook_id,
            row.run,
            row.webhook.after_position,
        )
        return row.webhook.after_position


async def plan(
    ledger: Ledger,
    row: WebhookRow,
    planned_from: int,
    deliveries: Sequence[NewDelivery],
    now: datetime,
) -> list[Delivery] | None:
    """Keep `deliveries` and move on to the last one's position, together or not at all.

    None where the webhook is not at `planned_from` any more: somebody else has planned, or it is
    replayed.
    """
    async with ledger.pool.acquire() as connection, connection.transaction():
        moved = await connection.fetchval(
            "update webhook_progress set planned_to = $5 where ledger_id = $1 and webhook_id = $2 "
            "and run = $3 and planned_to = $4 returning planned_to",
            ledger.ledger_id,
            row.webhook_id,
            row.run,
            planned_from,
            deliveries[-1].position,
        )
        if moved is None:
            return None
        return await _insert(connection, ledger, row, deliveries, now, is_test=False)


async def move_on(ledger: Ledger, row: WebhookRow, planned_from: int, planned_to: int) -> bool:
    """Write down that nothing is to be told up to `planned_to`; False as `plan` has it."""
    moved = await ledger.pool.fetchval(
        "update webhook_progress set planned_to = $5 where ledger_id = $1 and webhook_id = $2 "
        "and run = $3 and planned_to = $4 returning planned_to",
        ledger.ledger_id,
        row.webhook_id,
        row.run,
        planned_from,
        planned_to,
    )
    return moved is not None


async def plan_test(
    ledger: Ledger, row: WebhookRow, delivery: NewDelivery, now: datetime
) -> Delivery:
    """Keep a test, which no other delivery waits for; one that was kept before is returned."""
    async with ledger.pool.acquire() as connection, connection.transaction():
        # Of those who ask with the same key at the same time one makes it.
        await connection.execute("select pg_advisory_xact_lock(hashtext($1))", row.webhook_id)
        held = await connection.fetchrow(
            f"select {_COLUMNS} from webhook_delivery where ledger_id = $1 and webhook_id = $2 "
            "and is_test and position = $3",
            ledger.ledger_id,
            row.webhook_id,
            delivery.position,
        )
        if held is not None:
            return _delivery(held)
        (made,) = await _insert(connection, ledger, row, [delivery], now, is_test=True)
        return made


async def _insert(
    connection: Connection,
    ledger: Ledger,
    row: WebhookRow,
    deliveries: Sequence[NewDelivery],
    now: datetime,
    *,
    is_test: bool,
) -> list[Delivery]:
    rows = await connection.fetch(
        f"""
        insert into webhook_delivery (ledger_id, webhook_id, run, after_position, position,
            event_id, event_type, subject, lane, occurred_at, is_test, body, sight, state,
            created_at, next_try_at)
        select $1, $2, $3, told.after_position, told.position, told.event_id, told.event_type,
            told.subject, told.lane, told.occurred_at, $4, told.body, told.sight, 'PENDING',
            $5, $5
        from unnest($6::bigint[], $7::bigint[], $8::uuid[], $9::text[], $10::text[], $11::text[],
            $12::timestamptz[], $13::bytea[], $14::bytea[]) with ordinality
            as told (after_position, position, event_id, event_type, subject, lane, occurred_at,
                body, sight, n)
        order by n
        returning {_COLUMNS}
        """,
        ledger.ledger_id,
        row.webhook_id,
        row.run,
        is_test,
        now,
        [each.after_position for each in deliveries],
        [each.position for each in deliveries],
        [each.event_id for each in deliveries],
        [each.event_type for each in deliveries],
        [each.subject for each in deliveries],
        [each.lane for each in deliveries],
        [each.occurred_at for each in deliveries],
        [each.body for each in deliveries],
        [each.sight for each in deliveries],
    )
    return sorted(map(_delivery, rows), key=lambda each: each.position)


# --- deliveries ---------------------------------------------------------------------------


async def pending(ledger: Ledger, row: WebhookRow, limit: int) -> list[Delivery]:
    """Return what waits of a webhook, in the order of the log."""
    rows = await ledger.pool.fetch(
        f"select {_COLUMNS} from webhook_delivery where ledger_id = $1 and webhook_id = $2 "
        "and state = 'PENDING' and not is_test order by position, delivery_id limit $3",
        ledger.ledger_id,
        row.webhook_id,
        limit,
    )
    return list(map(_delivery, rows))


async def body_of(ledger: Ledger, delivery_id: int) -> bytes | None:
    """Return the body of a delivery; None where it is gone."""
    body: bytes | None = await ledger.pool.fetchval(
        "select body from webhook_delivery where ledger_id = $1 and delivery_id = $2",
        ledger.ledger_id,
        delivery_id,
    )
    return body


async def refresh(ledger: Ledger, delivery: Delivery, body: bytes, sight: bytes) -> None:
    """Have a delivery that waits tell what may be seen of it now."""
    await ledger.pool.execute(
        "update webhook_delivery set body = $3, sight = $4 "
        "where ledger_id = $1 and delivery_id = $2 and state = 'PENDING'",
        ledger.ledger_id,
        delivery.delivery_id,
        body,
        sight,
    )
    delivery.sight = sight


async def settle(ledger: Ledger, delivery: Delivery, outcome: Outcome) -> bool:
    """Write down what an attempt came to; False where somebody else has settled it meanwhile."""
    attempts = delivery.attempts + (outcome.state is not DeliveryState.WITHDRAWN)
    updated = await ledger.pool.fetchval(
        """
        update webhook_delivery set state = $3, attempts = $4, attempted_at = $5,
            duration_s = $6, status_code = $7, next_try_at = $8, failure_code = $9, failure = $10
        where ledger_id = $1 and delivery_id = $2 and state = 'PENDING' returning delivery_id
        """,
        ledger.ledger_id,
        delivery.delivery_id,
        outcome.state.value,
        attempts,
        outcome.at,
        outcome.duration_s,
        outcome.status_code,
        outcome.next_try_at,
        outcome.failure_code,
        outcome.failure,
    )
    if updated is None:
        return False
    delivery.state, delivery.attempts = outcome.state, attempts
    delivery.next_try_at, delivery.attempted_at = outcome.next_try_at, outcome.at
    delivery.status_code, delivery.duration_s = outcome.status_code, outcome.duration_s
    delivery.failure_code, delivery.failure = outcome.failure_code, outcome.failure
    return True


async def revive(
    ledger: Ledger, webhook_id: str, delivery_ids: Sequence[int], now: datetime
) -> int:
    """Have deliveries wait again that were given up; return how many there were."""
    rows = await ledger.pool.fetch(
        """
        update webhook_delivery set state = 'PENDING', attempts = 0, created_at = $4,
            next_try_at = $4
        where ledger_id = $1 and webhook_id = $2 and delivery_id = any($3) and state = 'DEAD'
            and not is_test
        returning delivery_id
        """,
        ledger.ledger_id,
        webhook_id,
        list(delivery_ids),
        now,
    )
    return len(rows)


async def dead_among(ledger: Ledger, webhook_id: str, delivery_ids: Sequence[int]) -> set[int]:
    """Return those of `delivery_ids` that are given up."""
    rows = await ledger.pool.fetch(
        "select delivery_id from webhook_delivery where ledger_id = $1 and webhook_id = $2 "
        "and delivery_id = any($3) and state = 'DEAD' and not is_test",
        ledger.ledger_id,
        webhook_id,
        list(delivery_ids),
    )
    return {row["delivery_id"] for row in rows}


async def list_deliveries(
    ledger: Ledger,
    webhook_id: str,
    *,
    before: int | None,
    limit: int,
    states: Sequence[DeliveryState] = (),
) -> list[Delivery]:
    """Return deliveries of a webhook, the newest first."""
    rows = await ledger.pool.fetch(
        f"""
        select {_COLUMNS} from webhook_delivery
        where ledger_id = $1 and webhook_id = $2 and ($3::bigint is null or delivery_id < $3)
            and ($4::text[] is null or state = any($4))
        order by delivery_id desc limit $5
        """,
        ledger.ledger_id,
        webhook_id,
        before,
        [state.value for state in states] or None,
        limit,
    )
    return list(map(_delivery, rows))


@dataclass(frozen=True, slots=True)
class Backlog:
    """How a webhook keeps up.

    Parameters
    ----------
    planned_to : position up to which the log is told in deliveries; None: not begun
    oldest_at : when the event happened that has waited longest
    """

    planned_to: int | None
    pending: int
    dead: int
    oldest_at: datetime | None


async def backlogs(ledger: Ledger, webhook_ids: Sequence[str]) -> dict[str, Backlog]:
    """Return how each of `webhook_ids` keeps up, in one statement."""
    rows = await ledger.pool.fetch(
        """
        select asked.webhook_id, p.planned_to, w.pending, w.oldest_at, d.dead
        from unnest($2::text[]) as asked(webhook_id)
        left join webhook_progress p
            on p.ledger_id = $1 and p.webhook_id = asked.webhook_id
        cross join lateral (
            select count(*) as pending, min(created_at) as oldest_at from webhook_delivery
            where ledger_id = $1 and webhook_id = asked.webhook_id and state = 'PENDING'
                and not is_test
        ) w
        cross join lateral (
            select count(*) as dead from webhook_delivery
            where ledger_id = $1 and webhook_id = asked.webhook_id and state = 'DEAD'
                and not is_test
        ) d
        """,
        ledger.ledger_id,
        list(webhook_ids),
    )
    return {
        row["webhook_id"]: Backlog(row["planned_to"], row["pending"], row["dead"], row["oldest_at"])
        for row in rows
    }


async def forget_webhook(ledger: Ledger, webhook_id: str) -> None:
    """Be rid of all that is kept of a webhook that is no more."""
    async with ledger.pool.acquire() as connection, connection.transaction():
        for table in ("webhook_delivery", "webhook_progress", "webhook_secret"):
            await connection.execute(
                f"delete from {table} where ledger_id = $1 and webhook_id = $2",
                ledger.ledger_id,
                webhook_id,
            )


async def prune(ledger: Ledger, kept: timedelta, now: datetime) -> int:
    """Be rid of deliveries that were settled long ago, some at a time; return how many."""
    rows = await ledger.pool.fetch(
        """
        delete from webhook_delivery where delivery_id in (
            select delivery_id from webhook_delivery
            where ledger_id = $1 and state <> 'PENDING' and attempted_at < $2
            union all
            select delivery_id from webhook_delivery d join webhook w
                on w.ledger_id = d.ledger_id and w.webhook_id = d.webhook_id
            where d.ledger_id = $1 and d.state = 'PENDING' and w.status = 'DELETED'
            limit $3
        ) returning delivery_id
        """,
        ledger.ledger_id,
        now - kept,
        PRUNED_AT_ONCE_MAX,
    )
    return len(rows)


# --- the log's events ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """What a delivery takes from the event that it tells of."""

    position: int
    stream: str
    type: str
    event_id: uuid.UUID
    occurred_at: datetime


async def headers_of(ledger: Ledger, positions: Sequence[int]) -> dict[int, Header]:
    """Return the headers of the events at `positions`, by position."""
    rows = await ledger.pool.fetch(
        "select position, stream, type, event_id, occurred_at from event "
        "where ledger_id = $1 and position = any($2)",
        ledger.ledger_id,
        list(positions),
    )
    return {row["position"]: Header(**row) for row in rows}
