"""Erasure by law: payloads are gone from rows and archive alike, and the log says why.

It is recorded first, then carried out; whoever is killed in between leaves a recorded erasure
that the next `finish_erasures` carries out. The event, its leaf and every proof stay.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from domain.errors import InvalidInput, NotFound, Unavailable
from domain.events import decode_fact
from domain.ledger_events import PayloadsErased, ledger_stream
from eventlog.archive.payloads import BLOCKS, PAYLOADS_ERASED, store_at
from eventlog.archive.segments import (
    ArchivedLedger,
    LiveSegment,
    checked_windows,
    erase_rows,
    locked,
    publish,
    remove_unsettled,
    retire,
    segments_holding,
)
from eventlog.database import Connection
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger

POSITIONS_MAX: Final = 1_000_000
"""Of one call; more take several."""
POSITIONS_AN_EVENT_MAX: Final = 5_000
TEXT_LENGTH_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What an erasure did.

    Parameters
    ----------
    erased : payloads that are gone now
    erased_before : payloads among those wanted that were gone already
    recorded_at : positions of the events that record it
    """

    erased: int
    erased_before: int
    recorded_at: tuple[int, ...]


async def positions_of_stream(ledger: Ledger, stream: str) -> list[int]:
    """Return the positions of all events of `stream`.

    Raises
    ------
    NotFound
        ``stream.unknown``
    InvalidInput
        ``erasure.too_many``
    """
    rows = await ledger.pool.fetch(
        "select position from event where ledger_id = $1 and stream = $2 order by position "
        "limit $3",
        ledger.ledger_id,
        stream,
        POSITIONS_MAX + 1,
    )
    if not rows:
        raise NotFound("stream.unknown", f"no event is recorded on {stream!r}", value=stream)
    return [row["position"] for row in rows]


async def erase(
    ledger: Ledger,
    positions: Sequence[int],
    *,
    reason: str,
    actor: str,
    legal_basis: str = "",
    now: datetime,
    new_event_id: Callable[[], uuid.UUID],
) -> ErasureReport:
    """Erase the payloads of the events at `positions`, and record by whom and why.

    Once it returns they are in no row, file or block of the archive any more. What
    projections made of them, the database's dead rows until it is vacuumed, and backups are
    not its affair (docs/archive.md).

    Raises
    ------
    InvalidInput
        ``erasure.*``: no or too many positions, one that no event has, one of the ledger's own
        stream, a reason that is empty or too long
    Unavailable
        recorded, and not finished: run `finish_erasures` again
    """
    wanted = sorted(set(positions))
    _check_text("reason", reason, 1)
    _check_text("legal basis", legal_basis, 0)
    _check_amount(len(wanted))
    left = await _not_erased(ledger, wanted)
    recorded = []
    for start in range(0, len(left), POSITIONS_AN_EVENT_MAX):
        event = PayloadsErased(
            ledger.name,
            tuple(left[start : start + POSITIONS_AN_EVENT_MAX]),
            reason,
            legal_basis,
        )
        appended = await ledger.append(
            [
                new_fact(
                    ledger_stream(ledger.name),
                    event,
                    event_id=new_event_id(),
                    occurred_at=now,
                    actor=actor,
                )
            ]
        )
        recorded.append(appended.position)
    await finish_erasures(ArchivedLedger(ledger.pool, ledger.ledger_id, ledger.name))
    return ErasureReport(len(left), len(wanted) - len(left), tuple(recorded))


def _check_text(name: str, text: str, length_min: int) -> None:
    if not length_min <= len(text) <= TEXT_LENGTH_MAX:
        raise InvalidInput(
            "erasure.text",
            f"the {name} has {len(text)} characters, not {length_min} to {TEXT_LENGTH_MAX}",
            value=text[:80],
            limit=TEXT_LENGTH_MAX,
        )


def _check_amount(count: int) -> None:
    if not 1 <= count <= POSITIONS_MAX:
        raise InvalidInput(
            "erasure.too_many" if count else "erasure.nothing",
            f"{count} payloads are to be erased, not 1 to {POSITIONS_MAX}",
            value=count,
            limit=POSITIONS_MAX,
        )


async def _not_erased(ledger: Ledger, positions: Sequence[int]) -> list[int]:
    """Return those of `positions` whose payload is still there, after checking all of them."""
    rows = await ledger.pool.fetch(
        """
        select w.position, e.stream, e.payload_tier from unnest($2::bigint[]) as w(position)
        left join event e on e.ledger_id = $1 and e.position = w.position order by w.position
        """,
        ledger.ledger_id,
        list(positions),
    )
    for row in rows:
        if row["stream"] is None:
            raise InvalidInput(
                "erasure.no_such_event",
                f"no event stands at position {row['position']}",
                value=row["position"],
            )
        if row["stream"] == ledger_stream(ledger.name):
            raise InvalidInput(
                "erasure.own_record",
                f"event {row['position']} is of the ledger's own stream: keys and erasures are "
                "what the proof rests on",
                value=row["position"],
            )
    return [row["position"] for row in rows if row["payload_tier"] < 2]


# --- carrying out -------------------------------------------------------------------------


async def finish_erasures(ledger: ArchivedLedger) -> int:
    """Carry out every erasure that was recorded and is not finished; return how many.

    Raises
    ------
    Unavailable
        ``archive.*``: a file that holds such a payload cannot be rewritten or deleted now
    """
    finished = 0
    for event_position, erasure in await _unfinished(ledger):
        async with locked(ledger) as connection:
            await _carry_out(connection, ledger, erasure.positions)
            await connection.execute(
                "insert into erasure (ledger_id, position) values ($1, $2) on conflict do nothing",
                ledger.ledger_id,
                event_position,
            )
        finished += 1
    return finished


async def _unfinished(ledger: ArchivedLedger) -> list[tuple[int, PayloadsErased]]:
    rows = await ledger.pool.fetch(
        """
        select position, schema_version, payload from event e
        where ledger_id = $1 and stream = $2 and type = $3 and not exists (
            select from erasure d where d.ledger_id = e.ledger_id and d.position = e.position)
        order by position
        """,
        ledger.ledger_id,
        ledger_stream(ledger.name),
        PAYLOADS_ERASED,
    )
    return [
        (row["position"], decode_fact(PAYLOADS_ERASED, row["schema_version"], row["payload"]))
        for row in rows
    ]


async def _carry_out(
    connection: Connection, ledger: ArchivedLedger, positions: Sequence[int]
) -> None:
    for segment in await segments_holding(connection, ledger, positions):
        await _rewrite(connection, ledger, segment, frozenset(positions))
    await erase_rows(connection, ledger, positions)
    left = await remove_unsettled(connection, ledger)
    BLOCKS.clear()
    if left:
        raise Unavailable(
            "erasure.unfinished",
            f"{len(left)} archive files that hold erased payloads cannot be deleted now, the "
            f"first {left[0]}",
            hint="run `heddle erase --finish` once the archive can be reached",
            value=left[0],
        )


async def _rewrite(
    connection: Connection,
    ledger: ArchivedLedger,
    segment: LiveSegment,
    positions: frozenset[int],
) -> None:
    """Put a file without `positions` in the place of `segment`."""
    windows = await checked_windows(connection, ledger, segment)
    erased = [window.position for window in windows if window.position in positions]
    kept = [window for window in windows if window.position not in positions]
    if not kept:
        async with connection.transaction():
            await retire(connection, ledger, [segment], erased=erased)
        return
    await publish(
        connection,
        ledger,
        store_at(segment.url),
        segment.stream,
        kept,
        replaced=[segment],
        erased=erased,
    )
