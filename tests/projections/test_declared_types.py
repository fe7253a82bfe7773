"""What projections say they fold: types that exist, and all of those that concern them."""

from __future__ import annotations

import typing

import pytest

from api.app import projections
from domain.asset import AssetEvent
from domain.events import FRAME_RECORDED, event_types
from domain.records import CORRECTED, SIGNED
from projections.alerts.projection import AlertProjection
from projections.running.runner import Projection
from projections.twins.projection import TwinProjection


@pytest.mark.parametrize("projection", projections(), ids=lambda projection: projection.name)
def test_a_projection_names_types_that_exist(projection: Projection) -> None:
    for name in projection.types or ():
        assert name == FRAME_RECORDED or name in event_types(), name


def test_twins_fold_every_event_of_an_asset() -> None:
    names = {
        known.name
        for known in event_types().values()
        if known.event_class in typing.get_args(AssetEvent)
    }
    assert len(names) == len(typing.get_args(AssetEvent))
    assert set(TwinProjection.types or ()) == {*names, FRAME_RECORDED, CORRECTED, SIGNED}


def test_alerts_fold_every_event_of_an_alert() -> None:
    names = {name for name in event_types() if name.startswith("asset.alert_")}
    assert set(AlertProjection.types or ()) == {*names, CORRECTED}
