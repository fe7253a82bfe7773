"""The server's settings: read once, every fault told at once, no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.settings import ServerSettings, SettingsInvalid, default_data_dir


def test_without_any_variable_everything_has_its_default() -> None:
    settings = ServerSettings.from_environment({})
    assert settings == ServerSettings()
    assert (settings.host, settings.port, settings.ledger) == ("127.0.0.1", 8000, "plant-1")
    assert settings.database_url is None
    assert settings.data_dir == default_data_dir()
    assert settings.ingest_bytes_max == 16 * 1024 * 1024


def test_every_setting_is_read_from_its_variable() -> None:
    settings = ServerSettings.from_environment(
        {
            "HEDDLE_DATABASE_URL": "postgres://heddle:s3cret@db/heddle",
            "HEDDLE_DATA_DIR": "/srv/heddle",
            "HEDDLE_HOST": "0.0.0.0",
            "HEDDLE_PORT": "9000",
            "HEDDLE_LEDGER": "plant-2",
            "HEDDLE_CONNECTIONS_MAX": "32",
            "HEDDLE_FRAME_FUTURE_S_MAX": "0.5",
            "HEDDLE_INGEST_BYTES_MAX": "4096",
            "HEDDLE_INGEST_CONCURRENCY_MAX": "2",
            "HEDDLE_GRAPHQL_BYTES_MAX": "2048",
            "HEDDLE_GRAPHIQL": "no",
            "HEDDLE_OTLP_ENDPOINT": "http://collector:4318/v1/traces",
            "HEDDLE_ARCHIVE_URL": "s3://bucket/heddle",
            "HEDDLE_DOCUMENTS_URL": "s3://bucket/documents",
            "HEDDLE_UNHEARD_OF": "left alone",
        }
    )
    assert settings == ServerSettings(
        database_url="postgresql://heddle:s3cret@db/heddle",
        data_dir=Path("/srv/heddle"),
        host="0.0.0.0",
        port=9000,
        ledger="plant-2",
        connections_max=32,
        frame_future_s_max=0.5,
        ingest_bytes_max=4096,
        ingest_concurrency_max=2,
        graphql_bytes_max=2048,
        graphiql=False,
        otlp_endpoint="http://collector:4318/v1/traces",
        archive_url="s3://bucket/heddle",
        documents_url="s3://bucket/documents",
    )


def test_every_fault_is_told_at_once() -> None:
    wrong = {
        "HEDDLE_DATABASE_URL": "mysql://db/heddle",
        "HEDDLE_PORT": "65536",
        "HEDDLE_LEDGER": "plant 1",
        "HEDDLE_CONNECTIONS_MAX": "many",
        "HEDDLE_FRAME_FUTURE_S_MAX": "nan",
        "HEDDLE_INGEST_BYTES_MAX": "12",
        "HEDDLE_GRAPHIQL": "perhaps",
    }
    with pytest.raises(SettingsInvalid) as refused:
        ServerSettings.from_environment({**wrong, "HEDDLE_HOST": "127.0.0.1"})
    error = refused.value
    assert error.code == "settings.invalid"
    assert len(error.value) == len(wrong)
    for fault, (variable, text) in zip(error.value, wrong.items(), strict=True):
        assert fault.startswith(f"{variable}=")
        assert fault in error.message
        assert text in fault or variable == "HEDDLE_DATABASE_URL"


def test_an_empty_variable_is_no_setting() -> None:
    assert ServerSettings.from_environment({"HEDDLE_PORT": ""}) == ServerSettings()


def test_the_password_of_the_database_is_not_in_what_settings_print() -> None:
    settings = ServerSettings.from_environment(
        {"HEDDLE_DATABASE_URL": "postgresql://heddle:s3cret@db/heddle"}
    )
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


@pytest.mark.parametrize("text", ["c2hvcnQ=", "not base64!", "c2hvcnQ"])
def test_a_key_that_is_none_is_refused_and_not_told(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="32 bytes in base64") as refused:
        ServerSettings.from_environment({"HEDDLE_WEBHOOK_KEY": text})
    assert text not in str(refused.value)


def test_the_key_that_seals_is_not_in_what_settings_print() -> None:
    settings = ServerSettings.from_environment({"HEDDLE_WEBHOOK_KEY": "QUJD" * 10 + "QUI="})
    assert settings.webhook_key == (b"ABC" * 11)[:32]
    assert "ABC" not in repr(settings)


def test_the_password_of_a_wrong_address_is_not_told() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        ServerSettings.from_environment({"HEDDLE_DATABASE_URL": "mysql://heddle:s3cret@db/heddle"})
    assert "s3cret" not in str(refused.value)
