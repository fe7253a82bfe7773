"""The memory of a runner over a long history: a process of its own, told by its peak on the way.

python -m benchmarks.runner_memory DATABASE_URL LEDGER POSITION...
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.scratch import run_as_served
from eventlog.database import create_pool
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from projections.production.projection import ProductionProjection
from projections.quality.projection import QualityProjection
from projections.running.runner import ProjectionRunner
from projections.thread.projection import ThreadProjection

PATIENCE_S: Final = 600.0


async def peaks_mib(database_url: str, ledger_name: str, positions: Sequence[int]) -> list[float]:
    """Return the peak memory of a process of runners as each of `positions` is folded, MiB."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.runner_memory"),
        *(database_url, ledger_name, *map(str, positions)),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    peaks: list[float] = json.loads(told)
    return peaks


async def _run(database_url: str, ledger_name: str, positions: Sequence[int]) -> None:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, ledger_name)
    tail = Tail(ledger, database_url)
    runners = [
        ProjectionRunner(projection, tail)
        for projection in (ThreadProjection(), ProductionProjection(), QualityProjection())
    ]
    peaks = []
    for position in positions:
        for runner in runners:
            await runner.wait_for(position, PATIENCE_S)
        peaks.append(_peak_mib())
    for runner in runners:
        await runner.close()
    await tail.close()
    await ledger.close()
    await pool.close()
    print(json.dumps(peaks))


def _peak_mib() -> float:
    """Return the most that this process has had in memory so far, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell a process's peak memory")


if __name__ == "__main__":
    run_as_served(_run(sys.argv[1], sys.argv[2], [int(position) for position in sys.argv[3:]]))
