"""What holds of every log at every moment, recomputed from its tables by other means."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import asyncpg
import rfc8785

from eventlog.ledger import Ledger
from eventlog.transparency.merkle import Frontier


async def assert_log_is_sound(ledger: Ledger, length: int) -> None:
    """Positions and versions without gaps, ids once, and the tree as recomputed from the rows."""
    rows = await ledger.pool.fetch(
        "select * from event where ledger_id = $1 order by position", ledger.ledger_id
    )
    assert [row["position"] for row in rows] == list(range(1, length + 1))
    assert len({row["event_id"] for row in rows}) == length
    versions: dict[str, int] = {}
    tree = Frontier()
    for row in rows:
        versions[row["stream"]] = versions.get(row["stream"], 0) + 1
        assert row["version"] == versions[row["stream"]]
        assert row["leaf_hash"] == recomputed_leaf(ledger.name, row)
        tree.append([row["leaf_hash"]])
    heads = await ledger.pool.fetch(
        "select stream, version from stream_head where ledger_id = $1", ledger.ledger_id
    )
    assert {row["stream"]: row["version"] for row in heads} == versions
    identities = await ledger.pool.fetch(
        "select event_id, position from event_identity where ledger_id = $1", ledger.ledger_id
    )
    assert {(i["event_id"], i["position"]) for i in identities} == {
        (row["event_id"], row["position"]) for row in rows
    }
    head = await ledger.pool.fetchrow(
        "select position, frontier, root from ledger where ledger_id = $1", ledger.ledger_id
    )
    assert head is not None
    assert head["position"] == length
    assert head["frontier"] == tree.packed()
    assert head["root"] == tree.root()


def recomputed_leaf(ledger: str, row: asyncpg.Record) -> bytes:
    """Return the leaf hash of a stored row from its columns, by another JSON library."""

    def written(moment: datetime) -> str:
        return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    envelope = {name: row[name] for name in ("actor", "position", "schema_version", "stream")}
    envelope |= {name: row[name] for name in ("traceparent", "type", "version")}
    for name in ("causation_id", "correlation_id", "event_id"):
        envelope[name] = None if row[name] is None else str(row[name])
    envelope |= {
        "ledger": ledger,
        "occurred_at": written(row["occurred_at"]),
        "payload_sha256": row["payload_sha256"].hex(),
        "recorded_at": written(row["recorded_at"]),
    }
    return hashlib.sha256(b"\x00" + rfc8785.dumps(envelope)).digest()
