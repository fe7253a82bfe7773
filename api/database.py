"""Finding the database: the one the settings name, or the embedded one in the data directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from api.settings import ServerSettings
from eventlog.embedded import EmbeddedPostgres


@contextmanager
def open_database(settings: ServerSettings) -> Iterator[str]:
    """Yield the database's URL; an embedded server runs for as long as somebody uses it."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    with EmbeddedPostgres.start(settings.data_dir) as server:
        yield server.url
