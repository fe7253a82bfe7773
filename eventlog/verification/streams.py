"""Streams and what is looked up beside the log: whether they agree with the events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from eventlog.database import Connection
from eventlog.transparency.tiles import ENTRY_NAMES
from eventlog.verification.findings import Verification

STREAMS_MAX: Final = 200_000
"""Streams whose last version is remembered; others are looked up again."""
SIDE_FINDINGS_MAX: Final = 20
STATEMENT_TIMEOUT_S: Final = 3_600.0

_POSITION, _STREAM = ENTRY_NAMES.index("position"), ENTRY_NAMES.index("stream")
_TYPE, _VERSION = ENTRY_NAMES.index("type"), ENTRY_NAMES.index("version")


async def check_side_tables(
    connection: Connection, ledger_id: int, head: int, report: Verification
) -> None:
    """Compare the tables under which events are found again with the events."""
    for code, message, sql in _SIDE_TABLES:
        rows = await connection.fetch(
            f"{sql} limit {SIDE_FINDINGS_MAX}",
            ledger_id,
            head,
            timeout=STATEMENT_TIMEOUT_S,
        )
        for row in rows:
            report.add(
                code,
                message.format(**row),
                position=row["position"],
                stream=row.get("stream"),
                expected=row["expected"],
                actual=row["actual"],
            )


_SIDE_TABLES: Final = (
    (
        "stream.head_mismatch",
        "stream {key} is at version {expected} by its events and at {actual} by stream_head",
        """
        select coalesce(e.stream, h.stream) as key, coalesce(e.stream, h.stream) as stream,
            e.position, e.version as expected, h.version as actual
        from (
            select stream, max(version) as version, max(position) as position from event
            where ledger_id = $1 and position between 1 and $2 group by stream
        ) e full join (select * from stream_head where ledger_id = $1) h using (stream)
        where e.version is distinct from h.version
        """,
    ),
    (
        "event.identity_mismatch",
        "event id {key} stands at position {expected} and is looked up at {actual}",
        """
        select event_id as key, coalesce(e.position, i.position) as position,
            e.position as expected, i.position as actual
        from (
            select event_id, position from event where ledger_id = $1 and position between 1 and $2
        ) e full join (select * from event_identity where ledger_id = $1) i using (event_id)
        where e.position is distinct from i.position
        """,
    ),
    (
        "event.sequence_mismatch",
        "{key} stands at position {expected} and is looked up at {actual}",
        """
        select source || ' sequence ' || sequence as key,
            coalesce(e.position, s.position) as position,
            e.position as expected, s.position as actual
        from (
            select source, sequence, position from event
            where ledger_id = $1 and position between 1 and $2 and source is not null
        ) e full join (
            select source, sequence, position from event_identity
            where ledger_id = $1 and source is not null
        ) s using (source, sequence)
        where e.position is distinct from s.position
        """,
    ),
    (
        "idempotency_key.mismatch",
        "idempotency key {key} points at positions {actual}, outside the log",
        """
        select key, first_position as position, 'within 1 to ' || $2::bigint as expected,
            first_position || ' to ' || last_position as actual
        from idempotency_key where ledger_id = $1
            and not (1 <= first_position and first_position <= last_position
                and last_position <= $2)
        """,
    ),
)


class StreamVersions:
    """Whether each stream counts 1, 2, 3 …, remembering a bounded number of streams."""

    def __init__(self, connection: Connection, ledger_id: int) -> None:
        self._connection = connection
        self._ledger_id = ledger_id
        self._last: OrderedDict[str, int] = OrderedDict()
        self._forgot = False

    async def check(self, rows: Sequence[asyncpg.Record]) -> list[dict[str, Any]]:
        """Return what is wrong with the versions of `rows`, as arguments of `Verification.add`."""
        found = []
        if self._forgot:
            await self._recall(rows)
        for row in rows:
            stream, version = row[_STREAM], row[_VERSION]
            expected = self._last.get(stream, 0) + 1
            if version != expected:
                found.append(
                    {
                        "code": "stream.version_mismatch",
                        "message": f"event {row[_POSITION]} ({row[_TYPE]}) is version {version} "
                        f"of stream {stream}, where {expected} is due",
                        "position": row[_POSITION],
                        "stream": stream,
                        "expected": expected,
                        "actual": version,
                    }
                )
            self._last[stream] = version
            self._last.move_to_end(stream)
        while len(self._last) > STREAMS_MAX:
            self._last.popitem(last=False)
            self._forgot = True
        return found

    async def _recall(self, rows: Sequence[asyncpg.Record]) -> None:
        """Remember again, of the streams forgotten, the version in front of this page's first.

        The one before must stand at an earlier position, and the version itself nowhere else;
        so each is found by the index of streams, however long they are.
        """
        first: dict[str, int] = {}
        for row in rows:
            if row[_STREAM] not in self._last:
                first.setdefault(row[_STREAM], row[_VERSION])
        if not first:
            return
        known = await self._connection.fetch(
            """
            select w.stream, w.version - 1 as version
            from unnest($2::text[], $3::bigint[]) as w(stream, version)
            where (w.version = 1 or exists (
                    select from event e where e.ledger_id = $1 and e.stream = w.stream
                        and e.version = w.version - 1 and e.position < $4))
                and not exists (
                    select from event e where e.ledger_id = $1 and e.stream = w.stream
                        and e.version = w.version and e.position < $4)
            """,
            self._ledger_id,
            list(first),
            list(first.values()),
            rows[0][_POSITION],
            timeout=STATEMENT_TIMEOUT_S,
        )
        self._last.update({row["stream"]: row["version"] for row in known})
