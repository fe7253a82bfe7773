"""Who may come in at an endpoint that is not GraphQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection

from api.access.identity import Identity
from api.access.requirements import denied
from api.access.rights import Right
from api.headers import read_headers
from api.services import Services
from domain.errors import NotAllowed

Admit = Callable[[HTTPConnection], Awaitable[None]]
"""Raises `NotAllowed` unless whoever asks may come in."""


async def anybody(_request: HTTPConnection) -> None:
    """Let anybody in."""


async def identify(services: Services, request: HTTPConnection) -> Identity:
    """Return who sends `request`.

    Raises
    ------
    NotAllowed, InvalidInput, Unavailable
        as `Authenticator.identify`
    """
    peer = None if request.client is None else request.client.host
    return await services.authenticator.identify(read_headers(request.scope), peer)


def readers_of_everything(services: Services) -> Admit:
    """Return what lets in whoever may read and sees the whole ledger: its log names all of it."""

    async def admit(request: HTTPConnection) -> None:
        identity = await identify(services, request)
        if Right.READ not in identity.rights:
            raise denied(request.url.path, Right.READ, identity)
        if not identity.sees_everything:
            raise NotAllowed(
                "access.denied",
                f"{request.url.path} tells of the whole ledger, of which {identity.actor} sees "
                "a part",
                hint="ask for an identity that is bound to no location",
                value=request.url.path,
            )

    return admit
