"""Checkpoints may be thinned out: what follows from the log need not be kept every two seconds.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    create function signature_count(note text) returns integer
        language sql immutable strict parallel safe
        return regexp_count(note, U&'^\\2014 ', 1, 'n')
    """,
    # What may go: a day old, followed by another of its hour, and evidence of nothing else.
    """
    create function refuse_checkpoint_loss() returns trigger language plpgsql as $$
    begin
        if old.signed_at < now() - interval '1 day'
            and signature_count(old.note) = 1
            and not exists (
                select from cosignature c
                where c.ledger_id = old.ledger_id and c.size = old.size)
            and date_trunc('hour', old.signed_at, 'UTC') = (
                select date_trunc('hour', c.signed_at, 'UTC') from checkpoint c
                where c.ledger_id = old.ledger_id and c.size > old.size
                order by c.ledger_id, c.size limit 1)
        then
            return old;
        end if;
        raise exception 'the event log is append-only: % of checkpoint % is refused',
            tg_op, old.size using errcode = 'integrity_constraint_violation',
            hint = 'only a checkpoint that a younger one of its hour replaces may go, after a day';
    end $$
    """,
    "drop trigger checkpoint_append_only on checkpoint",
    """
    create trigger checkpoint_append_only before update or truncate on checkpoint
        for each statement execute function refuse_change()
    """,
    """
    create trigger checkpoint_thinned_only before delete on checkpoint
        for each row execute function refuse_checkpoint_loss()
    """,
    "grant delete on checkpoint to current_user",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
