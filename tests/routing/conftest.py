"""A database with the tables of the models, and a client of an app with the endpoints of notes."""

from collections.abc import AsyncIterator
from functools import cache

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from tests.routing.models import ANY_DATABASE, BlogBase, NoteRead, NoteService, app_of, client_on

from fastapi_kit.db import Database
from fastapi_kit.routing import crud_router


@pytest.fixture
async def notes(database: Database) -> Database:
    """A database with the tables of the models."""
    await database.create_tables(BlogBase.metadata)
    return database


@cache
def app_of_notes() -> FastAPI:
    return app_of(crud_router(NoteService, read=NoteRead, session=ANY_DATABASE.session), prefix="/notes")


@pytest.fixture
async def client(notes: Database) -> AsyncIterator[AsyncClient]:
    """A client of an app with the five endpoints of notes."""
    async with client_on(notes, app_of_notes()) as client:
        yield client
