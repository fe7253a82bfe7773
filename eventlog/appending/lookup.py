"""What the log holds already: its head, the versions of streams, and events by their keys."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import asyncpg

from eventlog.appending.appends import Append, Appended, IdempotencyKey, Placed
from eventlog.appending.batch import Existing, Head, Known, Stored, check_same_content
from eventlog.database import Connection, Pool

# Each key is looked up by itself: `offset 0` is what the planner does not look beyond. A plan that
# the writer's connection has made while a table was small would read all of it for ever, and that
# under the lock of the ledger. Events are asked for by a range, in order, because only their key
# gives them so: while there are few, every index that begins with the ledger looks as good.
_VERSIONS: Final = """
    from unnest($2::text[]) w (stream)
    cross join lateral (
        select s.version from stream_head s
        where s.ledger_id = $1 and s.stream = w.stream offset 0
    ) found
"""
_EVENT: Final = """
    cross join lateral (
        select e.stream, e.type, e.schema_version, e.payload_sha256, e.position, e.version,
            e.recorded_at
        from event e where e.ledger_id = $1
            and e.position between found.position and found.position
        order by e.position offset 0
    ) event
"""
_IDENTIFIED: Final = f"""
    from unnest($3::uuid[]) w (event_id)
    cross join lateral (
        select i.position from event_identity i
        where i.ledger_id = $1 and i.event_id = w.event_id offset 0
    ) found {_EVENT}
"""
_NUMBERED: Final = f"""
    from unnest($4::text[], $5::bigint[]) w (source, sequence)
    cross join lateral (
        select i.position from event_identity i
        where i.ledger_id = $1 and i.source = w.source and i.sequence = w.sequence offset 0
    ) found {_EVENT}
"""
_KNOWN: Final = f"""
    select null::uuid as event_id, null::text as source, null::bigint as sequence,
        w.stream, null::text as type, null::smallint as schema_version,
        null::bytea as payload_sha256, null::bigint as position, found.version,
        null::timestamptz as recorded_at
    {_VERSIONS}
    union all
    select w.event_id, null, null, event.* {_IDENTIFIED}
    union all
    select null, w.source, w.sequence, event.* {_NUMBERED}
"""
_KEYED: Final = """
    select w.key, found.content_sha256, event.* from unnest($2::text[]) w (key)
    cross join lateral (
        select k.content_sha256, k.first_position, k.last_position from idempotency_key k
        where k.ledger_id = $1 and k.key = w.key offset 0
    ) found
    cross join lateral (
        select e.position, e.version, e.recorded_at from event e where e.ledger_id = $1
            and e.position between found.first_position and found.last_position
        order by e.position offset 0
    ) event
    order by event.position
"""


_KEY_EXISTS: Final = "select exists (select from idempotency_key where ledger_id = $1 and key = $2)"


async def read_head(source: Pool | Connection, ledger_id: int) -> Head:
    """Return where a ledger ends."""
    row = await source.fetchrow(
        "select position, recorded_at, frontier, root from ledger where ledger_id = $1", ledger_id
    )
    assert row is not None, "the ledger's row is never deleted"
    return Head(row["position"], row["recorded_at"], row["frontier"], row["root"])


async def read_versions(
    source: Pool | Connection, ledger_id: int, streams: Iterable[str]
) -> dict[str, int]:
    """Return the version of each of `streams` that exists."""
    rows = await source.fetch(
        f"select w.stream, found.version {_VERSIONS}", ledger_id, list(streams)
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
    # Nearly every key is new, and to plan what comes after costs more than to look for it.
    if not await source.fetchval(_KEY_EXISTS, ledger_id, idempotency.key):
        return None
    rows = await source.fetch(_KEYED, ledger_id, [idempotency.key])
    check_same_content(idempotency, rows[0]["content_sha256"])
    return Appended(tuple(_placed(row) for row in rows), duplicate=True)


async def read_known(connection: Connection, ledger_id: int, requests: Sequence[Append]) -> Known:
    """Return what the log holds under all keys of `requests`."""
    events = [event for request in requests for event in request.events]
    keys = list({r.idempotency.key for r in requests if r.idempotency is not None})
    numbered = [event for event in events if event.source is not None]
    streams = {event.stream for event in events}.union(*(r.expected for r in requests))
    known = Known()
    for row in await connection.fetch(
        _KNOWN,
        ledger_id,
        list(streams),
        [event.event_id for event in events],
        [event.source for event in numbered],
        [event.sequence for event in numbered],
    ):
        if row["event_id"] is not None:
            known.identities[row["event_id"].int] = _existing(row)
        elif row["source"] is not None:
            known.sequences[row["source"], row["sequence"]] = _existing(row)
        else:
            known.versions[row["stream"]] = row["version"]
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
