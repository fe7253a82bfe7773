"""Where the projections of a ledger stand, for whoever looks after them."""

from __future__ import annotations

from dataclasses import dataclass

from eventlog.database import Connection


@dataclass(frozen=True, slots=True)
class Standing:
    """A projection's rows of one version reflect the log up to `position`."""

    projection: str
    version: int
    position: int


async def list_standings(connection: Connection, ledger_id: int) -> list[Standing]:
    """Return where each projection of a ledger stands, by name and version."""
    rows = await connection.fetch(
        "select projection, version, position from projection_checkpoint "
        "where ledger_id = $1 order by projection, version",
        ledger_id,
    )
    return [Standing(**row) for row in rows]
