"""Locations: what stands where after ISA-95, and how each judges what stands in it."""

from __future__ import annotations

import pytest

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.plant.location import (
    DECIDER,
    DeclareRollUp,
    Defined,
    DefineLocation,
    Level,
    LocationCommand,
    LocationDefined,
    LocationMoved,
    LocationRetired,
    MoveLocation,
    Retired,
    RetireLocation,
    RollUp,
    RollUpDeclared,
    Undefined,
    evolve,
    location_stream,
)
from domain.texts import NOTE_LENGTH_MAX, TITLE_LENGTH_MAX
from tests.domain.specification import Given, given_of

group = LocationDefined("group", Level.ENTERPRISE, "Group", None)
works = LocationDefined("works", Level.SITE, "Works", "group")
hall = LocationDefined("hall", Level.AREA, "Hall 1", "works")
line = LocationDefined("line", Level.LINE, "Line 1", "hall")


def given_line(*events: object) -> Given:
    """Start from a line in a hall of a works of a group, to which `events` happened besides."""
    return (
        given_of(DECIDER, *events)
        .beside(location_stream("group"), group)
        .beside(location_stream("works"), works)
        .beside(location_stream("hall"), hall)
        .beside(location_stream("line"), line)
    )


EVERY_OTHER_COMMAND: tuple[LocationCommand, ...] = (
    MoveLocation("line", "works"),
    DeclareRollUp("line", RollUp.MEAN),
    RetireLocation("line", "sold"),
)


# --- defining -----------------------------------------------------------------------------


def test_an_enterprise_stands_in_nothing() -> None:
    given_of(DECIDER).when(DefineLocation("group", Level.ENTERPRISE, " Group ")).then(group)
    given_line().when(DefineLocation("other", Level.ENTERPRISE, "", "group")).then_rejected(
        InvalidInput, "location.enterprise_has_no_parent", "group"
    )


def test_a_location_is_defined_in_one_of_a_higher_level() -> None:
    given_line().when(DefineLocation("line", Level.LINE, "Line 1", "hall")).then(line)


def test_levels_may_be_left_out() -> None:
    given_line().when(DefineLocation("cell", Level.CELL, "", "works")).then(
        LocationDefined("cell", Level.CELL, "cell", "works")
    )


@pytest.mark.parametrize("level", [level for level in Level if level is not Level.ENTERPRISE])
def test_all_but_an_enterprise_stand_in_something(level: Level) -> None:
    given_of(DECIDER).when(DefineLocation("new", level, "")).then_rejected(
        InvalidInput, "location.parent_required", "new"
    )


@pytest.mark.parametrize("level", [Level.LINE, Level.AREA, Level.SITE])
def test_a_location_is_not_defined_in_one_of_its_own_or_a_lower_level(level: Level) -> None:
    given_line().when(DefineLocation("new", level, "", "line")).then_rejected(
        CommandRejected, "location.level_not_below", level.value
    )


def test_a_location_is_not_defined_in_what_nobody_defined_or_what_was_given_up() -> None:
    new = DefineLocation("new", Level.CELL, "", "lane")
    given_line().when(new).then_rejected(NotFound, "location.unknown", "lane")
    retired = LocationRetired("lane", "sold")
    lane = LocationDefined("lane", Level.LINE, "", "hall")
    given_line().beside(location_stream("lane"), lane, retired).when(new).then_rejected(
        CommandRejected, "location.retired", "lane"
    )


@pytest.mark.parametrize("past", [(line,), (line, LocationRetired("line", "sold"))])
def test_a_location_is_defined_once(past: tuple[object, ...]) -> None:
    given_line(*past).when(DefineLocation("line", Level.LINE, "", "hall")).then_rejected(
        CommandRejected, "location.already_defined", "line"
    )


def test_a_name_and_a_title_have_their_limits() -> None:
    given_line().when(DefineLocation("a b", Level.LINE, "", "hall")).then_rejected(
        InvalidInput, "location.malformed_name", "a b"
    )
    title = "x" * (TITLE_LENGTH_MAX + 1)
    given_line().when(DefineLocation("a", Level.LINE, title, "hall")).then_rejected(
        InvalidInput, "text.too_long", TITLE_LENGTH_MAX + 1
    )


# --- what only a defined location accepts -------------------------------------------------


@pytest.mark.parametrize("command", EVERY_OTHER_COMMAND, ids=lambda c: type(c).__name__)
def test_an_undefined_location_accepts_nothing_but_its_definition(command: LocationCommand) -> None:
    given_line().when(command).then_rejected(NotFound, "location.unknown", "line")


@pytest.mark.parametrize("command", EVERY_OTHER_COMMAND, ids=lambda c: type(c).__name__)
def test_a_location_given_up_accepts_nothing(command: LocationCommand) -> None:
    given_line(line, LocationRetired("line", "sold")).when(command).then_rejected(
        CommandRejected, "location.retired", "line"
    )


def test_a_location_moves_below_another_parent() -> None:
    given_line(line).when(MoveLocation("line", "works")).then(LocationMoved("line", "works"))
    given_line(line).when(MoveLocation("line", "hall")).then()
    given_line(line, LocationMoved("line", "works")).when(MoveLocation("line", "works")).then()


def test_a_location_does_not_move_to_where_it_cannot_stand() -> None:
    given_line(line).when(MoveLocation("line", "lane")).then_rejected(
        NotFound, "location.unknown", "lane"
    )
    cell = LocationDefined("cell", Level.CELL, "", "works")
    given_line(line).beside(location_stream("cell"), cell).when(
        MoveLocation("line", "cell")
    ).then_rejected(CommandRejected, "location.level_not_below", "LINE")
    given_line(group).when(MoveLocation("group", "works")).then_rejected(
        InvalidInput, "location.enterprise_has_no_parent", "works"
    )


def test_a_location_does_not_move_below_what_stands_in_it() -> None:
    given_line(hall).when(MoveLocation("hall", "line")).then_rejected(
        CommandRejected, "location.cycle", "line"
    )
    given_line(hall).when(MoveLocation("hall", "hall")).then_rejected(
        CommandRejected, "location.cycle", "hall"
    )


def test_a_circle_that_a_correction_left_ends_the_search() -> None:
    crossed = LocationDefined("works", Level.SITE, "Works", "line")
    given_line(LocationDefined("cell", Level.CELL, "", "works")).beside(
        location_stream("works"), crossed
    ).when(MoveLocation("cell", "line")).then(LocationMoved("cell", "line"))


def test_how_a_location_judges_is_declared() -> None:
    given_line(line).when(DeclareRollUp("line", RollUp.K_OF_N, 2)).then(
        RollUpDeclared("line", RollUp.K_OF_N, 2)
    )
    given_line(line).when(DeclareRollUp("line", RollUp.WORST)).then()
    given_line(line, RollUpDeclared("line", RollUp.K_OF_N, 2)).when(
        DeclareRollUp("line", RollUp.K_OF_N, 3)
    ).then(RollUpDeclared("line", RollUp.K_OF_N, 3))


@pytest.mark.parametrize(
    ("roll_up", "required"),
    [(RollUp.K_OF_N, None), (RollUp.K_OF_N, 0), (RollUp.WORST, 1), (RollUp.MEAN, 2)],
)
def test_only_k_of_n_says_how_many_have_to_be_good(roll_up: RollUp, required: int | None) -> None:
    given_line(line).when(DeclareRollUp("line", roll_up, required)).then_rejected(
        InvalidInput, "roll_up.required", required
    )


def test_a_location_is_given_up_with_a_reason() -> None:
    given_line(line).when(RetireLocation("line", "sold")).then(LocationRetired("line", "sold"))
    given_line(line).when(RetireLocation("line", "x" * (NOTE_LENGTH_MAX + 1))).then_rejected(
        InvalidInput, "text.too_long", NOTE_LENGTH_MAX + 1
    )


# --- the fold -----------------------------------------------------------------------------


def test_the_fold_of_a_location() -> None:
    life = (line, LocationMoved("line", "works"), RollUpDeclared("line", RollUp.K_OF_N, 2))
    assert DECIDER.fold(()) == Undefined()
    assert DECIDER.fold(life) == Defined(
        "line", Level.LINE, "Line 1", "works", RollUp.K_OF_N, required=2
    )
    assert DECIDER.fold((*life, LocationRetired("line", "sold"))) == Retired(
        "line", Level.LINE, "Line 1", "works"
    )


@pytest.mark.parametrize("past", [(), (line, LocationRetired("line", "sold"))])
def test_what_cannot_have_happened_stops_the_fold(past: tuple[LocationDefined, ...]) -> None:
    with pytest.raises(ValueError, match="cannot happen"):
        evolve(DECIDER.fold(past), LocationMoved("line", "works"))


def test_levels_stand_above_one_another_in_one_order() -> None:
    levels = list(Level)
    for n, higher in enumerate(levels):
        assert [higher.above(level) for level in levels] == [m > n for m in range(len(levels))]
