"""Set-points on a real device: what may not be set is refused, recorded and not written."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.directives import ModelDirective, SetpointDirective
from domain.frames import Quality
from edge_agent.setpoints.journal import APPLIED, REFUSED, RETURNED, WRITING, JournalEntry
from edge_agent.setpoints.watchdog import Watchdog
from edge_agent.settings import Settings
from edge_agent.uplink.directives import DirectiveStream
from edge_agent.uplink.http import HttpTransport
from edge_agent.uplink.transport import StreamMessage, Wanted
from edge_agent.waiting import end_all
from tests.edge_agent.setpoints.site import (
    AGENT,
    KEY,
    L_PER_MIN,
    OTHER_KEY,
    Device,
    Site,
    device,
    signed,
    site,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def controller() -> AsyncIterator[Device]:
    async with device() as opened:
        yield opened


@pytest.fixture
async def running(controller: Device) -> Device:
    """The device as every test finds it."""
    await controller.setpoint.set_writable()
    await controller.setpoint.write_value(20.0)
    return controller


async def refused(opened: Site, code: str, *, reported: bool = True) -> None:
    """Check that the last thing told was refused for `code`, and that nothing was written."""
    latest = opened.applier.journal.latest(1)[0]
    assert (latest.outcome, latest.code) == (REFUSED, code)
    assert await opened.device.value() == 20.0
    assert (code in opened.codes()) == reported
    assert opened.applier.journal.last_write("pump-7/flow") is None


async def test_what_may_be_set_is_written_read_back_and_reported(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running) as opened:
        told = opened.directive(25.0, proposal_id="sp-1", proposed_by="user:jo")
        await opened.tell(told)
        assert await running.value() == pytest.approx(25.0)
        latest = opened.applier.journal.latest(1)[0]
        assert (latest.outcome, latest.position) == (APPLIED, told.position)
        reports = {one.mutation: one.input for one in opened.reports()}
        assert reports["reportSetpoint"] == {
            "assetId": "pump-7",
            "setpoint": "flow",
            "value": pytest.approx(25 * L_PER_MIN),
        }
        assert reports["applySetpoint"]["proposalId"] == "sp-1"


async def test_by_default_it_is_only_told_what_would_be_written(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running, mode="") as opened:
        await opened.tell(opened.directive(25.0, proposal_id="sp-1", proposed_by="user:jo"))
        assert await running.value() == 20.0
        assert opened.codes() == ["setpoint.advisory"]
        assert "25 l/min would be written" in str(opened.reports()[0].input["reason"])
        assert [one.mutation for one in opened.reports()] == ["declineSetpoint"]


@pytest.mark.parametrize("value", [9.99, 40.01, 1e6, -25.0])
async def test_out_of_bounds(running: Device, tmp_path: Path, value: float) -> None:
    async with site(tmp_path, running) as opened:
        await opened.tell(opened.directive(value))
        await refused(opened, "setpoint.out_of_bounds")


async def test_too_far_at_once(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        await opened.tell(opened.directive(30.1))
        await refused(opened, "setpoint.too_fast")


async def test_too_soon_after_the_last(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        await opened.tell(opened.directive(25.0))
        opened.pass_time(29.0)
        opened.live(flow=25.0, pressure=2.0)
        await opened.tell(opened.directive(26.0))
        assert opened.codes() == ["setpoint.too_fast"]
        assert await running.value() == pytest.approx(25.0)
        opened.pass_time(1.0)
        await opened.tell(opened.directive(26.0))
        assert await running.value() == pytest.approx(26.0)


async def test_too_soon_counts_across_a_restart(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        await opened.tell(opened.directive(25.0))
    async with site(tmp_path, running) as again:
        again.position = 200
        await again.tell(again.directive(26.0))
        assert again.codes() == ["setpoint.too_fast"]


async def test_stale(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        told = opened.directive()
        long_ago = told.issued_at - timedelta(seconds=121)
        await opened.tell(replace(told, issued_at=long_ago))
        await refused(opened, "directive.stale")


async def test_expired(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        told = opened.directive()
        await opened.tell(replace(told, expires_at=told.issued_at))
        await refused(opened, "directive.expired")


async def test_issued_in_the_future(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        told = opened.directive()
        ahead = timedelta(hours=1)
        await opened.tell(
            replace(told, issued_at=told.issued_at + ahead, expires_at=told.expires_at + ahead)
        )
        await refused(opened, "directive.in_future")


async def test_replayed(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        told = opened.directive(25.0)
        await opened.tell(told)
        await running.setpoint.write_value(20.0)
        opened.pass_time(1_000)
        opened.live(flow=20.0, pressure=2.0)
        await opened.tell(told)
        assert await running.value() == 20.0
        assert opened.codes() == ["directive.replayed"]


async def test_replayed_after_a_restart(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        told = opened.directive(25.0)
        await opened.tell(told)
        await running.setpoint.write_value(20.0)
    async with site(tmp_path, running) as again:
        again.pass_time(1_000)
        again.live(flow=20.0, pressure=2.0)
        await again.tell(told)
        assert await running.value() == 20.0
        assert again.codes() == ["directive.replayed"]


async def test_older_one_that_was_held_back_is_a_replay(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        held_back = opened.directive(30.0)
        await opened.tell(opened.directive(25.0))
        opened.pass_time(1_000)
        opened.live(flow=25.0, pressure=2.0)
        await opened.tell(held_back)
        assert await running.value() == pytest.approx(25.0)
        assert opened.codes() == ["directive.replayed"]


async def test_for_another_asset(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        await opened.tell(replace(opened.directive(), asset_id="pump-8"))
        await refused(opened, "directive.foreign_asset", reported=False)


async def test_for_another_agent(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        await opened.tell(replace(opened.directive(), agent="edge-2"))
        await refused(opened, "directive.foreign_agent", reported=False)
        assert opened.applier.journal.handled_position == -1, "another's positions are not ours"


async def test_unsigned(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        message = json.loads(signed(opened.directive()))
        del message["signature"]
        await opened.stream.take(StreamMessage(101, json.dumps(message)))
        await refused(opened, "directive.unsigned")


async def test_signed_by_somebody_else(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        await opened.tell(opened.directive(), OTHER_KEY)
        await refused(opened, "directive.key_unknown")
        forged = json.loads(signed(opened.directive(), OTHER_KEY))
        forged["key"] = f"{KEY.name}+{KEY.verifier.key_id.hex()}"
        await opened.stream.take(StreamMessage(102, json.dumps(forged)))
        await refused(opened, "directive.signature_invalid")


async def test_signature_of_something_else_that_the_key_signs(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running) as opened:
        directive = opened.directive()
        message = json.loads(signed(directive))
        elsewhere = KEY.sign(message["directive"] + "\n")  # without the directives' own context
        message["signature"] = base64.b64encode(elsewhere.value).decode()
        await opened.stream.take(StreamMessage(101, json.dumps(message)))
        await refused(opened, "directive.signature_invalid")


@pytest.mark.parametrize(
    "change", [("26.0", "27.0"), ("pump-7", "pump-8"), ("user:mara", "user:eve"), ('"', "'")]
)
async def test_changed_on_its_way(running: Device, tmp_path: Path, change: tuple[str, str]) -> None:
    async with site(tmp_path, running) as opened:
        message = json.loads(signed(replace(opened.directive(), value=26.0)))
        message["directive"] = message["directive"].replace(*change)
        await opened.stream.take(StreamMessage(101, json.dumps(message)))
        latest = opened.applier.journal.latest(1)[0]
        assert (latest.outcome, latest.code) == (REFUSED, "directive.signature_invalid")
        assert await running.value() == 20.0


@pytest.mark.parametrize(
    "message",
    ["{", "[]", "null", '"text"', '{"directive": 3}', "{}", "9" * 200_000, "[" * 9_999],
)
async def test_nonsense_harms_nobody(running: Device, tmp_path: Path, message: str) -> None:
    async with site(tmp_path, running) as opened:
        await opened.stream.take(StreamMessage(101, message))
        assert await running.value() == 20.0
        await opened.tell(opened.directive(25.0))
        assert await running.value() == pytest.approx(25.0)


async def test_interlock_open(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        opened.live(pressure=4.1)
        await opened.tell(opened.directive())
        await refused(opened, "interlock.open")


async def test_interlock_of_an_old_value_is_open(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        opened.pass_time(5.1)
        opened.live(flow=20.0)
        await opened.tell(opened.directive())
        await refused(opened, "interlock.unknown")


async def test_value_that_took_long_is_as_old_as_it_is(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        opened.live(pressure=2.0, late_s=60)
        await opened.tell(opened.directive())
        await refused(opened, "interlock.unknown")


@pytest.mark.parametrize("quality", [Quality.BAD, Quality.UNCERTAIN, Quality.MISSING])
async def test_interlock_of_a_doubtful_value_is_open(
    running: Device, tmp_path: Path, quality: Quality
) -> None:
    async with site(tmp_path, running) as opened:
        opened.live(quality, pressure=2.0)
        await opened.tell(opened.directive())
        await refused(opened, "interlock.unknown")


@pytest.mark.parametrize("proposer", [None, "user:mara"])
async def test_two_persons_where_declared(
    running: Device, tmp_path: Path, proposer: str | None
) -> None:
    async with site(tmp_path, running, two_person="true") as opened:
        proposal = None if proposer is None else "sp-1"
        await opened.tell(opened.directive(proposal_id=proposal, proposed_by=proposer))
        await refused(opened, "setpoint.one_person")
        await opened.tell(opened.directive(proposal_id="sp-2", proposed_by="user:jo"))
        assert await running.value() == pytest.approx(25.0)


async def test_kill_switch_stops_all_writing(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        opened.kill_switch.touch()
        await opened.tell(opened.directive())
        await refused(opened, "writing.stopped")
        opened.kill_switch.unlink()
        await opened.tell(opened.directive())
        assert await running.value() == pytest.approx(25.0)


async def test_refused_proposal_is_ended_with_the_reason(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        opened.live(pressure=4.1)
        await opened.tell(opened.directive(proposal_id="sp-1", proposed_by="user:jo"))
        reports = {one.mutation: one.input for one in opened.reports()}
        assert reports["refuseSetpoint"]["proposalId"] == "sp-1"
        assert str(reports["refuseSetpoint"]["reason"]).startswith("interlock.open: ")


async def test_device_that_refuses_is_told(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running) as opened:
        await running.setpoint.set_read_only()
        await opened.tell(opened.directive())
        await refused(opened, "target.refused")


async def test_killed_while_writing_is_told_and_never_written_again(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running) as opened:
        told = opened.directive(25.0)
        entry = JournalEntry(told.position, "pump-7/flow", WRITING, "", "", told.value, 0)
        opened.applier.journal.note(entry)  # and there the process was killed
    async with site(tmp_path, running) as again:
        assert again.codes() == ["setpoint.outcome_unknown"]
        again.pass_time(1_000)
        again.live(flow=20.0, pressure=2.0)
        await again.tell(told)
        assert await running.value() == 20.0
        assert again.applier.journal.unsettled() == []


async def test_what_nobody_vouches_for_does_not_flood_the_log(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running) as opened:
        for _ in range(50):
            await opened.tell(opened.directive(), OTHER_KEY)
        assert opened.codes() == ["directive.key_unknown"]
        assert opened.applier.journal.counts() == {"refused: directive.key_unknown": 50}


async def test_promotion_of_a_model_nobody_asked_for_moves_on(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running) as opened:
        like = opened.directive()
        await opened.tell(
            ModelDirective(
                "plant-1", 150, AGENT, like.issued_at, like.expires_at, "m", "1", "x", "0" * 64
            )
        )
        assert opened.applier.journal.handled_position == 150


# --- the beginning of the stream ----------------------------------------------------------


class Beginning(HttpTransport):
    """A server that tells what it is given, and remembers from where it was asked to go on."""

    def __init__(self, *told: list[StreamMessage]) -> None:
        self.told = list(told)
        self.asked: list[int | None] = []

    @property
    def address(self) -> str:
        return "a test"

    async def receive_directives(self, wanted: Wanted) -> AsyncIterator[StreamMessage]:
        self.asked.append(wanted.after)
        for message in self.told.pop(0) if self.told else []:
            yield message
        if not self.told:
            await asyncio.Event().wait()


async def received(opened: Site, *connections: list[StreamMessage]) -> list[int | None]:
    """Let the server be connected to as often as it has something to tell."""
    server = Beginning(*connections)
    stream = DirectiveStream(AGENT, server, opened.applier, Settings(retry_delay_s_min=0.001))
    stream.configure(opened.configuration.directing.keys, {})
    running = asyncio.create_task(stream.run())
    async with asyncio.timeout(30):
        while server.told:
            assert not running.done(), running
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    await end_all((running,))
    return server.asked


def ready(position: int) -> StreamMessage:
    return StreamMessage(position, "")


def message(directive: SetpointDirective) -> StreamMessage:
    return StreamMessage(directive.position, signed(directive))


async def test_what_was_desired_before_the_first_connect_is_applied_once(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running) as opened:
        before = opened.directive(25.0)
        # Cut off before the stream had begun: all of it is told again.
        asked = await received(
            opened, [message(before)], [message(before), ready(before.position + 50)], []
        )
        assert asked == [None, None, before.position + 50]
        assert await running.value() == pytest.approx(25.0)
        assert opened.applier.journal.counts() == {"applied": 1}
        assert [one.mutation for one in opened.reports()] == ["reportSetpoint"]


async def test_what_was_desired_too_long_before_the_first_connect_is_refused_as_stale(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running) as opened:
        now = datetime.now(UTC)
        old = opened.directive(issued_at=now - timedelta(seconds=200))
        ended = opened.directive(
            issued_at=now - timedelta(days=2), expires_at=now - timedelta(days=1)
        )
        await received(opened, [message(old), message(ended), ready(200)], [])
        assert opened.codes() == ["directive.stale", "directive.expired"]
        assert await running.value() == 20.0


# --- the watchdog -------------------------------------------------------------------------

SAFE = "{value: 15, link_lost_s: 10, twin_lost_s: 3}"


class Link:
    """When the server was last heard of, on the site's clock."""

    def __init__(self, opened: Site) -> None:
        self.alive_s = opened.now_s
        self.watchdog = Watchdog(
            opened.applier, opened.values, lambda: self.alive_s, lambda: opened.now_s
        )


async def test_lost_link_returns_to_the_safe_value_once(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running, safe=SAFE) as opened:
        link = Link(opened)
        await opened.tell(opened.directive(25.0))
        opened.pass_time(9.0)
        opened.live(flow=25.0, pressure=2.0)
        await link.watchdog.look()
        assert await running.value() == pytest.approx(25.0)
        opened.pass_time(1.5)
        opened.live(flow=25.0, pressure=2.0)
        await link.watchdog.look()
        assert await running.value() == pytest.approx(15.0)
        assert opened.codes() == ["watchdog.link_lost"]
        assert opened.applier.journal.latest(1)[0].outcome == RETURNED
        await running.setpoint.write_value(18.0)  # an operator takes over on site
        opened.pass_time(60)
        await link.watchdog.look()
        assert await running.value() == 18.0


async def test_lost_twin_returns_to_the_safe_value(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running, safe=SAFE) as opened:
        link = Link(opened)
        await opened.tell(opened.directive(25.0))
        opened.pass_time(3.1)
        opened.live(flow=25.0)  # the pressure, on which it depends, is not heard of
        await link.watchdog.look()
        assert await running.value() == pytest.approx(15.0)
        assert opened.codes() == ["watchdog.twin_lost"]


async def test_what_the_agent_never_set_is_left_alone(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running, safe=SAFE) as opened:
        link = Link(opened)
        opened.pass_time(100)
        await link.watchdog.look()
        assert await running.value() == 20.0


async def test_watchdog_looks_after_what_was_set_before_a_restart(
    running: Device, tmp_path: Path
) -> None:
    async with site(tmp_path, running, safe=SAFE) as opened:
        await opened.tell(opened.directive(25.0))
    async with site(tmp_path, running, safe=SAFE) as again:
        link = Link(again)
        again.pass_time(11)
        await link.watchdog.look()
        assert await running.value() == pytest.approx(15.0)


async def test_kill_switch_stops_the_watchdog_too(running: Device, tmp_path: Path) -> None:
    async with site(tmp_path, running, safe=SAFE) as opened:
        link = Link(opened)
        await opened.tell(opened.directive(25.0))
        opened.kill_switch.touch()
        opened.pass_time(11)
        await link.watchdog.look()
        assert await running.value() == pytest.approx(25.0)
