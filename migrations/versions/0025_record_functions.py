"""A batch of any size comes in one statement, as PostgreSQL's own arrays.

What has a fixed width went end to end in one parameter before, and was cut and cast for each event,
identifiers twice; beyond a hundred events keys and events came apart, the second by COPY. Writers
send one batch behind the other now, and each is one statement.

Revision ID: 0025
Revises: 0024
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

STATEMENTS: tuple[str, ...] = (
    # This takes the place of `store_keys` and `store_events`, which a process of an older version
    # may still use. Heads of streams are found one by one by their key: `offset 0` is what the
    # planner does not look beyond, and a plan that it makes while the table is small would read all
    # of it for ever. Types, schema versions and actors hold one value where all are alike.
    """
    create function record_events(
        of_ledger smallint, ledger_name text, old_position bigint, old_root bytea,
        new_recorded_at timestamptz, new_frontier bytea, new_root bytea,
        event_ids uuid[], event_streams text[], event_versions bigint[],
        streams text[], first_versions bigint[], last_versions bigint[],
        event_sources text[], event_sequences bigint[],
        occurred timestamptz[], payloads bytea[], payload_sha256s bytea[], leaf_hashes bytea[],
        correlation_ids uuid[], causation_ids uuid[], traceparents text[],
        window_starts_ns bigint[], window_ends_ns bigint[], reading_counts integer[],
        statistics_packed bytea[], types text[], schema_versions smallint[], actors text[],
        keys text[], key_content_sha256s bytea[], key_first_positions bigint[],
        key_last_positions bigint[]
    ) returns boolean language plpgsql as $$
    declare
        size constant integer := cardinality(event_streams);
        ending constant integer := cardinality(coalesce(streams, event_streams));
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
        insert into event_identity (event_id, position, sequence, ledger_id, source)
            select event_ids[n], old_position + n, event_sequences[n], of_ledger, event_sources[n]
            from generate_series(1, size) n;
        update stream_head h set version = ends.last
            from (
                select s.ctid, b.last
                from unnest(coalesce(streams, event_streams),
                    coalesce(first_versions, event_versions),
                    coalesce(last_versions, event_versions)) b (stream, first, last),
                lateral (
                    select ctid from stream_head where ledger_id = of_ledger
                        and stream = b.stream and version = b.first - 1 offset 0
                ) s
            ) ends
            where h.ctid = ends.ctid;
        get diagnostics going_on = row_count;
        if going_on < ending then
            insert into stream_head (ledger_id, stream, version)
                select of_ledger, b.stream, b.last
                from unnest(coalesce(streams, event_streams),
                    coalesce(first_versions, event_versions),
                    coalesce(last_versions, event_versions)) b (stream, first, last)
                where b.first = 1;
            get diagnostics beginning = row_count;
        end if;
        if going_on + beginning <> ending then
            raise exception 'a stream of ledger % does not end where the batch goes on',
                ledger_name using errcode = 'integrity_constraint_violation';
        end if;
        if keys is not null then
            insert into idempotency_key
                (ledger_id, key, content_sha256, first_position, last_position)
                select of_ledger, k.* from unnest(keys, key_content_sha256s, key_first_positions,
                    key_last_positions) k;
        end if;
        insert into event (ledger_id, position, recorded_at, event_id, stream, version, source,
            sequence, type, schema_version, occurred_at, actor, payload, payload_sha256,
            leaf_hash, correlation_id, causation_id, traceparent, window_start_ns,
            window_end_ns, reading_count, statistics)
            select of_ledger, old_position + n, new_recorded_at, event_ids[n], event_streams[n],
                event_versions[n], event_sources[n], event_sequences[n],
                types[least(n, cardinality(types))],
                schema_versions[least(n, cardinality(schema_versions))], occurred[n],
                actors[least(n, cardinality(actors))], payloads[n], payload_sha256s[n],
                leaf_hashes[n], correlation_ids[n], causation_ids[n], traceparents[n],
                window_starts_ns[n], window_ends_ns[n], reading_counts[n], statistics_packed[n]
            from generate_series(1, size) n;
        perform pg_notify('heddle_ledger', ledger_name || ':' || new_position);
        return true;
    end $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
