"""What the type checkers know of a service: checked strictly by mypy and pyright, never run."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Generic, TypeVar, assert_type

from pydantic import BaseModel
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from tests.typing.models import Base, Line, Note

from fastapi_kit.crud import FOR_UPDATE, CRUDService, KeysetSpec, QuerySpec, ReadService, RowLock, SparseModel, SparseSpec
from fastapi_kit.pagination import KeysetPage, Page, PageParams, Slice


class NoteCreate(BaseModel):
    title: str


class NoteUpdate(BaseModel):
    title: str | None = None


class NoteRead(BaseModel):
    id: int


class LineCreate(BaseModel): ...


ModelT = TypeVar("ModelT")
RowT = TypeVar("RowT", bound=Base)
CreateT = TypeVar("CreateT", bound=BaseModel)
UpdateT = TypeVar("UpdateT", bound=BaseModel)


class Notes(CRUDService[Note, NoteCreate, NoteUpdate]): ...


class Tenants(CRUDService[ModelT, CreateT, UpdateT]):
    """A generic base that the application defines."""

    async def newest(self) -> ModelT | None:
        """Return what the reads of the base return."""
        return await self.first()


class Audited(Tenants[RowT, CreateT, UpdateT], Generic[RowT, CreateT, UpdateT]):
    """A second one, narrower in what it takes."""


class Patched(Audited[RowT, CreateT, NoteUpdate]):
    """A third one, with one parameter filled in."""


class DeepNotes(Audited[Note, NoteCreate, NoteUpdate]): ...


class PatchedNotes(Patched[Note, NoteCreate]): ...


class Explicit(CRUDService[Note, NoteCreate, NoteUpdate]):
    """Says twice what it is for."""

    model = Note


class NoteReports(ReadService[Note]): ...


class Lines(CRUDService[Line, Any, Any]):
    """Rows without schemas."""


async def reads_give_the_model(session: AsyncSession) -> None:
    notes = Notes(session)
    assert_type(notes.model, type[Note])
    assert_type(notes.session, AsyncSession)
    assert_type(notes.base_query(), Select[Any])
    assert_type(await notes.get(1), Note | None)
    assert_type(await notes.get({"id": 1}, options=[selectinload(Note.lines)], lock=FOR_UPDATE), Note | None)
    assert_type(await notes.get_one((1,), lock=RowLock(nowait=True)), Note)
    assert_type(await notes.get_by(title="a", rank=None), Note | None)
    assert_type(await notes.get_by(title="a", options=[selectinload(Note.lines)], lock=FOR_UPDATE), Note | None)
    assert_type(await notes.get_one_by(title="a", lock=RowLock(nowait=True)), Note)
    assert_type(await notes.get_many([1, 2]), list[Note])
    assert_type(await notes.get_many(number for number in range(3)), list[Note])
    assert_type(await notes.first(Note.title == "a", order_by=Note.rank.desc()), Note | None)
    assert_type(await notes.list(), list[Note])
    assert_type(await notes.list(Note.rank > 1, skip=1, limit=None, order_by=[Note.title, func.lower(Note.title).desc()]), list[Note])
    assert_type(await notes.count(Note.rank.is_(None)), int)
    assert_type(await notes.exists(Note.lines.any()), bool)


async def streams_give_the_model(session: AsyncSession) -> None:
    stream = Notes(session).stream(Note.title == "a", order_by=Note.title, batch_size=10)
    assert_type(stream, AsyncGenerator[Note, None])
    async for note in stream:
        assert_type(note, Note)
    assert_type([note.title async for note in Notes(session).stream()], list[str])
    await stream.aclose()


async def schemas_give_themselves(session: AsyncSession) -> None:
    notes = Notes(session)
    assert_type(await notes.get_as(NoteRead, 1), NoteRead)
    assert_type(await notes.list_as(NoteRead, Note.rank > 1, order_by=Note.title), list[NoteRead])
    page = await notes.page_as(NoteRead, PageParams(limit=10), Note.rank > 1, order_by=(Note.title.desc(), Note.rank))
    assert_type(page, Page[NoteRead])
    assert_type(page.items, list[NoteRead])
    assert_type(page.total, int)
    assert_type(await notes.get_as(NoteRead, Note.title == "a", Note.rank > 1), NoteRead)
    assert_type(await notes.slice_as(NoteRead, PageParams()), Slice[NoteRead])


async def writes_give_the_model(session: AsyncSession) -> None:
    notes = Notes(session)
    assert_type(notes.create_schema, type[NoteCreate])
    assert_type(notes.update_schema, type[NoteUpdate])
    assert_type(await notes.create(NoteCreate(title="a")), Note)
    assert_type(await notes.create({"title": "a"}, rank=1), Note)
    assert_type(await notes.create_many([NoteCreate(title="a"), {"title": "b"}]), list[Note])
    assert_type(await notes.create_many((NoteCreate(title=title) for title in "ab"), rank=1), list[Note])
    assert_type(await notes.update(1, NoteUpdate(title="b")), Note)
    assert_type(await notes.update(1, {"rank": Note.rank + 1}, expected_version=3), Note)
    assert_type(await notes.create_values(NoteCreate(title="a")), dict[str, Any])
    assert_type(await notes.update_values(NoteUpdate()), dict[str, Any])
    await notes.delete(1, expected_version=3)


async def generic_bases_pass_the_model_on(session: AsyncSession) -> None:
    deep, patched = DeepNotes(session), PatchedNotes(session)
    assert_type(await deep.newest(), Note | None)
    assert_type(await deep.get_one(1), Note)
    assert_type(await deep.list(), list[Note])
    assert_type(await deep.create(NoteCreate(title="a")), Note)
    assert_type(await deep.list_as(NoteRead), list[NoteRead])
    assert_type(await patched.newest(), Note | None)
    assert_type(await patched.update(1, NoteUpdate()), Note)
    assert_type(patched.model, type[Note])
    assert_type(await Explicit(session).get_one(1), Note)
    assert_type(await NoteReports(session).get_one(1), Note)
    assert_type(await NoteReports(session).page_as(NoteRead, PageParams()), Page[NoteRead])


async def a_base_works_with_what_it_does_not_know(service: CRUDService[ModelT, CreateT, UpdateT], data: CreateT, change: UpdateT) -> ModelT:
    created = await service.create(data)
    assert_type(created, ModelT)
    assert_type(await service.list(), list[ModelT])
    return await service.update(1, change)


class Overriding(CRUDService[Note, NoteCreate, NoteUpdate]):
    """Every override that an application writes, with the types that it would write."""

    read_only = ("rank",)

    def base_query(self) -> Select[Any]:
        """Confine by an ordinary select."""
        return super().base_query().join(Note.lines).where(Note.rank.is_not(None)).distinct()

    async def create(self, data: NoteCreate | Mapping[str, Any], /, **values: object) -> Note:
        """Do more around it."""
        note = await super().create(data, **values)
        assert_type(note, Note)
        return note

    async def create_values(self, data: NoteCreate) -> dict[str, Any]:
        """Derive a value."""
        return {**await super().create_values(data), "rank": len(data.title)}

    async def update_values(self, data: NoteUpdate) -> dict[str, Any]:
        """Rename a value."""
        values = await super().update_values(data)
        values["rank"] = values.pop("title", None)
        return values


class Selecting(ReadService[Note]):
    """A base_query() from scratch."""

    def base_query(self) -> Select[Any]:
        return select(Note).where(Note.id > 1)


async def refused(session: AsyncSession) -> None:
    notes = Notes(session)
    await notes.create(LineCreate())  # type: ignore[arg-type]
    await notes.create_many([LineCreate()])  # type: ignore[list-item]
    await notes.update(1, NoteCreate(title="a"))  # type: ignore[arg-type]
    await notes.list(True)  # type: ignore[arg-type]
    await notes.get_as(Note, 1)  # type: ignore[type-var]
    await NoteReports(session).create(NoteCreate(title="a"))  # type: ignore[attr-defined]


async def rows_without_schemas(session: AsyncSession) -> None:
    assert_type(await Lines(session).create({}, id=1), Line)
    assert_type(await Lines(session).discard(1), bool)


class NoteCard(SparseModel):
    always_fields = ("id",)
    include_fields = ("lines",)
    id: int
    lines: list[NoteRead]


class NoteQuery(SparseSpec[NoteCard], QuerySpec[Note]): ...


class NoteFeed(SparseSpec[NoteCard], KeysetSpec[Note]): ...


async def some_of_the_fields(session: AsyncSession, query: SparseSpec[NoteCard]) -> None:
    notes = Notes(session)
    assert_type(await notes.get_as(query, 1), NoteCard)
    assert_type(await notes.list_as(SparseSpec[NoteCard](fields="id", include="lines")), list[NoteCard])
    assert_type(await notes.page_as(NoteCard, NoteQuery(fields="id", skip=1)), Page[NoteCard])
    assert_type(await notes.slice_as(NoteCard, NoteQuery()), Slice[NoteCard])
    assert_type(await notes.keyset_page_as(NoteCard, NoteFeed(include="lines")), KeysetPage[NoteCard])
    assert_type(notes.stream_as(query), AsyncGenerator[NoteCard])
    assert_type(notes.stream_json_as(query), AsyncGenerator[bytes])
    assert_type(await notes.rows_as(query, await notes.list()), list[NoteCard])
    NoteQuery(colour="red")  # type: ignore[call-arg]
