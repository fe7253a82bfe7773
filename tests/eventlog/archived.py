"""Frames in the log and in an archive, for tests of both."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from domain.asset import telemetry_stream
from domain.frames import Frame, time_from_ns
from eventlog.archive.moving import ArchiveReport, archive
from eventlog.archive.payloads import BLOCKS
from eventlog.archive.segments import ArchivedLedger
from eventlog.archive.store import ArchiveStore
from eventlog.envelope import RecordedEvent, new_frame
from eventlog.erasure import ErasureReport, erase
from eventlog.ledger import Ledger
from eventlog.reading import read_page

FAR_AHEAD: Final = datetime(2100, 1, 1, tzinfo=UTC)
DAY_NS: Final = 86_400_000_000_000
_NAMESPACE = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def archived_ledger(ledger: Ledger) -> ArchivedLedger:
    """Return `ledger` as whoever moves its payloads sees it."""
    return ArchivedLedger(ledger.pool, ledger.ledger_id, ledger.name)


async def record(ledger: Ledger, frames: Sequence[Frame]) -> list[RecordedEvent]:
    """Append `frames` and return their events."""
    before = await ledger.head()
    for at in range(0, len(frames), 500):
        await ledger.append(
            [
                new_frame(
                    telemetry_stream(frame.header.asset),
                    frame,
                    event_id=uuid.uuid5(
                        _NAMESPACE,
                        f"{frame.header.asset}/{frame.header.agent}/{frame.sequence}",
                    ),
                    occurred_at=time_from_ns(frame.window_end_ns),
                )
                for frame in frames[at : at + 500]
            ]
        )
    return await everything(ledger, before)


async def everything(ledger: Ledger, after: int = 0) -> list[RecordedEvent]:
    """Return every event beyond `after` with its payload, as a reader gets it."""
    events: list[RecordedEvent] = []
    while page := await read_page(ledger, events[-1].position if events else after):
        events += page
    return events


async def archive_all(ledger: Ledger, store: ArchiveStore | Path) -> ArchiveReport:
    """Move the payload of every frame to `store`, and forget what was read from it before."""
    if isinstance(store, Path):
        store = ArchiveStore(str(store))
    report = await archive(archived_ledger(ledger), store, older_than=timedelta(0), now=FAR_AHEAD)
    BLOCKS.clear()
    return report


async def erase_positions(
    ledger: Ledger, *positions: int, reason: str = "article 17", actor: str = "user:dpo"
) -> ErasureReport:
    """Erase the payloads at `positions`."""
    return await erase(
        ledger,
        positions,
        reason=reason,
        actor=actor,
        legal_basis="Regulation (EU) 2016/679",
        now=FAR_AHEAD,
        new_event_id=uuid.uuid4,
    )


async def tiers(ledger: Ledger) -> dict[int, int]:
    """Return the payload tier of every position, after checking that it is what the row is."""
    rows = await ledger.pool.fetch(
        "select position, payload_tier, payload is null as absent from event "
        "where ledger_id = $1 order by position",
        ledger.ledger_id,
    )
    assert all(row["absent"] == (row["payload_tier"] > 0) for row in rows)
    return {row["position"]: row["payload_tier"] for row in rows}


@dataclass(frozen=True)
class Files:
    """What lies in the folder of an archive, and what the database says of it."""

    on_disk: set[str]
    live: set[str]
    unsettled: set[str]


async def files(ledger: Ledger, folder: Path) -> Files:
    """Return the files of the archive of `ledger` in `folder`, hidden ones too."""
    rows = await ledger.pool.fetch(
        "select path, state from archive_segment where ledger_id = $1", ledger.ledger_id
    )
    return Files(
        _files_below(folder),
        {row["path"] for row in rows if row["state"] == "live"},
        {row["path"] for row in rows if row["state"] != "live"},
    )


def _files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
