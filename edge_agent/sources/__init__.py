"""The kinds of source: one file each, found by being here.

A module of this package defines ``KIND``, the word for it in a configuration (or ``KINDS``, where
several share everything), and ``configure``, which reads its own keys and returns the source. A
live kind, whose sources share a connection, also defines ``configure_connection``, and
``configure_target`` where its devices can be written. Nothing else has to be edited.

Every module is imported whatever is declared: a protocol's library is imported where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Protocol, cast, runtime_checkable

from domain.asset_model import AssetType
from edge_agent.live import Connection, LiveSource, Target
from edge_agent.readings import Source
from edge_agent.yaml_section import Section


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may know of the whole.

    Parameters
    ----------
    data_dir : to which paths of recordings are relative
    connection : of a live source, the connection it names
    agent : the agent's name
    """

    asset: str
    asset_type: AssetType
    data_dir: Path
    connection: Connection | None = None
    agent: str = field(default="agent")


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """What a connection may know of the whole.

    Parameters
    ----------
    agent : the agent's name
    folder : of the configuration; paths of certificates and keys are relative to it
    """

    agent: str
    folder: Path


class SourceKind(Protocol):
    """A module of this package."""

    def configure(self, section: Section, context: SourceContext) -> Source | LiveSource | None:
        """Return the source that `section` declares, or None after noting what is wrong."""


@runtime_checkable
class LiveKind(SourceKind, Protocol):
    """A module whose sources deliver by themselves, over a connection that they may share."""

    def configure_connection(
        self, section: Section, name: str, context: ConnectionContext
    ) -> Connection | None:
        """Return the connection that `section` declares, or None after noting what is wrong."""


@runtime_checkable
class WritableKind(LiveKind, Protocol):
    """A live kind whose devices can be written."""

    def configure_target(self, section: Section, context: SourceContext) -> Target | None:
        """Return what `section` says can be written, or None after noting what is wrong."""


@cache
def source_kinds() -> dict[str, SourceKind]:
    """Return every kind of source by its word."""
    found: dict[str, SourceKind] = {}
    for module_info in iter_modules(__path__):
        module = import_module(f"{__name__}.{module_info.name}")
        for word in _words(module):
            if word in found:
                raise ValueError(f"two files describe the kind of source {word!r}")
            found[word] = cast(SourceKind, module)
    return found


def live_kinds() -> dict[str, LiveKind]:
    """Return every kind of source that needs a connection, by its word."""
    return {word: kind for word, kind in source_kinds().items() if isinstance(kind, LiveKind)}


def _words(module: ModuleType) -> tuple[str, ...]:
    kinds: tuple[str, ...] | None = getattr(module, "KINDS", None)
    return (module.KIND,) if kinds is None else kinds
