"""One network connection with an MQTT broker, on asyncio and on paho's public hooks.

A message is acknowledged when its receiver says so, not when it arrives; reading from the broker
can be paused, so that a slow receiver is felt by the broker and nothing piles up here. What was
received and never acknowledged the broker delivers again.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from domain.errors import InvalidInput
from edge_agent.live import ConnectionLost

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 10.0
KEEPALIVE_S: Final = 30
LOOK_EVERY_S: Final = 1.0
RECEIVE_MAXIMUM: Final = 10_000
"""Messages that MQTT 5 may have on their way without an acknowledgement."""
MESSAGE_BYTES_MAX: Final = 1024 * 1024
_SUCCESS: Final = 0
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


class _TlsSocket(ssl.SSLSocket):
    """Closes where the handshake fails, which paho leaves to the collector of garbage."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files for TLS; the system's authorities where none is named."""

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The certificates, our own first."""
        return tuple(file for file in (self.certificate, self.authority) if file is not None)

    @property
    def watched_files(self) -> tuple[Path, ...]:
        """All that a renewal may exchange: the certificates and the key."""
        return self.files if self.key is None else (*self.files, self.key)

    def context(self) -> ssl.SSLContext:
        """Return a fresh context, so that a renewed certificate is used from the next session on.

        It asks for a certificate of an authority that is trusted, of the host that was called.

        Raises
        ------
        OSError, ssl.SSLError
            when a file is missing or is no certificate or key
        """
        made = ssl.create_default_context(cafile=self.authority and str(self.authority))
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.sslsocket_class = _TlsSocket
        if self.certificate is not None:
            # Without a password OpenSSL would ask for one at the terminal.
            password = self.key_password or ""
            made.load_cert_chain(str(self.certificate), self.key and str(self.key), password)
        return made


@dataclass(frozen=True, slots=True)
class Publication:
    """A message to be published, or the will that the broker publishes in our place."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where a broker is and how to be let in.

    Parameters
    ----------
    version : 5, or 3 for MQTT 3.1.1
    client_id : by which the broker knows the session
    session_expiry_s : for how long the broker keeps a session that is not connected; 0 for none.
        MQTT 3.1.1 knows only none and for ever
    """

    host: str
    port: int
    client_id: str
    version: int = 5
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    certificates: Certificates | None = None
    session_expiry_s: int = 0
    message_bytes_max: int = MESSAGE_BYTES_MAX

    @property
    def url(self) -> str:
        """Its address, without who logs in."""
        return f"{'mqtt' if self.certificates is None else 'mqtts'}://{self.host}:{self.port}"


def beside(broker: Broker, purpose: str) -> Broker:
    """Return `broker` for a session that ends with its connection and takes over no other.

    A broker ends the session of whoever else has the same client id, hence an id of its own.
    """
    client_id = f"{broker.client_id}-{purpose}-{secrets.token_hex(4)}"
    return replace(broker, client_id=client_id, session_expiry_s=0)


def broker_place(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of ``mqtt://host:1883`` or ``mqtts://host:8883``.

    Raises
    ------
    InvalidInput
        ``connection.url``
    """
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise InvalidInput("connection.url", f"{url!r:.200} has no port") from error
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            "connection.url",
            "the address of a broker names nobody",
            hint="use username, and password: {secret: NAME}",
        )
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/"):
        told = f"{url!r:.200} is no address of a broker"
        raise InvalidInput("connection.url", told, hint="such as mqtt://10.0.0.5:1883 or mqtts://…")
    return parts.scheme, parts.hostname, port


class MqttClient:
    """A connection with a broker from `connect` to `close`; not used again after that.

    Parameters
    ----------
    receive : called with every message, on the loop; must return at once
    """

    def __init__(
        self,
        broker: Broker,
        receive: Callable[[MQTTMessage], None],
        will: Publication | None = None,
    ) -> None:
        self._broker = broker
        self._receive = receive
        self._will = will
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._gone.add_done_callback(lambda gone: gone.cancelled() or gone.exception())
        self._answers: dict[tuple[str, int], asyncio.Future[Any]] = {}
        self._connected: asyncio.Future[bool] = self._loop.create_future()
        self._socket_number = -1
        self._paused = False
        self._closed = False
        self._look: asyncio.TimerHandle | None = None
        self._tls_failure = ""
        self._client = self._paho()

    # --- what a user calls ----------------------------------------------------------------

    async def connect(self) -> bool:
        """Connect, and return whether the broker still had our session.

        Raises
        ------
        ConnectionLost
            ``connection.unreachable``, ``connection.refused``, ``connection.timeout``;
            ``connection.certificate`` (our own files), ``connection.certificate_refused`` (the
            broker's is not trusted), ``connection.tls_failed`` (such as: it does not trust ours)
        """
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                await self._loop.run_in_executor(None, self._connect)
                return await asyncio.shield(self._connected)
        except TimeoutError as error:
            raise self._lost("connection.timeout", "does not answer") from error
        except ssl.SSLCertVerificationError as error:
            told = f"shows a certificate that is not trusted: {error.verify_message}"
            raise self._lost("connection.certificate_refused", told) from error
        except ssl.SSLError as error:
            raise self._lost("connection.tls_failed", f"agrees on no TLS: {error}") from error
        except (OSError, ValueError) as error:
            raise self._lost("connection.unreachable", f"cannot be reached: {error}") from error

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> list[int]:
        """Subscribe, and return the QoS granted to each filter, 128 or more where refused."""
        result, mid = self._client.subscribe(list(filters))
        if result != _SUCCESS or mid is None:
            raise self._lost("connection.lost", "went away while we subscribed")
        return [int(code.value) for code in await self._answer("subscribe", mid)]

    async def publish(self, message: Publication) -> None:
        """Publish, and return once sent (QoS 0) or acknowledged by the broker (QoS 1, 2)."""
        sent = self._client.publish(
            message.topic, message.payload, message.qos, retain=message.retain
        )
        if sent.rc != _SUCCESS:
            raise self._lost("connection.lost", "went away while we published")
        await self._answer("publish", sent.mid)

    def acknowledge(self, message: MQTTMessage) -> None:
        """Tell the broker that `message` is ours now; nothing where it asks for no answer."""
        if message.qos and not self._gone.done():
            self._client.ack(message.mid, message.qos)

    def pause(self) -> None:
        """Read no further from the broker until `resume`."""
        if not self._paused and self._socket_number >= 0:
            self._loop.remove_reader(self._socket_number)
        self._paused = True

    def resume(self) -> None:
        """Go on reading."""
        if self._paused and self._socket_number >= 0:
            self._loop.add_reader(self._socket_number, self._read)
        self._paused = False

    async def lost(self) -> None:
        """Wait until the connection is gone, and raise what took it.

        Raises
        ------
        ConnectionLost
            ``connection.*``
        """
        await asyncio.shield(self._gone)

    async def close(self, *, with_will: bool = False) -> None:
        """Take leave of the broker and drop the connection.

        Parameters
        ----------
        with_will : whether the broker publishes the will all the same, as MQTT 5 can be asked to
        """
        if not self._gone.done() and self._connected.done() and not self._connected.cancelled():
            if with_will and self._broker.version == 5:
                from paho.mqtt.packettypes import PacketTypes
                from paho.mqtt.reasoncodes import ReasonCode

                code = ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")
                self._client.disconnect(code)
            else:
                self._client.disconnect()
            self._client.loop_write()
            # The farewell may wait for room in the socket; it is given a moment, not more.
            await asyncio.wait([self._gone], timeout=0.2)
        self.drop()

    def drop(self) -> None:
        """Drop the connection without a word, as a crash would: the broker publishes the will."""
        self._closed = True
        if self._look is not None:
            self._look.cancel()
        self._forget_socket()
        paho_socket = self._client.socket()
        if paho_socket is not None:
            paho_socket.close()
        self._fail(self._lost("connection.closed", "was left"))
        self._connected.cancel()

    # --- paho's side ----------------------------------------------------------------------

    def _paho(self) -> Client:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        broker = self._broker
        five = broker.version == 5
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=broker.client_id,
            clean_session=None if five else broker.session_expiry_s == 0,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if self._will is not None:
            will = self._will
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_connect = lambda _c, _u, flags, reason, _p: self._on_connect(flags, reason)
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._on_disconnect(reason)
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._answered(
            "subscribe", mid, reasons
        )
        client.on_publish = lambda _c, _u, mid, _r, _p: self._answered("publish", mid, None)
        client.on_message = lambda _c, _u, message: self._receive(message)
        if broker.certificates is not None:
            client.on_log = lambda _c, _u, _level, text: self._note_log(text)
        client.on_socket_open = lambda _c, _u, opened: self._on_socket_open(opened)
        client.on_socket_close = lambda _c, _u, _s: self._forget_socket()
        client.on_socket_register_write = lambda _c, _u, of: self._on_register_write(of)
        client.on_socket_unregister_write = lambda _c, _u, of: self._on_unregister_write(of)
        return client

    def _connect(self) -> None:
        """Connect; blocks, so a thread of its own carries it out."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        broker = self._broker
        if broker.certificates is not None:
            self._client.tls_set_context(self._tls_context(broker.certificates))
        if broker.version != 5:
            self._client.connect(broker.host, broker.port, KEEPALIVE_S)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = broker.session_expiry_s
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = broker.message_bytes_max + 128 * 1024
        self._client.connect(
            broker.host,
            broker.port,
            KEEPALIVE_S,
            clean_start=broker.session_expiry_s == 0,
            properties=properties,
        )

    def _tls_context(self, certificates: Certificates) -> ssl.SSLContext:
        try:
            return certificates.context()
        except (OSError, ssl.SSLError) as error:
            told = f"cannot be called: our certificate, key or authority is not usable: {error}"
            raise self._lost("connection.certificate", told) from error

    def _note_log(self, text: str) -> None:
        """Remember why TLS ended: of that paho tells its log alone.

        At TLS 1.3 a broker refuses our certificate only after the handshake.
        """
        if "[SSL: " in text:
            self._tls_failure = text[text.index("[SSL: ") :][:200]

    def _on_connect(self, flags: Any, reason: Any) -> None:
        if self._connected.done():
            return
        if reason.is_failure:
            told = f"refuses us: {reason}"
            self._connected.set_exception(self._lost("connection.refused", told))
            # Whoever waits takes it from there; where nobody does any more, it is no surprise.
            self._connected.exception()
        else:
            # From here on every packet would be told, and each word of it formatted.
            self._client.on_log = None
            self._connected.set_result(bool(flags.session_present))

    def _on_disconnect(self, reason: object) -> None:
        if self._tls_failure:
            told = f"ends TLS: {self._tls_failure}"
            self._fail(self._lost("connection.tls_failed", told))
        else:
            self._fail(self._lost("connection.lost", f"went away: {reason}"))

    def _on_socket_open(self, opened: Any) -> None:
        # Called in the thread that connects.
        self._loop.call_soon_threadsafe(self._use_socket, opened)

    def _use_socket(self, opened: Any) -> None:
        if self._closed or opened.fileno() < 0:
            opened.close()
            return
        self._socket_number = opened.fileno()
        if not self._paused:
            self._loop.add_reader(self._socket_number, self._read)
        self._look_after()

    def _on_register_write(self, of: Any) -> None:
        # The thread that connects sends the first packet; the loop sends all others.
        self._loop.call_soon_threadsafe(self._want_to_write, of)

    def _want_to_write(self, of: Any) -> None:
        if not self._closed and of.fileno() >= 0:
            self._loop.add_writer(of.fileno(), self._write)

    def _on_unregister_write(self, of: Any) -> None:
        if of.fileno() >= 0:
            self._loop.remove_writer(of.fileno())

    # --- the loop's side ------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while True:
                self._client.loop_read()
                # TLS may hold a decoded packet of which the socket knows nothing any more.
                pending = getattr(self._client.socket(), "pending", None)
                if self._paused or pending is None or not pending():
                    break
        except Exception as error:  # whatever a hostile packet does to the parser ends the session
            self._fail(self._lost("connection.malformed", f"sent what is no MQTT: {error!r:.200}"))
            return
        if self._incoming_bytes() > self._broker.message_bytes_max + 128 * 1024:
            told = f"sends a message of more than {self._broker.message_bytes_max} bytes"
            self._fail(self._lost("connection.message_too_large", told))
            self._forget_socket()

    def _incoming_bytes(self) -> int:
        """Return the announced size of the packet that is being read.

        paho reads up to 256 MiB into memory and offers no limit of its own for MQTT 3.1.1.
        """
        packet = getattr(self._client, "_in_packet", None)
        return int(packet.get("remaining_length", 0)) if isinstance(packet, dict) else 0

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except Exception as error:
            self._fail(self._lost("connection.lost", f"went away: {error!r:.200}"))

    def _look_after(self) -> None:
        """Keep the connection alive, and notice when it no longer is."""
        if self._closed or self._gone.done():
            return
        self._client.loop_misc()
        self._look = self._loop.call_later(LOOK_EVERY_S, self._look_after)

    def _forget_socket(self) -> None:
        number, self._socket_number = self._socket_number, -1
        if number >= 0:
            self._loop.remove_reader(number)
            self._loop.remove_writer(number)

    async def _answer(self, kind: str, mid: int) -> Any:
        """Wait until the broker has answered packet `mid`."""
        key = (kind, mid)
        answer = self._answers.setdefault(key, self._loop.create_future())
        if self._gone.done():
            self._answers.pop(key, None)
            raise self._lost("connection.lost", "went away before it answered")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            raise self._lost("connection.timeout", f"does not answer a {kind}") from error
        finally:
            self._answers.pop(key, None)

    def _answered(self, kind: str, mid: int, value: Any) -> None:
        answer = self._answers.get((kind, mid))
        if answer is None and kind == "publish":
            # QoS 0 is told as soon as it is written, which may be before anybody waits.
            answer = self._answers.setdefault((kind, mid), self._loop.create_future())
        if answer is not None and not answer.done():
            answer.set_result(value)

    def _fail(self, error: ConnectionLost) -> None:
        if not self._gone.done():
            self._gone.set_exception(error)
        if not self._connected.done():
            self._connected.set_exception(error)
            self._connected.exception()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()

    def _lost(self, code: str, told: str) -> ConnectionLost:
        return ConnectionLost(code, f"the broker at {self._broker.url} {told}")
