"""What reading and following need: where a stream, or the whole log, stood at a moment.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    # Versions rise with positions, and times of recording never fall: both are bisected.
    """
    create function stream_version_at(of_ledger smallint, of_stream text, at_position bigint)
    returns bigint language plpgsql stable as $$
    declare
        low bigint := 0;
        high bigint;
        middle bigint;
        middle_position bigint;
    begin
        select version into high from stream_head
        where ledger_id = of_ledger and stream = of_stream;
        while low < coalesce(high, 0) loop
            middle := (low + high + 1) / 2;
            select position into middle_position from event
            where ledger_id = of_ledger and stream = of_stream and version = middle;
            if middle_position <= at_position then
                low := middle;
            else
                high := middle - 1;
            end if;
        end loop;
        return low;
    end $$
    """,
    """
    comment on function stream_version_at
        is 'version of a stream as of a position of its ledger, 0 before its first event'
    """,
    """
    create function position_recorded_by(of_ledger smallint, at_time timestamptz)
    returns bigint language plpgsql stable as $$
    declare
        low bigint := 0;
        high bigint;
        middle bigint;
        middle_time timestamptz;
    begin
        select position into high from ledger where ledger_id = of_ledger;
        while low < coalesce(high, 0) loop
            middle := (low + high + 1) / 2;
            select recorded_at into middle_time from event
            where ledger_id = of_ledger and position = middle;
            if middle_time <= at_time then
                low := middle;
            else
                high := middle - 1;
            end if;
        end loop;
        return low;
    end $$
    """,
    """
    comment on function position_recorded_by
        is 'position of the last event that was recorded by a time, 0 before the first'
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
