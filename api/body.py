"""Reading a request's body without ever holding more of it than is allowed."""

from __future__ import annotations

from starlette.requests import Request

from domain.errors import InvalidInput


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the body of `request`.

    Raises
    ------
    InvalidInput
        ``body.too_large`` as soon as it is known to exceed `bytes_max`
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        raise _too_large(int(declared), bytes_max)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise _too_large(size, bytes_max)
        chunks.append(chunk)
    return b"".join(chunks)


def check_content_type(request: Request, wanted: str) -> None:
    """Raise `InvalidInput` (``body.content_type``) unless the body is of the `wanted` type."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise InvalidInput(
            "body.content_type",
            f"the content type is {given or 'missing'!r}, not {wanted!r}",
            hint=f"send Content-Type: {wanted}",
            value=given,
            limit=wanted,
        )


def _too_large(size: int, bytes_max: int) -> InvalidInput:
    return InvalidInput(
        "body.too_large",
        f"the body takes {size} bytes or more, over the limit of {bytes_max}",
        hint="send less at once",
        value=size,
        limit=bytes_max,
    )
