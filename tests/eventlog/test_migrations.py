"""Migrations: forward from empty, again without effect, and by two processes at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import migrations
from migrations.run import upgrade
from tests.recordings import REPOSITORY

_SCHEMA = """
    select 'column', table_name || '.' || column_name, data_type || ' ' || is_nullable
        from information_schema.columns where table_schema = 'public'
    union all select 'index', indexname, indexdef from pg_indexes where schemaname = 'public'
    union all select 'trigger', tgname, pg_get_triggerdef(oid) from pg_trigger
        where not tgisinternal
    union all select 'function', proname, prosrc from pg_proc
        where pronamespace = 'public'::regnamespace
    union all select 'privileges', relname, relacl::text from pg_class
        where relnamespace = 'public'::regnamespace
    union all select 'revision', version_num, '' from alembic_version
    order by 1, 2, 3
"""


def schema(url: str) -> list[tuple[str, ...]]:
    """Return everything a migration can make, as comparable rows."""

    async def read() -> list[tuple[str, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(_SCHEMA)]
        finally:
            await connection.close()

    return asyncio.run(read())


def head_revision() -> str:
    config = Config()
    config.set_main_option("script_location", str(REPOSITORY / migrations.__name__))
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head is not None
    return head


def test_an_empty_database_is_brought_to_the_head(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    made = schema(empty_database_url)
    assert ("revision", head_revision(), "") in made
    assert {name for kind, name, _ in made if kind == "trigger"} >= {
        "event_append_only",
        "event_not_truncated",
        "event_identity_append_only",
        "idempotency_key_append_only",
    }


def test_upgrading_again_changes_nothing(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    made = schema(empty_database_url)
    upgrade(empty_database_url)
    assert schema(empty_database_url) == made


@pytest.mark.slow
def test_two_processes_may_migrate_at_once(empty_database_url: str, database_url: str) -> None:
    command = "import sys; from migrations.run import upgrade; upgrade(sys.argv[1])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", command, empty_database_url],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in processes:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint.decode()
    assert schema(empty_database_url) == schema(database_url)
