"""Recordings as Parquet; see `edge_agent.history`."""

from __future__ import annotations

from typing import Final

from edge_agent.history.parquet import ParquetPart
from edge_agent.history.table import TableSource, checked, files_at, read_clock, read_columns
from edge_agent.sources import SourceContext
from edge_agent.yaml_section import Section

KIND: Final = "parquet"


def configure(section: Section, context: SourceContext) -> TableSource | None:
    """Return the recording that `section` declares, or None after noting what is wrong."""
    files = files_at(section, context)
    where: dict[str, str] = {}
    chosen = section.child("where")
    if chosen is not None:
        where = {
            column: text for column in chosen.present() if (text := chosen.text(column)) is not None
        }
    clock = read_clock(section, len(files))
    columns = read_columns(section, context)
    if not files or clock is None or not columns:
        return None
    parts = tuple(ParquetPart(file, where) for file in files)
    return checked(
        TableSource(table_parts=parts, clock=clock, mapped=tuple(columns)), section, "path"
    )
