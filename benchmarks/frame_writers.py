"""Frames recorded in one ledger by several processes, each with the ledger open for itself."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from threading import Barrier

from benchmarks.scratch import run_as_served
from eventlog.database import create_pool
from eventlog.ledger import Ledger

PROCESSES = 2
BEGIN_WAIT_S_MAX = 60.0

Recording = Callable[[Ledger, int], Coroutine[None, None, int]]
"""Records the share of the process of that number; returns how many readings that were."""


def rate_of_processes(database_url: str, ledger: str, record: Recording) -> float:
    """Return readings/s of `PROCESSES` that record their shares at once, until all have ended.

    Parameters
    ----------
    record : a function of a module, or a partial of one: it is sent to the processes
    """
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(PROCESSES + 1)
    pipes = [context.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [
        context.Process(target=_process, args=(database_url, ledger, record, number, begin, told))
        for number, (_, told) in enumerate(pipes)
    ]
    for process, (_, told) in zip(processes, pipes, strict=True):
        process.start()
        told.close()
    try:
        begin.wait(BEGIN_WAIT_S_MAX)
        started = time.perf_counter()
        readings: int = sum(ours.recv() for ours, _ in pipes)
        elapsed_s = time.perf_counter() - started
    except EOFError:
        raise SystemExit("a process that records frames ended without a word") from None
    finally:
        for process in processes:
            process.join()
    return readings / elapsed_s


def _process(
    database_url: str,
    name: str,
    record: Recording,
    number: int,
    begin: Barrier,
    told: Connection,
) -> None:
    async def work() -> None:
        pool = await create_pool(database_url)
        ledger = await Ledger.open(pool, name)
        begin.wait(BEGIN_WAIT_S_MAX)
        told.send(await record(ledger, number))
        await ledger.close()
        await pool.close()

    run_as_served(work())
