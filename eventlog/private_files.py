"""Small files that only their owner may read: made once whoever else starts, whole or not at all.

Keys lie in them. A file that others may read is refused, for then it is no secret any more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from domain.errors import InvalidInput

PRIVATE: Final = 0o600
BYTES_MAX: Final = 4096


def make_folder(folder: Path) -> None:
    """Make `folder`, closed to others, where there is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def create_once(path: Path, content: Callable[[], str]) -> None:
    """Write `content` to `path` where no file is: of two that start at once, one makes it."""
    make_folder(path.parent)
    temporary = _beside(path)
    try:
        _write_new(temporary, content(), PRIVATE)
        # A link fails where the file is there.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def replace(path: Path, text: str, mode: int) -> None:
    """Put a file of `text` in the place of `path`: whoever reads it sees the old or the new one."""
    temporary = _beside(path)
    try:
        _write_new(temporary, text, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def read_private(path: Path) -> str:
    """Return what `path` says, up to `BYTES_MAX` characters.

    Raises
    ------
    InvalidInput
        ``key.open_to_others``
    FileNotFoundError
    """
    with path.open() as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise InvalidInput(
                "key.open_to_others",
                f"{path} may be read by others (mode {mode:04o})",
                hint=f"chmod 600 {path}, and rotate the key if others did read it",
                value=f"{mode:04o}",
                limit=f"{PRIVATE:04o}",
            )
        return file.read(BYTES_MAX)


def flush_folder(folder: Path) -> None:
    """Return once the names in `folder` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")


def _write_new(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
