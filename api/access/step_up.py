"""Fresh authentications for signatures: a token that the signer has got for this very record.

He authenticates anew with his identity provider, by two factors, and hands on the token that he
gets. Its nonce, which OpenID Connect carries from the request for it into the token, names the
record and the meaning: whoever overhears it can sign nothing else with it.

References
----------
OpenID Connect Core 1.0, section 2 (``auth_time``, ``amr``, ``nonce``); RFC 8176 (2017), values of
``amr``; 21 CFR 11.200(a).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from api.access.authentication import Authenticator
from domain.errors import CommandRejected, NotAllowed
from domain.records import Meaning
from domain.signatures import COMPONENTS_MAX, Authentication, SignRecord

NO_COMPONENTS: Final = frozenset({"mfa", "mca", "rba", "user"})
"""Values of ``amr`` that say how it was authenticated, and are no component themselves."""


def nonce_of(stream: str, position: int, meaning: Meaning) -> str:
    """Return the nonce of a token that signs the event at `position` with `meaning`."""
    return hashlib.sha256(f"{stream}\n{position}\n{meaning.value}".encode()).hexdigest()


class StepUp:
    """Reads the token that a signer brings, and vouches for what it says.

    Parameters
    ----------
    peer : address of whoever asks
    """

    def __init__(self, authenticator: Authenticator, peer: str | None) -> None:
        self._authenticator = authenticator
        self._peer = peer
        self._claims: Mapping[str, Any] = {}

    async def authentication(self, token: str) -> Authentication:
        """Return what `token` proves.

        Raises
        ------
        CommandRejected
            ``signature.authentication_refused``
        Unavailable
            ``access.provider_unavailable``
        """
        try:
            claims = await self._authenticator.claims_of(token, self._peer)
            identity = await self._authenticator.of_authorization(f"Bearer {token}", self._peer)
        except NotAllowed as error:
            raise _refused(error.message) from error
        methods, moment = claims.get("amr"), claims.get("auth_time")
        if not isinstance(methods, list) or not all(isinstance(each, str) for each in methods):
            raise _refused("the token does not say by what its owner authenticated (amr)")
        if type(moment) is not int:
            raise _refused("the token does not say when its owner authenticated (auth_time)")
        try:
            authenticated_at = datetime.fromtimestamp(moment, UTC)
        except (OverflowError, ValueError, OSError):
            raise _refused("the token's auth_time is no time there is") from None
        components = sorted(set(methods) - NO_COMPONENTS)[: COMPONENTS_MAX + 1]
        self._claims = claims
        return Authentication(identity.actor, tuple(components), authenticated_at, token)

    async def verify(self, command: SignRecord) -> None:
        """Return when the token was got for `command`.

        Raises
        ------
        CommandRejected
            ``signature.authentication_refused``
        """
        nonce = self._claims.get("nonce")
        wanted = nonce_of(command.stream, command.position, command.meaning)
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), wanted.encode()):
            raise _refused("the token was got for something else (nonce)")


def _refused(why: str) -> CommandRejected:
    return CommandRejected(
        "signature.authentication_refused",
        f"nobody vouches for this authentication: {why}",
        hint="authenticate anew, by two factors, with nonce = SHA-256 of "
        "'<stream>\\n<position>\\n<MEANING>' in hex, and send the token that you get",
    )
