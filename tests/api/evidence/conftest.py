"""A part with all that an auditor asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventlog.ledger import Ledger
from tests.api.evidence.part_plant import Plant, prepared


@pytest.fixture
async def plant(ledger: Ledger, database_url: str, tmp_path: Path) -> Plant:
    """A part of a lot with a certificate: made, measured, corrected, signed, shipped."""
    return await prepared(ledger, database_url, tmp_path)
