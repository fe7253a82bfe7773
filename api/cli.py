"""The `heddle` command. Sub-commands import what they need when they run, so that
`heddle agent` works where only the edge's dependencies are installed."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from api.access_cli import register as register_access
from api.archive_cli import register as register_archive
from api.audit_cli import register as register_audit
from api.documents_cli import register as register_documents
from api.generate_cli import register as register_generate
from api.log_cli import register as register_log
from api.model_cli import register as register_model
from api.projections_cli import register as register_projections
from api.stats_cli import register as register_stats
from api.trace_cli import register as register_trace
from api.transparency_cli import register as register_transparency
from domain.errors import HeddleError
from edge_agent.cli import app as agent_app
from edge_agent.simulated_plant.cli import register as register_plant

app = typer.Typer(
    name="heddle",
    help="The digital thread of a factory, and a live twin of every machine in it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(agent_app, name="agent")
register_log(app)
register_access(app)
register_audit(app)
register_stats(app)
register_projections(app)
register_transparency(app)
register_archive(app)
register_documents(app)
register_model(app)
register_generate(app)
register_trace(app)
register_plant(app)

ServerUrl = Annotated[
    str, typer.Option("--server", envvar="HEDDLE_SERVER_URL", help="URL of a Heddle server.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one document a line.")]
DEFAULT_SERVER = "http://127.0.0.1:8000"


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.")] = None,
) -> None:
    """Start the database if none is named, migrate it, and serve HTTP until Ctrl-C."""
    from dataclasses import replace

    from api.serve import serve as run
    from api.settings import ServerSettings

    settings = ServerSettings.from_environment()
    run(replace(settings, host=host or settings.host, port=port or settings.port))


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema and exit; `serve` does this by itself."""
    from api.database import open_database
    from api.settings import ServerSettings
    from migrations.run import upgrade

    with open_database(ServerSettings.from_environment()) as database_url:
        upgrade(database_url)
    typer.echo("the database has the newest schema")


@app.command()
def demo() -> None:
    """Show everything at once: server, an edge agent on recorded or simulated pumps, twins."""
    from api.demo import run_demo
    from api.settings import ServerSettings
    from edge_agent.settings import read_settings

    raise typer.Exit(run_demo(ServerSettings.from_environment(), read_settings().data_dir))


@app.command(name="import")
def import_(
    config: Annotated[
        Path, typer.Option("--config", exists=True, dir_okay=False, help="An agent's YAML.")
    ],
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Where to remember what was sent.")
    ] = None,
    server: ServerUrl = DEFAULT_SERVER,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder that relative paths start from.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import recordings: send all that the sources of an agent's YAML hold, then exit."""
    from edge_agent.cli import run

    run(config=config, server=server, state_dir=state_dir, data=data, once=True, as_json=as_json)


def main() -> None:
    """Run the command; expected failures end with their message, not with a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        app()
    except HeddleError as error:
        sys.stderr.write(f"heddle: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
