"""Faults for processes at work: killed processes, cut connections, a database that restarts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from eventlog.database import CONNECTION_LOST, connected
from eventlog.embedded.server import EmbeddedPostgres
from tests.end_to_end.processes import PATIENCE_S, Process, Server

PAUSE_S_MAX: Final = 0.4
ATTEMPTS_MAX: Final = 100


class Fault(StrEnum):
    """What is done to the processes."""

    CUT_ONE = "one connection cut"
    CUT_ALL = "every connection cut"
    KILL_WRITER = "writer process killed"
    KILL_FOLLOWER = "follower process killed"
    KILL_SERVER = "heddle serve killed"
    FAST_RESTART = "PostgreSQL restarted, fast"
    IMMEDIATE_RESTART = "PostgreSQL restarted, immediate"
    KILL_POSTMASTER = "postmaster killed"


SHARES: Final = {
    Fault.CUT_ALL: 0.12,
    Fault.KILL_WRITER: 0.14,
    Fault.KILL_FOLLOWER: 0.05,
    Fault.KILL_SERVER: 0.02,
    Fault.FAST_RESTART: 0.015,
    Fault.IMMEDIATE_RESTART: 0.015,
    Fault.KILL_POSTMASTER: 0.015,
}
"""Of all faults; the others cut one connection. Each kind happens at least once."""

_STOPS: Final = {
    Fault.FAST_RESTART: signal.SIGINT,
    Fault.IMMEDIATE_RESTART: signal.SIGQUIT,
    Fault.KILL_POSTMASTER: signal.SIGKILL,
}


def schedule(count: int, chance: random.Random) -> list[Fault]:
    """Return `count` faults in an order drawn by `chance`."""
    faults = [fault for fault, share in SHARES.items() for _ in range(max(1, round(share * count)))]
    faults += [Fault.CUT_ONE] * max(1, count - len(faults))
    chance.shuffle(faults)
    return faults


class Worker(Process):
    """A process of a module of these tests that notes what it does in files."""

    def __init__(self, module: str, folder: Path, url: str, names: Sequence[str]) -> None:
        log = folder / f"{module.rpartition('.')[2]}-{'-'.join(names)}.log"
        environment = {"HEDDLE_DATABASE_URL": url}
        super().__init__([str(folder), *names], environment, log, module=module)
        self._notes = [f"{name}.writer" for name in names] or ["*.follower"]
        self._folder = folder
        self._noted_at_start = 0

    def start(self) -> None:
        """Start it, or start it again."""
        self._noted_at_start = self._noted
        super().start()

    @property
    def works(self) -> bool:
        """Whether it has noted something since it was started."""
        return self._noted > self._noted_at_start

    @property
    def _noted(self) -> int:
        paths = (path for notes in self._notes for path in self._folder.glob(notes))
        return sum(path.stat().st_size for path in paths)


class Injector:
    """Does faults, one at a time, and counts those that hit something."""

    def __init__(
        self,
        database: EmbeddedPostgres,
        data_dir: Path,
        writers: Sequence[Worker],
        follower: Worker,
        server: Server,
        chance: random.Random,
    ) -> None:
        self.injected: Counter[Fault] = Counter()
        self._url = database.url
        self._data_dir = data_dir
        self._writers = writers
        self._follower = follower
        self._server = server
        self._chance = chance

    async def run(self, faults: Sequence[Fault]) -> None:
        """Do `faults`, a short while apart; each process has to outlive what others are done."""
        for fault in faults:
            await asyncio.sleep(self._chance.uniform(0, PAUSE_S_MAX))
            for process in (*self._writers, self._follower, self._server):
                assert process.is_running, process.log[-4_000:]
            match fault:
                case Fault.CUT_ONE | Fault.CUT_ALL:
                    await self._until_hit(partial(self._cut, one=fault is Fault.CUT_ONE))
                case Fault.KILL_WRITER:
                    await self._until_hit(self._kill_writer)
                case Fault.KILL_FOLLOWER:
                    await self._until_hit(partial(self._kill, self._follower))
                case Fault.KILL_SERVER:
                    self._server.kill()
                    await asyncio.to_thread(self._server.start)
                case _:
                    await asyncio.to_thread(self._restart, _STOPS[fault])
            self.injected[fault] += 1

    async def _until_hit(self, attempt: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(ATTEMPTS_MAX):
            with suppress(*CONNECTION_LOST):
                if await attempt():
                    return
            await asyncio.sleep(0.1)
        raise AssertionError("nothing was there to be hit")

    async def _cut(self, *, one: bool) -> bool:
        """End connections of the database, rather those in the middle of something."""
        async with connected(self._url) as connection:
            found = await connection.fetch(
                "select pid, state from pg_stat_activity where backend_type = 'client backend' "
                "and datname = current_database() and pid <> pg_backend_pid() order by pid"
            )
            pids = [row["pid"] for row in found]
            busy = [row["pid"] for row in found if row["state"] != "idle"]
            if one and pids:
                pids = [self._chance.choice(busy or pids)]
            cut: int = await connection.fetchval(
                "select count(*) filter (where ended) "
                "from unnest($1::int[]) pid, pg_terminate_backend(pid) ended",
                pids,
            )
            return cut > 0

    async def _kill_writer(self) -> bool:
        return await self._kill(self._chance.choice(self._writers))

    async def _kill(self, process: Worker) -> bool:
        if not process.works:
            return False
        process.kill()
        process.start()
        return True

    def _restart(self, stop: signal.Signals) -> None:
        """Stop the server by `stop` and start it again, recovering where it has to."""
        pid_file = self._data_dir / "postgres" / "cluster" / "postmaster.pid"
        postmaster = int(pid_file.read_text().split("\n", 1)[0])
        os.kill(postmaster, stop)
        deadline = time.monotonic() + PATIENCE_S
        while Path(f"/proc/{postmaster}").exists():
            assert time.monotonic() < deadline, f"PostgreSQL goes on after signal {stop}"
            time.sleep(0.05)
        # Everybody else shares the server and lost it too; this start is for all of them.
        EmbeddedPostgres.start(self._data_dir).stop()
