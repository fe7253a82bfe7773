"""What live sources keep: in one commit, within bounds, and what goes is a declared loss."""

from __future__ import annotations

import logging
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.asset_types import asset_type
from domain.errors import InvalidInput, Unavailable
from domain.frame_checks import header_for
from domain.frame_encoding import encode
from domain.frames import build_frame
from edge_agent.outbox import (
    FROM_POSITION,
    TO_POSITION,
    AgentCommand,
    KeptWindow,
    Loss,
    NewFrame,
    Outbox,
    Priority,
    Rejection,
    inspect_outbox,
    open_outbox,
    schema,
)
from edge_agent.outbox import commands as outbox_commands
from edge_agent.outbox import file as outbox_file
from edge_agent.outbox import losses as outbox_losses
from edge_agent.outbox.recent_frames import RecentFrames
from edge_agent.outbox.store import Store
from edge_agent.readings import Position

S = 1_000_000_000


def frame(
    sequence: int, size: int = 100, priority: Priority = Priority.LIVE, readings: int = 10
) -> NewFrame:
    from_ns = sequence * S
    return NewFrame(
        sequence, uuid.UUID(int=sequence), bytes(size), priority, from_ns, from_ns + S, readings
    )


def real_frame(sequence: int) -> NewFrame:
    header = header_for(asset_type("skab-pump-loop"), "pump-1", "agent-1", [("flow", "l/min")])
    clock = np.arange(4, dtype=np.int64) + sequence * S
    made = build_frame(header, sequence, [clock], [np.full(4, 30.0)], [None])
    return NewFrame(
        sequence,
        uuid.UUID(int=sequence),
        encode(made),
        Priority.LIVE,
        sequence * S,
        sequence * S,
        4,
    )


def adopt(outbox: Outbox, *live: str, **ranks: int) -> None:
    names = live or ("pump-1",)
    outbox.adopt("agent-1", {}, live={name: name for name in names}, drop_ranks=ranks)


def put(
    outbox: Outbox,
    source: str = "pump-1",
    size: int = 100,
    priority: Priority = Priority.LIVE,
    commands: tuple[AgentCommand, ...] = (),
) -> int:
    sequence = outbox.next_sequence
    outbox.put_window(
        source, [frame(sequence, size, priority)], Position(0, sequence, sequence), commands
    )
    return sequence


def sequences(outbox: Outbox, **changes: Any) -> list[int]:
    found = outbox.pending(1_000, 10**9, **changes)
    return [one.sequence for one in found]


def command(key: str, **told: object) -> AgentCommand:
    return AgentCommand("assessHealth", {"assetId": "pump-1", **told}, key)


def losses(outbox: Outbox) -> dict[tuple[str, str], tuple[int, int, int | None]]:
    return {
        (source, reason): (from_ns, to_ns, count)
        for source, reason, from_ns, to_ns, count in outbox.store.rows(
            "SELECT source, reason, from_ns, to_ns, count FROM loss ORDER BY number"
        )
    }


# --- one commit ---------------------------------------------------------------------------


def test_windows_of_many_sources_are_one_commit(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**6) as outbox:
        adopt(outbox, "a", "b")
        outbox.put_windows(
            [
                KeptWindow("a", [frame(1), frame(2)], Position(0, 1, 11), [command("k1")]),
                KeptWindow("b", [frame(3)], Position(0, 1, 12), (), [Loss("queue.overflow", 1, 2)]),
                KeptWindow("b", (), Position(0, 2, 13)),
            ]
        )
        assert sequences(outbox) == [1, 2, 3]
        assert [one.command.idempotency_key for one in outbox.pending_commands(10, 10**6)] == ["k1"]
        assert outbox.source_state("b").position == Position(0, 2, 13)
        assert losses(outbox) == {("b", "queue.overflow"): (1, 2, None)}


def test_commit_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**9) as outbox:
        adopt(outbox)
        put(outbox)
        outbox.store.connection.execute("PRAGMA max_page_count = 60")
        with pytest.raises(Unavailable) as full:
            outbox.put_window(
                "pump-1", [frame(2, 10**6)], Position(0, 9, 9), [command("k")], [Loss("x", 1, 2)]
            )
        assert full.value.code == "outbox.disk_full"
        assert (sequences(outbox), outbox.next_sequence) == ([1], 2)
        assert outbox.pending_commands(10, 10**6) == []
        assert losses(outbox) == {}
        assert outbox.source_state("pump-1").position == Position(0, 1, 1)
        assert outbox.stored_bytes() == 100


def test_loss_that_cannot_be_written_is_written_with_what_comes_next(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**9) as outbox:
        adopt(outbox)
        with sqlite3.connect(tmp_path / outbox_file.FILE_NAME) as elsewhere:
            outbox.store.connection.execute("PRAGMA busy_timeout = 1")
            elsewhere.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError):
                outbox.declare_loss("pump-1", "outbox.disk_full", 1, 2, 5)
        elsewhere.close()
        for from_ns in (10, 20):
            outbox.losses.hold("pump-1", Loss("outbox.disk_full", from_ns, from_ns + 5, 7))
        put(outbox)
        assert losses(outbox) == {("pump-1", "outbox.disk_full"): (10, 25, 14)}
        put(outbox)
        assert losses(outbox) == {("pump-1", "outbox.disk_full"): (10, 25, 14)}


# --- what goes ----------------------------------------------------------------------------


def test_oldest_waveforms_go_first_then_live_frames_and_never_alerts(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 1_000) as outbox:
        adopt(outbox)
        alert = put(outbox, commands=(command("k"),))
        live = [put(outbox) for _ in range(4)]
        waves = [put(outbox, priority=Priority.WAVEFORM) for _ in range(5)]
        assert sequences(outbox) == [alert, *live, *waves]
        put(outbox, size=150)
        assert sequences(outbox) == [alert, *live, *waves[2:], 11]
        put(outbox, size=500)
        assert sequences(outbox) == [alert, *live[2:], 11, 12]
        put(outbox, size=800)
        assert sequences(outbox) == [alert, 13]
        told = outbox.status()
        assert told.lost_counts == {"outbox.full": 110}
        assert losses(outbox) == {("pump-1", "outbox.full"): (2 * S, 13 * S, 110)}
        assert outbox.stored_bytes() == 900


def test_sources_lose_in_the_order_that_is_declared(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 600) as outbox:
        adopt(outbox, "a", "b", "c", b=2, c=1)
        for source in "abcabc":
            put(outbox, source)
        assert sequences(outbox) == [1, 2, 3, 4, 5, 6]
        put(outbox, "a", 150)
        assert sequences(outbox) == [1, 3, 4, 6, 7]
        put(outbox, "a", 150)
        assert sequences(outbox) == [1, 4, 6, 7, 8]
        assert outbox.status().lost_counts == {"outbox.full": 30}


def test_frames_being_sent_are_not_dropped(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 300) as outbox:
        adopt(outbox)
        for _ in range(3):
            put(outbox)
        with outbox.sending(outbox.pending(1, 10**6)):
            put(outbox)
        assert sequences(outbox) == [1, 3, 4]


def test_recordings_beside_live_sources_wait_and_lose_nothing(tmp_path: Path) -> None:
    from edge_agent.outbox import PendingFrame

    with open_outbox(tmp_path, 400) as outbox:
        outbox.adopt("agent-1", {"csv-1": ["a.csv"]}, live={"pump-1": "pump-1"})
        for _ in range(2):
            sequence = outbox.next_sequence
            recorded = PendingFrame(sequence, uuid.UUID(int=sequence), "csv-1", bytes(100))
            outbox.put(recorded, Position(0, sequence, sequence))
        for _ in range(5):
            put(outbox)
        assert sequences(outbox) == [1, 2, 6, 7]
        with pytest.raises(Unavailable) as full:
            outbox.put(PendingFrame(8, uuid.UUID(int=8), "csv-1", bytes(100)), Position(0, 9, 9))
        assert full.value.code == "outbox.full"


def test_rejected_live_frames_make_room_before_good_ones(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 300) as outbox:
        adopt(outbox)
        for _ in range(3):
            put(outbox)
        outbox.reject([Rejection(2, "unit.unknown", "")])
        put(outbox)
        assert sequences(outbox) == [1, 3, 4]
        assert outbox.rejected_counts() == {}
        assert outbox.status().lost_counts == {"outbox.full": 10}


def outbox_with_clock(folder: Path, age_s_max: float) -> tuple[Any, list[float]]:
    now_s = [0.0]
    opened = outbox_file.locked_store(folder)
    store, reservation, _ = opened.__enter__()
    outbox = Outbox(
        store, 10**6, reservation=reservation, age_s_max=age_s_max, clock=lambda: now_s[0]
    )
    return (opened, outbox), now_s


def test_live_frames_expire_by_the_time_the_agent_runs_and_alerts_do_not(tmp_path: Path) -> None:
    (opened, outbox), now_s = outbox_with_clock(tmp_path, 100)
    adopt(outbox)
    put(outbox)
    put(outbox, commands=(command("k"),))
    now_s[0] = 60.0
    put(outbox)
    outbox.tidy()
    assert sequences(outbox) == [1, 2, 3]
    opened.__exit__(None, None, None)
    (opened, again), now_s = outbox_with_clock(tmp_path, 100)  # it was off for ever so long
    adopt(again)
    again.tidy()
    assert sequences(again) == [1, 2, 3]
    now_s[0] = 41.0
    again.tidy()
    assert sequences(again) == [2, 3]
    assert losses(again) == {("pump-1", "outbox.expired"): (1 * S, 2 * S, 10)}
    opened.__exit__(None, None, None)


# --- losses -------------------------------------------------------------------------------


def test_losses_that_follow_each_other_are_told_as_one_and_reported(tmp_path: Path) -> None:
    (opened, outbox), now_s = outbox_with_clock(tmp_path, 100)
    adopt(outbox)
    for second in range(5):
        outbox.declare_loss("pump-1", "outbox.full", second * S, (second + 1) * S, 10)
    outbox.declare_loss("pump-1", "connection.down", 50 * S, 60 * S)
    outbox.declare_loss("pump-1", "connection.down", 90 * S, 95 * S)
    outbox.tidy()
    assert outbox.pending_commands(10, 10**6) == [], "they may still grow"
    now_s[0] = outbox_losses.SETTLED_S
    outbox.tidy()
    told = [one.command for one in outbox.pending_commands(10, 10**6)]
    assert [one.mutation for one in told] == ["reportReadingsLost"] * 3
    assert told[0].input == {
        "assetId": "pump-1",
        "source": "pump-1",
        "reason": "outbox.full",
        "since": "1970-01-01T00:00:00.000000+00:00",
        "until": "1970-01-01T00:00:05.000000+00:00",
        "readingCount": 50,
    }
    assert [one.input["readingCount"] for one in told[1:]] == [None, None]
    assert len({one.idempotency_key for one in told}) == 3
    outbox.tidy()
    assert len(outbox.pending_commands(10, 10**6)) == 3
    status = outbox.status()
    assert status.lost_counts == {"connection.down": 0, "outbox.full": 50}
    assert status.loss_counts == {"connection.down": 2, "outbox.full": 5}
    opened.__exit__(None, None, None)


def test_losses_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_losses, "OPEN_LOSSES_MAX", 5)
    with open_outbox(tmp_path, 10**6) as outbox:
        adopt(outbox)
        for number in range(50):
            outbox.declare_loss("pump-1", "connection.down", number * 100 * S, number * 100 * S + S)
        assert outbox.store.value("SELECT count(*) FROM loss") == 5
        assert outbox.store.value("SELECT max(to_ns) FROM loss") == 4_900 * S + S
        assert outbox.status().loss_counts == {"connection.down": 50}


# --- commands -----------------------------------------------------------------------------


def test_command_waits_for_the_positions_of_its_frames(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**6) as outbox:
        adopt(outbox)
        told = command("k", inputFromPosition=FROM_POSITION, nested=[{"to": TO_POSITION}])
        outbox.put_window("pump-1", [frame(1), frame(2)], None, [told, command("free")])
        assert [one.command.idempotency_key for one in outbox.pending_commands(9, 10**6)] == [
            "free"
        ]
        outbox.acknowledge([2], 41, {2: 41})
        assert len(outbox.pending_commands(9, 10**6)) == 1
        outbox.acknowledge([1], 40, {1: 40})
        first = outbox.pending_commands(9, 10**6)[0].command
        assert first.input == {
            "assetId": "pump-1",
            "inputFromPosition": 40,
            "nested": [{"to": 41}],
        }


def resting(key: str, from_ns: int) -> AgentCommand:
    given = {"from": FROM_POSITION, "to": TO_POSITION}
    return AgentCommand("assessHealth", given, key, input_from_ns=from_ns)


def told_positions(outbox: Outbox) -> list[tuple[object, object]]:
    return [
        (one.command.input["from"], one.command.input["to"])
        for one in outbox.pending_commands(9, 10**6)
    ]


def test_command_tells_of_all_frames_that_it_rests_on(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**6) as outbox:
        adopt(outbox)
        outbox.watch_inputs({"pump-1": 100 * S})
        for number in range(1, 6):
            outbox.put_window("pump-1", [frame(number)])
        outbox.put_window("pump-2", [frame(6)])
        outbox.acknowledge([1, 2, 3], 33, {1: 31, 2: 32, 3: 33})
        # Frame n reaches from second n to n + 1.
        outbox.put_window("pump-1", [frame(7)], None, [resting("acknowledged", 3 * S)])
        outbox.put_window("pump-1", [frame(8)], None, [resting("waiting", 6 * S)])
        outbox.put_window("pump-1", [frame(9)], None, [resting("alone", 99 * S)])
        outbox.acknowledge([4, 5, 6, 7], 47, {4: 44, 5: 45, 6: 46, 7: 47})
        assert told_positions(outbox) == [(32, 47)], "frame 2 reaches until second 3"
        outbox.acknowledge([8, 9], 49, {8: 48, 9: 49})
        assert told_positions(outbox) == [(32, 47), (45, 48), (49, 49)]


def test_frames_that_a_command_rests_on_are_dropped_no_more(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 1_000) as outbox:
        outbox.adopt("agent-1", {}, live={"pump-1": "pump-1"})
        outbox.watch_inputs({"pump-1": 100 * S})
        for number in range(1, 5):
            outbox.put_window("pump-1", [frame(number)])
        outbox.put_window("pump-1", [frame(5)], None, [resting("k", 4 * S)])
        for number in range(6, 30):
            outbox.put_window("pump-1", [frame(number)])
        kept = sequences(outbox)
        assert set(kept) >= {3, 4, 5}
        assert not {1, 2} & set(kept), "what nobody rests on has gone"
        outbox.acknowledge([3, 4, 5], 15, {3: 13, 4: 14, 5: 15})
        assert told_positions(outbox) == [(13, 15)]


def test_what_was_dropped_before_is_no_part_of_a_command_s_input(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 300) as outbox:
        outbox.adopt("agent-1", {}, live={"pump-1": "pump-1"})
        outbox.watch_inputs({"pump-1": 100 * S})
        for number in range(1, 6):
            outbox.put_window("pump-1", [frame(number)])
        assert sequences(outbox) == [3, 4, 5]
        outbox.put_window("pump-1", [frame(6)], None, [resting("k", 0)])
        there = sequences(outbox)
        outbox.acknowledge(there, 20, {number: 10 + number for number in there})
        assert told_positions(outbox) == [(10 + there[0], 16)]


def test_positions_of_frames_that_went_out_of_order_are_told_in_order(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**6) as outbox:
        adopt(outbox)
        outbox.watch_inputs({"pump-1": 100 * S})
        outbox.put_window("pump-1", [frame(1)])
        outbox.put_window("pump-1", [frame(2)], None, [resting("k", S)])
        outbox.acknowledge([2], 7, {2: 7})
        outbox.acknowledge([1], 9, {1: 9})
        assert told_positions(outbox) == [(7, 9)]


def test_what_is_remembered_of_frames_is_bounded_and_survives_a_failed_commit() -> None:
    recent = RecentFrames()
    recent.watch({"pump-1": 10 * S})
    for number in range(1, 3_001):
        recent.put("pump-2" if number % 2 else "pump-1", [frame(number)])
        recent.stored({number: number + 7})
    assert recent.since("pump-2", 0) == [], "no model judges it"
    kept = recent.since("pump-1", 0)
    assert kept == [2_990, 2_992, 2_994, 2_996, 2_998, 3_000]
    assert [recent.position(number) for number in kept] == [n + 7 for n in kept]
    assert len(recent._positions) <= 1_000 + 2 * len(kept) + 1
    recent.put("pump-1", [frame(2_998)])
    assert recent.since("pump-1", 2_996 * S) == [2_996, 2_998], "numbers given again"


def test_commands_are_done_rejected_deferred_and_queued_again(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**6) as outbox:
        adopt(outbox)
        outbox.put_commands([command(key) for key in "abcd"])
        outbox.put_commands([command("a")])
        numbers = [one.number for one in outbox.pending_commands(9, 10**6)]
        outbox.settle_commands(
            numbers[:1], [Rejection(numbers[1], "asset.retired", "no")], numbers[2:3]
        )
        keys = [one.command.idempotency_key for one in outbox.pending_commands(9, 10**6)]
        assert keys == ["d", "c"]
        assert outbox.status().rejected_command_counts == {"asset.retired": 1}
        with inspect_outbox(tmp_path) as beside:
            assert beside.retry_rejected() == 1
        keys = [one.command.idempotency_key for one in outbox.pending_commands(9, 10**6)]
        assert keys == ["d", "c", "b"]


def test_commands_are_bounded_and_what_goes_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_commands, "COMMANDS_MAX", 3)
    with open_outbox(tmp_path, 10**6) as outbox:
        adopt(outbox)
        for key in "abcde":
            put(outbox, commands=(command(key),))
        keys = [one.command.idempotency_key for one in outbox.pending_commands(9, 10**6)]
        assert keys == ["c", "d", "e"]
        assert outbox.status().lost_counts == {"outbox.commands_full": 2}


# --- what is fresh ------------------------------------------------------------------------


def test_fresh_frames_go_first_and_leave_a_share_to_the_old(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**6) as outbox:
        adopt(outbox)
        for _ in range(20):
            put(outbox)
        assert [f.sequence for f in outbox.pending(8, 10**6, fresh_from=11)] == [
            *(1, 2),
            *range(11, 17),
        ]
        assert [f.sequence for f in outbox.pending(8, 10**6, fresh_from=19)] == [
            *range(1, 7),
            *(19, 20),
        ]
        assert [f.sequence for f in outbox.pending(8, 10**6, fresh_from=1)] == list(range(1, 9))
        assert [f.sequence for f in outbox.pending(8, 10**6, fresh_from=21)] == list(range(1, 9))
        held = outbox.pending(8, 10**6, {"pump-1"}, fresh_from=11)
        assert held == []


# --- damage -------------------------------------------------------------------------------


def damage(file: Path, at: float, length: int = 4_096) -> None:
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(int(size * at) // 4096 * 4096)
        opened.write(b"\xff" * length)


def filled(folder: Path, count: int = 60) -> None:
    with open_outbox(folder, 10**9) as outbox:
        adopt(outbox)
        for sequence in range(1, count + 1):
            outbox.put_window("pump-1", [real_frame(sequence)], Position(0, sequence, sequence))
        outbox.put_commands([command("k")])
        outbox.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.95])
def test_damaged_file_is_put_aside_and_what_can_be_read_of_it_is_saved(
    tmp_path: Path, at: float, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    damage(tmp_path / outbox_file.FILE_NAME, at)
    with caplog.at_level(logging.ERROR), open_outbox(tmp_path, 10**9) as outbox:
        adopt(outbox)
        assert outbox.next_sequence > 60 + outbox_file.RESERVED_AT_ONCE - 60
        saved = sequences(outbox)
        assert set(saved) <= set(range(1, 61))
        put(outbox)
        told = outbox.status()
        assert told.loss_counts == {"outbox.damaged": 1}
    aside = list(tmp_path.glob("damaged-*"))
    assert aside, "the damaged file is kept"
    assert "cannot be read" in caplog.text
    with open_outbox(tmp_path, 10**9) as outbox:
        assert sequences(outbox)[:-1] == saved, "once"


def test_half_of_a_file_is_told_and_numbers_are_not_given_again(tmp_path: Path) -> None:
    filled(tmp_path)
    file = tmp_path / outbox_file.FILE_NAME
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])
    with open_outbox(tmp_path, 10**9) as outbox:
        adopt(outbox)
        assert outbox.next_sequence > 60
        assert outbox.status().loss_counts == {"outbox.damaged": 1}


def test_file_that_is_gone_does_not_give_numbers_again(tmp_path: Path) -> None:
    filled(tmp_path)
    for name in ("", "-wal", "-shm"):
        (tmp_path / f"{outbox_file.FILE_NAME}{name}").unlink(missing_ok=True)
    with open_outbox(tmp_path, 10**9) as outbox:
        adopt(outbox)
        assert outbox.next_sequence > outbox_file.RESERVED_AT_ONCE


def test_damage_that_is_met_while_running_is_looked_for_at_the_next_start(tmp_path: Path) -> None:
    filled(tmp_path)
    with open_outbox(tmp_path, 10**9) as outbox:
        adopt(outbox)
        file = tmp_path / outbox_file.FILE_NAME
        outbox.store.connection.execute("PRAGMA shrink_memory")
        with file.open("r+b") as opened:
            opened.seek(4_096)
            opened.write(b"\xff" * (file.stat().st_size - 4_096))
        with pytest.raises(InvalidInput) as told:
            sequences(outbox)
        assert told.value.code == "outbox.damaged"
        assert (tmp_path / outbox_file.DAMAGED_NAME).exists()
    with open_outbox(tmp_path, 10**9) as outbox:
        adopt(outbox)
        put(outbox)


# --- older files --------------------------------------------------------------------------


def test_outbox_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    file = tmp_path / outbox_file.FILE_NAME
    old = sqlite3.connect(file)
    old.executescript(schema.MIGRATIONS[0] + "PRAGMA user_version = 1;")
    old.execute("INSERT INTO agent VALUES (1, 'agent-1', 7, 6, 99)")
    old.execute("INSERT INTO source (name, parts, part, row, time_ns) VALUES ('c', '[]', 0, 3, 4)")
    old.execute("INSERT INTO pending VALUES (7, ?, 'c', ?)", (uuid.UUID(int=7).bytes, bytes(50)))
    old.commit()
    old.close()
    with open_outbox(tmp_path, 10**6) as outbox:
        outbox.adopt("agent-1", {"c": []}, live={"pump-1": "pump-1"})
        assert outbox.next_sequence == 8
        put(outbox)
        assert sequences(outbox) == [7, 8]
        outbox.acknowledge([7], 100)
        assert outbox.status().acknowledged_position == 100


def test_store_tells_a_disk_that_cannot_grow(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x", isolation_level=None)
    store = Store(connection)
    store.execute("CREATE TABLE t (b BLOB)")
    connection.execute("PRAGMA max_page_count = 3")
    with pytest.raises(Unavailable) as full, store.transaction():
        store.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert full.value.code == "outbox.disk_full"
    connection.close()
