"""Write the requests of this collection after the examples that GraphiQL opens with.

::

    python generate.py            # write
    python generate.py --check    # exit with 1 where what is written is not what would be

Bruno asks over HTTP alone: what subscribes is left out.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
EXAMPLES: Final = FOLDER.parents[1] / "api" / "graphiql" / "examples.js"
_EXAMPLE: Final = re.compile(
    r'title: "(?P<title>[^"]+)",\s+query: `(?P<query>[^`]+)`,'
    r"(?:\s+variables: `(?P<variables>[^`]+)`,)?"
)
_REQUEST: Final = """\
meta {{
  name: {name}
  type: graphql
  seq: {number}
}}

post {{
  url: {{{{baseUrl}}}}/graphql
  body: graphql
  auth: bearer
}}

auth:bearer {{
  token: {{{{token}}}}
}}

body:graphql {{
{query}
}}

body:graphql:vars {{
{variables}
}}
"""


def requests(examples: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of the file of each request."""
    for match in _EXAMPLE.finditer(examples):
        query = match["query"].strip()
        if re.match(r"\s*subscription\b", re.sub(r"(?m)^\s*#.*$", "", query)):
            continue
        named = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        assert named is not None, "each example has a name"
        yield (
            f"{named[1]}.bru",
            _REQUEST.format(
                name=match["title"],
                number=sum(1 for _ in _EXAMPLE.finditer(examples[: match.start()])) + 1,
                query=textwrap.indent(query, "  "),
                variables=textwrap.indent((match["variables"] or "{}").strip(), "  "),
            ),
        )


def main() -> None:
    """Write, or check what is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check: bool = parser.parse_args().check
    wanted = dict(requests(EXAMPLES.read_text()))
    held = {file.name: file.read_text() for file in FOLDER.glob("*.bru")}
    if check:
        if held != wanted:
            sys.exit("the requests are not what generate.py writes: run it")
        return
    for name in held.keys() - wanted.keys():
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
