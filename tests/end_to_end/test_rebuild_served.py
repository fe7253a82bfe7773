"""`heddle rebuild` beside `heddle serve`: who queries and commands meanwhile notices nothing."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from tests.end_to_end.processes import Process, Server

ASSETS = "{ assets(first: 100) { nodes { assetId title twin { position } } } }"
QUERIES_AT_ONCE = 3
REBUILT = ("twins", "alerts", "rollups", "thread")


def heddle(folder: Path, server: Server, *arguments: str) -> Process:
    """Run a command on the server's database to its end."""
    command = Process(
        list(arguments), {"HEDDLE_DATA_DIR": str(server.data_dir)}, folder / f"{arguments[0]}.log"
    )
    command.start()
    return command


def test_a_server_is_queried_and_commanded_while_its_projections_are_rebuilt(folder: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []
    answered = [0] * (QUERIES_AT_ONCE + 1)

    def ask(number: int, server: Server) -> None:
        known = 0
        try:
            while not stop.is_set():
                nodes = server.query(ASSETS)["assets"]["nodes"]
                assert len(nodes) >= known, "an asset that was seen is gone"
                known = len(nodes)
                answered[number] += 1
        except BaseException as error:
            failures.append(error)

    def command(server: Server) -> None:
        try:
            while not stop.is_set() and answered[-1] < 90:
                server.register(f"loop-{answered[-1]}")
                answered[-1] += 1
        except BaseException as error:
            failures.append(error)

    with Server(folder) as server:
        server.start()
        server.register("loop-first")
        threads = [
            *(threading.Thread(target=ask, args=(n, server)) for n in range(QUERIES_AT_ONCE)),
            threading.Thread(target=command, args=(server,)),
        ]
        for thread in threads:
            thread.start()
        try:
            for name in REBUILT:
                rebuilding = heddle(folder, server, "rebuild", name, "--json")
                assert rebuilding.wait() == 0, rebuilding.log
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []
        assert min(answered) > 0
        head = server.wait_until_folded()
        checking = heddle(folder, server, "check", "--json")
        assert checking.wait() == 0, checking.log
        found = [json.loads(line) for line in checking.log.splitlines() if line.startswith("{")]
        assert {(one["equal"], one["position"]) for one in found} == {(True, head)}
        assert {one["projection"] for one in found} >= set(REBUILT)
