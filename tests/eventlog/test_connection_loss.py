"""A connection that ends is told as lost, whenever it ends; a misused one is told as misused."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from io import BytesIO
from typing import Any

import asyncpg
import pytest

from eventlog.database import CONNECTION_LOST, Connection, ConnectionLost, Pool, connected
from eventlog.database import create_pool as create
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import cut_connections, fact, frame_event, frame_of
from tests.eventlog.relay import Relay, relayed

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0
ROWS = [(number, "x" * 1_000) for number in range(20_000)]  # more than any buffer on the way holds
FEW_ROWS = ROWS[:3]


@pytest.fixture(autouse=True)
async def reported() -> AsyncIterator[list[str]]:
    """What the driver reports, and futures whose exceptions nobody looked at: nothing."""
    loop = asyncio.get_running_loop()
    reported: list[str] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(str(context)))
    yield reported
    await asyncio.sleep(0.05)
    gc.collect()
    loop.set_exception_handler(before)
    assert reported == []


@pytest.fixture
async def relay(database_url: str) -> AsyncIterator[Relay]:
    async with relayed(database_url) as relay:
        yield relay


@pytest.fixture
async def lone_pool(relay: Relay) -> AsyncIterator[Pool]:
    """A pool of one connection, through the relay."""
    pool = await create(relay.url, connections_max=1)
    await pool.execute("create table t (a int, b text)")
    yield pool
    relay.end_passes.set()
    pool.terminate()


@pytest.fixture
async def ledger_pool(relay: Relay) -> AsyncIterator[Pool]:
    """A pool for a ledger, through the relay."""
    pool = await create(relay.url, connections_max=4)
    yield pool
    pool.terminate()


async def backend_of(pool: Pool) -> int:
    pid: int = await pool.fetchval("select pg_backend_pid()")
    return pid


async def rows_in(pool: Pool) -> int:
    async with asyncio.timeout(PATIENCE_S):
        count: int = await pool.fetchval("select count(*) from t")
    return count


async def cut(database_url: str, backend: int) -> None:
    """Have the server end `backend`; return when it has and its client may know."""
    async with connected(database_url) as other:
        assert await other.fetchval("select pg_terminate_backend($1, 10000)", backend)
    await asyncio.sleep(0.05)


async def cut_unnoticed(relay: Relay, database_url: str, backend: int) -> None:
    """Have the server end `backend`; its client reads the last words and sees no end."""
    relay.end_passes.clear()
    await cut(database_url, backend)
    async with asyncio.timeout(PATIENCE_S):
        await relay.farewell.wait()
    await asyncio.sleep(0.05)


# --- at each moment of a connection's life ------------------------------------------------


async def test_a_connection_lost_in_the_pool_is_replaced(
    lone_pool: Pool, database_url: str
) -> None:
    first = await backend_of(lone_pool)
    await cut(database_url, first)
    assert await backend_of(lone_pool) != first


async def test_a_connection_in_the_pool_whose_end_is_not_known_yet_is_lost(
    lone_pool: Pool, relay: Relay, database_url: str
) -> None:
    await cut_unnoticed(relay, database_url, await backend_of(lone_pool))
    with pytest.raises(ConnectionLost):
        await rows_in(lone_pool)
    relay.end_passes.set()
    assert await rows_in(lone_pool) == 0


async def test_a_connection_lost_in_the_middle_of_a_query_is_lost(
    lone_pool: Pool, database_url: str
) -> None:
    backend = await backend_of(lone_pool)
    query = asyncio.create_task(lone_pool.execute("select pg_sleep(60)"))
    await asyncio.sleep(0.1)
    await cut(database_url, backend)
    with pytest.raises(asyncpg.PostgresConnectionError) as lost:
        await query
    assert isinstance(lost.value, CONNECTION_LOST)
    assert await rows_in(lone_pool) == 0


USES: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "execute": lambda c: c.execute("select 1"),
    "fetch": lambda c: c.fetch("select $1::int", 1),
    "prepared": lambda c: c.fetch("select count(*) from t"),
    "executemany": lambda c: c.executemany("insert into t values ($1, $2)", FEW_ROWS),
    "copy_records": lambda c: c.copy_records_to_table("t", records=FEW_ROWS),
    "copy": lambda c: c.copy_to_table("t", source=BytesIO(b"1\tx\n")),
    "nothing": lambda _: asyncio.sleep(0),
}


@pytest.mark.parametrize("end", ["known", "unread"])
@pytest.mark.parametrize("use", USES)
async def test_a_connection_lost_between_the_statements_of_a_transaction_is_lost(
    lone_pool: Pool, relay: Relay, database_url: str, use: str, end: str
) -> None:
    async def transact() -> None:
        async with lone_pool.acquire() as connection, connection.transaction():
            await connection.fetch("select count(*) from t")
            await connection.copy_records_to_table("t", records=FEW_ROWS)  # prepares the next COPY
            backend = connection.get_server_pid()
            if end == "known":
                await cut(database_url, backend)
            else:
                await cut_unnoticed(relay, database_url, backend)
                asyncio.get_running_loop().call_later(0.1, relay.end_passes.set)
            await USES[use](connection)

    with pytest.raises(ConnectionLost):
        await transact()
    relay.end_passes.set()
    assert await rows_in(lone_pool) == 0


COPIES: dict[str, Callable[[Connection], Awaitable[str]]] = {
    "records": lambda c: c.copy_records_to_table("t", records=ROWS),
    "text": lambda c: c.copy_to_table(
        "t", source=BytesIO(b"".join(b"%d\t%b\n" % (a, b.encode()) for a, b in ROWS))
    ),
}


LOOPS: dict[str, dict[str, Any]] = {"asyncio": {}, "uvloop": {"use_uvloop": True}}


@pytest.mark.parametrize("anyio_backend", [("asyncio", o) for o in LOOPS.values()], ids=LOOPS)
@pytest.mark.parametrize("within", ["transaction", "nothing"])
@pytest.mark.parametrize("copy", COPIES)
async def test_a_copy_ends_with_its_connection_though_there_is_no_room_left_to_write(
    lone_pool: Pool,
    relay: Relay,
    database_url: str,
    reported: list[str],
    copy: str,
    within: str,
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    copied = asyncio.Event()

    async def transact() -> None:
        async with lone_pool.acquire() as connection:
            await connection.copy_records_to_table("t", records=[])
            relay.bytes_left = 100_000
            async with connection.transaction() if within == "transaction" else nullcontext():
                await COPIES[copy](connection)
            copied.set()

    backend = await backend_of(lone_pool)
    transaction = asyncio.create_task(transact())
    async with asyncio.timeout(PATIENCE_S):
        await relay.stalled.wait()
    await asyncio.sleep(0.1)
    assert not transaction.done()
    await cut(database_url, backend)
    with pytest.raises(ConnectionLost, match="in the middle"):
        async with asyncio.timeout(PATIENCE_S):
            await transaction
    assert not copied.is_set()
    assert await rows_in(lone_pool) == 0
    if anyio_backend[1] and reported:  # there asyncpg leaves a future behind: only a line in a log
        (left,) = reported
        assert "connection was closed in the middle of operation" in left
        reported.clear()


async def test_a_copy_may_be_cancelled_and_its_connection_used_again(lone_pool: Pool) -> None:
    async def endless() -> AsyncIterator[tuple[int, str]]:
        while True:
            yield FEW_ROWS[0]
            await asyncio.sleep(0)

    async with lone_pool.acquire() as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.copy_records_to_table("t", records=endless())
        assert await connection.fetchval("select count(*) from t") == 0


async def test_a_connection_that_cannot_be_had_is_lost(lone_pool: Pool, relay: Relay) -> None:
    relay.refusing = True
    with suppress(*CONNECTION_LOST):
        await lone_pool.execute("select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(CONNECTION_LOST):
        await lone_pool.execute("select 1")
    relay.refusing = False
    assert await rows_in(lone_pool) == 0


async def test_a_closed_pool_has_no_connection(lone_pool: Pool) -> None:
    await lone_pool.close()
    with pytest.raises(ConnectionLost, match="closed"):
        await lone_pool.execute("select 1")


async def test_a_connection_of_one_s_own_is_lost_like_a_pool_s(
    relay: Relay, database_url: str
) -> None:
    async def use() -> None:
        async with connected(relay.url) as connection:
            await cut(database_url, connection.get_server_pid())
            await connection.fetchval("select 1")

    with pytest.raises(ConnectionLost):
        await use()


# --- what is no lost connection -----------------------------------------------------------


async def test_two_operations_at_once_on_a_connection_are_a_fault(lone_pool: Pool) -> None:
    async def misuse() -> None:
        async with lone_pool.acquire() as connection, asyncio.TaskGroup() as group:
            group.create_task(connection.execute("select pg_sleep(0.2)"))
            group.create_task(connection.execute("select 1"))

    with pytest.raises(ExceptionGroup) as group:
        await misuse()
    (told,) = group.value.exceptions
    assert isinstance(told, asyncpg.InterfaceError)
    assert "another operation is in progress" in str(told)
    assert not isinstance(told, CONNECTION_LOST)


async def test_a_statement_on_a_busy_connection_is_a_fault(lone_pool: Pool) -> None:
    async def misuse() -> None:
        async with lone_pool.acquire() as connection:
            slow = asyncio.create_task(connection.execute("select pg_sleep(0.2)"))
            await asyncio.sleep(0.05)
            try:
                await connection.execute("select 1")
            finally:
                await slow

    with pytest.raises(asyncpg.InterfaceError, match="another operation is in progress") as told:
        await misuse()
    assert not isinstance(told.value, CONNECTION_LOST)


async def test_a_connection_used_after_it_was_given_back_is_a_fault(lone_pool: Pool) -> None:
    async with lone_pool.acquire() as connection:
        pass
    with pytest.raises(asyncpg.InterfaceError, match="released") as told:
        await connection.execute("select 1")
    assert not isinstance(told.value, CONNECTION_LOST)


async def test_a_misused_transaction_is_a_fault(lone_pool: Pool) -> None:
    async def misuse() -> None:
        async with lone_pool.acquire() as connection, connection.transaction() as transaction:
            assert transaction is None
            await connection.transaction().commit()

    with pytest.raises(asyncpg.InterfaceError, match="not yet started") as told:
        await misuse()
    assert not isinstance(told.value, CONNECTION_LOST)


async def test_a_type_that_cannot_be_copied_is_a_fault(lone_pool: Pool) -> None:
    await lone_pool.execute("create table c (a aclitem)")  # it has no binary form
    with pytest.raises(asyncpg.InternalClientError, match="no binary format encoder") as told:
        await lone_pool.copy_records_to_table("c", records=[("x",)], columns=["a"])
    assert not isinstance(told.value, CONNECTION_LOST)
    assert await lone_pool.fetchval("select count(*) from c") == 0


@pytest.mark.parametrize(
    ("statement", "argument"),
    [("select $1::int", "one"), ("select $1::text", "\x00"), ("select 1 / $1::int", 0)],
)
async def test_a_statement_that_cannot_be_right_is_a_fault(
    lone_pool: Pool, statement: str, argument: object
) -> None:
    with pytest.raises(asyncpg.PostgresError) as told:
        await lone_pool.fetchval(statement, argument)
    assert not isinstance(told.value, CONNECTION_LOST)
    assert await rows_in(lone_pool) == 0


# --- the log behind such connections ------------------------------------------------------


@pytest.mark.parametrize("heard", ["requests_left", "answers_left"])
async def test_an_append_is_recorded_once_whichever_word_is_the_last_to_arrive(
    ledger_pool: Pool, relay: Relay, heard: str
) -> None:
    ledger = await Ledger.open(ledger_pool, "plant-1")
    cuts = -1
    was_cut = True
    while was_cut:
        cuts += 1
        assert cuts < 60, "an append has fewer words than that"
        setattr(relay, heard, cuts)
        async with asyncio.timeout(PATIENCE_S):
            outcome = await ledger.append([fact(cuts), frame_event(frame_of(cuts + 1))])
        was_cut = getattr(relay, heard) is None
        setattr(relay, heard, None)
        assert [p.position for p in outcome.placed] == [2 * cuts + 1, 2 * cuts + 2]
    assert cuts > 0
    await assert_log_is_sound(ledger, 2 * cuts + 2)
    await ledger.close()


async def test_a_large_append_goes_on_though_its_connection_ends_with_no_room_left_to_write(
    ledger_pool: Pool, relay: Relay, pool: Pool
) -> None:
    ledger = await Ledger.open(ledger_pool, "plant-1")
    await ledger.append([fact(0)])
    relay.bytes_left = 1_000_000
    append = asyncio.create_task(
        ledger.append([fact(n, payload=bytes(10_000)) for n in range(1, 1_001)])
    )
    async with asyncio.timeout(PATIENCE_S):
        await relay.stalled.wait()
    assert not append.done()
    assert await cut_connections(pool) > 0
    async with asyncio.timeout(PATIENCE_S):
        outcome = await append
    assert [p.position for p in outcome.placed] == list(range(2, 1_002))
    assert await ledger.head() == 1_001
    await ledger.close()


async def test_a_tail_whose_connection_was_cut_is_told_of_what_follows(
    relay: Relay, pool: Pool
) -> None:
    ledger = await Ledger.open(pool, "plant-1")
    tail = Tail(ledger, relay.url)
    for turn in range(1, 4):
        await ledger.append([fact(turn)])
        assert await tail.wait_beyond(turn - 1, timeout_s=PATIENCE_S) == turn
        await pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name <> 'heddle'"
            " and backend_type = 'client backend'"
        )
    await tail.close()
    await ledger.close()


async def test_a_cancelled_transaction_ends_though_its_connection_ended_before(
    lone_pool: Pool, database_url: str
) -> None:
    inside = asyncio.Event()

    async def patient() -> None:
        while True:
            with suppress(*CONNECTION_LOST):
                async with lone_pool.acquire() as connection, connection.transaction():
                    inside.set()
                    await asyncio.sleep(PATIENCE_S)

    task = asyncio.create_task(patient())
    backend = await backend_of_held(inside, database_url)
    await cut(database_url, backend)
    task.cancel()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.shield(task)


async def backend_of_held(inside: asyncio.Event, database_url: str) -> int:
    """Return the backend of the one connection that holds a transaction open."""
    async with asyncio.timeout(PATIENCE_S):
        await inside.wait()
    async with connected(database_url) as other:
        backend: int = await other.fetchval(
            "select pid from pg_stat_activity where datname = current_database() "
            "and state = 'idle in transaction'"
        )
    return backend


# --- types ----------------------------------------------------------------------------------


async def test_postgresqls_own_types_are_asked_for_once_a_process(database_url: str) -> None:
    async def asked_by(query: str, *arguments: object) -> tuple[object, bool]:
        statements: list[str] = []
        pool = await create(database_url, on_statement=lambda told: statements.append(told.query))
        try:
            value = await pool.fetchval(query, *arguments)
        finally:
            await pool.close()
        return value, any("typeinfo_tree" in statement for statement in statements)

    for numbers in ([1, 2], [3]):
        value, asked = await asked_by("select $1::int8[]", numbers)
        assert value == numbers
    assert not asked
    # A set that nobody has asked for before, of types that somebody has.
    await asked_by("select $1::float8[]", [0.5])
    both = await asked_by("select array[$1::int8[] = $2, $3::float8[] = $4]", [1], [1], [0.5], [2])
    assert both[0] == [True, False]
    assert await asked_by("select row($1::int8[], $2::float8[])", [1], [0.5]) == (
        ([1], [0.5]),
        False,
    )


async def test_types_of_a_database_are_asked_for_in_it(database_url: str) -> None:
    """Their numbers mean something else in the next one."""
    async with connected(database_url) as connection:
        await connection.execute("create type mood as enum ('calm'); create domain few as int4[]")
    for _ in range(2):
        async with connected(database_url) as connection:
            asked: list[str] = []
            connection.add_query_logger(lambda told, asked=asked: asked.append(told.query))
            assert await connection.fetchval("select array['calm'::mood]") == ["calm"]
            assert any("typeinfo_tree" in query for query in asked)
