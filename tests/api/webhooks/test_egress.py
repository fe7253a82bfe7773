"""What webhooks may call, and what they may not: by its text, and by where it really leads."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.webhooks.egress import ANSWER_BYTES_MAX, CallFailed, Egress
from api.webhooks.policy import EgressPolicy
from domain.errors import InvalidInput

pytestmark = pytest.mark.anyio

ANY_PORT = ((1, 65_535),)
STRICT = EgressPolicy(http=True, ports=ANY_PORT)
LOOPBACK = EgressPolicy(http=True, ports=ANY_PORT, networks=(ipaddress.ip_network("127.0.0.0/8"),))

FORBIDDEN = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "224.0.1.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2001:db8::1",
    "2001:0:7f00:1::",
    "2002:7f00:1::",
    "2002:a00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def spelled(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# --- by its text --------------------------------------------------------------------------


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_address_inside_is_called(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        STRICT.target(f"http://{spelled(address)}/hooks")
    assert refused.value.code == "webhook.forbidden_address"


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_called(address: str) -> None:
    assert STRICT.target(f"https://{spelled(address)}/hooks").host == address


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "017700000001",
        "0x7f.0x0.0x0.0x1",
        "127.0.0.1.0x1",
        "1.2.3.4.5",
        "127.0.0.01",
        "4294967295",
        "example.com.0x7f000001",
    ],
)
def test_a_number_that_is_no_plain_address_is_none(host: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        STRICT.target(f"http://{host}/")
    assert refused.value.code == "webhook.malformed_url"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///hooks",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com@127.0.0.1/",
        "https://127.0.0.1\\@example.com/",
        "https://example.com\\.evil.org/",
        "https://example.com/#part",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: evil",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:x/",
        "https://ｅxample.com/",
        "https://127。0。0。1/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://-example.com/",
        "https://exa_mple..com/",
        "https://" + "a" * 2_000 + ".com/",
        "https://%31%32%37.0.0.1/",
        "https://localhost%00.example.com/",
    ],
)
def test_a_malformed_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        STRICT.target(url)
    assert refused.value.code == "webhook.malformed_url"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.com/", "webhook.forbidden_scheme"),
        ("ftp://example.com/", "webhook.forbidden_scheme"),
        ("file:///etc/passwd", "webhook.malformed_url"),
        ("gopher://example.com/", "webhook.forbidden_scheme"),
        ("javascript:alert(1)", "webhook.malformed_url"),
        ("https://example.com:8080/", "webhook.forbidden_port"),
        ("https://example.com:22/", "webhook.forbidden_port"),
    ],
)
def test_https_on_its_port_is_all_that_is_called_by_default(url: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        EgressPolicy().target(url)
    assert refused.value.code == code


def test_hosts_can_be_named() -> None:
    policy = EgressPolicy(hosts=("cmms.example", "*.plant.example"))
    for host in ("cmms.example", "CMMS.example.", "a.plant.example", "a.b.plant.example"):
        assert policy.target(f"https://{host}/").port == 443
    for host in ("example", "xcmms.example", "plant.example", "plant.example.evil.org"):
        with pytest.raises(InvalidInput) as refused:
            policy.target(f"https://{host}/")
        assert refused.value.code == "webhook.forbidden_host"


def test_a_target_keeps_path_and_query_and_names_its_host() -> None:
    target = STRICT.target("https://Example.com:8443/a%2Fb?c=d&e")
    assert (target.path, target.authority) == ("/a%2Fb?c=d&e", "example.com:8443")
    assert STRICT.target("https://[2606:4700::1111]").authority == "[2606:4700::1111]"
    assert STRICT.target("https://example.com").path == "/"


def test_allowed_networks_are_called_and_what_disguises_them() -> None:
    assert LOOPBACK.target("http://127.0.0.1:9/").port == 9
    for other in ("10.0.0.1", "::1", "169.254.169.254"):
        with pytest.raises(InvalidInput):
            LOOPBACK.target(f"http://{spelled(other)}/")


# --- by where it leads --------------------------------------------------------------------


@dataclass
class Listening:
    """A loopback server that says what it is told to say, to everybody."""

    port: int
    answer: bytes
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def listening(
    answer: bytes, *, context: ssl.SSLContext | None = None, patience_s: float = 0.0
) -> AsyncIterator[Listening]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            listener.requests.append(head)
            await asyncio.sleep(patience_s)
            writer.write(listener.answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    listener = Listening(server.sockets[0].getsockname()[1], answer)
    async with server:
        yield listener


class Names:
    """A resolver: each name's answers, one after the other; the last one stays."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(told) for name, told in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        told = self.answers.get(host)
        if told is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return told.pop(0) if len(told) > 1 else told[0]


@asynccontextmanager
async def calling(policy: EgressPolicy, names: Names, **more: object) -> AsyncIterator[Egress]:
    given: dict[str, object] = {"timeout_s": 5.0, "resolve": names, **more}
    egress = Egress(policy, **given)  # type: ignore[arg-type]
    try:
        yield egress
    finally:
        await egress.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def failure(egress: Egress, url: str) -> str:
    with pytest.raises(CallFailed) as failed:
        await egress.post(url, {}, b"{}")
    return failed.value.code


@pytest.mark.parametrize("address", [a for a in FORBIDDEN if a not in ("0.0.0.0", "::")])
async def test_a_name_that_leads_inside_is_not_called(address: str) -> None:
    async with calling(STRICT, Names(rebind_example=[[address]])) as egress:
        assert await failure(egress, "http://rebind.example/") == "webhook.forbidden_address"


async def test_one_address_inside_beside_others_is_enough_to_call_none() -> None:
    names = Names(both_example=[["93.184.216.34", "127.0.0.1"]])
    async with calling(STRICT, names) as egress:
        assert await failure(egress, "http://both.example/") == "webhook.forbidden_address"


async def test_a_name_is_asked_for_once_and_what_it_answers_then_counts() -> None:
    """DNS rebinding: the second answer would lead elsewhere."""
    async with listening(OK) as listener:
        names = Names(rebind_example=[["127.0.0.1"], ["10.0.0.1"]])
        async with calling(LOOPBACK, names) as egress:
            answer = await egress.post(f"http://rebind.example:{listener.port}/x", {}, b"{}")
            assert (answer.status, answer.excerpt) == (200, "ok")
            assert names.asked == ["rebind.example"]
            assert (
                await failure(egress, f"http://rebind.example:{listener.port}/")
                == "webhook.forbidden_address"
            )
        (head,) = listener.requests
        assert head.startswith(b"POST /x HTTP/1.1\r\n")
        assert b"\r\nhost: rebind.example:" in head.lower()


async def test_a_redirect_inside_is_told_and_not_followed() -> None:
    async with listening(OK) as inside:
        redirect = (
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:%d/secret\r\n"
            b"content-length: 0\r\n\r\n" % inside.port
        )
        names = Names(a_example=[["127.0.0.1"]])
        async with listening(redirect) as listener, calling(LOOPBACK, names) as egress:
            answer = await egress.post(f"http://a.example:{listener.port}/", {}, b"{}")
        assert answer.status == 302
        assert inside.requests == []


async def test_an_environment_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(OK) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with calling(STRICT, Names(a_example=[["10.0.0.1"]])) as egress:
            assert await failure(egress, "http://a.example/") == "webhook.forbidden_address"
        assert proxy.requests == []


async def test_of_a_long_answer_the_beginning_is_read() -> None:
    body = b"x" * (64 * 1024 * 1024)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with (
        listening(answer) as listener,
        calling(LOOPBACK, Names(a_example=[["127.0.0.1"]])) as egress,
    ):
        told = await egress.post(f"http://a.example:{listener.port}/", {}, b"{}")
    assert told.status == 200
    assert told.excerpt == "x" * ANSWER_BYTES_MAX


async def test_endless_headers_and_nonsense_are_no_answer() -> None:
    names = Names(a_example=[["127.0.0.1"]])
    for answer in (
        b"HTTP/1.1 200 OK\r\n" + b"x-a: " + b"a" * 2_000_000,
        b"\x00\xff nonsense\r\n\r\n",
    ):
        async with listening(answer) as listener, calling(LOOPBACK, names) as egress:
            code = await failure(egress, f"http://a.example:{listener.port}/")
            assert code == "webhook.answer_malformed"


async def test_silence_has_an_end() -> None:
    names = Names(a_example=[["127.0.0.1"]])
    async with (
        listening(OK, patience_s=30.0) as listener,
        calling(LOOPBACK, names, timeout_s=0.2) as egress,
    ):
        assert await failure(egress, f"http://a.example:{listener.port}/") == "webhook.timeout"


async def test_nobody_there_and_no_such_name_are_unreachable() -> None:
    async with listening(OK) as listener:
        port = listener.port
    async with calling(LOOPBACK, Names(a_example=[["127.0.0.1"]], b_example=[[]])) as egress:
        for host in ("a.example", "b.example", "nowhere.example"):
            assert await failure(egress, f"http://{host}:{port}/") == "webhook.unreachable"


async def test_a_second_address_is_tried_where_the_first_does_not_answer() -> None:
    async with listening(OK) as listener:
        names = Names(a_example=[["127.0.0.9", "127.0.0.1"]])
        async with calling(LOOPBACK, names) as egress:
            answer = await egress.post(f"http://a.example:{listener.port}/", {}, b"{}")
    assert answer.status == 200


# --- TLS ----------------------------------------------------------------------------------


@dataclass
class Authority:
    """A certificate authority and a server's certificate for ``cmms.example``."""

    ca_file: Path
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("tls")
    now = dt.datetime.now(dt.UTC)
    names = {n: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in ("ca", "server")}
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in names}

    def certificate(subject: str, extension: x509.ExtensionType) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(names[subject])
            .issuer_name(names["ca"])
            .public_key(keys[subject].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(extension, critical=subject == "ca")
            .sign(keys["ca"], hashes.SHA256())
        )

    ca = certificate("ca", x509.BasicConstraints(ca=True, path_length=0))
    server = certificate("server", x509.SubjectAlternativeName([x509.DNSName("cmms.example")]))
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "server.pem").write_bytes(
        server.public_bytes(pem)
        + keys["server"].private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return Authority(folder / "ca.pem", context)


async def test_a_certificate_is_checked_against_the_name_and_not_the_address(
    authority: Authority,
) -> None:
    names = Names(cmms_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    async with listening(OK, context=authority.context) as listener:
        async with calling(LOOPBACK, names, ca_file=str(authority.ca_file)) as egress:
            answer = await egress.post(f"https://cmms.example:{listener.port}/", {}, b"{}")
            assert answer.status == 200
            code = await failure(egress, f"https://other.example:{listener.port}/")
            assert code == "webhook.tls_failed"
        async with calling(LOOPBACK, names) as egress:
            code = await failure(egress, f"https://cmms.example:{listener.port}/")
            assert code == "webhook.tls_failed"
