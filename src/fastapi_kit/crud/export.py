"""Rows as text, for a response that is sent while they are read."""

import csv
import re
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from io import StringIO
from math import ceil, isfinite
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import to_json

from fastapi_kit.crud.read_plan.lines import line_of
from fastapi_kit.crud.sparse import ReadAs, hidden_by, schema_of
from fastapi_kit.errors import ConfigurationError

__all__ = ["csv_columns", "csv_lines", "harmless", "ndjson_lines", "ndjson_of"]

_CHUNK = 64 * 1024
_FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_NEGATIVE = re.compile(r"-[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


async def ndjson_lines(rows: AsyncIterable[BaseModel]) -> AsyncGenerator[bytes]:
    """Yield *rows* as lines of JSON (NDJSON), some 64 KiB at a time. A line is what FastAPI sends for the row.

    For the rows of a service as they are, ``stream_json_as`` is faster.

    Example:
        ```python
        from typing import Annotated

        from fastapi import FastAPI, Query
        from fastapi.responses import StreamingResponse
        from pydantic import BaseModel
        from sqlalchemy.ext.asyncio import AsyncSession
        from sqlalchemy.orm import Mapped, mapped_column

        from fastapi_kit import Base, Database
        from fastapi_kit.crud import FilterSpec, ReadService
        from fastapi_kit.crud.export import ndjson_lines


        class Note(Base):
            __tablename__ = "notes"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]


        class NoteRead(BaseModel):
            id: int
            title: str


        class NoteFilters(FilterSpec[Note]):
            title__icontains: str | None = None


        class NoteService(ReadService[Note]): ...


        db = Database("sqlite:///:memory:")
        app = FastAPI()


        @app.get("/notes.ndjson")
        async def export(
            query: Annotated[NoteFilters, Query()], session: Annotated[AsyncSession, db.session]
        ) -> StreamingResponse:
            rows = NoteService(session).stream_as(NoteRead, query, begin=db.begin)
            return StreamingResponse(ndjson_lines(rows), media_type="application/x-ndjson")
        ```
    """
    async for chunk in ndjson_of([line_of(row)] async for row in rows):
        yield chunk


async def ndjson_of(batches: AsyncIterable[Sequence[bytes]]) -> AsyncGenerator[bytes]:
    """Yield *batches* of lines, some 64 KiB at a time."""
    lines, size = list[bytes](), 0
    async for batch in batches:
        lines.extend(batch)
        size += sum(map(len, batch))
        if size >= _CHUNK:
            step = ceil(len(lines) * _CHUNK / size)
            for start in range(0, len(lines), step):
                yield joined(lines[start : start + step])
            lines, size = [], 0
    if lines:
        yield joined(lines)


def joined(lines: Sequence[bytes]) -> bytes:
    return b"\n".join([*lines, b""])


async def csv_lines(rows: AsyncIterable[BaseModel], *, schema: ReadAs[Any]) -> AsyncGenerator[bytes]:
    """Yield a header and *rows* of *schema* as CSV (RFC 4180) in UTF-8, some 64 KiB at a time.

    The columns have the names of the fields in JSON. Lists and objects are JSON text, moments ISO 8601, and None is an empty cell. A text
    that a spreadsheet would run as a formula gets ``'`` in front.

    Raises:
        ConfigurationError: *schema* has no fields in JSON.
    """
    columns = csv_columns(schema)
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(map(harmless, columns))
    async for row in rows:
        values = row.__pydantic_serializer__.to_python(row, mode="json", by_alias=True)
        writer.writerow([cell(values.get(name)) for name in columns])
        del row
        if text.tell() >= _CHUNK:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    if text.tell():
        yield text.getvalue().encode()


def csv_columns(shown: ReadAs[Any]) -> Sequence[str]:
    """Return the names of the columns for a schema or a SparseSpec: the fields and computed fields as they are in JSON.

    Raises:
        ConfigurationError: It has none, as a root model or a schema with a serializer of its own.
    """
    schema: type[BaseModel] = schema_of(shown)
    document = schema.model_json_schema(mode="serialization")
    if "$ref" in document:
        document = document["$defs"][document["$ref"].rpartition("/")[2]]
    properties = cast("Mapping[str, Any]", document.get("properties", {}))
    if not properties:
        raise ConfigurationError(f"{schema.__name__} has no fields in JSON, so it has no columns in CSV")
    left_out = hidden_by(shown)
    return [name for name in properties if name not in left_out]


def cell(value: object) -> object:
    match value:
        case str():
            return harmless(value)
        case bool() | list() | dict():
            return to_json(value).decode()
        case float() if not isfinite(value):
            return None
        case _:
            return value


def harmless(text: str) -> str:
    """Return *text* so that no spreadsheet runs it: with ``'`` in front if it begins like a formula and is not a number."""
    if text[:1] not in _FORMULA or _NEGATIVE.fullmatch(text):
        return text
    return f"'{text}"
