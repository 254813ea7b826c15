"""Keys in paths: composite keys, types, ranges and the one form of each key."""

import enum
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from httpx import AsyncClient
from pydantic import BaseModel, TypeAdapter, field_validator
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    TypeDecorator,
    Uuid,
)
from sqlalchemy import Enum as SqlEnum
from sqlalchemy.dialects.postgresql import CITEXT, INET
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.routing.models import NoteTitle, SeatPlanIn, SeatPlanService, client_of, get_session, operations_of

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import Endpoint, crud_router


async def test_a_composite_key_is_several_segments(notes: Database) -> None:
    """Each attribute of the key is a segment with its own type, in the order of the key."""
    router = crud_router(SeatPlanService, read=SeatPlanIn, session=notes.session)
    async with client_of(router, prefix="/plans") as client:
        created = await client.post("/plans", json={"hall": "a b?", "day": "2026-07-01", "seats": 3})
        path = created.headers["location"]
        read, changed, deleted, gone = (
            await client.get(path),
            await client.patch(path, json={"seats": 4}),
            await client.delete(path),
            await client.get(path),
        )
        rejected = await client.get("/plans/a/yesterday")

    assert path == "/plans/a%20b%3F/2026-07-01"
    assert (read.json()["seats"], changed.json()["seats"], deleted.status_code, gone.status_code) == (3, 4, 204, 404)
    assert [item["loc"] for item in rejected.json()["errors"]] == [["path", "day"]]


def test_a_composite_key_is_documented() -> None:
    """The parameters have the names of the attributes, not of the columns."""
    operation = operations_of(crud_router(SeatPlanService, read=SeatPlanIn, session=get_session))["/{hall}/{day}", "get"]

    assert [(parameter["name"], parameter["in"]) for parameter in operation["parameters"]] == [("hall", "path"), ("day", "path")]
    assert operation["parameters"][1]["schema"]["format"] == "date"


def thing_with(column_type: Any) -> Any:
    """Return a model whose key has *column_type*."""

    class Base(DeclarativeBase):
        metadata = MetaData()

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[Any] = mapped_column(column_type, primary_key=True, autoincrement=False)

    return Thing


class Wrapped(TypeDecorator[int]):
    impl = SmallInteger
    cache_ok = True


def whole(bits: int) -> dict[str, object]:
    return {"type": "integer", "minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}


@pytest.mark.parametrize(
    ("column_type", "schema"),
    [
        (SmallInteger(), whole(16)),
        (Integer(), whole(32)),
        (BigInteger(), whole(64)),
        (Wrapped(), whole(16)),
        (BigInteger().with_variant(Integer(), "sqlite"), whole(64)),
        (Integer().with_variant(BigInteger(), "postgresql"), whole(64)),
        (String(5), {"type": "string"}),
        (CITEXT(), {"type": "string"}),
        (INET(), {"type": "string"}),
        (Uuid(), {"type": "string", "format": "uuid"}),
    ],
    ids=repr,
)
def test_a_key_has_its_columns_type_and_range(column_type: Any, schema: dict[str, object]) -> None:
    """The document shows the type of the column and the range of an integer."""

    thing = thing_with(column_type)

    class ThingService(CRUDService[thing, NoteTitle, NoteTitle]): ...

    operation = operations_of(crud_router(ThingService, read=NoteTitle, session=get_session))["/{id}", "get"]

    assert operation["parameters"][0]["schema"] == {**schema, "title": "Id", "description": "Id of the thing"}


async def test_a_row_has_one_address(client: AsyncClient) -> None:
    """Other spellings of the key 1 are a 422."""
    await client.post("/notes", json={"title": "a"})

    assert (await client.get("/notes/1")).status_code == 200
    for key in ("+1", " 1", "1 ", "1.0", "1_0", "01", "-0", "1e0", "0x1", "%D9%A1", "true", "1%0A", "1,", "%EF%BC%91"):
        assert (await client.get(f"/notes/{key}")).status_code == 422, key


class Colour(enum.Enum):
    RED = "red"
    DARK_RED = "dark red"


@pytest.mark.parametrize(
    ("column_type", "right", "wrong"),
    [
        (Boolean(), ["true"], ["True", "1", "on", "yes"]),
        (Date(), ["2026-07-01"], ["2026-7-1", "1782864000", "2026-07-01T00:00:00", "20260701"]),
        (Uuid(), [str(UUID(int=255)), str(UUID(int=255)).upper()], [UUID(int=255).hex, f"{{{UUID(int=255)}}}", UUID(int=255).urn]),
        (Numeric(5, 2), ["1.50"], [" 1.50", "+1.50", "1_0", "NaN", "Infinity", "1e1"]),
        (Float(), ["1.5"], ["1.50", "+1.5", "15e-1", "nan"]),
        (DateTime(), ["2026-07-01T12:00:00"], ["2026-07-01", "2026-07-01 12:00:00", "1782864000"]),
        (SqlEnum(Colour), ["dark red"], ["DARK_RED", "Dark red"]),
        (String(20), ["a", " a", "+", "é", "0"], ["%00", "a%00b"]),
    ],
    ids=repr,
)
async def test_a_key_has_one_form(database: Database, column_type: Any, right: list[str], wrong: list[str]) -> None:
    """A key of any type is accepted only in the form that Location has; a UUID may be in upper case."""

    thing = thing_with(column_type)

    class ThingIn(BaseModel):
        id: Any

        @field_validator("id")
        @classmethod
        def read(cls, value: str) -> object:
            kind = column_type.python_type
            return TypeAdapter(kind).validate_python(value)

    class ThingService(CRUDService[thing, ThingIn, ThingIn]): ...

    await database.create_tables(thing.metadata)
    async with client_of(crud_router(ThingService, read=ThingIn, session=database.session), prefix="/things") as client:
        location = (await client.post("/things", json={"id": right[0]})).headers["location"]
        found = [(await client.get(f"/things/{quote(key, safe='%')}")).status_code for key in right]
        rejected = [(await client.get(f"/things/{quote(key, safe='%')}")).status_code for key in wrong]

    assert location == f"/things/{quote(right[0])}"
    assert found == ([200, 200] if isinstance(column_type, Uuid) else [200] + [404] * (len(right) - 1))
    assert rejected == [422] * len(wrong)


async def test_a_text_key_that_fits_no_row(notes: Database) -> None:
    """A hostile string key is a 404."""
    async with client_of(crud_router(SeatPlanService, read=SeatPlanIn, session=notes.session), prefix="/plans") as client:
        for key in ("", "a/b", "x" * 10_000, "%ED%A0%80", "%FF", "..%2F..", "%2e%2e", "batch"):
            assert (await client.get(f"/plans/{key}/2026-07-01")).status_code == 404, key[:10]


@pytest.mark.parametrize("column_type", [LargeBinary(), ARRAY(Integer)], ids=repr)
def test_a_key_that_cannot_be_part_of_a_path_raises(column_type: Any) -> None:
    """A key of bytes or lists raises ConfigurationError; a list alone needs no key."""

    thing = thing_with(column_type)

    class ThingService(CRUDService[thing, NoteTitle, NoteTitle]): ...

    crud_router(ThingService, read=NoteTitle, session=get_session, endpoints=Endpoint.LIST)
    for endpoint in (Endpoint.GET, Endpoint.CREATE):
        with pytest.raises(ConfigurationError, match="cannot be part of a path"):
            crud_router(ThingService, read=NoteTitle, session=get_session, endpoints=endpoint)


async def test_a_uuid_key_works(database: Database) -> None:
    """A UUID that the client makes is a key."""

    thing = thing_with(Uuid())

    class ThingIn(BaseModel):
        id: UUID

    class ThingService(CRUDService[thing, ThingIn, ThingIn]): ...

    await database.create_tables(thing.metadata)
    key = str(uuid4())
    async with client_of(crud_router(ThingService, read=ThingIn, session=database.session), prefix="/things") as client:
        assert (await client.post("/things", json={"id": key})).headers["location"] == f"/things/{key}"
        assert (await client.get(f"/things/{key}")).json() == {"id": key}
        assert (await client.get("/things/1")).status_code == 422
