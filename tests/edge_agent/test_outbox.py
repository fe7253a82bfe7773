"""The outbox: what is in it survives, and nothing else."""

from __future__ import annotations

import multiprocessing
import sqlite3
import uuid
from pathlib import Path

import pytest

from domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from edge_agent.outbox import Outbox, PendingFrame, Rejection, inspect_outbox, open_outbox, schema
from edge_agent.outbox import faults as outbox_faults
from edge_agent.outbox import file as outbox_file
from edge_agent.readings import Position, RowFault

BYTES_MAX = 10_000


def frame(sequence: int, source: str = "pump-1", size: int = 100) -> PendingFrame:
    return PendingFrame(sequence, uuid.UUID(int=sequence), source, bytes(size))


def position(row: int, part: int = 0) -> Position:
    return Position(part, row, row * 10)


def fault(row: int, code: str = "row.time_unreadable", channel: str = "") -> RowFault:
    return RowFault(0, row, code, "cannot be told", f"text of row {row}", channel)


def adopt(outbox: Outbox, *sources: str) -> None:
    outbox.adopt("agent-1", {source: ["a.csv", "b.csv"] for source in sources or ("pump-1",)})


def put_many(outbox: Outbox, count: int) -> None:
    for _ in range(count):
        sequence = outbox.next_sequence
        outbox.put(frame(sequence, size=4_000), position(sequence))


def sequences(outbox: Outbox, frames_max: int = 1_000, bytes_max: int = 10**9) -> list[int]:
    return [pending.sequence for pending in outbox.pending(frames_max, bytes_max)]


def test_frame_position_and_sequence_are_found_again_after_reopening(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        assert outbox.source_state("pump-1").position is None
        outbox.put(frame(1), position(4))
        outbox.put(frame(2), position(9))
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        assert outbox.pending(10, 10**6) == [frame(1), frame(2)]
        assert outbox.source_state("pump-1").position == position(9)
        assert outbox.next_sequence == 3


def test_acknowledged_frames_go_and_the_last_sequence_stays(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        for sequence in (1, 2, 3):
            outbox.put(frame(sequence), position(sequence))
        outbox.acknowledge([1, 3], position=77)
        assert sequences(outbox) == [2]
        outbox.acknowledge([2], position=70)
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        status = outbox.status()
        assert (status.acknowledged_sequence, status.acknowledged_position) == (3, 77)
        assert (status.pending_frames, status.pending_bytes) == (0, 0)
        assert outbox.next_sequence == 4


def test_sequence_numbers_have_no_gap_and_no_repetition(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        outbox.put(frame(1), position(1))
        for wrong in (1, 3):
            with pytest.raises(ValueError, match="does not follow"):
                outbox.put(frame(wrong), position(2))
        assert sequences(outbox) == [1]


def test_full_outbox_refuses_and_stays_as_it_is(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 250) as outbox:
        adopt(outbox)
        outbox.put(frame(1), position(1))
        outbox.put(frame(2), position(2))
        with pytest.raises(Unavailable) as full:
            outbox.put(frame(3), position(3))
        assert full.value.code == "outbox.full"
        assert outbox.source_state("pump-1").position == position(2)
        outbox.acknowledge([1], 1)
        outbox.put(frame(3), position(3))
        assert sequences(outbox) == [2, 3]


def test_full_disk_refuses_and_stays_as_it_is(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 10**9) as outbox:
        adopt(outbox)
        outbox.store.connection.execute("PRAGMA max_page_count = 40")
        with pytest.raises(Unavailable) as full:
            put_many(outbox, 1_000)
        assert full.value.code == "outbox.disk_full"
        last = outbox.last_sequence
        assert sequences(outbox) == list(range(1, last + 1))
        assert outbox.source_state("pump-1").position == position(last)
        outbox.acknowledge([1, 2], 1)
        outbox.put(frame(last + 1), position(last + 1))


def test_frames_put_aside_count_against_the_bound(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 250) as outbox:
        adopt(outbox)
        outbox.put(frame(1), position(1))
        outbox.put(frame(2), position(2))
        outbox.reject([Rejection(1, "unit.unknown", "")])
        assert not outbox.has_room("pump-1", 100)


def test_source_that_filled_its_share_leaves_the_others_theirs(tmp_path: Path) -> None:
    with open_outbox(tmp_path, 400) as outbox:
        adopt(outbox, "a", "b")
        outbox.put(frame(1, "a"), position(1))
        outbox.put(frame(2, "a"), position(2))
        assert not outbox.has_room("a", 100)
        assert outbox.has_room("b", 100)


def test_batch_is_bounded_by_frames_and_bytes_and_never_empty(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        for sequence in range(1, 6):
            outbox.put(frame(sequence), position(sequence))
        assert sequences(outbox, frames_max=2) == [1, 2]
        assert sequences(outbox, bytes_max=3 * 124) == [1, 2, 3]
        assert sequences(outbox, bytes_max=3 * 124 - 1) == [1, 2]
        assert sequences(outbox, bytes_max=1) == [1]


def test_held_source_does_not_block_the_others(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox, "a", "b", "c")
        for sequence, source in enumerate("aabcab", 1):
            outbox.put(frame(sequence, source), position(sequence))
        held = outbox.pending(2, 10**6, held={"a"})
        assert [pending.sequence for pending in held] == [3, 4]


def test_rejected_frames_are_kept_by_code_and_queued_again(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        for sequence in (1, 2, 3):
            outbox.put(frame(sequence), position(sequence))
        outbox.reject([Rejection(1, "unit.unknown", "no"), Rejection(2, "asset.retired", "no")])
        assert sequences(outbox) == [3]
        assert outbox.rejected_counts() == {"asset.retired": 1, "unit.unknown": 1}
        with inspect_outbox(tmp_path) as beside:
            assert beside.retry_rejected("unit.unknown") == 1
        assert sequences(outbox) == [1, 3]
        assert outbox.retry_rejected() == 1
        assert outbox.pending(10, 10**6) == [frame(1), frame(2), frame(3)]
        assert outbox.rejected_counts() == {}


def test_faults_are_counted_once_however_often_their_rows_are_read(tmp_path: Path) -> None:
    faults = [fault(3), fault(4, "cell.empty", "flow"), fault(5, "cell.empty", "flow")]
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        assert outbox.note("pump-1", 0, 5, faults) == faults
        assert outbox.note("pump-1", 0, 5, faults) == []
        assert outbox.note("pump-1", 0, 8, [*faults, fault(7)]) == [fault(7)]
        status = outbox.status()
        assert status.refused_row_count == 2
        assert status.sources[0].fault_counts == {
            "flow: cell.empty": 2,
            "row.time_unreadable": 2,
        }
        assert outbox.refused_rows(10) == [
            ("pump-1", "a.csv", 7, "row.time_unreadable", "cannot be told", "text of row 7"),
            ("pump-1", "a.csv", 3, "row.time_unreadable", "cannot be told", "text of row 3"),
        ]


def test_refused_rows_are_kept_up_to_a_bound_and_counted_beyond_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_faults, "REFUSED_ROWS_MAX", 5)
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        for row in range(10):
            outbox.note("pump-1", 0, row, [fault(row)])
        assert [refused[2] for refused in outbox.refused_rows(100)] == [9, 8, 7, 6, 5]
        assert outbox.status().refused_row_count == 10


def test_second_agent_on_the_same_state_folder_is_told(tmp_path: Path) -> None:
    with (
        open_outbox(tmp_path, BYTES_MAX),
        pytest.raises(Conflict) as refused,
        open_outbox(tmp_path, BYTES_MAX),
    ):
        pass
    assert refused.value.code == "agent.already_running"


def test_state_of_another_agent_is_refused(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        with pytest.raises(Conflict) as refused:
            outbox.adopt("agent-2", {})
        assert refused.value.code == "agent.other_name"


def test_files_may_be_appended_but_not_exchanged_before_the_position(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        outbox.adopt("agent-1", {"pump-1": ["z.csv"]})
        adopt(outbox)
        outbox.put(frame(1), position(3, part=1))
        outbox.end("pump-1")
        outbox.adopt("agent-1", {"pump-1": ["a.csv", "b.csv", "c.csv"]})
        assert not outbox.source_state("pump-1").ended
        with pytest.raises(InvalidInput) as refused:
            outbox.adopt("agent-1", {"pump-1": ["a.csv", "c.csv"]})
        assert refused.value.code == "source.parts_changed"
        assert outbox.source_state("pump-1").position == position(3, part=1)


def test_anchor_of_a_replay_is_kept(tmp_path: Path) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        outbox.anchor("pump-1", 500, 100)
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        state = outbox.source_state("pump-1")
        assert (state.anchor_ns, state.first_ns) == (500, 100)


def test_damaged_outbox_is_told(tmp_path: Path) -> None:
    (tmp_path / outbox_file.FILE_NAME).write_bytes(b"not a database" * 1000)
    with pytest.raises(InvalidInput) as refused, open_outbox(tmp_path, BYTES_MAX):
        pass
    assert refused.value.code == "outbox.damaged"


def test_outbox_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / outbox_file.FILE_NAME
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(InvalidInput) as refused, open_outbox(tmp_path, BYTES_MAX):
        pass
    assert refused.value.code == "outbox.schema_newer"


def test_older_outbox_is_brought_up_to_date_with_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        outbox.put(frame(1), position(1))
    newer = (*schema.MIGRATIONS, "ALTER TABLE source ADD COLUMN colour TEXT;")
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    with pytest.raises(InvalidInput) as refused, inspect_outbox(tmp_path):
        pass
    assert refused.value.code == "outbox.schema_older"
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        assert outbox.pending(10, 10**6) == [frame(1)]
    with inspect_outbox(tmp_path) as outbox:
        assert outbox.last_sequence == 1


def test_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
    broken = (*schema.MIGRATIONS, "ALTER TABLE source ADD COLUMN colour TEXT; NONSENSE;")
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", broken)
        with pytest.raises(InvalidInput), open_outbox(tmp_path, BYTES_MAX):
            pass
    with open_outbox(tmp_path, BYTES_MAX) as outbox:
        adopt(outbox)
        outbox.put(frame(1), position(1))


def test_state_folder_where_no_agent_ran_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused, inspect_outbox(tmp_path / "none"):
        pass
    assert refused.value.code == "outbox.missing"


def _put_for_ever(folder: str) -> None:
    with open_outbox(Path(folder), 10**9) as outbox:
        adopt(outbox)
        while True:
            sequence = outbox.next_sequence
            outbox.put(frame(sequence, size=5_000), position(sequence))


@pytest.mark.slow
def test_outbox_of_a_killed_process_holds_whole_commits_and_no_gap(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    last = 0
    for kill_after in (5, 40, 120):
        process = spawning.Process(target=_put_for_ever, args=(str(tmp_path),))
        process.start()
        while True:
            process.join(0.02)
            assert process.exitcode is None
            if not (tmp_path / outbox_file.FILE_NAME).exists():
                continue
            try:
                with inspect_outbox(tmp_path) as beside:
                    if beside.last_sequence >= last + kill_after:
                        break
            except InvalidInput:
                continue  # it is just being created
        process.kill()
        process.join()
        process.close()
        with open_outbox(tmp_path, 10**9) as outbox:
            adopt(outbox)
            last = outbox.last_sequence
            assert sequences(outbox, frames_max=10**6) == list(range(1, last + 1))
            assert outbox.source_state("pump-1").position == position(last)
