"""The apps that are driven, beside the quickstart: one with every kind of endpoint, and one written by hand."""

import enum
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, TypeAlias

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StrictBool
from sqlalchemy import Enum, Float, ForeignKey, MetaData, SmallInteger, String, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit import CRUDService, Database, KitSettings, TimestampMixin, create_app, crud_router
from fastapi_kit.app import Lifespan
from fastapi_kit.crud import KeysetSpec, QuerySpec
from fastapi_kit.db import NAMING_CONVENTION, UTCDateTime
from fastapi_kit.db.engines.sqlite import add_functions
from fastapi_kit.errors import InvalidTokenError, UserInputError
from fastapi_kit.handlers import problem_responses, register_exception_handlers
from fastapi_kit.pagination import KeysetPage, Page
from fastapi_kit.routing import Endpoint, RouterOptions
from fastapi_kit.schemas import Int32, SafeText, Slug, UTCDatetime, partial_model

__all__ = ["TOKENS", "every_endpoint", "written"]


def _no_number(value: object) -> object:
    # Pydantic reads seconds since 1970, of which the JSON schema of a date knows nothing.
    if isinstance(value, int | float):
        raise UserInputError("must be a text")
    return value


def _a_number(value: object) -> object:
    # Pydantic reads "1" and false as well, for which a JSON schema has types of their own.
    if isinstance(value, str | bool):
        raise UserInputError("must be a number")
    return value


Day: TypeAlias = Annotated[date, BeforeValidator(_no_number)]
Moment: TypeAlias = Annotated[UTCDatetime, BeforeValidator(_no_number)]
_NUMBER = BeforeValidator(_a_number)


class ConformanceBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Kind(enum.Enum):
    PERSON = "person"
    GROUP = "group"


class Author(TimestampMixin, ConformanceBase):
    """Its key is a UUID that the app makes."""

    __tablename__ = "authors"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    kind: Mapped[Kind] = mapped_column(Enum(Kind))
    born: Mapped[date | None]
    score: Mapped[float | None] = mapped_column(Float)
    active: Mapped[bool] = mapped_column(default=True)


class Book(ConformanceBase):
    """Belongs to an author."""

    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("authors.id"))
    title: Mapped[str] = mapped_column(String(80))
    pages: Mapped[int] = mapped_column(SmallInteger)
    cents: Mapped[int | None]
    published: Mapped[datetime | None] = mapped_column(UTCDateTime())


class Seat(ConformanceBase):
    """Its key is a text and a small number."""

    __tablename__ = "seats"
    hall: Mapped[str] = mapped_column(String(80), primary_key=True)
    number: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    note: Mapped[str | None]


class Shift(ConformanceBase):
    """Its key is a day and a UUID."""

    __tablename__ = "shifts"
    day: Mapped[date] = mapped_column(primary_key=True)
    token: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    hours: Mapped[int]


class Entry(ConformanceBase):
    """Its owner's alone."""

    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(20))
    text: Mapped[str]


class AuthorIn(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada", "kind": "person", "born": "1815-12-10"}]})

    name: Annotated[SafeText, Field(min_length=1, max_length=50)]
    kind: Kind
    born: Day | None = None
    score: Annotated[float, Field(ge=0, le=5), _NUMBER] | None = None
    active: StrictBool = True


class AuthorRead(AuthorIn):
    id: uuid.UUID
    created_at: UTCDatetime


class BookIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Annotated[SafeText, Field(max_length=80)]
    pages: Annotated[int, Field(ge=1, le=2**15 - 1), _NUMBER]
    cents: Annotated[Int32, _NUMBER] | None = None
    published: Moment | None = None


class BookTitle(BaseModel):
    id: int
    title: str


class BookRead(BookIn):
    id: int
    author_id: uuid.UUID


class SeatNote(BaseModel):
    note: SafeText | None = None


class SeatIn(SeatNote):
    hall: Slug
    number: Annotated[int, Field(ge=-(2**15), le=2**15 - 1), _NUMBER]


class ShiftHours(BaseModel):
    hours: Annotated[int, Field(ge=0, le=24), _NUMBER] = 8


class ShiftIn(ShiftHours):
    day: Day
    token: uuid.UUID


class EntryIn(BaseModel):
    text: SafeText


class EntryRead(EntryIn):
    id: int
    owner: str


AuthorChange = partial_model(AuthorIn, name="AuthorChange")
BookChange = partial_model(BookIn, name="BookChange")


class AuthorService(CRUDService[Author, AuthorIn, AuthorChange]): ...


class BookService(CRUDService[Book, BookIn, BookChange]): ...


class SeatService(CRUDService[Seat, SeatIn, SeatNote]): ...


class ShiftService(CRUDService[Shift, ShiftIn, ShiftHours]): ...


class EntryService(CRUDService[Entry, EntryIn, EntryIn]):
    """The entries of one owner."""

    def __init__(self, session: AsyncSession, owner: str) -> None:
        super().__init__(session)
        self.owner = owner

    def base_query(self) -> Any:
        return super().base_query().where(Entry.owner == self.owner)

    async def create_values(self, data: EntryIn) -> dict[str, Any]:
        return {**await super().create_values(data), "owner": self.owner}


class AuthorQuery(QuerySpec[Author]):
    search_fields: ClassVar[Any] = (Author.name,)
    sort_fields: ClassVar[Any] = (Author.name, Author.born, Author.score)
    name__contains: str | None = None
    name__in: list[str] | None = None
    kind: Kind | None = None
    kind__not_in: list[Kind] | None = None
    born: date | None = None
    born__isnull: bool | None = None
    score__gte: float | None = None
    active: bool | None = None
    created_at__lt: datetime | None = None
    created_at__date: date | None = None
    id__in: list[uuid.UUID] | None = None


class BookFeed(KeysetSpec[Book]):
    search_fields: ClassVar[Any] = (Book.title,)
    sort_fields: ClassVar[Any] = (Book.title, Book.pages, Book.cents, Book.published)
    title__istartswith: str | None = None
    pages: int | None = None
    pages__in: list[int] | None = None
    cents__ne: int | None = None
    published__gte: datetime | None = None


class AuthorFeed(KeysetSpec[Author]):
    sort_fields: ClassVar[Any] = (Author.name, Author.born, Author.score)
    kind: Kind | None = None
    score__lt: Decimal | None = None


TOKENS = {"ann": "token-of-ann", "bob": "token-of-bob"}


async def get_user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    for name, token in TOKENS.items():
        if token == credentials.credentials:
            return name
    raise InvalidTokenError("unknown")


async def require_reason(reason: Annotated[SafeText, Header(min_length=3, max_length=100)]) -> None: ...


def every_endpoint() -> FastAPI:
    """Every kind of endpoint and of key; the schemas say all that the columns do."""
    database = Database(os.environ["DATABASE_URL"])
    session = database.session

    async def get_entries(session: Annotated[AsyncSession, session], user: Annotated[str, Depends(get_user)]) -> EntryService:
        return EntryService(session, user)

    async def require_author(session: Annotated[AsyncSession, session], author_id: uuid.UUID) -> None:
        await AuthorService(session).get_one(author_id)

    many = Endpoint.CRUD | Endpoint.CREATE_MANY
    of_author = RouterOptions(parent=Book.author_id, list_item=BookTitle, max_batch=3)
    with_reason = {Endpoint.WRITE: [Depends(require_reason)]}
    authors = crud_router(
        AuthorService, read=AuthorRead, session=session, query=AuthorQuery, endpoints=many, options=RouterOptions(max_batch=5)
    )
    books = crud_router(BookService, read=BookRead, session=session, query=BookFeed, endpoints=many, options=of_author)
    seats = crud_router(SeatService, read=SeatIn, session=session, endpoints=many, dependencies=with_reason)
    shifts = crud_router(ShiftService, read=ShiftIn, session=session)
    entries = crud_router(EntryService, read=EntryRead, service=get_entries)

    api = APIRouter()
    api.include_router(authors, prefix="/authors", tags=["authors"])
    # The books of an unknown author are an empty page, unless the application asks for the author.
    known, missing = [Depends(require_author)], problem_responses(404)
    api.include_router(books, prefix="/authors/{author_id}/books", tags=["books"], dependencies=known, responses=missing)
    api.include_router(seats, prefix="/seats", tags=["seats"])
    api.include_router(shifts, prefix="/shifts", tags=["shifts"])
    api.include_router(entries, prefix="/entries", tags=["entries"], responses=problem_responses(401))

    settings = KitSettings(SECRET_KEY=SecretStr("k" * 32))
    return create_app(settings, database=database, routers=[api], lifespans=[_tables(database.engine)])


def written() -> FastAPI:
    """The same authors in an application with its own engine and routes, and the service and the handlers of the library."""
    engine = create_async_engine(os.environ["DATABASE_URL"])
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", add_functions)
    app = FastAPI(lifespan=_tables(engine))
    app.state.sessions = async_sessionmaker(engine)
    register_exception_handlers(app)
    app.include_router(_written_routes())
    app.add_api_route("/feed", _feed, methods=["GET"], responses=problem_responses(422, 503))
    return app


async def get_authors(request: Request) -> AsyncIterator[AuthorService]:
    async with request.app.state.sessions() as session:
        yield AuthorService(session)


Authors: TypeAlias = Annotated[AuthorService, Depends(get_authors)]


async def _feed(authors: Authors, query: Annotated[AuthorFeed, Query()]) -> KeysetPage[AuthorRead]:
    return await authors.keyset_page_as(AuthorRead, query)


def _written_routes() -> APIRouter:
    router = APIRouter(prefix="/authors", responses=problem_responses(422, 503))

    async def list_authors(authors: Authors, query: Annotated[AuthorQuery, Query()]) -> Page[AuthorRead]:
        return await authors.page_as(AuthorRead, query)

    async def create_author(authors: Authors, data: AuthorIn) -> AuthorRead:
        return AuthorRead.model_validate(await authors.create(data), from_attributes=True)

    async def read_author(authors: Authors, id: uuid.UUID) -> AuthorRead:
        return await authors.get_as(AuthorRead, id)

    async def update_author(authors: Authors, id: uuid.UUID, data: AuthorChange) -> AuthorRead:
        return AuthorRead.model_validate(await authors.update(id, data), from_attributes=True)

    async def delete_author(authors: Authors, id: uuid.UUID) -> None:
        await authors.delete(id)

    router.add_api_route("", list_authors, methods=["GET"])
    router.add_api_route("", create_author, methods=["POST"], status_code=201, responses=problem_responses(400, 409))
    router.add_api_route("/{id}", read_author, methods=["GET"], responses=problem_responses(404))
    router.add_api_route("/{id}", update_author, methods=["PATCH"], responses=problem_responses(400, 404, 409))
    router.add_api_route("/{id}", delete_author, methods=["DELETE"], status_code=204, responses=problem_responses(404, 409))
    return router


def _tables(engine: AsyncEngine) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(ConformanceBase.metadata.create_all)
        yield
        await engine.dispose()

    return lifespan
