"""Mutations of documents."""

from __future__ import annotations

from api.access.rights import Right
from api.graphql.declared import Declared, answer_by_key, mutations
from api.graphql.documents.types import Document, find_document
from domain.documents.document import ReleaseDocument, SupersedeDocument, WithdrawDocument

DocumentMutations = mutations(
    "DocumentMutations",
    Declared(
        ReleaseDocument,
        Right.ENGINEER,
        "Make a revision of a document valid.",
        "The revision is released.",
    ),
    Declared(
        SupersedeDocument,
        Right.ENGINEER,
        "Let a released revision take the place of another.",
        "The revision is superseded.",
    ),
    Declared(
        WithdrawDocument,
        Right.ENGINEER,
        "Say that a revision must not be used any more.",
        "The revision is withdrawn.",
    ),
    answer=answer_by_key("document", Document, find_document),
)
