"""Maintenance, quality and production: what was known of them when.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# As of a position, a row counts that has known_from <= position < known_to.
KNOWN = """
        ledger_id smallint not null,
        known_from bigint not null,
        known_to bigint not null
"""

STATEMENTS: tuple[str, ...] = (
    # One row for each event of a work order: how it stood from there on.
    f"""
    create table work_order (
        {KNOWN},
        requested_at timestamptz,
        planned_start timestamptz,
        planned_end timestamptz,
        started_at timestamptz,
        closed_at timestamptz,
        down_from timestamptz,
        down_to timestamptz,
        failure_at timestamptz,
        worked_s double precision not null,
        labour_s double precision,
        cost double precision,
        urgency smallint,
        replacements smallint not null,
        prevented boolean not null,
        work_order_id text not null,
        asset_id text,
        component_id text,
        title text,
        failure_mode text,
        cause text,
        requested_by text,
        approved_by text,
        assignee text,
        finding text,
        found_failure_mode text,
        currency text,
        note text,
        states text[] not null,
        state_times timestamptz[] not null,
        primary key (ledger_id, work_order_id, known_from)
    )
    """,
    "comment on column work_order.known_to is 'position from which on a later row counts'",
    "comment on column work_order.urgency is '0 EMERGENCY, 1 HIGH, 2 NORMAL, 3 LOW'",
    "comment on column work_order.state_times is 'from when on it was in each of states'",
    """
    create index work_order_open on work_order (ledger_id, known_to, known_from)
        where closed_at is null
    """,
    """
    create index work_order_closed on work_order (ledger_id, closed_at, known_to)
        where closed_at is not null
    """,
    """
    create index work_order_asset on work_order (ledger_id, asset_id, closed_at)
        where closed_at is not null
    """,
    # One row for each event of a run.
    f"""
    create table process_run (
        {KNOWN},
        started_at timestamptz,
        ended_at timestamptz,
        energy_j double precision,
        run_id text not null,
        asset_id text,
        operation text,
        recipe text,
        design text,
        tool text,
        operator text,
        outcome text,
        reason text,
        primary key (ledger_id, run_id, known_from)
    )
    """,
    """
    create index process_run_time on process_run
        (ledger_id, asset_id, coalesce(ended_at, 'infinity'), started_at)
    """,
    # The following have one row a fact; a correction closes it and adds its own.
    f"""
    create table run_unit (
        {KNOWN},
        origin bigint not null,
        occurred_at timestamptz not null,
        quantity double precision not null,
        how smallint not null,
        run_id text not null,
        unit_id text not null,
        unit text not null,
        primary key (ledger_id, origin, known_from)
    )
    """,
    "comment on column run_unit.unit_id is 'stream of the part or lot that went through the run'",
    "comment on column run_unit.how is '1 produced by it, 2 processed by it, 3 reworked by it'",
    "create index run_unit_run on run_unit (ledger_id, run_id)",
    "create index run_unit_unit on run_unit (ledger_id, unit_id, occurred_at)",
    f"""
    create table part_number (
        {KNOWN},
        origin bigint not null,
        unit_id text not null,
        part_number text not null,
        primary key (ledger_id, origin, known_from)
    )
    """,
    "create index part_number_unit on part_number (ledger_id, unit_id)",
    f"""
    create table part_scrapped (
        {KNOWN},
        origin bigint not null,
        occurred_at timestamptz not null,
        unit_id text not null,
        primary key (ledger_id, origin, known_from)
    )
    """,
    "create index part_scrapped_time on part_scrapped (ledger_id, occurred_at)",
    f"""
    create table inspection (
        {KNOWN},
        origin bigint not null,
        inspected_at timestamptz not null,
        inspection_id text not null,
        subject text not null,
        run_id text,
        verdict text not null,
        judge text not null,
        model text,
        defect_codes text[] not null,
        flags text[] not null,
        primary key (ledger_id, origin, known_from)
    )
    """,
    "create index inspection_time on inspection (ledger_id, inspected_at)",
    "create index inspection_subject on inspection (ledger_id, subject)",
    "create index inspection_run on inspection (ledger_id, run_id) where run_id is not null",
    f"""
    create table inspection_characteristic (
        {KNOWN},
        origin bigint not null,
        inspected_at timestamptz not null,
        nominal double precision,
        lower_limit double precision,
        upper_limit double precision,
        measured double precision not null,
        ordinal smallint not null,
        subject text not null,
        run_id text,
        name text not null,
        unit text not null,
        instrument_id text,
        primary key (ledger_id, origin, known_from, ordinal)
    )
    """,
    """
    create index inspection_characteristic_name on inspection_characteristic
        (ledger_id, name, inspected_at)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
