"""Statements sent one behind the other: answers, errors, and the end of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from eventlog.appending import wire
from eventlog.appending.pipeline import Pipeline, Statement
from eventlog.appending.wire import Type
from eventlog.database import CONNECTION_LOST, ConnectionLost, Pool, create_pool

pytestmark = pytest.mark.anyio

INSERT = Statement(
    "insert_one", "insert into t values ($1, $2) returning a", (Type.BIGINT, Type.BYTEA)
)
COUNT = Statement("count_all", "select count(*) from t", ())
SLEEP = Statement("sleep", "select pg_sleep(60)", ())
STATEMENTS = (INSERT, COUNT, SLEEP)

LOOPS: dict[str, dict[str, Any]] = {"asyncio": {}, "uvloop": {"use_uvloop": True}}


@pytest.fixture(params=[("asyncio", o) for o in LOOPS.values()], ids=[*LOOPS])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(database_url)
    await pool.execute("create table t (a bigint primary key, b bytea)")
    yield pool
    await pool.close()


@pytest.fixture
async def pipeline(pool: Pool) -> AsyncIterator[Pipeline]:
    pipeline = await Pipeline.open(await pool.connect_apart(), STATEMENTS)
    yield pipeline
    pipeline.terminate()


def row(number: int, content: bytes | None = b"x") -> tuple[bytes, bytes | None]:
    return wire.bigint(number), content


async def test_statements_are_answered_in_the_order_in_which_they_were_sent(
    pipeline: Pipeline,
) -> None:
    sent = [
        answer
        for number in range(200)
        for answer in (pipeline.call(INSERT, row(number)), pipeline.call(COUNT, ()))
    ]
    answers = await asyncio.gather(*sent)
    assert answers[::2] == [wire.bigint(number) for number in range(200)]
    assert answers[1::2] == [wire.bigint(number + 1) for number in range(200)]


async def test_one_that_fails_leaves_those_behind_it_alone(pipeline: Pipeline) -> None:
    first, again, other, count = (
        pipeline.call(INSERT, row(1)),
        pipeline.call(INSERT, row(1)),
        pipeline.call(INSERT, row(2)),
        pipeline.call(COUNT, ()),
    )
    assert await first == wire.bigint(1)
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await again
    assert refused.value.constraint_name == "t_pkey"
    assert await other == wire.bigint(2)
    assert await count == wire.bigint(2)


async def test_a_script_is_one_transaction_and_stands_in_the_order(pipeline: Pipeline) -> None:
    before = pipeline.call(COUNT, ())
    failing = pipeline.run("insert into t values (1, null); select 1 / 0")
    between = pipeline.call(COUNT, ())
    good = pipeline.run("insert into t values (1, null); insert into t values (2, null)")
    after = pipeline.call(COUNT, ())
    with pytest.raises(asyncpg.DivisionByZeroError):
        await failing
    await good
    assert [await count for count in (before, between, after)] == [
        *map(wire.bigint, (0, 0, 2)),
    ]


async def test_a_transaction_may_span_statements(pipeline: Pipeline, pool: Pool) -> None:
    await pipeline.run("begin")
    await pipeline.call(INSERT, row(1))
    assert await pool.fetchval("select count(*) from t") == 0
    await pipeline.run("commit")
    assert await pool.fetchval("select count(*) from t") == 1


async def test_what_is_large_or_null_arrives_whole(pipeline: Pipeline, pool: Pool) -> None:
    large = bytes(range(256)) * 40_000
    await asyncio.gather(
        pipeline.call(INSERT, row(1, large)),
        pipeline.call(INSERT, row(2, None)),
        pipeline.call(INSERT, row(3, b"")),
    )
    stored = await pool.fetch("select b from t order by a")
    assert [tuple(found) for found in stored] == [(large,), (None,), (b"",)]


async def test_answers_may_come_byte_by_byte(pipeline: Pipeline) -> None:
    class Trickling(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            for at in range(len(data)):
                pipeline.data_received(data[at : at + 1])

    pipeline._transport.set_protocol(Trickling())
    answers = [pipeline.call(INSERT, row(number % 7)) for number in range(10)]
    told = await asyncio.gather(*answers, return_exceptions=True)
    assert told[:7] == [wire.bigint(number) for number in range(7)]
    assert all(isinstance(error, asyncpg.UniqueViolationError) for error in told[7:])


async def test_too_few_parameters_are_sent_to_nobody(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="insert_one takes 2 parameters"):
        pipeline.call(INSERT, (wire.bigint(1),))
    assert await pipeline.call(COUNT, ()) == wire.bigint(0)


async def test_a_statement_that_the_server_does_not_take_opens_no_pipeline(pool: Pool) -> None:
    connection = await pool.connect_apart()
    with pytest.raises(asyncpg.UndefinedTableError):
        await Pipeline.open(connection, (Statement("wrong", "select * from nowhere", ()),))
    assert connection.is_closed()


async def test_all_that_was_not_answered_is_lost_with_the_connection(
    pipeline: Pipeline, pool: Pool
) -> None:
    answered = await pipeline.call(INSERT, row(1))
    waiting = [pipeline.call(SLEEP, ()), pipeline.call(INSERT, row(2))]
    await asyncio.sleep(0.1)
    await pool.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
        "where query like '%pg_sleep(60)' and datname = current_database() "
        "and pid <> pg_backend_pid()"
    )
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert answered == wire.bigint(1)
    assert isinstance(told[0], asyncpg.AdminShutdownError)  # the server's last words
    assert isinstance(told[1], ConnectionLost)
    assert all(isinstance(error, CONNECTION_LOST) for error in told)
    assert pipeline.is_lost
    with pytest.raises(ConnectionLost):
        await pipeline.call(COUNT, ())
    assert await pool.fetchval("select count(*) from t") == 1


async def test_a_connection_that_ends_while_nothing_is_asked_is_lost(
    pipeline: Pipeline, pool: Pool
) -> None:
    await pool.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid() and state = 'idle'"
    )
    async with asyncio.timeout(10):
        while True:
            if pipeline.is_lost:
                break
            await asyncio.sleep(0.01)
    with pytest.raises(ConnectionLost, match="closed the connection"):
        await pipeline.call(COUNT, ())


async def test_a_connection_that_has_ended_opens_no_pipeline(pool: Pool) -> None:
    connection = await pool.connect_apart()
    connection.terminate()
    with pytest.raises(CONNECTION_LOST):
        await Pipeline.open(connection, STATEMENTS)


async def test_an_answer_that_does_not_come_is_not_waited_for(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.appending.pipeline.COMMAND_TIMEOUT_S", 0.2)
    asleep, behind = pipeline.call(SLEEP, ()), pipeline.call(COUNT, ())
    for lost in (asleep, behind):
        with pytest.raises(ConnectionLost, match="no answer within"):
            await lost
    assert pipeline.is_lost


async def test_whoever_gives_up_waiting_takes_no_answer_from_the_others(
    pipeline: Pipeline,
) -> None:
    given_up, other = pipeline.call(INSERT, row(1)), pipeline.call(INSERT, row(2))
    given_up.cancel()
    assert await other == wire.bigint(2)
    assert await pipeline.call(COUNT, ()) == wire.bigint(2)


# --- arrays ---------------------------------------------------------------------------------


async def test_arrays_are_read_as_they_were_meant(pool: Pool) -> None:
    arrays: dict[str, tuple[Type, Any, list[Any]]] = {
        "bigint[]": (Type.BIGINTS, wire.bigints, [1, None, -(2**63), 2**63 - 1]),
        "integer[]": (Type.INTEGERS, wire.integers, [None, -(2**31), 2**31 - 1]),
        "smallint[]": (Type.SMALLINTS, wire.smallints, [-(2**15), 2**15 - 1]),
        "text[]": (Type.TEXTS, wire.texts, ["", None, "ü and 'ö\"", "NULL"]),
        "bytea[]": (Type.BYTEAS, wire.byteas, [b"", None, b"\0\xff" * 1_000]),
    }
    statements = {
        name: Statement(name, f"select convert_to(array_to_json($1::{name})::text, 'UTF8')", (of,))
        for name, (of, _, _) in arrays.items()
    }
    pipeline = await Pipeline.open(await pool.connect_apart(), [*statements.values()])
    for name, (_, make, values) in arrays.items():
        expected = await pool.fetchval(
            f"select convert_to(array_to_json($1::{name})::text, 'UTF8')", values
        )
        assert await pipeline.call(statements[name], (make(values),)) == expected
        assert make([None, None]) is None
        assert await pipeline.call(statements[name], (None,)) is None
    pipeline.terminate()
