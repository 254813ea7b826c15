"""What the type checkers know of routers: checked strictly by mypy and pyright, never run."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, assert_type

from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tests.typing.models import Base, Note

from fastapi_kit.auth import require_access
from fastapi_kit.crud import FOR_UPDATE, CRUDService, ReadService
from fastapi_kit.db import Database
from fastapi_kit.routing import Endpoint, RouterOptions, check_operation_ids, crud_router, get_row_factory, operation_id


class NoteIn(BaseModel): ...


class NoteService(CRUDService[Note, NoteIn, NoteIn]): ...


class NoteReports(ReadService[Note]): ...


class OtherService(CRUDService[Base, NoteIn, NoteIn]): ...


db = Database("sqlite://")


async def get_db() -> AsyncGenerator[AsyncSession]:
    yield AsyncSession()


async def count_notes(session: AsyncSession = Depends(db.session)) -> int:
    return await NoteService(session).count()


async def get_notes(session: Annotated[AsyncSession, db.session]) -> NoteService:
    return NoteService(session)


async def get_number() -> int:
    return 1


async def guard() -> None: ...


assert_type(crud_router(NoteService, read=NoteIn, session=db.session), APIRouter)
assert_type(crud_router(NoteService, read=NoteIn, session=get_db), APIRouter)
assert_type(crud_router(NoteService, read=NoteIn, service=get_notes), APIRouter)
get_note = get_row_factory(NoteService, session=db.transaction, name="note_id", lock=FOR_UPDATE)
assert_type(get_note, Callable[..., Awaitable[Note]])
assert_type(get_row_factory(NoteService, service=get_notes, key=Note.folder_id), Callable[..., Awaitable[Note]])
assert_type(require_access(get_number, get_note, check=lambda user, note: note.id == user), Callable[..., Awaitable[Note]])
assert_type(crud_router(NoteReports, read=NoteIn, session=db.session, endpoints=Endpoint.READ), APIRouter)
assert_type(Endpoint.CRUD & ~Endpoint.DELETE | Endpoint.CREATE_MANY, Endpoint)

crud_router(
    NoteService,
    read=NoteIn,
    session=db.transaction,
    dependencies={Endpoint.WRITE: [Depends(guard)], Endpoint.LIST: [Security(guard, scopes=["notes"])]},
    options=RouterOptions(parent=Note.folder_id, parent_key=Note.id, key=Note.id, list_item=NoteIn, replace=NoteIn, max_batch=10),
)
crud_router(NoteService, read=NoteIn, service=get_number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
crud_router(NoteService, read=int, session=db.session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
RouterOptions(parent="folder_id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

app = FastAPI(generate_unique_id_function=operation_id)
check_operation_ids(app)


def route_id(route: APIRoute) -> None:
    assert_type(operation_id(route), str)
