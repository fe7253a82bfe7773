"""`heddle serve`: database, migrations, then HTTP, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
import uvloop

from api.access.authentication import check_settings
from api.app import Application, create_app, open_services
from api.database import open_database
from api.http_protocol import BoundedHttpProtocol
from api.settings import ServerSettings
from api.tracing import set_up_tracing
from api.websocket_protocol import FrameProtocol
from domain.errors import Unavailable
from migrations.run import upgrade

logger = logging.getLogger("heddle.api")

SHUTDOWN_GRACE_S: Final = 8
COLLECTOR_THRESHOLDS: Final = (20_000, 20, 50)
"""An answer of 100 objects makes some thousands: at Python's 700 each would pay for collections."""

DRAIN_S: Final = 3.0
"""Over how long open sockets are closed, one after the other."""

KEEP_ALIVE_S: Final = 30
CONNECTIONS_MAX: Final = 12_000
WEBSOCKET_MESSAGE_BYTES_MAX: Final = 256 * 1024


def serve(settings: ServerSettings) -> None:
    """Serve until told to stop; every resource is released on the way out."""
    check_settings(settings)
    _allow_connections()
    set_up_tracing("heddle-server", settings.otlp_endpoint)
    with open_database(settings) as database_url:
        upgrade(database_url)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, database_url))


def _allow_connections() -> None:
    """Let this process hold as many sockets and files as the system gives it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        logger.warning("no more than %d files and sockets may be open at once", soft)


async def _serve(settings: ServerSettings, database_url: str) -> None:
    with _listening_socket(settings) as listener:
        await _serve_on(listener, settings, database_url)


@contextmanager
def _listening_socket(settings: ServerSettings) -> Iterator[socket.socket]:
    """Yield a socket bound to the settings' address, before anything else is opened."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP, so that event loops turn Nagle's delay off on its connections.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise Unavailable(
                "server.address_in_use",
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
                hint="stop who listens there, or set HEDDLE_PORT",
                value=settings.port,
            ) from error
        yield listener


async def _serve_on(listener: socket.socket, settings: ServerSettings, database_url: str) -> None:
    async with open_services(settings, database_url) as services:
        application = create_app(services)
        config = uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            lifespan="off",
            http=BoundedHttpProtocol,
            ws=FrameProtocol,
            ws_per_message_deflate=False,
            ws_max_size=WEBSOCKET_MESSAGE_BYTES_MAX,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
            server_header=False,
            proxy_headers=False,  # nobody chooses by a header from where he comes
        )
        # What lives from here on lives long: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        logger.info("serving ledger %s on %s:%d", settings.ledger, settings.host, settings.port)
        async with application.webhooks.running():
            await _Server(config, application).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which stops on a signal without raising it again.

    uvicorn re-raises the signal once it has stopped, which would cut off the closing of log and
    projections that follows. Before it stops, it closes the sockets: their clients go elsewhere.
    """

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            # A second Ctrl-C while we close must not interrupt the closing either.
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, lambda: None)

    def _stop(self) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        else:
            self.should_exit = True  # told twice: at once

    async def _drain(self) -> None:
        try:
            await self._application.drain(DRAIN_S)
        finally:
            self.should_exit = True
