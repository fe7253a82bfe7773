"""``python -m benchmarks NAME``: run one benchmark, or all of them without a name."""

from __future__ import annotations

import argparse

from benchmarks import (
    archive,
    edge,
    exports,
    frames,
    graphql,
    ingest,
    log,
    projections,
    proofs,
    reading,
    readings,
    recorders,
    subscriptions,
    thread,
    webhooks,
)
from benchmarks.report import Report

BENCHMARKS = {
    "frames": frames,
    "archive": archive,
    "graphql": graphql,
    "edge": edge,
    "exports": exports,
    "ingest": ingest,
    "log": log,
    "projections": projections,
    "proofs": proofs,
    "reading": reading,
    "readings": readings,
    "recorders": recorders,
    "subscriptions": subscriptions,
    "thread": thread,
    "webhooks": webhooks,
}
ONLY_BY_NAME = {"recorders"}  # needs psycopg, which nothing else here does


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name")
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(name, help=(module.__doc__ or name).splitlines()[0])
        module.add_arguments(command)
    arguments = parser.parse_args()
    names = [arguments.name] if arguments.name else sorted(BENCHMARKS.keys() - ONLY_BY_NAME)
    for name in names:
        if arguments.name is None:
            arguments = commands.choices[name].parse_args([])
        report: Report = BENCHMARKS[name].run(arguments)
        report.show()


if __name__ == "__main__":
    main()
