"""`verify` and bundles with an archive and erasures: proved like everything else, or found."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from eventlog.archive.compaction import compact
from eventlog.archive.payloads import BLOCKS
from eventlog.archive.segments import LiveSegment
from eventlog.archive.store import ArchiveStore
from eventlog.bundles.streams import export_bundle, select_stream, verify_bundle
from eventlog.ledger import Ledger
from eventlog.verification import payloads as payload_verification
from eventlog.verification.findings import Erased, Verification
from eventlog.verification.whole_log import verify_ledger
from tests.database import as_superuser, execute
from tests.eventlog.archived import (
    archive_all,
    archived_ledger,
    erase_positions,
    files,
    record,
    tiers,
)
from tests.eventlog.new_events import fact, frame_of
from tests.eventlog.signing import signer_for
from tests.projections.loop_frames import skab_frames

pytestmark = pytest.mark.anyio


async def archived(ledger: Ledger, folder: Path, count: int = 6) -> list[str]:
    """Record frames and a fact, archive the frames, and return the paths of the files."""
    await ledger.append([fact("a")])
    await record(
        ledger, [frame_of(n, start_ns=n * 10**9, agent=f"agent-{n % 2}") for n in range(1, count)]
    )
    await archive_all(ledger, folder)
    return sorted((await files(ledger, folder)).live)


async def verify(ledger: Ledger, *, archive: bool = True) -> Verification:
    return await verify_ledger(ledger.pool, ledger.name, archive=archive)


async def as_tamperer(database_url: str, *statements: str) -> None:
    """Run statements as somebody who may do anything, triggers or not."""
    for statement in statements:
        await asyncio.to_thread(
            execute,
            as_superuser(database_url),
            f"set session_replication_role = replica; {statement}",
        )


async def test_archived_payloads_are_compared_with_their_hash(
    ledger: Ledger, tmp_path: Path
) -> None:
    await ledger.append([fact("a")])
    await record(ledger, skab_frames("valve1/1", 60))
    await archive_all(ledger, tmp_path)
    size = await ledger.head()
    report = await verify(ledger)
    assert report.findings == []
    assert (report.payloads, report.payloads_archived, report.payloads_erased) == (
        size,
        size - 1,
        0,
    )
    unread = await verify(ledger, archive=False)
    assert unread.findings == []
    assert (unread.payloads, unread.payloads_archived) == (1, size - 1)


async def test_a_file_that_is_missing_changed_or_swapped_is_found(
    ledger: Ledger, tmp_path: Path
) -> None:
    first, second = await archived(ledger, tmp_path)
    sound = {path: (tmp_path / path).read_bytes() for path in (first, second)}
    (tmp_path / first).unlink()
    report = await verify(ledger)
    assert [f.code for f in report.findings] == ["archive.file_missing"]
    assert first in report.findings[0].message
    (tmp_path / first).write_bytes(sound[first][:-40] + bytes(40))
    assert [f.code for f in (await verify(ledger)).findings] == ["archive.damaged"]
    (tmp_path / first).write_bytes(sound[second])
    report = await verify(ledger)
    assert [(f.code, f.actual) for f in report.findings] == [("archive.payload_lost", 0)]
    (tmp_path / first).write_bytes(sound[first])
    assert (await verify(ledger)).clean


async def test_a_payload_that_was_forged_in_its_file_is_found(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archived(ledger, tmp_path)
    read = payload_verification._frames_in

    def forged(segment: LiveSegment) -> object:
        frames = read(segment)
        return frames | {2: frame_of(9)} if 2 in frames else frames

    monkeypatch.setattr(payload_verification, "_frames_in", forged)
    report = await verify(ledger)
    assert {(f.code, f.position) for f in report.findings} == {
        ("event.payload_mismatch", 2),
        ("event.window_mismatch", 2),
        ("event.statistics_mismatch", 2),
    }


async def test_rows_that_point_nowhere_or_elsewhere_are_found(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    await archived(ledger, tmp_path)
    await as_tamperer(database_url, "delete from archived_payload where position = 3")
    found = (await verify(ledger)).findings
    assert [(f.code, f.position) for f in found] == [("archive.payload_lost", 3)]
    await as_tamperer(
        database_url,
        "update archived_payload set segment_id = (select max(segment_id) from archive_segment) "
        "where segment_id = (select min(segment_id) from archive_segment)",
    )
    found = (await verify(ledger)).findings
    assert [f.code for f in found] == ["archive.payload_lost"] * 2
    assert (found[1].expected, found[1].actual) != (None, None)


async def test_statistics_beside_an_archived_frame_are_compared(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    await archived(ledger, tmp_path)
    await as_tamperer(
        database_url,
        "update event set statistics = (select statistics from event where position = 3), "
        "reading_count = reading_count + 1 where position = 2",
    )
    found = (await verify(ledger)).findings
    assert {(f.code, f.position) for f in found} == {
        ("event.window_mismatch", 2),
        ("event.statistics_mismatch", 2),
    }


async def test_a_file_replaced_since_the_snapshot_is_followed(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(1, 5):
        await record(ledger, [frame_of(n, start_ns=n * 10**9)])
        await archive_all(ledger, tmp_path)
    check = payload_verification.PayloadChecks.check_archive

    async def later(self: payload_verification.PayloadChecks, pool: object) -> None:
        await compact(archived_ledger(ledger), ArchiveStore(str(tmp_path)))
        await erase_positions(ledger, 2)
        BLOCKS.clear()
        await check(self, ledger.pool)

    monkeypatch.setattr(payload_verification.PayloadChecks, "check_archive", later)
    report = await verify(ledger)
    assert report.findings == []
    assert (report.payloads, report.payloads_archived) == (3, 4)
    monkeypatch.undo()
    report = await verify(ledger)
    assert report.findings == []
    assert (report.payloads, report.payloads_archived, report.payloads_erased) == (4, 3, 1)


# --- erased -------------------------------------------------------------------------------


async def test_what_was_erased_is_named_with_the_event_that_says_so(
    ledger: Ledger, tmp_path: Path
) -> None:
    await archived(ledger, tmp_path)
    await erase_positions(ledger, 1, 4)
    report = await verify(ledger)
    assert report.findings == []
    assert report.erased == [
        Erased(1, "asset:loop-1", 7),
        Erased(4, "telemetry:loop-1", 7),
    ]
    assert report.payloads_erased == 2


async def test_an_erasure_that_is_not_recorded_or_not_carried_out_is_found(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    await archived(ledger, tmp_path)
    await erase_positions(ledger, 4)
    await as_tamperer(
        database_url,
        "update event set payload = null, payload_tier = 2, statistics = null "
        "where position in (1, 3, 7)",
    )
    report = await verify(ledger)
    assert [(f.code, f.position) for f in report.findings] == [
        ("event.erasure_unrecorded", position) for position in (1, 3, 4, 7)
    ]


async def test_a_recorded_erasure_whose_payload_is_still_there_is_found(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: object) -> int:
        return 0

    await archived(ledger, tmp_path)
    monkeypatch.setattr("eventlog.erasure.finish_erasures", never)
    await erase_positions(ledger, 1, 4)
    report = await verify(ledger)
    assert [(f.code, f.position) for f in report.findings] == [
        ("event.erasure_unfinished", 1),
        ("event.erasure_unfinished", 4),
    ]
    monkeypatch.undo()
    await archive_all(ledger, tmp_path)  # whoever comes next carries it out
    assert (await verify(ledger)).clean
    assert (await tiers(ledger))[4] == 2


# --- bundles ------------------------------------------------------------------------------


async def test_a_bundle_holds_archived_payloads_and_names_erased_ones(
    ledger: Ledger, tmp_path: Path
) -> None:
    await archived(ledger, tmp_path / "archive")
    await erase_positions(ledger, 4)
    BLOCKS.clear()
    signer = signer_for(ledger, tmp_path / "keys")
    note, key = await signer.sign(), signer.keys.current().verifier
    selection = await select_stream(signer.tiles, "telemetry:loop-1", await ledger.head())
    path = tmp_path / "bundle"
    assert await export_bundle(signer.tiles, note, key, selection, path) == 5
    report = verify_bundle(path, [key])
    assert report.findings == []
    assert (report.events, report.payloads, report.payloads_absent) == (5, 4, 1)
    assert report.erased == [Erased(4, "telemetry:loop-1", 7)]
    lines = path.read_bytes().splitlines(keepends=True)
    for erased_by in (3, 10**6, "x"):
        line = json.loads(lines[3]) | {"erased_by": erased_by}
        path.write_bytes(b"".join([*lines[:3], json.dumps(line).encode() + b"\n", *lines[4:]]))
        assert [f.code for f in verify_bundle(path, [key]).findings] == ["bundle.erasure"]
