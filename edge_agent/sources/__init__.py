"""The kinds of source: one file each, found by being here.

A module of this package defines ``KIND``, the word for it in a configuration, and ``configure``,
which reads its own keys and returns the source; nothing else has to be edited.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Protocol, cast

from domain.asset_model import AssetType
from edge_agent.readings import Source
from edge_agent.yaml_section import Section


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may know of the whole."""

    asset: str
    asset_type: AssetType
    data_dir: Path


class SourceKind(Protocol):
    """A module of this package."""

    KIND: str

    def configure(self, section: Section, context: SourceContext) -> Source | None:
        """Return the source that `section` declares, or None after noting what is wrong."""


@cache
def source_kinds() -> dict[str, SourceKind]:
    """Return every kind of source by its word."""
    found: dict[str, SourceKind] = {}
    for module_info in iter_modules(__path__):
        kind = cast(SourceKind, import_module(f"{__name__}.{module_info.name}"))
        if kind.KIND in found:
            raise ValueError(f"two files describe the kind of source {kind.KIND!r}")
        found[kind.KIND] = kind
    return found
