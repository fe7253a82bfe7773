"""How set-points are declared, and every fault in it with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.configuration import AgentConfiguration, read_configuration
from edge_agent.yaml_section import ConfigurationFaults
from tests.edge_agent.setpoints.site import KEY, L_PER_MIN, yaml_of

URL = "opc.tcp://127.0.0.1:1/none"


def read(folder: Path, text: str) -> AgentConfiguration:
    file = folder / "agent.yaml"
    file.write_text(text)
    return read_configuration(file, folder)


def faults(folder: Path, text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigurationFaults) as refused:
        read(folder, text)
    return [(fault.key.rpartition("].")[2], fault.code) for fault in refused.value.faults]


def test_values_are_read_in_their_unit_and_kept_in_si(tmp_path: Path) -> None:
    text = yaml_of(URL, safe="{value: 15, link_lost_s: 60}", two_person="true")
    (declared,) = read(tmp_path, text).directing.setpoints
    assert declared.subject == "pump-7/flow"
    assert declared.closed_loop
    assert declared.two_person
    assert (declared.least, declared.most) == pytest.approx((10 * L_PER_MIN, 40 * L_PER_MIN))
    assert declared.safe is not None
    assert declared.safe.value == pytest.approx(15 * L_PER_MIN)
    assert declared.rate is not None
    assert declared.rate.change_max == pytest.approx(10 * L_PER_MIN)
    (lock,) = declared.interlocks
    assert (lock.least, lock.most) == pytest.approx((1e5, 4e5))
    assert declared.watched == {("pump-7", "pressure"), ("pump-7", "flow")}


def test_what_is_not_declared_is_the_safer_of_two(tmp_path: Path) -> None:
    text = yaml_of(URL, mode="", range="", rate="", interlocks="", tolerance="", age_s_max="")
    (declared,) = read(tmp_path, text).directing.setpoints
    assert not declared.closed_loop
    assert (declared.least, declared.most) == (
        declared.described.safe_min,
        declared.described.safe_max,
    )
    assert declared.age_s_max == 120


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"range": "{min: 5, max: 40}"}, [("range.min", "setpoint.range")]),
        ({"range": "{min: 40, max: 15}"}, [("range.min", "setpoint.range")]),
        ({"mode": "yes-please"}, [("mode", "configuration.unknown_choice")]),
        ({"two_person": "maybe"}, [("two_person", "configuration.wrong_type")]),
        ({"interlocks": "[{channel: pressure}]"}, [("channel", "interlock.no_bound")]),
        (
            {"interlocks": "[{channel: colour, min: 1}]"},
            [("channel", "channel.unknown")],
        ),
        (
            {"interlocks": "[{channel: pressure, unit: l/min, min: 1}]"},
            [("unit", "unit.quantity_mismatch")],
        ),
        (
            {"rate": "{change_max: 1, every_s: 1}"},
            [("rate.feedback", "configuration.key_missing")],
        ),
        ({"safe": "{value: 50, link_lost_s: 9}"}, [("safe.value", "setpoint.out_of_bounds")]),
        ({"safe": "{value: 20}"}, [("safe.value", "setpoint.never_returns")]),
        (
            {"safe": "{value: 20, twin_lost_s: 9}", "interlocks": "", "rate": ""},
            [("safe", "setpoint.nothing_watched")],
        ),
        ({"colour": "red"}, [("colour", "configuration.unknown_key")]),
    ],
)
def test_faults_are_told_where_they_are(
    tmp_path: Path, changes: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    assert faults(tmp_path, yaml_of(URL, **changes)) == expected


def test_setpoints_without_a_pinned_key_are_refused(tmp_path: Path) -> None:
    text = yaml_of(URL).replace(f'directives:\n  keys: ["{KEY.verifier.vkey}"]\n', "")
    assert faults(tmp_path, text) == [("setpoints", "directives.no_key")]


def test_key_with_a_wrong_letter_is_refused(tmp_path: Path) -> None:
    wrong = KEY.verifier.vkey[:-6] + ("A" if KEY.verifier.vkey[-6] != "A" else "B")
    wrong += KEY.verifier.vkey[-5:]
    text = yaml_of(URL).replace(KEY.verifier.vkey, wrong)
    assert faults(tmp_path, text) == [("directives.keys", "key.malformed")]


def test_setpoint_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = yaml_of(URL)
    again = text[text.index("  - asset: pump-7\n    asset_type: skab-pump-loop\n    setpoint") :]
    assert faults(tmp_path, text + again) == [("setpoint", "setpoint.repeated")]


def test_order_of_dropping_names_live_sources_alone(tmp_path: Path) -> None:
    found = read(tmp_path, yaml_of(URL) + "outbox: {drop_first: [pump-7]}\n")
    assert found.drop_ranks == {"pump-7": 1}
    text = yaml_of(URL) + "outbox: {drop_first: [pump-9]}\n"
    assert faults(tmp_path, text) == [("outbox.drop_first", "source.unknown")]
