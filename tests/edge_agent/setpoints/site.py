"""A site for tests of set-points: an OPC UA server as the device, a key that signs, an agent."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.server.server import Server

from domain.asset_types import asset_type
from domain.directives import Directive, SetpointDirective, encode_directive, signed_text
from domain.frames import Quality
from edge_agent.configuration import AgentConfiguration, read_configuration
from edge_agent.live import Connection, DeliveredChannel
from edge_agent.live.window import ChannelWindow, Window
from edge_agent.outbox import AgentCommand, Outbox, open_outbox
from edge_agent.setpoints import LatestValues, SetpointApplier
from edge_agent.settings import Settings
from edge_agent.uplink.directives import DirectiveStream
from edge_agent.uplink.http import open_http_transport
from edge_agent.uplink.transport import StreamMessage
from eventlog.transparency.notes import SigningKey

AGENT: Final = "edge-1"
L_PER_MIN: Final = 1 / 60_000
KEY: Final = SigningKey.generate("heddle.example/plant-1")
OTHER_KEY: Final = SigningKey.generate("heddle.example/plant-1")

logging.getLogger("asyncua").setLevel(logging.CRITICAL)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def yaml_of(url: str, **changes: str) -> str:
    """Return a configuration whose one set-point has `changes` to its lines."""
    setpoint = {
        "mode": "closed-loop",
        "range": "{min: 10, max: 40}",
        "age_s_max": "120",
        "interlocks": "[{channel: pressure, unit: bar, min: 1, max: 4, age_s_max: 5}]",
        "rate": "{change_max: 10, every_s: 30, feedback: flow, age_s_max: 5}",
        "tolerance": "0.01",
    } | changes
    lines = "\n".join(f"    {name}: {text}" for name, text in setpoint.items() if text)
    head = f"""\
        agent: {AGENT}
        connections:
          plc-1: {{kind: opcua, url: "{url}", timeout_s: 2}}
        sources:
          - kind: opcua
            connection: plc-1
            asset: pump-7
            asset_type: skab-pump-loop
            window: {{seconds: 0.2, readings: 1000}}
            channels:
              flow: {{node: "ns=2;s=Flow", unit: l/min}}
        directives:
          keys: ["{KEY.verifier.vkey}"]
        setpoints:
          - asset: pump-7
            asset_type: skab-pump-loop
            setpoint: flow
            connection: plc-1
            unit: l/min
            target: {{node: "ns=2;s=Setpoint"}}
    """
    return textwrap.dedent(head).rstrip() + "\n" + lines + "\n"


class Device:
    """A controller with a flow and its set-point, which somebody else set to 20 l/min."""

    def __init__(self) -> None:
        self.url = f"opc.tcp://127.0.0.1:{free_port()}/plant"
        self.server = Server()
        self.setpoint: Any = None

    async def open(self) -> None:
        await self.server.init()
        self.server.set_endpoint(self.url)
        index = await self.server.register_namespace("urn:heddle:test-site")
        pump = await self.server.nodes.objects.add_object(index, "Pump")
        node = ua.NodeId.from_string(f"ns={index};s=Setpoint")
        self.setpoint = await pump.add_variable(node, "Setpoint", 20.0)
        await self.setpoint.set_writable()
        await pump.add_variable(ua.NodeId.from_string(f"ns={index};s=Flow"), "Flow", 20.0)
        await self.server.start()

    async def value(self) -> float:
        """Return where the set-point stands, l/min."""
        return float(await self.setpoint.read_value())


@asynccontextmanager
async def device() -> AsyncIterator[Device]:
    running = Device()
    await running.open()
    try:
        yield running
    finally:
        await running.server.stop()


@dataclass
class Site:
    """An agent's set-points on a device, and what is told and reported."""

    device: Device
    configuration: AgentConfiguration
    outbox: Outbox
    values: LatestValues
    applier: SetpointApplier
    stream: DirectiveStream
    kill_switch: Path
    now_s: float = 1_000.0
    position: int = 100

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    def live(
        self, quality: Quality = Quality.GOOD, *, late_s: float = 0.0, **channels: float
    ) -> None:
        """Let the channels have brought their values, in the units of the asset's type."""
        units = {"flow": "l/min", "pressure": "bar"}
        time_ns = time.time_ns() - round(late_s * 1e9)
        self.values.observe(
            [
                Window(
                    "pump-7",
                    "pump-7",
                    asset_type("skab-pump-loop"),
                    tuple(
                        ChannelWindow(
                            DeliveredChannel(name, units[name]),
                            np.array([time_ns], np.int64),
                            np.array([value]),
                            np.array([quality], np.uint8),
                        )
                        for name, value in channels.items()
                    ),
                )
            ]
        )

    def directive(self, value_l_per_min: float = 25.0, **changes: Any) -> SetpointDirective:
        """Return the next directive."""
        self.position += 1
        now = datetime.now(UTC).replace(microsecond=0)
        made = SetpointDirective(
            ledger="plant-1",
            position=self.position,
            agent=AGENT,
            issued_at=now,
            expires_at=now + timedelta(seconds=300),
            asset_id="pump-7",
            setpoint="flow",
            value=value_l_per_min * L_PER_MIN,
            proposal_id=None,
            proposed_by=None,
            approved_by="user:mara",
        )
        return replace(made, **changes)

    async def tell(self, directive: Directive, key: SigningKey = KEY) -> None:
        """Let the server tell `directive`."""
        await self.stream.take(StreamMessage(directive.position, signed(directive, key)))

    def reports(self) -> list[AgentCommand]:
        """Return what waits to be reported."""
        return [one.command for one in self.outbox.pending_commands(1_000, 10**9)]

    def codes(self) -> list[str]:
        """Return the codes of what was declined and reported so."""
        return [
            str(one.input["code"]) for one in self.reports() if one.mutation == "declineSetpoint"
        ]


def signed(directive: Directive, key: SigningKey = KEY) -> str:
    """Return the message in which a server whose key is `key` tells `directive`."""
    encoded = encode_directive(directive)
    signature = key.sign(signed_text(encoded))
    return json.dumps(
        {
            "directive": encoded,
            "key": f"{signature.name}+{signature.key_id.hex()}",
            "signature": base64.b64encode(signature.value).decode(),
        }
    )


@asynccontextmanager
async def site(folder: Path, running: Device, **changes: str) -> AsyncIterator[Site]:
    """Open an agent of `folder` on the device; its live values are good at first."""
    file = folder / "agent.yaml"
    file.write_text(yaml_of(running.url, **changes))
    configuration = read_configuration(file, folder)
    settings = Settings(state_dir=folder / "state")
    with open_outbox(settings.state_dir, 10**9) as outbox:
        outbox.adopt(AGENT, {}, live={"pump-7": "pump-7"})
        async with open_http_transport(settings) as transport, connected(configuration) as known:
            opened: Site | None = None

            def now_s() -> float:
                return 0.0 if opened is None else opened.now_s

            values = LatestValues(now_s)
            applier = SetpointApplier(
                AGENT, outbox, values, lambda: known, settings.kill_switch, now_s=now_s
            )
            applier.declare(configuration.directing.setpoints)
            applier.recover()
            stream = DirectiveStream(AGENT, transport, applier, settings)
            stream.configure(configuration.directing.keys, {})
            opened = Site(
                running, configuration, outbox, values, applier, stream, settings.kill_switch
            )
            opened.live(flow=20.0, pressure=2.0)
            yield opened


@asynccontextmanager
async def connected(configuration: AgentConfiguration) -> AsyncIterator[dict[str, Connection]]:
    """Run the connections of `configuration`, without sources."""
    known = {one.name: one.connection for one in configuration.connections}
    tasks = [asyncio.create_task(connection.run([])) for connection in known.values()]
    try:
        await asyncio.sleep(0.5)
        yield known
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
