"""The tables of the outbox, version by version. A version that was released is never edited."""

from __future__ import annotations

from typing import Final

_FRAMES: Final = """
    CREATE TABLE agent (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        name TEXT NOT NULL,
        last_sequence INTEGER NOT NULL,
        acknowledged_sequence INTEGER NOT NULL,
        acknowledged_position INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE source (
        name TEXT PRIMARY KEY,
        parts TEXT NOT NULL,
        part INTEGER,
        row INTEGER,
        time_ns INTEGER,
        anchor_ns INTEGER,
        first_ns INTEGER,
        noted_part INTEGER NOT NULL DEFAULT -1,
        noted_row INTEGER NOT NULL DEFAULT -1,
        ended INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE pending (
        sequence INTEGER PRIMARY KEY,
        event_id BLOB NOT NULL,
        source TEXT NOT NULL,
        frame BLOB NOT NULL
    ) STRICT;
    CREATE INDEX pending_of_source ON pending (source);
    CREATE TABLE rejected (
        sequence INTEGER PRIMARY KEY,
        event_id BLOB NOT NULL,
        source TEXT NOT NULL,
        frame BLOB NOT NULL,
        code TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE TABLE refused_row (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL,
        part TEXT NOT NULL,
        row INTEGER NOT NULL,
        code TEXT NOT NULL,
        message TEXT NOT NULL,
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX refused_row_of_source ON refused_row (source, number);
    CREATE TABLE fault_count (
        source TEXT NOT NULL,
        channel TEXT NOT NULL,
        code TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (source, channel, code)
    ) STRICT, WITHOUT ROWID;
    """

# A frame tells what is lost with it. `drop_class` orders what may be dropped, the highest first:
# 0 never (alerts, finite sources), from 1 on live frames by the order declared for their sources,
# and beyond them waveforms. `kept_at_s` counts the seconds that the agent has run, so that no
# clock that jumps makes a frame old.
_LIVE: Final = """
    ALTER TABLE agent ADD COLUMN run_s REAL NOT NULL DEFAULT 0;
    ALTER TABLE source ADD COLUMN asset TEXT NOT NULL DEFAULT '';
    ALTER TABLE source ADD COLUMN live INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE pending ADD COLUMN drop_class INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE pending ADD COLUMN from_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE pending ADD COLUMN to_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE pending ADD COLUMN reading_count INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE pending ADD COLUMN kept_at_s REAL NOT NULL DEFAULT 0;
    CREATE INDEX pending_to_drop ON pending (drop_class DESC, sequence) WHERE drop_class > 0;
    CREATE INDEX pending_to_expire ON pending (sequence) WHERE drop_class > 0;
    ALTER TABLE rejected ADD COLUMN drop_class INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rejected ADD COLUMN from_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rejected ADD COLUMN to_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rejected ADD COLUMN reading_count INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rejected ADD COLUMN kept_at_s REAL NOT NULL DEFAULT 0;
    CREATE INDEX rejected_to_drop ON rejected (drop_class DESC, sequence) WHERE drop_class > 0;
    CREATE INDEX rejected_to_expire ON rejected (sequence) WHERE drop_class > 0;
    CREATE TABLE command (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        mutation TEXT NOT NULL,
        input TEXT NOT NULL,
        idempotency_key TEXT NOT NULL UNIQUE,
        first_sequence INTEGER,
        last_sequence INTEGER,
        first_position INTEGER,
        last_position INTEGER,
        ready INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX command_to_send ON command (number) WHERE ready = 1;
    CREATE INDEX command_of_first ON command (first_sequence) WHERE first_sequence IS NOT NULL;
    CREATE INDEX command_of_last ON command (last_sequence) WHERE last_sequence IS NOT NULL;
    CREATE TABLE rejected_command (
        number INTEGER PRIMARY KEY,
        mutation TEXT NOT NULL,
        input TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        code TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE TABLE loss (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL,
        reason TEXT NOT NULL,
        from_ns INTEGER NOT NULL,
        to_ns INTEGER NOT NULL,
        count INTEGER,
        declared_at_s REAL NOT NULL,
        told INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX loss_to_tell ON loss (source, reason, number) WHERE told = 0;
    CREATE TABLE loss_total (
        source TEXT NOT NULL,
        reason TEXT NOT NULL,
        losses INTEGER NOT NULL,
        readings INTEGER NOT NULL,
        PRIMARY KEY (source, reason)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE setpoint_record (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        position INTEGER,
        subject TEXT NOT NULL,
        outcome TEXT NOT NULL,
        code TEXT NOT NULL,
        reason TEXT NOT NULL,
        value REAL,
        at_ns INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX setpoint_record_of_subject ON setpoint_record (subject, number);
    CREATE TABLE command_cursor (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        position INTEGER NOT NULL
    ) STRICT;
    """

# Who keeps for a live source what comes while nobody listens: a session with a broker, and what is
# subscribed to in it.
_KEPT_BY: Final = """
    ALTER TABLE source ADD COLUMN kept_by TEXT NOT NULL DEFAULT '';
    """

MIGRATIONS: Final = (_FRAMES, _LIVE, _KEPT_BY)
"""One script for each version of the schema, from the one before it."""
