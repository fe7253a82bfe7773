"""Mutations of the plant: locations and components."""

from __future__ import annotations

from api.access.rights import Right
from api.graphql.declared import Declared, answer_by_key, mutations
from api.graphql.plant.types import Component, Location, find_component, find_location
from domain.plant.component import (
    InstallComponent,
    RegisterComponent,
    RemoveComponent,
    ScrapComponent,
)
from domain.plant.location import (
    DeclareRollUp,
    DefineLocation,
    MoveLocation,
    RetireLocation,
)
from projections.plant.projection import PlantProjection

LocationMutations = mutations(
    "LocationMutations",
    Declared(
        DefineLocation,
        Right.ENGINEER,
        "Make a location known; all but an enterprise name the one they stand in.",
        "The location is known.",
    ),
    Declared(
        MoveLocation,
        Right.ENGINEER,
        "Say that a location stands in another one now.",
        "The location stands there.",
    ),
    Declared(
        DeclareRollUp,
        Right.ENGINEER,
        "Say how a location judges the health of what stands in it.",
        "The roll-up is declared.",
    ),
    Declared(
        RetireLocation,
        Right.ENGINEER,
        "Give a location up.",
        "The location is given up.",
    ),
    answer=answer_by_key("location", Location, find_location, PlantProjection.name),
)

ComponentMutations = mutations(
    "ComponentMutations",
    Declared(
        RegisterComponent,
        Right.ENGINEER,
        "Make a component known, and the part that it was delivered as.",
        "The component is known.",
    ),
    Declared(
        InstallComponent,
        Right.MAINTAIN,
        "Say that a component was put into an asset's slot.",
        "The component is installed.",
    ),
    Declared(
        RemoveComponent,
        Right.MAINTAIN,
        "Say that a component was taken out of an asset's slot.",
        "The component is out.",
    ),
    Declared(
        ScrapComponent,
        Right.MAINTAIN,
        "Say that a component will not be used again; one that is installed is taken out.",
        "The component is scrapped.",
    ),
    answer=answer_by_key("component", Component, find_component, PlantProjection.name),
)
