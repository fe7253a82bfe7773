"""Webhooks: how each stands, what is delivered, and what deliveries are signed with.

Revision ID: 0021
Revises: 0020
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

STATEMENTS = (
    # --- folded from the log ---
    """
    create table webhook (
        ledger_id smallint not null,
        webhook_id text not null,
        title text not null,
        url text not null,
        document text not null,
        operation_name text,
        variables text not null,
        mode text not null,
        acts_as_key text,
        status text not null,
        stop_code text,
        stop_reason text,
        secret_ids text[] not null,
        secret_until timestamptz[] not null,
        after_position bigint not null,
        run bigint not null,
        created_at timestamptz not null,
        created_by text not null,
        updated_at timestamptz not null,
        version bigint not null,
        position bigint not null,
        primary key (ledger_id, webhook_id)
    )
    """,
    "comment on column webhook.secret_ids is 'the newest first; the secrets are elsewhere'",
    "comment on column webhook.after_position is 'where what it delivers begins'",
    "comment on column webhook.run is 'position of the event that said so: created or replayed'",
    "comment on column webhook.position is 'of its last event'",
    # --- beside the log ---
    """
    create table webhook_secret (
        ledger_id smallint not null,
        webhook_id text not null,
        secret_id text not null,
        sealed bytea not null check (octet_length(sealed) between 40 and 128),
        created_at timestamptz not null,
        primary key (ledger_id, webhook_id, secret_id)
    )
    """,
    "comment on table webhook_secret is 'a secret counts once the log names it'",
    "comment on column webhook_secret.sealed is 'encrypted; the key is not in the database'",
    """
    create table webhook_progress (
        ledger_id smallint not null,
        webhook_id text not null,
        run bigint not null,
        planned_to bigint not null,
        primary key (ledger_id, webhook_id)
    ) with (fillfactor = 50)
    """,
    "comment on column webhook_progress.planned_to is "
    "'the log is told up to here: in deliveries, each of which is settled or waits'",
    """
    create table webhook_delivery (
        ledger_id smallint not null,
        delivery_id bigint generated always as identity,
        webhook_id text not null,
        run bigint not null,
        after_position bigint not null,
        position bigint not null,
        event_id uuid not null,
        event_type text not null,
        subject text not null,
        lane text not null,
        occurred_at timestamptz not null,
        is_test boolean not null,
        body bytea not null,
        sight bytea not null,
        state text not null,
        attempts int not null default 0,
        created_at timestamptz not null,
        next_try_at timestamptz,
        attempted_at timestamptz,
        status_code int,
        duration_s double precision,
        failure_code text,
        failure text,
        primary key (delivery_id)
    ) with (fillfactor = 70)
    """,
    "alter table webhook_delivery alter column body set storage external",
    "comment on column webhook_delivery.after_position is 'it tells of what lies beyond'",
    "comment on column webhook_delivery.position is 'and up to here'",
    "comment on column webhook_delivery.lane is 'deliveries of one lane go out one by one'",
    "comment on column webhook_delivery.sight is 'hash of what its body was allowed to tell of'",
    """
    create unique index webhook_delivery_once on webhook_delivery
        (ledger_id, webhook_id, run, position) where not is_test
    """,
    """
    create index webhook_delivery_pending on webhook_delivery
        (ledger_id, webhook_id, position) where state = 'PENDING'
    """,
    """
    create index webhook_delivery_listed on webhook_delivery
        (ledger_id, webhook_id, delivery_id)
    """,
    """
    create index webhook_delivery_state on webhook_delivery
        (ledger_id, webhook_id, state, delivery_id)
    """,
    """
    create index webhook_delivery_age on webhook_delivery (ledger_id, attempted_at)
        where state <> 'PENDING'
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
