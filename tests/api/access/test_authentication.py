"""Who asks: keys, certificates behind a proxy, and an open server; and who is turned away."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import orjson
import pytest

from api.access.authentication import KEY_KEPT_S, Authenticator, check_settings
from api.access.identity import LOCAL_ADMIN
from api.access.keys import ApiKey, create_key, find_key, list_keys, revoke_key
from api.access.proxy import read_subjects
from api.access.rights import Right, Role
from api.headers import read_headers
from api.settings import ServerSettings, SettingsInvalid
from domain.access_events import ApiKeyCreated, ApiKeyRevoked, api_key_stream
from domain.errors import HeddleError, InvalidInput, NotFound
from eventlog.ledger import Ledger
from eventlog.reading import read_whole_stream
from tests.api.access.identity_provider import AUDIENCE, provider

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"
ELSEWHERE = "192.0.2.7"
HOST = {"host": "127.0.0.1:8000"}


class Clock:
    """Seconds that pass when they are told to, and the time of day with them."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 5, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def authenticator(ledger: Ledger, clock: Clock, **settings: Any) -> Authenticator:
    given: dict[str, Any] = {"ledger": ledger.name, **settings}
    return Authenticator(ServerSettings(**given), ledger, now=clock.now, clock=clock)


async def created(ledger: Ledger, clock: Clock, **changes: Any) -> tuple[str, ApiKey]:
    given: dict[str, Any] = {
        "name": "gateway-1",
        "roles": [Role.AGENT],
        "locations": None,
        "assets": ["press-07"],
        "expires_at": None,
        "created_by": "user:admin",
        "now": clock.now(),
    }
    return await create_key(ledger, **(given | changes))


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def refusal(
    authenticator: Authenticator, headers: dict[str, str], peer: str | None = ELSEWHERE
) -> str:
    """Return the code with which whoever sends `headers` is turned away."""
    with pytest.raises(HeddleError) as refused:
        await authenticator.identify(headers, peer)
    return refused.value.code


# --- keys -----------------------------------------------------------------------------------


async def test_a_key_lets_in_its_holder_with_its_roles_and_scope(
    ledger: Ledger, clock: Clock
) -> None:
    text, key = await created(ledger, clock, locations=["site-1"])
    identity = await authenticator(ledger, clock, api_keys=True).identify(bearer(text), ELSEWHERE)
    assert identity.actor == "agent:gateway-1"
    assert identity.rights == {Right.COMMAND, Right.INGEST, Right.REPORT, Right.PREDICT}
    assert identity.assets == frozenset({"press-07"})
    assert identity.locations == frozenset({"site-1"})
    assert identity.key_id == key.key_id


async def test_only_the_hash_of_a_secret_is_kept_and_the_log_has_not_even_that(
    ledger: Ledger, clock: Clock
) -> None:
    text, key = await created(ledger, clock)
    secret = text.removeprefix(f"hdl_{key.key_id}_")
    rows = await ledger.pool.fetch("select api_key::text as row from api_key")
    assert len(rows) == 1
    assert secret not in rows[0]["row"]
    stored = await ledger.pool.fetch("select encode(payload, 'escape') as payload from event")
    assert stored
    for row in stored:
        assert secret not in row["payload"]
        assert key.secret_sha256.hex() not in row["payload"]
    assert secret not in repr(key)


async def test_the_log_says_who_made_a_key_for_what_and_who_took_it_back(
    ledger: Ledger, clock: Clock
) -> None:
    _, key = await created(ledger, clock)
    assert await revoke_key(
        ledger, key.key_id, reason="replaced", revoked_by="user:eve", now=clock.now()
    )
    assert not await revoke_key(
        ledger, key.key_id, reason="again", revoked_by="user:eve", now=clock.now()
    )
    told = [event async for event in read_whole_stream(ledger, api_key_stream(key.key_id))]
    assert [(event.actor, event.fact) for event in told] == [
        (
            "user:admin",
            ApiKeyCreated(
                key.key_id, "gateway-1", "agent:gateway-1", ("agent",), None, ("press-07",), None
            ),
        ),
        ("user:eve", ApiKeyRevoked(key.key_id, "replaced")),
    ]


async def test_a_revocation_that_could_not_be_told_is_told_the_next_time(
    ledger: Ledger, clock: Clock
) -> None:
    _, key = await created(ledger, clock)
    await ledger.pool.execute("update api_key set revoked_at = $1", clock.now())
    clock.seconds += 60
    assert await revoke_key(
        ledger, key.key_id, reason="lost", revoked_by="user:eve", now=clock.now()
    )
    told = [event.fact async for event in read_whole_stream(ledger, api_key_stream(key.key_id))]
    assert told[1:] == [ApiKeyRevoked(key.key_id, "lost")]


async def test_a_revoked_key_lets_nobody_in_after_seconds(ledger: Ledger, clock: Clock) -> None:
    text, key = await created(ledger, clock)
    server = authenticator(ledger, clock, api_keys=True)
    identity = await server.identify(bearer(text), ELSEWHERE)
    await revoke_key(ledger, key.key_id, reason="lost", revoked_by="user:eve", now=clock.now())
    clock.seconds += KEY_KEPT_S
    assert await refusal(server, bearer(text)) == "access.unauthenticated"
    assert not await server.still_valid(identity)


async def test_a_key_that_has_ended_lets_nobody_in(ledger: Ledger, clock: Clock) -> None:
    text, _ = await created(ledger, clock, expires_at=clock.now() + timedelta(hours=1))
    server = authenticator(ledger, clock, api_keys=True)
    identity = await server.identify(bearer(text), ELSEWHERE)
    assert await server.still_valid(identity)
    clock.seconds += 3_600
    assert await refusal(server, bearer(text)) == "access.expired"
    assert not await server.still_valid(identity)


async def test_an_identity_ends_when_its_key_may_do_something_else(
    ledger: Ledger, clock: Clock
) -> None:
    text, _ = await created(ledger, clock)
    server = authenticator(ledger, clock, api_keys=True)
    identity = await server.identify(bearer(text), ELSEWHERE)
    await ledger.pool.execute("update api_key set assets = '{press-08}'")
    clock.seconds += KEY_KEPT_S
    assert not await server.still_valid(identity)


async def test_no_other_secret_opens_and_no_other_ledger(ledger: Ledger, clock: Clock) -> None:
    text, key = await created(ledger, clock)
    server = authenticator(ledger, clock, api_keys=True)
    for guess in (
        text[:-1] + ("A" if text[-1] != "A" else "B"),
        text[:-1],
        text + "A",
        text.upper(),
        f"hdl_{key.key_id}_",
        f"hdl_{key.key_id}_{key.secret_sha256.hex()[:43]}",
        f"hdl_{'0' * 16}_{text[-43:]}",
        "hdl_",
        "hdl_" + "x" * 100_000,
        f"hdl_{key.key_id}_' or true --",
    ):
        assert await refusal(server, bearer(guess)) == "access.unauthenticated", guess[:80]
    other = await Ledger.open(ledger.pool, "plant-2")
    try:
        elsewhere = authenticator(other, clock, api_keys=True)
        assert await refusal(elsewhere, bearer(text)) == "access.unauthenticated"
    finally:
        await other.close()


async def test_guessing_costs_one_look_a_key_and_pushes_no_known_key_out(
    ledger: Ledger, clock: Clock
) -> None:
    text, key = await created(ledger, clock)
    server = authenticator(ledger, clock, api_keys=True)
    await server.identify(bearer(text), ELSEWHERE)
    await ledger.pool.execute("update api_key set roles = '{viewer}'")
    for n in range(200):
        guess = f"hdl_{n:016x}_{text[-43:]}"
        assert await refusal(server, bearer(guess)) == "access.unauthenticated"
        wrong = f"hdl_{key.key_id}_{n:043d}"
        assert await refusal(server, bearer(wrong)) == "access.unauthenticated"
    held = await server.identify(bearer(text), ELSEWHERE)
    assert held.roles == {Role.AGENT}  # as it was kept, within its few seconds


async def test_when_a_key_was_used_is_known_to_within_minutes(ledger: Ledger, clock: Clock) -> None:
    text, key = await created(ledger, clock)
    server = authenticator(ledger, clock, api_keys=True)
    for minutes, noted in ((0, 0), (1, 0), (4, 0), (6, 6), (7, 6)):
        clock.seconds = minutes * 60
        await server.identify(bearer(text), ELSEWHERE)
        found = await find_key(ledger, key.key_id)
        assert found is not None
        assert found.last_used_at == Clock().now() + timedelta(minutes=noted)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "a b"}, "key.malformed_name"),
        ({"roles": []}, "key.roles"),
        ({"assets": []}, "key.scope"),
        ({"assets": ["a b"]}, "asset.malformed_name"),
        ({"locations": ["x"] * 1_001}, "key.scope"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "key.expires"),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(
    ledger: Ledger, clock: Clock, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await created(ledger, clock, **changes)
    assert refused.value.code == code
    assert await list_keys(ledger) == []
    assert await ledger.head() == 0


async def test_what_is_no_key_cannot_be_revoked(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(NotFound) as refused:
        await revoke_key(ledger, "0" * 16, reason="x", revoked_by="user:eve", now=clock.now())
    assert refused.value.code == "key.unknown"


# --- tokens and keys beside each other ------------------------------------------------------


async def test_tokens_of_the_issuer_are_let_in_and_remembered_until_they_end(
    ledger: Ledger, clock: Clock
) -> None:
    with provider() as idp:
        server = Authenticator(
            ServerSettings(oidc_issuer=idp.issuer, oidc_audience=AUDIENCE),
            ledger,
            clock=clock,
        )
        token = idp.token()
        identity = await server.identify(bearer(token), ELSEWHERE)
        assert identity.actor == "user:jane"
        asked = len(idp.asked)
        idp.keys.clear()
        assert await server.identify(bearer(token), ELSEWHERE) == identity
        assert len(idp.asked) == asked
        assert await refusal(server, bearer(token[:-4] + "AAAA")) == "access.unauthenticated"
        assert await refusal(server, {}) == "access.unauthenticated"


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", "Basic amFuZTpwYXNz", "Bearer a,\nBearer b", "bearer\tx", "Token x"],
)
async def test_what_is_no_proof_is_refused_on_an_open_server_too(
    ledger: Ledger, clock: Clock, given: str
) -> None:
    server = authenticator(ledger, clock)
    headers = {**HOST, "authorization": given}
    assert await refusal(server, headers, LOOPBACK) == "access.unauthenticated"


async def test_a_key_is_held_to_its_rights_on_an_open_server_too(
    ledger: Ledger, clock: Clock
) -> None:
    text, _ = await created(ledger, clock)
    identity = await authenticator(ledger, clock).identify(HOST | bearer(text), LOOPBACK)
    assert identity.roles == {Role.AGENT}


async def test_development_tokens_are_taken_from_this_machine_alone(
    ledger: Ledger, clock: Clock, tmp_path: Path
) -> None:
    from api.access.development import make_token

    token = make_token(
        tmp_path,
        ledger.name,
        actor="jane",
        roles=[Role.VIEWER],
        locations=None,
        life=timedelta(hours=1),
        now=datetime.now(UTC),
    )
    settings = ServerSettings(data_dir=tmp_path, ledger=ledger.name)
    allowing = Authenticator(replace(settings, dev_tokens=True), ledger)
    assert (await allowing.identify(bearer(token), LOOPBACK)).actor == "user:jane"
    assert await refusal(allowing, bearer(token), ELSEWHERE) == "access.unauthenticated"
    assert await refusal(allowing, HOST, LOOPBACK) == "access.unauthenticated"
    assert await refusal(Authenticator(settings, ledger), bearer(token), LOOPBACK) == (
        "access.unauthenticated"
    )


# --- an open server -------------------------------------------------------------------------


async def test_an_open_server_lets_this_machine_do_everything_in_a_name_of_its_choice(
    ledger: Ledger, clock: Clock
) -> None:
    server = authenticator(ledger, clock)
    assert server.is_open
    assert await server.identify(HOST, LOOPBACK) == LOCAL_ADMIN
    named = await server.identify({**HOST, "x-heddle-actor": "jane"}, LOOPBACK)
    assert named.actor == "user:jane"
    assert named.rights == frozenset(Right)


@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        (HOST, ELSEWHERE),
        (HOST, "10.0.0.1"),
        (HOST, None),
        (HOST, ""),
        (HOST, "not an address"),
        ({"host": "heddle.evil.example"}, LOOPBACK),
        ({"host": "127.0.0.1.evil.example:8000"}, LOOPBACK),
        ({"host": "192.0.2.7"}, LOOPBACK),
        ({"host": ""}, LOOPBACK),
        ({}, LOOPBACK),
        ({**HOST, "origin": "https://evil.example"}, LOOPBACK),
        ({**HOST, "origin": "null"}, LOOPBACK),
        ({**HOST, "origin": "http://localhost.evil.example"}, LOOPBACK),
        ({**HOST, "x-forwarded-for": ELSEWHERE}, LOOPBACK),
        ({**HOST, "forwarded": f"for={ELSEWHERE}"}, LOOPBACK),
    ],
)
async def test_an_open_server_answers_nobody_else_not_even_through_a_browser_or_a_proxy(
    ledger: Ledger, clock: Clock, headers: dict[str, str], peer: str | None
) -> None:
    assert await refusal(authenticator(ledger, clock), headers, peer) == "access.unauthenticated"


@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        ({"host": "localhost:8000"}, "::1"),
        ({"host": "[::1]:8000"}, "::1"),
        ({"host": "127.0.0.1:8000"}, "::ffff:127.0.0.1"),
        ({**HOST, "origin": "http://localhost:3000"}, LOOPBACK),
        ({**HOST, "origin": "http://127.0.0.1:8000"}, LOOPBACK),
    ],
)
async def test_this_machine_has_several_names(
    ledger: Ledger, clock: Clock, headers: dict[str, str], peer: str
) -> None:
    assert await authenticator(ledger, clock).identify(headers, peer) == LOCAL_ADMIN


def test_a_server_that_the_world_can_reach_does_not_start_open() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "heddle.example"):
        with pytest.raises(SettingsInvalid) as refused:
            check_settings(ServerSettings(host=host))
        assert refused.value.code == "settings.invalid"
        check_settings(ServerSettings(host=host, api_keys=True))
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        check_settings(ServerSettings(host=host))


def test_every_half_configured_way_in_is_a_fault() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        check_settings(
            ServerSettings(
                host="0.0.0.0",
                dev_tokens=True,
                oidc_issuer="https://login.example",
                trusted_proxies=(ip_network("10.0.0.0/8"),),
            )
        )
    told = refused.value.message
    for name in ("HEDDLE_DEV_TOKENS", "HEDDLE_OIDC_AUDIENCE", "HEDDLE_PROXY_SUBJECTS"):
        assert name in told


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OIDC_ISSUER", "http://login.example"),
        ("OIDC_ALGORITHMS", "RS256 HS256"),
        ("OIDC_ALGORITHMS", "none"),
        ("OIDC_ROLE_NAMES", "readers=reader"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("PROXY_HEADER", "x-subject: y"),
    ],
)
def test_a_setting_that_would_open_a_hole_is_refused(name: str, text: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        ServerSettings.from_environment({f"HEDDLE_{name}": text})
    assert f"HEDDLE_{name}" in refused.value.message


# --- a trusted proxy ------------------------------------------------------------------------

SUBJECTS = {
    "CN=gateway-1,O=Works": {"key": "gateway-1"},
    "CN=scada": {"actor": "scada", "roles": ["operator"], "locations": ["site-1"]},
}
PROXY = "10.1.2.3"


@pytest.fixture
def proxied(ledger: Ledger, clock: Clock, tmp_path: Path) -> Authenticator:
    path = tmp_path / "subjects.json"
    path.write_bytes(orjson.dumps(SUBJECTS))
    return authenticator(
        ledger, clock, trusted_proxies=(ip_network("10.1.0.0/16"),), proxy_subjects=path
    )


async def test_a_proxy_vouches_for_the_certificate_that_it_has_checked(
    proxied: Authenticator, ledger: Ledger, clock: Clock
) -> None:
    identity = await proxied.identify({"x-client-subject": "CN=scada"}, PROXY)
    assert (identity.actor, identity.method) == ("service:scada", "proxy")
    assert identity.roles == {Role.OPERATOR}
    assert identity.locations == frozenset({"site-1"})
    gateway = {"x-client-subject": "CN=gateway-1,O=Works"}
    assert await refusal(proxied, gateway, PROXY) == "access.unauthenticated"
    _, key = await created(ledger, clock)
    identity = await proxied.identify(gateway, PROXY)
    assert (identity.actor, identity.key_id) == ("agent:gateway-1", key.key_id)
    await revoke_key(ledger, key.key_id, reason="lost", revoked_by="user:eve", now=clock.now())
    clock.seconds += KEY_KEPT_S
    assert await refusal(proxied, gateway, PROXY) == "access.unauthenticated"
    assert not await proxied.still_valid(identity)


@pytest.mark.parametrize("peer", [ELSEWHERE, LOOPBACK, "10.2.0.1", "::1", None, "10.1.2.3.evil"])
async def test_from_anybody_else_the_proxys_header_does_not_exist(
    proxied: Authenticator, peer: str | None
) -> None:
    headers = {**HOST, "x-client-subject": "CN=scada"}
    assert await refusal(proxied, headers, peer) == "access.unauthenticated"
    forwarded = {**headers, "x-forwarded-for": PROXY, "forwarded": f"for={PROXY}"}
    assert await refusal(proxied, forwarded, peer) == "access.unauthenticated"


async def test_a_client_slips_no_subject_past_its_proxy(proxied: Authenticator) -> None:
    twice = [(b"x-client-subject", b"CN=scada"), (b"x-client-subject", b"CN=nobody")]
    for sent in (twice, twice[::-1], [twice[0], twice[0]]):
        headers = read_headers({"type": "http", "headers": sent})
        assert await refusal(proxied, headers, PROXY) == "access.unauthenticated"


async def test_a_subject_that_is_not_listed_is_nobody(proxied: Authenticator) -> None:
    for subject in ("", "CN=SCADA", "CN=scada ", "CN=scada,O=Other", "x" * 10_000):
        assert await refusal(proxied, {"x-client-subject": subject}, PROXY) == (
            "access.unauthenticated"
        )
    assert await refusal(proxied, {}, PROXY) == "access.unauthenticated"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: b",
        "CN=x: {key: a, roles: [admin]}",
        "CN=x: {actor: x}",
        "CN=x: {actor: x, roles: [king]}",
        "CN=x: {actor: 'x y', roles: [viewer]}",
        "CN=x: {actor: x, roles: [viewer], sites: [a]}",
        "CN=x: {actor: x, roles: [viewer], locations: site-1}",
        "CN=x: !!python/object/apply:os.system ['true']",
    ],
)
def test_a_file_of_subjects_that_is_none_stops_the_server(tmp_path: Path, text: str) -> None:
    path = tmp_path / "subjects.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_subjects(path)
    assert refused.value.code == "access.subjects_malformed"
