"""The contract of every event type: it round-trips, and what was ever stored loads for ever."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import types
import typing
import uuid
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import domain
from domain import events
from domain.asset import AlertRaised, AssetRetired, SetpointDesired
from domain.asset_model import Severity
from domain.errors import InvalidInput
from domain.events import (
    FACT_BYTES_MAX,
    MalformedFact,
    UnknownEventType,
    Upcaster,
    check_type_known,
    decode_fact,
    encode_fact,
    event_type,
    event_types,
    format_time,
    type_of,
)

SAMPLES = Path(__file__).parent / "samples"

for module in pkgutil.walk_packages(domain.__path__, "domain."):
    importlib.import_module(module.name)  # whatever registers events has done so

EVENT_TYPES = event_types()


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return values for a field annotated with `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values_of(argument) for argument in arguments))
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return records_of(hint)
    known: dict[Any, st.SearchStrategy[Any]] = {
        types.NoneType: st.none(),
        bool: st.booleans(),
        int: st.integers(-(2**53) + 1, 2**53 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
        uuid.UUID: st.uuids(),
        datetime: st.datetimes(timezones=st.just(UTC)),
    }
    return known[hint]


def records_of(record_class: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(record_class)
    of_fields = {field.name: values_of(hints[field.name]) for field in fields(record_class)}
    return st.builds(record_class, **of_fields)


def events_of(name: str) -> st.SearchStrategy[Any]:
    return records_of(EVENT_TYPES[name].event_class)


@given(st.sampled_from(sorted(EVENT_TYPES)).flatmap(events_of))
def test_every_event_round_trips_to_the_same_bytes(event: Any) -> None:
    stored = type_of(event)
    payload = encode_fact(event)
    decoded = decode_fact(stored.name, stored.schema_version, payload)
    assert decoded == event
    assert type(decoded) is type(event)
    assert encode_fact(decoded) == payload


@given(st.sampled_from(sorted(EVENT_TYPES)).flatmap(events_of))
def test_a_faster_parser_gives_the_same_event(event: Any) -> None:
    stored = type_of(event)
    payload = encode_fact(event)
    fast = decode_fact(stored.name, stored.schema_version, payload, loads=msgspec.json.decode)
    assert fast == event == decode_fact(stored.name, stored.schema_version, payload)
    assert hash(fast) == hash(event)
    for field in fields(event):
        assert type(getattr(fast, field.name)) is type(getattr(event, field.name))
    with pytest.raises(FrozenInstanceError):
        setattr(fast, fields(event)[0].name, None)


@given(st.sampled_from(sorted(EVENT_TYPES)).flatmap(events_of))
def test_a_payload_is_canonical_json(event: Any) -> None:
    payload = encode_fact(event)
    document = json.loads(payload)
    assert list(document) == sorted(document)
    assert payload.decode() == json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


# --- what was ever stored -----------------------------------------------------------------


def stored_samples() -> list[Path]:
    return sorted(SAMPLES.glob("*.json"))


def test_every_type_and_version_that_ever_existed_has_a_stored_sample() -> None:
    wanted = {
        f"{name}.v{version}.json"
        for name, known in EVENT_TYPES.items()
        for version in range(1, known.schema_version + 1)
    }
    assert wanted == {path.name for path in stored_samples()}


@pytest.mark.parametrize("path", stored_samples(), ids=lambda path: path.stem)
def test_a_stored_sample_loads_for_ever(path: Path) -> None:
    name, _, version = path.stem.rpartition(".v")
    payload = path.read_bytes().removesuffix(b"\n")
    event: Any = decode_fact(name, int(version), payload)
    event_class: type[Any] = EVENT_TYPES[name].event_class
    assert isinstance(event, event_class)
    hints = typing.get_type_hints(event_class)
    for field in fields(event_class):
        value, hint = getattr(event, field.name), hints[field.name]
        if isinstance(hint, type):
            assert isinstance(value, hint), field.name
    if int(version) == EVENT_TYPES[name].schema_version:
        assert encode_fact(event) == payload


# --- versions -----------------------------------------------------------------------------


@pytest.fixture
def own_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register types that nobody else sees."""
    monkeypatch.setattr(events, "_BY_NAME", dict(events._BY_NAME))
    monkeypatch.setattr(events, "_BY_CLASS", dict(events._BY_CLASS))


@pytest.mark.usefixtures("own_catalogue")
def test_older_versions_are_brought_up_step_by_step() -> None:
    @event_type(
        "pump.measured",
        3,
        {
            1: lambda old: {"flow": old["flow_l"] / 1000, "by": None},
            2: lambda old: {**old, "times": [old["flow"]]},
        },
    )
    @dataclass(frozen=True)
    class PumpMeasured:
        flow: float
        by: str | None
        times: tuple[float, ...]

    assert decode_fact("pump.measured", 1, b'{"flow_l":2000}') == PumpMeasured(2.0, None, (2.0,))
    assert decode_fact("pump.measured", 2, b'{"by":"me","flow":3}') == PumpMeasured(
        3.0, "me", (3.0,)
    )
    current = PumpMeasured(1.0, "x", (1.0, 2.0))
    assert decode_fact("pump.measured", 3, encode_fact(current)) == current


@pytest.mark.usefixtures("own_catalogue")
def test_upcasters_run_in_the_order_of_versions_from_the_stored_one_on() -> None:
    def step(version: int) -> Upcaster:
        return lambda old: {"trail": [*old["trail"], version]}

    @event_type("pump.moved", 5, {version: step(version) for version in (3, 1, 4, 2)})
    @dataclass(frozen=True)
    class PumpMoved:
        trail: tuple[int, ...]

    for version in range(1, 6):
        moved = decode_fact("pump.moved", version, b'{"trail":[]}')
        assert moved == PumpMoved(tuple(range(version, 5)))


@pytest.mark.usefixtures("own_catalogue")
def test_an_event_class_may_check_itself_and_have_defaults_and_slots() -> None:
    @event_type("pump.checked")
    @dataclass(frozen=True)
    class PumpChecked:
        flow: float
        note: str = "none"

        def __post_init__(self) -> None:
            if self.flow < 0:
                raise ValueError("flow is negative")

    @event_type("pump.named")
    @dataclass(frozen=True, slots=True)
    class PumpNamed:
        name: str
        since: datetime | None = None

    assert decode_fact("pump.checked", 1, b'{"flow":1}') == PumpChecked(1.0, "none")
    with pytest.raises(MalformedFact, match="flow is negative"):
        decode_fact("pump.checked", 1, b'{"flow":-1}')
    assert decode_fact("pump.named", 1, b'{"name":"p","since":"2020-03-09T10:00:00Z"}') == (
        PumpNamed("p", datetime(2020, 3, 9, 10, tzinfo=UTC))
    )


@pytest.mark.parametrize("loads", [json.loads, msgspec.json.decode])
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'"text"',
        b"\xff{}",
        b'{"asset_id":"a"}',
        b'{"asset_id":"a","reason":"","surplus":1}',
    ],
)
def test_a_payload_that_is_none_of_its_type_stops_its_reader(
    payload: bytes, loads: Callable[[bytes], Any]
) -> None:
    with pytest.raises(MalformedFact) as stopped:
        decode_fact("asset.retired", 1, payload, loads=loads)
    assert stopped.value.code == "event.payload_malformed"
    assert stopped.value.value == "asset.retired"
    assert "'asset.retired' version 1" in stopped.value.message


@pytest.mark.usefixtures("own_catalogue")
def test_an_upcaster_that_cannot_read_its_version_stops_its_reader() -> None:
    event_type("pump.measured", 2, {1: lambda old: {"flow": old["flow_l"] / 1000}})(
        dataclass(frozen=True)(type("PumpMeasured", (), {"__annotations__": {"flow": float}}))
    )
    with pytest.raises(MalformedFact) as stopped:
        decode_fact("pump.measured", 1, b'{"flow":1}')
    assert "KeyError: 'flow_l'" in stopped.value.message


@pytest.mark.usefixtures("own_catalogue")
def test_a_type_without_all_its_upcasters_is_refused() -> None:
    with pytest.raises(ValueError, match="one upcaster for each version"):
        event_type("pump.measured", 3, {1: dict})


@pytest.mark.usefixtures("own_catalogue")
@pytest.mark.parametrize("name", ["asset.registered", "asset.frame_recorded"])
def test_a_stored_name_belongs_to_one_class(name: str) -> None:
    with pytest.raises(ValueError, match="two classes"):
        event_type(name)(type("Other", (), {}))


def test_an_unknown_type_stops_its_reader() -> None:
    for attempt in (
        lambda: decode_fact("asset.enchanted", 3, b"{}"),
        lambda: check_type_known("asset.enchanted", 3),
    ):
        with pytest.raises(UnknownEventType) as stopped:
            attempt()
        assert (stopped.value.code, stopped.value.value) == (
            "event.unknown_type",
            "asset.enchanted",
        )
        assert "'asset.enchanted' (version 3)" in stopped.value.message


def test_facts_and_frames_are_known_types() -> None:
    for name in (*EVENT_TYPES, events.FRAME_RECORDED):
        check_type_known(name, 1)


@pytest.mark.parametrize("version", [-1, 0, 2, 99])
def test_an_unknown_version_stops_its_reader(version: int) -> None:
    with pytest.raises(UnknownEventType) as stopped:
        decode_fact("asset.retired", version, b'{"asset_id":"a","reason":""}')
    assert (stopped.value.code, stopped.value.value) == ("event.unknown_version", version)
    assert stopped.value.limit == 1
    assert "'asset.retired'" in stopped.value.message


def test_an_unreadable_event_says_where_it_stands() -> None:
    error = UnknownEventType("event.unknown_type", "no", hint="do", value=1, limit=2)
    placed = error.at("plant-1", 17)
    assert type(placed) is UnknownEventType
    assert placed.message == "no; it stands at plant-1/17"
    assert (placed.code, placed.hint, placed.value, placed.limit) == (
        *("event.unknown_type", "do", 1, 2),
    )


# --- what cannot be recorded --------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        encode_fact(SetpointDesired("loop-1", "flow", value))
    assert (refused.value.code, refused.value.value) == ("event.value_not_finite", str(value))


@pytest.mark.parametrize("text", ["with \0 inside", "half a \ud83d"])
def test_a_text_that_no_database_could_hold_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        encode_fact(AssetRetired("loop-1", text))
    assert (refused.value.code, refused.value.value) == ("event.text_malformed", ascii(text))


def test_a_time_that_utc_cannot_express_is_refused() -> None:
    last_moment = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))
    with pytest.raises(InvalidInput) as refused:
        format_time(last_moment)
    assert refused.value.code == "event.time_out_of_range"


def test_a_time_without_a_zone_is_refused() -> None:
    naive = datetime(2020, 3, 9, 10, 34, 33)  # noqa: DTZ001
    alert = AlertRaised(
        "loop-1", uuid.UUID(int=1), "r", Severity.WARNING, "flow", 1.0, 2.0, naive, "low"
    )
    for attempt in (lambda: encode_fact(alert), lambda: format_time(naive)):
        with pytest.raises(InvalidInput) as refused:
            attempt()
        assert refused.value.code == "event.naive_time"
        assert refused.value.value == "2020-03-09T10:34:33"


def test_a_payload_has_a_limit() -> None:
    with pytest.raises(InvalidInput) as refused:
        encode_fact(SetpointDesired("loop-1", "x" * FACT_BYTES_MAX, 1.0))
    assert refused.value.code == "event.too_large"


def test_a_value_without_a_stored_form_is_a_programmer_s_error() -> None:
    with pytest.raises(TypeError, match="has no stored form"):
        encode_fact(SetpointDesired("loop-1", "flow", {"not": "a number"}))  # type: ignore[arg-type]


def test_times_are_written_one_way() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert format_time(datetime(2020, 3, 9, 16, 4, 33, tzinfo=east)) == (
        "2020-03-09T10:34:33.000000Z"
    )
    assert format_time(datetime(2020, 3, 9, 10, 34, 33, 7, tzinfo=UTC)) == (
        "2020-03-09T10:34:33.000007Z"
    )
