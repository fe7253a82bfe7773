"""The example of a client in Python, against a real server whose connections break."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.ipc
import pytest

from domain.asset import DesireSetpoint
from tests.api.graphql.breaking_proxy import BreakingProxy, breaking_proxy
from tests.api.graphql.server import Server, frame_of

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[3] / "examples" / "python-client"


@pytest.fixture(scope="module")
def ops() -> Iterator[Any]:
    """The generated module of the example."""
    sys.path.insert(0, str(FOLDER))
    yield import_module("heddle_client.operations")
    sys.path.remove(str(FOLDER))


@pytest.fixture
def client_type(ops: Any) -> Any:
    return import_module("heddle_client").Client


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[BreakingProxy]:
    async with breaking_proxy(server.url) as running:
        yield running


def test_the_types_are_what_the_generator_writes() -> None:
    command = [sys.executable, str(FOLDER / "generate.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert checked.returncode == 0, checked.stderr


async def test_answers_are_typed(server: Server, ops: Any, client_type: Any) -> None:
    await server.register("pump-1", "pump-2")
    await server.record(frame_of("pump-1", {"flow": ("l/min", [30.0] * 3)}))

    async with client_type(server.url) as client:
        wanted = ops.AssetFilter(lifecycles=["REGISTERED"])
        page = (await client.query(ops.ASSETS, ops.AssetsVariables(first=5, filter=wanted))).assets
        readings = await client.query(
            ops.READINGS,
            ops.ReadingsVariables(
                asset_id="pump-1",
                from_=datetime(2020, 3, 9, 12, tzinfo=UTC),
                to=datetime(2020, 3, 9, 13, tzinfo=UTC),
                channels=["flow"],
                max_points=100,
                units=[ops.ChannelUnit(channel="flow", unit="l/min")],
            ),
        )
        exported = await client.export("readings", assets="pump-1", from_="2020-03-09T00:00:00Z")

    assert [node.asset_id for node in page.nodes] == ["pump-1", "pump-2"]
    assert page.nodes[0].twin.last_reading_at == datetime(2020, 3, 9, 12, 0, 2, tzinfo=UTC)
    assert page.page_info.has_next_page is False
    (column,) = readings.asset.readings
    assert column.values == pytest.approx([30.0] * 3)
    assert pyarrow.ipc.open_stream(exported).read_all().num_rows == 3


async def test_failures_are_told_apart(server: Server, ops: Any, client_type: Any) -> None:
    refused = import_module("heddle_client").Refused
    async with client_type(server.url) as client:
        with pytest.raises(refused) as caught:
            await client.query(ops.ASSETS, ops.AssetsVariables(first=0))
        with pytest.raises(refused) as beyond:
            await anext(client.subscribe(ops.EVENTS, ops.EventsVariables(after="nonsense")))
        desired = ops.DesireSetpointInput(
            idempotency_key="d-1", asset_id="pump-9", setpoint="flow", value=1.0
        )
        result = await client.mutate(
            ops.DESIRE_SETPOINT, ops.DesireSetpointVariables(input=desired)
        )

    assert caught.value.code == "page.first"
    assert beyond.value.code == "cursor.malformed"
    assert result.desire_setpoint.code == "asset.unknown"


async def test_a_mutation_whose_answers_are_lost_is_carried_out_once(
    server: Server, proxy: BreakingProxy, ops: Any, client_type: Any
) -> None:
    given = ops.ReceiveLotInput(
        idempotency_key="r-1",
        lot_id="LOT-7",
        material="steel",
        quantity=2.0,
        unit="t",
        supplier="Nordstahl",
        supplier_lot="N-7",
    )
    before = await server.ledger.head()
    proxy.swallowed = 3

    async with client_type(proxy.url) as client:
        result = await client.mutate(ops.RECEIVE_LOT, ops.ReceiveLotVariables(input=given))

    assert proxy.cut == 3
    assert result.receive_lot.duplicate is True
    assert await server.ledger.head() == before + 1


async def test_a_subscription_goes_on_where_it_broke_off(
    server: Server, proxy: BreakingProxy, ops: Any, client_type: Any
) -> None:
    await server.register("pump-1")
    start = (await server.ask("{ log { start } }"))["log"]["start"]
    for n in range(60):
        await server.command(DesireSetpoint("pump-1", "flow", (20 + n % 7) * 1e-3 / 60))
    head = await server.ledger.head()
    proxy.bytes_max = 4_000

    positions = []
    async with (
        client_type(proxy.url) as client,
        aclosing(client.subscribe(ops.EVENTS, ops.EventsVariables(after=start))) as messages,
    ):
        async for message in messages:
            positions.append(message.events.event.position)
            if positions[-1] == head:
                break

    assert proxy.cut > 3
    assert positions == list(range(1, head + 1))


async def test_whoever_is_not_there_is_unreachable(ops: Any, client_type: Any) -> None:
    unreachable = import_module("heddle_client").Unreachable
    async with client_type("http://127.0.0.1:9", tries=2) as client:
        with pytest.raises(unreachable):
            await client.query(ops.ASSETS, ops.AssetsVariables(first=1))
        with pytest.raises(unreachable):
            await anext(client.subscribe(ops.EVENTS, ops.EventsVariables()))


async def test_the_page_shows_what_runs(server: Server, ops: Any) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    await server.register("pump-1")
    shown = code.replace("http://127.0.0.1:8000", server.url)
    shown = shown.replace(
        "after=None", f'after="{(await server.ask("{ log { start } }"))["log"]["start"]}"'
    )
    shown = shown.replace("message.events.cursor)", "message.events.cursor); break")
    shown = shown.replace("asyncio.run(main())", "")
    told: list[str] = []
    names: dict[str, Any] = {"print": lambda *what: told.append(" ".join(map(str, what)))}
    exec(compile(shown, "README.md", "exec"), names)

    await names["main"]()

    assert told[0].startswith("pump-1 NEVER_SEEN")
    assert told[1].startswith("reflected from position")
    assert told[2].startswith("asset.registered")
