"""The sender's own number stands in the row of the event's id, not in a row of its own.

A frame is found again by its id and by its agent's number. Two rows for it were 45 bytes more than
one, and one insert more under the lock of the ledger.

Appends wait while the rows are copied; docs/operations.md says for how long.

Revision ID: 0023
Revises: 0022
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_HEAD = """
        perform pg_advisory_xact_lock(x'68656465'::integer, of_ledger);
        update ledger set position = new_position, recorded_at = new_recorded_at,
            frontier = new_frontier, root = new_root
            where ledger_id = of_ledger and position = old_position and root = old_root
"""

STATEMENTS: tuple[str, ...] = (
    # Whoever writes one of them from here on would be forgotten.
    "lock table event_identity, source_sequence in share row exclusive mode",
    """
    create table event_keys (
        event_id uuid not null,
        position bigint not null,
        sequence bigint,
        ledger_id smallint not null,
        source text
    )
    """,
    # A number without an event's id is one of a log that was tampered with: `heddle verify` says
    # so, and goes on saying so.
    """
    insert into event_keys (event_id, position, sequence, ledger_id, source)
        select coalesce(i.event_id, gen_random_uuid()), position, s.sequence, ledger_id, s.source
        from event_identity i full join source_sequence s using (ledger_id, position)
    """,
    "drop table event_identity, source_sequence",
    "alter table event_keys rename to event_identity",
    "alter table event_identity add primary key (ledger_id, event_id)",
    """
    create unique index event_identity_sequence on event_identity (ledger_id, source, sequence)
        where source is not null
    """,
    """
    comment on table event_identity is 'the keys under which each event is recorded once: its id, '
        'and its sender''s own number where it has one'
    """,
    """
    create trigger event_identity_append_only
        before update or delete or truncate on event_identity
        for each statement execute function refuse_change()
    """,
    "revoke update, delete, truncate on event_identity from current_user",
    # For a process of the version before that is still there: it looks its frames up here.
    """
    create view source_sequence as
    select sequence, position, ledger_id, source from event_identity where source is not null
    """,
    "revoke insert, update, delete, truncate on source_sequence from current_user",
    "comment on view source_sequence is 'what event_identity says of senders'' numbers'",
    # As before, with one row of keys an event.
    f"""
    create or replace function store_keys(
        of_ledger smallint, ledger_name text, old_position bigint, old_root bytea,
        new_recorded_at timestamptz, new_frontier bytea, new_root bytea,
        event_ids bytea, event_streams text[], event_versions bigint[],
        streams text[], first_versions bigint[], last_versions bigint[],
        event_sources text[], event_sequences bigint[]
    ) returns boolean language plpgsql as $$
    declare
        size constant integer := cardinality(event_streams);
        new_position constant bigint := old_position + size;
        going_on integer;
        beginning integer := 0;
    begin
        {_HEAD.strip()};
        if not found then
            return false;
        end if;
        if streams is null then
            streams := event_streams;
            first_versions := event_versions;
            last_versions := event_versions;
        end if;
        insert into event_identity (event_id, position, sequence, ledger_id, source)
            select encode(substring(event_ids from 16 * n - 15 for 16), 'hex')::uuid,
                old_position + n, event_sequences[n], of_ledger, event_sources[n]
            from generate_series(1, size) n;
        update stream_head h set version = ends.last
            from (
                select s.ctid, b.last
                from unnest(streams, first_versions, last_versions) b (stream, first, last),
                lateral (
                    select ctid from stream_head where ledger_id = of_ledger
                        and stream = b.stream and version = b.first - 1 offset 0
                ) s
            ) ends
            where h.ctid = ends.ctid;
        get diagnostics going_on = row_count;
        if going_on < cardinality(streams) then
            insert into stream_head (ledger_id, stream, version)
                select of_ledger, b.stream, b.last
                from unnest(streams, first_versions, last_versions) b (stream, first, last)
                where b.first = 1;
            get diagnostics beginning = row_count;
        end if;
        if going_on + beginning <> cardinality(streams) then
            raise exception 'a stream of ledger % does not end where the batch goes on',
                ledger_name using errcode = 'integrity_constraint_violation';
        end if;
        perform pg_notify('heddle_ledger', ledger_name || ':' || new_position);
        return true;
    end $$
    """,
    f"""
    create or replace function store_one(
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
        {_HEAD.strip()}
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
        insert into event_identity (event_id, position, sequence, ledger_id, source)
            values (new_event_id, new_position, new_sequence, of_ledger, from_source);
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
        perform pg_notify('heddle_ledger', ledger_name || ':' || new_position);
        return true;
    end $$
    """,
    # Nobody has called these since 0018, and what they insert into is gone.
    """
    drop function
        append_events(smallint, text, bigint, bytea, timestamptz, bytea, bytea, bytea, text[],
            bigint[], text[], bigint[], bigint[], text[], bigint[], text[], smallint[], bigint[],
            text[], bytea[], bytea, bytea, uuid[], uuid[], text[], bigint[], bigint[], integer[],
            bytea[]),
        append_keys(smallint, text, bigint, bytea, timestamptz, bytea, bytea, bytea, text[],
            bigint[], text[], bigint[], bigint[], text[], bigint[])
    """,
    "analyze event_identity",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
