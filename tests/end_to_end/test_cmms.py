"""A maintenance system mirrors work orders both ways, whatever is killed meanwhile.

Real processes: `heddle serve` with its own PostgreSQL, and `python -m examples.cmms` with SQLite.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.end_to_end.processes import PATIENCE_S, Process, Server, free_port

pytestmark = pytest.mark.slow

ORDERS: Final = 12


class Cmms(Process):
    """`python -m examples.cmms`, at one address across restarts."""

    def __init__(self, folder: Path, heddle_url: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            "CMMS_PORT": str(port),
            "CMMS_HEDDLE_URL": heddle_url,
            "CMMS_DATABASE": str(folder / "cmms.sqlite3"),
        }
        super().__init__([], environment, folder / "cmms.log", module="examples.cmms")

    def start(self) -> None:
        """Start it and wait until it answers."""
        super().start()
        eventually(lambda: self._answers(), lambda: self.log)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/work-orders").status_code == 200
        except httpx.HTTPError:
            assert self.is_running, self.log
            return False

    def told(self) -> dict[str, Any]:
        """Return what it knows."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/work-orders", timeout=30).json()
        return answer

    def states(self) -> dict[str, str]:
        """Return the state of each work order, as it knows it."""
        return {order["work_order_id"]: order["state"] for order in self.told()["workOrders"]}

    def do(self, path: str, **told: Any) -> None:
        """Do something as a planner or technician does."""
        assert httpx.post(f"{self.url}{path}", json=told, timeout=30).status_code == 202


def eventually(is_so: Callable[[], bool], told: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def request(server: Server, work_order_id: str) -> None:
    """Request a work order in Heddle, as often as it takes."""
    result = server.query(
        "mutation($input: RequestWorkOrderInput!) "
        "{ requestWorkOrder(input: $input) { __typename ... on Error { code } } }",
        input={
            "idempotencyKey": f"request:{work_order_id}",
            "workOrderId": work_order_id,
            "assetId": "pump-1",
            "title": f"Look at {work_order_id}",
            "priority": "NORMAL",
        },
    )["requestWorkOrder"]
    assert result["__typename"] == "RequestWorkOrderSuccess", result


def heddle_states(server: Server) -> dict[str, str]:
    """Return the state of each work order in Heddle."""
    data = server.query("{ workOrders(first: 500) { nodes { workOrderId state } } }")
    return {node["workOrderId"]: node["state"] for node in data["workOrders"]["nodes"]}


def happened(server: Server) -> dict[str, int]:
    """Return how often each thing happened to each work order, by stream and type."""
    data = server.query(
        '{ events(first: 500, filter: {categories: ["work-order"]}) { nodes { stream type } } }'
    )
    counts: dict[str, int] = {}
    for node in data["events"]["nodes"]:
        key = f"{node['stream']} {node['type']}"
        counts[key] = counts.get(key, 0) + 1
    return counts


@pytest.fixture
def heddle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("HEDDLE_WEBHOOK_HTTP", "yes")
    monkeypatch.setenv("HEDDLE_WEBHOOK_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("HEDDLE_WEBHOOK_PORTS", "1024-65535")
    monkeypatch.setenv("HEDDLE_WEBHOOK_RETRY_S_MAX", "1")
    return Server(folder)


def test_work_orders_are_the_same_on_both_sides_whatever_is_killed(
    heddle: Server, folder: Path
) -> None:
    with heddle as server, Cmms(folder, heddle.url) as cmms:
        server.start()
        server.register("pump-1")
        names = [f"WO-{n}" for n in range(ORDERS)]
        request(server, names[0])  # before the maintenance system is there at all
        cmms.start()
        for name in names[1:4]:
            request(server, name)
        eventually(
            lambda: cmms.states() == dict.fromkeys(names[:4], "REQUESTED"),
            lambda: (cmms.told(), cmms.log, server.log),
        )

        # The maintenance system dies; what happens meanwhile waits for it.
        cmms.kill()
        for name in names[4:8]:
            request(server, name)
        cmms.start()
        eventually(
            lambda: cmms.states() == dict.fromkeys(names[:8], "REQUESTED"),
            lambda: (cmms.told(), cmms.log, server.log),
        )

        # Heddle dies while its messages are on the way; what is done meanwhile waits as well.
        for name in names[8:]:
            request(server, name)
        server.kill()
        for name in names[:8]:
            cmms.do(f"/work-orders/{name}/approve")
            cmms.do(
                f"/work-orders/{name}/schedule",
                plannedStart="2031-01-01T06:00:00Z",
                plannedEnd="2031-01-01T10:00:00Z",
                assignee="Kim",
            )
        cmms.do("/work-orders", workOrderId="CMMS-1", assetId="pump-1", title="Grease it")
        server.start()
        wanted = dict.fromkeys(names[:8], "SCHEDULED") | dict.fromkeys(names[8:], "REQUESTED")
        wanted["CMMS-1"] = "REQUESTED"
        eventually(
            lambda: heddle_states(server) == wanted == cmms.states(),
            lambda: (heddle_states(server), cmms.told(), cmms.log, server.log),
        )

        # Both die in the middle of the work.
        for n, name in enumerate(names[:8]):
            cmms.do(f"/work-orders/{name}/start")
            cmms.do(f"/work-orders/{name}/complete", labourS=1_800, note=f"done {n}")
            if n == 2:
                cmms.kill()
                cmms.start()
            if n == 5:
                server.kill()
                server.start()
        wanted |= dict.fromkeys(names[:8], "COMPLETED")
        eventually(
            lambda: heddle_states(server) == wanted == cmms.states(),
            lambda: (heddle_states(server), cmms.told(), cmms.log, server.log),
        )

        # Nothing was lost, nothing was doubled, and nothing is left to say.
        counts = happened(server)
        assert set(counts.values()) == {1}, counts
        kinds = ("requested", "approved", "scheduled", "started", "completed")
        for name in names[:8]:
            for kind in kinds:
                assert counts[f"work-order:{name} work_order.{kind}"] == 1
        assert len(counts) == 8 * len(kinds) + (ORDERS - 8) + 1
        assert all(order["outbox"] == [] for order in cmms.told()["workOrders"])
        (webhook,) = server.query(
            "{ webhooks(first: 10) { nodes { status backlog { pending dead } } } }"
        )["webhooks"]["nodes"]
        assert webhook == {"status": "ACTIVE", "backlog": {"pending": 0, "dead": 0}}


def test_what_is_not_signed_changes_nothing(heddle: Server, folder: Path) -> None:
    with heddle as server, Cmms(folder, heddle.url) as cmms:
        server.start()
        server.register("pump-1")
        cmms.start()
        request(server, "WO-1")
        eventually(lambda: "WO-1" in cmms.states(), lambda: (cmms.log, server.log))
        forged = {
            "webhook-id": str(uuid.uuid4()),
            "webhook-timestamp": str(int(time.time())),
            "webhook-signature": "v1," + "A" * 43 + "=",
        }
        body = {"data": {"data": {"workOrders": {"workOrders": [{"workOrderId": "WO-1"}]}}}}
        for headers in (forged, {}, forged | {"webhook-timestamp": "0"}):
            answer = httpx.post(f"{cmms.url}/hooks/heddle", json=body, headers=headers)
            assert answer.status_code == 401
        assert cmms.states() == {"WO-1": "REQUESTED"}
