"""Tokens: what is let in, and every way in which a forged one is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from api.access.development import KEY_FILE, development_verifier, make_token
from api.access.issuer_keys import DOCUMENT_BYTES_MAX, IssuerKeys, check_provider_url
from api.access.rights import Role
from api.access.tokens import TOKEN_LENGTH_MAX, Claims, TokenVerifier, claim
from domain.errors import HeddleError, InvalidInput, NotAllowed, Unavailable
from tests.api.access.identity_provider import AUDIENCE, Provider, provider, rsa_key

pytestmark = pytest.mark.anyio


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def idp() -> Iterator[Provider]:
    with provider() as served:
        yield served


def verifier(idp: Provider, **changes: Any) -> TokenVerifier:
    given: dict[str, Any] = {
        "issuer": idp.issuer,
        "audience": AUDIENCE,
        "algorithms": ("RS256", "ES256"),
        "key": IssuerKeys(idp.issuer, None).key,
        "claims": Claims(),
        "leeway_s": 5.0,
    }
    return TokenVerifier(**(given | changes))


async def code(idp: Provider, token: str, **changes: Any) -> str:
    """Return the code that `token` is refused with."""
    with pytest.raises(HeddleError) as refused:
        await verifier(idp, **changes).verify(token)
    assert isinstance(refused.value, NotAllowed)
    return refused.value.code


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Return a token as no library would make it."""
    return f"{segment(header)}.{segment(claims)}.{segment(signature) if signature else ''}"


def claims_of(idp: Provider, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    told = {"iss": idp.issuer, "aud": AUDIENCE, "sub": "jane", "roles": ["admin"], "exp": now + 60}
    return told | changes


# --- what is let in -------------------------------------------------------------------------


async def test_a_token_says_who_it_is_in_which_roles_and_until_when(idp: Provider) -> None:
    ends = int(time.time()) + 120
    token = idp.token({"sub": "jane@works.example", "roles": ["viewer", "quality"], "exp": ends})
    identity = await verifier(idp).verify(token)
    assert identity.actor == "user:jane@works.example"
    assert identity.roles == {Role.VIEWER, Role.QUALITY}
    assert identity.expires_at == datetime.fromtimestamp(ends, UTC) + timedelta(seconds=5)
    assert identity.sees_everything


async def test_roles_of_another_issuer_are_called_by_our_names_and_unknown_ones_give_nothing(
    idp: Provider,
) -> None:
    token = idp.token({"realm_access": {"roles": ["plant-reader", "uma_authorization"]}})
    claims = Claims(roles="realm_access.roles", role_names={"plant-reader": "viewer"})
    identity = await verifier(idp, claims=claims).verify(token)
    assert identity.roles == {Role.VIEWER}
    nobody = await verifier(idp, claims=Claims(roles="groups")).verify(token)
    assert nobody.rights == frozenset()


@pytest.mark.parametrize(
    ("told", "locations"),
    [
        ({"sites": ["site-1", "site-2"]}, {"site-1", "site-2"}),
        ({"sites": "site-1"}, {"site-1"}),
        ({"sites": ["*"]}, None),
        ({}, set()),
        ({"sites": 7}, set()),
    ],
)
async def test_who_is_bound_to_locations_sees_those_that_are_named_and_none_without(
    idp: Provider, told: dict[str, Any], locations: set[str] | None
) -> None:
    identity = await verifier(idp, claims=Claims(locations="sites")).verify(idp.token(told))
    assert identity.locations == locations


def test_a_claim_may_have_dots_in_its_name() -> None:
    assert claim({"https://x.example/roles": ["a"]}, "https://x.example/roles") == ["a"]
    assert claim({"a": {"b": 1}}, "a.b") == 1
    assert claim({"a": 7}, "a.b") is None


async def test_an_elliptic_key_is_as_good(idp: Provider) -> None:
    idp.keys["curve"] = ec.generate_private_key(ec.SECP256R1())
    token = idp.token(key_id="curve", algorithm="ES256")
    assert (await verifier(idp).verify(token)).actor == "user:jane"


# --- what is not ----------------------------------------------------------------------------


async def test_an_unsigned_token_is_refused_however_it_spells_none(idp: Provider) -> None:
    for name in ("none", "None", "NONE", "nOnE", ""):
        token = by_hand({"alg": name, "kid": "first", "typ": "JWT"}, claims_of(idp))
        assert await code(idp, token) == "access.unauthenticated", name


async def test_a_public_key_is_no_secret_to_sign_with(idp: Provider) -> None:
    header, claims = {"alg": "HS256", "kid": "first", "typ": "JWT"}, claims_of(idp)
    signing_input = f"{segment(header)}.{segment(claims)}"
    for secret in (idp.public_pem(), idp.public_pem().strip(), idp.jwks()):
        signature = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
        assert await code(idp, f"{signing_input}.{segment(signature)}") == "access.unauthenticated"


async def test_a_symmetric_key_among_the_issuers_is_never_used(idp: Provider) -> None:
    secret = b"a secret that the issuer publishes by mistake"
    shared = {"kty": "oct", "kid": "shared", "k": segment(secret)}
    keys = json.loads(idp.jwks())["keys"]
    idp.answers["/keys"] = json.dumps({"keys": [*keys, shared]}).encode()
    token = idp.token(key_id="shared", key=secret, algorithm="HS256")
    assert await code(idp, token) == "access.unauthenticated"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iss": "https://elsewhere.example"}, "access.unauthenticated"),
        ({"aud": "another-service"}, "access.unauthenticated"),
        ({"aud": ["another-service", "a-third"]}, "access.unauthenticated"),
        ({"exp": int(time.time()) - 60}, "access.expired"),
        ({"nbf": int(time.time()) + 3_600}, "access.unauthenticated"),
        ({"iat": int(time.time()) + 3_600}, "access.unauthenticated"),
        ({"exp": "tomorrow"}, "access.unauthenticated"),
        ({"exp": 10**18}, "access.unauthenticated"),
        ({"sub": ""}, "access.unauthenticated"),
        ({"sub": "jane\nroles: admin"}, "access.unauthenticated"),
        ({"sub": "x" * 200}, "access.unauthenticated"),
    ],
)
async def test_a_token_for_others_or_of_another_time_is_refused(
    idp: Provider, changes: dict[str, Any], expected: str
) -> None:
    assert await code(idp, idp.token(changes)) == expected


@pytest.mark.parametrize("missing", ["iss", "aud", "exp", "sub"])
async def test_a_token_has_to_say_all_that_it_is_judged_by(idp: Provider, missing: str) -> None:
    assert await code(idp, idp.token(without=(missing,))) == "access.unauthenticated"


async def test_clocks_may_differ_by_the_leeway_and_no_more(idp: Provider) -> None:
    now = int(time.time())
    assert (await verifier(idp, leeway_s=60.0).verify(idp.token({"exp": now - 30}))).actor
    assert await code(idp, idp.token({"exp": now - 90}), leeway_s=60.0) == "access.expired"


async def test_another_key_under_a_known_id_does_not_sign_for_it(idp: Provider) -> None:
    assert await code(idp, idp.token(key=rsa_key())) == "access.unauthenticated"
    assert await code(idp, idp.token(key_id="x", key=rsa_key())) == "access.unauthenticated"


async def test_a_key_is_used_with_its_own_algorithm_alone(idp: Provider) -> None:
    keys = json.loads(idp.jwks())["keys"]
    idp.answers["/keys"] = json.dumps({"keys": [{**keys[0], "alg": "PS256"}]}).encode()
    assert await code(idp, idp.token()) == "access.unauthenticated"
    idp.keys["curve"] = ec.generate_private_key(ec.SECP256R1())
    del idp.answers["/keys"]
    swapped = idp.token(key_id="curve", key=idp.keys["first"])
    assert await code(idp, swapped) == "access.unauthenticated"


async def test_a_key_in_the_tokens_own_header_is_not_looked_at(idp: Provider) -> None:
    import jwt

    own = rsa_key()
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))
    for header in ({"jwk": public}, {"jku": f"{idp.issuer}/mine"}, {"x5u": f"{idp.issuer}/mine"}):
        asked = len(idp.asked)
        token = jwt.encode(
            claims_of(idp), own, algorithm="RS256", headers={"kid": "first", **header}
        )
        assert await code(idp, token) == "access.unauthenticated"
        assert "/mine" not in idp.asked[asked:]


async def test_a_weak_key_of_the_issuer_is_refused(idp: Provider) -> None:
    idp.keys["weak"] = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of what it is made to do
        token = idp.token(key_id="weak")
    assert await code(idp, token) == "access.unauthenticated"


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "not a token",
        "x" * (TOKEN_LENGTH_MAX + 1),
        f"{'x' * 2_000_000}.y.z",
        f"{'[' * 1_000}.y.z",
        segment(b"[" * 3_000) + ".eyJ9.c2ln",
        segment(b"\xff\xfe") + ".eyJ9.c2ln",
        segment(b"null") + ".bnVsbA.c2ln",
        segment({"alg": ["RS256"], "kid": "first"}) + ".e30.c2ln",
        segment({"alg": "RS256", "kid": 7}) + ".e30.c2ln",
        segment({"alg": "RS256", "kid": {"$ne": ""}}) + ".e30.c2ln",
        segment({"alg": "RS256", "kid": "../../etc/passwd"}) + ".e30.c2ln",
        segment({"alg": "RS256", "kid": "first", "crit": ["exp2"]}) + ".e30.c2ln",
    ],
)
async def test_what_is_no_token_is_refused_without_a_word_of_how(idp: Provider, token: str) -> None:
    assert await code(idp, token) == "access.unauthenticated"


# --- the issuer's keys ----------------------------------------------------------------------


async def test_keys_are_fetched_once_and_again_for_a_new_one_at_most_once_a_minute(
    idp: Provider,
) -> None:
    clock = Clock()
    keys = IssuerKeys(idp.issuer, None, clock=clock)
    assert await keys.key("first") is not None
    fetched = len(idp.asked)
    for n in range(50):
        assert await keys.key("first") is not None
        assert await keys.key(f"guess-{n}") is None
    assert len(idp.asked) == fetched
    idp.keys["second"] = rsa_key()
    assert await keys.key("second") is None
    clock.now += 61
    assert await keys.key("second") is not None
    assert len(idp.asked) == 2 * fetched


async def test_a_key_that_its_issuer_took_back_is_forgotten_within_the_hour(idp: Provider) -> None:
    clock = Clock()
    keys = IssuerKeys(idp.issuer, f"{idp.issuer}/keys", clock=clock)
    assert await keys.key("first") is not None
    idp.keys = {"second": rsa_key()}
    clock.now += 3_601
    assert await keys.key("first") is None
    assert await keys.key("second") is not None


async def test_keys_are_kept_while_the_provider_is_away(idp: Provider) -> None:
    clock = Clock()
    keys = IssuerKeys(idp.issuer, f"{idp.issuer}/keys", clock=clock)
    assert await keys.key("first") is not None
    idp.answers["/keys"] = 503
    clock.now += 10_000
    assert await keys.key("first") is not None
    assert idp.asked.count("/keys") == 2


async def test_without_any_key_nobody_is_let_in_and_the_provider_is_not_flooded(
    idp: Provider,
) -> None:
    clock = Clock()
    idp.answers["/keys"] = 500
    keys = IssuerKeys(idp.issuer, f"{idp.issuer}/keys", clock=clock)
    for _ in range(20):
        with pytest.raises(Unavailable) as refused:
            await keys.key("first")
        assert refused.value.code == "access.provider_unavailable"
    assert idp.asked == ["/keys"]
    del idp.answers["/keys"]
    clock.now += 6
    assert await keys.key("first") is not None


@pytest.mark.parametrize(
    "answer",
    [
        b" " * (DOCUMENT_BYTES_MAX + 1),
        b"<html>",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "kid": "first", "k": "c2VjcmV0"}]}',
        b'{"keys": [{"kty": "RSA", "kid": "first"}]}',
        302,
    ],
)
async def test_an_answer_that_holds_no_keys_gives_none(idp: Provider, answer: bytes | int) -> None:
    idp.answers["/jwks"] = answer
    with pytest.raises(Unavailable):
        await IssuerKeys(idp.issuer, f"{idp.issuer}/jwks").key("first")
    assert idp.asked == ["/jwks"]  # a redirection is not followed


async def test_a_provider_that_calls_itself_otherwise_is_not_believed(idp: Provider) -> None:
    for told in (
        {"issuer": "https://elsewhere.example", "jwks_uri": f"{idp.issuer}/keys"},
        {"issuer": idp.issuer, "jwks_uri": "http://169.254.169.254/keys"},
        {"issuer": idp.issuer, "jwks_uri": "file:///etc/passwd"},
        {"issuer": idp.issuer},
    ):
        idp.answers["/.well-known/openid-configuration"] = json.dumps(told).encode()
        with pytest.raises(Unavailable):
            await IssuerKeys(idp.issuer, None).key("first")
    assert "/keys" not in idp.asked


@pytest.mark.parametrize(
    "url", ["http://login.example", "ftp://x", "https://", "https://u:p@x.example", "nothing"]
)
def test_keys_come_over_a_connection_that_nobody_can_change(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_provider_url(url)


# --- development ----------------------------------------------------------------------------


def development_token(folder: Path, **changes: Any) -> str:
    given: dict[str, Any] = {
        "actor": "jane",
        "roles": [Role.ENGINEER],
        "locations": ["site-1"],
        "life": timedelta(hours=1),
        "now": datetime.now(UTC),
    }
    return make_token(folder, "plant-1", **(given | changes))


async def test_a_development_token_is_accepted_by_the_ledger_that_it_is_for(
    tmp_path: Path,
) -> None:
    token = development_token(tmp_path)
    identity = await development_verifier(tmp_path, "plant-1").verify(token)
    assert identity.actor == "user:jane"
    assert identity.roles == {Role.ENGINEER}
    assert identity.locations == frozenset({"site-1"})
    assert identity.method == "development"
    with pytest.raises(NotAllowed):
        await development_verifier(tmp_path, "plant-2").verify(token)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


async def test_a_development_token_of_another_folder_is_refused(tmp_path: Path) -> None:
    token = development_token(tmp_path / "mine")
    with pytest.raises(NotAllowed):
        await development_verifier(tmp_path / "yours", "plant-1").verify(token)
    development_token(tmp_path / "yours")
    with pytest.raises(NotAllowed):
        await development_verifier(tmp_path / "yours", "plant-1").verify(token)


async def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    token = development_token(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(InvalidInput) as refused:
        await development_verifier(tmp_path, "plant-1").verify(token)
    assert refused.value.code == "token.key_unusable"


@pytest.mark.parametrize("life", [timedelta(0), timedelta(days=2), timedelta(seconds=-1)])
def test_a_development_token_lives_a_day_at_most(tmp_path: Path, life: timedelta) -> None:
    with pytest.raises(InvalidInput) as refused:
        development_token(tmp_path, life=life)
    assert refused.value.code == "token.life"
