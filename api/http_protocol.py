"""uvicorn's HTTP protocol with bounds that it lacks: on the size of headers, and on their time."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES_MAX: Final = 32 * 1024
"""Of a request's line and headers together; a token of an identity provider takes some kB."""

HEADERS_MAX: Final = 100
HEADERS_S_MAX: Final = 10.0
"""The headers of a request have to arrive within so long, counted from its first byte."""

KERNEL_UNSENT_BYTES_MAX: Final = 128 * 1024
"""Bytes that the kernel takes and has not sent: without a bound it holds megabytes a client."""

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
)
_BODY: Final = (
    b'{"type":"urn:heddle:error:headers.too_large","title":"the headers take more than %d bytes, '
    b'or are more than %d","status":431,"code":"headers.too_large"}'
) % (HEADER_BYTES_MAX, HEADERS_MAX)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. A client that dawdles over its headers is dropped without an answer."""

    _header_bytes = 0
    _in_headers = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        bound_unsent(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        if self._in_headers:
            if self._timer is None:
                self._wait_for_headers()
            self._header_bytes += len(data)
        super().data_received(data)
        # Only what is still no whole head counts: a body may have come with it.
        if self._in_headers and self._header_bytes > HEADER_BYTES_MAX:
            self._refuse()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_headers = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        super().on_header(name, value)
        if len(self.headers) > HEADERS_MAX:
            self._refuse()

    def on_headers_complete(self) -> None:
        """Start to serve the request."""
        self._in_headers = False
        self._header_bytes = 0
        self._stop_waiting()
        size = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        if size > HEADER_BYTES_MAX or len(self.headers) > HEADERS_MAX:
            self._refuse()
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request; what follows is the head of the next one."""
        if self.cycle is not None:
            super().on_message_complete()
        self._in_headers = True

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; there is none of a request that was refused."""
        if self.cycle is not None:
            super().on_body(body)

    def _wait_for_headers(self) -> None:
        self._timer = self.loop.call_later(HEADERS_S_MAX, self._drop)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self) -> None:
        self._timer = None
        if self._in_headers and not self.transport.is_closing() and not self._is_answering():
            self.transport.close()

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_LARGE % (len(_BODY), _BODY))
            self.transport.close()


def bound_unsent(transport: asyncio.BaseTransport) -> None:
    """Have the kernel hold little for a client that reads slowly: `KERNEL_UNSENT_BYTES_MAX`."""
    connection = transport.get_extra_info("socket")
    option: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # not on every system
    if option is None or connection is None:
        return
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, option, KERNEL_UNSENT_BYTES_MAX)
