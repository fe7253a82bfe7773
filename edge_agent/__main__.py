"""``python -m edge_agent``: the agent where the ``heddle`` command is not installed."""

from edge_agent.cli import app

app(prog_name="heddle agent")
