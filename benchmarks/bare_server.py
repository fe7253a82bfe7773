"""A Starlette application that takes bodies as the server does, and does nothing with them."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.body import read_body
from domain.frame_batches import BATCH_BYTES_MAX


async def _answer(request: Request) -> Response:
    await read_body(request, BATCH_BYTES_MAX)
    return Response(b'{"results":[]}', media_type="application/json")


async def _serve(port: int) -> None:
    config = uvicorn.Config(
        Starlette(
            routes=[
                Route("/readyz", lambda _: Response(b"{}"), methods=["GET"]),
                Route("/v1/frames", _answer, methods=["POST"]),
            ]
        ),
        log_level="warning",
        access_log=False,
        lifespan="off",
        http="httptools",
        ws="none",
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
