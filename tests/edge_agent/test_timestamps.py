"""Times as recordings write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from edge_agent.timestamps import NS_PER_S, TimeReader, carries_zone

BERLIN = ZoneInfo("Europe/Berlin")
WALL = "%Y-%m-%d %H:%M:%S"


def ns(text: str) -> int:
    """Return the instant of an ISO 8601 text with an offset, by the standard library."""
    return int(datetime.fromisoformat(text).timestamp()) * NS_PER_S


@pytest.mark.parametrize(
    ("time_format", "zone", "text", "expected"),
    [
        (WALL, "UTC", "2020-03-09 10:14:33", "2020-03-09T10:14:33+00:00"),
        (WALL, "Europe/Berlin", "2020-03-09 10:14:33", "2020-03-09T10:14:33+01:00"),
        (WALL, "Asia/Kolkata", "2020-03-09 10:14:33", "2020-03-09T10:14:33+05:30"),
        ("%d.%m.%Y %H:%M:%S %z", None, "09.03.2020 10:14:33 +0300", "2020-03-09T10:14:33+03:00"),
        ("iso8601", None, "2020-03-09T10:14:33Z", "2020-03-09T10:14:33+00:00"),
        ("iso8601", None, "2020-03-09 10:14:33-08:00", "2020-03-09T10:14:33-08:00"),
        ("iso8601", "Europe/Berlin", "2020-07-09T10:14:33", "2020-07-09T10:14:33+02:00"),
        ("iso8601", "Europe/Berlin", "2020-07-09T10:14:33Z", "2020-07-09T10:14:33+00:00"),
        ("unix_s", None, "1583748873", "2020-03-09T10:14:33+00:00"),
        ("unix_ms", None, "1583748873000", "2020-03-09T10:14:33+00:00"),
    ],
)
def test_time_is_read_as_the_instant_it_names(
    time_format: str, zone: str | None, text: str, expected: str
) -> None:
    reader = TimeReader(time_format, (zone and ZoneInfo(zone)) or None)
    assert reader.read(text, None) == ns(expected)


@pytest.mark.parametrize(
    ("time_format", "text", "expected_ns"),
    [
        ("iso8601", "1970-01-01T00:00:01.000000001Z", 1_000_000_001),
        ("iso8601", "1970-01-01T00:00:01,5Z", 1_500_000_000),
        ("iso8601", "1969-12-31T23:59:59.999999999Z", -1),
        ("unix_s", "1583748873.123456789", 1_583_748_873_123_456_789),
        ("unix_ms", "1583748873123.456789", 1_583_748_873_123_456_789),
    ],
)
def test_nanoseconds_are_kept(time_format: str, text: str, expected_ns: int) -> None:
    assert TimeReader(time_format, None).read(text, None) == expected_ns


@pytest.mark.parametrize(
    ("time_format", "text"),
    [
        (WALL, "2020-13-09 10:14:33"),
        (WALL, ""),
        ("iso8601", "2020-02-30T10:14:33Z"),
        ("iso8601", "2020-W10-1T10:14:33"),
        ("iso8601", "2020-03-09"),
        ("iso8601", "2020-03-09T10:14:33.1234567891Z"),
        ("unix_s", "nan"),
        ("unix_s", "1e400"),
        ("unix_s", "soon"),
        ("unix_ms", "Infinity"),
    ],
)
def test_unreadable_time_is_refused(time_format: str, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        TimeReader(time_format, ZoneInfo("UTC")).read(text, None)
    assert refused.value.code == "row.time_unreadable"


@pytest.mark.parametrize(
    ("time_format", "text"), [("unix_s", "1e18"), ("iso8601", "9999-01-01T00:00:00Z")]
)
def test_time_that_nanoseconds_cannot_hold_is_refused(time_format: str, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        TimeReader(time_format, None).read(text, None)
    assert refused.value.code == "row.time_out_of_range"


def test_time_without_offset_and_zone_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        TimeReader("iso8601", None).read("2020-03-09T10:14:33", None)
    assert refused.value.code == "row.zone_missing"


def test_hour_skipped_by_the_clocks_is_refused() -> None:
    reader = TimeReader(WALL, BERLIN)
    assert reader.read("2024-03-31 01:59:59", None) == ns("2024-03-31T01:59:59+01:00")
    with pytest.raises(InvalidInput) as refused:
        reader.read("2024-03-31 02:00:00", None)
    assert refused.value.code == "row.time_nonexistent"
    assert reader.read("2024-03-31 03:00:00", None) == ns("2024-03-31T03:00:00+02:00")


def test_hour_repeated_by_the_clocks_is_read_twice_when_rows_follow_each_other() -> None:
    reader = TimeReader(WALL, BERLIN)
    start = datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
    expected = [start + timedelta(minutes=20 * step) for step in range(8)]
    previous, found = None, []
    for moment in expected:
        previous = reader.read(moment.astimezone(BERLIN).strftime(WALL), previous)
        found.append(previous)
    assert found == [int(moment.timestamp()) * NS_PER_S for moment in expected]


def test_row_that_goes_back_a_little_stays_in_its_pass_of_the_repeated_hour() -> None:
    reader = TimeReader(WALL, BERLIN)
    previous = reader.read("2024-10-27 02:10:05", ns("2024-10-27T02:10:00+02:00"))
    assert reader.read("2024-10-27 02:10:04", previous) == ns("2024-10-27T02:10:04+02:00")


@given(
    st.integers(-20 * 365 * 86_400, 130 * 365 * 86_400).map(
        lambda since_1970_s: datetime.fromtimestamp(since_1970_s, UTC)
    ),
    st.sampled_from(["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Tehran"]),
    st.integers(0, 900),
)
def test_local_time_with_a_near_predecessor_is_always_read_right(
    moment: datetime, zone: str, gap_s: int
) -> None:
    reader = TimeReader(WALL, ZoneInfo(zone))
    instant_ns = int(moment.timestamp()) * NS_PER_S
    written = moment.astimezone(ZoneInfo(zone)).strftime(WALL)
    assert reader.read(written, instant_ns - gap_s * NS_PER_S) == instant_ns


def test_formats_that_carry_their_zone_are_known() -> None:
    assert carries_zone("unix_s")
    assert carries_zone("%Y %z")
    assert not carries_zone("%Y %%z")
    assert not carries_zone("iso8601")
