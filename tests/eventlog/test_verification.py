"""`verify`: clean for what the log wrote itself, and whatever was tampered with is found.

The tamperer is a superuser with triggers switched off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from domain.errors import NotFound
from domain.frames import build_frame
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.transparency.merkle import Frontier, leaf_hash
from eventlog.transparency.notes import Note, SigningKey
from eventlog.transparency.signing import CheckpointSigner
from eventlog.transparency.tiles import ENTRY_COLUMNS, entry_of
from eventlog.verification import checkpoints as checkpoint_verification
from eventlog.verification import streams as stream_verification
from eventlog.verification import whole_log as verification
from eventlog.verification.findings import FINDINGS_A_CODE_MAX, Finding, Verification
from eventlog.verification.whole_log import verify_ledger
from tests.database import as_superuser, new_database
from tests.eventlog.new_events import fact, frame_event, frame_of, opened
from tests.eventlog.signing import grow, signer_for

pytestmark = pytest.mark.anyio

SIZE = 600
FRAME = 3
LARGE_FRAME = 4
TABLES = (
    "ledger",
    "event",
    "event_identity",
    "stream_head",
    "idempotency_key",
    "tile",
    "checkpoint",
)


@dataclass
class Tampered:
    """A sound, signed log in a database of its own, and somebody who may do anything to it."""

    ledger: Ledger
    signer: CheckpointSigner
    superuser: Any
    held: Note

    async def run(self, *statements: str) -> None:
        for statement in statements:
            await self.superuser.execute(statement)

    async def verify(self, *held: Note) -> Verification:
        return await verify_ledger(
            self.ledger.pool,
            self.ledger.name,
            trusted=[self.signer.keys.current().verifier],
            held=held,
        )

    async def findings(self, *held: Note) -> dict[str, Finding]:
        """Return the first finding of each code."""
        report = await self.verify(*held)
        assert not report.clean
        found: dict[str, Finding] = {}
        for finding in report.findings:
            found.setdefault(finding.code, finding)
        return found


async def fill(ledger: Ledger, folder: Path) -> CheckpointSigner:
    """Write every kind of event and sign three checkpoints."""
    await ledger.append([fact("a")], idempotency=IdempotencyKey.of("key", b""))
    await ledger.append([fact("b", stream="part:SN-1", source="erp", sequence=7)])
    await ledger.append([frame_event(frame_of(1))])
    large = frame_of(2, length=40_000)
    noise = np.random.default_rng(1).normal(size=40_000)
    large = build_frame(large.header, 2, large.clocks, [noise], [None])
    await ledger.append([frame_event(large)])
    signer = signer_for(ledger, folder)
    await signer.sign()
    await grow(ledger, 400)
    await signer.sign()
    await grow(ledger, SIZE)
    await signer.sign()
    return signer


@pytest.fixture(scope="module")
def signed_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of the database that the tests of this file share, each putting it back."""
    with new_database(postgres_url, "heddle_tampered", template=template_database) as url:
        yield url


@pytest.fixture(scope="module")
async def sound(
    signed_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Ledger, Path, Any]]:
    """A signed log, the folder of its key, and a superuser who remembers every row of it."""
    folder = tmp_path_factory.mktemp("keys")
    async with opened(signed_url) as ledger:
        await fill(ledger, folder)
        superuser = await asyncpg.connect(as_superuser(signed_url))
        await superuser.execute("set session_replication_role = replica")
        for table in TABLES:
            await superuser.execute(f"create temp table sound_{table} as select * from {table}")
        yield ledger, folder, superuser
        await superuser.close()


@pytest.fixture
async def log(sound: tuple[Ledger, Path, Any]) -> AsyncIterator[Tampered]:
    """The signed log, and somebody who may do anything to it."""
    ledger, folder, superuser = sound
    signer = signer_for(ledger, folder)
    held = signer.keys.published()
    assert held is not None
    yield Tampered(ledger, signer, superuser, held)
    for table in TABLES:
        await superuser.execute(f"delete from {table}")
        await superuser.execute(
            f"insert into {table} overriding system value select * from sound_{table}"
        )


# --- what is sound ------------------------------------------------------------------------


async def test_a_sound_log_is_clean(log: Tampered) -> None:
    report = await log.verify(log.held)
    head = await log.signer.tiles.head()
    assert report.findings == []
    assert report.clean
    assert (report.size, report.root) == (SIZE, head.root)
    assert (report.payloads, report.payloads_archived, report.payloads_erased) == (SIZE, 0, 0)
    assert (report.tiles, report.checkpoints, report.signatures) == (2, 4, 4)


async def test_an_empty_log_and_one_never_signed_are_clean(ledger: Ledger) -> None:
    assert (await verify_ledger(ledger.pool, ledger.name)).clean
    await grow(ledger, 260)
    report = await verify_ledger(ledger.pool, ledger.name)
    assert report.clean
    assert (report.size, report.tiles, report.checkpoints) == (260, 0, 0)


async def test_what_is_appended_meanwhile_does_not_disturb(log: Tampered) -> None:
    sizes = []

    def appended_meanwhile(done: int, head: int) -> None:
        sizes.append((done, head))

    report = await verify_ledger(log.ledger.pool, log.ledger.name, progress=appended_meanwhile)
    assert report.clean
    assert sizes == [(SIZE, SIZE)]


async def test_an_unknown_ledger_is_said(ledger: Ledger) -> None:
    with pytest.raises(NotFound) as refused:
        await verify_ledger(ledger.pool, "plant-9")
    assert refused.value.code == "ledger.unknown"


async def test_a_rotated_key_s_checkpoints_are_judged_by_the_chain_of_keys(
    log: Tampered, tmp_path: Path
) -> None:
    for name in ("plant-1.key", "plant-1.vkey", "plant-1.checkpoint"):
        (tmp_path / name).write_bytes((log.signer.keys.folder / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    log.signer = signer_for(log.ledger, tmp_path)
    old = log.signer.keys.current().verifier
    new = await log.signer.rotate(log.ledger, actor="user:mara", reason="yearly")
    await grow(log.ledger, SIZE + 20)
    await log.signer.sign()
    for trusted in (old, new):
        report = await verify_ledger(log.ledger.pool, "plant-1", trusted=[trusted])
        assert report.findings == []
        assert report.signatures == 5
    stranger = SigningKey.generate(log.signer.keys.origin).verifier
    report = await verify_ledger(log.ledger.pool, "plant-1", trusted=[stranger])
    assert {f.code for f in report.findings} == {"checkpoint.signature"}


async def test_pages_and_a_forgetful_memory_of_streams_change_nothing(
    log: Tampered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_verification, "STREAMS_MAX", 3)
    monkeypatch.setattr(checkpoint_verification, "CHECKPOINTS_A_PAGE", 1)
    monkeypatch.setattr(
        verification, "_PAGE_SQL", verification._PAGE_SQL.replace("limit 2000", "limit 10")
    )
    report = await log.verify()
    assert report.findings == []
    assert (report.size, report.checkpoints) == (SIZE, 3)
    await log.run("update event set version = version + 1 where position = 500")
    assert (await log.findings())["stream.version_mismatch"].position == 500


# --- the tamper test: a column ------------------------------------------------------------

COLUMNS = {
    "version": "version + 1",
    "occurred_at": "occurred_at + interval '1 microsecond'",
    "recorded_at": "recorded_at - interval '1 microsecond'",
    "event_id": "gen_random_uuid()",
    "correlation_id": "gen_random_uuid()",
    "causation_id": "gen_random_uuid()",
    "schema_version": "schema_version + 1",
    "stream": "'asset:loop-x'",
    "type": "'asset.retired'",
    "actor": "'user:mallory'",
    "traceparent": "'00-' || repeat('a', 32) || '-' || repeat('b', 16) || '-01'",
    "payload_sha256": "sha256('forged')",
    "leaf_hash": "sha256('forged')",
}
FAR_AWAY = ("infinity", "-infinity", "0044-03-15 BC", "99999-01-01")


@pytest.mark.parametrize("column", COLUMNS)
async def test_any_column_of_the_envelope_that_is_altered_is_found_where_it_is(
    log: Tampered, column: str
) -> None:
    positions = [1, 2, FRAME, 257, SIZE]
    await log.run(
        f"update event set {column} = {COLUMNS[column]} where position = any(array{positions})"
    )
    report = await log.verify()
    found = [f for f in report.findings if f.code == "event.leaf_mismatch"]
    assert [f.position for f in found] == positions
    for finding in found:
        assert f"event {finding.position} (" in finding.message
        assert finding.expected != finding.actual


@pytest.mark.parametrize("moment", FAR_AWAY)
async def test_even_a_time_that_no_calendar_here_knows(log: Tampered, moment: str) -> None:
    await log.run(f"update event set occurred_at = '{moment}' where position = 5")
    assert (await log.findings())["event.leaf_mismatch"].position == 5


@pytest.mark.parametrize(
    ("column", "value", "position", "code"),
    [
        ("payload", "payload || ' '", 5, "event.payload_mismatch"),
        ("payload", "'forged'", FRAME, "event.payload_unreadable"),
        ("payload", "substr(payload, 1, 9000)", LARGE_FRAME, "event.payload_unreadable"),
        ("payload", "null", 5, "event.payload_missing"),
        ("payload_tier", "1", 5, "event.payload_tier"),
        ("payload", "null, payload_tier = 1", FRAME, "archive.payload_lost"),
        ("payload", "null, payload_tier = 2", 5, "event.erasure_unrecorded"),
        ("payload", "null, payload_tier = 3", 5, "event.payload_missing"),
        ("window_start_ns", "window_start_ns - 1", FRAME, "event.window_mismatch"),
        ("window_end_ns", "window_end_ns + 1", FRAME, "event.window_mismatch"),
        ("reading_count", "reading_count + 1", FRAME, "event.window_mismatch"),
        ("reading_count", "reading_count + 1", LARGE_FRAME, "event.window_mismatch"),
        ("window_end_ns", "7", 5, "event.window_mismatch"),
        ("statistics", "null", FRAME, "event.statistics_mismatch"),
        ("statistics", "set_byte(statistics, 0, 9)", FRAME, "event.statistics_mismatch"),
        ("statistics", "substr(statistics, 1, 30)", FRAME, "event.statistics_mismatch"),
        ("statistics", "set_byte(statistics, 60, 1)", FRAME, "event.statistics_mismatch"),
        ("source", "'agent:other'", FRAME, "event.window_mismatch"),
        ("sequence", "99", FRAME, "event.window_mismatch"),
        ("source", "'mes'", 2, "event.sequence_mismatch"),
        ("sequence", "8", 2, "event.sequence_mismatch"),
        ("source", "null", 2, "event.sequence_mismatch"),
    ],
)
async def test_what_stands_beside_the_envelope_is_checked_too(
    log: Tampered, column: str, value: str, position: int, code: str
) -> None:
    await log.run(f"update event set {column} = {value} where position = {position}")
    finding = (await log.findings())[code]
    assert finding.position == position


async def test_a_row_moved_to_another_position_or_ledger_is_missing_here(log: Tampered) -> None:
    await log.run("update event set ledger_id = 99 where position = 9")
    finding = (await log.findings())["log.position_missing"]
    assert (finding.position, finding.message) == (9, "position 9 is missing")


async def test_two_payloads_that_were_swapped_are_both_found(log: Tampered) -> None:
    await log.run(
        "update event a set payload = b.payload from event b "
        "where (a.position, b.position) in ((10, 20), (20, 10))"
    )
    report = await log.verify()
    assert [(f.code, f.position) for f in report.findings] == [
        ("event.payload_mismatch", 10),
        ("event.payload_mismatch", 20),
    ]
    assert report.findings[0].actual == report.findings[1].expected


# --- rows ---------------------------------------------------------------------------------


async def test_deleted_rows_are_named_one_by_one_or_as_a_run(log: Tampered) -> None:
    await log.run("delete from event where position = 50 or position between 100 and 140")
    report = await log.verify()
    missing = [f for f in report.findings if f.code == "log.position_missing"]
    assert [f.message for f in missing] == [
        "position 50 is missing",
        "positions 100 to 140 are missing",
    ]
    codes = {f.code for f in report.findings}
    assert {"tile.mismatch", "checkpoint.mismatch", "ledger.root_mismatch"} <= codes
    assert "event.identity_mismatch" in codes


async def test_rows_in_another_order_are_found(log: Tampered) -> None:
    await log.run(
        "update event set position = 9999 where position = 10",
        "update event set position = 10 where position = 11",
        "update event set position = 11 where position = 9999",
    )
    report = await log.verify()
    assert {f.position for f in report.findings if f.code == "event.leaf_mismatch"} == {10, 11}


async def test_a_forged_row_at_the_end_is_found(log: Tampered) -> None:
    await log.run(_copy_of(SIZE, SIZE + 1))
    found = await log.findings()
    assert found["log.beyond_head"].position == SIZE + 1
    assert found["log.beyond_head"].expected == SIZE


async def test_a_forged_row_pushed_in_between_is_found(log: Tampered) -> None:
    await log.run(
        "update event set position = position + 10001 where position >= 300",
        "update event set position = position - 10000 where position > 10000",
        _copy_of(299, 300),
        f"update ledger set position = {SIZE + 1}",
    )
    found = await log.findings()
    assert found["event.leaf_mismatch"].position == 300
    assert found["stream.version_mismatch"].position == 300


def _copy_of(position: int, to: int) -> str:
    columns = (
        "version, occurred_at, recorded_at, ledger_id, schema_version, stream, type, actor, "
        "payload_sha256, leaf_hash, payload"
    )
    return (
        f"insert into event (position, event_id, {columns}) "
        f"select {to}, gen_random_uuid(), {columns} from event where position = {position}"
    )


async def forge(log: Tampered, position: int) -> None:
    """Alter an event as one would who knows the format: leaf, frontier and root follow suit."""
    await log.run(f"update event set actor = 'user:mallory' where position = {position}")
    row = await log.superuser.fetchrow(
        f"select {ENTRY_COLUMNS} from event where ledger_id = $1 and position = $3",
        log.ledger.ledger_id,
        log.ledger.name,
        position,
    )
    await log.superuser.execute(
        "update event set leaf_hash = $1 where position = $2", leaf_hash(entry_of(row)), position
    )
    await rehead(log)


async def rehead(log: Tampered) -> None:
    """Make the ledger's head follow from the rows there are."""
    rows = await log.superuser.fetch(
        "select leaf_hash, recorded_at from event where position > 0 order by position"
    )
    tree = Frontier()
    tree.append(row["leaf_hash"] for row in rows)
    await log.superuser.execute(
        "update ledger set position = $1, frontier = $2, root = $3, recorded_at = $4",
        len(rows),
        tree.packed(),
        tree.root(),
        rows[-1]["recorded_at"],
    )


async def test_a_forgery_that_rewrites_leaf_and_head_is_found_by_tile_and_checkpoint(
    log: Tampered,
) -> None:
    await forge(log, 450)
    found = await log.findings()
    assert set(found) == {"tile.mismatch", "checkpoint.mismatch"}
    assert "events 257 to 512" in found["tile.mismatch"].message
    assert f"an event from 401 to {SIZE} is not what it was" in found["checkpoint.mismatch"].message


async def test_a_forgery_that_rewrites_tiles_too_is_found_by_the_checkpoint(log: Tampered) -> None:
    await forge(log, 450)
    await log.run("delete from tile")
    await log.signer.tiles.build(SIZE)
    assert set(await log.findings()) == {"checkpoint.mismatch"}


async def test_a_forgery_that_removes_all_checkpoints_is_found_by_one_that_left(
    log: Tampered,
) -> None:
    await forge(log, 450)
    await log.run("delete from tile", "delete from checkpoint")
    await log.signer.tiles.build(SIZE)
    assert (await log.verify()).clean
    found = await log.findings(log.held)
    assert set(found) == {"checkpoint.mismatch"}
    assert "held outside the database" in found["checkpoint.mismatch"].message


# --- tail, head, checkpoints, tiles -------------------------------------------------------


async def test_a_tail_that_was_cut_off_with_the_head_is_found(log: Tampered) -> None:
    await log.run("delete from event where position > 450")
    await rehead(log)
    found = await log.findings()
    assert "tile.beyond_log" in found
    cut = found["checkpoint.beyond_log"]
    assert f"events 451 to {SIZE} were cut off" in cut.message
    assert (cut.position, cut.expected, cut.actual) == (451, SIZE, 450)
    assert {"event.identity_mismatch", "stream.head_mismatch"} <= set(found)


async def test_an_old_state_replayed_whole_is_found_by_a_checkpoint_that_left(
    log: Tampered,
) -> None:
    await log.run(
        *(f"delete from {table} where position > 400" for table in ("event", "event_identity")),
        "delete from tile where number > 0",
        "delete from checkpoint where size > 400",
        "delete from stream_head",
        "insert into stream_head select ledger_id, stream, max(version) from event group by 1, 2",
    )
    await rehead(log)
    assert (await log.verify()).clean
    found = await log.findings(log.held)
    assert set(found) == {"checkpoint.beyond_log"}
    assert f"events 401 to {SIZE} were cut off" in found["checkpoint.beyond_log"].message


async def test_an_old_checkpoint_in_place_of_the_last_is_found(log: Tampered) -> None:
    await log.run(
        "update checkpoint a set note = b.note from checkpoint b "
        f"where a.size = {SIZE} and b.size = 400"
    )
    finding = (await log.findings())["checkpoint.altered"]
    assert (finding.position, finding.message) == (
        SIZE,
        f"the stored checkpoint of size {SIZE} says 400",
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("replace(note, E'\\n600\\n', E'\\n599\\n')", "checkpoint.signature"),
        ("overlay(note placing 'AAAA' from length(note) - 9)", "checkpoint.signature"),
        ("'nothing'", "checkpoint.altered"),
    ],
)
async def test_an_altered_checkpoint_is_found(log: Tampered, change: str, code: str) -> None:
    await log.run(f"update checkpoint set note = {change} where size = {SIZE}")
    assert set(await log.findings()) == {code}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("position = position - 1", "log.beyond_head"),
        ("position = position + 5", "log.position_missing"),
        ("position = 1000000000000000", "log.tree_not_computed"),
        ("root = sha256('forged')", "ledger.root_mismatch"),
        ("frontier = sha256('forged')", "ledger.frontier_mismatch"),
        ("recorded_at = recorded_at + interval '1 second'", "ledger.time_mismatch"),
    ],
)
async def test_an_altered_head_is_found(log: Tampered, change: str, code: str) -> None:
    await log.run(f"update ledger set {change}")
    assert code in await log.findings()


async def test_a_ledger_under_another_name_is_not_what_was_recorded(log: Tampered) -> None:
    await log.run("update ledger set name = 'plant-2'")
    report = await verify_ledger(log.ledger.pool, "plant-2")
    altered = [f for f in report.findings if f.code == "event.leaf_mismatch"]
    assert [f.position for f in altered] == list(range(1, FINDINGS_A_CODE_MAX + 1))
    assert report.findings_left_out == SIZE - FINDINGS_A_CODE_MAX
    assert "ledger.root_mismatch" in {f.code for f in report.findings}


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("update tile set root = sha256('forged') where number = 1", "tile.mismatch"),
        ("delete from tile where number = 0", "tile.missing"),
        ("insert into tile values (2, 1, 0, sha256('forged'))", "tile.beyond_log"),
    ],
)
async def test_an_edited_tile_is_found(log: Tampered, statement: str, code: str) -> None:
    await log.run(statement)
    assert set(await log.findings()) == {code}


@pytest.mark.parametrize(
    ("statement", "code", "position"),
    [
        ("update event_identity set position = 7 where position = 6", "event.identity_mismatch", 6),
        ("delete from event_identity where position = 6", "event.identity_mismatch", 6),
        ("update event_identity set source = null, sequence = null where position = 3",
         "event.sequence_mismatch", 3),
        ("update event_identity set sequence = 9 where position = 2",
         "event.sequence_mismatch", 2),
        ("update stream_head set version = version + 1 where stream = 'part:SN-1'",
         "stream.head_mismatch", 2),
        ("update idempotency_key set last_position = 9999", "idempotency_key.mismatch", 1),
    ],
)  # fmt: skip
async def test_the_tables_beside_the_log_are_compared_with_it(
    log: Tampered, statement: str, code: str, position: int
) -> None:
    await log.run(statement)
    found = await log.findings()
    assert set(found) == {code}
    assert found[code].position == position
