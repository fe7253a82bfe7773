"""Tables beside the live ones: the same definition in a schema of its own, and their exchange.

A copy has all that its original has: columns with defaults, identities, storage and comments;
constraints and indexes under the same names; storage parameters; privileges. Views that read the
originals read the copies after the exchange. What else hangs on a table, such as a trigger or a
foreign key, a projection's tables do not have; where one does, its copy is refused.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from domain.errors import Conflict, NotFound, Unavailable
from eventlog.database import Connection

LOCK_WAIT_S: Final = 0.4
"""For all tables together: whoever reads one and waits for another is let through before
PostgreSQL, after a second, would see a deadlock and end somebody."""

CHECKPOINTS: Final = "projection_checkpoint"


@dataclass(frozen=True, slots=True)
class SideTables:
    """The copies in `schema` of `tables` in `live`; and an empty table of checkpoints there.

    Parameters
    ----------
    made_last : statements that make the indexes that the copies have not got yet
    """

    schema: str
    live: str
    tables: tuple[str, ...]
    made_last: tuple[str, ...] = ()

    def name(self, table: str) -> str:
        """Return the qualified name of a copy."""
        return f"{quoted(self.schema)}.{quoted(table)}"

    def live_name(self, table: str) -> str:
        """Return the qualified name of the original."""
        return f"{quoted(self.live)}.{quoted(table)}"

    @property
    def search_path(self) -> str:
        """Where bare names mean the copies, and the originals of what has no copy."""
        return f"{quoted(self.schema)}, {quoted(self.live)}"


def quoted(name: str) -> str:
    """Return an identifier as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# --- making -------------------------------------------------------------------------------


async def make_side_tables(
    connection: Connection, prefix: str, tables: Sequence[str], indexes_last: Collection[str] = ()
) -> SideTables:
    """Return empty copies of `tables` in a new schema whose name begins with `prefix`.

    Parameters
    ----------
    indexes_last : names of indexes to leave to the caller: he runs `SideTables.made_last` once the
        copies are full, which costs less than to keep them meanwhile

    Raises
    ------
    NotFound
        ``projection.table_missing``
    Conflict
        ``projection.table_not_copied``: it is more than a plain table
    Unavailable
        ``projection.schema_not_allowed``: this role may not create schemas
    """
    live = await connection.fetchval("select current_schema()")
    side = SideTables(f"{prefix}{os.urandom(4).hex()}", live, tuple(tables))
    made_last: list[str] = []
    async with connection.transaction():
        try:
            await connection.execute(f"create schema {quoted(side.schema)}")
        except asyncpg.InsufficientPrivilegeError as error:
            raise Unavailable(
                "projection.schema_not_allowed",
                f"the tables of a rebuild lie in a schema of their own: {error}",
                hint="grant create on the database to the role that Heddle uses",
            ) from error
        for table in (*side.tables, CHECKPOINTS):
            made_last += await _copy_definition(connection, side, table, indexes_last)
    return replace(side, made_last=tuple(made_last))


async def remove_side_tables(connection: Connection, prefix: str) -> int:
    """Drop every schema whose name begins with `prefix`, as a killed process left it."""
    left = await connection.fetch(
        "select nspname from pg_namespace where starts_with(nspname, $1)", prefix
    )
    for row in left:
        await connection.execute(f"drop schema if exists {quoted(row['nspname'])} cascade")
    return len(left)


async def _copy_definition(
    connection: Connection, side: SideTables, table: str, indexes_last: Collection[str]
) -> list[str]:
    """Make the copy of `table`; return the statements for those of its indexes that come last."""
    original, copy = side.live_name(table), side.name(table)
    found = await connection.fetchrow(
        """
        select c.oid, c.relkind::text as kind, c.relrowsecurity as secured, c.relpersistence::text,
            c.reloptions as options, t.reloptions as toast_options,
            obj_description(c.oid, 'pg_class') as comment,
            exists (select from pg_trigger where tgrelid = c.oid and not tgisinternal) as triggered,
            exists (select from pg_constraint
                where contype = 'f' and c.oid in (conrelid, confrelid)) as referring,
            exists (select from pg_inherits where c.oid in (inhrelid, inhparent)) as inheriting
        from pg_class c left join pg_class t on t.oid = c.reltoastrelid
        where c.oid = to_regclass($1)
        """,
        original,
    )
    if found is None:
        raise NotFound(
            "projection.table_missing",
            f"there is no table {original}",
            hint="run `heddle migrate`",
            value=table,
        )
    for what, there in (
        ("no plain table", found["kind"] != "r"),
        ("secured by row", found["secured"]),
        ("a table with triggers", found["triggered"]),
        ("a table with foreign keys", found["referring"]),
        ("a table that inherits or is a partition", found["inheriting"]),
    ):
        if there:
            raise Conflict(
                "projection.table_not_copied",
                f"{original} is {what}, which cannot be rebuilt beside itself",
                value=table,
            )
    await connection.execute(
        f"create table {copy} (like {original} including all excluding indexes)"
    )
    options = [*(found["options"] or ()), *(f"toast.{o}" for o in found["toast_options"] or ())]
    if options:
        await connection.execute(f"alter table {copy} set ({', '.join(options)})")
    if found["comment"]:
        await connection.execute(f"comment on table {copy} is {_literal(found['comment'])}")
    made_last = await _copy_indexes(connection, found["oid"], original, copy, indexes_last)
    await _copy_privileges(connection, found["oid"], copy)
    return made_last


async def _copy_indexes(
    connection: Connection, oid: int, original: str, copy: str, indexes_last: Collection[str]
) -> list[str]:
    rows = await connection.fetch(
        """
        select pg_get_indexdef(i.indexrelid) as definition, c.relname as name,
            i.indisunique as is_unique, k.contype::text as constraint,
            pg_get_constraintdef(k.oid) as constraint_definition,
            format('%I.%I', n.nspname, t.relname) as table_name
        from pg_index i join pg_class c on c.oid = i.indexrelid
        join pg_class t on t.oid = i.indrelid join pg_namespace n on n.oid = t.relnamespace
        left join pg_constraint k on k.conindid = i.indexrelid and k.conrelid = i.indrelid
        where i.indrelid = $1 order by c.relname
        """,
        oid,
    )
    made_last = []
    for row in rows:
        name = quoted(row["name"])
        if row["constraint"] == "x":
            await connection.execute(
                f"alter table {copy} add constraint {name} {row['constraint_definition']}"
            )
            continue
        on = f" ON {row['table_name']} USING "
        before, found, after = row["definition"].partition(on)
        if not found:
            raise Conflict(
                "projection.table_not_copied",
                f"the index {name} of {original} cannot be copied",
                value=row["name"],
            )
        made = f"{before} ON {copy} USING {after}"
        if row["name"] in indexes_last and not row["is_unique"]:
            made_last.append(made)
            continue
        await connection.execute(made)
        if row["constraint"] in ("p", "u"):
            kind = "primary key" if row["constraint"] == "p" else "unique"
            await connection.execute(
                f"alter table {copy} add constraint {name} {kind} using index {name}"
            )
    return made_last


async def _copy_privileges(connection: Connection, oid: int, copy: str) -> None:
    rows = await connection.fetch(
        """
        select privilege_type as privilege, null as column, is_grantable,
            case grantee when 0 then null else pg_get_userbyid(grantee) end as grantee
        from pg_class, aclexplode(relacl) where oid = $1 and grantee <> relowner
        union all
        select privilege_type, attname, is_grantable,
            case grantee when 0 then null else pg_get_userbyid(grantee) end
        from pg_attribute, aclexplode(attacl) where attrelid = $1
        """,
        oid,
    )
    for row in rows:
        columns = "" if row["column"] is None else f" ({quoted(row['column'])})"
        grantee = "public" if row["grantee"] is None else quoted(row["grantee"])
        option = " with grant option" if row["is_grantable"] else ""
        await connection.execute(
            f"grant {row['privilege']}{columns} on {copy} to {grantee}{option}"
        )


# --- exchanging ---------------------------------------------------------------------------


async def exchange(connection: Connection, side: SideTables) -> None:
    """Put the copies in the place of the originals, and drop these and the schema.

    Inside the caller's transaction, which holds the tables alone from here to its end.

    Raises
    ------
    Unavailable
        ``projection.tables_in_use``: somebody reads them; nothing has happened
    Conflict
        ``projection.table_not_copied``: something hangs on a table that its copy does not have
    """
    await _lock(connection, side)
    views = await _views(connection, side)
    retired = f"{side.schema}_old"
    async with connection.transaction():
        await connection.execute(f"create schema {quoted(retired)}")
        for table in side.tables:
            await connection.execute(
                f"alter table {side.live_name(table)} set schema {quoted(retired)}"
            )
            await connection.execute(
                f"alter table {side.name(table)} set schema {quoted(side.live)}"
            )
        for view in views:
            await connection.execute(view)
        try:
            for table in side.tables:
                await connection.execute(f"drop table {quoted(retired)}.{quoted(table)}")
        except asyncpg.DependentObjectsStillExistError as error:
            raise Conflict(
                "projection.table_not_copied",
                f"something hangs on a table that is to be exchanged: {error.detail}",
                hint="only views may",
                value=list(side.tables),
            ) from error
        await connection.execute(f"drop schema {quoted(retired)}")
        await connection.execute(f"drop schema {quoted(side.schema)} cascade")


async def _lock(connection: Connection, side: SideTables) -> None:
    names = ", ".join(map(side.live_name, side.tables))
    each_ms = max(1, round(1000 * LOCK_WAIT_S / len(side.tables)))
    await connection.execute(f"set local lock_timeout = {each_ms}")
    try:
        async with connection.transaction():
            await connection.execute(f"lock table {names} in access exclusive mode")
    except asyncpg.LockNotAvailableError as error:
        raise Unavailable(
            "projection.tables_in_use",
            f"somebody reads {names} all the time",
            hint="the exchange waits for a moment without a reader",
            limit=LOCK_WAIT_S,
        ) from error


async def _views(connection: Connection, side: SideTables) -> list[str]:
    """Return the statements that make the views on the originals again, reading bare names.

    Bare, because the search path of `connection` begins with where the originals are.
    """
    rows = await connection.fetch(
        """
        select distinct format('%I.%I', n.nspname, v.relname) as name, v.relkind::text as kind,
            pg_get_viewdef(v.oid) as definition, v.reloptions as options
        from pg_depend d join pg_rewrite r on r.oid = d.objid
        join pg_class v on v.oid = r.ev_class join pg_namespace n on n.oid = v.relnamespace
        where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
            and d.refobjid = any($1::text[]::regclass[])
        order by name
        """,
        [side.live_name(table) for table in side.tables],
    )
    statements = []
    for row in rows:
        if row["kind"] != "v":
            raise Conflict(
                "projection.table_not_copied",
                f"{row['name']} reads a table that is to be exchanged, and is no plain view",
                value=row["name"],
            )
        options = f" with ({', '.join(row['options'])})" if row["options"] else ""
        statements.append(f"create or replace view {row['name']}{options} as {row['definition']}")
    return statements


# --- those who read -----------------------------------------------------------------------

Snapshot = tuple[int, object, object]


async def wait_for_older_snapshots(
    connection: Connection, blocker_pid: int, timeout_s: float
) -> bool:
    """Return whether within `timeout_s` all were gone who cannot see what is committed by now.

    Whoever reads in a snapshot that is older than the copies' last rows would find too few of
    them after the exchange. Those who wait for `blocker_pid` are no matter: they look again.

    Parameters
    ----------
    connection : one that is in no transaction, in which the server would show one state for ever
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    first = await _snapshots(connection, blocker_pid)
    while first:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
        first &= await _snapshots(connection, blocker_pid)
    return True


async def _snapshots(connection: Connection, blocker_pid: int) -> set[Snapshot]:
    rows = await connection.fetch(
        """
        select pid, backend_start, xact_start,
            case wait_event_type when 'Lock' then pg_blocking_pids(pid) end as blockers
        from pg_stat_activity
        where datname = current_database() and backend_type = 'client backend'
            and backend_xmin is not null and pid not in (pg_backend_pid(), $1)
        """,
        blocker_pid,
    )
    waiting = _waiting_for(blocker_pid, {row["pid"]: row["blockers"] or () for row in rows})
    return {
        (row["pid"], row["backend_start"], row["xact_start"])
        for row in rows
        if row["pid"] not in waiting
    }


def _waiting_for(blocker_pid: int, blockers: dict[int, Iterable[int]]) -> set[int]:
    waiting = {blocker_pid}
    while more := {pid for pid, by in blockers.items() if waiting & set(by)} - waiting:
        waiting |= more
    return waiting
