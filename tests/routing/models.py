"""Notes, folders, seat plans and words of ``tests/tables/blog.py``: schemas and services for the tests of routers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession
from tests.tables.blog import BlogBase, Folder, Note, SeatPlan, Usage, Word

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import PermissionDeniedError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing.client import app_client

__all__ = [
    "ALL",
    "ANY_DATABASE",
    "BlogBase",
    "Folder",
    "FolderCreate",
    "FolderRead",
    "FolderService",
    "FolderWithNotes",
    "NestedNote",
    "Note",
    "NoteCreate",
    "NoteRead",
    "NoteService",
    "NoteTitle",
    "NoteUpdate",
    "SeatPlan",
    "SeatPlanIn",
    "SeatPlanService",
    "SeatPlanUpdate",
    "Usage",
    "Word",
    "WordIn",
    "WordService",
    "app_of",
    "client_of",
    "client_on",
    "document_of",
    "endpoints_of",
    "forbid",
    "get_service",
    "get_session",
    "operations_of",
]


class NoteCreate(BaseModel):
    title: str
    folder_id: int | None = None


class NoteUpdate(BaseModel):
    title: str | None = None


class NoteRead(BaseModel):
    """Its configuration has no from_attributes."""

    id: int
    title: str


class NoteTitle(BaseModel):
    title: str


class FolderCreate(BaseModel):
    id: int


class FolderRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    notes: list[NoteTitle]


class NestedNote(NoteTitle):
    model_config = ConfigDict(from_attributes=True)


class FolderWithNotes(BaseModel):
    id: int
    notes: list[NestedNote]


class SeatPlanIn(BaseModel):
    hall: str
    day: date
    seats: int


class SeatPlanUpdate(BaseModel):
    seats: int


class WordIn(BaseModel):
    text: str


class NoteService(CRUDService[Note, NoteCreate, NoteUpdate]): ...


class FolderService(CRUDService[Folder, FolderCreate, FolderCreate]): ...


class SeatPlanService(CRUDService[SeatPlan, SeatPlanIn, SeatPlanUpdate]): ...


class WordService(CRUDService[Word, WordIn, WordIn]): ...


ANY_DATABASE = Database("sqlite+aiosqlite://")
"""Stands for the database of the test in an app that several tests share: to build an app takes longer than most tests."""


def app_of(*routers: APIRouter, prefix: str = "") -> FastAPI:
    app = FastAPI()
    register_exception_handlers(app)
    for router in routers:
        app.include_router(router, prefix=prefix)
    return app


@asynccontextmanager
async def client_of(*routers: APIRouter, prefix: str = "") -> AsyncIterator[AsyncClient]:
    async with app_client(app_of(*routers, prefix=prefix)) as client:
        yield client


@asynccontextmanager
async def client_on(database: Database, app: FastAPI) -> AsyncIterator[AsyncClient]:
    """A client of *app*, which uses ANY_DATABASE: here that is *database*."""
    ANY_DATABASE.engine, ANY_DATABASE.sessions = database.engine, database.sessions
    async with app_client(app) as client:
        yield client


async def get_session() -> AsyncSession:
    return AsyncSession()


async def get_service() -> NoteService:
    return NoteService(AsyncSession())


def endpoints_of(router: APIRouter) -> set[tuple[str, str]]:
    """Return the operations; HEAD is none."""
    routes = [route for route in router.routes if isinstance(route, APIRoute) and route.include_in_schema]
    return {(method, route.path) for route in routes for method in route.methods or ()}


ALL = {("GET", ""), ("POST", ""), ("GET", "/{id}"), ("PATCH", "/{id}"), ("DELETE", "/{id}")}


async def forbid() -> None:
    raise PermissionDeniedError


def document_of(*routers: tuple[str, APIRouter]) -> dict[str, Any]:
    app = FastAPI()
    for prefix, router in routers:
        app.include_router(router, prefix=prefix)
    return app.openapi()


def operations_of(router: APIRouter) -> dict[tuple[str, str], dict[str, Any]]:
    paths = document_of(("/x", router))["paths"]
    return {(path.removeprefix("/x"), method): operation for path, methods in paths.items() for method, operation in methods.items()}
