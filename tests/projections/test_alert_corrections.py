"""Alerts after corrections: rows are what the effective history of each asset says."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.asset import (
    AcknowledgeAlert,
    AlertAcknowledged,
    AlertCleared,
    AlertEscalated,
    AlertRaised,
    AssetCommissioned,
    ClearAlert,
    EscalateAlert,
    RaiseAlert,
    asset_stream,
)
from domain.asset_model import Severity
from domain.errors import InvalidInput
from domain.records import (
    CorrectRecord,
    Entry,
    Meaning,
    RecordCorrected,
    RecordSigned,
    effective_entries,
)
from eventlog.corrections import handle_correction
from eventlog.database import Pool
from eventlog.envelope import NewEvent, RecordedEvent, new_fact
from eventlog.erasure import erase
from eventlog.ledger import Ledger
from eventlog.reading import read_page, read_pages, read_stream
from projections.alerts import projection as alerts
from projections.alerts.projection import (
    AlertProjection,
    AlertRow,
    AlertState,
    find_alert,
    list_alerts,
)
from projections.running.content import check
from projections.running.projection import wanted
from tests.domain.corrections import correction_of
from tests.projections.loop_frames import (
    LOOP,
    NOON,
    PATIENCE_S,
    fold,
    fresh_ledgers,
    register,
    running,
    told,
)

pytestmark = pytest.mark.anyio

OTHER = "loop-2"
ONE, TWO = (uuid.UUID(int=n) for n in (1, 2))


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def raised(
    asset: str, alert_id: uuid.UUID, severity: Severity = Severity.WARNING, value: float = 4e-4
) -> AlertRaised:
    return AlertRaised(
        *(asset, alert_id, "flow_low", severity, "flow", value, 5e-4, at(-30), "flow is low")
    )


# --- one by one ---------------------------------------------------------------------------


async def correct(
    ledger: Ledger, position: int, right: Any, occurred_at: datetime | None = None
) -> None:
    """Have another person say what the event at `position` should have been."""
    (event,) = await read_page(ledger, position - 1, up_to=position)
    await handle_correction(
        ledger,
        CorrectRecord(event.stream, event.event_id, "mistyped", right),
        actor="user:jo",
        event_id=uuid.uuid4(),
        occurred_at=occurred_at,
    )


async def alert(ledger: Ledger, alert_id: uuid.UUID = ONE) -> AlertRow:
    found = await find_alert(ledger, alert_id)
    assert found is not None
    return found


async def one_story(ledger: Ledger) -> None:
    """Raise ONE at 2, acknowledge it at 3, pass it on at 4, and clear it at 5."""
    await register(ledger)
    await told(ledger, RaiseAlert(**vars(raised(LOOP, ONE))))
    await told(ledger, AcknowledgeAlert(LOOP, ONE, "seen"), at(5))
    await told(ledger, EscalateAlert(LOOP, ONE, 1, "shift lead", "no spare"), at(6))
    await told(ledger, ClearAlert(LOOP, ONE, 6e-4), at(9))
    await fold(ledger, AlertProjection())


async def test_a_clearing_that_never_was_leaves_the_alert_open(ledger: Ledger) -> None:
    await one_story(ledger)
    assert (await alert(ledger)).state is AlertState.CLEARED
    await correct(ledger, 5, None)
    await fold(ledger, AlertProjection(), after=5)
    again = await alert(ledger)
    assert (again.state, again.cleared_at) == (AlertState.ACKNOWLEDGED, None)
    assert (again.position, again.escalated_to) == (2, "shift lead")


async def test_a_raising_that_never_was_takes_the_alert_away(ledger: Ledger) -> None:
    await one_story(ledger)
    await told(ledger, RaiseAlert(**vars(raised(LOOP, TWO))))
    await correct(ledger, 2, None)
    await fold(ledger, AlertProjection(), after=5)
    assert await find_alert(ledger, ONE) is None
    assert [row.alert_id for row in await list_alerts(ledger, first=9)] == [TWO]


async def test_a_corrected_event_counts_where_it_stood_by_the_word_of_who_told_it(
    ledger: Ledger,
) -> None:
    await one_story(ledger)
    await correct(ledger, 2, raised(LOOP, ONE, Severity.CRITICAL, 3e-4), at(-1))
    await correct(ledger, 3, AlertAcknowledged(LOOP, ONE, "on my way"), at(4))
    await correct(ledger, 4, AlertEscalated(LOOP, ONE, 2, "plant manager", "no spare"))
    await fold(ledger, AlertProjection(), after=5)
    row = await alert(ledger)
    assert (row.severity, row.value, row.raised_at) == (Severity.CRITICAL, 3e-4, at(-1))
    assert (row.note, row.acknowledged_at, row.acknowledged_by) == (
        *("on my way", at(4)),
        "user:mara",
    )
    assert (row.escalation_level, row.escalated_to, row.escalated_at) == (
        *(2, "plant manager"),
        at(6),
    )
    assert (row.cleared_at, row.position) == (at(9), 2)


async def test_the_latest_correction_counts_and_what_comes_after_it_too(ledger: Ledger) -> None:
    await one_story(ledger)
    await correct(ledger, 3, None)
    await fold(ledger, AlertProjection(), after=5)
    assert (await alert(ledger)).acknowledged_at is None
    await correct(ledger, 3, AlertAcknowledged(LOOP, ONE, "seen after all"))
    await correct(ledger, 5, None)
    await told(ledger, EscalateAlert(LOOP, ONE, 3, "plant manager", "still low"), at(20))
    await fold(ledger, AlertProjection(), 2, after=6)
    row = await alert(ledger)
    assert (row.note, row.acknowledged_at) == ("seen after all", at(5))
    assert (row.state, row.escalation_level) == (AlertState.ACKNOWLEDGED, 3)


async def test_what_is_rebuilt_is_what_was_live(ledger: Ledger, database_url: str) -> None:
    async with running(ledger, database_url, AlertProjection()) as (runner,):

        async def caught_up() -> None:
            await runner.wait_for(await ledger.head(), PATIENCE_S)

        await register(ledger, OTHER)
        await told(ledger, RaiseAlert(**vars(raised(OTHER, TWO))))
        await register(ledger)
        await told(ledger, RaiseAlert(**vars(raised(LOOP, ONE))))
        await told(ledger, AcknowledgeAlert(LOOP, ONE, "seen"), at(5))
        await caught_up()
        await correct(ledger, 5, None)
        await caught_up()
        await told(ledger, ClearAlert(LOOP, ONE, 6e-4), at(9))
        await correct(ledger, 4, raised(LOOP, ONE, Severity.CRITICAL))
        await caught_up()
    row = await alert(ledger)
    assert (row.severity, row.acknowledged_at, row.cleared_at) == (Severity.CRITICAL, None, at(9))
    (rows,) = (await check(ledger.pool, ledger, AlertProjection())).tables
    assert (rows.equal, rows.live.rows) == (True, 2)


async def test_what_was_erased_is_not_told_again(ledger: Ledger) -> None:
    await one_story(ledger)
    await erase(ledger, [3], reason="by law", actor="user:mara", now=NOON, new_event_id=uuid.uuid4)
    assert (await alert(ledger)).note == "seen"  # until it is folded anew
    (clearing,) = await read_page(ledger, 4, up_to=5)
    unsaid = correction_of(asset_stream(LOOP), clearing.event_id, 5, None)
    await ledger.append([event_of(LOOP, unsaid, at(30))])
    await fold(ledger, AlertProjection(), after=5)
    row = await alert(ledger)
    assert (row.state, row.note, row.escalation_level) == (AlertState.RAISED, None, 1)


async def test_a_stream_too_long_to_fold_anew_is_named(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one_story(ledger)
    await correct(ledger, 5, None)
    monkeypatch.setattr(alerts, "FACTS_MAX", 5)
    with pytest.raises(InvalidInput) as refused:
        await fold(ledger, AlertProjection(), after=5)
    error = refused.value
    assert (error.code, error.value, error.limit) == ("alert.too_many_facts", 6, 5)
    assert asset_stream(LOOP) in str(error)


# --- few statements -----------------------------------------------------------------------


async def statements(ledger: Ledger, after: int) -> int:
    """Return how many statements on rows folding what lies beyond `after` takes."""
    events = wanted(AlertProjection(), await read_page(ledger, after, limit=1000))
    sent: list[Any] = []
    async with ledger.pool.acquire() as connection:
        with connection.query_logger(sent.append):
            await AlertProjection().fold(connection, ledger, events)
    # A new connection also asks for the types of parameters, once.
    return sum(" alert" in record.query for record in sent)


async def test_a_batch_costs_few_statements_however_many_assets_are_corrected(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = [f"loop-{n}" for n in range(40)]
    ids = {asset: uuid.UUID(int=n) for n, asset in enumerate(assets, 1)}
    raisings = [event_of(asset, raised(asset, ids[asset]), at(0)) for asset in assets]
    clearings = [event_of(a, AlertCleared(a, ids[a], 6e-4), at(1)) for a in assets]
    await ledger.append([*raisings, *clearings])
    assert await statements(ledger, after=0) == 2
    reads = []

    def counted_read(*arguments: Any, **named: Any) -> Any:
        reads.append(arguments)
        return read_pages(*arguments, **named)

    monkeypatch.setattr(alerts, "read_pages", counted_read)
    unsaid = [
        correction_of(asset_stream(asset), event.event_id, len(assets) + n, None)
        for n, (asset, event) in enumerate(zip(assets, clearings, strict=True), 1)
    ]
    await ledger.append([event_of(a, one, at(2)) for a, one in zip(assets, unsaid, strict=True)])
    assert await statements(ledger, after=len(assets) * 2) == 2
    assert len(reads) == 1
    still_open = await list_alerts(ledger, first=100, states=[AlertState.RAISED])
    assert len(still_open) == len(assets)


async def test_corrections_of_other_things_cost_nothing(ledger: Ledger) -> None:
    stream = "work-order:WO-1"
    unsaid = correction_of(stream, uuid.uuid4(), 1, None)
    await ledger.append(
        [new_fact(stream, unsaid, event_id=uuid.uuid4(), occurred_at=NOON, actor="user:mara")]
    )
    assert await statements(ledger, after=0) == 0


# --- any log ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """A fact of an asset, or what `corrects` one of its events: by its place in the log.

    The place may be of no event of the asset; so it is of one that nobody knows.
    """

    asset: str
    fact: Any
    seconds: int
    corrects: int | None = None


def facts_of(asset: str) -> st.SearchStrategy[Any]:
    base = 10 if asset == LOOP else 20
    ids = st.sampled_from([uuid.UUID(int=base + n) for n in (1, 2)])
    severity = st.sampled_from(list(Severity))
    return st.one_of(
        st.builds(raised, st.just(asset), ids, severity, st.sampled_from([3e-4, 4e-4])),
        st.builds(AlertAcknowledged, st.just(asset), ids, st.sampled_from(["seen", "known"])),
        st.builds(
            *(AlertEscalated, st.just(asset), ids, st.integers(1, 3)),
            *(st.sampled_from(["shift lead", "plant manager"]), st.just("nobody came")),
        ),
        st.builds(AlertCleared, st.just(asset), ids, st.just(6e-4)),
        st.just(AssetCommissioned(asset)),
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Said]:
    """Return facts and corrections of two assets, in any order of time."""
    said: list[Said] = []
    for place in range(draw(st.integers(1, 24))):
        asset = draw(st.sampled_from([LOOP, OTHER]))
        seconds = draw(st.integers(0, 12))
        corrects = draw(st.integers(0, place)) if draw(st.integers(0, 2)) == 0 else None
        optional = corrects is not None and draw(st.integers(0, 2)) == 0
        fact = None if optional else draw(facts_of(asset))
        said.append(Said(asset, fact, seconds, corrects))
    return said


def event_of(
    asset: str, fact: Any, moment: datetime, event_id: uuid.UUID | None = None, actor: str = "mara"
) -> NewEvent:
    return new_fact(
        asset_stream(asset),
        fact,
        event_id=event_id or uuid.uuid4(),
        occurred_at=moment,
        actor=f"user:{actor}",
    )


def log_of(said: Sequence[Said]) -> list[NewEvent]:
    """Return what was said as events, each by another person; the last of all is a signature."""
    ids = [uuid.uuid4() for _ in said]
    events = []
    for place, one in enumerate(said):
        fact = one.fact
        if one.corrects is not None:
            stream = asset_stream(one.asset)
            fact = correction_of(stream, ids[one.corrects], one.corrects + 1, fact)
        events.append(event_of(one.asset, fact, at(one.seconds), ids[place], f"{place}"))
    signed = RecordSigned(
        *(asset_stream(LOOP), 1, ids[0], "00" * 32, None, "user:mara", "Mara", Meaning.APPROVED),
        NOON,
        ("password", "key"),
    )
    return [*events, event_of(LOOP, signed, NOON)]


def expected_rows(events: Iterable[RecordedEvent]) -> list[AlertRow]:
    """Return the alerts, newest first, from the effective history of each asset's stream."""
    streams: dict[str, list[RecordedEvent]] = {}
    for event in events:
        streams.setdefault(event.stream, []).append(event)
    rows = [row for stream in streams.values() for row in expected_of(stream)]
    return sorted(rows, key=lambda row: row.position, reverse=True)


def expected_of(stream: Sequence[RecordedEvent]) -> list[AlertRow]:
    actors = {event.position: event.actor for event in stream}
    history = effective_entries(
        Entry(event.event_id, event.position, event.occurred_at, event.fact) for event in stream
    )
    found = []
    for alert_id in {e.fact.alert_id for e in history if isinstance(e.fact, AlertRaised)}:
        of_alert = [e for e in history if getattr(e.fact, "alert_id", None) == alert_id]
        began = next(n for n, e in enumerate(of_alert) if isinstance(e.fact, AlertRaised))
        beginning = of_alert[began]
        fact = beginning.fact
        last: dict[type, Entry] = {type(e.fact): e for e in of_alert[began:]}
        changes: dict[str, Any] = dict.fromkeys(
            ("acknowledged_at", "acknowledged_by", "note", "cleared_at")
        )
        if seen := last.get(AlertAcknowledged):
            changes |= {"acknowledged_at": seen.occurred_at, "note": seen.fact.note}
            changes["acknowledged_by"] = actors[seen.position]
        if passed := last.get(AlertEscalated):
            changes |= {"escalated_at": passed.occurred_at, "escalated_to": passed.fact.to}
            changes["escalation_level"] = passed.fact.level
            changes["escalation_reason"] = passed.fact.reason
        if gone := last.get(AlertCleared):
            changes["cleared_at"] = gone.occurred_at
        found.append(
            AlertRow(
                alert_id=alert_id,
                position=beginning.position,
                asset_id=fact.asset_id,
                rule=fact.rule,
                severity=fact.severity,
                channel=fact.channel,
                value=fact.value,
                limit=fact.limit,
                message=fact.message,
                since=fact.since,
                raised_at=beginning.occurred_at,
                **changes,
            )
        )
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=logs(),
    cuts=st.sets(st.integers(1, 24)),
    scanned=st.integers(1, 30),
    page=st.integers(1, 5),
)
async def test_after_every_batch_the_rows_are_what_the_effective_history_says(
    pool: Pool, said: list[Said], cuts: set[int], scanned: int, page: int
) -> None:
    """In any cut, also one where later events are in the log already; and folded twice."""
    (ledger,) = await fresh_ledgers(pool, 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(alerts, "SCANNED_EVENTS_MAX", scanned)
        patched.setattr(alerts, "PAGE_EVENTS_MAX", page)
        try:
            await ledger.append(log_of(said))
            events = await read_page(ledger, 0)
            projection = AlertProjection()
            bounds = [0, *sorted(cut for cut in cuts if cut < len(events)), len(events)]
            for first, end in pairwise(bounds):
                some = wanted(projection, events[first:end])
                if some:
                    async with ledger.pool.acquire() as connection, connection.transaction():
                        await projection.fold(connection, ledger, some)
                assert await list_alerts(ledger, first=100) == expected_rows(events[:end])
        finally:
            await ledger.close()


async def test_the_model_s_logs_have_corrections_that_change_rows(pool: Pool) -> None:
    """The property above says something: without corrections, rows would be others."""
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        said = [
            Said(LOOP, raised(LOOP, ONE), 1),
            Said(LOOP, AssetCommissioned(LOOP), 2),
            Said(LOOP, AlertCleared(LOOP, ONE, 6e-4), 3, corrects=1),
        ]
        await ledger.append(log_of(said))
        stream = await read_stream(ledger, asset_stream(LOOP))
        (row,) = expected_rows(stream)
        assert (row.cleared_at, row.position) == (at(3), 1)
        uncorrected = [e for e in stream if not isinstance(e.fact, RecordCorrected)]
        assert expected_rows(uncorrected) != [row]
        await fold(ledger, AlertProjection(), 1)
        assert await list_alerts(ledger, first=9) == [row]
    finally:
        await ledger.close()
