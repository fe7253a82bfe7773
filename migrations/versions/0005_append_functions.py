"""What the writer asks of the database in one statement.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    # One round trip for all that a batch writes beside its events. False: somebody else has
    # moved the head since the batch was built on it, and nothing is written.
    #
    # A column of the batch is an array. An array of one stands for all events alike, and NULL
    # where all are; what has a fixed width lies end to end in one bytea: it is sent and taken
    # apart at a third of the cost. `streams`, with the first and the last version each has in
    # the batch, are NULL where no stream has more than one event in it.
    """
    create function append_keys(
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
        update stream_head h set version = b.last
            from unnest(streams, first_versions, last_versions) b (stream, first, last)
            where h.ledger_id = of_ledger and h.stream = b.stream and h.version = b.first - 1;
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
    # The same with the events themselves, for a batch that is not worth a COPY. Hours and
    # seconds: an interval is made of floats, which do not hold all microseconds of 9,999 years.
    """
    create function append_events(
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
        if not append_keys(of_ledger, ledger_name, old_position, old_root, new_recorded_at,
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
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
