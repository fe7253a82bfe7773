"""Appending by one message: the head is moved, events are copied, their keys follow.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    # Batches of one ledger queue here, and not at the head's row: who waits at a row goes on with
    # the snapshot from before he waited, and would not see the head that he was built on.
    """
    create function append_begin(
        of_ledger smallint, old_position bigint, old_root bytea, new_position bigint,
        new_recorded_at timestamptz, new_frontier bytea, new_root bytea
    ) returns void language plpgsql as $$
    declare
        ledger_name text;
    begin
        perform pg_advisory_xact_lock(x'68656465'::integer, of_ledger);
        update ledger set position = new_position, recorded_at = new_recorded_at,
            frontier = new_frontier, root = new_root
            where ledger_id = of_ledger and position = old_position and root = old_root
            returning name into ledger_name;
        if not found then
            raise exception 'ledger % does not end where the batch begins', of_ledger
                using errcode = 'LE001';
        end if;
        perform pg_notify('heddle_ledger', ledger_name || ':' || new_position);
    end $$
    """,
    """
    comment on function append_begin is 'moves the head of a ledger from exactly there, or raises '
        'LE001; the events, and append_end, follow in the same transaction'
    """,
    # A plan that was made while a table was small may read all of it for ever. So, whatever
    # statistics say, events are found by position, for their order is asked for, and heads of
    # streams one by one by their key; `offset 0` is what the planner does not look beyond.
    """
    create function append_end(
        of_ledger smallint, old_position bigint, new_position bigint, stream_count integer,
        is_numbered boolean
    ) returns void language plpgsql as $$
    declare
        written integer;
        going_on integer;
        beginning integer := 0;
    begin
        insert into event_identity (event_id, position, ledger_id)
            select event_id, position, ledger_id from event
            where ledger_id = of_ledger and position > old_position and position <= new_position
            order by position;
        get diagnostics written = row_count;
        if written <> new_position - old_position then
            raise exception 'a batch of ledger % has % events, not %', of_ledger, written,
                new_position - old_position using errcode = 'integrity_constraint_violation';
        end if;
        update stream_head h set version = ends.last
            from (
                select s.ctid, batch.last
                from (
                    select stream, min(version) as first, max(version) as last
                    from (
                        select stream, version from event where ledger_id = of_ledger
                            and position > old_position and position <= new_position
                            order by position offset 0
                    ) events
                    group by stream having max(version) - min(version) = count(*) - 1
                ) batch,
                lateral (
                    select ctid from stream_head where ledger_id = of_ledger
                        and stream = batch.stream and version = batch.first - 1 offset 0
                ) s
            ) ends
            where h.ctid = ends.ctid;
        get diagnostics going_on = row_count;
        if going_on < stream_count then
            insert into stream_head (ledger_id, stream, version)
                select of_ledger, stream, max(version)
                from (
                    select stream, version from event where ledger_id = of_ledger
                        and position > old_position and position <= new_position
                        order by position offset 0
                ) events
                group by stream having min(version) = 1 and max(version) = count(*);
            get diagnostics beginning = row_count;
        end if;
        if going_on + beginning <> stream_count then
            raise exception 'a stream of ledger % does not end where the batch goes on',
                of_ledger using errcode = 'integrity_constraint_violation';
        end if;
        if is_numbered then
            insert into source_sequence (sequence, position, ledger_id, source)
                select sequence, position, ledger_id, source from event
                where ledger_id = of_ledger and position > old_position
                    and position <= new_position and source is not null
                order by position;
        end if;
    end $$
    """,
    """
    comment on function append_end is
        'records under which keys the events of a batch stand, and where their streams end now'
    """,
    # A batch of one event is worth neither a COPY nor any array. False: the ledger does not end
    # where the event was to stand, and nothing is written. Hours and seconds: an interval is made
    # of floats, which do not hold all microseconds of 9,999 years.
    """
    create function append_one(
        of_ledger smallint, old_position bigint, old_root bytea, new_recorded_at timestamptz,
        new_frontier bytea, new_root bytea, new_event_id uuid, in_stream text,
        new_version bigint, of_type text, with_schema_version smallint,
        new_occurred_us bigint, by_actor text, new_payload bytea, new_payload_sha256 bytea,
        new_leaf_hash bytea, new_correlation_id uuid, new_causation_id uuid,
        new_traceparent text, from_source text, new_sequence bigint,
        new_window_start_ns bigint, new_window_end_ns bigint, new_reading_count integer,
        new_statistics bytea
    ) returns boolean language plpgsql as $$
    declare
        new_position constant bigint := old_position + 1;
        ledger_name text;
    begin
        perform pg_advisory_xact_lock(x'68656465'::integer, of_ledger);
        update ledger set position = new_position, recorded_at = new_recorded_at,
            frontier = new_frontier, root = new_root
            where ledger_id = of_ledger and position = old_position and root = old_root
            returning name into ledger_name;
        if not found then
            return false;
        end if;
        insert into event (ledger_id, position, recorded_at, event_id, stream, version, type,
            schema_version, occurred_at, actor, payload, payload_sha256, leaf_hash,
            correlation_id, causation_id, traceparent, source, sequence, window_start_ns,
            window_end_ns, reading_count, statistics)
            values (of_ledger, new_position, new_recorded_at, new_event_id, in_stream,
            new_version, of_type, with_schema_version,
            timestamptz '2000-01-01 00:00:00+00' + make_interval(
                hours => (new_occurred_us / 3600000000)::integer,
                secs => (new_occurred_us % 3600000000) / 1e6::float8),
            by_actor, new_payload,
            new_payload_sha256, new_leaf_hash, new_correlation_id, new_causation_id,
            new_traceparent, from_source, new_sequence, new_window_start_ns, new_window_end_ns,
            new_reading_count, new_statistics);
        insert into event_identity (event_id, position, ledger_id)
            values (new_event_id, new_position, of_ledger);
        if new_version = 1 then
            insert into stream_head (ledger_id, stream, version) values (of_ledger, in_stream, 1);
        else
            update stream_head set version = new_version
                where ledger_id = of_ledger and stream = in_stream and version = new_version - 1;
            if not found then
                raise exception 'stream % of ledger % does not end where the event goes on',
                    in_stream, of_ledger using errcode = 'integrity_constraint_violation';
            end if;
        end if;
        if from_source is not null then
            insert into source_sequence (sequence, position, ledger_id, source)
                values (new_sequence, new_position, of_ledger, from_source);
        end if;
        perform pg_notify('heddle_ledger', ledger_name || ':' || new_position);
        return true;
    end $$
    """,
    "comment on function append_one is 'a batch of one event, in one statement'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
