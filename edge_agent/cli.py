"""``heddle agent``: run, check, status and retry-rejected.

Importing this file costs next to nothing: each command imports what it needs.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edge_agent.agent import Progress
    from edge_agent.configuration import ConfiguredSource

app = typer.Typer(
    name="agent",
    pretty_exceptions_enable=False,
    help="Read a machine's recordings or sensors and send them to Heddle.",
    no_args_is_help=True,
)

EXIT_CODE_INVALID = 2

ConfigOption = Annotated[
    Path, typer.Option("--config", help="YAML file that declares the agent and its sources.")
]
ServerOption = Annotated[
    str | None, typer.Option("--server", help="Heddle's address. [env: HEDDLE_SERVER_URL]")
]
StateDirOption = Annotated[
    Path | None, typer.Option("--state-dir", help="Durable state. [env: HEDDLE_AGENT_DIR]")
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the recordings. [env: HEDDLE_DATA]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]


@app.command()
def run(
    config: ConfigOption,
    server: ServerOption = None,
    state_dir: StateDirOption = None,
    data: DataDirOption = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when all is read and acknowledged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the agent; with --once exit 0 when all was accepted, 1 when frames were rejected."""
    import asyncio

    from domain.errors import InvalidInput
    from edge_agent.agent import run_agent
    from edge_agent.configuration import read_configuration
    from edge_agent.settings import read_settings

    _log_to_stderr()
    with _errors_told(as_json):
        settings = read_settings(server_url=server, state_dir=state_dir, data_dir=data)
        configuration = read_configuration(config, settings.data_dir)
        endless = [source.name for source in configuration.sources if source.source.endless]
        if once and endless:
            raise InvalidInput(
                "source.endless",
                f"--once would never end: {', '.join(endless)} has no end",
                hint="declare 'samples', or leave --once out",
            )
        report = _print_json if as_json else _print_progress
        outcome = asyncio.run(run_agent(configuration, settings, once=once, report=report))
    raise typer.Exit(int(outcome))


@app.command()
def check(
    config: ConfigOption,
    data: DataDirOption = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=100, help="Rows to show.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Show the first readings of each source as delivered and in SI, and send nothing."""
    from edge_agent.configuration import read_configuration
    from edge_agent.settings import read_settings

    with _errors_told(as_json):
        settings = read_settings(data_dir=data)
        configuration = read_configuration(config, settings.data_dir)
        readings = [
            reading for source in configuration.sources for reading in _sample(source, rows)
        ]
    if as_json:
        typer.echo(json.dumps({"agent": configuration.agent, "readings": readings}, indent=2))
    else:
        _print_tables(readings)


@app.command()
def status(state_dir: StateDirOption = None, as_json: JsonOption = False) -> None:
    """Tell what waits, what was rejected or refused, and how far each source got."""
    from edge_agent.outbox import inspect_outbox
    from edge_agent.settings import read_settings

    with _errors_told(as_json):
        settings = read_settings(state_dir=state_dir)
        with inspect_outbox(settings.state_dir) as outbox:
            told: dict[str, Any] = asdict(outbox.status())
            keys = ("source", "part", "row", "code", "message", "text")
            told["refused_rows"] = [
                dict(zip(keys, row, strict=True)) for row in outbox.refused_rows(10)
            ]
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        _print_status(told)


@app.command("retry-rejected")
def retry_rejected(
    state_dir: StateDirOption = None,
    code: Annotated[str | None, typer.Option("--code", help="Only frames of this code.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Queue rejected frames again; a running agent sends them within seconds."""
    from edge_agent.outbox import inspect_outbox
    from edge_agent.settings import read_settings

    with _errors_told(as_json):
        settings = read_settings(state_dir=state_dir)
        with inspect_outbox(settings.state_dir) as outbox:
            queued = outbox.retry_rejected(code)
    typer.echo(json.dumps({"queued": queued}) if as_json else f"{queued} frames are queued again")


# --- telling ------------------------------------------------------------------------------


@contextmanager
def _errors_told(as_json: bool) -> Iterator[None]:
    """Tell an expected failure in full, without a traceback, and exit with its own code."""
    from domain.errors import HeddleError
    from edge_agent.yaml_section import ConfigurationFaults

    try:
        yield
    except HeddleError as error:
        if as_json:
            told: dict[str, Any] = {
                "code": error.code,
                "message": error.message,
                "hint": error.hint,
            }
            if isinstance(error, ConfigurationFaults):
                told["faults"] = [asdict(fault) for fault in error.faults]
            typer.echo(json.dumps({"error": told}))
        else:
            typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_CODE_INVALID) from None


def _log_to_stderr() -> None:
    """Send log lines to standard error, unless whoever embeds this command set up logging."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("heddle").setLevel(logging.INFO)


def _print_json(progress: Progress) -> None:
    typer.echo(json.dumps(asdict(progress)))


def _print_progress(progress: Progress) -> None:
    rate = progress.readings_read / progress.elapsed_s if progress.elapsed_s else 0.0
    rejected = f", {progress.frames_rejected} rejected" if progress.frames_rejected else ""
    typer.echo(
        f"{progress.elapsed_s:6.1f} s  {progress.readings_read:,} readings read ({rate:,.0f}/s)  "
        f"{progress.frames_accepted + progress.frames_duplicate:,} frames acknowledged{rejected}, "
        f"{progress.frames_pending:,} waiting ({progress.bytes_stored / 1e6:.1f} MB)",
        err=True,
    )


def _print_status(told: dict[str, Any]) -> None:
    typer.echo(
        f"agent {told['agent']}: frame {told['acknowledged_sequence']} of {told['last_sequence']} "
        f"acknowledged (ledger position {told['acknowledged_position']})\n"
        f"waiting: {told['pending_frames']} frames, {told['pending_bytes'] / 1e6:.1f} MB"
    )
    for code, count in told["rejected_counts"].items():
        typer.echo(f"rejected: {count} frames, {code}")
    for source in told["sources"]:
        where = f"{source['part']}, row {source['row']}" if source["part"] else "at its beginning"
        typer.echo(f"source {source['name']}: {where}{', ended' if source['ended'] else ''}")
        for fault, count in source["fault_counts"].items():
            typer.echo(f"  {count} x {fault}")
    for row in told["refused_rows"]:
        typer.echo(f"refused: {row['part']}:{row['row']}: {row['code']}: {row['text']!r}")


# --- sampling -----------------------------------------------------------------------------


def _sample(configured: ConfiguredSource, row_count: int) -> list[dict[str, Any]]:
    """Return the first readings of a source, one entry for each row and channel."""
    from domain.events import format_time
    from domain.frames import Quality
    from edge_agent.window import cut_windows, frame_of

    block = next(iter(configured.source.read(None)), None)
    if block is None or not len(block.rows):
        return []
    closed, still_open = cut_windows(None, block.rows.between(0, row_count), configured.window)
    asset_type = configured.asset_type
    readings: list[dict[str, Any]] = []
    for window in [*closed, *([] if still_open is None else [still_open])]:
        frame = frame_of(window, configured.header, asset_type, 1)
        for row in range(len(window)):
            moment = datetime.fromtimestamp(int(window.times_ns[row]) / 1e9, UTC)
            for index, channel in enumerate(configured.header.channels):
                quality = Quality(int(frame.qualities[index][row]))
                present = quality != Quality.MISSING
                readings.append(
                    {
                        "source": configured.name,
                        "time": format_time(moment),
                        "channel": channel.name,
                        "value": float(frame.values[index][row]) if present else None,
                        "unit": channel.unit,
                        "si": float(frame.channel_si(index)[row]) if present else None,
                        "si_unit": asset_type.channel(channel.name).si_unit,
                        "quality": quality.name,
                    }
                )
    return readings


def _print_tables(readings: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("channel", "value", "unit", "si", "si_unit", "quality")
    for (source, moment), row in groupby(readings, key=itemgetter("source", "time")):
        table = Table(*columns, title=f"{source} at {moment}")
        for reading in row:
            table.add_row(*(_cell(reading[name]) for name in columns))
        Console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)
