"""Where the embedded PostgreSQL lives and as whom: folders, accounts, and what is refused of them.

    <data_dir>/postgres.lock     held alone while a process starts or stops the server
    <data_dir>/postgres.users    held together by every process that uses the server
    <data_dir>/postgres/making   held alone while a cluster is made, by what makes it too
    <data_dir>/postgres/conf     settings, written before each start, but for `local.conf`
    <data_dir>/postgres/cluster  the databases
    <data_dir>/postgres/log      one file a weekday
    <data_dir>/postgres/run      the socket (a folder in /tmp where this path is too long for one)

Nobody but the account that runs Heddle gets in: the socket lies in a closed folder. PostgreSQL
refuses to run as root, so root's server runs as the system account `heddle-postgres`, which owns
the cluster and the logs but not the settings. This file starts no server and writes no setting.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

SERVER_ACCOUNT = "heddle-postgres"
PORT = 5432
SHARED_FOLDER = Path("/tmp")
SOCKET_PATH_BYTES_MAX = 107  # sockaddr_un.sun_path without its terminating zero
SOCKET_PATH_CHARACTERS_REFUSED = ',"'  # they end a path in a list of hosts, in a list of folders
ACCOUNT_ATTEMPTS_MAX = 3


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


@dataclass(frozen=True, slots=True)
class Layout:
    data_dir: Path
    lock: Path
    users: Path
    home: Path
    conf: Path
    cluster: Path
    log: Path
    sockets: Path

    @classmethod
    def of(cls, data_dir: Path) -> Layout:
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
class Account:
    """The operating system's account that the server runs as."""

    name: str
    uid: int
    gid: int


def server_account() -> Account:
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


def _account_of(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise AccountMissing(
            f"User id {uid} has no name in this system, and PostgreSQL authenticates by name.",
            hint="Add it to /etc/passwd, or set HEDDLE_DATABASE_URL to a PostgreSQL server.",
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _find_account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create_server_account() -> None:
    """Ask `useradd` for the account; whether it exists afterwards is the caller's to look at.

    Two processes may ask at once: one then finds the password file locked, or the account there.
    """
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        return
    options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
    for _ in range(ACCOUNT_ATTEMPTS_MAX):
        asked = subprocess.run(
            [useradd, *options, "--shell", "/usr/sbin/nologin", SERVER_ACCOUNT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if asked.returncode == 0 or _find_account(SERVER_ACCOUNT) is not None:
            return
        time.sleep(0.5)


def make_folders(layout: Layout, account: Account) -> None:
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


def _check_reachable(folder: Path, account: Account) -> None:
    closed = first_failing("-x", [*reversed(folder.parents), folder], account)
    if closed is not None:
        raise DataDirUnreachable(
            f"PostgreSQL runs as {account.name!r}, which may not pass {closed}.",
            hint=f"Set HEDDLE_DATA_DIR to one {account.name!r} can reach: /var/lib/heddle, say.",
            path=closed,
        )


def first_failing(test: str, paths: list[Path], account: Account) -> Path | None:
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


def make_server_folder(folder: Path, account: Account) -> None:
    """Make `folder` the server's alone; its parent is ours, so nobody can have put a link there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    os.chown(folder, account.uid, account.gid)


def make_socket_folder(folder: Path, account: Account) -> None:
    """Make `folder`, the server's alone, where anyone may have made it first."""
    if folder.parent != SHARED_FOLDER:
        make_server_folder(folder, account)
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
