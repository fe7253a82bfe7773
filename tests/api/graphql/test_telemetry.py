"""Readings over GraphQL: columns of any range, thinned, with qualities, in any unit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from domain.asset import RegisterAsset
from domain.frames import ChannelHeader, Frame, FrameHeader, Quality, build_frame
from tests.api.graphql.server import START, Server, frame_of
from tests.recordings import SKAB_COLUMNS, read_skab

pytestmark = pytest.mark.anyio

READINGS = """
query Readings(
  $from: DateTime!, $to: DateTime!, $channels: [String!], $maxPoints: Int! = 1000,
  $includeBad: Boolean! = false, $units: [ChannelUnit!]
) {
  asset(assetId: "pump-1") {
    readings(
      from: $from, to: $to, channels: $channels, maxPoints: $maxPoints, includeBad: $includeBad,
      units: $units
    ) { channel unit tier count timesMs values qualities }
  }
}
"""
RANGE = {"from": "2020-03-09T00:00:00Z", "to": "2020-03-10T00:00:00Z"}
START_MS = START.timestamp() * 1000


async def read(server: Server, **variables: Any) -> list[dict[str, Any]]:
    data = await server.ask(READINGS, **{**RANGE, **variables})
    columns: list[dict[str, Any]] = data["asset"]["readings"]
    return columns


@pytest.fixture
async def pump(server: Server) -> Server:
    """A server with one pump that delivered four seconds of two channels."""
    await server.register("pump-1")
    await server.record(
        frame_of(
            "pump-1",
            {"pressure": ("bar", [0.5, 99.0, 0.75, 1.0]), "flow": ("l/min", [30, 31, 32, 33])},
            qualities={"flow": np.array([0, Quality.UNCERTAIN, Quality.MISSING, 0], np.uint8)},
        )
    )
    return server


async def test_readings_are_columns_in_si(pump: Server) -> None:
    pressure, flow = await read(pump, channels=["pressure", "flow"])

    assert pressure == {
        "channel": "pressure",
        "unit": "Pa",
        "tier": "RAW",
        "count": 3,
        "timesMs": [START_MS, START_MS + 2000, START_MS + 3000],
        "values": pytest.approx([50_000, 75_000, 100_000]),
        "qualities": [0, 0, 0],
    }
    assert flow["timesMs"] == [START_MS, START_MS + 1000, START_MS + 3000]
    assert flow["values"] == pytest.approx([v * 1e-3 / 60 for v in (30, 31, 33)])
    assert flow["qualities"] == [0, 1, 0]


async def test_bad_readings_come_when_asked_for_and_missing_ones_never(pump: Server) -> None:
    pressure, flow = await read(pump, channels=["pressure", "flow"], includeBad=True)

    assert pressure["values"] == pytest.approx([50_000, 9_900_000, 75_000, 100_000])
    assert pressure["qualities"] == [0, 2, 0, 0]
    assert flow["qualities"] == [0, 1, 0]


async def test_readings_come_in_the_unit_that_is_asked_for(pump: Server) -> None:
    units = [{"channel": "pressure", "unit": "bar"}]

    pressure, flow = await read(pump, channels=["pressure", "flow"], units=units)

    assert (pressure["unit"], flow["unit"]) == ("bar", "m3/s")
    assert pressure["values"] == pytest.approx([0.5, 0.75, 1.0])


async def test_temperature_is_shifted_and_not_only_scaled(server: Server) -> None:
    await server.register("pump-1")
    await server.record(frame_of("pump-1", {"fluid_temperature": ("degF", [32.0, 212.0])}))

    for unit, values in (("K", [273.15, 373.15]), ("degC", [0, 100]), ("degF", [32, 212])):
        (column,) = await read(
            server,
            channels=["fluid_temperature"],
            units=[{"channel": "fluid_temperature", "unit": unit}],
        )
        assert column["values"] == pytest.approx(values, abs=1e-9)
        assert column["unit"] == unit


@pytest.mark.parametrize("channels", [None, "omitted"])
async def test_without_channels_all_of_the_type_are_read(pump: Server, channels: Any) -> None:
    columns = await read(pump, **({} if channels == "omitted" else {"channels": None}))

    assert [column["channel"] for column in columns] == [
        "accelerometer_1",
        "accelerometer_2",
        "motor_current",
        "pressure",
        "housing_temperature",
        "fluid_temperature",
        "supply_voltage",
        "flow",
    ]
    assert columns[0] == {
        "channel": "accelerometer_1",
        "unit": "m/s2",
        "tier": "RAW",
        "count": 0,
        "timesMs": [],
        "values": [],
        "qualities": [],
    }


async def test_no_channels_are_no_columns(pump: Server) -> None:
    assert await read(pump, channels=[]) == []


async def test_channel_named_twice_is_read_once(pump: Server) -> None:
    assert len(await read(pump, channels=["flow", "flow"])) == 1


async def test_range_includes_both_ends(pump: Server) -> None:
    (flow,) = await read(
        pump,
        channels=["flow"],
        **{"from": "2020-03-09T13:00:01+01:00", "to": "2020-03-09T12:00:03Z"},
    )

    assert flow["timesMs"] == [START_MS + 1000, START_MS + 3000]


async def test_times_keep_a_quarter_of_a_microsecond(server: Server) -> None:
    await server.register("pump-1")
    await server.record(
        frame_of(
            "pump-1",
            {"flow": ("l/min", [30.0, 31.0])},
            start=START + timedelta(microseconds=123_457),
            step_s=0.000001,
        )
    )

    (flow,) = await read(server, channels=["flow"])

    assert [round((ms - START_MS) * 1000) for ms in flow["timesMs"]] == [123_457, 123_458]


async def test_what_was_delivered_twice_counts_once_and_the_later_one_wins(pump: Server) -> None:
    await pump.record(frame_of("pump-1", {"flow": ("l/min", [40.0])}, agent="gateway-2"))

    (flow,) = await read(pump, channels=["flow"], units=[{"channel": "flow", "unit": "l/min"}])

    assert flow["values"] == pytest.approx([40, 31, 33])


async def test_long_columns_are_thinned_and_keep_their_peaks(server: Server) -> None:
    await server.register("pump-1")
    values = [30.0] * 5000
    values[1234], values[4321] = 100.0, 10.0
    await server.record(frame_of("pump-1", {"flow": ("l/min", values)}))

    (flow,) = await read(
        server, channels=["flow"], maxPoints=50, units=[{"channel": "flow", "unit": "l/min"}]
    )

    assert flow["count"] == 5000
    assert 25 < len(flow["values"]) <= 50
    assert len(flow["timesMs"]) == len(flow["qualities"]) == len(flow["values"])
    assert max(flow["values"]) == pytest.approx(100)
    assert min(flow["values"]) == pytest.approx(10)
    assert flow["timesMs"] == sorted(flow["timesMs"])


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"maxPoints": 1}, "readings.points_max"),
        ({"maxPoints": 10_001}, "readings.points_max"),
        ({"from": RANGE["to"], "to": RANGE["from"]}, "readings.range"),
        ({"channels": ["colour"]}, "channel.unknown"),
        ({"units": [{"channel": "colour", "unit": "bar"}]}, "channel.unknown"),
        ({"units": [{"channel": "flow", "unit": "bar"}]}, "unit.quantity_mismatch"),
        ({"units": [{"channel": "flow", "unit": "gallon"}]}, "unit.unknown"),
        ({"from": "2020-03-09T00:00:00"}, "event.naive_time"),
        ({"from": "yesterday"}, "time.malformed"),
        ({"from": None}, "graphql.invalid"),
        ({"maxPoints": None}, "graphql.invalid"),
    ],
)
async def test_impossible_readings_are_refused(
    pump: Server, variables: dict[str, Any], code: str
) -> None:
    error = await pump.error(READINGS, **{**RANGE, **variables})

    assert error["extensions"]["code"] == code
    assert error["message"]


async def test_range_may_be_as_wide_as_time_itself(pump: Server) -> None:
    (flow,) = await read(
        pump,
        channels=["flow"],
        **{"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59.999999Z"},
    )

    assert flow["count"] == 3


async def test_recording_is_read_back_as_it_was_delivered(server: Server) -> None:
    recording = read_skab("valve1/0")
    await server.register("pump-1", commission=True)
    units = dict(SKAB_COLUMNS.values())
    for begin in range(0, len(recording.times_ns), 300):
        part = slice(begin, begin + 300)
        channels = {name: (units[name], recording.values[name][part]) for name in units}
        await server.record(frame_of("pump-1", channels, clock=recording.times_ns[part]))

    columns = await read(
        server,
        channels=list(units),
        maxPoints=10_000,
        includeBad=True,
        units=[{"channel": name, "unit": unit} for name, unit in units.items()],
    )

    assert len(recording.times_ns) > 1000
    for column in columns:
        assert column["count"] == len(recording.times_ns)
        assert column["timesMs"] == [time / 1e6 for time in recording.times_ns.tolist()]
        assert column["values"] == pytest.approx(
            recording.values[column["channel"]].tolist(), rel=1e-12, abs=1e-12
        )


# --- what is no measured number -----------------------------------------------------------

MACHINE = """
query Machine($from: DateTime!, $to: DateTime!, $maxPoints: Int! = 1000) {
  asset(assetId: "lathe-1") {
    type { channels { name kind physicalMin physicalMax } }
    twin { readings { channel value text } }
    readings(
      from: $from, to: $to, channels: ["program", "alarm_code", "running"], maxPoints: $maxPoints
    ) { channel unit tier count timesMs values texts qualities }
  }
}
"""


def machine_frame(sequence: int, programs: list[str], qualities: list[int]) -> Frame:
    """Return a frame of a lathe with a program, an alarm and a flag for every second."""
    count = len(programs)
    names = (("program", "str"), ("alarm_code", "i8"), ("running", "b1"))
    channels = tuple(ChannelHeader(name, "1", 1.0, 0.0, kind) for name, kind in names)
    start_ns = int(START_MS) * 1_000_000 + sequence * 1_000_000_000
    return build_frame(
        FrameHeader("lathe-1", "agent-1", channels),
        sequence,
        [start_ns + np.arange(count) * 1_000_000_000],
        [
            np.array(programs, object),
            np.full(count, 2**31 - 1, np.int64),
            np.arange(count) % 2 == 0,
        ],
        [np.array(qualities, np.uint8), None, None],
    )


async def test_texts_codes_and_flags_are_read_as_they_are(server: Server) -> None:
    await server.command(RegisterAsset("lathe-1", "production-machine", "Lathe 1"))
    await server.record(machine_frame(1, ["O1", "O1", "", "O2 Gehäuse"], [0, 0, 3, 1]))
    # The readings of two seconds come once more, and count as they came last.
    await server.record(machine_frame(4, ["O3", "O4"], [0, 0]))

    asset = (await server.ask(MACHINE, **RANGE))["asset"]

    program, alarm, running = asset["readings"]
    at_ms = [START_MS + 1000 * second for second in range(1, 6)]
    assert program == {
        "channel": "program",
        "unit": "1",
        "tier": "RAW",
        "count": 4,
        "timesMs": [at_ms[0], at_ms[1], at_ms[3], at_ms[4]],
        "values": [],
        "texts": ["O1", "O1", "O3", "O4"],
        "qualities": [0, 0, 0, 0],
    }
    assert (alarm["values"], alarm["texts"]) == ([2**31 - 1] * 5, None)
    assert running["values"] == [1, 0, 1, 1, 0]
    twin = {reading["channel"]: reading for reading in asset["twin"]["readings"]}
    assert twin["program"] == {"channel": "program", "value": None, "text": "O4"}
    assert twin["running"] == {"channel": "running", "value": 0, "text": None}
    assert twin["drive_speed"] == {"channel": "drive_speed", "value": None, "text": None}
    kinds = {channel["name"]: channel for channel in asset["type"]["channels"]}
    assert kinds["program"] == {
        "name": "program",
        "kind": "TEXT",
        "physicalMin": None,
        "physicalMax": None,
    }
    assert (kinds["running"]["kind"], kinds["running"]["physicalMax"]) == ("BOOLEAN", 1)
    assert (kinds["alarm_code"]["kind"], kinds["drive_speed"]["kind"]) == ("INTEGER", "NUMBER")


async def test_more_texts_than_are_wanted_are_told_where_they_change(server: Server) -> None:
    await server.command(RegisterAsset("lathe-1", "production-machine", "Lathe 1"))
    programs = ["O1"] * 50 + ["O2"] * 50 + ["O3"] + ["O1"] * 20
    await server.record(machine_frame(1, programs, [0] * len(programs)))

    async def program(points: int) -> dict[str, Any]:
        asset = (await server.ask(MACHINE, **RANGE, maxPoints=points))["asset"]
        found: dict[str, Any] = asset["readings"][0]
        return found

    thinned = await program(10)
    assert thinned["count"] == 121
    assert thinned["texts"] == ["O1", "O2", "O3", "O1", "O1"]
    assert [(at - START_MS) / 1000 for at in thinned["timesMs"]] == [1, 51, 101, 102, 121]
    assert (await program(2))["texts"] == ["O1", "O1"]
