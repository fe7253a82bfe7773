"""Deciders: how commands on one kind of object become events.

A decider is three pure functions and a name. `decide` says which events a command causes on an
object as it stands, and may look at other objects; `evolve` says what an event makes of the
object. Loading, appending and repeating a lost race is `eventlog.commands`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

Others = Mapping[str, Any]
"""States of the other objects that a command looks at, by stream; a stranger's is its initial."""

OTHERS_MAX: Final = 256
"""Other objects that one command may look at."""

CommandT = TypeVar("CommandT")
StateT = TypeVar("StateT")
EventT = TypeVar("EventT")


def _nothing(_command: Any, _state: Any, _others: Others) -> tuple[str, ...]:
    return ()


def _untold(_command: Any) -> datetime | None:
    return None


@dataclass(frozen=True, slots=True)
class Decider(Generic[CommandT, StateT, EventT]):
    """How one kind of object decides.

    Parameters
    ----------
    category : what stands before the colon of its streams, such as ``lot``
    command_types : the classes of its commands: frozen dataclasses
    initial : the state of an object that nobody has named yet
    decide : (command, state, others) to events; raises `HeddleError` to refuse. All events of a
        decision are recorded together or not at all
    evolve : (state, event) to state
    subject : the stream of the object that a command is asked of
    stream_of : the stream that an event belongs to; those of one decision may go to several
    looks_at : (command, state, others so far) to the streams of other objects that it needs;
        asked again with them until it names none that is not there
    by_valid_time : fold events in the order in which they were true, not in which they became
        known. `evolve` then takes any order, a command that is not late may not lie before what
        is known, and one with ``late=True`` sees its object as it was when it happened; by
        looking at its own stream, also as it is known now
    passes_over_erased : what it decides may rest on a history of which the law erased something;
        else nothing is decided any more, for what is left of a lot, say, is unknown then
    happened_at : when what a command tells of was true, where its decision depends on that; its
        events must be recorded as of then. None: whoever records them says when
    """

    category: str
    command_types: tuple[type, ...]
    initial: StateT
    decide: Callable[[CommandT, StateT, Others], tuple[EventT, ...]]
    evolve: Callable[[StateT, EventT], StateT]
    subject: Callable[[CommandT], str]
    stream_of: Callable[[EventT], str]
    looks_at: Callable[[CommandT, StateT, Others], tuple[str, ...]] = _nothing
    by_valid_time: bool = False
    passes_over_erased: bool = False
    happened_at: Callable[[CommandT], datetime | None] = _untold

    def fold(self, events: Iterable[EventT]) -> StateT:
        """Return the object that `events`, in order, make."""
        state = self.initial
        for event in events:
            state = self.evolve(state, event)
        return state
