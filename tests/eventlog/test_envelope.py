"""The envelope: its leaf is RFC 8785 JSON, and what could not be recorded is refused before."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from domain.events import decode_fact
from domain.frame_decoding import decode
from domain.frame_statistics import unpack_statistics
from domain.frames import FRAME_BYTES_MAX
from eventlog.envelope import NewEvent, check_event, leaf_entry
from tests.eventlog.new_events import OCCURRED_AT, fact, frame_event, frame_of

RECORDED_AT = "2020-03-09T10:34:33.000001Z"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
# strftime, which the oracle uses, does not pad the year.
TIMES = st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(
    actor=TEXTS,
    ledger=TEXTS,
    occurred_at=TIMES,
    event_id=st.uuids(),
    correlation_id=st.none() | st.uuids(),
    causation_id=st.none() | st.uuids(),
    position=st.integers(1, 2**53 - 1),
    version=st.integers(1, 2**53 - 1),
    schema_version=st.integers(1, 2**15 - 1),
    payload=st.binary(max_size=20),
)
def test_a_leaf_is_the_canonical_json_of_rfc_8785(
    actor: str,
    ledger: str,
    occurred_at: datetime,
    event_id: uuid.UUID,
    correlation_id: uuid.UUID | None,
    causation_id: uuid.UUID | None,
    position: int,
    version: int,
    schema_version: int,
    payload: bytes,
) -> None:
    event = fact(
        "x",
        actor=actor,
        occurred_at=occurred_at,
        event_id=event_id,
        correlation_id=correlation_id,
        causation_id=causation_id,
        schema_version=schema_version,
        payload_sha256=hashlib.sha256(payload).digest(),
    )
    assert leaf_entry(ledger, position, version, RECORDED_AT, event) == rfc8785.dumps(
        {
            "actor": actor,
            "causation_id": None if causation_id is None else str(causation_id),
            "correlation_id": None if correlation_id is None else str(correlation_id),
            "event_id": str(event_id),
            "ledger": ledger,
            "occurred_at": occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "payload_sha256": hashlib.sha256(payload).hexdigest(),
            "position": position,
            "recorded_at": RECORDED_AT,
            "schema_version": schema_version,
            "stream": event.stream,
            "traceparent": None,
            "type": event.type,
            "version": version,
        }
    )


def test_a_stored_leaf_stays_as_it_is_for_ever() -> None:
    event = fact(
        "flow",
        event_id=uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
        actor="user:Jürgen Ö.",
        occurred_at=datetime(2020, 3, 9, 16, 4, 33, tzinfo=timezone(timedelta(hours=5.5))),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert leaf_entry("plant-1", 7, 3, RECORDED_AT, event).decode() == (
        '{"actor":"user:Jürgen Ö.","causation_id":null,"correlation_id":null,'
        '"event_id":"01890a5d-ac96-774b-bcce-b302099a8057","ledger":"plant-1",'
        '"occurred_at":"2020-03-09T10:34:33.000000Z","payload_sha256":'
        '"183c22927684cf52c18078852193869081aabbeaced068aa2a392267e759ab12",'
        '"position":7,"recorded_at":"2020-03-09T10:34:33.000001Z","schema_version":1,'
        '"stream":"asset:loop-1",'
        '"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
        '"type":"asset.setpoint_reported","version":3}'
    )


def test_a_leaf_fits_an_entry_bundle_whatever_its_texts() -> None:
    event = fact(
        "x",
        actor="\U0001f529" * 200,
        stream="asset:" + "x" * 122,
        correlation_id=uuid.UUID(int=1),
        causation_id=uuid.UUID(int=2),
    )
    check_event(event)
    assert len(leaf_entry("x" * 128, 2**53 - 1, 2**53 - 1, RECORDED_AT, event)) < 2**16


def test_a_fact_s_payload_is_hashed_as_it_is_stored() -> None:
    event = fact("flow")
    assert event.payload_sha256 == hashlib.sha256(event.payload).digest()
    assert decode_fact(event.type, event.schema_version, event.payload).setpoint == "flow"


def test_a_frame_is_hashed_over_its_canonical_form_and_numbered_by_its_agent() -> None:
    frame = frame_of(9, start_ns=1_000)
    event = frame_event(frame)
    assert event.payload_sha256 == frame.canonical_sha256 != hashlib.sha256(event.payload).digest()
    assert (event.source, event.sequence, event.actor) == ("agent:agent-1", 9, "agent:agent-1")
    assert decode(event.payload).canonical_sha256 == frame.canonical_sha256
    window = event.window
    assert window is not None
    assert (window.start_ns, window.end_ns, window.reading_count) == (1_000, 5_000, 5)
    assert unpack_statistics(window.statistics)[0] == ("supply_voltage",)


# --- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"stream": ""}, "event.stream_malformed"),
        ({"stream": "loop-1"}, "event.stream_malformed"),
        ({"stream": "Asset:loop-1"}, "event.stream_malformed"),
        ({"stream": "asset:loop 1"}, "event.stream_malformed"),
        ({"stream": "asset:löop"}, "event.stream_malformed"),
        ({"stream": "asset:loop\n"}, "event.stream_malformed"),
        ({"stream": "asset:" + "x" * 123}, "event.stream_malformed"),
        ({"type": "registered"}, "event.type_malformed"),
        ({"type": "asset.Registered"}, "event.type_malformed"),
        ({"type": "asset..registered"}, "event.type_malformed"),
        ({"type": "asset." + "x" * 123}, "event.type_malformed"),
        ({"actor": ""}, "event.actor_malformed"),
        ({"actor": "a\x00b"}, "event.actor_malformed"),
        ({"actor": "a\nb"}, "event.actor_malformed"),
        ({"actor": "a\u202eb"}, "event.actor_malformed"),
        ({"actor": "\ud800"}, "event.actor_malformed"),
        ({"actor": "x" * 201}, "event.actor_malformed"),
        ({"source": "", "sequence": 1}, "event.source_malformed"),
        ({"source": "x" * 129, "sequence": 1}, "event.source_malformed"),
        ({"source": "agent:a"}, "event.sequence_without_source"),
        ({"sequence": 1}, "event.sequence_without_source"),
        ({"source": "agent:a", "sequence": -1}, "event.sequence_out_of_range"),
        ({"source": "agent:a", "sequence": 2**63}, "event.sequence_out_of_range"),
        ({"schema_version": 0}, "event.schema_version_out_of_range"),
        ({"schema_version": 2**15}, "event.schema_version_out_of_range"),
        ({"payload_sha256": b""}, "event.payload_sha256_malformed"),
        ({"traceparent": ""}, "event.traceparent_malformed"),
        ({"traceparent": "01-" + "0" * 32 + "-" + "0" * 16 + "-00"}, "event.traceparent_malformed"),
        ({"traceparent": "00-" + "A" * 32 + "-" + "0" * 16 + "-00"}, "event.traceparent_malformed"),
        ({"payload": bytes(FRAME_BYTES_MAX + 1)}, "event.too_large"),
        ({"occurred_at": datetime(2020, 1, 1)}, "event.naive_time"),  # noqa: DTZ001
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_an_event_that_cannot_be_recorded_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_event(fact("x", **changes))
    assert refused.value.code == code


@pytest.mark.parametrize(
    "event",
    [
        fact("x"),
        fact("x", stream="work-order:WO_2024.17", actor="user:Søren 東京 🔩"),
        fact("x", source="agent:a", sequence=0),
        fact("x", source="agent:a", sequence=2**63 - 1, schema_version=2**15 - 1),
        fact("x", occurred_at=OCCURRED_AT.astimezone(timezone(timedelta(hours=-8)))),
        frame_event(frame_of(1)),
    ],
)
def test_an_event_that_can_be_recorded_passes(event: NewEvent) -> None:
    check_event(event)
