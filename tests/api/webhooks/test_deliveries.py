"""Deliveries: what is sent, in which order, again until it is taken, and never lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import orjson
import pytest
from starlette.responses import Response

from api.webhooks import dispatcher, run, store
from domain.asset import CommissionAsset, DesireSetpoint
from domain.maintenance.work_order import ApproveWorkOrder, Priority, RequestWorkOrder
from tests.api.graphql.server import Server
from tests.api.webhooks.hooks import (
    EVENTS,
    create,
    done,
    hooking,
    send,
    state,
    until,
    until_at_work,
)
from tests.api.webhooks.receiver import Received, Receiver, receiving

pytestmark = pytest.mark.anyio

ASSETS = {"types": ["asset.registered", "asset.commissioned", "asset.setpoint_desired"]}


async def refused(_received: Received) -> Response:
    return Response("not today", status_code=500)


async def gone(_received: Received) -> Response:
    return Response(status_code=410)


def pump_of(received: Received) -> str:
    return str(received.event["subject"]).partition(":")[2]


# --- what is sent -------------------------------------------------------------------------


async def test_a_delivery_is_a_signed_cloud_event_with_the_result_of_the_document(
    server: Server, receiver: Receiver
) -> None:
    webhook_id, secret = await create(server, receiver.url, variables=ASSETS)
    await server.register("pump-1")

    (received,) = await receiver.until_taken(1)

    event = received.event
    recorded = await server.ledger.pool.fetchrow(
        "select event_id, position from event where ledger_id = $1 and type = 'asset.registered'",
        server.ledger.ledger_id,
    )
    assert recorded is not None
    assert received.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert received.headers["user-agent"].startswith("Heddle-Webhooks/")
    assert event == {
        "specversion": "1.0",
        "id": f"{webhook_id}_{recorded['event_id']}",
        "source": f"/ledgers/{server.ledger.name}/webhooks/{webhook_id}",
        "type": "io.heddle.asset.registered",
        "subject": "asset:pump-1",
        "time": "2020-03-09T12:00:00.000000Z",
        "partitionkey": "asset:pump-1",
        "sequence": f"{recorded['position']:020d}",
        "datacontenttype": "application/json",
        "data": event["data"],
    }
    told = event["data"]["data"]["events"]["event"]
    assert told["stream"] == "asset:pump-1"
    assert told["fact"]["title"] == "Pump pump-1"
    assert received.message_id == event["id"]
    assert received.signed_with(secret)
    assert not received.signed_with("whsec_" + "A" * 43 + "=")


async def test_a_binary_delivery_has_the_result_as_its_body(
    server: Server, receiver: Receiver
) -> None:
    webhook_id, secret = await create(server, receiver.url, variables=ASSETS, mode="BINARY")
    await server.register("pump-1")

    (received,) = await receiver.until_taken(1)

    assert received.headers["content-type"] == "application/json"
    assert received.headers["ce-specversion"] == "1.0"
    assert received.headers["ce-type"] == "io.heddle.asset.registered"
    assert received.headers["ce-subject"] == "asset:pump-1"
    assert received.headers["ce-source"].endswith(webhook_id)
    assert received.headers["ce-id"] == received.message_id
    body = orjson.loads(received.body)
    assert body["data"]["events"]["event"]["stream"] == "asset:pump-1"
    assert received.signed_with(secret)


async def test_state_is_told_as_it_stands_one_message_after_the_other(
    server: Server, receiver: Receiver
) -> None:
    await server.register("pump-1", commission=True)
    await create(
        server,
        receiver.url,
        "subscription { workOrders(everyS: 0.05) { events workOrders { workOrderId state } } }",
    )
    for n in range(3):
        await server.command(
            RequestWorkOrder(f"WO-{n}", "pump-1", None, "Look", None, Priority.NORMAL)
        )
        await server.command(ApproveWorkOrder(f"WO-{n}"))

    def stand() -> dict[str, str]:
        found = {}
        for received in receiver.taken:
            for order in received.event["data"]["data"]["workOrders"]["workOrders"]:
                found[order["workOrderId"]] = order["state"]
        return found

    await receiver.until(lambda: stand() == dict.fromkeys(("WO-0", "WO-1", "WO-2"), "APPROVED"))

    told = [received.event["data"]["data"]["workOrders"]["events"] for received in receiver.taken]
    assert sum(told) == 6
    assert {received.event["type"] for received in receiver.taken} == {
        "io.heddle.subscription.workOrders"
    }
    positions = [received.position for received in receiver.taken]
    assert positions == sorted(set(positions))


async def test_an_operation_of_several_is_named_and_what_it_does_not_want_moves_it_on(
    server: Server, receiver: Receiver
) -> None:
    document = (
        "subscription Wanted($t: [String!]) { events(filter: {types: $t}) { event { type } } } "
        "query Other { log { position } }"
    )
    webhook_id, _ = await create(
        server,
        receiver.url,
        document,
        operationName="Wanted",
        variables={"t": ["asset.commissioned"]},
    )
    await server.register("pump-1", commission=True)
    await server.register("pump-2", "pump-3")

    (received,) = await receiver.until_taken(1)
    assert received.event["type"] == "io.heddle.asset.commissioned"
    head = await server.ledger.head()
    found = await until(server, webhook_id, lambda w: w["backlog"]["plannedTo"] == head)
    assert (found["backlog"]["lag"], found["backlog"]["pending"]) == (0, 0)
    assert len(receiver.received) == 1


# --- in order, and again ------------------------------------------------------------------


async def test_a_stream_waits_for_its_own_and_no_other_stream_does(
    server: Server, receiver: Receiver
) -> None:
    open_again = asyncio.Event()

    async def answer(received: Received) -> Response:
        stuck = pump_of(received) == "pump-1" and not open_again.is_set()
        return Response(status_code=500 if stuck else 200)

    receiver.answer = answer
    await create(server, receiver.url, variables=ASSETS)
    await server.register("pump-1", "pump-2", commission=True)
    for value in (0.0004, 0.0005):
        await server.command(DesireSetpoint("pump-2", "flow", value))

    await receiver.until_taken(4)
    tries = Counter((pump_of(r), r.event["type"]) for r in receiver.received)
    assert {pump_of(r) for r in receiver.taken} == {"pump-2"}
    assert ("pump-1", "io.heddle.asset.commissioned") not in tries
    await receiver.until(lambda: Counter(pump_of(r) for r in receiver.received)["pump-1"] >= 3)
    open_again.set()
    await receiver.until_taken(6)

    for pump in ("pump-1", "pump-2"):
        positions = [r.position for r in receiver.taken if pump_of(r) == pump]
        assert positions == sorted(positions)
    ids = [r.message_id for r in receiver.taken]
    assert len(set(ids)) == len(ids) == 6
    repeats = [
        r
        for r in receiver.received
        if pump_of(r) == "pump-1" and r.event["type"].endswith("registered")
    ]
    assert len(repeats) >= 4
    assert len({(r.message_id, r.body) for r in repeats}) == 1


async def test_attempts_end_in_a_dead_letter_that_can_be_redelivered(
    webhook_database_url: str, ledger_name: str, receiver: Receiver
) -> None:
    receiver.answer = refused
    async with hooking(webhook_database_url, ledger=ledger_name, webhook_attempts_max=3) as server:
        webhook_id, _ = await create(server, receiver.url, variables=ASSETS)
        await server.register("pump-1", commission=True)

        found = await until(server, webhook_id, lambda w: w["backlog"]["dead"] == 2)
        newest, oldest = found["deliveries"]["nodes"]
        assert (oldest["state"], oldest["attempts"], oldest["statusCode"]) == ("DEAD", 3, 500)
        assert (oldest["failureCode"], oldest["failure"]) == ("webhook.refused", "500: not today")
        assert oldest["durationS"] > 0
        assert oldest["nextTryAt"] is None
        assert newest["subject"] == "asset:pump-1"
        assert len(receiver.received) == 6

        async def taken(_received: Received) -> Response:
            return Response(status_code=200)

        receiver.answer = taken
        unknown = await send(
            server, "redeliverWebhook", webhookId=webhook_id, deliveryIds=["999999999"]
        )
        assert unknown["code"] == "webhook.unknown_delivery"
        ids = [oldest["deliveryId"], newest["deliveryId"]]
        for _ in range(2):
            await done(
                server, "redeliverWebhook", key="again", webhookId=webhook_id, deliveryIds=ids
            )
        await receiver.until_taken(2)
        found = await until(server, webhook_id, lambda w: w["backlog"]["pending"] == 0)
        assert [n["state"] for n in found["deliveries"]["nodes"]] == ["DELIVERED", "DELIVERED"]
        assert found["backlog"]["dead"] == 0
        # What was recalled was redelivered once.
        assert len(receiver.taken) == 2


async def test_gone_stops_until_somebody_resumes(server: Server, receiver: Receiver) -> None:
    receiver.answer = gone
    webhook_id, _ = await create(server, receiver.url, variables=ASSETS)
    await server.register("pump-1")

    found = await until(server, webhook_id, lambda w: w["status"] == "STOPPED")
    assert found["stopCode"] == "webhook.endpoint_gone"
    assert "410" in found["stopReason"]
    actor = await server.ledger.pool.fetchval(
        "select actor from event where ledger_id = $1 and type = 'webhook.stopped'",
        server.ledger.ledger_id,
    )
    assert actor == "service:webhooks"
    assert len(receiver.received) == 1
    await server.register("pump-2")

    async def taken(_received: Received) -> Response:
        return Response(status_code=200)

    receiver.answer = taken
    await done(server, "resumeWebhook", webhookId=webhook_id)
    await receiver.until_taken(2)
    assert [pump_of(r) for r in receiver.taken] == ["pump-1", "pump-2"]


async def test_a_redirect_is_no_answer_and_is_not_followed(
    server: Server, receiver: Receiver
) -> None:
    async with receiving() as inside:

        async def elsewhere(_received: Received) -> Response:
            return Response(status_code=307, headers={"location": inside.url})

        receiver.answer = elsewhere
        webhook_id, _ = await create(server, receiver.url, variables=ASSETS)
        await server.register("pump-1")
        await receiver.until(lambda: len(receiver.received) >= 3)
        assert inside.received == []
        found = await state(server, webhook_id)
        (delivery,) = found["deliveries"]["nodes"]
        assert (delivery["state"], delivery["statusCode"]) == ("PENDING", 307)


# --- paused, replayed, changed, deleted ---------------------------------------------------


async def test_what_happens_while_it_rests_is_delivered_after(
    server: Server, receiver: Receiver
) -> None:
    webhook_id, _ = await create(server, receiver.url, variables=ASSETS)
    await server.register("pump-1")
    await receiver.until_taken(1)
    paused = await done(
        server, "pauseWebhook", "webhook { status stopReason }", webhookId=webhook_id, reason="move"
    )
    assert paused["webhook"] == {"status": "PAUSED", "stopReason": "move"}
    await until_at_work(server, lambda runs: not runs)
    await server.register("pump-2")
    assert len(receiver.received) == 1

    await done(server, "resumeWebhook", webhookId=webhook_id)
    await receiver.until_taken(2)
    assert [pump_of(r) for r in receiver.taken] == ["pump-1", "pump-2"]


async def test_a_replay_delivers_again_under_the_same_ids(
    server: Server, receiver: Receiver
) -> None:
    await server.register("pump-1", "pump-2")
    webhook_id, _ = await create(server, receiver.url, variables=ASSETS, after=server.cursor(0))
    first = sorted(await receiver.until_taken(2), key=lambda r: r.position)

    await done(server, "replayWebhook", webhookId=webhook_id, after=server.cursor(1))
    again = (await receiver.until_taken(3))[2]
    assert again.message_id == first[1].message_id
    beyond = await send(server, "replayWebhook", webhookId=webhook_id, after=server.cursor(10_000))
    assert beyond["code"] == "cursor.beyond_log"


async def test_what_waits_goes_to_the_new_address(server: Server, receiver: Receiver) -> None:
    receiver.answer = refused
    webhook_id, _ = await create(server, receiver.url, variables=ASSETS)
    await server.register("pump-1")
    await receiver.until(lambda: len(receiver.received) >= 2)
    async with receiving() as other:
        changed = await done(
            server,
            "changeWebhook",
            "webhook { url title document }",
            webhookId=webhook_id,
            url=other.url,
        )
        assert changed["webhook"] == {
            "url": other.url,
            "title": "A receiver",
            "document": EVENTS,
        }
        (received,) = await other.until_taken(1)
        assert received.message_id == receiver.received[0].message_id


async def test_nothing_is_kept_of_a_webhook_that_is_deleted_but_its_story(
    server: Server, receiver: Receiver
) -> None:
    receiver.answer = refused
    webhook_id, _ = await create(server, receiver.url, variables=ASSETS)
    await server.register("pump-1")
    await receiver.until(lambda: len(receiver.received) >= 1)

    await done(server, "deleteWebhook", webhookId=webhook_id, reason="replaced")

    await until_at_work(server, lambda runs: not runs)
    sent = len(receiver.received)
    await server.register("pump-2")
    for table in ("webhook_delivery", "webhook_secret", "webhook_progress"):
        kept = await server.ledger.pool.fetchval(
            f"select count(*) from {table} where ledger_id = $1", server.ledger.ledger_id
        )
        assert kept == 0, table
    assert len(receiver.received) == sent
    assert await state(server, webhook_id) is None
    for mutation in ("resumeWebhook", "testWebhook", "deleteWebhook"):
        assert (await send(server, mutation, webhookId=webhook_id))["code"] == "webhook.unknown"
    told = await server.ledger.pool.fetchval(
        "select count(*) from event where ledger_id = $1 and stream = $2",
        server.ledger.ledger_id,
        f"webhook:{webhook_id}",
    )
    assert told == 2


# --- secrets ------------------------------------------------------------------------------


async def test_secrets_overlap_and_are_told_once(server: Server, receiver: Receiver) -> None:
    result = await send(
        server,
        "createWebhook",
        "secret webhook { webhookId }",
        key="once",
        title="A receiver",
        url=receiver.url,
        document=EVENTS,
        variables=ASSETS,
    )
    again = await send(
        server,
        "createWebhook",
        "secret webhook { webhookId }",
        key="once",
        title="A receiver",
        url=receiver.url,
        document=EVENTS,
        variables=ASSETS,
    )
    webhook_id, first = result["webhook"]["webhookId"], result["secret"]
    assert (again["duplicate"], again["secret"]) == (True, None)
    assert again["webhook"]["webhookId"] == webhook_id

    rotated = await done(
        server, "rotateWebhookSecret", "secret", webhookId=webhook_id, overlapS=3_600
    )
    await until_at_work(server, lambda runs: [len(r.row.webhook.secrets) for r in runs] == [2])
    await server.register("pump-1")
    (received,) = await receiver.until_taken(1)
    assert received.signed_with(first)
    assert received.signed_with(rotated["secret"])

    last = await done(server, "rotateWebhookSecret", "secret", webhookId=webhook_id, overlapS=0)
    await until_at_work(server, lambda runs: [len(r.row.webhook.secrets) for r in runs] == [3])
    await server.register("pump-2")
    received = (await receiver.until_taken(2))[1]
    assert received.signed_with(last["secret"])
    assert not received.signed_with(first)
    assert not received.signed_with(rotated["secret"])

    secrets = [first, rotated["secret"], last["secret"]]
    kept = await server.ledger.pool.fetch(
        "select payload from event where ledger_id = $1", server.ledger.ledger_id
    )
    for secret in secrets:
        assert not any(secret.encode() in row["payload"] for row in kept)
    refused = await send(server, "rotateWebhookSecret", webhookId=webhook_id, overlapS=-1)
    assert refused["code"] == "webhook.overlap"


async def test_a_test_is_sent_now_and_once(server: Server, receiver: Receiver) -> None:
    webhook_id, secret = await create(server, receiver.url, variables=ASSETS)
    await done(server, "pauseWebhook", webhookId=webhook_id)
    selected = "delivery { state statusCode attempts isTest eventType failureCode messageId }"
    for _ in range(2):
        tested = await done(server, "testWebhook", selected, key="t-1", webhookId=webhook_id)
        assert tested["delivery"]["state"] == "DELIVERED"
    (received,) = receiver.received
    assert received.event["type"] == "io.heddle.webhook.test"
    assert received.message_id == tested["delivery"]["messageId"]
    assert received.signed_with(secret)

    receiver.answer = gone
    failed = await done(server, "testWebhook", selected, webhookId=webhook_id)
    assert (failed["delivery"]["state"], failed["delivery"]["statusCode"]) == ("DEAD", 410)
    assert failed["delivery"]["failureCode"] == "webhook.endpoint_gone"
    assert (await state(server, webhook_id))["status"] == "PAUSED"


# --- nothing is lost ----------------------------------------------------------------------


async def test_of_two_servers_one_delivers_and_the_other_goes_on(
    webhook_database_url: str, ledger_name: str, receiver: Receiver
) -> None:
    async with hooking(webhook_database_url, ledger=ledger_name) as staying:
        async with hooking(webhook_database_url, ledger=ledger_name) as leaving:
            await create(leaving, receiver.url, variables=ASSETS)
            await leaving.register(*(f"pump-{n}" for n in range(10)))
            await receiver.until_taken(10)
            at_work = [s for s in (staying, leaving) if list(s.application.webhooks.runs)]
            assert len(at_work) == 1
        await staying.register(*(f"pump-{n}" for n in range(10, 20)))
        await receiver.until_taken(20)
    assert len({r.message_id for r in receiver.taken}) == 20


async def test_a_server_that_is_replaced_in_the_middle_loses_nothing(
    webhook_database_url: str, ledger_name: str, receiver: Receiver
) -> None:
    wanted = 40
    slow = asyncio.Semaphore(0)

    async def answer(_received: Received) -> Response:
        await slow.acquire()
        return Response(status_code=200)

    receiver.answer = answer
    async with hooking(webhook_database_url, ledger=ledger_name) as server:
        await create(server, receiver.url, variables=ASSETS)
        await server.register(*(f"pump-{n}" for n in range(wanted)))
        for _ in range(5):
            slow.release()
        await receiver.until_taken(5)
    for _ in range(10 * wanted):
        slow.release()
    async with hooking(webhook_database_url, ledger=ledger_name):
        await receiver.until(lambda: len({r.message_id for r in receiver.taken}) >= wanted)
    bodies = {(r.message_id, r.body) for r in receiver.received}
    assert len(bodies) == wanted
    assert len({pump_of(r) for r in receiver.taken}) == wanted


async def test_a_receiver_that_is_away_holds_back_a_bounded_number_of_deliveries(
    webhook_database_url: str, ledger_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (run, dispatcher):
        monkeypatch.setattr(module, "PENDING_MAX", 20)
    async with receiving() as away:
        port = away.port
    async with hooking(webhook_database_url, ledger=ledger_name) as server:
        webhook_id, _ = await create(server, f"http://127.0.0.1:{port}/", variables=ASSETS)
        await server.register(*(f"pump-{n}" for n in range(50)))
        found = await until(
            server, webhook_id, lambda w: any(n["attempts"] for n in w["deliveries"]["nodes"])
        )
        assert found["backlog"]["pending"] <= 20
        assert {n["failureCode"] for n in found["deliveries"]["nodes"]} <= {
            "webhook.unreachable",
            None,
        }
        async with receiving(port) as back:
            await back.until(lambda: len({r.message_id for r in back.taken}) == 50)
            ids = Counter(r.message_id for r in back.taken)
            assert set(ids.values()) == {1}


async def test_settled_deliveries_are_kept_for_a_while(server: Server, receiver: Receiver) -> None:
    webhook_id, _ = await create(server, receiver.url, variables=ASSETS)
    await server.register("pump-1")
    await server.command(CommissionAsset("pump-1"))
    await until(
        server,
        webhook_id,
        lambda w: len(w["deliveries"]["nodes"]) == 2 and w["backlog"]["pending"] == 0,
    )
    kept = timedelta(days=1)
    assert await store.prune(server.ledger, kept, store.utc_now()) == 0
    assert await store.prune(server.ledger, kept, store.utc_now() + 2 * kept) == 2
    assert (await state(server, webhook_id))["deliveries"]["nodes"] == []


async def test_metrics_tell_of_each_webhook(server: Server, receiver: Receiver) -> None:
    webhook_id, _ = await create(server, receiver.url, variables=ASSETS)
    await server.register("pump-1")
    await receiver.until_taken(1)
    await until(server, webhook_id, lambda w: w["backlog"]["pending"] == 0)

    text = (await server.http.get("/metrics")).text

    label = f'webhook="{webhook_id}"'
    assert f"heddle_webhook_deliveries_planned_total{{{label}}} 1.0" in text
    assert f'heddle_webhook_attempts_total{{outcome="delivered",{label}}} 1.0' in text
    assert f"heddle_webhook_pending{{{label}}} 0.0" in text
    assert f"heddle_webhook_lag_events{{{label}}}" in text
