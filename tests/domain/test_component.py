"""Components: where each is installed, by decisions and against a simple model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from domain.asset import AssetPlaced, AssetRegistered, AssetRetired, PlaceAsset, asset_stream
from domain.catalogue import decider_of_command, decider_of_stream
from domain.errors import CommandRejected, HeddleError, InvalidInput, NotFound
from domain.plant.component import (
    DECIDER,
    ComponentCommand,
    ComponentInstalled,
    ComponentRegistered,
    ComponentRemoved,
    ComponentScrapped,
    InstallComponent,
    Installed,
    InStock,
    RegisterComponent,
    RemoveComponent,
    ScrapComponent,
    Scrapped,
    Unregistered,
    component_stream,
    evolve,
)
from domain.plant.location import Level, LocationDefined, LocationRetired, location_stream
from domain.thread import Link, LinkEnd, LinkKind
from tests.domain.specification import Given, given, given_of

BEARING = "BRG-1042"
LOOP = "loop-1"
registered = ComponentRegistered(BEARING, "ball-bearing-6205", "Drive-end bearing", "SN-1042")
installed = ComponentInstalled(BEARING, LOOP, "drive-end")
removed = ComponentRemoved(BEARING, LOOP, "drive-end", "worn")
scrapped = ComponentScrapped(BEARING, "worn")
loop = AssetRegistered(LOOP, "skab-pump-loop", "Loop 1")
loop_retired = AssetRetired(LOOP, "sold")


def given_component(*events: object) -> Given:
    """Start from a component beside a known asset."""
    return given_of(DECIDER, *events).beside(asset_stream(LOOP), loop)


EVERY_OTHER_COMMAND: tuple[ComponentCommand, ...] = (
    InstallComponent(BEARING, LOOP, "drive-end"),
    InstallComponent(BEARING, LOOP, "drive-end", late=True),
    RemoveComponent(BEARING, LOOP, "drive-end", "worn"),
    RemoveComponent(BEARING, LOOP, "drive-end", "worn", late=True),
    ScrapComponent(BEARING, "worn"),
)


# --- registering --------------------------------------------------------------------------


def test_a_component_is_registered() -> None:
    given_component().when(
        RegisterComponent(BEARING, "ball-bearing-6205", " Drive-end bearing", "SN-1042")
    ).then(registered)
    given_component().when(RegisterComponent(BEARING, "ball-bearing-6205", " ")).then(
        ComponentRegistered(BEARING, "ball-bearing-6205", BEARING, None)
    )


@pytest.mark.parametrize("past", [(registered,), (registered, scrapped)])
def test_a_component_is_registered_once(past: tuple[object, ...]) -> None:
    given_component(*past).when(RegisterComponent(BEARING, "seal", "")).then_rejected(
        CommandRejected, "component.already_registered", BEARING
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (RegisterComponent("a b", "seal", ""), "component.malformed_name"),
        (RegisterComponent("a", "a seal", ""), "component_type.malformed_name"),
        (RegisterComponent("a", "seal", "", "SN 1"), "part.malformed_name"),
    ],
)
def test_malformed_names_are_refused(command: RegisterComponent, code: str) -> None:
    given_component().when(command).then_rejected(InvalidInput, code)


@pytest.mark.parametrize("command", EVERY_OTHER_COMMAND, ids=repr)
def test_an_unregistered_component_accepts_nothing_else(command: ComponentCommand) -> None:
    given_component().when(command).then_rejected(NotFound, "component.unknown", BEARING)


# --- installing and removing --------------------------------------------------------------


def test_a_component_is_installed_removed_and_installed_again() -> None:
    install = InstallComponent(BEARING, LOOP, "drive-end")
    given_component(registered).when(install).then(installed)
    given_component(registered, installed).when(install).then()
    given_component(registered, installed).when(
        RemoveComponent(BEARING, LOOP, "drive-end", "worn")
    ).then(removed)
    given_component(registered, installed, removed).when(install).then(installed)


def test_a_component_is_not_installed_in_what_is_unknown_or_retired() -> None:
    given_component(registered).when(InstallComponent(BEARING, "loop-9", "a")).then_rejected(
        NotFound, "asset.unknown", "loop-9"
    )
    given_component(registered).beside(asset_stream(LOOP), loop, loop_retired).when(
        InstallComponent(BEARING, LOOP, "a")
    ).then_rejected(CommandRejected, "asset.retired", LOOP)


def test_a_component_is_in_one_place() -> None:
    given_component(registered, installed).when(
        InstallComponent(BEARING, LOOP, "fan-end")
    ).then_rejected(CommandRejected, "component.installed", BEARING)


def test_a_component_is_removed_from_where_it_is() -> None:
    for past in ((registered,), (registered, installed)):
        given_component(*past).when(
            RemoveComponent(BEARING, LOOP, "fan-end", "worn")
        ).then_rejected(CommandRejected, "component.not_installed", BEARING)


def test_a_component_is_removed_from_an_asset_that_was_retired() -> None:
    given_component(registered, installed).beside(asset_stream(LOOP), loop, loop_retired).when(
        RemoveComponent(BEARING, LOOP, "drive-end", "worn")
    ).then(removed)


def test_a_slot_has_a_name() -> None:
    for command in (
        InstallComponent(BEARING, LOOP, "drive end"),
        RemoveComponent(BEARING, LOOP, "drive end", ""),
    ):
        given_component(registered).when(command).then_rejected(
            InvalidInput, "slot.malformed_name", "drive end"
        )


def test_a_fact_of_the_past_is_recorded_wherever_the_component_is_now() -> None:
    late_installed = ComponentInstalled(BEARING, LOOP, "fan-end", late=True)
    late_removed = ComponentRemoved(BEARING, LOOP, "fan-end", "swapped", late=True)
    for past in ((registered,), (registered, installed), (registered, scrapped)):
        given_component(*past).when(InstallComponent(BEARING, LOOP, "fan-end", late=True)).then(
            late_installed
        )
        given_component(*past).when(
            RemoveComponent(BEARING, LOOP, "fan-end", "swapped", late=True)
        ).then(late_removed)
        state = DECIDER.fold(past)
        assert DECIDER.fold((*past, late_installed, late_removed)) == state


def test_a_fact_of_the_past_still_speaks_of_a_known_asset() -> None:
    given_component(registered).when(
        InstallComponent(BEARING, "loop-9", "fan-end", late=True)
    ).then_rejected(NotFound, "asset.unknown", "loop-9")
    given_component(registered).beside(asset_stream(LOOP), loop, loop_retired).when(
        InstallComponent(BEARING, LOOP, "fan-end", late=True)
    ).then(ComponentInstalled(BEARING, LOOP, "fan-end", late=True))


# --- scrapping ----------------------------------------------------------------------------


def test_a_component_in_stock_is_scrapped() -> None:
    given_component(registered).when(ScrapComponent(BEARING, "worn")).then(scrapped)


def test_scrapping_takes_an_installed_component_out() -> None:
    given_component(registered, installed).when(ScrapComponent(BEARING, "worn")).then(
        removed, scrapped
    )


@pytest.mark.parametrize("command", [c for c in EVERY_OTHER_COMMAND if not getattr(c, "late", 0)])
def test_a_scrapped_component_accepts_nothing_new(command: ComponentCommand) -> None:
    given_component(registered, scrapped).when(command).then_rejected(
        CommandRejected, "component.scrapped", BEARING
    )


# --- the fold and the thread --------------------------------------------------------------


def test_the_fold_of_a_component() -> None:
    known = (BEARING, "ball-bearing-6205")
    assert DECIDER.fold(()) == Unregistered()
    assert DECIDER.fold((registered,)) == InStock(*known)
    assert DECIDER.fold((registered, installed)) == Installed(*known, LOOP, "drive-end")
    assert DECIDER.fold((registered, installed, removed)) == InStock(*known)
    assert DECIDER.fold((registered, scrapped)) == Scrapped(*known)
    with pytest.raises(ValueError, match="cannot happen"):
        evolve(Unregistered(), installed)


def test_the_thread_knows_installations_and_places() -> None:
    node, asset_node = component_stream(BEARING), asset_stream(LOOP)
    assert Link(LinkKind.INSTALLED_IN, node, asset_node) in installed.thread()
    assert LinkEnd(LinkKind.INSTALLED_IN, node, asset_node) in removed.thread()
    hall, yard = location_stream("hall"), location_stream("yard")
    assert AssetPlaced(LOOP, "hall", None).thread() == (
        Link(LinkKind.LOCATED_IN, asset_node, hall),
    )
    assert AssetPlaced(LOOP, "hall", "yard").thread() == (
        LinkEnd(LinkKind.LOCATED_IN, asset_node, yard),
        Link(LinkKind.LOCATED_IN, asset_node, hall),
    )


# --- where assets stand -------------------------------------------------------------------


def given_asset(*events: AssetPlaced | AssetRetired) -> Given:
    """Start from an asset beside two locations, of which the yard was given up."""
    hall = LocationDefined("hall", Level.AREA, "", "works")
    yard = LocationDefined("yard", Level.AREA, "", "works")
    return (
        given(loop, *events)
        .beside(location_stream("hall"), hall)
        .beside(location_stream("line"), LocationDefined("line", Level.LINE, "", "hall"))
        .beside(location_stream("yard"), yard, LocationRetired("yard", "sold"))
    )


def test_an_asset_is_placed_and_moved() -> None:
    given_asset().when(PlaceAsset(LOOP, "hall")).then(AssetPlaced(LOOP, "hall", None))
    in_hall = AssetPlaced(LOOP, "hall", None)
    given_asset(in_hall).when(PlaceAsset(LOOP, "line")).then(AssetPlaced(LOOP, "line", "hall"))
    given_asset(in_hall).when(PlaceAsset(LOOP, "hall")).then()


def test_an_asset_is_placed_where_something_can_stand() -> None:
    given_asset().when(PlaceAsset(LOOP, "attic")).then_rejected(
        NotFound, "location.unknown", "attic"
    )
    given_asset().when(PlaceAsset(LOOP, "yard")).then_rejected(
        CommandRejected, "location.retired", "yard"
    )
    given_asset(loop_retired).when(PlaceAsset(LOOP, "hall")).then_rejected(
        CommandRejected, "asset.retired", LOOP
    )


def test_where_an_asset_stood_once_leaves_it_where_it_is() -> None:
    in_hall = AssetPlaced(LOOP, "hall", None)
    in_yard = AssetPlaced(LOOP, "yard", None, late=True)
    given_asset(in_hall).when(PlaceAsset(LOOP, "yard", late=True)).then(in_yard)
    given_asset(in_hall, in_yard).when(PlaceAsset(LOOP, "hall")).then()
    given_asset().when(PlaceAsset(LOOP, "attic", late=True)).then_rejected(
        NotFound, "location.unknown", "attic"
    )


# --- installations against a simple model -------------------------------------------------

SLOTS = st.sampled_from(["drive-end", "fan-end"])
LATE = st.booleans()


class Installations(RuleBasedStateMachine):
    """Commands on many components and assets; the model is a dictionary of where each is."""

    components: Bundle[str] = Bundle("components")
    assets: Bundle[str] = Bundle("assets")

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[str, list[Any]] = {}
        self.where: dict[str, tuple[str, str] | None] = {}
        self.gone: set[str] = set()

    def ask(self, command: Any) -> str | None:
        """Decide `command` on what was recorded, record it, and return a rejection's code."""
        decider = decider_of_command(command)

        def state_of(stream: str) -> Any:
            found = decider_of_stream(stream)
            assert found is not None
            return found.fold(self.streams.get(stream, ()))

        state = state_of(decider.subject(command))
        others = {stream: state_of(stream) for stream in decider.looks_at(command, state, {})}
        try:
            events = decider.decide(command, state, others)
        except HeddleError as error:
            return error.code
        for event in events:
            self.streams.setdefault(decider.stream_of(event), []).append(event)
        return None

    @initialize(target=assets)
    def have_assets(self) -> Any:
        for name in ("loop-1", "loop-2"):
            self.streams[asset_stream(name)] = [AssetRegistered(name, "skab-pump-loop", name)]
        return multiple("loop-1", "loop-2")

    @rule(target=components, name=st.sampled_from("abcd"))
    def register(self, name: str) -> Any:
        code = self.ask(RegisterComponent(name, "seal", name))
        if name in self.where or name in self.gone:
            assert code == "component.already_registered"
            return multiple()
        assert code is None
        self.where[name] = None
        return name

    @rule(name=components, asset_id=assets, slot=SLOTS, late=LATE)
    def install(self, name: str, asset_id: str, slot: str, late: bool) -> None:
        code = self.ask(InstallComponent(name, asset_id, slot, late))
        if late:
            assert code is None
        elif asset_id in self.gone:
            assert code == "asset.retired"
        elif self.where[name] is None:
            assert code is None
            self.where[name] = (asset_id, slot)
        else:
            same = self.where[name] == (asset_id, slot)
            assert code == (None if same else "component.installed")

    @rule(name=components, asset_id=assets, slot=SLOTS, late=LATE)
    def remove(self, name: str, asset_id: str, slot: str, late: bool) -> None:
        code = self.ask(RemoveComponent(name, asset_id, slot, "swapped", late))
        if late:
            assert code is None
        elif self.where[name] == (asset_id, slot):
            assert code is None
            self.where[name] = None
        else:
            assert code == "component.not_installed"

    @rule(name=consumes(components))
    def scrap(self, name: str) -> None:
        assert self.ask(ScrapComponent(name, "worn")) is None
        del self.where[name]
        self.gone.add(name)

    @precondition(lambda self: "loop-2" not in self.gone)
    @rule()
    def retire_asset(self) -> None:
        self.streams[asset_stream("loop-2")].append(AssetRetired("loop-2", "sold"))
        self.gone.add("loop-2")

    @invariant()
    def states_are_where_the_model_has_them(self) -> None:
        for name, place in self.where.items():
            state = DECIDER.fold(self.streams[component_stream(name)])
            expected = InStock(name, "seal") if place is None else Installed(name, "seal", *place)
            assert state == expected
        for name in self.gone - {"loop-2"}:
            assert DECIDER.fold(self.streams[component_stream(name)]) == Scrapped(name, "seal")


TestInstallations = Installations.TestCase
