"""Migrations that Alembic writes from the mixins and types run unchanged."""

import io
import pickle
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script
from sqlalchemy import CheckConstraint, Column, Connection, DateTime, ForeignKey, Integer, MetaData, Table, UniqueConstraint, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit.auth.users import UserMixin
from fastapi_kit.db import NAMING_CONVENTION, Base, Database, TimestampMixin, UTCDateTime, UUIDv7Mixin

ENV = """from alembic import context

context.configure(**context.config.attributes["options"])
with context.begin_transaction():
    context.run_migrations()
"""


class Own(DeclarativeBase): ...


class Note(TimestampMixin, Own):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)


class OfTheKit(Base):
    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Person(TimestampMixin, UUIDv7Mixin, UserMixin, OfTheKit):
    __tablename__ = "people"


class Visit(UUIDv7Mixin, TimestampMixin, OfTheKit):
    __tablename__ = "visits"
    __table_args__ = (CheckConstraint("rooms > 0"), CheckConstraint("rooms < 10", name="small"), UniqueConstraint("rooms", "until"))
    rooms: Mapped[int]
    until: Mapped[datetime | None]
    person_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), index=True)


class Stamp(UTCDateTime):
    """A subclass of the application."""

    cache_ok = True


class Migrations:
    """What the ``alembic`` command does."""

    def __init__(self, folder: Path, connection: Connection) -> None:
        self.config = Config(folder / "alembic.ini", stdout=io.StringIO(), attributes={"options": {"connection": connection}})
        with redirect_stdout(io.StringIO()):
            command.init(self.config, str(folder / "migrations"))
        (folder / "migrations" / "env.py").write_text(ENV)

    def write(self, metadata: MetaData) -> str:
        """Write a migration to *metadata* and run it; return its text."""
        options = self.config.attributes["options"]
        options |= {"target_metadata": metadata, "compare_type": True, "compare_server_default": True}
        with redirect_stdout(io.StringIO()):
            script = command.revision(self.config, "next", autogenerate=True)
            assert isinstance(script, Script)
            command.upgrade(self.config, "head")
        return Path(script.path).read_text()

    def undo(self) -> None:
        with redirect_stdout(io.StringIO()):
            command.downgrade(self.config, "base")
            command.upgrade(self.config, "head")
            command.downgrade(self.config, "base")


async def migrate(database: Database, folder: Path, work: Callable[[Migrations, Connection], None]) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(lambda sync: work(Migrations(folder, sync), sync))


@pytest.mark.parametrize("metadata", [Own.metadata, OfTheKit.metadata], ids=["own", "kit"])
async def test_a_migration_runs_as_it_was_written(database: Database, tmp_path: Path, metadata: MetaData) -> None:
    """A migration runs up and down without an added import, and the next one is empty."""

    def work(migrations: Migrations, connection: Connection) -> None:
        first = migrations.write(metadata)
        assert "fastapi_kit" not in first
        assert "sa.DateTime(timezone=True), server_default=sa.text(" in first
        assert {*metadata.tables} <= {*inspect(connection).get_table_names()}
        assert "    pass" in migrations.write(metadata)
        migrations.undo()
        assert not {*metadata.tables} & {*inspect(connection).get_table_names()}

    await migrate(database, tmp_path, work)


async def test_a_migration_adds_and_changes_columns(postgres_database: Database, tmp_path: Path) -> None:
    """A migration can make a naive column aware and add timestamps to an existing table, also with a subclass of the type."""

    def notes(*columns: Column[Any]) -> MetaData:
        metadata = MetaData()
        Table("notes", metadata, Column("id", Integer, primary_key=True), *columns)
        return metadata

    def work(migrations: Migrations, connection: Connection) -> None:
        migrations.write(notes(Column("created_at", DateTime(), nullable=False)))
        assert "type_=sa.DateTime(timezone=True)" in migrations.write(Own.metadata)
        assert "existing_type=sa.DateTime(timezone=True)" not in migrations.write(notes(Column("created_at", Stamp(), nullable=False)))
        migrations.undo()

    await migrate(postgres_database, tmp_path, work)


def test_the_type_is_its_own_class_still() -> None:
    """The name that Alembic gets changes neither the class of the type nor its copies."""
    copy = pickle.loads(pickle.dumps(Visit.__table__.c.until.type))

    assert (UTCDateTime.__module__, UTCDateTime.__qualname__) == ("fastapi_kit.db.types", "UTCDateTime")
    assert type(copy) is type(UTCDateTime().copy()) is UTCDateTime
    assert (copy.__module__, repr(copy)) == ("sa", "DateTime(timezone=True)")
