"""Queries of documents: one by its natural key, a revision by its name, and pages of them."""

from __future__ import annotations

from typing import Annotated

import strawberry

from api.access.rights import Right
from api.graphql.as_of import AsOfArgument
from api.graphql.context import MinPosition, OperationInfo
from api.graphql.documents.types import (
    Document,
    DocumentFilter,
    DocumentRevision,
)
from api.graphql.fields import field
from api.graphql.object_lists import OrderBy, object_page
from api.graphql.objects import asked_object
from api.graphql.relay import After, Connection, First
from domain.documents.document import check_revision_name, document_stream
from domain.identifiers import check_identifier
from projections.objects import ObjectOrder


@strawberry.type
class DocumentQueries:
    """Root fields."""

    @field(
        right=Right.READ,
        description="The document with this natural key; null where nothing is known of it.",
    )
    async def document(
        self,
        info: OperationInfo,
        document_id: Annotated[
            strawberry.ID, strawberry.argument(description="Natural key of the document.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Document | None:
        """Return one document."""
        check_identifier("document", document_id)
        found = await asked_object(info.context, document_stream(document_id), as_of, min_position)
        return None if found is None else Document.of(found)

    @field(right=Right.READ, description="Documents.")
    async def documents(
        self,
        info: OperationInfo,
        first: First,
        after: After = None,
        filter: Annotated[
            DocumentFilter | None,
            strawberry.argument(description="Which documents are wanted."),
        ] = None,
        order_by: OrderBy = ObjectOrder.KEY,
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> Connection[Document]:
        """Return a page of documents."""
        given = filter or DocumentFilter()
        return await object_page(
            info.context,
            "document",
            name="documents",
            first=first,
            after=after,
            order=order_by,
            wanted=given.wanted(
                given.states,
                {
                    "kind": given.kinds,
                    "part_number": given.part_numbers,
                    "sha256": given.sha256,
                },
            ),
            as_of=as_of,
            min_position=min_position,
            node=Document.of,
        )

    @field(
        right=Right.READ,
        description="The revision of a document that is called so; null where it is not released.",
    )
    async def document_revision(
        self,
        info: OperationInfo,
        name: Annotated[
            str, strawberry.argument(description="Document and revision, such as `DRW-7@B`.")
        ],
        as_of: AsOfArgument = None,
        min_position: MinPosition = None,
    ) -> DocumentRevision | None:
        """Return one revision of a document."""
        document_id, _, revision = check_revision_name(name).partition("@")
        context = info.context
        found = await asked_object(context, document_stream(document_id), as_of, min_position)
        return None if found is None else DocumentRevision.of(found, revision, context.now)
