"""Backup and restore with PostgreSQL's own programs, and what a log does that lost events by it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from api.app import open_services
from api.services import Services
from api.settings import ServerSettings
from domain.asset import AssetCommand, CommissionAsset, RegisterAsset
from eventlog.commands import handle
from eventlog.embedded.server import EmbeddedPostgres
from eventlog.transparency.checkpoints import Checkpoint
from eventlog.transparency.signing import SigningRefused
from migrations.run import upgrade
from tests.database import as_superuser, execute, with_database
from tests.end_to_end.backups import give_to_server, heddle, run_program
from tests.eventlog.new_events import fact, frame_event, frame_of
from tests.eventlog.signing import signer_for

pytestmark = pytest.mark.slow

BACKED_UP, SIGNED_LATER, ANOTHER_WAY = 500, 560, 700
LEDGER = "plant-1"
COMMANDS: tuple[AssetCommand, ...] = (
    RegisterAsset("loop-1", "skab-pump-loop", ""),
    CommissionAsset("loop-1"),
)

CATALOGUE = """
    select 'trigger', tgrelid::regclass::text || '.' || tgname, pg_get_triggerdef(oid)
        || tgenabled::text
    from pg_trigger where not tgisinternal or tgparentid <> 0
    union all select 'table', relname, relkind::text || ' ' || pg_get_userbyid(relowner) || ' '
        || coalesce(relacl::text, '')
    from pg_class where relnamespace = 'public'::regnamespace
    union all select 'column', attrelid::regclass || '.' || attname, attacl::text
    from pg_attribute where attacl is not null
    union all select 'function', proname, prosrc || coalesce(prosqlbody::text, '')
    from pg_proc where pronamespace = 'public'::regnamespace
    union all select 'index', indexname, indexdef from pg_indexes where schemaname = 'public'
    union all select 'view', viewname, definition from pg_views where schemaname = 'public'
    order by 1, 2, 3
"""
CHANGES = (
    "update event set actor = 'nobody' where position = 7",
    "update event_p000000 set payload = 'forged' where position = 7",
    "delete from event where position = 7",
    "delete from event_p000000",
    "truncate event",
    "truncate event_p000000",
    "update event_identity set position = 8",
    "delete from event_identity",
    "truncate idempotency_key",
    "update tile set root = ''",
    "delete from checkpoint",
)


@dataclass(frozen=True)
class Machine:
    """An embedded server of its own, in `data_dir`, and folders beside it."""

    folder: Path
    data_dir: Path
    url: str

    @property
    def keys_dir(self) -> Path:
        return self.folder / "keys"


@contextlib.contextmanager
def running(folder: Path, name: str) -> Iterator[Machine]:
    data_dir = folder / name
    with EmbeddedPostgres.start(data_dir) as server:
        yield Machine(folder, data_dir, server.url)


@asynccontextmanager
async def served(url: str, keys_dir: Path) -> AsyncIterator[Services]:
    """Run what `heddle serve` runs, without HTTP; nothing is signed but when a test asks."""
    settings = ServerSettings(keys_dir=keys_dir, checkpoint_interval_s=3_600.0)
    async with open_services(settings, url) as services:
        yield services


async def folded(services: Services) -> int:
    head = await services.ledger.head()
    for runner in services.runners.values():
        await runner.wait_for(head, 60)
    return head


async def grow(services: Services, size: int, way: str = "one") -> None:
    """Append facts and frames until the log has `size` events, then sign it."""
    ledger = services.ledger
    if await ledger.head() == 0:
        for command in COMMANDS:
            await handle(
                ledger,
                command,
                actor="user:mara",
                occurred_at=services.now(),
                event_id=lambda _: services.new_event_id(),
            )
    while (head := await ledger.head()) < size:
        if head % 10 == 9:
            frame = frame_of(head, agent=f"agent-{way}", start_ns=head * 10**9)
            await ledger.append([frame_event(frame)])
        else:
            await ledger.append([fact((way, head), stream=f"asset:valve-{head % 3}")])


async def signed(services: Services) -> int:
    assert services.checkpoints is not None
    note = await services.checkpoints.current(covering=await services.ledger.head())
    return Checkpoint.parse(note.text).size


def catalogue(url: str) -> list[tuple[object, ...]]:
    async def read() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(CATALOGUE)]
        finally:
            await connection.close()

    return asyncio.run(read())


def assert_append_only(url: str) -> None:
    for change in CHANGES:
        with pytest.raises(
            (asyncpg.InsufficientPrivilegeError, asyncpg.IntegrityConstraintViolationError)
        ):
            execute(url, change)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            execute(as_superuser(url), change)


# --- pg_dump ------------------------------------------------------------------------------


def test_a_dump_is_restored_whole_and_a_log_that_lost_events_by_it_says_so(folder: Path) -> None:
    with running(folder, "data") as machine:
        upgrade(machine.url)
        dump = folder / "monday.dump"
        kept_keys = folder / "keys-of-monday"

        async def live() -> None:
            async with served(machine.url, machine.keys_dir) as services:
                await grow(services, BACKED_UP)
                assert await signed(services) == BACKED_UP
                await folded(services)
                await asyncio.to_thread(
                    run_program, machine.data_dir,
                    "pg_dump", "--format=custom", f"--file={dump}", machine.url,
                )  # fmt: skip
                shutil.copytree(machine.keys_dir, kept_keys)
                await grow(services, SIGNED_LATER)
                assert await signed(services) == SIGNED_LATER

        asyncio.run(live())
        execute(machine.url, "create database restored template template0")
        restored = with_database(machine.url, "restored")
        run_program(machine.data_dir, "pg_restore", "--exit-on-error", f"--dbname={restored}", dump)

        assert catalogue(restored) == catalogue(machine.url)
        execute(restored, "select ensure_event_partitions(6000000)")
        assert_append_only(restored)
        assert_verified(restored, kept_keys)
        assert_nothing_is_signed_in_contradiction(machine, restored)
        assert_it_goes_on_under_another_origin(machine, restored)


def assert_verified(restored: str, kept_keys: Path) -> None:
    """By itself, and by the checkpoint of that day, the restored log is whole and right."""
    code, report, complaint = heddle(restored, kept_keys, "verify")
    assert code == 0, (report, complaint)
    assert (report["clean"], report["events"]) == (True, BACKED_UP)
    assert report["payloads"] == BACKED_UP
    assert report["signatures"] == report["checkpoints"] >= 2


def assert_nothing_is_signed_in_contradiction(machine: Machine, restored: str) -> None:
    code, report, _ = heddle(restored, machine.keys_dir, "verify")
    assert code == 1
    assert [finding["code"] for finding in report["findings"]] == ["checkpoint.beyond_log"]
    assert (
        f"events {BACKED_UP + 1} to {SIGNED_LATER} were cut off"
        in (report["findings"][0]["message"])
    )
    published = (machine.keys_dir / f"{LEDGER}.checkpoint").read_text()

    async def live_on() -> None:
        async with served(restored, machine.keys_dir) as services:
            await refused(services, "checkpoint.log_shorter")
            await grow(services, ANOTHER_WAY, "another")
            assert await folded(services) == ANOTHER_WAY
            await refused(services, "checkpoint.inconsistent")

    asyncio.run(live_on())
    code, _, complaint = heddle(restored, machine.keys_dir, "prove", "7", "--out=/dev/null")
    assert code == 2
    assert "checkpoint.inconsistent" in complaint
    assert "heddle acknowledge-loss" in complaint
    assert (machine.keys_dir / f"{LEDGER}.checkpoint").read_text() == published


async def refused(services: Services, code: str) -> None:
    signer = signer_for(services.ledger, services.settings.keys_dir or Path())
    with pytest.raises(SigningRefused) as refusal:
        await signer.sign()
    assert refusal.value.code == code


def assert_it_goes_on_under_another_origin(machine: Machine, restored: str) -> None:
    origin = "heddle.example/plant-1/2"
    told = ("--reason", "the disk died; restored the dump of Monday")
    code, said, _ = heddle(
        restored, machine.keys_dir, "acknowledge-loss", "--origin", origin, *told
    )
    assert (code, said["origin"]) == (0, origin)
    code, _, complaint = heddle(restored, machine.keys_dir, "prove", "7", "--out=/dev/null")
    assert (code, "key.other_origin" in complaint) == (2, True)
    settings = {"HEDDLE_ORIGIN": origin}
    code, proved, _ = heddle(
        restored, machine.keys_dir, "prove", "7", "--out=/dev/null", **settings
    )
    assert (code, proved["size"]) == (0, ANOTHER_WAY + 1)
    code, report, complaint = heddle(restored, machine.keys_dir, "verify", **settings)
    assert (code, report["findings"]) == (0, []), complaint
    assert report["signatures"] == report["checkpoints"] >= 3


# --- write-ahead log ----------------------------------------------------------------------


def test_a_base_backup_and_archived_wal_bring_the_log_back_to_a_moment(folder: Path) -> None:
    base, archive = folder / "base", folder / "wal"
    archive.mkdir(mode=0o700)
    give_to_server(archive)
    with running(folder, "data"):
        pass  # makes local.conf, which is the operator's
    _set(folder / "data", f"archive_mode = on\narchive_command = 'cp %p {archive}/%f'\n")
    with running(folder, "data") as machine:
        upgrade(machine.url)
        sockets = machine.data_dir / "postgres/run"

        async def live() -> None:
            async with served(machine.url, machine.keys_dir) as services:
                await grow(services, 100)
                await asyncio.to_thread(
                    run_program, machine.data_dir,
                    "pg_basebackup", f"--pgdata={base}", "--checkpoint=fast",
                    f"--host={sockets}", "--username=heddle_bootstrap",
                )  # fmt: skip
                await grow(services, BACKED_UP)
                assert await signed(services) == BACKED_UP
                await folded(services)
                await _as_superuser(machine.url, "select pg_create_restore_point('monday')")
                await grow(services, SIGNED_LATER)
                assert await signed(services) == SIGNED_LATER

        asyncio.run(live())
        asyncio.run(_as_superuser(machine.url, "select pg_switch_wal()"))
    shutil.copytree(machine.keys_dir, folder / "keys-of-today")

    home = folder / "again/postgres"
    (home / "conf").mkdir(parents=True)
    (folder / "again").chmod(0o711)
    shutil.move(base, home / "cluster")
    (home / "cluster/recovery.signal").touch()
    give_to_server(home / "cluster")
    _set(
        folder / "again",
        f"restore_command = 'cp {archive}/%f %p'\nrecovery_target_name = 'monday'\n"
        "recovery_target_action = 'promote'\nhot_standby = off\n",
    )
    with running(folder, "again") as machine:

        async def again() -> None:
            async with served(machine.url, folder / "keys-of-today") as services:
                assert await folded(services) == BACKED_UP
                await refused(services, "checkpoint.log_shorter")

        code, report, complaint = heddle(machine.url, folder / "nowhere", "verify")
        assert code == 0, (report, complaint)
        assert (report["events"], report["payloads"]) == (BACKED_UP, BACKED_UP)
        assert report["checkpoints"] >= 1
        asyncio.run(again())
        assert_append_only(machine.url)


def _set(data_dir: Path, settings: str) -> None:
    local = data_dir / "postgres/conf/local.conf"
    local.write_text(settings)
    os.chmod(local, 0o644)


async def _as_superuser(url: str, statement: str) -> None:
    connection = await asyncpg.connect(as_superuser(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
