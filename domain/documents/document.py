"""Documents: revisions of designs, certificates and instructions, each by its content's hash."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def document_stream(document_id: str) -> str:
    """Return the stream of a document, with all its revisions."""
    return f"document:{document_id}"


def revision_name(document_id: str, revision: str) -> str:
    """Return how other events name a revision: ``DRW-7@B``."""
    return f"{document_id}@{revision}"


class DocumentKind(StrEnum):
    """What a document is."""

    DESIGN = "DESIGN"
    CERTIFICATE = "CERTIFICATE"
    RECIPE = "RECIPE"
    WORK_INSTRUCTION = "WORK_INSTRUCTION"
    INSPECTION_PLAN = "INSPECTION_PLAN"
    REPORT = "REPORT"


@event_type("document.released")
@dataclass(frozen=True)
class DocumentReleased:
    """A revision of a document is valid, for parts made from `effective_from` on.

    Parameters
    ----------
    sha256 : hex, of the file; `size_bytes` and `media_type` say what it is
    part_number : what a design is of, or None
    """

    document_id: str
    revision: str
    kind: DocumentKind
    title: str
    sha256: str
    size_bytes: int
    media_type: str
    part_number: str | None
    effective_from: datetime
    effective_to: datetime | None

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that the revision is valid."""
        node = f"document:{revision_name(self.document_id, self.revision)}"
        return (Standing(node, NodeState.ACTIVE),)


@event_type("document.superseded")
@dataclass(frozen=True)
class DocumentSuperseded:
    """A revision gave way to another one of the same document."""

    document_id: str
    revision: str
    by_revision: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return what superseded what."""
        old = f"document:{revision_name(self.document_id, self.revision)}"
        new = f"document:{revision_name(self.document_id, self.by_revision)}"
        return (
            Link(LinkKind.SUPERSEDED_BY, old, new),
            Standing(old, NodeState.SUPERSEDED),
        )


@event_type("document.withdrawn")
@dataclass(frozen=True)
class DocumentWithdrawn:
    """A revision must not be used any more, and nothing takes its place."""

    document_id: str
    revision: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how the revision stands."""
        node = f"document:{revision_name(self.document_id, self.revision)}"
        return (Standing(node, NodeState.RETIRED),)


DocumentEvent = DocumentReleased | DocumentSuperseded | DocumentWithdrawn
