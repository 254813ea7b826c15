"""Each error is caused in SQLite and PostgreSQL and becomes the library's."""

import asyncio
import enum
import gc
import socket
import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from asyncpg import InterfaceError, InternalClientError, PostgresError
from sqlalchemy import (
    URL,
    BigInteger,
    CheckConstraint,
    Column,
    Enum,
    Executable,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint
from sqlalchemy.exc import DBAPIError, IntegrityError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.orm.exc import StaleDataError
from tests.tables.zoo import Cat, ZooBase

from fastapi_kit.db import NAMING_CONVENTION, Database, UTCDateTime
from fastapi_kit.db.errors import as_kit_error, is_retryable, watch
from fastapi_kit.errors import (
    ConflictError,
    InvalidDataError,
    KitError,
    NotFoundError,
    StillReferencedError,
    UnavailableError,
    UnknownReferenceError,
)


class Kind(enum.Enum):
    STORY = "story"


class Model(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class Author(Model):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column("e_mail", String(20), unique=True)
    name: Mapped[str] = mapped_column("full_name", String(10))
    age: Mapped[int | None] = mapped_column(SmallInteger, CheckConstraint("age >= 0"))
    born: Mapped[int | None]
    books: Mapped[list["Book"]] = relationship(back_populates="author", foreign_keys="Book.author_id")
    __table_args__ = (CheckConstraint("born IS NULL OR born < age + 3000 AND full_name <> 'id'", name="born"),)


class Book(Model):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    editor_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    publisher: Mapped[str | None]
    number: Mapped[int | None] = mapped_column(BigInteger)
    title: Mapped[str | None] = mapped_column(String(30))
    slug: Mapped[str | None] = mapped_column(Text)
    price: Mapped[Decimal | None] = mapped_column(Numeric(5, 2))
    live: Mapped[int] = mapped_column(default=1)
    author: Mapped[Author | None] = relationship(back_populates="books", foreign_keys=[author_id])
    __table_args__ = (
        UniqueConstraint("publisher", "number"),
        Index("ix_books_title", func.lower(title), unique=True),
        Index("ix_books_slug", "slug", unique=True, sqlite_where=text("live = 1"), postgresql_where=text("live = 1")),
    )


BOOKS = Model.metadata.tables["books"]
AUTHORS = Model.metadata.tables["authors"]
ANNE = {"e_mail": "anne@example.org", "full_name": "Anne"}


@pytest.fixture
async def library(database: Database) -> Database:
    """An author with one book."""
    await database.create_tables(Model.metadata)
    async with database.engine.begin() as connection:
        await connection.execute(insert(AUTHORS).values(id=10, **ANNE))
        await connection.execute(insert(BOOKS).values(id=10, author_id=10, publisher="Faber", number=1, title="Emma", slug="emma", live=1))
    return database


async def failure_of(work: Awaitable[object]) -> Exception:
    try:
        await work
    except Exception as error:
        return error
    pytest.fail("nothing was rejected")


async def run(engine: AsyncEngine, statements: Sequence[Executable], parameters: Any = None) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(statement, parameters)


async def error_of(
    database: Database, *statements: Executable, parameters: Any = None, metadata: MetaData | None = Model.metadata
) -> KitError:
    error = as_kit_error(await failure_of(run(database.engine, statements, parameters)), metadata=metadata)
    assert error is not None
    return error


def said(error: KitError | None) -> tuple[Any, ...]:
    """Return the parts of an error to compare in one line."""
    assert error is not None
    names = ("fields", "table", "reason" if isinstance(error, InvalidDataError) else "constraint")
    return type(error), *(getattr(error, name) for name in names)


# --- Unique. ---


async def test_unique_names_fields_table_and_constraint(library: Database) -> None:
    """A unique violation names the table, the constraint and the fields, alike on both databases."""
    error = await error_of(library, insert(AUTHORS).values(**ANNE))

    assert said(error) == (ConflictError, ("e_mail",), "authors", "uq_authors_e_mail")


async def test_unique_of_several_columns(library: Database) -> None:
    """A composite unique constraint names all its fields, in its order."""
    error = await error_of(library, insert(BOOKS).values(number=1, publisher="Faber", live=1))

    assert said(error) == (ConflictError, ("publisher", "number"), "books", "uq_books_publisher_number")


async def test_unique_by_update(library: Database) -> None:
    """An UPDATE that meets a unique constraint is rejected like an INSERT."""
    error = await error_of(
        library, insert(BOOKS).values(id=11, slug="other", live=1), update(BOOKS).where(BOOKS.c.id == 11).values(slug="emma")
    )

    assert said(error) == (ConflictError, ("slug",), "books", "ix_books_slug")


async def test_primary_key(library: Database) -> None:
    """A taken primary key is a conflict over the key."""
    error = await error_of(library, insert(BOOKS).values(id=10, live=1))

    assert said(error) == (ConflictError, ("id",), "books", "pk_books")


async def test_functional_unique_index(library: Database) -> None:
    """A unique index over lower(title) names title."""
    error = await error_of(library, insert(BOOKS).values(title="EMMA", live=1))

    assert said(error) == (ConflictError, ("title",), "books", "ix_books_title")


async def test_partial_unique_index(library: Database) -> None:
    """A partial unique index names its key, not the columns of its condition."""
    error = await error_of(library, insert(BOOKS).values(slug="emma", live=1))

    assert said(error) == (ConflictError, ("slug",), "books", "ix_books_slug")


async def test_attribute_names_of_the_mapper(library: Database) -> None:
    """With a mapper the fields are its attributes, whatever the columns are called, and its metadata is used."""
    failure = await failure_of(run(library.engine, [insert(AUTHORS).values(**ANNE)]))

    assert said(as_kit_error(failure, mapper=Author.__mapper__)) == (ConflictError, ("email",), "authors", "uq_authors_e_mail")


async def test_another_table_than_the_mappers(library: Database) -> None:
    """A column that the mapper does not map keeps its own name."""
    failure = await failure_of(run(library.engine, [insert(AUTHORS).values(**ANNE)]))

    assert said(as_kit_error(failure, mapper=Book.__mapper__)) == (ConflictError, ("e_mail",), "authors", "uq_authors_e_mail")


async def test_flush_of_objects(library: Database) -> None:
    """A flush of mapped objects is rejected with the same words."""

    async def flush() -> None:
        async with library.sessions() as session:
            session.add_all([Author(email="b@example.org", name="B"), Author(email=ANNE["e_mail"], name="A")])
            await session.flush()

    error = as_kit_error(await failure_of(flush()), mapper=Author.__mapper__)

    assert said(error) == (ConflictError, ("email",), "authors", "uq_authors_e_mail")


async def test_without_metadata_the_driver_speaks(library: Database) -> None:
    """Without metadata the fields are those that the driver names."""
    error = await error_of(library, insert(BOOKS).values(publisher="Faber", number=1, live=1), metadata=None)

    assert isinstance(error, ConflictError)
    assert (error.fields, error.table) == (("publisher", "number"), "books")


async def test_text_names_no_value(library: Database) -> None:
    """The text of the error has table, constraint and fields, and no value."""
    error = await error_of(library, insert(AUTHORS).values(**ANNE))

    assert str(error) == "conflict in e_mail of authors (uq_authors_e_mail)"


async def test_exclusion(postgres_database: Database) -> None:
    """An exclusion constraint of PostgreSQL is a conflict over its columns."""
    metadata = MetaData()
    rooms = Table("rooms", metadata, Column("id", Integer, primary_key=True), Column("shape", Text))
    rooms.append_constraint(ExcludeConstraint((func.length(rooms.c.shape), "="), name="no_overlap", using="btree"))
    await postgres_database.create_tables(metadata)

    error = await error_of(postgres_database, insert(rooms).values([{"shape": "abc"}, {"shape": "xyz"}]), metadata=metadata)

    assert said(error) == (ConflictError, ("shape",), "rooms", "no_overlap")


@pytest.mark.parametrize(("values", "field", "table"), [({"tag": "1"}, "tag", "animals"), ({"chip": "1"}, "chip", "cats")])
async def test_joined_inheritance(database: Database, values: dict[str, Any], field: str, table: str) -> None:
    """The fields of a parent's table are attributes of the child's mapper too."""
    await database.create_tables(ZooBase.metadata)

    async def flush() -> None:
        async with database.sessions() as session:
            session.add_all([Cat(**values), Cat(**values)])
            await session.flush()

    error = as_kit_error(await failure_of(flush()), mapper=Cat.__mapper__)

    assert isinstance(error, ConflictError)
    assert (error.fields, error.table) == ((field,), table)


# --- Tables whose constraints have no names, long names, or stand in a schema. ---

OLD = MetaData()
PARENTS = Table("parents", OLD, Column("id", Integer, primary_key=True), Column("code", String(5), unique=True))
CHILDREN = Table(
    "children",
    OLD,
    Column("id", Integer, primary_key=True),
    Column("parent_id", ForeignKey("parents.id")),
    Column("low", Integer, CheckConstraint("low > 0")),
    Column("high", Integer),
    CheckConstraint("low <> high"),
    CheckConstraint("high < parent_id OR parent_id = id"),
)
LONG = Table(
    "a_table_with_a_name_that_is_really_long",
    OLD,
    Column("id", Integer, primary_key=True),
    Column("a_column_with_a_name_that_is_long_too", Integer, CheckConstraint("a_column_with_a_name_that_is_long_too > 0"), unique=True),
)


@pytest.fixture
async def old(database: Database) -> Database:
    """A database of an application without a naming convention."""
    await database.create_tables(OLD)
    await run(database.engine, [insert(PARENTS).values(id=1, code="a"), insert(CHILDREN).values(id=100, parent_id=1)])
    return database


@pytest.mark.parametrize(
    ("statement", "fields", "table"),
    [
        (insert(PARENTS).values(id=1), ("id",), "parents"),
        (insert(PARENTS).values(id=9, code="a"), ("code",), "parents"),
        (insert(LONG).values([{LONG.c[1].name: 7}, {LONG.c[1].name: 7}]), (LONG.c[1].name,), LONG.name),
    ],
)
async def test_unnamed_unique_constraints(old: Database, statement: Executable, fields: tuple[str, ...], table: str) -> None:
    """An unnamed constraint is known by the name that PostgreSQL makes, shortened where it is long."""
    error = await error_of(old, statement, metadata=OLD)

    assert isinstance(error, ConflictError)
    assert (error.fields, error.table) == (fields, table)


@pytest.mark.parametrize(
    ("values", "fields"),
    [({"low": -1}, ("low",)), ({"low": 7, "high": 7}, ("low", "high")), ({"high": 5, "parent_id": 1}, ("id", "parent_id", "high"))],
)
async def test_unnamed_checks(old: Database, values: dict[str, int], fields: tuple[str, ...]) -> None:
    """Unnamed CHECKs name the columns of their text, also where PostgreSQL numbers their names."""
    error = await error_of(old, insert(CHILDREN).values(id=200, **values), metadata=OLD)

    assert said(error) == (InvalidDataError, fields, "children", "check")


async def test_unnamed_check_with_a_long_name(old: Database) -> None:
    """The name of an unnamed CHECK is known as PostgreSQL shortens it."""
    error = await error_of(old, insert(LONG).values({LONG.c[1].name: -1}), metadata=OLD)

    assert said(error) == (InvalidDataError, (LONG.c[1].name,), LONG.name, "check")


async def test_check_with_qualified_names(database: Database) -> None:
    """A table's name in the text of a CHECK is not taken for a column."""
    metadata = MetaData()
    columns = [Column(name, Integer) for name in ("id", "price", "cost", "limit")]
    table = Table("cost", metadata, *columns, CheckConstraint('cost.price > 0 AND "cost".price < "limit"'))
    await database.create_tables(metadata)

    error = await error_of(database, insert(table).values(price=0, cost=0, limit=0), metadata=metadata)

    assert said(error) == (InvalidDataError, ("price", "limit"), "cost", "check")


async def test_constraint_of_a_partition(postgres_database: Database) -> None:
    """A partition is not in the metadata, but its constraint is that of the table."""
    metadata = MetaData()
    day = Column("day", Integer, CheckConstraint("day > 0", name="positive"))
    days = Table("days", metadata, day, postgresql_partition_by="LIST (day)")
    await postgres_database.create_tables(metadata)
    await run(postgres_database.engine, [text("CREATE TABLE days_rest PARTITION OF days DEFAULT")])

    error = await error_of(postgres_database, insert(days).values(day=-1), metadata=metadata)

    assert said(error) == (InvalidDataError, ("day",), "days_rest", "check")


async def test_unnamed_foreign_key(old: Database) -> None:
    """An unnamed foreign key names its column."""
    error = await error_of(old, insert(CHILDREN).values(parent_id=99), metadata=OLD)

    assert said(error) == (UnknownReferenceError, ("parent_id",), "children", "unknown_reference")


async def test_shortened_names(database: Database) -> None:
    """A name of the naming convention that is too long for PostgreSQL is recognised, and reported in full."""
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    table = LONG.to_metadata(metadata)
    await database.create_tables(metadata)

    error = await error_of(database, insert(table).values([{table.c[1].name: 7}, {table.c[1].name: 7}]), metadata=metadata)

    assert said(error) == (ConflictError, (table.c[1].name,), table.name, f"uq_{table.name}_{table.c[1].name}")


async def test_named_schema(postgres_database: Database) -> None:
    """A table of another schema is not taken for a table of the same name, and is named with its schema."""
    metadata = MetaData()
    Table("users", metadata, Column("id", Integer, primary_key=True), Column("name", Text, unique=True))
    other = Table("users", metadata, Column("id", Integer, primary_key=True), Column("email", String(5), unique=True), schema="other")
    await run(postgres_database.engine, [text("CREATE SCHEMA IF NOT EXISTS other"), text("DROP TABLE IF EXISTS other.users")])
    await postgres_database.create_tables(metadata)

    taken = await error_of(postgres_database, insert(other).values([{"email": "a"}, {"email": "a"}]), metadata=metadata)
    long = await error_of(postgres_database, insert(other).values(email="too long"), metadata=metadata)

    assert said(taken) == (ConflictError, ("email",), "other.users", "users_email_key")
    assert said(long) == (InvalidDataError, ("email",), "other.users", "too_long")


async def test_unknown_constraint_falls_back_on_the_detail(postgres_database: Database) -> None:
    """A unique index that the metadata does not know is named by PostgreSQL's DETAIL, expressions included."""
    metadata = MetaData()
    words = Table("words", metadata, Column("id", Integer, primary_key=True), Column("word", Text), Column("lang", Text))
    await postgres_database.create_tables(metadata)
    await run(postgres_database.engine, [text("CREATE UNIQUE INDEX secret ON words (lang, lower(word))")])

    error = await error_of(
        postgres_database, insert(words).values([{"word": "a", "lang": "x"}, {"word": "A", "lang": "x"}]), metadata=metadata
    )

    assert said(error) == (ConflictError, ("word", "lang"), "words", "secret")


# --- Foreign keys. ---


async def test_unknown_reference_names_the_field(library: Database) -> None:
    """A foreign key without a row names the field; on SQLite with precise=False."""
    error = await error_of(library, insert(BOOKS).values(author_id=99, live=1))

    assert said(error) == (UnknownReferenceError, ("author_id",), "books", "unknown_reference")
    assert isinstance(error, UnknownReferenceError)
    assert error.precise is (library.engine.dialect.name == "postgresql")


async def test_sqlite_names_every_key_that_was_written(sqlite_database: Database) -> None:
    """SQLite does not name the foreign key: all that are not null are named, with precise=False."""
    await sqlite_database.create_tables(Model.metadata)
    error = await error_of(sqlite_database, insert(BOOKS).values(editor_id=98, author_id=99, live=1))
    alone = await error_of(sqlite_database, insert(BOOKS), parameters=[{"author_id": None, "editor_id": 98, "live": 1}] * 2)

    assert said(error) == (UnknownReferenceError, ("author_id", "editor_id"), "books", "unknown_reference")
    assert said(alone) == (UnknownReferenceError, ("editor_id",), "books", "unknown_reference")


async def test_unknown_reference_by_update(library: Database) -> None:
    """An UPDATE of the referencing table is an unknown reference."""
    error = await error_of(library, update(BOOKS).values(editor_id=99, price=BOOKS.c.price + 1, slug=func.lower("A, B")))

    assert said(error) == (UnknownReferenceError, ("editor_id",), "books", "unknown_reference")


async def test_delete_of_a_referenced_row(old: Database) -> None:
    """Deleting a row that others refer to names the referring table and field."""
    error = await error_of(old, delete(PARENTS), metadata=OLD)

    assert isinstance(error, StillReferencedError)
    assert (error.fields, error.table) == (("parent_id",), "children")


async def test_update_of_a_referenced_key(old: Database) -> None:
    """An UPDATE of the referenced key is still referenced, not an unknown reference."""
    error = await error_of(old, update(PARENTS).values(id=2), metadata=OLD)

    assert isinstance(error, StillReferencedError)
    assert (error.fields, error.table) == (("parent_id",), "children")


async def test_sqlite_cannot_tell_between_references(sqlite_database: Database) -> None:
    """If two foreign keys refer to the row, SQLite's error names no field."""
    await sqlite_database.create_tables(Model.metadata)
    prepare = [insert(AUTHORS).values(id=1, **ANNE), insert(BOOKS).values(author_id=1, live=1)]

    assert said(await error_of(sqlite_database, *prepare, delete(AUTHORS))) == (StillReferencedError, (), None, None)


def test_foreign_key_without_metadata() -> None:
    """At COMMIT and without metadata the fields are those that PostgreSQL names."""
    fields = {"C": "23503", "M": "...", "D": 'Key (id)=(9) is still referenced from table "books".', "t": "books", "n": "fk"}

    assert said(as_kit_error(PostgresError.new(fields))) == (StillReferencedError, (), "books", "fk")


def test_foreign_key_into_another_metadata() -> None:
    """A foreign key whose table the metadata lacks is an unknown reference all the same."""
    metadata = MetaData()
    Table("orphans", metadata, Column("id", Integer, primary_key=True), Column("home_id", ForeignKey("homes.id"), nullable=False))
    fields = {
        "C": "23503",
        "M": "...",
        "D": 'Key (home_id)=(9) is not present in table "homes".',
        "t": "orphans",
        "n": "orphans_home_id_fkey",
    }

    error = as_kit_error(PostgresError.new(fields), metadata=metadata)

    assert said(error) == (UnknownReferenceError, ("home_id",), "orphans", "unknown_reference")


async def test_self_reference(database: Database) -> None:
    """In a table that refers to itself INSERT is an unknown reference, DELETE is still referenced, and UPDATE either."""
    metadata = MetaData()
    nodes = Table("nodes", metadata, Column("id", Integer, primary_key=True), Column("parent_id", ForeignKey("nodes.id")))
    await database.create_tables(metadata)
    pair = [insert(nodes).values(id=1), insert(nodes).values(id=2, parent_id=1)]
    child, parent = update(nodes).where(nodes.c.id == 2), update(nodes).where(nodes.c.id == 1)

    assert type(await error_of(database, insert(nodes).values(id=1, parent_id=9), metadata=metadata)) is UnknownReferenceError
    assert type(await error_of(database, *pair, delete(nodes).where(nodes.c.id == 1), metadata=metadata)) is StillReferencedError
    assert type(await error_of(database, *pair, child.values(parent_id=9), metadata=metadata)) is UnknownReferenceError
    assert type(await error_of(database, *pair, parent.values(id=7), metadata=metadata)) is StillReferencedError


async def test_on_delete_restrict(database: Database) -> None:
    """ON DELETE RESTRICT, which SQLite reports as a trigger, is still referenced."""
    metadata = MetaData()
    homes = Table("homes", metadata, Column("id", Integer, primary_key=True))
    pets = Table("pets", metadata, Column("id", Integer, primary_key=True), Column("home_id", ForeignKey("homes.id", ondelete="RESTRICT")))
    await database.create_tables(metadata)

    error = await error_of(database, insert(homes).values(id=1), insert(pets).values(home_id=1), delete(homes), metadata=metadata)

    assert isinstance(error, StillReferencedError)
    assert (error.fields, error.table) == (("home_id",), "pets")


DEFERRED = MetaData()
TEAMS = Table("teams", DEFERRED, Column("id", Integer, primary_key=True))
MEMBERS = Table(
    "members",
    DEFERRED,
    Column("id", Integer, primary_key=True),
    Column("team_id", ForeignKey("teams.id", deferrable=True, initially="DEFERRED")),
    Column("other_id", ForeignKey("teams.id")),
)


async def test_deferred_key_at_commit(database: Database) -> None:
    """A deferred foreign key that fails at COMMIT is an unknown reference; SQLite cannot name it."""
    await database.create_tables(DEFERRED)
    error = await error_of(database, insert(MEMBERS).values(team_id=9), metadata=DEFERRED)

    assert isinstance(error, UnknownReferenceError)
    precise = database.engine.dialect.name == "postgresql"
    assert (error.fields, error.precise) == ((("team_id",), True) if precise else ((), False))


async def test_deferred_delete_at_commit(postgres_database: Database) -> None:
    """At COMMIT PostgreSQL's DETAIL tells that the row is still referenced."""
    await postgres_database.create_tables(DEFERRED)
    await run(postgres_database.engine, [insert(TEAMS).values(id=1), insert(MEMBERS).values(team_id=1)])

    error = await error_of(postgres_database, delete(TEAMS), metadata=DEFERRED)

    assert said(error) == (StillReferencedError, ("team_id",), "members", "members_team_id_fkey")


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("Schlüssel (author_id)=(9) ist nicht in Tabelle »authors« vorhanden.", UnknownReferenceError),
        ("Schlüssel (id)=(9) wird noch von Tabelle »books« referenziert.", StillReferencedError),
        ("Schlüssel ist nicht in Tabelle »authors« vorhanden.", UnknownReferenceError),
        ("Schlüssel wird noch von Tabelle »books« referenziert.", StillReferencedError),
        (None, UnknownReferenceError),
    ],
)
def test_foreign_key_in_another_language(detail: str | None, expected: type[KitError]) -> None:
    """At COMMIT PostgreSQL's DETAIL tells the direction of a foreign key in every language."""
    fields = {"C": "23503", "M": "...", "D": detail, "s": "public", "t": "books", "n": "fk_books_author_id_authors"}
    error = as_kit_error(PostgresError.new(fields), metadata=Model.metadata)

    assert type(error) is expected
    assert said(error)[1:3] == (("author_id",), "books")


async def test_composite_foreign_key(database: Database) -> None:
    """A composite foreign key names all its columns, and none where one of them is NULL."""
    metadata = MetaData()
    Table("sites", metadata, Column("tenant", Integer, primary_key=True), Column("id", Integer, primary_key=True))
    columns = [Column("tenant", Integer), Column("site", Integer), Column("twin", Integer)]
    keys = [ForeignKeyConstraint(["tenant", name], ["sites.tenant", "sites.id"]) for name in ("site", "twin")]
    pages = Table("pages", metadata, Column("id", Integer, primary_key=True), *columns, *keys)
    await database.create_tables(metadata)

    error = await error_of(database, insert(pages).values(tenant=1, site=2, twin=None), metadata=metadata)

    assert said(error) == (UnknownReferenceError, ("tenant", "site"), "pages", "unknown_reference")


# --- Values that a column cannot hold ---


async def test_not_null(library: Database) -> None:
    """Null in a NOT NULL column names the field, alike on both databases."""
    error = await error_of(library, insert(AUTHORS).values(e_mail="b@example.org"))

    assert said(error) == (InvalidDataError, ("full_name",), "authors", "null")


async def test_not_null_by_mapper(library: Database) -> None:
    """Null in a NOT NULL column names the attribute."""
    failure = await failure_of(run(library.engine, [update(AUTHORS).values(full_name=None)]))

    assert said(as_kit_error(failure, mapper=Author.__mapper__)) == (InvalidDataError, ("name",), "authors", "null")


@pytest.mark.parametrize(("values", "fields"), [({"age": -1}, ("age",)), ({"age": 1, "born": 9999}, ("full_name", "age", "born"))])
async def test_check_names_the_columns_of_its_text(library: Database, values: dict[str, int], fields: tuple[str, ...]) -> None:
    """A CHECK names the columns in its text, whole words outside strings, alike on both databases."""
    error = await error_of(library, insert(AUTHORS).values(e_mail="b@example.org", full_name="B", **values))

    assert said(error) == (InvalidDataError, fields, "authors", "check")


TOO_LONG = {"e_mail": "b@example.org", "full_name": "far too long for ten"}
FINE = {"e_mail": "c@example.org", "full_name": "C"}


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (insert(AUTHORS).values(TOO_LONG), None),
        (insert(AUTHORS), [FINE, TOO_LONG]),
        (insert(AUTHORS).values([FINE, TOO_LONG]), None),
        (insert(AUTHORS).returning(AUTHORS.c.id), [FINE, TOO_LONG]),
        (insert(AUTHORS).returning(AUTHORS.c.id, sort_by_parameter_order=True), [FINE, TOO_LONG]),
        (
            insert(AUTHORS)
            .values(e_mail=func.replace(bindparam("a"), bindparam("b"), bindparam("c")), full_name=bindparam("n"))
            .returning(AUTHORS.c.id, sort_by_parameter_order=True),
            [{"a": "a" * 30, "b": "a", "c": "", "n": "far too long for ten"}] * 2,
        ),
        (update(AUTHORS).values(full_name=TOO_LONG["full_name"], age=AUTHORS.c.age + 1), None),
        (
            update(AUTHORS).where(AUTHORS.c.id == bindparam("key")).values(full_name=bindparam("n")),
            [{"key": 10, "n": "far too long for ten"}],
        ),
    ],
    ids=["one", "many", "values", "returning", "sorted", "sorted-expression", "update", "update-many"],
)
async def test_too_long_in_every_kind_of_statement(postgres_database: Database, statement: Executable, parameters: Any) -> None:
    """PostgreSQL does not name the column of a text that is too long: it is found from what the statement wrote."""
    await postgres_database.create_tables(Model.metadata)
    await run(postgres_database.engine, [insert(AUTHORS).values(id=10, **ANNE)])

    error = await error_of(postgres_database, statement, parameters=parameters)

    assert said(error) == (InvalidDataError, ("full_name",), "authors", "too_long")


class Upper(TypeDecorator[str]):
    impl = String(4)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return value and value.upper()


ODD = MetaData()
THINGS = Table(
    "things",
    ODD,
    Column("id", Integer, primary_key=True),
    Column("small", SmallInteger),
    Column("big", BigInteger),
    Column("price", Numeric(5, 2)),
    Column("name", String(10)),
    Column("upper", Upper()),
    Column("kind", Enum(Kind, name="kind")),
    Column("data", JSONB),
    Column("key", Uuid),
    Column("word", Text, unique=True),
)


@pytest.mark.parametrize(
    ("values", "fields", "reason"),
    [
        ({"small": 40_000}, ("small",), "out_of_range"),
        ({"name": "a", "big": 2**63}, ("big",), "out_of_range"),
        ({"price": Decimal(1000)}, ("price",), "out_of_range"),
        ({"price": Decimal("Infinity")}, ("price",), "out_of_range"),
        ({"price": Decimal(1), "name": "a\0b"}, ("name",), "invalid_text"),
        ({"name": "\ud800"}, ("name",), "invalid_text"),
        ({"name": "fits", "data": {"a": ["\0"]}}, ("data",), "invalid_text"),
        ({"data": ["\ud800"]}, ("data",), "invalid_text"),
        ({"data": float("nan")}, ("data",), "out_of_range"),
        ({"upper": "long enough"}, ("upper",), "too_long"),
        ({"kind": "poem"}, ("kind",), "check"),
        ({"small": 1, "name": 5}, ("name",), "wrong_type"),
        ({"key": "no uuid"}, ("key",), "wrong_type"),
        ({"word": "".join(str(uuid.uuid4()) for _ in range(150)), "name": "a"}, ("word",), "too_long"),
        ({"word": "".join(str(uuid.uuid4()) for _ in range(600)), "name": "a"}, ("word",), "too_long"),
    ],
)
async def test_values_that_postgresql_rejects(
    postgres_database: Database, values: dict[str, Any], fields: tuple[str, ...], reason: str
) -> None:
    """Ranges, lengths, NUL bytes, surrogates and wrong types are invalid data that names the field."""
    await postgres_database.create_tables(ODD)

    error = await error_of(postgres_database, insert(THINGS).values(values), metadata=ODD)

    assert said(error) == (InvalidDataError, fields, "things", reason)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"number": 2**63}, "out_of_range"),
        ({"slug": "\ud800"}, "invalid_text"),
        ({"slug": object()}, "wrong_type"),
        ({"id": "one"}, "wrong_type"),
        ({"price": "dear"}, "wrong_type"),
    ],
)
async def test_values_that_sqlite_rejects(sqlite_database: Database, values: dict[str, Any], reason: str) -> None:
    """What SQLite's driver or a column type rejects is invalid data, wrapped by SQLAlchemy or not."""
    await sqlite_database.create_tables(Model.metadata)

    error = await error_of(sqlite_database, insert(BOOKS).values(live=1, **values))

    assert isinstance(error, InvalidDataError)
    assert error.reason == reason


async def test_sqlite_names_a_parameter_it_cannot_bind(sqlite_database: Database) -> None:
    """SQLite counts the parameter that it cannot bind, and the field is found by the count."""
    await sqlite_database.create_tables(Model.metadata)

    error = await error_of(sqlite_database, insert(BOOKS).values(live=1, title=func.replace("a", "b", "c"), slug=object()))

    assert said(error) == (InvalidDataError, ("slug",), "books", "wrong_type")


async def test_key_out_of_range_in_a_condition(database: Database) -> None:
    """A number beyond every range in a WHERE is invalid data; no field was written, so none is named."""
    await database.create_tables(Model.metadata)

    error = await error_of(database, update(BOOKS).where(BOOKS.c.id == 10**20).values(number=5))

    assert isinstance(error, InvalidDataError)
    assert (error.fields, error.reason) == ((), "out_of_range")


async def test_error_of_a_column_type(database: Database) -> None:
    """A library error that a column type raises comes back as it is."""
    metadata = MetaData()
    days = Table("days", metadata, Column("id", Integer, primary_key=True), Column("at", UTCDateTime))
    await database.create_tables(metadata)

    error = await error_of(database, insert(days).values(at=datetime.fromisoformat("2024-02-29T12:00:00")), metadata=metadata)

    assert isinstance(error, InvalidDataError)


class Picky(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        raise NotFoundError(Book, value)


async def test_wrapped_library_error(database: Database) -> None:
    """A library error inside SQLAlchemy's StatementError is unwrapped."""
    error = await error_of(database, select(bindparam("a", "x", Picky())))

    assert isinstance(error, NotFoundError)


# --- The database does not answer ---


@pytest.fixture
async def other_engine(postgres_database: Database) -> AsyncIterator[AsyncEngine]:
    """A second engine on the same PostgreSQL database, with a pool of one."""
    engine = create_async_engine(postgres_database.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    yield engine
    await engine.dispose()


async def unavailable(work: Awaitable[object]) -> Exception:
    failure = await failure_of(work)
    error = as_kit_error(failure)
    assert isinstance(error, UnavailableError), failure
    assert error.service == "database"
    assert error.retry_after > 0
    return failure


async def test_lost_connection(postgres_database: Database, other_engine: AsyncEngine) -> None:
    """A backend that is killed is unavailable, in the statement it dies under and in the next."""
    async with other_engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        sleeping = asyncio.create_task(failure_of(connection.execute(text("SELECT pg_sleep(20)"))))
        await asyncio.sleep(0.1)
        await run(postgres_database.engine, [select(func.pg_terminate_backend(pid))])
        assert isinstance(as_kit_error(await sleeping), UnavailableError)


async def test_connection_lost_between_statements(postgres_database: Database, other_engine: AsyncEngine) -> None:
    """A connection that died while idle is unavailable."""
    async with other_engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        await run(postgres_database.engine, [select(func.pg_terminate_backend(pid))])
        await asyncio.sleep(0.1)
        await unavailable(connection.execute(text("SELECT 1")))


async def test_statement_timeout(postgres_database: Database) -> None:
    """A statement that takes too long is unavailable."""
    await unavailable(run(postgres_database.engine, [text("SET LOCAL statement_timeout = 20"), text("SELECT pg_sleep(20)")]))


async def test_command_timeout(postgres_database: Database) -> None:
    """The driver's command timeout, a bare TimeoutError, is unavailable."""
    engine = create_async_engine(postgres_database.engine.url, connect_args={"command_timeout": 0.1})
    failure = await unavailable(run(engine, [text("SELECT pg_sleep(20)")]))
    await engine.dispose()

    assert type(failure) is TimeoutError


async def test_lock_timeout(postgres_database: Database, other_engine: AsyncEngine) -> None:
    """A lock that is not granted in time is unavailable, and so is one that may not be waited for."""
    await postgres_database.create_tables(Model.metadata)
    async with other_engine.begin() as connection:
        await connection.execute(text("LOCK TABLE authors"))
        await unavailable(run(postgres_database.engine, [text("SET LOCAL lock_timeout = 20"), select(AUTHORS)]))
        await unavailable(run(postgres_database.engine, [text("LOCK TABLE authors NOWAIT")]))


async def test_pool_timeout(other_engine: AsyncEngine) -> None:
    """An empty pool is unavailable."""
    async with other_engine.connect():
        await unavailable(run(other_engine, [text("SELECT 1")]))


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_server_listens(driver: str, host: str) -> None:
    """A port without a server is unavailable."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = create_async_engine(f"postgresql+{driver}://postgres@{host}:{port}/test")

    await unavailable(run(engine, [text("SELECT 1")]))


async def test_unreachable_socket_file(tmp_path: Path) -> None:
    """A missing socket file is unavailable, although it is a FileNotFoundError."""
    engine = create_async_engine(f"postgresql+asyncpg://postgres@/test?host={tmp_path}")

    await unavailable(run(engine, [text("SELECT 1")]))


@pytest.mark.parametrize(
    ("error", "mapped"),
    [
        (InternalClientError("cannot switch to state 15; another operation (2) is in progress"), True),
        (InterfaceError("connection is closed"), True),
        (DBAPIError("SELECT 1", (), Exception("gone"), connection_invalidated=True), True),
        (DBAPIError("SELECT 1", (), MissingGreenlet(), connection_invalidated=True), False),
        (psycopg.OperationalError("the connection is closed"), True),
        (psycopg.ProgrammingError("the query has 1 placeholder but 0 parameters were passed"), False),
        (InterfaceError("cannot perform operation: another operation is in progress"), False),
        (sqlite3.OperationalError("no active connection"), True),
        (sqlite3.OperationalError("near SELEC: syntax error"), False),
    ],
)
def test_connections_that_the_client_finds_dead(error: Exception, mapped: bool) -> None:
    """A connection that the driver finds closed is unavailable; one that two tasks use is a mistake in the code."""
    found = as_kit_error(error)

    assert isinstance(found, UnavailableError) if mapped else found is None


@pytest.mark.parametrize("error", [ConnectionResetError(), BrokenPipeError(), TimeoutError(), socket.gaierror("no such host")])
def test_bare_socket_errors(error: OSError) -> None:
    """Connection errors that SQLAlchemy does not wrap are unavailable."""
    assert isinstance(as_kit_error(error), UnavailableError)


UNAVAILABLE = ["57P03", "53100", "53300", "08006", "25006", "28P01", "3D000"]


@pytest.mark.parametrize(("state", "mapped"), [*((state, True) for state in UNAVAILABLE), ("42P01", False), ("55000", False)])
async def test_states_of_the_server(postgres_database: Database, state: str, mapped: bool) -> None:
    """A server that starts, stops, is full, read-only or rejects logins is unavailable; an unknown table is a mistake in the code."""
    block = text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")
    error = as_kit_error(await failure_of(run(postgres_database.engine, [block])))

    assert isinstance(error, UnavailableError) is mapped
    assert mapped or error is None


async def test_a_full_disk_takes_longer(postgres_database: Database) -> None:
    """A full disk has a longer retry_after than a lost connection."""
    full = await error_of(postgres_database, text("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END $$"))

    assert isinstance(full, UnavailableError)
    assert full.retry_after == 30


async def test_deadlock(postgres_database: Database) -> None:
    """A deadlock is unavailable and retryable."""
    await postgres_database.create_tables(Model.metadata)
    await run(postgres_database.engine, [insert(AUTHORS).values([{**ANNE, "id": 1}, {**FINE, "id": 2}])])
    both = asyncio.Barrier(2)

    async def write(first: int, second: int) -> None:
        async with postgres_database.engine.begin() as connection:
            await connection.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
            await connection.execute(update(AUTHORS).where(AUTHORS.c.id == first).values(age=1))
            await both.wait()
            await connection.execute(update(AUTHORS).where(AUTHORS.c.id == second).values(age=2))

    outcomes = await asyncio.gather(write(1, 2), write(2, 1), return_exceptions=True)
    failures = [outcome for outcome in outcomes if outcome is not None]

    assert len(failures) == 1
    assert isinstance(as_kit_error(failures[0]), UnavailableError)
    assert is_retryable(failures[0])


async def test_serialization_failure(postgres_database: Database, other_engine: AsyncEngine) -> None:
    """A serialization failure is unavailable and retryable, also as the library's error."""
    await postgres_database.create_tables(Model.metadata)
    await run(postgres_database.engine, [insert(AUTHORS).values(ANNE)])
    async with other_engine.execution_options(isolation_level="SERIALIZABLE").connect() as connection:
        await connection.execute(select(AUTHORS))
        await run(postgres_database.engine, [update(AUTHORS).values(age=1)])
        failure = await unavailable(connection.execute(update(AUTHORS).values(age=2)))

    mapped = as_kit_error(failure)
    assert mapped is not None
    mapped.__cause__ = failure
    assert is_retryable(mapped)


async def test_only_lost_races_are_retryable(library: Database) -> None:
    """A conflict, a timeout or a mistake is not retryable."""
    conflict = await failure_of(run(library.engine, [insert(AUTHORS).values(**ANNE)]))

    assert not any(is_retryable(error) for error in (conflict, TimeoutError(), ValueError()))


async def test_sqlite_locked(sqlite_database: Database) -> None:
    """An SQLite database that another writer has locked is unavailable."""
    await sqlite_database.create_tables(Model.metadata)
    impatient = create_async_engine(sqlite_database.engine.url, connect_args={"timeout": 0})
    async with sqlite_database.engine.begin() as connection:
        await connection.execute(insert(AUTHORS).values(ANNE))
        await unavailable(run(impatient, [insert(AUTHORS).values(FINE)]))
    await impatient.dispose()


async def test_sqlite_full(sqlite_database: Database) -> None:
    """An SQLite database that cannot grow is unavailable."""
    await sqlite_database.create_tables(Model.metadata)

    async def fill() -> None:
        async with sqlite_database.engine.begin() as connection:
            pages = await connection.scalar(text("PRAGMA page_count"))
            await connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            await connection.execute(insert(BOOKS).values(live=1, slug="x" * 1_000_000))

    error = as_kit_error(await unavailable(fill()))
    assert isinstance(error, UnavailableError)
    assert error.retry_after == 30


async def test_sqlite_cannot_be_opened(tmp_path: Path) -> None:
    """An SQLite file that cannot be opened is unavailable."""
    await unavailable(run(create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/none/x.db"), [text("SELECT 1")]))


# --- Errors that are not the database's ---


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_accidental_lazy_load(library: Database) -> None:
    """An accidental lazy load is a programming error, though aiosqlite's comes wrapped."""
    async with library.sessions() as session:
        author = (await session.scalars(select(Author))).one()

        async def read() -> object:
            return author.books

        assert as_kit_error(await failure_of(read())) is None
    gc.collect()  # The coroutine that SQLAlchemy could not await complains where it is collected.


@pytest.mark.parametrize("statement", [text("SELECT * FROM nowhere"), text("SELEC 1"), text("SELECT :missing")])
async def test_mistakes_in_code(database: Database, statement: Executable) -> None:
    """An unknown table, a syntax error or a missing parameter is a mistake in the code."""
    assert as_kit_error(await failure_of(run(database.engine, [statement]))) is None


async def test_errors_of_the_application() -> None:
    """Errors of the application's own code are raised unchanged, also timeouts and a full disk."""

    async def wait() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)

    async def open_file() -> None:
        raise FileNotFoundError

    async def encode() -> None:
        "\ud800".encode()

    for work in (wait(), open_file(), encode()):
        assert as_kit_error(await failure_of(work)) is None
    for error in (ValueError(), OverflowError("math range error"), KeyboardInterrupt(), asyncio.CancelledError()):
        assert as_kit_error(error) is None


def test_library_errors_pass() -> None:
    """An error of the library comes back as it is."""
    error = ConflictError(["a"])

    assert as_kit_error(error) is error


async def test_vanished_rows(library: Database) -> None:
    """A row that another session has deleted is a conflict, in a flush and in a refresh."""
    async with library.sessions() as session, library.sessions() as other:
        author, same = await session.get_one(Author, 10), await other.get_one(Author, 10)
        await run(library.engine, [delete(BOOKS), delete(AUTHORS)])
        author.age = 5
        stale = await failure_of(session.flush())
        gone = await failure_of(other.refresh(same))

    assert isinstance(stale, StaleDataError)
    assert said(as_kit_error(stale)) == said(as_kit_error(gone)) == (ConflictError, (), None, None)


async def test_integrity_error_of_unknown_code(sqlite_database: Database) -> None:
    """An integrity error of another kind, such as a trigger's, is a conflict without fields."""
    await sqlite_database.create_tables(Model.metadata)
    trigger = text("CREATE TRIGGER no BEFORE INSERT ON authors BEGIN SELECT RAISE(ABORT, 'no'); END")

    error = await error_of(sqlite_database, trigger, insert(AUTHORS).values(ANNE))

    assert said(error) == (ConflictError, (), "authors", None)
    assert said(as_kit_error(IntegrityError("x", {}, Exception()))) == (ConflictError, (), None, None)


# --- Other drivers. ---


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (insert(AUTHORS).values(ANNE), (ConflictError, ("email",), "authors", "uq_authors_e_mail")),
        (insert(BOOKS).values(author_id=99, live=1), (UnknownReferenceError, ("author_id",), "books", "unknown_reference")),
        (delete(AUTHORS), (StillReferencedError, ("author_id",), "books", "fk_books_author_id_authors")),
        (insert(AUTHORS).values({**FINE, "full_name": None}), (InvalidDataError, ("name",), "authors", "null")),
        (insert(AUTHORS).values(age=-1, **FINE), (InvalidDataError, ("age",), "authors", "check")),
        (insert(AUTHORS).values([FINE, TOO_LONG]), (InvalidDataError, ("name",), "authors", "too_long")),
        (update(AUTHORS).values(age=40_000), (InvalidDataError, ("age",), "authors", "out_of_range")),
        (update(AUTHORS).values(full_name="a\0b"), (InvalidDataError, ("name",), "authors", "invalid_text")),
        (update(AUTHORS).values(full_name="\ud800"), (InvalidDataError, ("name",), "authors", "invalid_text")),
        (update(AUTHORS).values(full_name=object()), (InvalidDataError, (), "authors", "wrong_type")),
    ],
)
async def test_psycopg(postgres_database: Database, postgres_url: URL, statement: Executable, expected: tuple[Any, ...]) -> None:
    """psycopg's errors are translated as asyncpg's are."""
    await postgres_database.create_tables(Model.metadata)
    await run(postgres_database.engine, [insert(AUTHORS).values(id=10, **ANNE), insert(BOOKS).values(author_id=10, live=1)])
    engine = create_async_engine(postgres_url.set(drivername="postgresql+psycopg"))
    watch(engine)

    failure = await failure_of(run(engine, [statement]))
    await engine.dispose()

    assert said(as_kit_error(failure, mapper=Author.__mapper__)) == expected
