"""Append-only by the database's word: privileges stop the log's own role, triggers everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from domain.errors import InvalidInput
from eventlog.ledger import IdempotencyKey, Ledger
from eventlog.reading import PayloadOf, read_page
from tests.database import as_superuser, new_database
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, frame_event, frame_of, opened

pytestmark = pytest.mark.anyio

ROLE_ALONE = [
    f"{verb} {table}" for table in ("ledger", "stream_head") for verb in ("delete from", "truncate")
]
CHANGES = [
    "update event set actor = 'nobody'",
    "update event set position = 99",
    "update event set payload = null",
    "update event set payload = 'forged'",
    "update event set payload = null, payload_tier = 0",
    "update event set payload = null, payload_tier = 1, actor = 'nobody'",
    "update event set payload = 'forged', payload_tier = 1",
    "update event_p000000 set actor = 'nobody'",
    "delete from event",
    "delete from event_p000000",
    "truncate event",
    "truncate event_p000000",
    *(
        statement.format(table)
        for table in ("event_identity", "idempotency_key")
        for statement in ("update {} set position = 99", "delete from {}", "truncate {}")
    ),
]


@pytest.fixture(scope="module")
def shared_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a database that the tests of this file share: none of them may change it."""
    with new_database(postgres_url, "heddle_append_only", template=template_database) as url:
        yield url


@pytest.fixture(scope="module")
async def log(shared_database_url: str) -> AsyncIterator[Ledger]:
    """A ledger with a fact, a frame and a key."""
    async with opened(shared_database_url) as ledger:
        await ledger.append([fact(1)], idempotency=IdempotencyKey.of("k", b""))
        await ledger.append([frame_event(frame_of(1))])
        yield ledger


def of_its_own_column(change: str) -> str:
    if "idempotency_key" in change:
        return change.replace("position", "first_position")
    return change


@pytest.mark.parametrize("change", CHANGES + ROLE_ALONE)
async def test_the_log_s_own_role_may_change_nothing(log: Ledger, change: str) -> None:
    with pytest.raises(
        (asyncpg.InsufficientPrivilegeError, asyncpg.IntegrityConstraintViolationError)
    ):
        await log.pool.execute(of_its_own_column(change))
    await assert_log_is_sound(log, 2)


@pytest.mark.parametrize("change", CHANGES)
async def test_triggers_stop_even_a_superuser(
    log: Ledger, shared_database_url: str, change: str
) -> None:
    superuser = await asyncpg.connect(as_superuser(shared_database_url))
    try:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await superuser.execute(of_its_own_column(change))
    finally:
        await superuser.close()
    await assert_log_is_sound(log, 2)


async def test_a_payload_may_be_let_go_and_the_proof_still_stands(ledger: Ledger) -> None:
    await ledger.append([fact(1), frame_event(frame_of(1))])
    await ledger.pool.execute(
        "update event set payload = null, payload_tier = 1 where position = 2"
    )
    await assert_log_is_sound(ledger, 2)
    [archived] = await read_page(ledger, 1, payloads=PayloadOf.NONE)
    assert archived.payload is None
    assert archived.window is not None
    with pytest.raises(InvalidInput) as refused:
        _ = archived.frame
    assert (refused.value.code, refused.value.value) == ("payload.not_in_log", 2)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await ledger.pool.execute("update event set payload = 'forged' where position = 2")
