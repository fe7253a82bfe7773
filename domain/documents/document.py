"""Documents: revisions of designs, certificates and instructions, each by its content's hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never, get_args

from domain.deciders import Decider
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import event_type, format_time
from domain.identifiers import check_identifier
from domain.texts import (
    NAME_LENGTH_MAX,
    TITLE_LENGTH_MAX,
    check_media_type,
    check_note,
    check_sha256,
    check_text,
)
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem

SIZE_BYTES_MAX: Final = 2**53 - 1
REVISIONS_MAX: Final = 1_000


def document_stream(document_id: str) -> str:
    """Return the stream of a document, with all its revisions."""
    return f"document:{document_id}"


def revision_name(document_id: str, revision: str) -> str:
    """Return how other events name a revision: ``DRW-7@B``."""
    return f"{document_id}@{revision}"


def check_revision_name(name: str) -> str:
    """Return `name` when it can name a document's revision.

    Raises
    ------
    InvalidInput
        ``document.malformed_revision_name``, ``document.malformed_name``,
        ``revision.malformed_name``
    """
    document_id, separator, revision = name.partition("@")
    if not separator:
        raise InvalidInput(
            "document.malformed_revision_name",
            f"{name!r:.140} names no revision of a document",
            hint="the document, '@' and its revision, such as DRW-7@B",
            value=name[:140],
        )
    check_identifier("document", document_id)
    check_identifier("revision", revision)
    return name


# --- events -------------------------------------------------------------------------------


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


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ReleaseDocument:
    """Make a revision valid; see `DocumentReleased`."""

    document_id: str
    revision: str
    kind: DocumentKind
    title: str
    sha256: str
    size_bytes: int
    media_type: str
    part_number: str | None
    effective_from: datetime
    effective_to: datetime | None = None


@dataclass(frozen=True)
class SupersedeDocument:
    """Let `by_revision`, which is released, take the place of `revision`."""

    document_id: str
    revision: str
    by_revision: str


@dataclass(frozen=True)
class WithdrawDocument:
    """Say that a revision must not be used any more."""

    document_id: str
    revision: str
    reason: str


DocumentCommand = ReleaseDocument | SupersedeDocument | WithdrawDocument


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revision:
    """A revision that was released, and what became of it since.

    `superseded_by` is the revision that took its place; a withdrawn one may have been
    superseded before.
    """

    released: DocumentReleased
    superseded_by: str | None = None
    withdrawn: bool = False


@dataclass(frozen=True)
class Document:
    """A document by its revisions, in the order of their release; without any nobody knows it."""

    revisions: Mapping[str, Revision] = field(default_factory=lambda: MappingProxyType({}))


def get_revision(document_id: str, name: str, document: Document) -> Revision:
    """Return the released revision `name` of `document`.

    Raises
    ------
    NotFound
        ``document.revision_unknown``
    """
    found = document.revisions.get(name)
    if found is None:
        raise NotFound(
            "document.revision_unknown",
            f"revision {name!r} of document {document_id!r} is not released",
            hint=f"released: {', '.join(list(document.revisions)[-10:]) or 'none'}",
            value=name,
        )
    return found


def revision_in_effect(document: Document, at: datetime) -> Revision | None:
    """Return the revision that what is made at `at` is made to, or None: there is none.

    A revision is in effect from its `effective_from` until its `effective_to`, or until the
    revision that superseded it takes effect, whichever comes first; never once it is withdrawn.
    Of several the one that took effect last.
    """
    candidates = [
        revision
        for revision in document.revisions.values()
        if not revision.withdrawn and _in_effect(document, revision, at)
    ]
    return max(candidates, key=lambda found: found.released.effective_from, default=None)


def _in_effect(document: Document, revision: Revision, at: datetime) -> bool:
    released = revision.released
    if at < released.effective_from:
        return False
    if released.effective_to is not None and at >= released.effective_to:
        return False
    if revision.superseded_by is None:
        return True
    return at < document.revisions[revision.superseded_by].released.effective_from


# --- decisions ----------------------------------------------------------------------------


def decide(command: DocumentCommand, document: Document) -> tuple[DocumentEvent, ...]:
    """Return the events `command` causes on `document`; none when it already is so.

    Raises
    ------
    CommandRejected
        ``document.revision_exists``, ``document.kind_differs``, ``document.superseded``,
        ``document.superseded_by_itself``, ``document.withdrawn``, ``document.too_many_revisions``
    NotFound
        ``document.revision_unknown``
    InvalidInput
        ``document.malformed_name``, ``revision.malformed_name``, ``document.size``,
        ``document.effectivity``, ``event.naive_time``, ``sha256.malformed``,
        ``media_type.malformed``, ``text.empty``, ``text.too_long``
    """
    match command:
        case ReleaseDocument():
            return _release(command, document)
        case SupersedeDocument():
            return _supersede(command, document)
        case WithdrawDocument(revision=name, reason=reason):
            revision = get_revision(command.document_id, name, document)
            reason = check_text("reason", reason)
            if revision.withdrawn:
                raise _withdrawn(command.document_id, name)
            return (DocumentWithdrawn(command.document_id, name, reason),)
        case _:
            assert_never(command)


def _release(command: ReleaseDocument, document: Document) -> tuple[DocumentEvent, ...]:
    released = _checked(command)
    name = revision_name(command.document_id, command.revision)
    known = document.revisions.get(command.revision)
    if known is not None:
        if known.withdrawn:
            raise _withdrawn(command.document_id, command.revision)
        if known.released == released:
            return ()
        raise CommandRejected(
            "document.revision_exists",
            f"revision {name} is released as {known.released.title!r} with the content "
            f"{known.released.sha256}, and what is released never changes",
            hint="release the change as the next revision; a slip in its title or dates is "
            "corrected by a correction of the record",
            value=command.sha256,
            limit=known.released.sha256,
        )
    for other in document.revisions.values():
        if other.released.kind is not command.kind:
            raise CommandRejected(
                "document.kind_differs",
                f"document {command.document_id!r} is a {other.released.kind}, not a "
                f"{command.kind}",
                hint="all revisions of a document are of one kind",
                value=command.kind.value,
                limit=other.released.kind.value,
            )
    if len(document.revisions) >= REVISIONS_MAX:
        raise CommandRejected(
            "document.too_many_revisions",
            f"document {command.document_id!r} has {REVISIONS_MAX} revisions, which is the most",
            value=len(document.revisions) + 1,
            limit=REVISIONS_MAX,
        )
    return (released,)


def _checked(command: ReleaseDocument) -> DocumentReleased:
    check_identifier("document", command.document_id)
    check_identifier("revision", command.revision)
    check_sha256("the document's hash", command.sha256)
    check_media_type(command.media_type)
    title = check_note("title", command.title, TITLE_LENGTH_MAX).strip() or command.document_id
    part_number = command.part_number
    if part_number is not None:
        part_number = check_text("part number", part_number, NAME_LENGTH_MAX)
    if not 0 <= command.size_bytes <= SIZE_BYTES_MAX:
        raise InvalidInput(
            "document.size",
            f"no file has {command.size_bytes} bytes",
            value=command.size_bytes,
            limit=SIZE_BYTES_MAX,
        )
    format_time(command.effective_from)
    effective_to = command.effective_to
    if effective_to is not None:
        format_time(effective_to)
    if effective_to is not None and effective_to <= command.effective_from:
        raise InvalidInput(
            "document.effectivity",
            f"effective to {effective_to.isoformat()}, which is not after "
            f"{command.effective_from.isoformat()}",
            hint="a revision takes effect before it goes out of effect",
            value=effective_to.isoformat(),
            limit=command.effective_from.isoformat(),
        )
    return DocumentReleased(**{**vars(command), "title": title, "part_number": part_number})


def _supersede(command: SupersedeDocument, document: Document) -> tuple[DocumentEvent, ...]:
    old = get_revision(command.document_id, command.revision, document)
    new = get_revision(command.document_id, command.by_revision, document)
    if command.revision == command.by_revision:
        raise CommandRejected(
            "document.superseded_by_itself",
            f"revision {command.revision!r} cannot give way to itself",
            value=command.revision,
        )
    if old.superseded_by == command.by_revision:
        return ()
    for name, revision in ((command.revision, old), (command.by_revision, new)):
        if revision.withdrawn:
            raise _withdrawn(command.document_id, name)
        if revision.superseded_by is not None:
            raise CommandRejected(
                "document.superseded",
                f"revision {revision_name(command.document_id, name)} is superseded by "
                f"{revision.superseded_by!r} already",
                value=name,
                limit=revision.superseded_by,
            )
    return (DocumentSuperseded(command.document_id, command.revision, command.by_revision),)


def _withdrawn(document_id: str, revision: str) -> CommandRejected:
    name = revision_name(document_id, revision)
    return CommandRejected("document.withdrawn", f"revision {name} is withdrawn", value=revision)


# --- fold ---------------------------------------------------------------------------------


def evolve(document: Document, event: DocumentEvent) -> Document:
    """Return what `event` makes of `document`."""
    revisions = document.revisions
    if isinstance(event, DocumentReleased):
        return Document({**revisions, event.revision: Revision(event)})
    known = revisions.get(event.revision)
    if known is None:
        # Its release was corrected away: what followed from it has nothing to speak of.
        return document
    match event:
        case DocumentSuperseded(by_revision=by):
            if by not in revisions:
                return document
            return Document({**revisions, event.revision: replace(known, superseded_by=by)})
        case DocumentWithdrawn():
            return Document({**revisions, event.revision: replace(known, withdrawn=True)})
        case _:
            assert_never(event)


DECIDER: Final[Decider[DocumentCommand, Document, DocumentEvent]] = Decider(
    category="document",
    command_types=get_args(DocumentCommand),
    initial=Document(),
    decide=lambda command, document, _others: decide(command, document),
    evolve=evolve,
    subject=lambda command: document_stream(command.document_id),
    stream_of=lambda event: document_stream(event.document_id),
)
