"""The error tree: what went wrong, with which value, against which limit, and what to do.

::

    HeddleError
    ├── InvalidInput        a value from outside breaks a stated rule; change it and try again
    │   └── MalformedFrame  bytes that are not a frame or a batch of frames
    ├── NotFound            a name that nothing answers to
    │   └── PayloadErased   an event whose content was erased by law
    ├── CommandRejected     a command that the state of its object does not allow
    ├── Conflict            somebody else was first, or said something else under the same key
    ├── NotAllowed          whoever asks is not known, or may not do this
    ├── UnreadableEvent     a stored event that stops its reader (`domain.events`)
    │   ├── UnknownEventType    its type or version is not known to this software
    │   └── MalformedFact       its payload is none of its type and version
    └── Unavailable         not now; the same request may succeed later

Errors know neither HTTP nor GraphQL: ``api/`` maps them in one table. ``code`` is dotted and
stable for ever; clients branch on it, people read ``message`` and ``hint``.
"""

from __future__ import annotations

from typing import Any


class HeddleError(Exception):
    """An expected failure, told in full.

    Parameters
    ----------
    code : dotted, stable name of the failure, such as ``"unit.unknown"``
    message : one sentence with the offending value and the limit it broke
    hint : what the caller can do about it; may be empty
    value : the offending value as it arrived, if there is one
    limit : the limit that was broken, if there is one
    """

    def __init__(
        self, code: str, message: str, *, hint: str = "", value: Any = None, limit: Any = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.value = value
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class InvalidInput(HeddleError):
    """A value from outside breaks a stated rule."""


class MalformedFrame(InvalidInput):
    """Bytes that are not a frame, or a frame that contradicts itself."""


class NotFound(HeddleError):
    """A name that nothing answers to."""


class PayloadErased(NotFound):
    """What an event held was erased by law; that it happened is still proved."""


class CommandRejected(HeddleError):
    """A command that the state of its object does not allow."""


class Conflict(HeddleError):
    """Somebody else was first, or said something else under the same key."""


class NotAllowed(HeddleError):
    """Whoever asks is not known (any more), or may not do what is asked.

    ``access.unauthenticated`` (no valid proof of who asks), ``access.expired`` (it was valid until
    a moment ago), ``access.denied`` (who asks is known, and has no right to it).
    """


class Unavailable(HeddleError):
    """Not now; the same request may succeed later."""
