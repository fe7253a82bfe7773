"""Where the archive's files lie."""

from __future__ import annotations

from typing import ClassVar, Final

from eventlog.file_store import FileStore

SUFFIX: Final = ".parquet"


class ArchiveStore(FileStore):
    """The files of the archive below one URL."""

    kind: ClassVar[str] = "archive"
