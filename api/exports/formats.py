"""The formats of an export: record batches in, bytes out, nothing held beyond a batch.

References
----------
Apache Arrow IPC streaming format; Apache Parquet; RFC 4180 (CSV); ndjson.org.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final, Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

ROW_GROUP_ROWS: Final = 200_000
"""Rows of a row group of Parquet: smaller batches wait until there are so many."""

_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


class Encoder(Protocol):
    """Turns the record batches of one table into the bytes of one file."""

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """Return what follows once `batch` is added; it may be nothing yet."""

    def end(self) -> bytes:
        """Return what ends the file."""


class _Sink(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, part: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(part))
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class ArrowEncoder:
    """The Arrow IPC streaming format."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._sink, "w"), schema)

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """Return the batch, and before the first one the schema and dictionaries."""
        self._writer.write_batch(batch)
        return self._sink.take()

    def end(self) -> bytes:
        """Return the end-of-stream marker."""
        self._writer.close()
        return self._sink.take()


class ParquetEncoder:
    """Parquet, compressed by zstd, a row group for every `ROW_GROUP_ROWS` rows."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        self._schema = schema
        self._writer = pa.parquet.ParquetWriter(
            pa.PythonFile(self._sink, "w"), schema, compression="zstd"
        )
        self._waiting: list[pa.RecordBatch] = []

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """Return a row group once there are rows enough for one."""
        self._waiting.append(batch)
        if sum(waiting.num_rows for waiting in self._waiting) >= ROW_GROUP_ROWS:
            self._write()
        return self._sink.take()

    def end(self) -> bytes:
        """Return the last row group and the footer."""
        if self._waiting:
            self._write()
        self._writer.close()
        return self._sink.take()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting.clear()


class CsvEncoder:
    """CSV with a header line; times are RFC 3339, UTC, and what is null is empty."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        self._writer = pa.csv.CSVWriter(pa.PythonFile(self._sink, "w"), _plain_schema(schema))

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """Return the batch's lines."""
        self._writer.write_batch(_plain(batch))
        return self._sink.take()

    def end(self) -> bytes:
        """Return nothing more: a CSV just ends."""
        self._writer.close()
        return self._sink.take()


class NdjsonEncoder:
    """A JSON object a line; times are RFC 3339, UTC."""

    def __init__(self, _schema: pa.Schema) -> None:
        pass

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """Return the batch's lines."""
        rows = _plain(batch).to_pylist()
        return b"".join([orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows])

    def end(self) -> bytes:
        """Return nothing more."""
        return b""


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(field.name, _plain_type(field.type)) for field in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    texts = pa.types.is_timestamp(kind) or pa.types.is_dictionary(kind)
    return pa.string() if texts else kind


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return `batch` with times and dictionaries as texts."""
    columns = []
    for column in batch.columns:
        if pa.types.is_timestamp(column.type):
            column = pc.strftime(column, format=_TIME_FORMAT)
        elif pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=_plain_schema(batch.schema))


class Format:
    """A format: its names, and who writes it."""

    def __init__(self, name: str, media_type: str, encoder: type) -> None:
        self.name = name
        self.media_type = media_type
        self.encoder: type[ArrowEncoder | ParquetEncoder | CsvEncoder | NdjsonEncoder] = encoder


FORMATS: Final[Mapping[str, Format]] = {
    each.name: each
    for each in (
        Format("arrow", "application/vnd.apache.arrow.stream", ArrowEncoder),
        Format("parquet", "application/vnd.apache.parquet", ParquetEncoder),
        Format("csv", "text/csv; charset=utf-8", CsvEncoder),
        Format("ndjson", "application/x-ndjson", NdjsonEncoder),
    )
}
