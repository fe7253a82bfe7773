"""The settings of an agent's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import InvalidInput
from edge_agent.settings import Settings, read_settings


def test_defaults_hold_where_nothing_is_said() -> None:
    assert read_settings({}) == Settings()
    assert Settings().server_url == "http://127.0.0.1:8000"
    assert Settings().data_dir == Path("../shared/data")


def test_flag_goes_before_the_environment() -> None:
    environment = {"HEDDLE_SERVER_URL": "http://a:1", "HEDDLE_AGENT_DIR": "/state"}
    settings = read_settings(environment, server_url="https://b/", state_dir=None)
    assert settings.server_url == "https://b"
    assert settings.state_dir == Path("/state")


def test_all_faults_are_told_at_once() -> None:
    environment = {
        "HEDDLE_SERVER_URL": "nowhere",
        "HEDDLE_AGENT_OUTBOX_BYTES_MAX": "10",
        "HEDDLE_AGENT_BATCH_FRAMES_MAX": "many",
        "HEDDLE_AGENT_RETRY_DELAY_S_MAX": "nan",
    }
    with pytest.raises(InvalidInput) as refused:
        read_settings(environment)
    assert refused.value.code == "settings.invalid"
    for name in environment:
        assert name in refused.value.message
