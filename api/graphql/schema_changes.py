"""What of the schema would break clients of the last release; run as a program, it lists that.

::

    python -m api.graphql.schema_changes            # list what is not declared, and fail then
    python -m api.graphql.schema_changes --release  # the present schema is the released one now

A breaking change is declared in ``breaking_changes.txt``: a line with what `list_breaking` says of
it, a tab, and why it has to be. What is declared there and does not happen is a fault too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from graphql import build_schema
from graphql.utilities import find_breaking_changes

from api.graphql.schema import SDL_FILE

RELEASED_FILE: Final = Path(__file__).with_name("released.graphql")
DECLARED_FILE: Final = Path(__file__).with_name("breaking_changes.txt")


def list_breaking(released: str, current: str) -> list[str]:
    """Return, sorted, what of the SDL `current` breaks clients of the SDL `released`."""
    changes = find_breaking_changes(build_schema(released), build_schema(current))
    return sorted(change.description for change in changes)


def declared_breaking(text: str) -> dict[str, str]:
    """Return why each breaking change has to be, by what `list_breaking` says of it.

    Raises
    ------
    ValueError
        a line without a reason
    """
    declared = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            change, separator, reason = line.partition("\t")
            if not separator or not reason.strip():
                raise ValueError(f"{DECLARED_FILE.name} gives no reason for {change!r}")
            declared[change] = reason.strip()
    return declared


def main(arguments: Sequence[str] | None = None) -> int:
    """List what is not declared, or release the present schema; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m api.graphql.schema_changes")
    parser.add_argument("--release", action="store_true", help="make the present schema the base")
    if parser.parse_args(arguments).release:
        RELEASED_FILE.write_text(SDL_FILE.read_text())
        DECLARED_FILE.write_text("# No breaking change since the last release.\n")
        return 0
    found = set(list_breaking(RELEASED_FILE.read_text(), SDL_FILE.read_text()))
    declared = set(declared_breaking(DECLARED_FILE.read_text()))
    for change in sorted(found - declared):
        sys.stderr.write(f"breaks clients, and is not declared: {change}\n")
    for change in sorted(declared - found):
        sys.stderr.write(f"is declared, and breaks nothing: {change}\n")
    return int(found != declared)


if __name__ == "__main__":
    sys.exit(main())
