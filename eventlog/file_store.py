"""Files below one URL: a directory, or anything that fsspec reaches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar, Final, cast
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from domain.errors import HeddleError, InvalidInput, Unavailable

URL_LENGTH_MAX: Final = 500


class FileMissing(Unavailable):
    """A file of a store is not there (``<kind>.file_missing``)."""


class FileStore:
    """The files below one URL. Its methods block: call them in a thread.

    Every failure of the file system is `Unavailable` (``<kind>.unavailable``,
    ``<kind>.file_missing``) and names the file.

    Attributes
    ----------
    kind : what is stored, as errors call it
    """

    kind: ClassVar[str]

    def __init__(self, url: str) -> None:
        self.url = self.checked_url(url)
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError, OSError) as error:
            raise self._unusable(self.url, error) from error
        self._filesystem = cast("Any", filesystem)
        self._root = str(root).rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)

    @classmethod
    def checked_url(cls, text: str) -> str:
        """Return the one URL that is remembered for what `text` names, a path or a URL.

        Raises
        ------
        InvalidInput
            ``<kind>.url``: too long, of a protocol nobody here speaks, or with a password in it
        """
        if not 1 <= len(text) <= URL_LENGTH_MAX or not text.isprintable():
            raise cls._unusable("…", f"it has {len(text)} characters, or unprintable ones")
        if "://" not in text:
            # As fsspec reads it: a blank stays a blank and is not written %20.
            return f"file://{Path(text).expanduser().resolve()}"
        try:
            parts = urlsplit(text)
            password = parts.password
        except ValueError as error:
            raise cls._unusable(text, error) from error
        if password is not None:
            raise cls._unusable(
                f"{parts.scheme}://…", "it holds a password; leave that to the environment"
            )
        return text.rstrip("/")

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
    def written(self, path: str) -> Iterator[IO[bytes]]:
        """Open the file `path` for writing from its beginning; it is durable when the block ends.

        Others may see half of it meanwhile: give it a name that nobody reads, and then `move` it.
        """
        full = self._full(path)
        with self._failing(path):
            self._filesystem.makedirs(full.rpartition("/")[0], exist_ok=True)
            with self._filesystem.open(full, "wb") as file:
                yield file
                if self._local:
                    file.flush()
                    os.fsync(file.fileno())

    def move(self, path: str, target: str) -> None:
        """Rename the file `path` to `target`, whole or not at all, and durably."""
        with self._failing(target):
            if self._local:
                _move_locally(Path(self._full(path)), Path(self._full(target)))
            else:
                self._filesystem.makedirs(self._full(target).rpartition("/")[0], exist_ok=True)
                self._filesystem.mv(self._full(path), self._full(target))

    def find_size(self, path: str) -> int | None:
        """Return the bytes of the file `path`, or None when there is none."""
        with self._failing(path):
            self._filesystem.invalidate_cache()
            try:
                return int(self._filesystem.info(self._full(path))["size"])
            except FileNotFoundError:
                return None

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
                f"{self.kind}.file_missing",
                f"{self.kind} file {self.name(path)} is not there",
                hint=f"is the {self.kind} mounted? else restore the file from a backup of it",
                value=self.name(path),
            ) from error
        # Whatever a file system's driver raises: each has errors of its own.
        except Exception as error:
            raise Unavailable(
                f"{self.kind}.unavailable",
                f"{self.kind} file {self.name(path)} cannot be reached: "
                f"{type(error).__name__}: {error}",
                hint=f"try again once the {self.kind} can be reached",
                value=self.name(path),
            ) from error

    @classmethod
    def _unusable(cls, url: str, reason: object) -> InvalidInput:
        return InvalidInput(
            f"{cls.kind}.url",
            f"{url} cannot be the {cls.kind}: {reason}",
            hint="a directory, or a URL such as s3://bucket/heddle with its fsspec package "
            "installed",
            value=url,
        )


def _put_locally(path: Path, content: bytes) -> None:
    """Write beside `path`, wait for the disk, and rename: never is half a file seen."""
    temporary = Path(_temporary(str(path)))
    made = _make_folder(path.parent)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    for folder in {path.parent, *made}:
        _sync_folder(folder)


def _move_locally(path: Path, target: Path) -> None:
    made = _make_folder(target.parent)
    os.replace(path, target)
    for folder in {path.parent, target.parent, *made}:
        _sync_folder(folder)


def _make_folder(folder: Path) -> set[Path]:
    """Make `folder` where it is missing; return those in which something was made for it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return {one.parent for one in missing}


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
