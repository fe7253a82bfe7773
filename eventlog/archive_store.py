"""Where the archive's files lie: a directory, or anything that fsspec reaches by a URL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from domain.errors import HeddleError, InvalidInput, Unavailable

URL_LENGTH_MAX: Final = 500
SUFFIX: Final = ".parquet"

T = TypeVar("T")


class FileMissing(Unavailable):
    """A file of the archive is not there (``archive.file_missing``)."""


def archive_url(text: str) -> str:
    """Return the one URL that is remembered for the archive at `text`, a path or a URL.

    Raises
    ------
    InvalidInput
        ``archive.url``: too long, of a protocol nobody here speaks, or with a password in it
    """
    if not 1 <= len(text) <= URL_LENGTH_MAX or not text.isprintable():
        raise _unusable("…", f"it has {len(text)} characters, or unprintable ones")
    if "://" not in text:
        return Path(text).expanduser().resolve().as_uri()
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError as error:
        raise _unusable(text, error) from error
    if password is not None:
        raise _unusable(f"{parts.scheme}://…", "it holds a password; leave that to the environment")
    return text.rstrip("/")


class ArchiveStore:
    """The files below one URL. Its methods block: call them in a thread.

    Every failure of the file system is `Unavailable` (``archive.unavailable``,
    ``archive.file_missing``) and names the file.
    """

    def __init__(self, url: str) -> None:
        self.url = archive_url(url)
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError, OSError) as error:
            raise _unusable(self.url, error) from error
        self._filesystem = cast("Any", filesystem)
        self._root = str(root).rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)

    def name(self, path: str) -> str:
        """Return the whole name of the file at `path` below the URL."""
        return f"{self.url}/{path}"

    def put(self, path: str, content: bytes) -> None:
        """Store `content` as the file `path`, whole or not at all, and durably."""
        with self._failing(path):
            if self._local:
                _put_locally(Path(self._full(path)), content)
            else:
                self._filesystem.makedirs(self._full(path).rpartition("/")[0], exist_ok=True)
                self._filesystem.pipe_file(self._full(path), content)

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[IO[bytes]]:
        """Open the file `path` for reading here and there."""
        with self._failing(path):
            file = self._filesystem.open(self._full(path), "rb")
        with self._failing(path), contextlib.closing(file):
            yield file

    def delete(self, path: str) -> None:
        """Remove the file `path` and what a broken `put` left of it, if they are there."""
        with self._failing(path):
            for name in (
                self._full(path),
                *([_temporary(self._full(path))] if self._local else []),
            ):
                with contextlib.suppress(FileNotFoundError):
                    self._filesystem.rm_file(name)
            if self._local:
                _sync_folder(Path(self._full(path)).parent)

    def paths(self, below: str) -> list[str]:
        """Return the paths of all files below the folder `below`, hidden ones too."""
        with self._failing(below):
            self._filesystem.invalidate_cache()
            found = self._filesystem.find(self._full(below))
        return sorted(str(name)[len(self._root) + 1 :] for name in found)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextlib.contextmanager
    def _failing(self, path: str) -> Iterator[None]:
        try:
            yield
        except HeddleError:
            raise
        except FileNotFoundError as error:
            raise FileMissing(
                "archive.file_missing",
                f"archive file {self.name(path)} is not there",
                hint="is the archive mounted? else restore the file from a backup of it",
                value=self.name(path),
            ) from error
        # Whatever a file system's driver raises: each has errors of its own.
        except Exception as error:
            raise Unavailable(
                "archive.unavailable",
                f"archive file {self.name(path)} cannot be reached: "
                f"{type(error).__name__}: {error}",
                hint="try again once the archive can be reached",
                value=self.name(path),
            ) from error


def _put_locally(path: Path, content: bytes) -> None:
    """Write beside `path`, wait for the disk, and rename: never is half a file seen."""
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(_temporary(str(path)))
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    for folder in {path.parent, *(folder.parent for folder in made)}:
        _sync_folder(folder)


def _temporary(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/.{file}.part"


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unusable(url: str, reason: object) -> InvalidInput:
    return InvalidInput(
        "archive.url",
        f"{url} cannot be an archive: {reason}",
        hint="a directory, or a URL such as s3://bucket/heddle with its fsspec package installed",
        value=url,
    )
