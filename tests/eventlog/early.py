"""Batches that write their rows early, as they do where the disk is slow."""

from __future__ import annotations

import pytest

from eventlog.appending.flush_time import FlushTime


def early_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every batch behind another be early, and sent event by event."""
    monkeypatch.setattr(
        FlushTime, "is_slow", property(lambda _: True, lambda *_: None), raising=False
    )
    monkeypatch.setattr("eventlog.appending.storage.PART", 0.0)
    monkeypatch.setattr("eventlog.appending.storage.PART_EVENTS_MIN", 1)
