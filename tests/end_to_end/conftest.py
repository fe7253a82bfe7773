"""What tests of whole processes may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database import server_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the embedded server's own account can pass, unlike root's `tmp_path`."""
    with server_folder() as path:
        yield path
