"""Databases for tests: one embedded server a run, one migrated template, one copy a test."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from eventlog.embedded import EmbeddedPostgres
from eventlog.embedded_cluster import BOOTSTRAP_ROLE, ROLE


@contextmanager
def embedded_server() -> Iterator[str]:
    """Serve an embedded PostgreSQL in a folder of its own and yield the URL of its database.

    It does not wait for the disk: tests kill backends and processes, never the machine.
    """
    folder = Path(tempfile.mkdtemp(prefix="heddle-tests-"))
    folder.chmod(0o711)  # root's server runs as an account of its own and has to pass
    try:
        with EmbeddedPostgres.start(folder / "data") as server:
            execute(as_superuser(server.url), "alter system set fsync = off")
            execute(as_superuser(server.url), "select pg_reload_conf()")
            yield server.url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def with_database(url: str, name: str) -> str:
    """Return `url` with another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def as_superuser(url: str) -> str:
    """Return `url` for the cluster's superuser, whom peer authentication admits too."""
    return url.replace(f"//{ROLE}@", f"//{BOOTSTRAP_ROLE}@", 1)


def execute(url: str, statement: str) -> None:
    """Run one statement in a connection of its own, from outside any event loop."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@contextmanager
def new_database(server_url: str, name: str, *, template: str = "template0") -> Iterator[str]:
    """Create the database `name` after `template`, yield its URL and drop it again."""
    execute(server_url, f"create database {name} template {template}")
    try:
        yield with_database(server_url, name)
    finally:
        # As superuser: an autovacuum worker in the database can be ended by nobody else.
        execute(as_superuser(server_url), f"drop database {name} with (force)")
