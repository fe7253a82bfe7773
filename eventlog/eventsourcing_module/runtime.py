"""The bridge between the library's threads and the log's event loop.

One thread with one loop holds the pool, the ledger and the tail. Calls come from any thread, are
bounded in time, and fail with the library's errors. It starts at the first call, stops at `close`
(or when nobody holds it any more) and starts anew in a forked child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import asyncpg
from eventsourcing.persistence import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

from domain.errors import Conflict, HeddleError, InvalidInput, Unavailable
from eventlog.database import CONNECTION_LOST, Pool, create_pool
from eventlog.following.tail import Tail
from eventlog.ledger import Ledger

T = TypeVar("T")

CONNECTIONS_MAX: Final = 8
CALL_S_MAX: Final = 60.0
STOP_S_MAX: Final = 10.0
READ_ATTEMPTS_MAX: Final = 6
READ_RETRY_DELAY_S: Final = 0.1
WATCH_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Where the log is, and the bounds of a call."""

    database_url: str = field(repr=False)
    ledger: str
    connections_max: int = CONNECTIONS_MAX
    call_s_max: float = CALL_S_MAX


class Session:
    """What the loop's thread works with; touched by that thread alone, but for `position`."""

    def __init__(self, settings: RuntimeSettings, pool: Pool, ledger: Ledger) -> None:
        self.pool = pool
        self.ledger = ledger
        # Who holds a connection while the ledger's writer needs another leaves it one.
        self.holding = asyncio.Semaphore(settings.connections_max // 2)
        self._database_url = settings.database_url
        self._listeners: set[threading.Event] = set()
        self._tail: Tail | None = None
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: RuntimeSettings) -> Session:
        """Connect, and find the ledger or create it.

        Raises
        ------
        ProgrammingError
            the database was not migrated
        """
        pool = await create_pool(settings.database_url, connections_max=settings.connections_max)
        try:
            if await pool.fetchval("select to_regclass('eventsourcing_tracking')") is None:
                raise ProgrammingError(
                    "the database has no tables for eventsourcing applications; migrate it first "
                    "(alembic upgrade head, or a start of heddle serve)"
                )
            return cls(settings, pool, await Ledger.open(pool, settings.ledger))
        except BaseException:
            pool.terminate()
            raise

    @property
    def position(self) -> int:
        """How long the log is, as far as the tail has heard."""
        return 0 if self._tail is None else self._tail.position

    async def listen(self, listener: threading.Event) -> None:
        """Set `listener` whenever the log has grown, and once now."""
        self._listeners.add(listener)
        if self._tail is None:
            self._tail = Tail(self.ledger, self._database_url)
            self._watch = asyncio.create_task(self._wake(self._tail))
        listener.set()

    def unlisten(self, listener: threading.Event) -> None:
        """Leave `listener` alone from now on."""
        self._listeners.discard(listener)

    async def close(self) -> None:
        """Finish what was accepted and disconnect; who listens is woken to notice."""
        if self._watch is not None:
            self._watch.cancel()
        for listener in tuple(self._listeners):
            listener.set()
        if self._tail is not None:
            await self._tail.close()
        try:
            async with asyncio.timeout(STOP_S_MAX / 2):
                await self.ledger.close()
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()

    async def _wake(self, tail: Tail) -> None:
        position = 0
        while True:
            position = await tail.wait_beyond(position, timeout_s=WATCH_S)
            for listener in tuple(self._listeners):
                listener.set()


@dataclass(slots=True)
class _Running:
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    session: Session | None = None


@dataclass(slots=True)
class _State:
    """What outlives a `Runtime` for as long as it takes to stop it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: _Running | None = None
    closed: bool = False


class Runtime:
    """A ledger that threads may call."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self.settings = settings
        self._state = _State()
        self._stop_unless_stopped = weakref.finalize(self, _stop, self._state)
        _RUNTIMES.add(self)

    def call(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Return what `work` returns, run in the loop's thread.

        Raises
        ------
        PersistenceError
            the library's error for whatever went wrong; `OperationalError` also when it took
            longer than `call_s_max`, in which case a write may or may not have happened
        """
        running = self._started()
        if threading.current_thread() is running.thread:
            raise ProgrammingError("a recorder was called from within its own event loop")
        assert running.session is not None, "a started runtime has a session"
        return _result(running.loop, work(running.session), self.settings.call_s_max)

    def read(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """As `call`, but repeated while the database is away: `work` only reads."""

        async def patient(session: Session) -> T:
            for attempt in range(READ_ATTEMPTS_MAX - 1):
                try:
                    return await work(session)
                except CONNECTION_LOST:
                    await asyncio.sleep(READ_RETRY_DELAY_S * 2**attempt)
            return await work(session)

        return self.call(patient)

    @property
    def position(self) -> int:
        """How long the log is, as far as a listening runtime has heard.

        Raises
        ------
        InterfaceError
            it was closed
        """
        if self._state.closed:
            raise InterfaceError(f"ledger {self.settings.ledger!r} was closed")
        running = self._state.running
        return 0 if running is None or running.session is None else running.session.position

    def forget(self, listener: threading.Event) -> None:
        """Leave `listener` alone from now on; without waiting, from any thread."""
        running = self._state.running
        if running is not None and running.session is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the wakes with it
                running.loop.call_soon_threadsafe(running.session.unlisten, listener)

    def close(self) -> None:
        """Finish what was accepted, disconnect and end the thread. Later calls are refused."""
        self._state.closed = True
        self._stop_unless_stopped()

    def start_anew_after_fork(self) -> None:
        """Forget threads and connections that belong to the parent process."""
        _LEFT_TO_THE_PARENT.append(self._state.running)
        self._state.lock = threading.Lock()
        self._state.running = None

    def _started(self) -> _Running:
        running = self._state.running
        if running is not None and running.session is not None and not self._state.closed:
            return running
        with self._state.lock:
            if self._state.closed:
                raise InterfaceError(f"ledger {self.settings.ledger!r} was closed")
            if self._state.running is None:
                self._state.running = _start(self.settings)
            return self._state.running


_RUNTIMES: weakref.WeakSet[Runtime] = weakref.WeakSet()
_LEFT_TO_THE_PARENT: list[_Running | None] = []
"""Held for ever: to finalise them would say goodbye on connections that the parent uses."""


def _after_fork_in_child() -> None:
    for runtime in list(_RUNTIMES):
        runtime.start_anew_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _start(settings: RuntimeSettings) -> _Running:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(
        target=_serve, args=(loop,), name=f"ledger:{settings.ledger}", daemon=True
    )
    running = _Running(loop, thread)
    thread.start()
    try:
        running.session = _result(loop, Session.open(settings), settings.call_s_max)
    except BaseException:
        _end(running)
        raise
    return running


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _stop(state: _State) -> None:
    with state.lock:
        state.closed = True
        running, state.running = state.running, None
    if running is None or not running.thread.is_alive():
        return
    if threading.current_thread() is running.thread:  # the garbage collector runs anywhere
        task = running.loop.create_task(_closed(running))
        task.add_done_callback(lambda _: running.loop.stop())
        return
    with contextlib.suppress(DatabaseError, InterfaceError):
        _result(running.loop, _closed(running), STOP_S_MAX)
    _end(running)


async def _closed(running: _Running) -> None:
    if running.session is not None:
        await running.session.close()


def _end(running: _Running) -> None:
    running.loop.call_soon_threadsafe(running.loop.stop)
    running.thread.join(STOP_S_MAX)


def _result(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], timeout_s: float
) -> T:
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError as error:
        coroutine.close()
        raise InterfaceError("the ledger was closed") from error
    try:
        return future.result(timeout_s)
    except (HeddleError, asyncpg.PostgresError, asyncpg.InterfaceError, *CONNECTION_LOST) as error:
        if not future.done():
            future.cancel()
            raise OperationalError(f"no answer within {timeout_s} s; the outcome is open") from None
        raise as_library_error(error) from error
    except asyncio.CancelledError as error:
        raise InterfaceError("the ledger was closed meanwhile") from error
    except BaseException:
        future.cancel()
        raise


def as_library_error(error: BaseException) -> Exception:
    """Return the library's error for one of ours or the database's."""
    return next(
        library(str(error) or type(error).__name__)
        for kinds, library in _LIBRARY_ERRORS
        if isinstance(error, kinds)
    )


_LIBRARY_ERRORS: Final[tuple[tuple[Any, type[Exception]], ...]] = (
    (Conflict, IntegrityError),
    (InvalidInput, DataError),
    (Unavailable, OperationalError),
    (asyncpg.IntegrityConstraintViolationError, IntegrityError),
    (asyncpg.DataError, DataError),
    (asyncpg.FeatureNotSupportedError, NotSupportedError),
    (asyncpg.InternalServerError, InternalError),
    (CONNECTION_LOST, OperationalError),
    (asyncpg.PostgresSystemError, OperationalError),
    (asyncpg.InterfaceError, InterfaceError),
    ((asyncpg.SyntaxOrAccessError, asyncpg.InvalidCatalogNameError), ProgrammingError),
    (BaseException, DatabaseError),
)
