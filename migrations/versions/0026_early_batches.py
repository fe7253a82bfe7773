"""A batch may write its rows while the one before it is being flushed.

A ledger's batches are committed one behind the other, and where a flush takes milliseconds the
server did nothing else meanwhile. There are two locks of a ledger now: who writes rows holds the
first, who commits them the second, and everyone takes them in this order. An *early* batch writes
under the first alone, in one statement or several, waits for the second, lets the first go and only
then moves the ledger's end; the next one writes while it is flushed.

Revision ID: 0026
Revises: 0025
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# The two locks; the second is the one there has always been.
_WRITING = "x'68656466'::integer, of_ledger"
_COMMITTING = "x'68656465'::integer, of_ledger"

# An expression costs a tenth of a statement.
_AWAIT_TURN = f"""
        if not pg_try_advisory_xact_lock({_WRITING}) then
            perform await_writing(of_ledger);
        end if;
        if not pg_try_advisory_xact_lock({_COMMITTING}) then
            perform pg_advisory_xact_lock({_COMMITTING});
        end if;
""".strip()

_MOVE_END = """
            update ledger set position = new_position, recorded_at = new_recorded_at,
                frontier = new_frontier, root = new_root
                where ledger_id = of_ledger and position = old_position and root = old_root
""".strip()

_ADVANCE_HEADS = """
            perform advance_heads(of_ledger, ledger_name, coalesce(streams, event_streams),
                coalesce(first_versions, event_versions), coalesce(last_versions, event_versions));
""".strip()

_ATTEMPTS = 300
"""Together about 0.1 s."""

_BATCH = """
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
"""

STATEMENTS: tuple[str, ...] = (
    # Heads are found one by one by their key: `offset 0` is what the planner does not look beyond,
    # and a plan that it makes while the table is small would read all of it for ever.
    """
    create function advance_heads(
        of_ledger smallint, ledger_name text, streams text[], first_versions bigint[],
        last_versions bigint[]
    ) returns void language plpgsql as $$
    declare
        going_on integer;
        beginning integer := 0;
    begin
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
    end $$
    """,
    # A process of an older version that judges appends has taken the second lock by itself, and may
    # not wait for the first then. (Beside early batches PostgreSQL finds a deadlock all the same,
    # and the process whose batch it ends appends again.)
    f"""
    create function await_writing(of_ledger smallint) returns void language plpgsql as $$
    begin
        if not exists (
            select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted
                and (classid, objid, objsubid) = ({_COMMITTING}, 2)
        ) then
            perform pg_advisory_xact_lock({_WRITING});
        end if;
    end $$
    """,
    # The batch ahead of an early one may not have come yet, for it comes over another connection:
    # it is waited for. Who holds the lock to write knows whether anybody commits; if nobody does
    # and the ledger ends where the batch ahead begins, that one is still to come.
    f"""
    create function enter_ledger(of_ledger smallint, ahead_position bigint)
    returns void language plpgsql as $$
    begin
        for attempt in 1..{_ATTEMPTS} loop
            perform pg_advisory_lock({_WRITING});
            if not pg_try_advisory_lock({_COMMITTING}) then
                return;
            end if;
            perform pg_advisory_unlock({_COMMITTING});
            if not exists (select from ledger
                    where ledger_id = of_ledger and position = ahead_position) then
                return;
            end if;
            perform pg_advisory_unlock({_WRITING});
            perform pg_sleep(0.0002);
        end loop;
        raise exception 'the batch at position % of ledger % does not come',
            ahead_position, of_ledger using errcode = 'serialization_failure';
    end $$
    """,
    # It answers the microseconds it has taken since nothing but it could go on, or null where the
    # ledger does not end where the batch begins. Types, schema versions and actors hold one value
    # where all are alike. An early batch names the position at which the one ahead begins; so many
    # of its events may have been written by statements before this one of the same transaction,
    # and only the last one moves the ledger's end.
    f"""
    create function append_batch({_BATCH},
        ahead_position bigint, written integer, is_last boolean, shares_streams boolean
    ) returns integer language plpgsql as $$
    declare
        is_early constant boolean := ahead_position is not null;
        size constant integer := cardinality(event_streams);
        start constant bigint := old_position + written;
        new_position constant bigint := start + size;
        since timestamptz := now();
    begin
        if not is_early then
            {_AWAIT_TURN}
            since := clock_timestamp();
            {_MOVE_END};
            if not found then
                return null;
            end if;
        elsif written = 0 then
            perform enter_ledger(of_ledger, ahead_position);
        end if;
        insert into event_identity (event_id, position, sequence, ledger_id, source)
            select event_ids[n], start + n, event_sequences[n], of_ledger, event_sources[n]
            from generate_series(1, size) n;
        if not shares_streams then
            {_ADVANCE_HEADS}
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
            select of_ledger, start + n, new_recorded_at, event_ids[n], event_streams[n],
                event_versions[n], event_sources[n], event_sequences[n],
                types[least(n, cardinality(types))],
                schema_versions[least(n, cardinality(schema_versions))], occurred[n],
                actors[least(n, cardinality(actors))], payloads[n], payload_sha256s[n],
                leaf_hashes[n], correlation_ids[n], causation_ids[n], traceparents[n],
                window_starts_ns[n], window_ends_ns[n], reading_counts[n], statistics_packed[n]
            from generate_series(1, size) n;
        if not is_last then
            return null;
        end if;
        if is_early then
            if not pg_try_advisory_xact_lock({_COMMITTING}) then
                perform pg_advisory_xact_lock({_COMMITTING});
                since := clock_timestamp();
            end if;
            perform pg_advisory_unlock({_WRITING});
            {_MOVE_END};
            if not found then
                raise exception 'ledger % does not end at position %', ledger_name, old_position
                    using errcode = 'serialization_failure';
            end if;
            if shares_streams then
                {_ADVANCE_HEADS}
            end if;
        end if;
        perform pg_notify('heddle_ledger', ledger_name || ':' || new_position);
        return greatest(1, extract(epoch from clock_timestamp() - since) * 1000000);
    end $$
    """,
    # Of older processes, which send no early batch, but are not to meet one without the first lock.
    f"""
    create or replace function record_events({_BATCH}) returns boolean language sql as $$
        select append_batch(
            of_ledger, ledger_name, old_position, old_root, new_recorded_at,
            new_frontier, new_root, event_ids, event_streams, event_versions,
            streams, first_versions, last_versions, event_sources, event_sequences,
            occurred, payloads, payload_sha256s, leaf_hashes, correlation_ids,
            causation_ids, traceparents, window_starts_ns, window_ends_ns,
            reading_counts, statistics_packed, types, schema_versions, actors, keys,
            key_content_sha256s, key_first_positions, key_last_positions, null, 0, true, false
        ) is not null
    $$
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
        {_AWAIT_TURN}
        {_MOVE_END}
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
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
