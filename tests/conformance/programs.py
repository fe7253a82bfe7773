"""Programs of the public suites, run as a client would run them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

FOLDER: Final = Path(__file__).parent
RUN_S_MAX: Final = 240


async def run(program: str, *arguments: str) -> str:
    """Run `program` beside the suites; return what it printed, or fail with it."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RUN_S_MAX):
            printed, complaints = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        pytest.fail(f"{program} {' '.join(arguments)}: {complaints.decode()}")
    return printed.decode()
