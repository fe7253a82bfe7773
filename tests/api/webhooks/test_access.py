"""As whom a webhook sees, who sees a webhook, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.responses import Response

from api.access.keys import ApiKey, create_key, revoke_key
from api.access.rights import Role
from api.graphql.relay import encode_id
from domain.asset import CommissionAsset, PlaceAsset, RegisterAsset
from domain.plant.location import DefineLocation, Level
from tests.api.access.identity_provider import AUDIENCE, provider
from tests.api.graphql.server import PUMP_TYPE, Server
from tests.api.webhooks.hooks import EVENTS, create, done, hooking, send, state, until
from tests.api.webhooks.receiver import Received, Receiver

pytestmark = pytest.mark.anyio

COMMISSIONED = {"types": ["asset.commissioned"]}


@pytest.fixture
async def guarded(webhook_database_url: str, ledger_name: str) -> AsyncIterator[Server]:
    """A server that asks for keys, with a pump at each of two sites."""
    async with hooking(webhook_database_url, ledger=ledger_name, api_keys=True) as server:
        await found_plant(server)
        yield server


async def found_plant(server: Server) -> None:
    await server.command(DefineLocation("works", Level.ENTERPRISE, "Works"))
    for n in (1, 2):
        await server.command(DefineLocation(f"site-{n}", Level.SITE, f"Site {n}", "works"))
        await server.command(RegisterAsset(f"pump-{n}", PUMP_TYPE, f"Pump {n}"))
        await server.command(PlaceAsset(f"pump-{n}", f"site-{n}"))


async def key_of(server: Server, *roles: Role, **changes: Any) -> tuple[str, ApiKey]:
    """Return what a new key is sent as, and the key."""
    given: dict[str, Any] = {"name": "cmms", "locations": None, **changes}
    text, key = await create_key(
        server.ledger,
        roles=roles,
        assets=None,
        expires_at=None,
        created_by="user:test",
        now=datetime.now(UTC),
        **given,
    )
    return f"Bearer {text}", key


def subjects(receiver: Receiver) -> set[str]:
    return {received.event["subject"] for received in receiver.received}


# --- what it tells ------------------------------------------------------------------------


async def test_a_webhook_tells_of_its_own_site_alone(guarded: Server, receiver: Receiver) -> None:
    asking, _ = await key_of(guarded, Role.ENGINEER, locations=["site-1"])
    webhook_id, _ = await create(
        guarded, receiver.url, authorization=asking, after=guarded.cursor(0)
    )
    await guarded.command(CommissionAsset("pump-2"))
    await guarded.command(CommissionAsset("pump-1"))
    await receiver.until(
        lambda: "io.heddle.asset.commissioned" in {r.event["type"] for r in receiver.taken}
    )
    head = await guarded.ledger.head()
    await until(
        guarded,
        webhook_id,
        lambda w: w["backlog"]["plannedTo"] == head and not w["backlog"]["pending"],
        authorization=asking,
    )

    assert subjects(receiver) == {"asset:pump-1", "location:site-1"}
    assert not any(b"pump-2" in r.body or b"site-2" in r.body for r in receiver.received)


async def test_what_leaves_its_sight_while_it_waits_is_withdrawn(
    guarded: Server, receiver: Receiver
) -> None:
    asking, _ = await key_of(guarded, Role.ENGINEER, locations=["site-1"])
    away = True

    async def answer(_received: Received) -> Response:
        return Response(status_code=503 if away else 204)

    receiver.answer = answer
    webhook_id, _ = await create(
        guarded, receiver.url, authorization=asking, variables=COMMISSIONED
    )
    await guarded.command(RegisterAsset("pump-3", PUMP_TYPE, "Pump 3"))
    await guarded.command(PlaceAsset("pump-3", "site-1"))
    for pump in ("pump-1", "pump-3"):
        await guarded.command(CommissionAsset(pump))
    await receiver.until(lambda: subjects(receiver) == {"asset:pump-1", "asset:pump-3"})
    await guarded.command(PlaceAsset("pump-1", "site-2"))
    found = await until(
        guarded,
        webhook_id,
        lambda w: "WITHDRAWN" in {n["state"] for n in w["deliveries"]["nodes"]},
        authorization=asking,
    )
    sent = len([r for r in receiver.received if r.event["subject"] == "asset:pump-1"])
    away = False
    await receiver.until_taken(1)

    states = {n["subject"]: n["state"] for n in found["deliveries"]["nodes"]}
    assert states["asset:pump-1"] == "WITHDRAWN"
    assert [r.event["subject"] for r in receiver.taken] == ["asset:pump-3"]
    assert len([r for r in receiver.received if r.event["subject"] == "asset:pump-1"]) == sent


# --- what ends it -------------------------------------------------------------------------


async def test_it_ends_with_its_key_and_goes_on_with_another(
    guarded: Server, receiver: Receiver
) -> None:
    asking, key = await key_of(guarded, Role.ENGINEER)
    admin, _ = await key_of(guarded, Role.ADMIN, name="admin")
    webhook_id, _ = await create(
        guarded, receiver.url, authorization=asking, variables=COMMISSIONED
    )
    await guarded.command(CommissionAsset("pump-1"))
    await receiver.until_taken(1)

    await revoke_key(
        guarded.ledger, key.key_id, reason="lost", revoked_by="user:test", now=datetime.now(UTC)
    )
    found = await until(
        guarded, webhook_id, lambda w: w["status"] == "STOPPED", authorization=admin
    )
    assert found["stopCode"] == "webhook.key_invalid"
    assert key.key_id in found["stopReason"]
    await guarded.command(CommissionAsset("pump-2"))
    assert len(receiver.received) == 1

    _, viewer = await key_of(guarded, Role.VIEWER, name="mirror")
    await done(
        guarded,
        "changeWebhook",
        webhookId=webhook_id,
        keyId=viewer.key_id,
        authorization=admin,
    )
    await done(guarded, "resumeWebhook", webhookId=webhook_id, authorization=admin)
    await receiver.until_taken(2)
    assert [r.event["subject"] for r in receiver.taken] == ["asset:pump-1", "asset:pump-2"]


async def test_one_of_an_open_server_ends_when_the_server_asks_who_one_is(
    webhook_database_url: str, ledger_name: str, receiver: Receiver
) -> None:
    async with hooking(webhook_database_url, ledger=ledger_name) as opened:
        webhook_id, _ = await create(opened, receiver.url, variables=COMMISSIONED)
        await opened.register("pump-1", commission=True)
        await receiver.until_taken(1)
    async with hooking(webhook_database_url, ledger=ledger_name, api_keys=True) as closed:
        admin, _ = await key_of(closed, Role.ADMIN)
        found = await until(
            closed, webhook_id, lambda w: w["status"] == "STOPPED", authorization=admin
        )
        assert found["stopCode"] == "webhook.server_not_open"
        await closed.register("pump-2", commission=True)
        # Whoever changes it has to name nothing: it acts as he does from then on.
        await done(
            closed, "changeWebhook", webhookId=webhook_id, title="Closed", authorization=admin
        )
        await done(closed, "resumeWebhook", webhookId=webhook_id, authorization=admin)
        await receiver.until_taken(2)


async def test_a_document_that_takes_a_right_that_the_key_has_not_is_refused(
    guarded: Server, receiver: Receiver
) -> None:
    admin, _ = await key_of(guarded, Role.ADMIN, name="admin")
    _, agent = await key_of(guarded, Role.AGENT, name="gateway-1")
    result = await send(
        guarded,
        "createWebhook",
        title="A receiver",
        url=receiver.url,
        document=EVENTS,
        keyId=agent.key_id,
        authorization=admin,
    )
    assert (result["__typename"], result["code"]) == ("NotAllowedError", "access.denied")
    assert result["value"] == "Subscription.events"


# --- who sees it --------------------------------------------------------------------------


async def test_whoever_sees_a_part_sees_his_own_webhooks_and_knows_of_no_other(
    guarded: Server, receiver: Receiver
) -> None:
    ours, _ = await key_of(guarded, Role.ENGINEER, name="ours", locations=["site-1"])
    theirs, _ = await key_of(guarded, Role.ENGINEER, name="theirs", locations=["site-2"])
    # A key of the same name, for another part: the same actor, who may not see that one's either.
    moved, _ = await key_of(guarded, Role.ENGINEER, name="theirs", locations=["site-1"])
    whole, _ = await key_of(guarded, Role.ENGINEER, name="whole")
    own, _ = await create(guarded, receiver.url, authorization=ours)
    other, _ = await create(guarded, receiver.url, authorization=theirs)

    async def listed(asking: str) -> list[str]:
        answer = await guarded.post(
            "{ webhooks(first: 10) { nodes { webhookId } } }", authorization=asking
        )
        return sorted(node["webhookId"] for node in answer["data"]["webhooks"]["nodes"])

    assert await listed(ours) == [own]
    assert await listed(theirs) == [other]
    assert await listed(moved) == []
    assert await listed(whole) == sorted((own, other))
    for asking in (ours, moved):
        assert await state(guarded, other, authorization=asking) is None
        node = await guarded.post(
            "query($id: ID!) { node(id: $id) { id } }",
            {"id": encode_id("Webhook", other)},
            authorization=asking,
        )
        assert node["data"]["node"] is None
        for mutation, more in (
            ("changeWebhook", {"title": "mine"}),
            ("pauseWebhook", {}),
            ("resumeWebhook", {}),
            ("rotateWebhookSecret", {}),
            ("replayWebhook", {"after": guarded.cursor(0)}),
            ("testWebhook", {}),
            ("redeliverWebhook", {"deliveryIds": ["1"]}),
            ("deleteWebhook", {}),
        ):
            results = [
                await send(guarded, mutation, webhookId=name, authorization=asking, **more)
                for name in (other, "wh-nobody")
            ]
            assert {r["code"] for r in results} == {"webhook.unknown"}, mutation
            told = [str(r).replace(other, "X").replace("wh-nobody", "X") for r in results]
            assert told[0] == told[1]
    events = await guarded.post(
        '{ events(first: 500, filter: {categories: ["webhook"]}) { nodes { stream } } }',
        authorization=ours,
    )
    assert events["data"]["events"]["nodes"] == []
    assert receiver.received == []


async def test_nobody_sends_what_another_sees_to_an_address_of_his_own(
    guarded: Server, receiver: Receiver
) -> None:
    admin, _ = await key_of(guarded, Role.ADMIN, name="admin")
    engineer, _ = await key_of(guarded, Role.ENGINEER, name="engineer")
    webhook_id, _ = await create(guarded, receiver.url, authorization=admin)

    changed = await send(
        guarded,
        "changeWebhook",
        webhookId=webhook_id,
        url="http://127.0.0.1:9999/mine",
        authorization=engineer,
    )
    assert (changed["__typename"], changed["code"]) == ("NotFoundError", "key.unknown")
    await done(guarded, "pauseWebhook", webhookId=webhook_id, authorization=engineer)
    found = await until(guarded, webhook_id, lambda w: w["status"] == "PAUSED", authorization=admin)
    assert found["url"] == receiver.url


async def test_whoever_comes_with_a_token_names_a_key_within_his_own_rights(
    webhook_database_url: str, ledger_name: str, receiver: Receiver
) -> None:
    with provider() as idp:
        async with hooking(
            webhook_database_url,
            ledger=ledger_name,
            api_keys=True,
            oidc_issuer=idp.issuer,
            oidc_audience=AUDIENCE,
            oidc_locations_claim="sites",
        ) as server:
            await found_plant(server)
            asking = f"Bearer {idp.token({'roles': ['engineer'], 'sites': ['site-1']})}"
            keys = {
                "viewer": await key_of(server, Role.VIEWER, locations=["site-1"]),
                "other site": await key_of(server, Role.VIEWER, locations=["site-2"]),
                "whole": await key_of(server, Role.VIEWER),
                "admin": await key_of(server, Role.ADMIN, locations=["site-1"]),
            }

            async def attempt(key_id: str | None) -> dict[str, Any]:
                return await send(
                    server,
                    "createWebhook",
                    "webhook { keyId }",
                    title="A receiver",
                    url=receiver.url,
                    document=EVENTS,
                    keyId=key_id,
                    authorization=asking,
                )

            assert (await attempt(None))["code"] == "webhook.key_missing"
            for name in ("other site", "whole", "admin"):
                assert (await attempt(keys[name][1].key_id))["code"] == "key.unknown", name
            assert (await attempt("0" * 16))["code"] == "key.unknown"
            own = keys["viewer"][1].key_id
            assert (await attempt(own))["webhook"] == {"keyId": own}


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"document": "query { log { position } }"}, "webhook.no_subscription"),
        ({"document": "mutation { __typename }"}, "webhook.no_subscription"),
        ({"document": "subscription {"}, "webhook.document_refused"),
        ({"document": "subscription { nothing }"}, "webhook.document_refused"),
        (
            {"document": "subscription { ...F } fragment F on Subscription { events { cursor } }"},
            "webhook.no_root_field",
        ),
        ({"document": EVENTS + " " * 20_001}, "text.too_long"),
        ({"title": " "}, "text.empty"),
        ({"variables": ["x"]}, "webhook.malformed_variables"),
        ({"url": "http://10.0.0.1:8080/"}, "webhook.forbidden_address"),
        ({"url": "http://169.254.169.254:8080/latest/meta-data"}, "webhook.forbidden_address"),
        ({"url": "http://[::ffff:10.0.0.1]:8080/"}, "webhook.forbidden_address"),
        ({"url": "http://2130706433:8080/"}, "webhook.malformed_url"),
        ({"url": "http://user@127.0.0.1:8080/"}, "webhook.malformed_url"),
        ({"url": "http://127.0.0.1:80/"}, "webhook.forbidden_port"),
        ({"url": "ftp://127.0.0.1:8080/"}, "webhook.forbidden_scheme"),
        ({"after": "nonsense"}, "cursor.malformed"),
    ],
)
async def test_what_could_not_be_delivered_is_refused_when_it_is_asked_for(
    server: Server, changes: dict[str, Any], code: str
) -> None:
    given = {"title": "A receiver", "url": "http://127.0.0.1:8080/", "document": EVENTS}
    for dry_run in (True, False):
        result = await send(server, "createWebhook", dryRun=dry_run, **(given | changes))
        assert (result["__typename"], result["code"]) == ("ValidationError", code)
    kept = await server.ledger.pool.fetchval(
        "select count(*) from webhook_secret where ledger_id = $1", server.ledger.ledger_id
    )
    assert (await server.ledger.head(), kept) == (0, 0)


async def test_a_trial_records_nothing(server: Server, receiver: Receiver) -> None:
    given = {"title": "A receiver", "url": receiver.url, "document": EVENTS}
    result = await done(server, "createWebhook", "secret webhook { url }", dryRun=True, **given)
    assert (result["secret"], result["webhook"], result["dryRun"]) == (None, None, True)
    assert await server.ledger.head() == 0


async def test_an_address_that_came_to_lead_inside_gets_nothing(
    webhook_database_url: str, ledger_name: str, receiver: Receiver
) -> None:
    """Allowed when it was created; the settings, or the name's addresses, changed since."""
    async with hooking(webhook_database_url, ledger=ledger_name) as server:
        webhook_id, _ = await create(server, receiver.url)
        await done(server, "pauseWebhook", webhookId=webhook_id)
    received = len(receiver.received)
    async with hooking(
        webhook_database_url, ledger=ledger_name, webhook_networks=(), webhook_attempts_max=2
    ) as server:
        await done(server, "resumeWebhook", webhookId=webhook_id)
        found = await until(server, webhook_id, lambda w: w["backlog"]["dead"] > 0)
    codes = {n["failureCode"] for n in found["deliveries"]["nodes"] if n["state"] == "DEAD"}
    assert codes == {"webhook.forbidden_address"}
    assert len(receiver.received) == received
