"""Batches of one ledger may stand ready behind one another; a batch of one event.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    # These take the place of `append_keys` and `append_events`, which a process of an older version
    # may still use. Batches queue at a lock of their ledger, and not at its row: who waits at a row
    # goes on with the snapshot from before he waited, and would not see the head that he was built
    # on. And heads of streams are found one by one by their key (`offset 0` is what the planner
    # does not look beyond): a plan that was made while the table was small read all of it for ever.
    """
    create function store_keys(
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
        perform pg_advisory_xact_lock(x'68656465'::integer, of_ledger);
        update ledger set position = new_position, recorded_at = new_recorded_at,
            frontier = new_frontier, root = new_root
            where ledger_id = of_ledger and position = old_position and root = old_root;
        if not found then
            return false;
        end if;
        if streams is null then
            streams := event_streams;
            first_versions := event_versions;
            last_versions := event_versions;
        end if;
        insert into event_identity (event_id, position, ledger_id)
            select encode(substring(event_ids from 16 * n - 15 for 16), 'hex')::uuid,
                old_position + n, of_ledger
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
        if event_sources is not null then
            insert into source_sequence (sequence, position, ledger_id, source)
                select event_sequences[n], old_position + n, of_ledger, event_sources[n]
                from generate_series(1, size) n
                where event_sources[n] is not null;
        end if;
        perform pg_notify('heddle_ledger', ledger_name || ':' || new_position);
        return true;
    end $$
    """,
    """
    comment on function store_keys is 'all that a batch writes beside its events; '
        'false: the ledger does not end where it begins, and nothing is written'
    """,
    # The same with the events themselves, for a batch that is not worth a COPY. Hours and seconds:
    # an interval is made of floats, which do not hold all microseconds of 9,999 years.
    """
    create function store_events(
        of_ledger smallint, ledger_name text, old_position bigint, old_root bytea,
        new_recorded_at timestamptz, new_frontier bytea, new_root bytea,
        event_ids bytea, event_streams text[], event_versions bigint[],
        streams text[], first_versions bigint[], last_versions bigint[],
        event_sources text[], event_sequences bigint[],
        types text[], schema_versions smallint[], occurred_us bigint[], actors text[],
        payloads bytea[], payload_sha256s bytea, leaf_hashes bytea, correlation_ids uuid[],
        causation_ids uuid[], traceparents text[], window_starts_ns bigint[],
        window_ends_ns bigint[], reading_counts integer[], statistics_packed bytea[]
    ) returns boolean language plpgsql as $$
    begin
        if not store_keys(of_ledger, ledger_name, old_position, old_root, new_recorded_at,
            new_frontier, new_root, event_ids, event_streams, event_versions, streams,
            first_versions, last_versions, event_sources, event_sequences)
        then
            return false;
        end if;
        insert into event (ledger_id, position, recorded_at, event_id, stream, version, source,
            sequence, type, schema_version, occurred_at, actor, payload, payload_sha256,
            leaf_hash, correlation_id, causation_id, traceparent, window_start_ns,
            window_end_ns, reading_count, statistics)
            select of_ledger, old_position + n, new_recorded_at,
                encode(substring(event_ids from 16 * n - 15 for 16), 'hex')::uuid,
                event_streams[n], event_versions[n], event_sources[n], event_sequences[n],
                types[least(n, cardinality(types))],
                schema_versions[least(n, cardinality(schema_versions))],
                timestamptz '2000-01-01 00:00:00+00' + make_interval(
                    hours => (occurred_us[n] / 3600000000)::integer,
                    secs => (occurred_us[n] % 3600000000) / 1e6::float8),
                actors[least(n, cardinality(actors))], payloads[n],
                substring(payload_sha256s from 32 * n - 31 for 32),
                substring(leaf_hashes from 32 * n - 31 for 32),
                correlation_ids[n], causation_ids[n], traceparents[n], window_starts_ns[n],
                window_ends_ns[n], reading_counts[n], statistics_packed[n]
            from generate_series(1, cardinality(event_streams)) n;
        return true;
    end $$
    """,
    # A batch of one event is worth neither a COPY nor any array. False: the ledger does not end
    # where the event was to stand, and nothing is written.
    """
    create function store_one(
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
    "comment on function store_one is 'a batch of one event, in one statement'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
