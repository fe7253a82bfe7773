"""Names of nodes of the thread that come from outside, such as the cause of a quarantine."""

from __future__ import annotations

from domain.documents.document import check_revision_name
from domain.errors import InvalidInput
from domain.identifiers import check_identifier
from domain.thread import NODE_KIND_OF_CATEGORY


def check_node(key: str) -> str:
    """Return `key` when it can name a node: ``inspection:I-7``, ``document:DRW-7@B``.

    Raises
    ------
    InvalidInput
        ``node.unknown_category``, ``<category>.malformed_name``
    """
    category, _, name = key.partition(":")
    if category not in NODE_KIND_OF_CATEGORY:
        raise InvalidInput(
            "node.unknown_category",
            f"{key!r:.100} names no kind of object",
            hint="one of " + ", ".join(NODE_KIND_OF_CATEGORY) + ", a colon and a name",
            value=key[:100],
        )
    if category == "document" and "@" in name:
        check_revision_name(name)
    else:
        check_identifier(category.replace("-", "_"), name)
    return key
