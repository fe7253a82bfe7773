"""Types of documents: each with its revisions, and each revision one file by its hash."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import strawberry

from api.graphql.context import OperationContext, OperationInfo
from api.graphql.documents import enums as _enums  # noqa: F401 (describes DocumentKind)
from api.graphql.fields import field
from api.graphql.object_lists import ObjectFilterInput
from api.graphql.objects import ThreadObject, actor_of, common, object_in
from api.graphql.relay import Node, encode_id
from api.graphql.scalars import BigInt, Position, described_enum
from domain.documents.document import (
    Document as DocumentAsDecided,
)
from domain.documents.document import (
    DocumentKind,
    DocumentReleased,
    DocumentWithdrawn,
    document_stream,
    revision_in_effect,
    revision_name,
)
from eventlog.objects import LoadedObject
from projections.object_kinds import DocumentState, document_state

DOCUMENT: Final = "Document"
DOCUMENT_REVISION: Final = "DocumentRevision"
FILE_PATH: Final = "/v1/documents/"

described_enum(
    DocumentState,
    "How a document stands.",
    {
        "UNKNOWN": "Named, and nothing of it is released.",
        "RELEASED": "One of its revisions at least may be used.",
        "WITHDRAWN": "None of its revisions may be used any more.",
    },
)


@strawberry.input(
    description="Which documents are wanted; what is null or empty does not restrict."
)
class DocumentFilter(ObjectFilterInput):
    """What restricts a list of documents; each list at most 100 values."""

    states: list[DocumentState] | None = strawberry.field(
        default=None, description="Documents that stand so."
    )
    kinds: list[DocumentKind] | None = strawberry.field(
        default=None, description="Documents of these kinds."
    )
    part_numbers: list[str] | None = strawberry.field(
        default=None, description="Designs of these part numbers."
    )
    sha256: list[str] | None = strawberry.field(
        default=None, description="Documents with a revision that is one of these files."
    )


@strawberry.type(description="A revision of a document: one file, which never changes.")
class DocumentRevision(Node):
    """`domain.documents.document.Revision`."""

    loaded: strawberry.Private[LoadedObject]
    name: str = strawberry.field(
        description="Natural key: document and revision, such as `DRW-7@B`. The thread calls it "
        "`document:DRW-7@B`."
    )
    document_id: strawberry.ID = strawberry.field(description="Natural key of its document.")
    revision: str = strawberry.field(description="Its name within the document.")
    kind: DocumentKind = strawberry.field(description="What it is.")
    title: str = strawberry.field(description="What people call it.")
    sha256: str = strawberry.field(description="SHA-256 of its file, hexadecimal.")
    size_bytes: BigInt = strawberry.field(description="Size of its file, bytes.")
    media_type: str = strawberry.field(
        description="What its file is, such as `application/pdf`, as whoever released it says."
    )
    file_url: str = strawberry.field(
        description="Where its file is had, below the server's address; with the same "
        "authentication as this API."
    )
    part_number: str | None = strawberry.field(
        description="What a design is of; null: of no part number."
    )
    effective_from: datetime = strawberry.field(
        description="What is made from then on is made to it."
    )
    effective_to: datetime | None = strawberry.field(
        description="Until then; null: until it is superseded or withdrawn."
    )
    released_at: datetime = strawberry.field(description="When it was released.")
    released_by: str | None = strawberry.field(description="Who released it.")
    released_position: Position = strawberry.field(
        description="Where its release stands in the log."
    )
    superseded_by: str | None = strawberry.field(
        description="The revision that took its place; null: none did."
    )
    withdrawn: bool = strawberry.field(description="Whether it must not be used any more.")
    withdrawal_reason: str | None = strawberry.field(
        description="Why it was withdrawn; null where it was not."
    )
    in_effect: bool = strawberry.field(
        description="Whether what is made now, or at the time that was asked for, is made to it."
    )

    @field(description="Its document.")
    def document(self) -> Document:
        """Return the revision's document."""
        return Document.of(self.loaded)

    @classmethod
    def of(cls, loaded: LoadedObject, revision: str, now: datetime) -> DocumentRevision | None:
        """Return a revision of a document as the schema tells it; None where there is none."""
        document: DocumentAsDecided = loaded.state
        found = document.revisions.get(revision)
        release = next(
            (
                entry
                for entry in reversed(loaded.entries)
                if isinstance(entry.fact, DocumentReleased) and entry.fact.revision == revision
            ),
            None,
        )
        if found is None or release is None:
            return None
        withdrawal = next(
            (
                entry.fact
                for entry in reversed(loaded.entries)
                if isinstance(entry.fact, DocumentWithdrawn) and entry.fact.revision == revision
            ),
            None,
        )
        released = found.released
        name = revision_name(loaded.key, revision)
        return cls(
            id=encode_id(DOCUMENT_REVISION, name),
            loaded=loaded,
            name=name,
            document_id=strawberry.ID(loaded.key),
            revision=revision,
            kind=released.kind,
            title=released.title,
            sha256=released.sha256,
            size_bytes=BigInt(released.size_bytes),
            media_type=released.media_type,
            file_url=FILE_PATH + released.sha256,
            part_number=released.part_number,
            effective_from=released.effective_from,
            effective_to=released.effective_to,
            released_at=release.occurred_at,
            released_by=actor_of(loaded, release),
            released_position=Position(release.position),
            superseded_by=found.superseded_by,
            withdrawn=found.withdrawn,
            withdrawal_reason=None if withdrawal is None else withdrawal.reason,
            in_effect=revision_in_effect(document, loaded.valid_at or now) is found,
        )


@strawberry.type(description="A design, certificate, recipe, instruction, plan or report.")
class Document(ThreadObject):
    """`domain.documents.document.Document`."""

    document_id: strawberry.ID = strawberry.field(description="Natural key.")
    state: DocumentState = strawberry.field(description="How it stands.")
    kind: DocumentKind | None = strawberry.field(
        description="What it is; null while nothing of it is released."
    )
    title: str | None = strawberry.field(description="Title of its latest revision.")
    part_number: str | None = strawberry.field(
        description="Part number that its latest revision is of; null: of none."
    )

    @classmethod
    def of(cls, loaded: LoadedObject) -> Document:
        """Return a document as the schema tells it."""
        document: DocumentAsDecided = loaded.state
        latest = next(reversed(list(document.revisions.values())), None)
        return cls(
            **common(DOCUMENT, loaded),
            document_id=strawberry.ID(loaded.key),
            state=document_state(document),
            kind=None if latest is None else latest.released.kind,
            title=None if latest is None else latest.released.title,
            part_number=None if latest is None else latest.released.part_number,
        )

    @field(description="Its revisions in the order of their release, at most 1000.")
    def revisions(self, info: OperationInfo) -> list[DocumentRevision]:
        """Return every revision of the document."""
        now = info.context.now
        told = (DocumentRevision.of(self.loaded, name, now) for name in self.loaded.state.revisions)
        return [revision for revision in told if revision is not None]

    @field(description="The revision called so; null where it is not released.")
    def revision(
        self,
        info: OperationInfo,
        name: Annotated[str, strawberry.argument(description="Its name, such as `B`.")],
    ) -> DocumentRevision | None:
        """Return one revision of the document."""
        return DocumentRevision.of(self.loaded, name, info.context.now)

    @field(description="The revision to which is made what is made at a time; null: there is none.")
    def revision_in_effect(
        self,
        info: OperationInfo,
        at: Annotated[
            datetime | None,
            strawberry.argument(
                description="When; null: now, or when the document is asked as of."
            ),
        ] = None,
    ) -> DocumentRevision | None:
        """Return the revision in effect."""
        now = info.context.now
        moment = at or self.loaded.valid_at or now
        found = revision_in_effect(self.loaded.state, moment.astimezone(UTC))
        if found is None:
            return None
        return DocumentRevision.of(self.loaded, found.released.revision, now)

    def thread_keys(self) -> list[str]:
        """Return what the thread calls its revisions."""
        revisions = self.loaded.state.revisions
        return [f"{self.loaded.stream}@{name}" for name in revisions] or [self.loaded.stream]


# --- finding --------------------------------------------------------------------------------


async def find_document(context: OperationContext, key: str, as_of: Any = None) -> Document | None:
    """Return the document called `key`; as `api.graphql.objects.object_in`."""
    found = await object_in(context, document_stream(key), as_of)
    return None if found is None else Document.of(found)


async def find_document_revision(
    context: OperationContext, key: str, as_of: Any = None
) -> DocumentRevision | None:
    """Return the revision called ``DRW-7@B``; as `api.graphql.objects.object_in`."""
    document_id, _, revision = key.partition("@")
    found = await object_in(context, document_stream(document_id), as_of)
    return None if found is None else DocumentRevision.of(found, revision, context.now)


async def revision_named(
    context: OperationContext, name: str | None, as_of: Any
) -> DocumentRevision | None:
    """Return the revision that another object names; None where it names none."""
    return None if name is None else await find_document_revision(context, name, as_of)
