"""`heddle generate`: fill a ledger with the history of a made-up plant."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from api.history_recording import RecordedHistory
    from api.plant_history import HistoryName

TOLD_EVERY_S: Final = 2.0


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("generate")(generate)


def generate(
    parts: Annotated[int, typer.Option("--parts", min=1, help="Parts made and received.")],
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Part of every name; the same again, the same.")
    ],
    months: Annotated[
        int, typer.Option("--months", min=1, help="Over how many months it happens.")
    ] = 12,
    ledger: Annotated[
        str | None, typer.Option(help="Which ledger; HEDDLE_LEDGER without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Record the history of a made-up plant; begun again, it goes on where it stopped.

    It is meant for demonstrations, tests and benchmarks: what is recorded stays in the log.
    """
    from api.plant_history import HistoryName

    name = HistoryName(parts, seed, months)
    began = time.monotonic()
    recorded = asyncio.run(_generate(name, ledger))
    seconds = time.monotonic() - began
    document = {
        "parts": parts,
        "seed": seed,
        "months": months,
        "events": recorded.events,
        "new": recorded.new,
        "complete_before": recorded.complete_before,
        "position": recorded.position,
        "seconds": round(seconds, 3),
    }
    line = f"{recorded.events:,} events of {parts:,} parts, {recorded.new:,} of them new"
    if recorded.complete_before:
        line = f"the history of {parts:,} parts was there already"
    text = json.dumps(document) if as_json else f"{line}, up to position {recorded.position:,}"
    sys.stdout.write(text + "\n")


async def _generate(name: HistoryName, ledger_name: str | None) -> RecordedHistory:
    from api.database import open_pool
    from api.history_recording import record_history
    from api.settings import ServerSettings
    from eventlog.ledger import Ledger

    settings = ServerSettings.from_environment()
    async with open_pool(settings) as (pool, _url):
        ledger = await Ledger.open(pool, ledger_name or settings.ledger)
        try:
            return await record_history(ledger, name, told=_Progress().tell)
        finally:
            await ledger.close()


class _Progress:
    """Tells now and then on stderr how far it is."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()

    def tell(self, events: int) -> None:
        """Tell that so many events were recorded."""
        now = time.monotonic()
        if now - self._told >= TOLD_EVERY_S:
            self._told = now
            rate = events / (now - self._began)
            sys.stderr.write(f"{events:,} events, {rate:,.0f}/s\n")
