"""The factory that the library constructs: settings from its environment, recorders on a ledger."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, TypeVar, cast

from eventsourcing.persistence import (
    AggregateRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic

from domain.errors import InvalidInput
from domain.identifiers import check_identifier
from eventlog.eventsourcing_module.recorders import (
    LedgerAggregateRecorder,
    LedgerApplicationRecorder,
    LedgerProcessRecorder,
    LedgerTrackingRecorder,
    SnapshotRecorder,
)
from eventlog.eventsourcing_module.runtime import (
    CALL_S_MAX,
    CONNECTIONS_MAX,
    Runtime,
    RuntimeSettings,
)
from eventlog.eventsourcing_module.stored import (
    category_of,
)

R = TypeVar("R")

CONNECTIONS_LEAST: Final = 4
CONNECTIONS_MOST: Final = 500
CALL_S_LEAST: Final = 0.1
CALL_S_MOST: Final = 3_600.0


class LedgerFactory(InfrastructureFactory[LedgerTrackingRecorder]):
    """Recorders of one application on one ledger.

    Read from the library's environment, where a name may be led by the application's
    (``BANKACCOUNTS_HEDDLE_LEDGER``):

    - ``HEDDLE_DATABASE_URL``: PostgreSQL with Heddle's tables
    - ``HEDDLE_LEDGER``: name of the ledger, created empty when it is new
    - ``HEDDLE_CONNECTIONS_MAX``: size of the pool, 4 to 500
    - ``HEDDLE_CALL_S_MAX``: bound of every call, 0.1 to 3600 seconds
    """

    HEDDLE_DATABASE_URL = "HEDDLE_DATABASE_URL"
    HEDDLE_LEDGER = "HEDDLE_LEDGER"
    HEDDLE_CONNECTIONS_MAX = "HEDDLE_CONNECTIONS_MAX"
    HEDDLE_CALL_S_MAX = "HEDDLE_CALL_S_MAX"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        try:
            self.category = category_of(self.env.name)
            self.runtime = Runtime(_settings(self.env))
        except (InvalidInput, ValueError) as error:
            raise InfrastructureFactoryError(str(error)) from error

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return the recorder of the log for events, and one beside the log for snapshots."""
        if purpose == "events":
            return LedgerAggregateRecorder(self.runtime, self.env.name)
        return SnapshotRecorder(self.runtime, self.env.name, purpose)

    def application_recorder(self) -> LedgerApplicationRecorder:
        """Return the recorder of the log with notifications and subscriptions."""
        chosen = self._class(self.APPLICATION_RECORDER_TOPIC, LedgerApplicationRecorder)
        return chosen(self.runtime, self.env.name)

    def tracking_recorder(
        self, tracking_recorder_class: type[Any] | None = None
    ) -> LedgerTrackingRecorder:
        """Return the recorder of what a projection has processed."""
        chosen = tracking_recorder_class or self._class(
            self.TRACKING_RECORDER_TOPIC, LedgerTrackingRecorder
        )
        _check_subclass(chosen, LedgerTrackingRecorder)
        return cast("type[LedgerTrackingRecorder]", chosen)(self.runtime, self.env.name)

    def process_recorder(self) -> LedgerProcessRecorder:
        """Return the recorder of the log that tracks what its events were made of."""
        chosen = self._class(self.PROCESS_RECORDER_TOPIC, LedgerProcessRecorder)
        return chosen(self.runtime, self.env.name)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc_val, exc_tb)
        self.close()

    def close(self) -> None:
        """Finish what was accepted and disconnect."""
        self.runtime.close()

    def _class(self, variable: str, default: type[R]) -> type[R]:
        topic = self.env.get(variable)
        if not topic:
            return default
        chosen = resolve_topic(topic)
        _check_subclass(chosen, default)
        return cast("type[R]", chosen)


def _check_subclass(chosen: Any, wanted: type[Any]) -> None:
    if not (isinstance(chosen, type) and issubclass(chosen, wanted)):
        raise InfrastructureFactoryError(f"{chosen!r} is not a subclass of {wanted.__name__}")


def _settings(env: Environment) -> RuntimeSettings:
    url, ledger = env.get(LedgerFactory.HEDDLE_DATABASE_URL), env.get(LedgerFactory.HEDDLE_LEDGER)
    if not url or not ledger:
        missing = LedgerFactory.HEDDLE_LEDGER if url else LedgerFactory.HEDDLE_DATABASE_URL
        raise ValueError(f"{missing} is not set: the ledger needs a database URL and a name")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{LedgerFactory.HEDDLE_DATABASE_URL} must start with postgresql://")
    connections_max = _number(
        env,
        LedgerFactory.HEDDLE_CONNECTIONS_MAX,
        CONNECTIONS_MAX,
        CONNECTIONS_LEAST,
        CONNECTIONS_MOST,
    )
    return RuntimeSettings(
        database_url=f"postgresql://{rest}",
        ledger=check_identifier("ledger", ledger),
        connections_max=int(connections_max),
        call_s_max=_number(
            env, LedgerFactory.HEDDLE_CALL_S_MAX, CALL_S_MAX, CALL_S_LEAST, CALL_S_MOST
        ),
    )


def _number(env: Environment, name: str, default: float, least: float, most: float) -> float:
    text = env.get(name)
    value = default if not text else float(text)
    if not least <= value <= most:
        raise ValueError(f"{name}={text!r} is not between {least} and {most}")
    return value
