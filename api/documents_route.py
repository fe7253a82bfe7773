"""``GET /v1/documents/<sha256>``: the file of a document's revision, hashed while it is sent.

A file is had only where a released revision names it: what else lies in the store is nobody's
business here. It always comes as an attachment that no browser runs. Its hash is in its name, so
whoever has it may keep it for ever.

References
----------
RFC 9110 (2022), 8.8.3 and 13.1.2: entity tags; RFC 9530 (2024): Repr-Digest.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import mimetypes
from collections.abc import Iterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from api.access.guard import identify
from api.access.requirements import denied
from api.access.rights import Right
from api.problem import problem
from api.services import Services
from domain.documents.document import Document, Revision, revision_name
from domain.errors import HeddleError, NotFound, Unavailable
from domain.texts import check_sha256
from eventlog.database import CONNECTION_LOST
from eventlog.documents import ContentStore
from eventlog.objects import load_objects
from projections.objects import ObjectFilter, list_objects

logger = logging.getLogger("heddle.documents")

PATH: Final = "/v1/documents/{sha256}"
_EXTENSIONS: Final = {"model/step": ".step", "model/stl": ".stl"}
"""Of designs, which not every system's table has."""


def document_routes(services: Services) -> list[Route]:
    """Return the route of documents' files."""
    return [Route(PATH, DocumentFiles(services).__call__, methods=["GET", "HEAD"])]


class DocumentFiles:
    """The endpoint of documents' files."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        url = settings.documents_url or str(settings.data_dir / "documents")
        self._contents = ContentStore(url)

    async def __call__(self, request: Request) -> Response:
        """Answer with the file, or a problem that says why not."""
        sha256 = request.path_params["sha256"]
        try:
            identity = await identify(self._services, request)
            if Right.READ not in identity.rights:
                raise denied("a document's file", Right.READ, identity)
            check_sha256("the file's hash", sha256)
            name, revision = await self._released(sha256)
            tag = f'"{sha256}"'
            headers = _headers(name, revision, tag)
            if _matches(request.headers.get("if-none-match", ""), tag):
                return Response(status_code=304, headers=headers)
            size = await asyncio.to_thread(self._contents.find_size, sha256)
        except HeddleError as error:
            return problem(error)
        except CONNECTION_LOST:
            return problem(
                Unavailable("database.unavailable", "the database cannot be reached now")
            )
        if size is None:
            logger.error("documents: the file %s of %s is not in the store", sha256, name)
            return problem(
                Unavailable(
                    "documents.file_missing",
                    f"the file of {name} is not in the store",
                    hint="tell your operator: it has to be restored, or added again",
                    value=sha256,
                )
            )
        headers["Content-Length"] = str(size)
        media_type = revision.released.media_type
        if request.method == "HEAD":
            return Response(headers=headers, media_type=media_type)
        return StreamingResponse(self._pieces(sha256), headers=headers, media_type=media_type)

    async def _released(self, sha256: str) -> tuple[str, Revision]:
        """Return the name of the last revision that is this file, and the revision.

        Raises
        ------
        NotFound
            ``documents.content_unknown``: no revision that is released is this file
        """
        ledger = self._services.ledger
        wanted = ObjectFilter(attributes={"sha256": (sha256,)})
        page = await list_objects(ledger, "document", first=1, wanted=wanted)
        streams = [place.stream for place in page.places]
        loaded = await load_objects(ledger, streams) if streams else {}
        for stream, found in loaded.items():
            document: Document = found.state
            for name, revision in reversed(list(document.revisions.items())):
                if revision.released.sha256 == sha256:
                    return revision_name(stream.partition(":")[2], name), revision
        raise NotFound(
            "documents.content_unknown",
            f"no document that is released has the file {sha256}",
            hint="take the address from `fileUrl` of a revision",
            value=sha256,
        )

    def _pieces(self, sha256: str) -> Iterator[bytes]:
        """Yield the file; break off before its end where it is not what its name promises."""
        try:
            yield from self._contents.pieces(sha256)
        except HeddleError as error:
            logger.error("documents: %s is not sent to its end: %s", sha256, error)
            raise


def _headers(name: str, revision: Revision, tag: str) -> dict[str, str]:
    released = revision.released
    extension = _EXTENSIONS.get(released.media_type) or mimetypes.guess_extension(
        released.media_type
    )
    digest = base64.b64encode(bytes.fromhex(released.sha256)).decode()
    return {
        # Document and revision are named by letters, digits and '.', '-', '_' alone.
        "Content-Disposition": f'attachment; filename="{name}{extension or ""}"',
        "ETag": tag,
        "Repr-Digest": f"sha-256=:{digest}:",
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Accept-Ranges": "none",
    }


def _matches(given: str, tag: str) -> bool:
    """Whether a header If-None-Match names the file that the client has."""
    tags = {one.strip().removeprefix("W/") for one in given.split(",")}
    return tag in tags or "*" in tags
