"""Two apps with nothing of their own against hostile input: one made by the library, one written by hand."""

import enum
import uuid
from collections.abc import AsyncIterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, File, Form, Header, Query, Request, UploadFile
from pydantic import BaseModel, ConfigDict, SecretStr
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Enum,
    Float,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Text,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit import CRUDService, Database, KitSettings, TimestampMixin, create_app, crud_router
from fastapi_kit.db import NAMING_CONVENTION, UTCDateTime
from fastapi_kit.handlers import register_exception_handlers

__all__ = ["HostileBase", "made_app", "written_app"]


class HostileBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Note(TimestampMixin, HostileBase):
    """The quickstart's."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Sample(HostileBase):
    """A column of each type; the schemas say no more than the Python type."""

    __tablename__ = "samples"
    __table_args__ = (CheckConstraint("number > 0", name="number_positive"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    text: Mapped[str | None] = mapped_column(Text)
    number: Mapped[int]
    big: Mapped[int | None] = mapped_column(BigInteger)
    small: Mapped[int | None] = mapped_column(SmallInteger)
    ratio: Mapped[float | None] = mapped_column(Float)
    weight: Mapped[float] = mapped_column(Float)
    single: Mapped[float | None] = mapped_column(Float(24))
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    amount: Mapped[Decimal | None] = mapped_column(Numeric)
    day: Mapped[date | None]
    moment: Mapped[datetime | None] = mapped_column(UTCDateTime())
    wall: Mapped[datetime | None]
    clock: Mapped[time | None]
    span: Mapped[timedelta | None]
    colour: Mapped[Colour | None] = mapped_column(Enum(Colour))
    data: Mapped[Any] = mapped_column(JSON, nullable=True)
    blob: Mapped[bytes | None] = mapped_column(LargeBinary)
    token: Mapped[uuid.UUID | None]
    flag: Mapped[bool | None]


class Label(HostileBase):
    """Its key is text."""

    __tablename__ = "labels"
    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    text: Mapped[str | None]
    count: Mapped[int | None]
    flag: Mapped[bool | None]
    day: Mapped[date | None]


class Ticket(HostileBase):
    """Its key is a UUID and a day."""

    __tablename__ = "tickets"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    seat: Mapped[int | None] = mapped_column(SmallInteger)


class NoteCreate(BaseModel):
    title: str


class NoteUpdate(BaseModel):
    title: str | None = None


class NoteRead(NoteCreate):
    model_config = ConfigDict(from_attributes=True)

    id: int
    created_at: datetime


class SampleFields(BaseModel):
    text: str | None = None
    big: int | None = None
    small: int | None = None
    ratio: float | None = None
    single: float | None = None
    price: Decimal | None = None
    amount: Decimal | None = None
    day: date | None = None
    moment: datetime | None = None
    wall: datetime | None = None
    clock: time | None = None
    span: timedelta | None = None
    colour: Colour | None = None
    data: Any = None
    blob: bytes | None = None
    token: uuid.UUID | None = None
    flag: bool | None = None


class SampleCreate(SampleFields):
    name: str
    number: int
    weight: float = 1


class SampleUpdate(SampleFields):
    name: str | None = None
    number: int | None = None
    weight: float | None = None


class SampleRead(SampleCreate):
    model_config = ConfigDict(from_attributes=True)

    id: int


class LabelCreate(BaseModel):
    """Takes fields that are not declared."""

    model_config = ConfigDict(extra="allow")

    name: str


class LabelUpdate(BaseModel):
    model_config = ConfigDict(extra="allow")


class LabelRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    text: str | None
    count: int | None
    flag: bool | None
    day: date | None


class TicketUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seat: int | None = None


class TicketCreate(TicketUpdate):
    id: uuid.UUID
    day: date


class TicketRead(TicketCreate):
    model_config = ConfigDict(from_attributes=True)


class NoteService(CRUDService[Note, NoteCreate, NoteUpdate]): ...


class SampleService(CRUDService[Sample, SampleCreate, SampleUpdate]): ...


class LabelService(CRUDService[Label, LabelCreate, LabelUpdate]): ...


class TicketService(CRUDService[Ticket, TicketCreate, TicketUpdate]): ...


def made_app(database: Database) -> FastAPI:
    """The quickstart, and beside its notes a table of every type of column."""
    app = create_app(KitSettings(SECRET_KEY=SecretStr("k" * 32), DATABASE_URL="sqlite://"), database=database)
    session = database.session
    app.include_router(crud_router(NoteService, read=NoteRead, session=session), prefix="/notes", tags=["notes"])
    app.include_router(crud_router(SampleService, read=SampleRead, session=session), prefix="/samples", tags=["samples"])
    app.include_router(crud_router(LabelService, read=LabelRead, session=session), prefix="/labels", tags=["labels"])
    app.include_router(crud_router(TicketService, read=TicketRead, session=session), prefix="/tickets", tags=["tickets"])
    return app


class Tree(BaseModel):
    name: str
    branches: "dict[str, Tree]" = {}
    leaves: "list[Tree]" = []


class Login(BaseModel):
    username: str
    age: int = 0


class Trace(BaseModel):
    x_trace: int | None = None
    x_tags: list[int] = []


def written_app(sessions: async_sessionmaker[AsyncSession]) -> FastAPI:
    """An application with its own engine and routes, the service called by hand, and the handlers of the library."""
    app = FastAPI()
    register_exception_handlers(app)
    app.state.sessions = sessions
    app.include_router(_stored())
    app.include_router(_parameters())
    return app


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session


HostSession = Annotated[AsyncSession, Depends(get_session)]


def _stored() -> APIRouter:
    """The service called by hand, and hand-written statements under ``/sql``."""
    router = APIRouter()

    async def list_notes(session: HostSession, skip: int = 0, limit: int = 100) -> list[NoteRead]:
        return [NoteRead.model_validate(note) for note in await NoteService(session).list(skip=skip, limit=limit)]

    async def create_note(note: NoteCreate, session: HostSession) -> NoteRead:
        return NoteRead.model_validate(await NoteService(session).create(note))

    async def read_note(number: int, session: HostSession) -> NoteRead:
        return NoteRead.model_validate(await NoteService(session).get_one(number))

    async def update_note(number: int, note: NoteUpdate, session: HostSession) -> NoteRead:
        return NoteRead.model_validate(await NoteService(session).update(number, note))

    async def delete_note(number: int, session: HostSession) -> None:
        await NoteService(session).delete(number)

    async def list_samples(session: HostSession) -> list[SampleRead]:
        return [SampleRead.model_validate(row) for row in await SampleService(session).list()]

    async def create_sample(sample: SampleCreate, session: HostSession) -> SampleRead:
        return SampleRead.model_validate(await SampleService(session).create(sample))

    async def update_sample(number: int, sample: SampleUpdate, session: HostSession) -> SampleRead:
        return SampleRead.model_validate(await SampleService(session).update(number, sample))

    async def read_label(name: str, session: HostSession) -> LabelRead:
        return LabelRead.model_validate(await LabelService(session).get_one(name))

    async def insert_sample(sample: SampleCreate, session: HostSession) -> None:
        session.add(Sample(**sample.model_dump()))
        await session.commit()

    async def change_sample(number: int, sample: SampleUpdate, session: HostSession) -> None:
        await session.execute(update(Sample).where(Sample.id == number).values(sample.model_dump(exclude_unset=True)))
        await session.commit()

    async def find_sample(session: HostSession, number: int | None = None, name: str | None = None) -> int:
        return len((await session.scalars(select(Sample.id).where((Sample.number == number) | (Sample.name == name)))).all())

    router.add_api_route("/notes", list_notes, methods=["GET"])
    router.add_api_route("/notes", create_note, methods=["POST"], status_code=201)
    router.add_api_route("/notes/{number}", read_note, methods=["GET"])
    router.add_api_route("/notes/{number}", update_note, methods=["PATCH"])
    router.add_api_route("/notes/{number}", delete_note, methods=["DELETE"], status_code=204)
    router.add_api_route("/samples", create_sample, methods=["POST"], status_code=201)
    router.add_api_route("/samples", list_samples, methods=["GET"])
    router.add_api_route("/samples/{number}", update_sample, methods=["PATCH"])
    router.add_api_route("/labels/{name}", read_label, methods=["GET"])
    router.add_api_route("/sql", insert_sample, methods=["POST"], status_code=201)
    router.add_api_route("/sql", find_sample, methods=["GET"])
    router.add_api_route("/sql/{number}", change_sample, methods=["PATCH"])
    return router


def _parameters() -> APIRouter:
    """Every source of parameters; what is read is thrown away."""
    router = APIRouter(prefix="/p")

    @router.get("/path/{number}/{token}/{day}/{flag}")
    async def path(number: int, token: uuid.UUID, day: date, flag: bool) -> None: ...

    @router.get("/file/{path:path}")
    async def file(path: str) -> int:
        return len(path)

    @router.get("/query")
    async def query(
        number: int = 0,
        ratio: float = 0,
        price: Decimal = Decimal(0),
        flag: bool = False,
        colour: Colour = Colour.RED,
        day: date | None = None,
        at: datetime | None = None,
        span: timedelta | None = None,
        ids: Annotated[list[int] | None, Query()] = None,
    ) -> None: ...

    @router.get("/header")
    async def header(trace: Annotated[Trace, Header()]) -> None: ...

    @router.get("/cookie")
    async def cookie(visits: Annotated[int, Cookie()], name: Annotated[str, Cookie()] = "") -> None: ...

    @router.post("/form")
    async def form(login: Annotated[Login, Form()]) -> None: ...

    @router.post("/fields")
    async def fields(username: Annotated[str, Form()], age: Annotated[int, Form()] = 0) -> None: ...

    @router.post("/upload")
    async def upload(file: UploadFile, data: Annotated[bytes, File()] = b"", note: Annotated[str, Form()] = "") -> int:
        return len(await file.read())

    @router.post("/bytes")
    async def raw(data: Annotated[bytes, Body()]) -> int:
        return len(data)

    @router.post("/stream")
    async def stream(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    @router.post("/any")
    async def anything(data: Annotated[Any, Body()]) -> str:
        return type(data).__name__

    @router.post("/tree")
    async def tree(tree: Tree) -> None: ...

    @router.post("/scores")
    async def scores(scores: dict[str, dict[str, int]]) -> None: ...

    @router.post("/numbers")
    async def numbers(numbers: list[int]) -> int:
        return len(numbers)

    @router.post("/two")
    async def two(login: Login, tree: Tree, note: Annotated[str, Body()]) -> None: ...

    return router
