"""A database with the tables of the models, and a client of an app with the endpoints of notes."""

from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient
from tests.routing.models import AppBase, NoteRead, NoteService, client_of

from fastapi_kit.db import Database
from fastapi_kit.routing import crud_router


@pytest.fixture
async def notes(database: Database) -> Database:
    """A database with the tables of the models."""
    await database.create_tables(AppBase.metadata)
    return database


@pytest.fixture
async def client(notes: Database) -> AsyncIterator[AsyncClient]:
    """A client of an app with the five endpoints of notes."""
    async with client_of(crud_router(NoteService, read=NoteRead, session=notes.session), prefix="/notes") as client:
        yield client
