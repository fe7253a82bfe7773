"""A range of readings cut into slices of time that each hold about so many: for what streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from domain.asset import telemetry_stream
from eventlog.ledger import Ledger

SLICE_READINGS: Final = 200_000
WINDOWS_PAGE: Final = 2_000


async def slices_of(
    ledger: Ledger,
    asset_id: str,
    *,
    start_ns: int,
    end_ns: int,
    known_at: int,
    readings: int = SLICE_READINGS,
) -> AsyncGenerator[tuple[int, int], None]:
    """Yield (first, last) ns of slices, both included, that cover all readings of a range in order.

    Each holds about `readings` readings of all channels, more where frames overlap.

    Parameters
    ----------
    known_at : only frames up to this position count
    """
    at_ns, held = start_ns, 0
    after = (-(2**63), 0)
    last_ns = None
    while True:
        windows = await ledger.pool.fetch(
            """
            select window_end_ns, position, reading_count from event
            where ledger_id = $1 and stream = $2 and window_end_ns is not null
                and window_end_ns >= $3 and window_start_ns <= $4
                and (window_end_ns, position) > ($5, $6) and position <= $7
            order by window_end_ns, position limit $8
            """,
            ledger.ledger_id,
            telemetry_stream(asset_id),
            start_ns,
            end_ns,
            *after,
            known_at,
            WINDOWS_PAGE,
        )
        for window in windows:
            last_ns = window["window_end_ns"]
            held += window["reading_count"]
            if held >= readings and at_ns <= last_ns < end_ns:
                yield at_ns, last_ns
                at_ns, held = last_ns + 1, 0
        if len(windows) < WINDOWS_PAGE:
            break
        after = (windows[-1]["window_end_ns"], windows[-1]["position"])
    if held and last_ns is not None and at_ns <= end_ns:
        yield at_ns, end_ns
