"""`heddle stats`: what each ledger holds, what it takes on disk, and how far its readers are."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from eventlog.ledger_statistics import Kind, LedgerStatistics, TableSize
    from projections.running.standing import Standing

TABLES_SHOWN_MAX: Final = 12


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("stats")(stats)


def stats(
    ledger: Annotated[
        str | None, typer.Option(help="Only this ledger; all of the database without it.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Read every event in place of estimating from some.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what the log holds, what it takes on disk, and how far its readers have come.

    Figures that would cost more the longer the log is are estimated and marked with ~.
    """
    found = asyncio.run(_found(ledger, exact=exact))
    now = datetime.now(UTC)
    text = json.dumps(document_of(found, now)) if as_json else "\n".join(lines_of(found, now))
    sys.stdout.write(text + "\n")


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to show."""

    ledgers: tuple[tuple[LedgerStatistics, tuple[Standing, ...]], ...]
    tables: tuple[TableSize, ...]
    database_bytes: int


async def _found(ledger: str | None, *, exact: bool) -> Found:
    from api.database import open_pool
    from api.settings import ServerSettings
    from eventlog.ledger_statistics import ledger_names, ledger_statistics, table_sizes
    from projections.running.standing import list_standings

    async with (
        open_pool(ServerSettings.from_environment()) as (pool, _url),
        pool.acquire() as connection,
        # One snapshot, so that no figure is ahead of another.
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        ledgers = []
        for name in [ledger] if ledger else await ledger_names(connection):
            held = await ledger_statistics(connection, name, exact=exact)
            ledgers.append((held, tuple(await list_standings(connection, held.ledger_id))))
        return Found(
            tuple(ledgers),
            await table_sizes(connection),
            await connection.fetchval("select pg_database_size(current_database())"),
        )


# --- for programs -------------------------------------------------------------------------


def document_of(found: Found, now: datetime) -> dict[str, Any]:
    """Return all figures as one JSON document; docs/operations.md names its members."""
    return {
        "ledgers": [_ledger_document(held, standings, now) for held, standings in found.ledgers],
        "tables": [
            {
                "table": table.table,
                "rows_estimated": table.rows,
                "bytes": table.bytes,
                "row_bytes": table.row_bytes,
                "overflow_bytes": table.overflow_bytes,
                "index_bytes": table.index_bytes,
            }
            for table in found.tables
        ],
        "database_bytes": found.database_bytes,
    }


def _ledger_document(
    held: LedgerStatistics, standings: Iterable[Standing], now: datetime
) -> dict[str, Any]:
    from eventlog.envelope import PayloadTier

    total = _Totals.of(held)
    signed = held.signed
    return {
        "ledger": held.ledger,
        "position": held.events,
        "recorded_at": _text(held.recorded_at),
        "streams": sum(category.streams for category in held.categories),
        "categories": [
            {"category": c.category, "streams": c.streams, "events": c.events}
            for c in held.categories
        ],
        "exact": held.is_exact,
        "sampled_events": held.sampled,
        "types": [
            {
                "type": name,
                "events": held.estimated(count),
                "standard_error": round(held.standard_error(count), 1),
            }
            for name, count in total.by_type.items()
        ],
        "frames": held.estimated(total.frames),
        "readings": held.estimated(total.readings),
        "payload_bytes": held.estimated(total.payload_bytes),
        "statistics_bytes": held.estimated(total.statistics_bytes),
        "payload_bytes_per_reading": total.payload_bytes_per_reading,
        "payload_tiers": {
            tier.name.lower(): held.estimated(total.by_tier.get(tier, 0)) for tier in PayloadTier
        },
        "archive": {
            "files": held.archived.files,
            "bytes": held.archived.bytes,
            "frames": held.archived.frames,
        },
        "checkpoint": None
        if signed is None
        else {
            "size": signed.size,
            "signed_at": _text(signed.signed_at),
            "age_s": round(_age_s(signed.signed_at, now), 3),
            "unsigned_events": held.events - signed.size,
            "kept": signed.checkpoints,
        },
        "idempotency_keys": held.idempotency_keys,
        "idempotency_keys_more": _has_more_keys(held),
        "projections": [
            {
                "projection": standing.projection,
                "version": standing.version,
                "position": standing.position,
                "lag": held.events - standing.position,
            }
            for standing in standings
        ],
    }


@dataclass(frozen=True, slots=True)
class _Totals:
    """Counts of the sample, added up; `by_type` and `by_tier` in events, most first."""

    by_type: dict[str, int]
    by_tier: dict[int, int]
    frames: int
    readings: int
    payload_bytes: int
    statistics_bytes: int
    payload_bytes_per_reading: float | None

    @classmethod
    def of(cls, held: LedgerStatistics) -> _Totals:
        def total(of: str) -> int:
            return sum(getattr(kind, of) for kind in held.kinds)

        in_rows = total("readings_in_rows")
        return cls(
            by_type=_added(held.kinds, "type"),
            by_tier=_added(held.kinds, "tier"),
            frames=total("frames"),
            readings=total("readings"),
            payload_bytes=total("payload_bytes"),
            statistics_bytes=total("statistics_bytes"),
            payload_bytes_per_reading=round(total("frame_bytes") / in_rows, 3) if in_rows else None,
        )


def _added(kinds: Iterable[Kind], by: str) -> dict[Any, int]:
    added: dict[Any, int] = {}
    for kind in kinds:
        key = getattr(kind, by)
        added[key] = added.get(key, 0) + kind.events
    return dict(sorted(added.items(), key=lambda item: (-item[1], item[0])))


def _has_more_keys(held: LedgerStatistics) -> bool:
    from eventlog.ledger_statistics import KEYS_COUNTED_MAX

    return held.idempotency_keys == KEYS_COUNTED_MAX


def _age_s(moment: datetime, now: datetime) -> float:
    return max(0.0, (now - moment).total_seconds())


def _text(moment: datetime | None) -> str | None:
    from domain.events import format_time

    return None if moment is None else format_time(moment)


# --- for people ---------------------------------------------------------------------------


def lines_of(found: Found, now: datetime) -> Iterator[str]:
    """Yield the figures as lines for people."""
    for held, standings in found.ledgers:
        yield from _ledger_lines(held, standings, now)
        yield ""
    if not found.ledgers:
        yield "no ledger yet: `heddle serve` makes one"
    yield f"on disk: {_bytes(found.database_bytes)}, all ledgers together"
    yield from _columns(
        [("table", "rows", "in rows", "overflow", "indexes")]
        + [
            (
                table.table,
                "-" if table.rows is None else f"~{table.rows:,}",
                _bytes(table.row_bytes),
                _bytes(table.overflow_bytes),
                _bytes(table.index_bytes),
            )
            for table in found.tables[:TABLES_SHOWN_MAX]
        ]
    )
    if len(found.tables) > TABLES_SHOWN_MAX:
        rest = found.tables[TABLES_SHOWN_MAX:]
        yield f"  and {len(rest)} tables of {_bytes(sum(t.bytes for t in rest))} together (--json)"


def _ledger_lines(
    held: LedgerStatistics, standings: Iterable[Standing], now: datetime
) -> Iterator[str]:
    total = _Totals.of(held)
    about = "" if held.is_exact else "~"
    streams = sum(category.streams for category in held.categories)
    last = f", the last recorded at {_text(held.recorded_at)}" if held.recorded_at else ""
    yield f"ledger {held.ledger}: {held.events:,} events on {streams:,} streams{last}"
    yield from _columns(
        [("category", "streams", "events")]
        + [(c.category, f"{c.streams:,}", f"{c.events:,}") for c in held.categories]
    )
    yield from _columns(
        [("type", "events", "")]
        + [
            (
                name,
                f"{about}{held.estimated(count):,}",
                "" if held.is_exact else f"± {2 * held.standard_error(count):,.0f}",
            )
            for name, count in total.by_type.items()
        ]
    )
    per_reading = total.payload_bytes_per_reading
    yield (
        f"  frames: {about}{held.estimated(total.frames):,} with "
        f"{about}{held.estimated(total.readings):,} readings"
        + ("" if per_reading is None else f", {per_reading:g} bytes a reading in rows")
    )
    yield (
        f"  payloads in rows: {about}{_bytes(held.estimated(total.payload_bytes))}, statistics "
        f"{about}{_bytes(held.estimated(total.statistics_bytes))}; archive: "
        f"{held.archived.files:,} files of {_bytes(held.archived.bytes)}"
    )
    yield "  payloads by tier: " + ", ".join(
        f"{name} {about}{held.estimated(count):,}" for name, count in _tiers(total)
    )
    more = " or more" if _has_more_keys(held) else ""
    yield f"  idempotency keys: {held.idempotency_keys:,}{more}"
    if held.signed is None:
        yield "  checkpoint: none was signed yet"
    else:
        yield (
            f"  checkpoint: {held.signed.size:,} events signed "
            f"{_ago(_age_s(held.signed.signed_at, now))} ago, "
            f"{held.events - held.signed.size:,} not signed yet; "
            f"{held.signed.checkpoints:,} checkpoints kept"
        )
    yield from _columns(
        [("projection", "version", "position", "lag")]
        + [
            (s.projection, f"{s.version}", f"{s.position:,}", f"{held.events - s.position:,}")
            for s in standings
        ]
    )
    if not held.is_exact:
        yield (
            f"  ~ estimated from {held.sampled:,} events drawn evenly over the log, ± two standard "
            "errors; what is rarer than a few in that many may be missing (--exact)"
        )


def _tiers(total: _Totals) -> list[tuple[str, int]]:
    from eventlog.envelope import PayloadTier

    return [(tier.name.lower(), total.by_tier.get(tier, 0)) for tier in PayloadTier]


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield `rows` aligned, the first column to the left and the others to the right."""
    if len(rows) < 2:
        return
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        others = (f"{text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True))
        yield ("  " + "  ".join([f"{row[0]:<{widths[0]}}", *others])).rstrip()


def _ago(age_s: float) -> str:
    """Return an age for people, in its largest unit."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if age_s >= 2 * length_s:
            return f"{age_s / length_s:,.0f} {unit}"
    return f"{age_s:.0f} s"


def _bytes(count: int) -> str:
    """Return `count` bytes for people, with the prefixes of 1,024."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1_024 or unit == "TiB":
            break
        size /= 1_024
    return f"{count} B" if unit == "B" else f"{size:,.1f} {unit}"
