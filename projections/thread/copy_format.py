"""Rows as PostgreSQL takes them in by COPY.

Layout: the manual of PostgreSQL, "COPY", "Binary Format".
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from typing import Final

ROWS_AT_ONCE: Final = 200

_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_END: Final = struct.pack(">h", -1)


async def copy_stream(rows: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Yield `rows`, each its number of values and each value after its length, in blocks."""
    yield _HEAD
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield b"".join(rows[start : start + ROWS_AT_ONCE])
    yield _END
