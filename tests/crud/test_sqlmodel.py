"""Applications with SQLModel: its models and its session class."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from fastapi_kit.crud import FOR_UPDATE, CRUDService
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import ConflictError


class PilotBase(SQLModel):
    name: str = Field(unique=True)


class Pilot(PilotBase, table=True):
    id: int | None = Field(default=None, primary_key=True)


class PilotService(CRUDService[Pilot, PilotBase, PilotBase]): ...


@pytest.fixture
async def pilots(database: Database) -> AsyncIterator[PilotService]:
    """A service on SQLModel's session, whose execute() warns."""
    await database.create_tables(SQLModel.metadata)
    engine = create_async_engine(database.engine.url)
    async with async_sessionmaker(engine, class_=AsyncSession)() as session:
        yield PilotService(session)
    await engine.dispose()


async def test_every_way_to_read_and_write(pilots: PilotService) -> None:
    """Every method works with SQLModel's session, without a warning."""
    pilot = await pilots.create(PilotBase(name="a"))
    with pytest.raises(ConflictError):
        await pilots.create(PilotBase(name="a"))
    pilot = await pilots.update(pilot.id, PilotBase(name="b"))
    async with unit_of_work(pilots.session):
        await pilots.create_many([PilotBase(name=name) for name in "cd"])

    assert pilot.name == "b"
    assert [each.name for each in await pilots.list()] == ["b", "c", "d"]
    assert [each.name async for each in pilots.stream()] == ["b", "c", "d"]
    assert await pilots.get(pilot.id, lock=FOR_UPDATE) is pilot
    assert await pilots.exists(Pilot.name == "c")
    await pilots.delete(pilot.id)
    assert await pilots.count() == 2
