"""The same `eventsourcing` application on that library's PostgreSQL recorder and on the ledger.

Both on the same embedded PostgreSQL, fsync on, in turns within one run; the application shares the
machine with the server. The library's recorder needs `psycopg[binary,pool]` beside it.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate

from benchmarks.report import Figure, Report
from benchmarks.scratch import scratch_server

THREADS = 4
BATCH_EVENTS = 100
STREAM_EVENTS = 20
PAGE_EVENTS = 500
ADDRESS = "Hall 3, line 2, pump seat 14, beside the settling tank; bring the long torque wrench"

Work = Callable[[Application[UUID], int], int]
"""Does something so many times and returns how many of what is measured that were."""


class WorkOrder(Aggregate):
    """An aggregate whose events take about 250 bytes."""

    def __init__(self, address: str) -> None:
        self.address = address

    class Noted(Aggregate.Event):
        """Somebody wrote something down."""

        text: str
        address: str

    def note(self, number: int) -> None:
        """Write down `number`."""
        self.trigger_event(self.Noted, text=f"reading {number}", address=self.address)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare this benchmark's options."""
    parser.add_argument("--saves", type=int, default=600, help="saves a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each recorder")


def run(arguments: argparse.Namespace) -> Report:
    """Measure and return the figures."""
    with scratch_server() as server:
        return _measure(server.url, arguments.saves, arguments.rounds)


@dataclass(frozen=True, slots=True)
class _Case:
    figure: str
    unit: str
    share: float
    work: Work


def _measure(database_url: str, saves: int, rounds: int) -> Report:
    cases = [
        _Case("one_event_a_save", "saves/s", 1.0, _one_by_one),
        _Case(f"{THREADS}_threads", "saves/s", 1.0, _in_threads),
        _Case(f"{BATCH_EVENTS}_events_a_save", "events/s", 0.2, _in_batches),
        _Case(f"commands_on_streams_of_{STREAM_EVENTS}", "commands/s", 0.5, _commands),
        _Case("notifications_read", "events/s", 0.2, _read),
    ]
    rates: dict[str, dict[str, list[float]]] = {case.figure: {} for case in cases}
    with (
        _application(_on_ledger(database_url)) as ledger,
        _application(_on_library(database_url)) as library,
    ):
        recorders = {"ledger": ledger, "library": library}
        for app in recorders.values():  # connections, prepared statements, partitions
            _one_by_one(app, 50)
        for turn in range(rounds):
            order = list(recorders.items())
            for name, app in order if turn % 2 == 0 else reversed(order):
                for case in cases:
                    started = time.perf_counter()
                    count = case.work(app, max(1, int(saves * case.share)))
                    rate = count / (time.perf_counter() - started)
                    rates[case.figure].setdefault(name, []).append(rate)
    report = Report("recorders")
    for case in cases:
        ours, theirs = (statistics.median(rates[case.figure][n]) for n in ("ledger", "library"))
        report.figures[case.figure] = Figure(ours, case.unit, theirs)
    report.notes = [
        f"medians of {rounds} turns, {saves} saves each; events of about 250 bytes; fsync on; "
        "limit: the library's own PostgreSQL recorder under the same application in the same run",
        "spread, least to most: "
        + "; ".join(
            f"{case.figure} "
            + ", ".join(
                f"{name} {min(values):,.0f} to {max(values):,.0f}"
                for name, values in rates[case.figure].items()
            )
            for case in cases
        ),
    ]
    return report


# --- the two recorders --------------------------------------------------------------------


def _on_ledger(database_url: str) -> dict[str, str]:
    return {
        "PERSISTENCE_MODULE": "eventlog.eventsourcing_module",
        "HEDDLE_DATABASE_URL": database_url,
        "HEDDLE_LEDGER": "plant-1",
    }


def _on_library(database_url: str) -> dict[str, str]:
    url = urlsplit(database_url)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": url.path.lstrip("/"),
        "POSTGRES_HOST": query.get("host") or url.hostname or "localhost",
        "POSTGRES_PORT": query.get("port") or str(url.port or 5432),
        "POSTGRES_USER": query.get("user") or url.username or "",
        "POSTGRES_PASSWORD": url.password or "",
    }


@contextmanager
def _application(env: dict[str, str]) -> Iterator[Application[UUID]]:
    try:
        app = Application[UUID](env=env)
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{error}: pip install 'psycopg[binary,pool]' to compare with it"
        ) from None
    try:
        yield app
    finally:
        app.close()


# --- what is measured ---------------------------------------------------------------------


def _one_by_one(app: Application[UUID], saves: int) -> int:
    order = WorkOrder(ADDRESS)
    for n in range(saves):
        order.note(n)
        app.save(order)
    return saves


def _in_threads(app: Application[UUID], saves: int) -> int:
    each = max(1, saves // THREADS)
    threads = [threading.Thread(target=_one_by_one, args=(app, each)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * THREADS


def _in_batches(app: Application[UUID], saves: int) -> int:
    order = WorkOrder(ADDRESS)
    for _ in range(saves):
        for n in range(BATCH_EVENTS):
            order.note(n)
        app.save(order)
    return saves * BATCH_EVENTS


def _commands(app: Application[UUID], commands: int) -> int:
    order = WorkOrder(ADDRESS)
    for n in range(commands):
        if n % STREAM_EVENTS == 0:
            order = WorkOrder(ADDRESS)
            for m in range(STREAM_EVENTS - 1):
                order.note(m)
            app.save(order)
        loaded: WorkOrder = app.repository.get(order.id)
        loaded.note(n)
        app.save(loaded)
    return commands


def _read(app: Application[UUID], pages: int) -> int:
    last, count = 0, 0
    for _ in range(pages):
        page = app.recorder.select_notifications(last, PAGE_EVENTS, inclusive_of_start=False)
        last = page[-1].id if len(page) == PAGE_EVENTS else 0
        count += len(page)
    return count
