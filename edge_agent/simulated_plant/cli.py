"""``heddle plant``: serve a simulated plant over real protocols until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(name="plant")(plant)


def plant(
    pumps: Annotated[int, typer.Option(min=1, max=100, help="How many pumps.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise; the same seed, the same.")] = 1,
    period: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Seconds between samples.")
    ] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    opcua: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: not served.")] = 4840,
    modbus: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: not served.")] = 5020,
    broker: Annotated[
        str, typer.Option(help="An MQTT broker to tell by Sparkplug B and JSON: mqtt://host.")
    ] = "",
    fault: Annotated[
        list[str] | None,
        typer.Option(help="KIND[:CHANNEL]@START+SECONDS, such as valve@300+120 (repeatable)."),
    ] = None,
    repeat: Annotated[
        float, typer.Option(min=0, help="Begin the faults again after so many seconds; 0: never.")
    ] = 0.0,
) -> None:
    """Serve a SIMULATED plant over OPC UA, Modbus TCP and MQTT, with faults on a declared schedule.

    Kinds of faults: valve, stuck, spike, nan, bad (of a channel), drop, restart (of the links).
    """
    import asyncio

    from edge_agent.simulated_plant.serving import PlantSettings, serve_plant

    settings = PlantSettings(
        pump_count=pumps,
        seed=seed,
        period_s=period,
        host=host,
        opcua_port=opcua,
        modbus_port=modbus,
        broker_url=broker,
        faults=tuple(fault or ()),
        repeat_s=repeat,
    )
    asyncio.run(serve_plant(settings, typer.echo))
