"""Databases for tests: one embedded server a run, one migrated template, one copy a test.

A database is some five hundred files. Copied within memory, one costs less than the test that asks
for it; on a disk it can cost twenty times as much.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from eventlog.embedded.cluster import BOOTSTRAP_ROLE, ROLE
from eventlog.embedded.server import EmbeddedPostgres

PREFIX: Final = "heddle-test-server-"
LEFTOVER_AGE_S_MIN: Final = 60.0
"""A younger folder may be one that somebody makes and does not hold yet."""

MEMORY: Final = Path("/dev/shm")
MEMORY_FREE_BYTES_MIN: Final = 4 * 2**30
"""Some servers hold 1 GiB each at most, as `SETTINGS` has it; others' files want room too."""

SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "'256MB'",
}
"""Nothing waits for a disk: tests kill backends and processes, never the machine."""


@contextmanager
def embedded_server() -> Iterator[str]:
    """Serve an embedded PostgreSQL in a folder of its own and yield the URL of its database."""
    with server_folder() as folder, EmbeddedPostgres.start(folder / "data") as server:
        for name, value in SETTINGS.items():
            execute(as_superuser(server.url), f"alter system set {name} = {value}")
        execute(as_superuser(server.url), "select pg_reload_conf()")
        yield server.url


@contextmanager
def server_folder() -> Iterator[Path]:
    """Yield a folder for an embedded server, kept in memory where there is room, and remove it."""
    parent = MEMORY if _has_room() else Path(tempfile.gettempdir())
    _remove_leftovers(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)  # until this process ends, however it ends
        folder.chmod(0o711)  # root's server runs as an account of its own and has to pass
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_leftovers(parent: Path) -> None:
    """End the servers that killed runs left behind, and remove their folders."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # in use, or somebody else is at it
            held = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - folder.stat().st_mtime > LEFTOVER_AGE_S_MIN:
                    _end_server(folder / "data/postgres/cluster")
                    shutil.rmtree(folder)
            finally:
                os.close(held)


def _end_server(cluster: Path) -> None:
    """Tell the server of `cluster`, if it still runs, to end at once."""
    with suppress(FileNotFoundError, ProcessLookupError):
        postmaster = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        if Path(f"/proc/{postmaster}/cwd").samefile(cluster):
            os.kill(postmaster, signal.SIGQUIT)


def _has_room() -> bool:
    """Say whether servers fit into `MEMORY`, and programs copied there may be run."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        return False
    found = os.statvfs(MEMORY)
    free_bytes = found.f_bavail * found.f_frsize
    return free_bytes >= MEMORY_FREE_BYTES_MIN and not found.f_flag & os.ST_NOEXEC


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
    """Create the database `name` after `template`, yield its URL and drop it again.

    Its files are copied: PostgreSQL's own way, page by page through the WAL, takes six times as
    long, and nobody here recovers from that WAL.
    """
    execute(server_url, f"create database {name} template {template} strategy file_copy")
    try:
        yield with_database(server_url, name)
    finally:
        # As superuser: an autovacuum worker in the database can be ended by nobody else.
        execute(as_superuser(server_url), f"drop database {name} with (force)")
