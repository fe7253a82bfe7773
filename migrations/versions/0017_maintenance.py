"""Escalated alerts, and the memories of the policies for silent assets and work orders.

Revision ID: 0017
Revises: 0016
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    alter table alert
        add column escalation_level integer,
        add column escalated_at timestamptz,
        add column escalated_to text,
        add column escalation_reason text
    """,
    # --- missing data ---
    """
    create table telemetry_silence (
        ledger_id smallint not null,
        asset_id text not null,
        asset_type text not null,
        in_service boolean not null,
        heard_at timestamptz not null,
        heard_position bigint not null,
        alert_id uuid,
        primary key (ledger_id, asset_id)
    ) with (fillfactor = 50)
    """,
    "comment on column telemetry_silence.heard_at is 'when its last frame, or its commissioning, "
    "was recorded'",
    # --- work orders ---
    """
    create table work_order_policy_asset (
        ledger_id smallint not null,
        asset_id text not null,
        asset_type text not null,
        primary key (ledger_id, asset_id)
    )
    """,
    """
    create table work_order_policy_order (
        ledger_id smallint not null,
        work_order_id text not null,
        asset_id text not null,
        failure_mode text,
        cause text,
        primary key (ledger_id, work_order_id)
    )
    """,
    "comment on table work_order_policy_order is 'work orders that have not ended'",
    """
    create index work_order_policy_order_by_asset
        on work_order_policy_order (ledger_id, asset_id)
    """,
    """
    create table work_order_policy_disarmed (
        ledger_id smallint not null,
        asset_id text not null,
        failure_mode text not null,
        source text not null,
        primary key (ledger_id, asset_id, failure_mode, source)
    )
    """,
    "comment on table work_order_policy_disarmed is 'sources that have opened an order and must "
    "fall below the lower limit before they open another'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
