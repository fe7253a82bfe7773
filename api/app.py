"""The server's wiring: opens log, tail and projections, and puts the endpoints in place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import orjson
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.access.guard import anybody, identify, readers_of_everything
from api.access.rights import Right
from api.agent_stream import AgentStreams, agent_routes
from api.documents_route import document_routes
from api.evidence_route import evidence_routes
from api.exports.endpoint import export_routes
from api.gateway import EXCEPTION_HANDLERS, Gateway
from api.graphql.endpoint import GraphQLEndpoint, graphql_routes
from api.graphql.subscription_metrics import SubscriptionMetrics
from api.ingest import IngestEndpoint
from api.metrics import MetricsEndpoint, OperationMetrics, ServerState
from api.services import Services, utc_now
from api.settings import ServerSettings
from api.tracing import is_tracing, note_statement
from api.transparency import open_signer, transparency_routes
from api.webhooks.dispatcher import WebhookDispatcher
from domain.errors import HeddleError
from eventlog.database import CONNECTION_LOST, create_pool
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger
from eventlog.transparency.signing import CheckpointPublisher
from projections.alerts.missing_data import MissingDataPolicy, SilenceWatch
from projections.alerts.policy import AlertPolicy
from projections.alerts.projection import AlertProjection
from projections.audit.projection import AuditProjection
from projections.maintenance.policy import WorkOrderPolicy
from projections.maintenance.projection import MaintenanceProjection
from projections.objects import ObjectProjection
from projections.places import PlaceProjection
from projections.plant.projection import PlantProjection
from projections.production.projection import ProductionProjection
from projections.quality.projection import QualityProjection
from projections.quality.quarantine_policy import QuarantinePolicy
from projections.running.active import ActiveLocks
from projections.running.pages import SharedPages
from projections.running.runner import Projection, ProjectionRunner
from projections.telemetry.rollups import RollupProjection
from projections.thread.projection import ThreadProjection
from projections.twins.history import TwinHistoryProjection
from projections.twins.projection import TwinProjection
from projections.webhooks import WebhookProjection

READINESS_TIMEOUT_S: Final = 2.0


def projections() -> list[Projection]:
    """Return every projection and policy that a server folds."""
    return [
        TwinProjection(),
        TwinHistoryProjection(),
        PlantProjection(),
        PlaceProjection(),
        AlertProjection(),
        RollupProjection(),
        ThreadProjection(),
        ObjectProjection(),
        AlertPolicy(),
        MissingDataPolicy(),
        WorkOrderPolicy(),
        QuarantinePolicy(),
        MaintenanceProjection(),
        ProductionProjection(),
        QualityProjection(),
        WebhookProjection(),
        AuditProjection(),
    ]


@asynccontextmanager
async def open_services(settings: ServerSettings, database_url: str) -> AsyncIterator[Services]:
    """Yield the parts of a server on the migrated database at `database_url`; close them after."""
    async with AsyncExitStack() as stack:
        pool = await create_pool(
            database_url,
            connections_max=settings.connections_max,
            on_statement=note_statement if is_tracing() else None,
        )
        stack.push_async_callback(pool.close)
        ledger = await Ledger.open(pool, settings.ledger)
        stack.push_async_callback(ledger.close)
        tail = Tail(ledger, database_url)
        stack.push_async_callback(tail.close)
        runners: dict[str, ProjectionRunner] = {}
        pages, locks = SharedPages(ledger), ActiveLocks(pool)
        stack.push_async_callback(locks.close)
        for projection in projections():
            runner = ProjectionRunner(projection, tail, pages, locks)
            stack.push_async_callback(runner.close)
            runners[projection.name] = runner
        silence = SilenceWatch(ledger, runners[MissingDataPolicy.name], utc_now)
        silence.start()
        stack.push_async_callback(silence.close)
        signer = await open_signer(pool, settings)
        checkpoints = CheckpointPublisher(signer, interval_s=settings.checkpoint_interval_s)
        stack.push_async_callback(checkpoints.close)
        yield Services(settings, ledger, tail, runners, checkpoints, silence)


def create_app(services: Services) -> Application:
    """Return the ASGI application that serves `services`."""
    health = HealthEndpoints(services)
    graphql = GraphQLEndpoint(services)
    agents = AgentStreams(services)
    public = services.settings.transparency_public
    known = readers_of_everything(services)
    registry = CollectorRegistry()
    registry.register(
        ServerState(services, lambda: graphql.http.in_flight, lambda: len(graphql.sockets))
    )
    graphql.operations.metrics = OperationMetrics(registry)
    registry.register(SubscriptionMetrics(graphql.subscriptions, graphql.unsent_bytes))
    webhooks = WebhookDispatcher(services, graphql.operations, registry)
    starlette = Starlette(
        routes=[
            Route("/", lambda _: RedirectResponse("/graphql"), methods=["GET"]),
            Route("/healthz", health.alive, methods=["GET"]),
            Route("/readyz", health.ready, methods=["GET"]),
            Route("/metrics", MetricsEndpoint(registry, known).__call__, methods=["GET"]),
            Route("/v1/frames", IngestEndpoint(services).__call__, methods=["POST"]),
            *agent_routes(agents),
            *document_routes(services),
            *evidence_routes(services),
            *export_routes(services),
            *graphql_routes(services, graphql),
            *(
                transparency_routes(services.checkpoints, anybody if public else known)
                if services.checkpoints
                else ()
            ),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    return Application(starlette, graphql, services.settings, webhooks, agents)


class Application(Gateway):
    """The server's ASGI application, and how it goes down."""

    def __init__(
        self,
        starlette: Starlette,
        graphql: GraphQLEndpoint,
        settings: ServerSettings,
        webhooks: WebhookDispatcher,
        agents: AgentStreams,
    ) -> None:
        super().__init__(starlette, graphql, settings)
        self.graphql = graphql
        self.webhooks = webhooks
        self._streams = graphql.http.streams
        self._agents = agents

    async def drain(self, seconds: float) -> None:
        """Say that we go down (``/readyz``), and close the sockets one after the other."""
        self.draining = True
        self._streams.close()
        self._agents.close()
        await self.graphql.sockets.drain(seconds)


class HealthEndpoints:
    """``/healthz``: the process runs; ``/readyz``: it can serve, and what is degraded."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def alive(self, _request: Request) -> Response:
        """Answer that the process runs."""
        return _json(200, {"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Answer 200 when queries and ingest can be served, else 503, with the reasons.

        Whoever is not known, or may not read, is told the status alone.
        """
        status, told = await self._readiness()
        if not await self._may_know(request):
            told = {"status": told["status"]}
        return _json(status, told)

    async def _may_know(self, request: Request) -> bool:
        try:
            identity = await identify(self._services, request)
        except (HeddleError, *CONNECTION_LOST):
            return False
        return Right.READ in identity.rights and identity.sees_everything

    async def _readiness(self) -> tuple[int, dict[str, object]]:
        services = self._services
        projections = {
            name: {
                "position": runner.position,
                "lag": runner.lag,
                "events_per_s": round(runner.rate_per_s, 1),
                "active": runner.active,
                "failure": runner.failure,
            }
            for name, runner in services.runners.items()
        }
        try:
            head = await services.ledger.pool.fetchval(
                "select position from ledger where ledger_id = $1",
                services.ledger.ledger_id,
                timeout=READINESS_TIMEOUT_S,
            )
        except CONNECTION_LOST as error:
            return 503, {
                "status": "unavailable",
                "reasons": [f"the database cannot be reached: {error}"],
                "projections": projections,
            }
        reasons = [
            f"projection {name} stopped: {runner.failure}"
            for name, runner in services.runners.items()
            if runner.failure is not None
        ]
        if services.silence is not None and services.silence.failure is not None:
            reasons.append(f"missing data is not watched: {services.silence.failure}")
        if services.checkpoints is not None and services.checkpoints.failure is not None:
            reasons.append(f"checkpoints are not signed: {services.checkpoints.failure}")
        return 200, {
            "status": "degraded" if reasons else "ready",
            "reasons": reasons,
            "ledger": services.ledger.name,
            "position": head,
            "projections": projections,
        }


def _json(status: int, body: dict[str, object]) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
