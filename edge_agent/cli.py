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
    from edge_agent.trial import Trial, TriedReading

app = typer.Typer(
    name="agent",
    pretty_exceptions_enable=False,
    help="Read a machine's recordings or sensors and send them to Heddle.",
    no_args_is_help=True,
)

EXIT_CODE_INVALID = 2
PROTOCOL_LIBRARIES = ("asyncua", "pymodbus", "bacpypes3", "mqtt")

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
        endless += [source.name for source in configuration.live]
        if once and endless:
            raise InvalidInput(
                "source.endless",
                f"--once would never end: {', '.join(endless)} has no end",
                hint="declare 'samples', or leave --once out",
            )
        report = _print_json if as_json else _print_progress
        running = run_agent(configuration, settings, once=once, report=report, file=config)
        outcome = asyncio.run(running)
    raise typer.Exit(int(outcome))


@app.command()
def check(
    config: ConfigOption,
    data: DataDirOption = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=100, help="Rows to show.")] = 2,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=600, help="How long to listen at most.")
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Show the first readings of each source as delivered and in SI, and send nothing.

    Live sources are connected to and listened to; exit 1 when a connection failed.
    """
    import asyncio

    from edge_agent.configuration import read_configuration
    from edge_agent.settings import read_settings

    with _errors_told(as_json):
        settings = read_settings(data_dir=data)
        configuration = read_configuration(config, settings.data_dir)
        readings = [
            reading for source in configuration.sources for reading in _sample(source, rows)
        ]
        trials: list[Trial] = []
        if configuration.live:
            from edge_agent.trial import try_live_sources

            _quieten_libraries()
            trials = asyncio.run(try_live_sources(configuration, rows, seconds))
    readings += [_tried(reading) for trial in trials for reading in trial.readings]
    if as_json:
        told: dict[str, Any] = {"agent": configuration.agent, "readings": readings}
        if trials:
            told["sources"] = [
                {
                    "source": trial.source,
                    "failure": trial.failure,
                    "faults": trial.faults,
                    "silent_channels": trial.silent_channels,
                }
                for trial in trials
            ]
        typer.echo(json.dumps(told, indent=2))
    else:
        _print_tables(readings)
        for trial in trials:
            _print_trial(trial)
    if any(trial.failure for trial in trials):
        raise typer.Exit(1)


@app.command()
def browse(
    connection: Annotated[str, typer.Argument(help="Name of a connection in the configuration.")],
    config: ConfigOption,
    below: Annotated[
        str | None, typer.Option("--below", help="Where to begin, such as ns=2;s=Pump1.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=10_000, help="At most.")] = 100,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=600, help="How long at most.")
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show what a connection offers, as a piece of YAML to paste under 'channels'."""
    import asyncio

    from edge_agent.browsing import browse_connection, channels_to_paste

    with _errors_told(as_json):
        _quieten_libraries()
        kind, items = asyncio.run(browse_connection(config, connection, below, count, seconds))
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in items], indent=2))
    else:
        typer.echo(channels_to_paste(kind, items), nl=False)


@app.command()
def status(
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
    running: Annotated[
        bool, typer.Option("--running", help="Exit with 1 where no agent runs.")
    ] = False,
) -> None:
    """Tell what runs and waits, what was lost or rejected, and how far each source got."""
    from edge_agent.operations.snapshot import read_snapshot
    from edge_agent.outbox import inspect_outbox
    from edge_agent.setpoints.journal import Journal
    from edge_agent.settings import read_settings

    with _errors_told(as_json):
        settings = read_settings(state_dir=state_dir)
        with inspect_outbox(settings.state_dir) as outbox:
            told: dict[str, Any] = asdict(outbox.status())
            told["setpoint_counts"] = Journal(outbox).counts()
            keys = ("source", "part", "row", "code", "message", "text")
            told["refused_rows"] = [
                dict(zip(keys, row, strict=True)) for row in outbox.refused_rows(10)
            ]
        told["running"] = read_snapshot(settings.state_dir)
        told["writing_stopped"] = settings.kill_switch.exists()
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        _print_status(told)
    if running and told["running"] is None:
        raise typer.Exit(1)


@app.command("stop-writing")
def stop_writing(
    state_dir: StateDirOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Let it write again.")] = False,
) -> None:
    """Have the agent write nothing to any device, at once, until --resume."""
    from edge_agent.settings import read_settings

    with _errors_told(False):
        switch = read_settings(state_dir=state_dir).kill_switch
        if resume:
            switch.unlink(missing_ok=True)
        else:
            switch.parent.mkdir(parents=True, exist_ok=True)
            switch.touch()
    typer.echo(f"writing {'is allowed again' if resume else 'is stopped'}: {switch}", err=True)


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
    _quieten_libraries()


def _quieten_libraries() -> None:
    """Let us tell of a broken connection, once; the libraries tell of it many times."""
    for library in PROTOCOL_LIBRARIES:
        logging.getLogger(library).setLevel(logging.CRITICAL)


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
    if told["pending_commands"]:
        typer.echo(f"waiting: {told['pending_commands']} commands")
    if told["pending_frames"]:
        typer.echo(f"the oldest frame has waited for {told['oldest_pending_s']:.0f} s of running")
    _print_running(told["running"])
    if told["writing_stopped"]:
        typer.echo("WRITING IS STOPPED: nothing is set on any device (stop-writing --resume)")
    for outcome, count in told["setpoint_counts"].items():
        typer.echo(f"set-points: {count} x {outcome}")
    for reason, count in told["loss_counts"].items():
        typer.echo(f"lost: {told['lost_counts'].get(reason, 0)} readings in {count} x {reason}")
    for code, count in told["rejected_counts"].items():
        typer.echo(f"rejected: {count} frames, {code}")
    for code, count in told["rejected_command_counts"].items():
        typer.echo(f"rejected: {count} commands, {code}")
    for source in told["sources"]:
        where = f"{source['part']}, row {source['row']}" if source["part"] else "at its beginning"
        if source["live"]:
            where = f"live, of asset {source['asset']}, {source['pending_frames']} frames wait"
        typer.echo(f"source {source['name']}: {where}{', ended' if source['ended'] else ''}")
        for fault, count in source["fault_counts"].items():
            typer.echo(f"  {count} x {fault}")
    for row in told["refused_rows"]:
        typer.echo(f"refused: {row['part']}:{row['row']}: {row['code']}: {row['text']!r}")


def _print_running(running: dict[str, Any] | None) -> None:
    if running is None:
        typer.echo("it does not run")
        return
    typer.echo(f"it runs (process {running['pid']}) for {running['running_s']:.0f} s")
    failing_s, silent_s = running["server_failing_s"], running["server_silent_s"]
    if failing_s is not None:
        typer.echo(f"server {running['server']}: no frames are taken for {failing_s:.0f} s")
    elif silent_s is not None:
        typer.echo(f"server {running['server']}: last answer {silent_s:.0f} s ago")
    if running["directives_silent_s"] is not None:
        typer.echo(f"directives: last sign of life {running['directives_silent_s']:.0f} s ago")
    for name, why in running["connections"].items():
        typer.echo(f"connection {name}: {why or 'delivers'}")
    if running["clock_synchronized"] is False:
        typer.echo("the clock follows no reference, says the operating system")
    for step_s in running["clock_steps_s"]:
        typer.echo(f"the clock was set by {step_s:+.1f} s")
    for name, mode in running["setpoints"].items():
        typer.echo(f"set-point {name}: {mode}")
    for name, status in running["models"].items():
        typer.echo(f"model {name}: {json.dumps(status)}")
    for one in running["certificates"]:
        days = one["days_left"]
        typer.echo(
            f"certificate {one['file']}: " + (one["fault"] if days is None else f"{days} days left")
        )


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


def _tried(reading: TriedReading) -> dict[str, Any]:
    """Return a live reading as those of a recording are told."""
    from domain.events import format_time
    from domain.frames import time_from_ns

    return {
        "source": reading.source,
        "time": format_time(time_from_ns(reading.time_ns)),
        "channel": reading.channel,
        "value": reading.value,
        "unit": reading.unit,
        "si": reading.si,
        "si_unit": reading.si_unit,
        "quality": reading.quality,
    }


def _print_trial(trial: Trial) -> None:
    for what, told in trial.faults.items():
        typer.echo(f"{trial.source}: {what}: {told}")
    if trial.silent_channels:
        typer.echo(f"{trial.source}: nothing came of {', '.join(trial.silent_channels)}")
    if trial.failure:
        typer.echo(f"{trial.source}: {trial.failure}")


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
