"""What the log holds already: its head, the versions of streams, and events by their keys."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import asyncpg

from eventlog.appends import Append, Appended, IdempotencyKey, Placed
from eventlog.batch import Existing, Head, Known, Stored, check_same_content
from eventlog.database import Connection, Pool

_CONTENT: Final = (
    "e.stream, e.type, e.schema_version, e.payload_sha256, e.position, e.version, e.recorded_at"
)
_KEYED: Final = """
    select k.key, k.content_sha256, e.position, e.version, e.recorded_at
    from idempotency_key k join event e on e.ledger_id = k.ledger_id
        and e.position between k.first_position and k.last_position
    where k.ledger_id = $1 and k.key = any($2::text[]) order by e.position
"""


async def read_head(source: Pool | Connection, ledger_id: int, *, lock: bool = False) -> Head:
    """Return where a ledger ends; `lock` keeps it there until the transaction ends."""
    row = await source.fetchrow(
        "select position, recorded_at, frontier, root from ledger where ledger_id = $1"
        + (" for update" if lock else ""),
        ledger_id,
    )
    assert row is not None, "the ledger's row is never deleted"
    return Head(row["position"], row["recorded_at"], row["frontier"], row["root"])


async def read_versions(
    source: Pool | Connection, ledger_id: int, streams: Iterable[str]
) -> dict[str, int]:
    """Return the version of each of `streams` that exists."""
    rows = await source.fetch(
        "select stream, version from stream_head where ledger_id = $1 and stream = any($2::text[])",
        ledger_id,
        list(streams),
    )
    return {row["stream"]: row["version"] for row in rows}


async def read_positions(
    source: Pool | Connection, ledger_id: int, event_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, int]:
    """Return the position of each of `event_ids` that is recorded."""
    rows = await source.fetch(
        "select event_id, position from event_identity "
        "where ledger_id = $1 and event_id = any($2::uuid[])",
        ledger_id,
        list(event_ids),
    )
    return {row["event_id"]: row["position"] for row in rows}


async def recall(
    source: Pool | Connection, ledger_id: int, idempotency: IdempotencyKey
) -> Appended | None:
    """Return the outcome of an earlier append under the same key and content.

    Raises
    ------
    Conflict
        ``idempotency_key.reused``: the key was used for something else
    """
    rows = await source.fetch(_KEYED, ledger_id, [idempotency.key])
    if not rows:
        return None
    check_same_content(idempotency, rows[0]["content_sha256"])
    return Appended(tuple(_placed(row) for row in rows), duplicate=True)


async def read_known(connection: Connection, ledger_id: int, requests: Sequence[Append]) -> Known:
    """Return what the log holds under all keys of `requests`."""
    events = [event for request in requests for event in request.events]
    keys = [r.idempotency.key for r in requests if r.idempotency is not None]
    numbered = [event for event in events if event.source is not None]
    streams = {event.stream for event in events}.union(*(r.expected for r in requests))
    known = Known(versions=await read_versions(connection, ledger_id, streams))
    for row in await connection.fetch(
        f"""
        select i.event_id as found, {_CONTENT} from event_identity i
        join event e on e.ledger_id = i.ledger_id and e.position = i.position
        where i.ledger_id = $1 and i.event_id = any($2::uuid[])
        """,
        ledger_id,
        [event.event_id for event in events],
    ):
        known.identities[row["found"].int] = _existing(row)
    if numbered:
        for row in await connection.fetch(
            f"""
            select s.source as found, s.sequence, {_CONTENT}
            from unnest($2::text[], $3::bigint[]) as w(source, sequence)
            join source_sequence s on s.ledger_id = $1
                and s.source = w.source and s.sequence = w.sequence
            join event e on e.ledger_id = s.ledger_id and e.position = s.position
            """,
            ledger_id,
            [event.source for event in numbered],
            [event.sequence for event in numbered],
        ):
            known.sequences[row["found"], row["sequence"]] = _existing(row)
    if keys:
        placed: dict[str, list[Placed]] = {}
        for row in await connection.fetch(_KEYED, ledger_id, keys):
            places = placed.setdefault(row["key"], [])
            places.append(_placed(row))
            known.keys[row["key"]] = (row["content_sha256"], places)
    return known


def _placed(row: asyncpg.Record) -> Placed:
    return Placed(row["position"], row["version"], row["recorded_at"])


def _existing(row: asyncpg.Record) -> Existing:
    content = (row["stream"], row["type"], row["schema_version"], row["payload_sha256"])
    return Stored(content), _placed(row)
