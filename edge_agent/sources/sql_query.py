"""The answer to a query as a recording; see `edge_agent.history`."""

from __future__ import annotations

import re
from typing import Final

from edge_agent.history.sql import SQLITE, QueryPart
from edge_agent.history.table import TableSource, checked, read_clock, read_columns
from edge_agent.secrets import text_or_secret
from edge_agent.sources import SourceContext
from edge_agent.yaml_section import Section

KIND: Final = "sql"

_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,100}")


def configure(section: Section, context: SourceContext) -> TableSource | None:
    """Return the answer that `section` declares, or None after noting what is wrong."""
    driver = section.text("driver") if section.has("driver") else SQLITE
    address = text_or_secret(section, "database")
    query = section.text("query")
    clock = read_clock(section, 1)
    columns = read_columns(section, context)
    if driver is not None and not _MODULE.fullmatch(driver):
        section.fault("driver", "mapping.driver", f"{driver!r:.80} is no module of a driver")
        return None
    if address is not None and driver == SQLITE:
        path = context.data_dir / address
        if not path.is_file():
            told = f"there is no file {str(path)!r}"
            section.fault("database", "source.file_missing", told)
            return None
        address = str(path)
    if driver is None or address is None or query is None or clock is None or not columns:
        return None
    part = QueryPart(driver, address, query)
    return checked(
        TableSource(table_parts=(part,), clock=clock, mapped=tuple(columns)), section, "query"
    )
