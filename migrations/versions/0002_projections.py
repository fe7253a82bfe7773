"""The first projections: twins, alerts, telemetry rollups, and the alert policy's memory.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATISTICS = """
        reading_count integer not null,
        min float8 not null,
        max float8 not null,
        sum float8 not null,
        sum_of_squares float8 not null,
        first float8 not null,
        last float8 not null,
        first_ns bigint not null,
        last_ns bigint not null,
"""

STATEMENTS = (
    """
    create table projection_checkpoint (
        ledger_id smallint not null,
        projection text not null,
        version integer not null,
        position bigint not null,
        primary key (ledger_id, projection, version)
    )
    """,
    # --- twins ---
    """
    create table twin_asset (
        ledger_id smallint not null,
        asset_id text not null,
        asset_type text not null,
        title text not null,
        lifecycle text not null,
        version bigint not null,
        registered_at timestamptz not null,
        position bigint not null,
        primary key (ledger_id, asset_id)
    )
    """,
    """
    create table twin_channel (
        ledger_id smallint not null,
        asset_id text not null,
        channel text not null,
        value float8,
        read_at_ns bigint,
        window_mean float8,
        window_end_ns bigint not null,
        window_reading_count integer not null,
        window_good_count integer not null,
        position bigint not null,
        primary key (ledger_id, asset_id, channel)
    )
    """,
    "comment on column twin_channel.value is 'last GOOD reading, SI'",
    """
    create table twin_setpoint (
        ledger_id smallint not null,
        asset_id text not null,
        setpoint text not null,
        desired float8,
        desired_at timestamptz,
        desired_by text,
        reported float8,
        reported_at timestamptz,
        primary key (ledger_id, asset_id, setpoint)
    )
    """,
    # --- alerts ---
    """
    create table alert (
        ledger_id smallint not null,
        position bigint not null,
        alert_id uuid not null,
        asset_id text not null,
        rule text not null,
        severity text not null,
        channel text not null,
        value float8 not null,
        limit_value float8 not null,
        message text not null,
        since timestamptz not null,
        raised_at timestamptz not null,
        acknowledged_at timestamptz,
        acknowledged_by text,
        note text,
        cleared_at timestamptz,
        primary key (ledger_id, alert_id)
    )
    """,
    "create index alert_by_position on alert (ledger_id, position)",
    "create index alert_by_asset on alert (ledger_id, asset_id, position)",
    # --- rollups ---
    # Seconds lie in one row a frame and clock, as arrays [channel][second], and are merged when
    # read. Where no second holds more than one reading only `first` is stored. NaN: no reading.
    """
    create table rollup_second (
        position bigint not null,
        start_ns bigint not null,
        end_ns bigint not null,
        ledger_id smallint not null,
        clock smallint not null,
        asset_id text not null,
        channel text[] not null,
        second integer[] not null,
        first float8[] not null,
        reading_count integer[],
        min float8[],
        max float8[],
        sum float8[],
        sum_of_squares float8[],
        last float8[],
        primary key (ledger_id, position, clock)
    )
    """,
    "create index rollup_second_by_time on rollup_second (ledger_id, asset_id, end_ns, start_ns)",
    *(
        f"alter table rollup_second alter column {column} set storage external"
        for column in ("first", "min", "max", "sum", "sum_of_squares", "last")
    ),
    """
    create function second_statistics(r rollup_second) returns table (
        channel text, start_s bigint, reading_count integer, min float8, max float8, sum float8,
        sum_of_squares float8, first float8, last float8
    ) language sql immutable parallel safe as $$
        select r.channel[c], r.start_ns / 1000000000 + r.second[s],
            coalesce(r.reading_count[c][s], 1),
            coalesce(r.min[c][s], r.first[c][s]), coalesce(r.max[c][s], r.first[c][s]),
            coalesce(r.sum[c][s], r.first[c][s]),
            coalesce(r.sum_of_squares[c][s], r.first[c][s] * r.first[c][s]),
            r.first[c][s], coalesce(r.last[c][s], r.first[c][s])
        from generate_subscripts(r.channel, 1) c, generate_subscripts(r.second, 1) s
        where r.first[c][s] <> 'NaN'
    $$
    """,
    *(
        f"""
        create table rollup_{name} (
            ledger_id smallint not null,
            bucket bigint not null,
            asset_id text not null,
            channel text not null,
            {_STATISTICS}
            primary key (ledger_id, asset_id, channel, bucket)
        )
        """
        for name in ("minute", "hour")
    ),
    "alter table rollup_minute set (fillfactor = 80)",
    "alter table rollup_hour set (fillfactor = 50)",
    """
    create view telemetry_rollup as
    with bucket as (
        select r.ledger_id, 1 as resolution_s, r.asset_id, s.channel, s.start_s,
            sum(s.reading_count)::integer as reading_count, min(s.min) as min, max(s.max) as max,
            sum(s.sum) as sum, sum(s.sum_of_squares) as sum_of_squares,
            (array_agg(s.first order by r.start_ns, r.position))[1] as first,
            (array_agg(s.last order by r.end_ns desc, r.position desc))[1] as last
        from rollup_second r, second_statistics(r) s
        group by r.ledger_id, r.asset_id, s.channel, s.start_s
        union all
        select ledger_id, 60, asset_id, channel, bucket * 60,
            reading_count, min, max, sum, sum_of_squares, first, last from rollup_minute
        union all
        select ledger_id, 3600, asset_id, channel, bucket * 3600,
            reading_count, min, max, sum, sum_of_squares, first, last from rollup_hour
    )
    select l.name as ledger, b.resolution_s, b.asset_id, b.channel,
        to_timestamp(b.start_s) as bucket_start, b.reading_count, b.min, b.max,
        b.sum / b.reading_count as mean, b.sum, b.sum_of_squares, b.first, b.last
    from bucket b join ledger l using (ledger_id)
    """,
    "comment on view telemetry_rollup is 'GOOD readings by 1 s, 60 s and 3600 s, in SI'",
    # --- the alert policy's memory ---
    """
    create table alert_policy_asset (
        ledger_id smallint not null,
        asset_id text not null,
        asset_type text not null,
        primary key (ledger_id, asset_id)
    )
    """,
    """
    create table alert_policy_rule (
        ledger_id smallint not null,
        asset_id text not null,
        rule text not null,
        alert_id uuid,
        state bytea not null,
        primary key (ledger_id, asset_id, rule)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
