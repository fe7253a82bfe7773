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
    # moved the head since the batch was built on it, and nothing is written. A column that is
    # NULL for all events is a NULL array.
    """
    create function append_keys(
        of_ledger smallint, ledger_name text, old_position bigint, old_root bytea,
        new_recorded_at timestamptz, new_frontier bytea, new_root bytea,
        event_ids uuid[], event_streams text[], event_versions bigint[],
        event_sources text[], event_sequences bigint[]
    ) returns boolean language plpgsql as $$
    declare
        new_position constant bigint := old_position + cardinality(event_ids);
    begin
        update ledger set position = new_position, recorded_at = new_recorded_at,
            frontier = new_frontier, root = new_root
            where ledger_id = of_ledger and position = old_position and root = old_root;
        if not found then
            return false;
        end if;
        insert into event_identity (event_id, position, ledger_id)
            select id, old_position + n, of_ledger
            from unnest(event_ids) with ordinality as w (id, n);
        if exists (
            select from (
                select stream, min(version) as first
                from unnest(event_streams, event_versions) as e (stream, version) group by stream
            ) w
            where w.first <> 1 + coalesce((select version from stream_head
                where ledger_id = of_ledger and stream = w.stream), 0)
        ) then
            raise exception 'a stream of ledger % does not end where the batch goes on',
                ledger_name using errcode = 'integrity_constraint_violation';
        end if;
        insert into stream_head (ledger_id, stream, version)
            select of_ledger, w.stream, max(w.version)
            from unnest(event_streams, event_versions) as w (stream, version) group by w.stream
            on conflict (ledger_id, stream) do update set version = excluded.version;
        if event_sources is not null then
            insert into source_sequence (sequence, position, ledger_id, source)
                select w.sequence, old_position + w.n, of_ledger, w.source
                from unnest(event_sources, event_sequences) with ordinality
                    as w (source, sequence, n)
                where w.source is not null;
        end if;
        perform pg_notify('heddle_ledger', ledger_name || ':' || new_position);
        return true;
    end $$
    """,
    # The same with the events themselves, for a batch that is not worth a COPY.
    """
    create function append_events(
        of_ledger smallint, ledger_name text, old_position bigint, old_root bytea,
        new_recorded_at timestamptz, new_frontier bytea, new_root bytea,
        event_ids uuid[], event_streams text[], event_versions bigint[],
        event_sources text[], event_sequences bigint[],
        types text[], schema_versions smallint[], occurred_ats timestamptz[], actors text[],
        payloads bytea[], payload_sha256s bytea[], leaf_hashes bytea[], correlation_ids uuid[],
        causation_ids uuid[], traceparents text[], window_starts_ns bigint[],
        window_ends_ns bigint[], reading_counts integer[], statistics_packed bytea[]
    ) returns boolean language plpgsql as $$
    begin
        if not append_keys(of_ledger, ledger_name, old_position, old_root, new_recorded_at,
            new_frontier, new_root, event_ids, event_streams, event_versions, event_sources,
            event_sequences)
        then
            return false;
        end if;
        insert into event (ledger_id, position, recorded_at, event_id, stream, version, source,
            sequence, type, schema_version, occurred_at, actor, payload, payload_sha256,
            leaf_hash, correlation_id, causation_id, traceparent, window_start_ns,
            window_end_ns, reading_count, statistics)
            select of_ledger, old_position + n, new_recorded_at, w.event_id, w.stream, w.version,
                w.source, w.sequence, w.type, w.schema_version, w.occurred_at, w.actor, w.payload,
                w.payload_sha256, w.leaf_hash, w.correlation_id, w.causation_id, w.traceparent,
                w.window_start_ns, w.window_end_ns, w.reading_count, w.statistics
            from unnest(event_ids, event_streams, event_versions, event_sources, event_sequences,
                types, schema_versions, occurred_ats, actors, payloads, payload_sha256s,
                leaf_hashes, correlation_ids, causation_ids, traceparents, window_starts_ns,
                window_ends_ns, reading_counts, statistics_packed)
                with ordinality as w (event_id, stream, version, source, sequence, type,
                schema_version, occurred_at, actor, payload, payload_sha256, leaf_hash,
                correlation_id, causation_id, traceparent, window_start_ns, window_end_ns,
                reading_count, statistics, n);
        return true;
    end $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
