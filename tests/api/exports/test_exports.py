"""Exports over HTTP: every format holds the same rows, and goes on after any of them."""

from __future__ import annotations

import io
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest

from api.app import projections
from domain.asset import RegisterAsset
from domain.frames import ChannelHeader, FrameHeader, Quality, build_frame
from domain.material.part import CreatePart
from domain.material.process_run import CompleteProcessRun, StartProcessRun
from eventlog.commands import handle
from projections.running.projection import Policy
from projections.telemetry.reading_slices import slices_of
from projections.telemetry.readings import read_raw
from projections.telemetry.rollup_columns import read_rollups
from tests.api.graphql.server import START, Server, frame_of, serving, time_ns
from tests.database import new_database

pytestmark = pytest.mark.anyio

LATEST_NS = 2**62
MARCH = {"from": "2020-03-01T00:00:00Z", "to": "2020-04-01T00:00:00Z"}


@pytest.fixture(scope="module")
def database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database."""
    with new_database(postgres_url, "heddle_exports", template=template_database) as url:
        yield url


@pytest.fixture(scope="module")
async def exporting(database_url: str) -> AsyncIterator[Server]:
    """Two pumps with readings of several channels, some on clocks of their own, some corrected."""
    folded = [each for each in projections() if not isinstance(each, Policy)]
    async with serving(database_url, ledger="plant-x", projections=folded) as server:
        await server.register("pump-1", "pump-2", "pump-3", commission=True)
        rng = np.random.default_rng(7)
        for minute in range(4):
            start = START + timedelta(minutes=minute)
            for asset in ("pump-1", "pump-2"):
                await server.record(
                    frame_of(
                        asset,
                        {
                            "pressure": ("bar", rng.normal(2, 0.1, 60)),
                            "flow": ("l/min", rng.normal(30, 1, 60)),
                        },
                        start=start,
                    )
                )
        await server.record(
            frame_of(
                "pump-1",
                {"fluid_temperature": ("degC", [40.0, 41.5, 43.0])},
                start=START + timedelta(seconds=0.5),
                step_s=20,
            ),
            # sent again a little differently: the later one counts
            frame_of("pump-1", {"pressure": ("bar", [3.0, 3.5])}, start=START),
            frame_of(
                "pump-2",
                {"pressure": ("bar", [2.0, 2.1])},
                start=START + timedelta(hours=1),
                qualities={"pressure": np.array([0, Quality.BAD], np.uint8)},
            ),
        )
        yield server


async def get(server: Server, table: str, **parameters: Any) -> httpx.Response:
    return await server.http.get(
        f"/v1/export/{table}", params={k.rstrip("_"): v for k, v in parameters.items()}
    )


async def rows_of(server: Server, table: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return the rows of an Arrow export."""
    response = await get(server, table, format="arrow", **parameters)
    assert response.status_code == 200, response.text
    read = pa.ipc.open_stream(response.content).read_all()
    if "time" in read.column_names:
        read = read.set_column(
            read.column_names.index("time"), "time", read["time"].cast(pa.int64())
        )
    if "start" in read.column_names:
        read = read.set_column(
            read.column_names.index("start"), "start", read["start"].cast(pa.int64())
        )
    found: list[dict[str, Any]] = read.to_pylist()
    return found


def key(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["asset_id"], row["time"], row["channel"]


async def code(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


# --- readings -----------------------------------------------------------------------------


async def test_every_reading_is_there_once_in_order_and_in_si(exporting: Server) -> None:
    rows = await rows_of(exporting, "readings")

    assert [key(row) for row in rows] == sorted({key(row) for row in rows})
    assert len(rows) == 2 * 4 * 60 * 2 + 3 + 1
    for asset, channel in (
        ("pump-1", "pressure"),
        ("pump-1", "fluid_temperature"),
        ("pump-2", "flow"),
    ):
        (expected,) = await read_raw(
            exporting.ledger, asset, [channel], start_ns=-LATEST_NS, end_ns=LATEST_NS
        )
        found = [r for r in rows if (r["asset_id"], r["channel"]) == (asset, channel)]
        assert [r["time"] for r in found] == expected.times_ns.tolist()
        assert [r["value"] for r in found] == expected.values.tolist()
    corrected = [r["value"] for r in rows if key(r) == ("pump-1", time_ns(START), "pressure")]
    assert corrected == pytest.approx([3e5])


async def test_bad_readings_come_when_they_are_wanted(exporting: Server) -> None:
    usual = await rows_of(exporting, "readings", assets="pump-2")
    with_bad = await rows_of(exporting, "readings", assets="pump-2", include_bad="yes")

    assert len(with_bad) == len(usual) + 1
    assert {row["quality"] for row in with_bad} == {0, 2}


async def test_export_is_resumed_after_any_row(exporting: Server) -> None:
    whole = await rows_of(exporting, "readings")

    for at in (0, 1, 2, 7, 480, 481, len(whole) - 2, len(whole) - 1):
        asset, time, channel = key(whole[at])
        rest = await rows_of(exporting, "readings", after=f"{asset},{time},{channel}")
        assert rest == whole[at + 1 :]


async def test_range_and_names_restrict(exporting: Server) -> None:
    since, until = START + timedelta(seconds=30), START + timedelta(seconds=90)

    rows = await rows_of(
        exporting,
        "readings",
        assets="pump-2,nobody",
        channels="flow",
        from_=since.isoformat(),
        to=until.isoformat(),
    )

    assert [row["time"] for row in rows] == [
        time_ns(since + timedelta(seconds=n)) for n in range(61)
    ]
    assert {(row["asset_id"], row["channel"]) for row in rows} == {("pump-2", "flow")}


async def test_export_is_as_of_a_position_and_says_which(exporting: Server) -> None:
    head = await exporting.ledger.head()
    now = await get(exporting, "readings")
    then = await get(exporting, "readings", position=head - 3)

    assert now.headers["heddle-position"] == str(head)
    assert then.headers["heddle-position"] == str(head - 3)
    rows = pa.ipc.open_stream(then.content).read_all().to_pylist()
    assert len(rows) == 2 * 4 * 60 * 2
    assert max(row["value"] for row in rows if row["channel"] == "pressure") < 2.9e5


async def test_formats_hold_the_same_rows(exporting: Server) -> None:
    arrow = await get(exporting, "readings", format="arrow")
    parquet = await get(exporting, "readings", format="parquet")
    csv = await get(exporting, "readings", format="csv")
    ndjson = await get(exporting, "readings", format="ndjson")

    table = pa.ipc.open_stream(arrow.content).read_all()
    assert orjson.loads(table.schema.metadata[b"heddle.units"])["pressure"] == "Pa"
    plain = table.to_pylist()
    assert pa.parquet.read_table(io.BytesIO(parquet.content)).to_pylist() == plain
    lines = [orjson.loads(line) for line in ndjson.content.splitlines()]
    assert [(x["asset_id"], x["channel"], x["value"]) for x in lines] == [
        (x["asset_id"], x["channel"], x["value"]) for x in plain
    ]
    assert lines[0]["time"] == "2020-03-09T12:00:00.000000000Z"
    read = pa.csv.read_csv(io.BytesIO(csv.content)).to_pylist()
    assert [x["value"] for x in read] == [x["value"] for x in plain]
    assert arrow.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert 'filename="plant-x-readings.csv"' in csv.headers["content-disposition"]


async def test_slices_of_a_long_range_lose_and_double_nothing(
    exporting: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await rows_of(exporting, "readings", include_bad="yes")
    for readings in (1, 50, 130, 700):
        monkeypatch.setattr(slices_of, "__kwdefaults__", {"readings": readings})
        assert await rows_of(exporting, "readings", include_bad="yes") == whole


# --- rollups, events, figures -------------------------------------------------------------


@pytest.mark.parametrize(("resolution", "seconds"), [("1m", 60), ("1h", 3600)])
async def test_rollups_are_those_that_are_kept(
    exporting: Server, resolution: str, seconds: int
) -> None:
    rows = await rows_of(exporting, "rollups", resolution=resolution)

    expected = {
        (rollup.asset_id, start * 1_000_000_000, rollup.channel): (count, mean)
        for rollup in await read_rollups(
            exporting.ledger, seconds, start_s=0, end_s=int(START.timestamp()) + 86_400
        )
        for start, count, mean in zip(
            rollup.start_s.tolist(),
            rollup.reading_count.tolist(),
            rollup.mean.tolist(),
            strict=True,
        )
    }
    found = {
        (r["asset_id"], r["start"], r["channel"]): (r["reading_count"], r["mean"]) for r in rows
    }
    assert found == expected
    assert list(found) == sorted(found)
    at = len(rows) // 2
    after = ",".join(str(part) for part in list(found)[at])
    assert await rows_of(exporting, "rollups", resolution=resolution, after=after) == rows[at + 1 :]


async def test_events_are_the_log(exporting: Server) -> None:
    head = await exporting.ledger.head()

    rows = await rows_of(exporting, "events")
    facts = await rows_of(exporting, "events", categories="asset", types="asset.registered")
    rest = await rows_of(exporting, "events", after=str(head - 2))

    assert [row["position"] for row in rows] == list(range(1, head + 1))
    assert rows[-1]["fact"] is None
    assert [orjson.loads(row["fact"])["asset_id"] for row in facts] == [
        "pump-1",
        "pump-2",
        "pump-3",
    ]
    assert [row["position"] for row in rest] == [head - 1, head]


async def test_figures_are_a_row_an_asset(exporting: Server) -> None:
    period = {"from_": "2020-03-01T00:00:00Z", "to": "2020-04-01T00:00:00Z"}

    reliability = await rows_of(exporting, "reliability", **period)
    energy = await get(exporting, "energy", format="csv", assets="pump-2", **period)

    assert [row["asset_id"] for row in reliability] == ["pump-1", "pump-2", "pump-3"]
    assert {row["observed_s"] for row in reliability} == {31 * 86_400.0}
    assert {row["availability_ratio"] for row in reliability} == {1.0}
    assert energy.text.splitlines()[1].startswith('"pump-2",0,0,')


async def test_oee_is_what_the_query_says_of_a_planned_period(exporting: Server) -> None:
    for command, minute in (
        (StartProcessRun("R-1", "pump-3", "wet"), 0),
        (CreatePart("SN-1", "GEAR", run_id="R-1"), 5),
        (CompleteProcessRun("R-1", energy_j=100.0), 10),
    ):
        await handle(
            exporting.ledger,
            command,
            actor="user:test",
            occurred_at=START + timedelta(minutes=minute),
            event_id=lambda _: uuid.uuid4(),
        )
    head = await exporting.ledger.head()
    for runner in exporting.services.runners.values():
        await runner.wait_for(head, 20)
    period = {"from": "2020-03-09T12:00:00Z", "to": "2020-03-09T13:00:00Z"}

    rows = await rows_of(
        exporting, "oee", from_=period["from"], to=period["to"], cycle_times="wet:300,dry@kg:2.5"
    )
    missing = await exporting.http.get("/v1/export/oee", params=period)
    told = await exporting.ask(
        """
        query($period: PeriodInput!, $planned: PlannedTimeInput!) { figures(period: $period) {
          oee(planned: [$planned], cycleTimes: [{ operation: "wet", cycleS: 300 }]) {
            byAsset { assetId figures {
              oeeRatio availabilityRatio effectivenessRatio qualityRatio idleLoss items runs
            } }
          }
        } }
        """,
        period=period,
        planned=period,
    )

    made = rows[-1]
    assert [row["asset_id"] for row in rows] == ["pump-1", "pump-2", "pump-3"]
    assert made["production_s"] == 600
    assert made["effectiveness_ratio"] == 0.5
    assert made["items"] == made["runs"] == 1
    for row, one in zip(rows, told["figures"]["oee"]["byAsset"], strict=True):
        assert one == {
            "assetId": row["asset_id"],
            "figures": {
                "oeeRatio": row["oee_ratio"],
                "availabilityRatio": row["availability_ratio"],
                "effectivenessRatio": row["effectiveness_ratio"],
                "qualityRatio": row["quality_ratio"],
                "idleLoss": row["idle_loss_s"],
                "items": row["items"],
                "runs": row["runs"],
            },
        }
    assert await code(missing) == (400, "figure.cycle_time_missing")


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "parameters", "expected"),
    [
        ("nothing", {}, (404, "export.unknown_table")),
        ("readings", {"asset": "pump-1"}, (400, "export.unknown_parameter")),
        ("readings", {"format": "xlsx"}, (400, "export.malformed_parameter")),
        ("readings", {"from": "yesterday"}, (400, "time.malformed")),
        (
            "readings",
            {"from": "2020-03-09T12:00:00Z", "to": "2020-03-09T11:00:00Z"},
            (400, "readings.range"),
        ),
        ("readings", {"after": "pump-1,now,flow"}, (400, "export.malformed_parameter")),
        ("readings", {"after": "pump-1"}, (400, "export.malformed_parameter")),
        ("readings", {"position": "999999"}, (400, "export.beyond_log")),
        ("readings", {"position": "-1"}, (400, "export.malformed_parameter")),
        ("rollups", {"resolution": "1s"}, (400, "export.malformed_parameter")),
        ("events", {"after": "x"}, (400, "export.malformed_parameter")),
        ("reliability", {}, (400, "figure.period_missing")),
        ("oee", {"cycle_times": "turning"}, (400, "figure.period_missing")),
        *(
            (
                "oee",
                {**MARCH, "cycle_times": text},
                (400, "export.malformed_parameter"),
            )
            for text in ("turning", "turning:soon", "turning:0", "turning:inf", "turning@:3", ":3")
        ),
    ],
)
async def test_what_cannot_be_exported_is_refused_with_its_code(
    exporting: Server, table: str, parameters: dict[str, str], expected: tuple[int, str]
) -> None:
    response = await exporting.http.get(f"/v1/export/{table}", params=parameters)

    assert await code(response) == expected


async def test_parameter_given_twice_is_refused(exporting: Server) -> None:
    response = await exporting.http.get("/v1/export/readings?assets=pump-1&assets=pump-2")

    assert await code(response) == (400, "export.repeated_parameter")


async def test_export_without_a_row_is_an_empty_table(exporting: Server) -> None:
    for form in ("arrow", "parquet", "csv", "ndjson"):
        response = await get(exporting, "readings", format=form, assets="pump-3")
        assert response.status_code == 200
    assert response.content == b""
    assert (await rows_of(exporting, "readings", assets="pump-3")) == []


async def test_texts_are_not_exported_and_harm_no_neighbour(exporting: Server) -> None:
    await exporting.command(RegisterAsset("lathe-1", "production-machine", "Lathe 1"))
    channels = tuple(
        ChannelHeader(name, "1", 1.0, 0.0, kind)
        for name, kind in (("program", "str"), ("alarm_code", "i8"))
    )
    header = FrameHeader("lathe-1", "gateway-9", channels)
    clock = time_ns(START) + np.arange(2) * 1_000_000_000
    values = [np.array(["O1", "O2"], object), np.array([7, 8])]
    await exporting.record(build_frame(header, 1, [clock], values, [None, None]))
    rows = await rows_of(exporting, "readings", assets="lathe-1")
    assert [(row["channel"], row["value"]) for row in rows] == [("alarm_code", n) for n in (7, 8)]
