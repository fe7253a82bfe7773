"""The ledger as a persistence module of `eventsourcing`: the library's own cases, and ours."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, cast
from uuid import UUID, uuid4

import orjson
import pytest
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import (
    AggregateRecorder,
    DataError,
    InfrastructureFactory,
    InfrastructureFactoryError,
    IntegrityError,
    InterfaceError,
    Notification,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.system import ProcessApplication, SingleThreadedRunner, System
from eventsourcing.tests import application as library_applications
from eventsourcing.tests import persistence as library
from eventsourcing.tests import projection as library_projections
from eventsourcing.utils import Environment, get_topic
from hypothesis import given
from hypothesis import strategies as st

from domain.application_events import EVENT_RECORDED, EventRecorded, OriginatorIdType, StateEncoding
from domain.errors import InvalidInput
from domain.events import FACT_BYTES_MAX, decode_fact, encode_fact
from eventlog.appending.writer import Writer
from eventlog.database import Connection
from eventlog.eventsourcing_module import LedgerFactory
from eventlog.eventsourcing_module.recorders import (
    LedgerAggregateRecorder,
    LedgerApplicationRecorder,
    LedgerProcessRecorder,
    LedgerTrackingRecorder,
    SnapshotRecorder,
)
from eventlog.eventsourcing_module.stored import (
    CATEGORY_LENGTH_MAX,
    category_of,
    decode_event,
    encode_event,
    source_of,
    stream_of,
)
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, read_page, read_stream
from tests.conftest import LEDGER
from tests.database import execute, with_database
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, opened

PATIENCE_S = 60.0
MODULE = "eventlog.eventsourcing_module"


def environment(database_url: str, name: str = "", **settings: str) -> Environment:
    return Environment(
        name,
        {
            "PERSISTENCE_MODULE": MODULE,
            "HEDDLE_DATABASE_URL": database_url,
            "HEDDLE_LEDGER": LEDGER,
            **settings,
        },
    )


@pytest.fixture
def factory(database_url: str) -> Iterator[LedgerFactory]:
    constructed = LedgerFactory(environment(database_url))
    yield constructed
    constructed.close()


@pytest.fixture
def configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's environment names the module, the database and the ledger."""
    for name, value in environment(database_url).items():
        monkeypatch.setenv(name, value)


def stored(
    originator_id: UUID | str, version: int, state: bytes = b"state", topic: str = "topic"
) -> StoredEvent:
    return StoredEvent(originator_id, version, topic, state)


def run_all(work: Sequence[Callable[[], object]]) -> None:
    """Run each in a thread of its own; raise what any of them raised."""
    errors: list[BaseException] = []

    def guarded(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)


# --- the library's own cases, as they are -------------------------------------------------


class OnOwnFactory:
    """Gives a library case a factory on a database of its own."""

    factory: LedgerFactory

    @pytest.fixture(autouse=True)
    def _factory(self, factory: LedgerFactory) -> None:
        self.factory = factory


class TestAggregateRecorder(OnOwnFactory, library.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory.aggregate_recorder()


class TestSnapshotRecorder(OnOwnFactory, library.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory.aggregate_recorder("snapshots")


class TestApplicationRecorder(OnOwnFactory, library.ApplicationRecorderTestCase):
    def create_recorder(self) -> LedgerApplicationRecorder:
        return self.factory.application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestApplicationRecorderWithTextIds(TestApplicationRecorder):
    def new_originator_id(self) -> str:
        return f"Bestellung №{uuid4()}/7"


class TestApplicationRecorderFromVersionZero(TestApplicationRecorder):
    INITIAL_VERSION = 0


class TestNonInterleavingNotificationIds(
    OnOwnFactory, library.NonInterleavingNotificationIDsBaseCase
):
    def create_recorder(self) -> LedgerApplicationRecorder:
        return self.factory.application_recorder()


class TestTrackingRecorder(OnOwnFactory, library.TrackingRecorderTestCase):
    def create_recorder(self) -> LedgerTrackingRecorder:
        return self.factory.tracking_recorder()


class TestProcessRecorder(OnOwnFactory, library.ProcessRecorderTestCase):
    def create_recorder(self) -> LedgerProcessRecorder:
        return self.factory.process_recorder()


class TestProcessRecorderAsApplicationRecorder(TestApplicationRecorder):
    def create_recorder(self) -> LedgerApplicationRecorder:
        return self.factory.process_recorder()


class TestProcessRecorderAsTrackingRecorder(TestTrackingRecorder):
    def create_recorder(self) -> LedgerTrackingRecorder:
        return self.factory.process_recorder()


class SpecialTracking(LedgerTrackingRecorder):
    pass


class TestInfrastructureFactory(library.InfrastructureFactoryTestCase[LedgerFactory]):
    @pytest.fixture(autouse=True)
    def _environment(self, database_url: str) -> None:
        self.env = environment(database_url, "TestCase")

    def expected_factory_class(self) -> type[LedgerFactory]:
        return LedgerFactory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return LedgerAggregateRecorder

    def expected_application_recorder_class(self) -> type[LedgerApplicationRecorder]:
        return LedgerApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[LedgerTrackingRecorder]:
        return LedgerTrackingRecorder

    def tracking_recorder_subclass(self) -> type[LedgerTrackingRecorder]:
        return SpecialTracking

    def expected_process_recorder_class(self) -> type[LedgerProcessRecorder]:
        return LedgerProcessRecorder


@pytest.mark.usefixtures("configured")
class TestExampleApplication(library_applications.ExampleApplicationTestCase):
    expected_factory_topic = f"{MODULE}.factory:LedgerFactory"


# One of its cases asks for this very warning.
@pytest.mark.filterwarnings("default:'log' is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("configured")
class TestApplication(library_applications.ApplicationTestCase):
    pass


class EventCounters(LedgerTrackingRecorder, library_projections.EventCountersView):
    """A view in a table of its own, changed in the transaction that moves the position."""

    def get_created_event_counter(self) -> int:
        return self._count("created")

    def get_subsequent_event_counter(self) -> int:
        return self._count("subsequent")

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._increment("created", tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._increment("subsequent", tracking)

    def _count(self, kind: str) -> int:
        async def read(connection: Connection) -> int:
            return await connection.fetchval("select count from counted where kind = $1", kind) or 0

        return self.query(read)

    def _increment(self, kind: str, tracking: Tracking) -> None:
        async def write(connection: Connection) -> None:
            await connection.execute(
                "insert into counted values ($1, 1) "
                "on conflict (kind) do update set count = counted.count + 1",
                kind,
            )

        self.track(tracking, write)


@pytest.fixture
def counted(database_url: str) -> None:
    execute(database_url, "create table counted (kind text primary key, count bigint not null)")


@pytest.mark.usefixtures("counted")
class TestEventCountersView(OnOwnFactory, library_projections.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> library_projections.EventCountersView:
        return cast(EventCounters, self.factory.tracking_recorder(EventCounters))


@pytest.mark.usefixtures("configured", "counted")
class TestProjection(library_projections.AggregateEventCountersProjectionTestCase):
    view_class = EventCounters


@pytest.mark.usefixtures("configured")
class TestEventSourcedProjection(library_projections.EventSourcedProjectionTestCase):
    env: ClassVar[dict[str, str]] = {}


# --- versions ------------------------------------------------------------------------------


def test_versions_with_a_gap_are_refused(factory: LedgerFactory) -> None:
    recorder, originator = factory.application_recorder(), uuid4()
    recorder.insert_events([stored(originator, 1)])
    for refused in ([3], [2, 4], [3, 2], [0]):
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(originator, v) for v in refused])
    recorder.insert_events([stored(originator, 2)])
    assert [e.originator_version for e in recorder.select_events(originator)] == [1, 2]


@pytest.mark.parametrize("beginning", [-3, 0, 1, 2, 40])
def test_an_aggregate_may_begin_at_any_version_and_goes_on_from_there(
    factory: LedgerFactory, beginning: int
) -> None:
    originator, versions = uuid4(), range(beginning, beginning + 6)
    for version in versions:  # a recorder that has not heard of the aggregate each time
        factory.application_recorder().insert_events([stored(originator, version)])
        for refused in (version, version + 2):
            with pytest.raises(IntegrityError):
                factory.application_recorder().insert_events([stored(originator, refused, b"x")])
    selected = factory.application_recorder().select_events(
        originator, gt=beginning + 1, lte=beginning + 4, desc=True, limit=2
    )
    assert [e.originator_version for e in selected] == [beginning + 4, beginning + 3]


def test_of_racing_writers_of_one_version_one_wins(factory: LedgerFactory) -> None:
    recorder, originator = factory.application_recorder(), uuid4()
    won: list[int] = []

    def write(writer: int) -> None:
        for version in range(1, 21):
            try:
                recorder.insert_events([stored(originator, version, b"%d" % writer)])
            except IntegrityError:
                continue
            won.append(version)

    run_all([partial(write, n) for n in range(8)])
    assert sorted(won) == list(range(1, 21))
    assert recorder.max_notification_id() == 20


def test_an_insert_whose_answer_got_lost_is_no_conflict(
    factory: LedgerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, originator = factory.application_recorder(), uuid4()
    recorder.insert_events([stored(originator, 1)])
    store = Writer._store_fenced
    lost = iter([True])

    async def losing(self: Writer, batch: Any, after: Any) -> bool:
        stored = await store(self, batch, after)
        if next(lost, False):
            raise ConnectionResetError("cut after the commit")
        return stored

    monkeypatch.setattr(Writer, "_store_fenced", losing)
    assert recorder.insert_events([stored(originator, 2)]) == [2]
    assert next(lost, None) is None
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored(originator, 2)])


# --- what stands in the log ----------------------------------------------------------------


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[Ledger]:
    async with opened(database_url) as ledger:
        yield ledger


class Pump(Aggregate):
    def __init__(self, serial: str) -> None:
        self.serial = serial


@pytest.mark.anyio
async def test_an_applications_events_are_read_through_the_log_with_hash_and_leaf(
    database_url: str, reader: Ledger
) -> None:
    pump = Pump("SN-1042")
    pump.trigger_event(Aggregate.Event)
    with Application[UUID](env=environment(database_url)) as app:
        recordings = await asyncio.to_thread(app.save, pump)
    await reader.append([fact("of Heddle itself")])
    assert [r.notification.id for r in recordings] == [1, 2]

    events = await read_stream(reader, f"aggregate-application:{pump.id}")
    assert [(e.position, e.version, e.type) for e in events] == [
        (1, 1, EVENT_RECORDED),
        (2, 2, EVENT_RECORDED),
    ]
    for event, recording in zip(events, recordings, strict=True):
        recorded: EventRecorded = event.fact
        assert recorded.originator_id == str(pump.id)
        assert recorded.originator_version == recording.notification.originator_version
        assert recorded.topic == get_topic(type(recording.domain_event))
        assert recorded.state.encode() == recording.notification.state
        assert event.actor == "application:Application"
    assert len({event.correlation_id for event in events}) == 1
    assert {event.event_id.version for event in events} == {7}
    shown = await reader.pool.fetchval(
        "select fact from event_log where position = 1 and type = $1", EVENT_RECORDED
    )
    assert orjson.loads(orjson.loads(shown)["state"])["serial"] == "SN-1042"
    wanted = EventFilter(categories=("aggregate-application",), types=(EVENT_RECORDED,))
    assert [e.position for e in await read_page(reader, 0, wanted=wanted)] == [1, 2]
    await assert_log_is_sound(reader, 3)


TEXTS = st.text(st.characters(exclude_characters="\x00", codec="utf-8"))


@given(
    originator_id=st.uuids() | TEXTS,
    version=st.integers(-(2**53), 2**53),
    topic=TEXTS,
    state=st.binary() | TEXTS.map(str.encode),
)
def test_a_payload_is_lossless_and_canonical(
    originator_id: UUID | str, version: int, topic: str, state: bytes
) -> None:
    payload = encode_event(originator_id, version, topic, state)
    assert decode_event(payload) == (originator_id, version, topic, state)
    recorded = decode_fact(EVENT_RECORDED, 1, payload)
    assert isinstance(recorded, EventRecorded)
    assert encode_fact(recorded) == payload


def test_a_stored_payload_loads_for_ever() -> None:
    payload = (
        b'{"originator_id":"018bcfe5-687b-7f00-8000-0000000000a1","originator_id_type":"uuid",'
        b'"originator_version":1,"state":"{\\"serial\\":\\"SN-1042\\"}","state_encoding":"utf-8",'
        b'"topic":"plant.pumps:Pump.Created"}'
    )
    assert decode_fact(EVENT_RECORDED, 1, payload) == EventRecorded(
        "018bcfe5-687b-7f00-8000-0000000000a1",
        OriginatorIdType.UUID,
        1,
        '{"serial":"SN-1042"}',
        StateEncoding.UTF_8,
        "plant.pumps:Pump.Created",
    )


@given(names=st.sets(st.text(max_size=200) | st.text("_-.aA7", max_size=200), min_size=2))
def test_two_text_ids_never_share_a_stream(names: set[str]) -> None:
    streams = {stream_of("aggregate", name) for name in names}
    assert len(streams) == len(names)
    assert all(len(stream) <= 128 for stream in streams)


def test_names_of_applications_become_categories_of_their_own() -> None:
    names = ["", "Pumps", "pump_s", "pump-s", "pump.s", "pümps", "pump-5f-s"]
    assert len({category_of(name) for name in names}) == len(names)
    assert category_of("Pumps") == "aggregate-pumps"
    with pytest.raises(InvalidInput) as refused:
        category_of("p" * CATEGORY_LENGTH_MAX)
    assert refused.value.code == "application.name_too_long"
    assert len(source_of("a" * 90, "b" * 90)) <= 128


@pytest.mark.parametrize("originator_id", ["order 7/ä", "", "x" * 500, "\n"])
def test_any_text_is_an_originator_id(factory: LedgerFactory, originator_id: str) -> None:
    recorder = factory.application_recorder()
    recorder.insert_events([stored(originator_id, 1, b"\xff\x00")])
    assert recorder.select_events(originator_id) == [stored(originator_id, 1, b"\xff\x00")]
    assert recorder.select_notifications(1, 9)[0].originator_id == originator_id


@pytest.mark.parametrize(
    "refused",
    [
        [stored("a", 1, b"x" * FACT_BYTES_MAX)],
        [stored("a", 1, topic="NUL \x00")],
        [stored("a", 1, topic="half \ud800")],
        [stored("a", 2**70)],
        [stored("a", n) for n in range(2_001)],
    ],
    ids=["too large", "NUL", "surrogate", "version", "too many"],
)
def test_what_the_log_cannot_hold_is_a_data_error(
    factory: LedgerFactory, refused: list[StoredEvent]
) -> None:
    with pytest.raises(DataError):
        factory.application_recorder().insert_events(refused)
    assert factory.application_recorder().max_notification_id() is None


def test_applications_on_one_ledger_do_not_see_each_others_events(database_url: str) -> None:
    pumps = LedgerFactory(environment(database_url, "Pumps"))
    orders = LedgerFactory(environment(database_url, "Orders"))
    originator = uuid4()
    try:
        a, b = pumps.application_recorder(), orders.application_recorder()
        assert a.insert_events([stored(originator, 1, b"pump")]) == [1]
        assert b.insert_events([stored(originator, 1, b"order")]) == [2]
        assert a.insert_events([stored(originator, 2, b"pump")]) == [3]
        assert [n.id for n in a.select_notifications(1, 10)] == [1, 3]
        assert [n.state for n in b.select_notifications(1, 10)] == [b"order"]
        assert (a.max_notification_id(), b.max_notification_id()) == (3, 2)
        with b.subscribe(gt=0, topics=["topic"]) as subscription:
            assert next(subscription).id == 2
    finally:
        pumps.close()
        orders.close()


@pytest.mark.anyio
async def test_an_erased_payload_stops_a_reader(database_url: str, reader: Ledger) -> None:
    factory = LedgerFactory(environment(database_url))
    recorder, originator = factory.application_recorder(), uuid4()
    try:
        await asyncio.to_thread(recorder.insert_events, [stored(originator, 1)])
        await reader.pool.execute("update event set payload = null, payload_tier = 2")
        with pytest.raises(DataError, match="no longer in the log"):
            await asyncio.to_thread(recorder.select_events, originator)
        with pytest.raises(DataError, match="no longer in the log"):
            await asyncio.to_thread(recorder.select_notifications, 1, 5, topics=["other"])
    finally:
        await asyncio.to_thread(factory.close)


# --- following -----------------------------------------------------------------------------


def followed(recorder: LedgerApplicationRecorder, count: int) -> list[Notification]:
    """Return the first `count` notifications that a subscription gives."""
    seen: list[Notification] = []
    with recorder.subscribe() as subscription:
        watchdog = threading.Timer(PATIENCE_S, subscription.stop)
        watchdog.start()
        try:
            for notification in subscription:
                seen.append(notification)
                if len(seen) == count:
                    break
        finally:
            watchdog.cancel()
    return seen


def write_events(database_url: str, writer: int, inserts: int) -> None:
    """Insert aggregates of one to four events each from a factory, or process, of its own."""
    factory = LedgerFactory(environment(database_url))
    recorder = factory.application_recorder()
    for n in range(inserts):
        originator = uuid4()
        recorder.insert_events(
            [stored(originator, v, b"%d/%d" % (writer, n)) for v in range(1, n % 4 + 2)]
        )
    factory.close()


@pytest.mark.slow
def test_readers_beside_racing_processes_and_threads_skip_nothing(
    database_url: str, factory: LedgerFactory
) -> None:
    inserts, total = 60, 4 * 60 * 10 // 4
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=write_events, args=(database_url, n, inserts)) for n in range(2)
    ]
    for process in processes:
        process.start()
    seen: list[list[Notification]] = []
    recorder = factory.application_recorder()
    polled: list[int] = []

    def poll() -> None:
        while len(polled) < total:
            start = polled[-1] if polled else 0
            page = recorder.select_notifications(start, 7, inclusive_of_start=False)
            polled.extend(n.id for n in page)

    run_all(
        [
            *(partial(write_events, database_url, n, inserts) for n in (2, 3)),
            *(lambda: seen.append(followed(recorder, total)) for _ in range(2)),
            poll,
        ]
    )
    for process in processes:
        process.join(PATIENCE_S)
        assert process.exitcode == 0
    assert polled == list(range(1, total + 1))
    assert len(seen) == 2
    for notifications in seen:
        assert [n.id for n in notifications] == list(range(1, total + 1))
        versions: dict[Any, int] = {}
        for n in notifications:
            versions[n.originator_id] = versions.get(n.originator_id, 0) + 1
            assert n.originator_version == versions[n.originator_id]


def test_a_subscriber_of_a_rare_topic_sees_it_among_others(factory: LedgerFactory) -> None:
    recorder = factory.application_recorder()
    with recorder.subscribe(topics=["rare"]) as subscription:
        for n in range(5):
            recorder.insert_events([stored(uuid4(), 1) for _ in range(30)])
            placed = recorder.insert_events([stored(uuid4(), 1, b"%d" % n, "rare")])
            notification = next(subscription)
            assert ([notification.id], notification.state) == (placed, b"%d" % n)


def test_a_subscription_ends_with_its_error_when_the_ledger_is_closed(
    factory: LedgerFactory,
) -> None:
    recorder = factory.application_recorder()
    recorder.insert_events([stored(uuid4(), 1)])
    with recorder.subscribe() as subscription:
        assert next(subscription).id == 1
        factory.close()
        with pytest.raises(InterfaceError, match="closed"):
            next(subscription)


# --- processing ----------------------------------------------------------------------------


def test_what_was_made_of_a_notification_is_its_record(factory: LedgerFactory) -> None:
    recorder = factory.process_recorder()
    recorder.insert_events([stored(uuid4(), 1), stored(uuid4(), 1)], tracking=Tracking("up", 5))
    assert recorder.max_tracking_id("up") == 5
    for late in (4, 5):
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored(uuid4(), 1)], tracking=Tracking("up", late))
        with pytest.raises(IntegrityError):
            recorder.insert_tracking(Tracking("up", late))
    recorder.insert_tracking(Tracking("up", 6))
    assert recorder.max_tracking_id("up") == 6
    assert recorder.max_notification_id() == 2


def test_of_racing_processors_each_notification_is_processed_once(
    factory: LedgerFactory,
) -> None:
    recorder = factory.process_recorder()
    processed: list[int] = []

    def process(_worker: int) -> None:
        for notification_id in range(1, 31):
            tracking = Tracking("up", notification_id)
            events = [stored(uuid4(), 1, b"%d" % notification_id)] if notification_id % 3 else []
            try:
                recorder.insert_events(events, tracking=tracking)
            except IntegrityError:
                continue
            processed.append(notification_id)

    run_all([partial(process, n) for n in range(12)])
    assert sorted(processed) == list(range(1, 31))
    states = [int(n.state) for n in recorder.select_notifications(1, 100)]
    assert states == [n for n in range(1, 31) if n % 3]


class PumpsApplication(Application[UUID]):
    name = "Pumps"


class Fleet(Aggregate):
    ID = uuid.uuid5(uuid.NAMESPACE_URL, "/fleet")

    def __init__(self) -> None:
        self.size = 0

    @staticmethod
    def create_id() -> UUID:
        return Fleet.ID

    class Grown(Aggregate.Event):
        def apply(self, aggregate: Any) -> None:
            aggregate.size += 1


class FleetApplication(ProcessApplication[UUID]):
    name = "Fleets"

    def policy(self, domain_event: Any, processing_event: Any) -> None:
        if isinstance(domain_event, Aggregate.Created):
            try:
                fleet: Fleet = self.repository.get(Fleet.ID)
            except AggregateNotFoundError:
                fleet = Fleet()
            fleet.trigger_event(Fleet.Grown)
            processing_event.collect_events(fleet)


def test_a_system_of_applications_runs_on_one_ledger(database_url: str) -> None:
    system = System(pipes=[[PumpsApplication, FleetApplication]])
    with SingleThreadedRunner[UUID](system, env=environment(database_url)) as runner:
        pumps, fleets = runner.get(PumpsApplication), runner.get(FleetApplication)
        for n in range(4):
            pump = Pump(f"SN-{n}")
            pump.trigger_event(Aggregate.Event)
            pumps.save(pump)
        fleet: Fleet = fleets.repository.get(Fleet.ID)
        assert fleet.size == 4
        last = pumps.recorder.max_notification_id()
        assert cast(LedgerProcessRecorder, fleets.recorder).max_tracking_id("Pumps") == last


# --- the bridge ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"HEDDLE_DATABASE_URL": ""}, "HEDDLE_DATABASE_URL is not set"),
        ({"HEDDLE_LEDGER": ""}, "HEDDLE_LEDGER is not set"),
        ({"HEDDLE_LEDGER": "a plant"}, "cannot name a ledger"),
        ({"HEDDLE_DATABASE_URL": "sqlite://"}, "must start with postgresql://"),
        ({"HEDDLE_CONNECTIONS_MAX": "1"}, "is not between 4 and 500"),
        ({"HEDDLE_CALL_S_MAX": "soon"}, "soon"),
    ],
)
def test_a_factory_says_which_setting_it_cannot_use(settings: dict[str, str], told: str) -> None:
    with pytest.raises(InfrastructureFactoryError, match=told):
        InfrastructureFactory.construct(environment("postgresql://x", **settings))


def test_an_applications_own_setting_comes_before_the_common_one(database_url: str) -> None:
    factory = LedgerFactory(environment(database_url, "Pumps", PUMPS_HEDDLE_LEDGER="plant-7"))
    assert factory.runtime.settings.ledger == "plant-7"
    factory.close()


def test_a_database_that_does_not_exist_is_a_programming_error(database_url: str) -> None:
    factory = LedgerFactory(environment(with_database(database_url, "no_such_database")))
    with pytest.raises(ProgrammingError):
        factory.application_recorder().max_notification_id()
    factory.close()


def test_a_server_that_is_not_there_is_an_operational_error() -> None:
    factory = LedgerFactory(environment("postgresql://nobody@127.0.0.1:1/nothing"))
    with pytest.raises(OperationalError):
        factory.application_recorder().max_notification_id()
    factory.close()


def test_a_database_without_tables_says_to_migrate_it(empty_database_url: str) -> None:
    factory = LedgerFactory(environment(empty_database_url))
    with pytest.raises(ProgrammingError, match="migrate"):
        factory.application_recorder().max_notification_id()
    factory.close()


def test_a_closed_factory_refuses_calls_and_leaves_no_thread(database_url: str) -> None:
    before = threading.active_count()
    factory = LedgerFactory(environment(database_url))
    recorder = factory.application_recorder()
    recorder.insert_events([stored(uuid4(), 1)])
    assert threading.active_count() == before + 1
    factory.close()
    factory.close()
    assert threading.active_count() == before
    with pytest.raises(InterfaceError):
        recorder.insert_events([stored(uuid4(), 1)])


def test_a_factory_that_nobody_holds_any_more_leaves_no_thread(database_url: str) -> None:
    before = threading.active_count()
    recorder = LedgerFactory(environment(database_url)).application_recorder()
    recorder.insert_events([stored(uuid4(), 1)])
    del recorder
    assert threading.active_count() == before


def test_a_call_that_takes_too_long_leaves_its_outcome_open(database_url: str) -> None:
    factory = LedgerFactory(environment(database_url))
    factory.tracking_recorder().insert_tracking(Tracking("up", 1))
    factory.close()
    factory = LedgerFactory(environment(database_url, HEDDLE_CALL_S_MAX="2"))
    view = factory.tracking_recorder()

    async def sleep(connection: Connection) -> None:
        await connection.execute("select pg_sleep(600)")

    with pytest.raises(OperationalError, match="no answer within"):
        view.track(Tracking("up", 2), sleep)
    factory.close()
    factory = LedgerFactory(environment(database_url))
    assert factory.tracking_recorder().max_tracking_id("up") == 1
    factory.close()


def test_reads_and_writes_survive_cut_connections(
    database_url: str, factory: LedgerFactory
) -> None:
    recorder, originator = factory.application_recorder(), uuid4()
    recorder.insert_events([stored(originator, 1)])
    for version in (2, 3):
        execute(
            database_url,
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name = 'heddle'",
        )
        recorder.insert_events([stored(originator, version)])
        assert len(recorder.select_events(originator)) == version


def test_a_snapshot_may_have_any_version_and_keeps_its_bytes(factory: LedgerFactory) -> None:
    recorder = factory.aggregate_recorder("snapshots")
    assert isinstance(recorder, SnapshotRecorder)
    recorder.insert_events([stored("a", v, bytes(300_000)) for v in (70, 3)])
    selected = recorder.select_events("a", gt=0, lte=70)
    assert [(e.originator_version, len(e.state)) for e in selected] == [(3, 300_000), (70, 300_000)]
    assert factory.application_recorder().max_notification_id() is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_on_connections_of_its_own(factory: LedgerFactory) -> None:
    recorder, originator = factory.application_recorder(), uuid4()
    recorder.insert_events([stored(originator, 1)])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            recorder.insert_events([stored(originator, 2)])
            factory.close()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    recorder.insert_events([stored(originator, 3)])
    assert [e.originator_version for e in recorder.select_events(originator)] == [1, 2, 3]
