"""Many subscribers of one document in one process, on plain sockets: it counts, and notes when.

::

    python -m benchmarks.subscription_client PORT SOCKETS TOKEN DOCUMENT AFTER

It says ``subscribed`` once every operation was sent and ``live`` once every socket was told
something, and then obeys the lines of its standard input: ``record`` begins to note what comes;
``stop`` says how many messages that were, and ends;
``until POSITION FILE`` waits until every socket was told of that position, writes what was noted
(`numpy.savez`: `at_s`, `counts`, `positions`) and says as JSON how it went.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Final

import numpy as np

READ_BYTES: Final = 256 * 1024
PATIENCE_S: Final = 20.0
_POSITION: Final = re.compile(rb'"position":(\d+),')
_POSITION_TEXT: Final = b'"position":'
_PING: Final = b"\x89\x04"
_NO_MASK: Final = b"\0\0\0\0"


def frame(text: str, opcode: int = 1) -> bytes:
    """Return a client's frame with `text`, masked with zeros."""
    data = text.encode()
    if len(data) < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(data))
    else:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(data))
    return head + _NO_MASK + data


def _read_to(connection: socket.socket, end: bytes) -> None:
    answer = b""
    while end not in answer:
        part = connection.recv(4096)
        if not part:
            raise SystemExit(f"refused: {answer!r:.300}")
        answer += part


@dataclass(slots=True)
class Subscriber:
    """One socket, what is left of its last chunk, and how far it was told."""

    connection: socket.socket
    left: bytes = b""
    position: int = 0


@dataclass(slots=True)
class Notes:
    """When chunks came, how many messages were in each, and their positions, one after the other.

    `wrong` counts messages that did not follow the one before.
    """

    at_s: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    wrong: int = 0


class Client:
    """All subscribers of this process."""

    def __init__(self, port: int, token: str) -> None:
        self._address = ("127.0.0.1", port)
        self._token = token
        self._epoll = select.epoll()
        self._subscribers: dict[int, Subscriber] = {}
        self._notes: Notes | None = None
        self._wrong = 0
        self._began_cpu_s = 0.0
        self._frame_bytes = 0

    def subscribe(self, sockets: int, document: str, after: str) -> None:
        """Open `sockets` and subscribe on each."""
        for _ in range(sockets):
            connection = socket.create_connection(self._address)
            key = base64.b64encode(os.urandom(16)).decode()
            connection.sendall(
                (
                    f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                    f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                    f"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {self._token}\r\n"
                    f"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
                ).encode()
            )
            _read_to(connection, b"\r\n\r\n")
            connection.sendall(frame('{"type":"connection_init"}'))
            _read_to(connection, b"connection_ack")
            identifier = base64.b32encode(os.urandom(20)).decode()
            payload = {"query": document, "variables": {"after": after}}
            message = {"id": identifier, "type": "subscribe", "payload": payload}
            connection.sendall(frame(json.dumps(message)))
            connection.setblocking(False)
            self._subscribers[connection.fileno()] = Subscriber(connection)
            self._epoll.register(connection, select.EPOLLIN)

    def run(self) -> None:
        """Read, and obey, until the input ends."""
        commands = sys.stdin.fileno()
        self._read_until(1)
        print("live", flush=True)
        self._epoll.register(commands, select.EPOLLIN)
        while True:
            for number, _ in self._epoll.poll():
                if number != commands:
                    self._read(number)
                    continue
                command = sys.stdin.readline().split()
                if not command:
                    return
                if command[0] == "record":
                    self._notes, self._wrong = Notes(), 0
                    self._began_cpu_s = time.process_time()
                    print("recording", flush=True)
                elif command[0] == "stop":
                    assert self._notes is not None
                    print(json.dumps({"messages": len(self._notes.positions)}), flush=True)
                    return
                else:
                    self._epoll.unregister(commands)
                    self._read_until(int(command[1]))
                    self._save(command[2])
                    self._epoll.register(commands, select.EPOLLIN)

    def _read_until(self, position: int) -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while any(each.position < position for each in self._subscribers.values()):
            for number, _ in self._epoll.poll(0.1):
                self._read(number)
            if time.monotonic() > ends_s:
                behind = [each for each in self._subscribers.values() if each.position < position]
                raise SystemExit(f"{len(behind)} sockets were not told up to {position}")

    def _read(self, number: int) -> None:
        subscriber = self._subscribers[number]
        try:
            chunk = subscriber.connection.recv(READ_BYTES)
        except BlockingIOError:
            return  # it was read while a command was obeyed
        if not chunk:
            raise SystemExit(f"a socket was closed: {subscriber.left!r:.300}")
        at_s = time.monotonic()
        if _PING in chunk:
            begin = chunk.index(_PING) + 2
            subscriber.connection.send(b"\x8a\x84" + _NO_MASK + chunk[begin : begin + 4])
        data = subscriber.left + chunk
        end = 0
        positions = []
        for found in _POSITION.finditer(data):
            positions.append(int(found[1]))
            end = found.end()
        subscriber.left = data[end:]
        if not self._frame_bytes and len(positions) > 1:
            first = data.index(_POSITION_TEXT)
            self._frame_bytes = data.index(_POSITION_TEXT, first + 1) - first
        if not positions:
            if b'"type":"error"' in data:
                raise SystemExit(f"the subscription ended: {data!r:.500}")
            return
        before = subscriber.position or positions[0] - 1
        if positions != list(range(before + 1, before + 1 + len(positions))):
            self._wrong += 1
        subscriber.position = positions[-1]
        notes = self._notes
        if notes is not None:
            notes.at_s.append(at_s)
            notes.counts.append(len(positions))
            notes.positions += positions

    def _save(self, path: str) -> None:
        notes = self._notes or Notes()
        np.savez(
            path,
            at_s=np.array(notes.at_s),
            counts=np.array(notes.counts, np.int64),
            positions=np.array(notes.positions, np.int64),
        )
        cpu_s = time.process_time() - self._began_cpu_s
        told = {"wrong": self._wrong, "cpu_s": cpu_s, "frame_bytes": self._frame_bytes}
        print(json.dumps(told), flush=True)
        self._notes = None


if __name__ == "__main__":
    at, count, bearer, text, start = sys.argv[1:]
    client = Client(int(at), bearer)
    client.subscribe(int(count), text, start)
    print("subscribed", flush=True)
    client.run()
