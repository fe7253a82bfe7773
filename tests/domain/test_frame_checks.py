"""What every frame is held against: known channels, true units, physical ranges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.asset_model import AssetType, channel
from domain.asset_types import asset_type, asset_types
from domain.errors import InvalidInput, NotFound
from domain.frame_checks import check_units, header_for, mark_out_of_range
from domain.frames import Frame, Quality, build_frame

PUMP_LOOP = asset_type("skab-pump-loop")
PRESSURE = channel("pressure", "Pressure", "pressure", "bar", (-1, 6))


def frame_of(described: AssetType, columns: list[list[float]], qualities: list[int]) -> Frame:
    header = header_for(described, "a", "b", [(c.name, c.input_unit) for c in described.channels])
    length = len(columns[0])
    masks = [np.array(qualities, np.uint8)] * len(columns)
    return build_frame(header, 1, [np.arange(length)], [np.array(c) for c in columns], masks)


# --- ranges -------------------------------------------------------------------------------


@given(st.sampled_from(sorted(asset_types())), st.data())
def test_marking_twice_is_marking_once_and_leaves_the_values(
    name: str, data: st.DataObject
) -> None:
    described = asset_type(name)
    qualities = data.draw(st.lists(st.sampled_from(Quality), min_size=1, max_size=8))
    numbers = st.floats(-1e6, 1e6) | st.floats(-300, 300)
    column = st.lists(numbers, min_size=len(qualities), max_size=len(qualities))
    frame = frame_of(
        described, [data.draw(column) for _ in described.channels], [int(q) for q in qualities]
    )
    marked = mark_out_of_range(frame, described)
    assert mark_out_of_range(marked, described) is marked
    for index, known in enumerate(described.channels):
        assert marked.values[index].tobytes() == frame.values[index].tobytes()
        si = frame.channel_si(index)
        for at, before in enumerate(frame.qualities[index]):
            inside = known.physical_min <= si[at] <= known.physical_max
            after = before if inside else max(before, Quality.BAD)
            assert marked.qualities[index][at] == after


def test_the_ends_of_the_physical_range_are_inside_it() -> None:
    described = AssetType("pump", "Pump", "A pump.", (PRESSURE,))
    frame = frame_of(described, [[-1.0, 6.0]], [0, 0])
    assert mark_out_of_range(frame, described) is frame
    beyond = [np.nextafter(-1.0, -2.0), np.nextafter(6.0, 7.0)]
    frame = frame_of(described, [beyond], [0, Quality.UNCERTAIN])
    marked = mark_out_of_range(frame, described)
    assert marked.qualities[0].tolist() == [Quality.BAD, Quality.BAD]


def test_a_missing_value_stays_missing() -> None:
    described = AssetType("pump", "Pump", "A pump.", (PRESSURE,))
    frame = frame_of(described, [[99.0, 99.0]], [Quality.MISSING, Quality.BAD])
    assert mark_out_of_range(frame, described) is frame


# --- units --------------------------------------------------------------------------------


def test_a_header_with_true_units_passes() -> None:
    header = header_for(PUMP_LOOP, "a", "b", [("flow", "m3/h"), ("fluid_temperature", "degF")])
    check_units(header, PUMP_LOOP)
    assert header.channels[0].factor == 1 / 3600
    assert header.channels[1].offset == pytest.approx(255.3722, abs=1e-4)


@pytest.mark.parametrize(("field", "wrong"), [("factor", 1.0), ("offset", 1e-9)])
def test_a_map_to_si_that_is_not_the_unit_s_is_refused(field: str, wrong: float) -> None:
    header = header_for(PUMP_LOOP, "a", "b", [("flow", "l/min")])
    changes: dict[str, Any] = {field: wrong}
    lying = replace(header, channels=(replace(header.channels[0], **changes),))
    with pytest.raises(InvalidInput) as refused:
        check_units(lying, PUMP_LOOP)
    assert refused.value.code == "unit.conversion_mismatch"


def test_units_and_channels_that_do_not_fit_the_type_are_refused() -> None:
    for name, symbol, error, code in (
        ("colour", "V", NotFound, "channel.unknown"),
        ("flow", "furlong", InvalidInput, "unit.unknown"),
        ("flow", "bar", InvalidInput, "unit.quantity_mismatch"),
    ):
        with pytest.raises(error) as refused:
            header_for(PUMP_LOOP, "a", "b", [(name, symbol)])
        assert refused.value.code == code
    header = header_for(PUMP_LOOP, "a", "b", [("flow", "l/min")])
    lies: list[tuple[dict[str, Any], str]] = [
        ({"name": "colour"}, "channel.unknown"),
        ({"unit": "furlong"}, "unit.unknown"),
        ({"unit": "bar"}, "unit.quantity_mismatch"),
    ]
    for wrong, code in lies:
        with pytest.raises((NotFound, InvalidInput)) as found:
            check_units(
                replace(header, channels=(replace(header.channels[0], **wrong),)), PUMP_LOOP
            )
        assert found.value.code == code


@pytest.mark.parametrize(
    ("channel", "value_type", "is_right"),
    [
        ("program", "str", True),
        ("program", "f8", False),
        ("drive_speed", "str", False),
        ("alarm_code", "str", False),
        ("alarm_code", "i8", True),
        ("alarm_code", "f8", True),
        ("running", "b1", True),
    ],
)
def test_text_is_sent_where_text_belongs_and_numbers_where_numbers_do(
    channel: str, value_type: str, is_right: bool
) -> None:
    machine = asset_type("production-machine")
    symbol = machine.channel(channel).si_unit
    header = header_for(machine, "lathe-1", "agent-1", [(channel, symbol)], value_type)
    if is_right:
        check_units(header, machine)
        return
    with pytest.raises(InvalidInput) as refused:
        check_units(header, machine)
    assert (refused.value.code, refused.value.value) == ("channel.wrong_type", value_type)
