"""A server for one benchmark: fsync on, migrated, gone afterwards."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import uvloop

from eventlog.embedded.server import EmbeddedPostgres
from migrations.run import upgrade

T = TypeVar("T")


class Scratch(NamedTuple):
    """The server's data directory, with room for files beside, and the database's URL."""

    folder: Path
    url: str


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Lend a data directory that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="heddle-bench-"))
    folder.chmod(0o711)  # root's server runs as an account of its own and has to pass
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_server() -> Iterator[Scratch]:
    """Serve an empty, migrated database."""
    with scratch_folder() as folder, serving(folder) as server:
        yield server


@contextmanager
def serving(folder: Path) -> Iterator[Scratch]:
    """Serve the migrated database of `folder`, which is made when it is not there."""
    with EmbeddedPostgres.start(folder) as server:
        upgrade(server.url)
        yield Scratch(folder, server.url)


def run_as_served(measuring: Coroutine[Any, Any, T]) -> T:
    """Run `measuring` on the event loop that the server uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measuring)
