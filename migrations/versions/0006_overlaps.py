"""Rollups in which a reading of one time counts once: a row a bucket of all channels of a series.

The rows are made anew from the log: the projection's new version starts at its beginning.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_STATISTICS = """
        bucket_start timestamptz not null,
        series_id integer not null,
        reading_count integer[] not null,
        min float8[] not null,
        max float8[] not null,
        sum float8[] not null,
        sum_of_squares float8[] not null,
        first float8[] not null,
        last float8[] not null,
        first_ns bigint[] not null,
        last_ns bigint[] not null,
"""

STATEMENTS = (
    "drop view telemetry_rollup",
    "drop function second_statistics(rollup_second)",
    "drop table rollup_second, rollup_minute, rollup_hour",
    "delete from projection_checkpoint where projection = 'rollups'",
    # A series: the channels that come together in the frames of an asset, sorted by name.
    """
    create table rollup_series (
        start_ns bigint not null,
        end_ns bigint not null,
        longest_ns bigint not null,
        series_id integer generated always as identity primary key,
        ledger_id smallint not null,
        asset_id text not null,
        channels text[] not null
    )
    """,
    "comment on column rollup_series.longest_ns is 'longest window of a frame'",
    "create index rollup_series_of_asset on rollup_series (ledger_id, asset_id)",
    f"""
    create table rollup_minute (
        {_STATISTICS}
        primary key (series_id, bucket_start)
    ) with (fillfactor = 90, toast_tuple_target = 8160)
    """,
    f"""
    create table rollup_hour (
        {_STATISTICS}
        settled_sum float8[] not null,
        settled_squares float8[] not null,
        primary key (series_id, bucket_start)
    ) with (fillfactor = 50, toast_tuple_target = 8160)
    """,
    "comment on column rollup_hour.settled_sum is 'without the latest minute of the hour'",
    # A channel that came in two series in one bucket is two rows below and one here.
    """
    create view telemetry_rollup as
    with bucket as (
        select 60 as resolution_s, series_id, bucket_start, reading_count, min, max, sum,
            sum_of_squares, first, last, first_ns, last_ns
        from rollup_minute
        union all
        select 3600, series_id, bucket_start, reading_count, min, max, sum,
            sum_of_squares, first, last, first_ns, last_ns
        from rollup_hour
    ), channel_bucket as (
        select s.ledger_id, s.asset_id, s.series_id, b.resolution_s, b.bucket_start, c.*
        from bucket b join rollup_series s using (series_id)
        cross join lateral unnest(s.channels, b.reading_count, b.min, b.max, b.sum,
            b.sum_of_squares, b.first, b.last, b.first_ns, b.last_ns)
            as c(channel, reading_count, min, max, sum, sum_of_squares, first, last, first_ns,
                last_ns)
        where c.reading_count > 0
    )
    select l.name as ledger, b.resolution_s, b.asset_id, b.channel, b.bucket_start,
        sum(b.reading_count)::integer as reading_count, min(b.min) as min, max(b.max) as max,
        sum(b.sum order by b.series_id) / sum(b.reading_count) as mean,
        sum(b.sum order by b.series_id) as sum,
        sum(b.sum_of_squares order by b.series_id) as sum_of_squares,
        (array_agg(b.first order by b.first_ns))[1] as first,
        (array_agg(b.last order by b.last_ns desc))[1] as last
    from channel_bucket b join ledger l using (ledger_id)
    group by l.name, b.resolution_s, b.asset_id, b.channel, b.bucket_start
    """,
    "comment on view telemetry_rollup is 'GOOD readings by 60 s and 3600 s, in SI'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
