"""Faults of sources: counted by channel and code; the latest refused messages with their text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from edge_agent.outbox.store import Store
from edge_agent.readings import RowFault

REFUSED_ROWS_MAX: Final = 1_000
"""Refused rows kept with their text, per source; their number is counted without a bound."""
TEXT_LENGTH_MAX: Final = 500
FAULT_CODES_MAX: Final = 1_000
"""Pairs of channel and code that are counted, per source; others are counted together."""


class Faults:
    """The faults in an outbox."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, source: str, part: int, row: int, faults: Sequence[RowFault]) -> list[RowFault]:
        """Keep and count what was found up to `row` of `part`; return what was not noted yet."""
        noted_part, noted_row = self._store.rows(
            "SELECT noted_part, noted_row FROM source WHERE name = ?", source
        )[0]
        new = [fault for fault in faults if (fault.part, fault.row) > (noted_part, noted_row)]
        if not new:
            return new
        counts = Counter((fault.channel, fault.code) for fault in new)
        refused = [fault for fault in new if not fault.channel]
        with self._store.transaction():
            self.count(source, counts, refused)
            self._store.execute(
                "UPDATE source SET noted_part = ?, noted_row = ? WHERE name = ?", part, row, source
            )
        return new

    def count(
        self,
        source: str,
        counts: Mapping[tuple[str, str], int],
        refused: Sequence[RowFault],
    ) -> None:
        """Count faults by (channel, code) and keep `refused` messages; part of a transaction."""
        for (channel, code), count in counts.items():
            self._store.execute(
                "INSERT INTO fault_count VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET count = count + excluded.count",
                source,
                channel,
                code,
                count,
            )
        if not refused:
            return
        told = self._store.value("SELECT parts FROM source WHERE name = ?", source)
        names = json.loads(told) if told else []
        self._store.execute_many(
            "INSERT INTO refused_row (source, part, row, code, message, text) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    source,
                    names[fault.part] if fault.part < len(names) else "",
                    fault.row,
                    fault.code,
                    fault.message[:TEXT_LENGTH_MAX],
                    fault.text[:TEXT_LENGTH_MAX],
                )
                for fault in refused[-REFUSED_ROWS_MAX:]
            ],
        )
        self._store.execute(
            "DELETE FROM refused_row WHERE source = ?1 AND number <= (SELECT number FROM "
            "refused_row WHERE source = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            source,
            REFUSED_ROWS_MAX,
        )

    def refused_rows(self, count: int) -> list[tuple[str, str, int, str, str, str]]:
        """Return the latest refused rows as (source, part, row, code, message, text)."""
        return self._store.rows(
            "SELECT source, part, row, code, message, text FROM refused_row "
            "ORDER BY number DESC LIMIT ?",
            count,
        )

    def totals(self) -> tuple[dict[str, dict[str, int]], int]:
        """Return the counts by source, and how many rows or messages were refused in all."""
        faults: dict[str, dict[str, int]] = {}
        refused = 0
        for source, channel, code, count in self._store.rows(
            "SELECT * FROM fault_count ORDER BY 1, 2, 3"
        ):
            faults.setdefault(source, {})[f"{channel}: {code}" if channel else code] = count
            refused += 0 if channel else count
        return faults, refused
