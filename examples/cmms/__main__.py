"""``python -m examples.cmms``: serve until told to stop."""

from __future__ import annotations

import os

import uvicorn

from examples.cmms.app import from_environment

if __name__ == "__main__":
    uvicorn.run(
        from_environment(),
        host="127.0.0.1",
        port=int(os.environ.get("CMMS_PORT", "8100")),
        log_level="warning",
        server_header=False,
    )
