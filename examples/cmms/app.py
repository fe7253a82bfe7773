"""The maintenance system's HTTP side: Heddle's webhook, and what planners and technicians do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.cmms.heddle import Heddle
from examples.cmms.signature import is_genuine
from examples.cmms.store import Store

BODY_BYTES_MAX: Final = 2 * 1024 * 1024


class Cmms:
    """The endpoints on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def hook(self, request: Request) -> Response:
        """Take one message of Heddle's webhook: genuine, once, and on disk before the answer."""
        body = await _body(request)
        if body is None:
            return Response(status_code=413)
        taken = await asyncio.to_thread(self._take, dict(request.headers), body)
        return Response(status_code=204 if taken else 401)

    def _take(self, headers: dict[str, str], body: bytes) -> bool:
        secret = self._store.setting("secret")
        if secret is None or not is_genuine(secret, headers, body, time.time()):
            return False  # Heddle tries again, and by then we may know the secret
        event = json.loads(body)
        told = event["data"].get("data") or {}
        orders = told.get("workOrders", {}).get("workOrders", [])
        self._store.take(headers["webhook-id"], orders)
        return True

    async def work_orders(self, _request: Request) -> Response:
        """Tell of every work order."""
        orders = await asyncio.to_thread(self._store.work_orders)
        messages = await asyncio.to_thread(self._store.messages)
        return JSONResponse({"workOrders": orders, "messages": messages})

    async def request(self, request: Request) -> Response:
        """Ask for work: Heddle is told, and tells us of it as of any other."""
        told = await request.json()
        given = {
            "assetId": told["assetId"],
            "title": told["title"],
            "priority": told.get("priority", "NORMAL"),
            "occurredAt": _now(),
        }
        return await self._noted(told["workOrderId"], "requestWorkOrder", given)

    async def approve(self, request: Request) -> Response:
        """Let work be done."""
        given = {"occurredAt": _now()}
        return await self._noted(request.path_params["id"], "approveWorkOrder", given)

    async def schedule(self, request: Request) -> Response:
        """Plan work."""
        told = await request.json()
        given = {
            "plannedStart": told["plannedStart"],
            "plannedEnd": told["plannedEnd"],
            "assignee": told.get("assignee"),
            "occurredAt": _now(),
        }
        return await self._noted(request.path_params["id"], "scheduleWorkOrder", given)

    async def start(self, request: Request) -> Response:
        """Say that work begins now."""
        given = {"assetDown": False, "occurredAt": _now()}
        return await self._noted(request.path_params["id"], "startWorkOrder", given)

    async def complete(self, request: Request) -> Response:
        """Say that work is done now."""
        told = await request.json()
        given = {
            "completedAt": _now(),
            "finding": told.get("finding", "NOT_APPLICABLE"),
            "failureMode": told.get("failureMode"),
            "replacements": [],
            "labourS": float(told["labourS"]),
            "note": told.get("note", ""),
        }
        return await self._noted(request.path_params["id"], "completeWorkOrder", given)

    async def _noted(self, work_order_id: str, mutation: str, given: dict[str, Any]) -> Response:
        await asyncio.to_thread(self._store.note, work_order_id, mutation, given)
        return Response(status_code=202)


def create_app(store: Store, heddle: Heddle) -> Starlette:
    """Return the application; while it runs, `heddle` is told what is done here."""
    cmms = Cmms(store)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(heddle.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def post(path: str, endpoint: Callable[..., Any]) -> Route:
        return Route(path, endpoint, methods=["POST"])

    return Starlette(
        routes=[
            post("/hooks/heddle", cmms.hook),
            Route("/work-orders", cmms.work_orders, methods=["GET"]),
            post("/work-orders", cmms.request),
            post("/work-orders/{id}/approve", cmms.approve),
            post("/work-orders/{id}/schedule", cmms.schedule),
            post("/work-orders/{id}/start", cmms.start),
            post("/work-orders/{id}/complete", cmms.complete),
        ],
        lifespan=lifespan,
    )


def from_environment() -> Starlette:
    """Return the application that the environment describes: see the README beside this file."""
    port = os.environ.get("CMMS_PORT", "8100")
    own_url = os.environ.get("CMMS_URL", f"http://127.0.0.1:{port}")
    store = Store(Path(os.environ.get("CMMS_DATABASE", "cmms.sqlite3")))
    heddle = Heddle(
        store,
        os.environ.get("CMMS_HEDDLE_URL", "http://127.0.0.1:8000"),
        os.environ.get("CMMS_HEDDLE_KEY"),
        f"{own_url}/hooks/heddle",
    )
    return create_app(store, heddle)


async def _body(request: Request) -> bytes | None:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            return None
    return body


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
