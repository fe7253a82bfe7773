"""A server that says `accepted` to every frame and keeps none: what is measured is the agent."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys

import orjson
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from domain.frame_batches import BatchItem, decode_batch

_positions = itertools.count(1)


async def _frames(request: Request) -> Response:
    results = [
        {"index": index, "status": "accepted", "position": next(_positions)}
        for index, item in enumerate(decode_batch(await request.body()))
        if isinstance(item, BatchItem)
    ]
    return Response(orjson.dumps({"results": results}), media_type="application/json")


async def _commands(request: Request) -> Response:
    asked = orjson.loads(await request.body())["variables"]["items"]
    items = [
        {"index": index, "outcome": {"__typename": "BatchItemSuccess"}}
        for index in range(len(asked))
    ]
    told = {"data": {"batch": {"items": items}}}
    return Response(orjson.dumps(told), media_type="application/json")


async def _serve(port: int) -> None:
    config = uvicorn.Config(
        Starlette(
            routes=[
                Route("/readyz", lambda _: Response(b"{}"), methods=["GET"]),
                Route("/v1/frames", _frames, methods=["POST"]),
                Route("/graphql", _commands, methods=["POST"]),
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
