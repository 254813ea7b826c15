"""Updating one row: what is written, what never is, and who wins a race."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy import Select, delete, event, func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    joinedload,
    selectinload,
    undefer,
)
from sqlalchemy.util import await_only
from tests.crud.kinds import HeroService, KindsBase, PointService, SignService, opened
from tests.missing import MISSING
from tests.tables.library import (
    Author,
    AuthorService,
    AuthorUpdate,
    Book,
    BookService,
    BookUpdate,
    Leaflet,
    LeafletService,
    LibraryBase,
    Tag,
    TagService,
    TagUpdate,
)
from tests.tables.store import Label, Step, StoreBase, Task

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database, unit_of_work
from fastapi_kit.errors import (
    ConfigurationError,
    ConflictError,
    InvalidDataError,
    NotFoundError,
    StaleVersionError,
    UnknownReferenceError,
)
from fastapi_kit.testing.queries import assert_max_queries


class TaskUpdate(BaseModel):
    title: str | None = None
    points: int | None = None
    owner: str | None = None
    details: dict[str, Any] | None = None


class Open(BaseModel):
    """A schema that accepts extra fields."""

    model_config = ConfigDict(extra="allow")


class TaskService(CRUDService[Task, TaskUpdate, TaskUpdate]): ...


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[AsyncSession]:
    """A session with one task of a team and two steps."""
    await database.create_tables(StoreBase.metadata)
    await database.create_tables(KindsBase.metadata)
    async with database.begin() as session:
        session.add_all([Label(id=1, name="red"), Label(id=2, name="blue")])
        await session.flush()
        await TaskService(session).create({"title": "a", "points": 3, "owner": "ada", "body": "text", "team_id": 1, "details": {"a": 1}})
        session.add_all([Step(task_id=1), Step(task_id=1)])
    async with opened(database) as session:
        yield session


@pytest.fixture
async def tag(library: Database) -> Tag:
    """A tag in the database."""
    async with library.begin() as session:
        return await TagService(session).create({"name": "a", "weight": 1})


async def stored(database: Database, column: Any, ident: int = 1) -> Any:
    """Return what another session reads: what is committed."""
    async with opened(database) as session:
        key = inspect(column.class_).primary_key[0]
        return await session.scalar(select(column).where(key == ident))


# What is written


async def test_only_fields_that_the_caller_set_are_written(session: AsyncSession, library: Database, tag: Tag) -> None:
    """Fields that were not set keep their values, whatever the defaults of the schema are."""
    changed = await TagService(session).update(tag.id, TagUpdate(name="b"))

    assert (changed.name, changed.weight) == ("b", 1)
    assert (await stored(library, Tag.name), await stored(library, Tag.weight)) == ("b", 1)


async def test_an_update_is_one_statement(session: AsyncSession, library: Database, tag: Tag) -> None:
    """A change takes one UPDATE."""
    with assert_max_queries(library, 1) as log:
        await TagService(session).update(tag.id, TagUpdate(name="a", weight=2))

    assert log.statements[0].startswith("UPDATE")


async def test_an_explicit_null_is_stored(session: AsyncSession, library: Database, tag: Tag) -> None:
    """A field that was set to None stores NULL."""
    assert (await TagService(session).update(tag.id, TagUpdate(weight=None))).weight is None
    assert await stored(library, Tag.weight) is None


@pytest.mark.parametrize("data", [TaskUpdate(title=None), TaskUpdate(points=None), {"title": None}, {"points": None}], ids=repr)
async def test_null_in_a_required_column_is_rejected(desk: AsyncSession, database: Database, data: Any) -> None:
    """None for a NOT NULL column raises InvalidDataError with its name before any SQL, even if the column has a default."""
    with assert_max_queries(database, 0), pytest.raises(InvalidDataError) as caught:
        await TaskService(desk).update(1, data)

    assert caught.value.reason == "null"
    assert caught.value.fields in {("title",), ("points",)}


@pytest.mark.parametrize("data", [TaskUpdate(), {}], ids=repr)
async def test_an_empty_change_changes_nothing(desk: AsyncSession, database: Database, data: Any) -> None:
    """Without a changed field no UPDATE is sent; updated_at and version stay."""
    before = await TaskService(desk).get_one(1)
    known = (before.updated_at, before.revision, before.touched)

    with assert_max_queries(database, 1) as log:
        after = await TaskService(desk).update(1, data)

    assert log.statements[0].startswith("SELECT")
    assert (after.updated_at, after.revision, after.touched) == known == (await stored(database, Task.updated_at), 1, None)


EQUAL: list[Any] = [
    TaskUpdate(title="a", points=3, owner="ada", details={"a": 1}),
    {"title": "a", "team_id": 1},
    {"owner": "ADA"},
    {"hours": 24},
    {"label": "a"},
]


@pytest.mark.parametrize("data", EQUAL, ids=repr)
async def test_equal_values_change_nothing(desk: AsyncSession, database: Database, data: Any) -> None:
    """Values that are stored already change neither the row nor updated_at nor version."""
    updated_at = await stored(database, Task.updated_at)

    with assert_max_queries(database, 2):
        after = await TaskService(desk).update(1, data)

    assert (after.updated_at, after.revision) == (updated_at, 1)


async def test_a_change_is_what_differs_from_the_database(session: AsyncSession, library: Database, tag: Tag) -> None:
    """A value counts as changed if it differs from the database, not from what this session has loaded."""
    loaded = await TagService(session).get_one(tag.id)
    async with library.begin() as other:
        await other.execute(update(Tag).values(weight=2, name="b"))

    changed = await TagService(session).update(tag.id, TagUpdate(weight=1))

    assert changed is loaded
    assert (changed.weight, changed.name) == (1, "b")
    assert (await stored(library, Tag.weight), await stored(library, Tag.name)) == (1, "b")


async def test_what_the_application_changed_on_the_row_is_kept(session: AsyncSession, library: Database, tag: Tag) -> None:
    """Changes of the application on the object are written with the update."""
    loaded = await TagService(session).get_one(tag.id)
    loaded.name = "host"

    changed = await TagService(session).update(tag.id, {"weight": 5})

    assert (changed.name, changed.weight) == ("host", 5)
    assert (await stored(library, Tag.name), await stored(library, Tag.weight)) == ("host", 5)


async def test_updated_at_and_version_advance(desk: AsyncSession, database: Database) -> None:
    """Every change advances updated_at and version, and both are on the row without a second statement."""
    before = await TaskService(desk).get_one(1)
    created_at, updated_at = before.created_at, before.updated_at

    after = await TaskService(desk).update(1, TaskUpdate(points=4))

    assert after.updated_at > updated_at
    assert (after.created_at, after.revision) == (created_at, 2)
    assert (await stored(database, Task.updated_at), await stored(database, Task.revision)) == (after.updated_at, 2)


async def test_an_ordinary_update_is_two_statements(session: AsyncSession, library: Database) -> None:
    """A flushed update takes two statements; timestamps need no third."""
    await AuthorService(session).create({"email": "a@example.org"})

    with assert_max_queries(library, 2):
        author = await AuthorService(session).update(1, AuthorUpdate(name="Ada"))
        assert author.updated_at > author.created_at


async def test_fields_that_are_missing_are_not_written(desk: AsyncSession) -> None:
    """A field with pydantic's MISSING is not written; None is."""

    class Patch(BaseModel):
        title: str | MISSING = MISSING
        owner: str | MISSING | None = MISSING

    task = await TaskService(desk).update(1, Patch(title="b"))
    assert (task.title, task.owner) == ("b", "ada")
    task = await TaskService(desk).update(1, Patch(owner=None))
    assert (task.title, task.owner) == ("b", None)
    task = await TaskService(desk).update(1, Patch(title=MISSING))
    assert task.title == "b"


async def test_aliases_are_of_the_wire(desk: AsyncSession) -> None:
    """A schema with serialization aliases is written by the names of its fields."""

    class Camel(BaseModel):
        model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)
        team_id: int | None = None

    assert (await TaskService(desk).update(1, Camel(team_id=2))).team_id == 2


async def test_update_values_can_rename_and_derive(session: AsyncSession, tag: Tag) -> None:
    """update_values() gets schemas; a mapping is written without it."""

    class Shouting(TagService):
        async def update_values(self, data: TagUpdate) -> dict[str, Any]:
            return {name: value.upper() if name == "name" else value for name, value in (await super().update_values(data)).items()}

    assert (await Shouting(session).update(tag.id, TagUpdate(name="b"))).name == "B"
    assert (await Shouting(session).update(tag.id, {"name": "c"})).name == "c"


async def test_a_change_in_an_opened_transaction_is_the_openers(session: AsyncSession, library: Database, tag: Tag) -> None:
    """An update in an open transaction is flushed, and undone with it."""
    async with unit_of_work(session) as uow:
        await TagService(session).update(tag.id, {"weight": 2})
        await uow.rollback()

    assert await stored(library, Tag.weight) == 1


# Attributes of every kind


async def test_expressions_come_back_as_what_they_made(session: AsyncSession, library: Database, tag: Tag) -> None:
    """The result of a SQL expression is on the returned row."""
    changed = await TagService(session).update(tag.id, {"weight": Tag.weight + 1, "name": func.upper(Tag.name)})

    assert inspect(changed).expired_attributes == set()
    assert (changed.weight, changed.name) == (2, "A")
    assert await stored(library, Tag.weight) == 2


async def test_an_expression_is_atomic(session: AsyncSession, library: Database, tag: Tag) -> None:
    """A SQL expression uses the value that is stored when the UPDATE runs."""
    await TagService(session).get_one(tag.id)
    before_statement(library, lambda: by_another(library, update(Tag).values(weight=10)))

    assert (await TagService(session).update(tag.id, {"weight": Tag.weight + 1})).weight == 11


OTHER_ATTRIBUTES: list[tuple[dict[str, Any], str, object]] = [
    ({"hours": 80}, "points", 10),
    ({"label": "b"}, "title", "b"),
    ({"owner": "BOB"}, "owner", "bob"),
    ({"points": 7}, "doubled", 14),
    ({"details": {"b": 2}}, "details", {"b": 2}),
]


@pytest.mark.parametrize(("values", "attribute", "expected"), OTHER_ATTRIBUTES, ids=str)
async def test_attributes_of_every_kind(desk: AsyncSession, values: dict[str, Any], attribute: str, expected: object) -> None:
    """Hybrids, synonyms and validators run, and computed columns are loaded again."""
    task = await TaskService(desk).update(1, values)

    assert attribute not in inspect(task).unloaded
    assert getattr(task, attribute) == expected


@pytest.mark.parametrize("values", [{"name": "b"}, {"size": 2}, {"name": "a"}, {}], ids=str)
async def test_mapped_expressions_can_be_read_after_a_change(desk: AsyncSession, values: dict[str, Any]) -> None:
    """A column_property can be read after a change."""
    sign = await SignService(desk).create({"name": "a"})

    await SignService(desk).update(sign.id, values)

    assert "shout" not in inspect(sign).unloaded
    assert sign.shout == values.get("name", "a").upper()


async def test_a_stamp_of_the_server_comes_back(desk: AsyncSession) -> None:
    """A column with onupdate=func.now() is loaded after a change."""
    task = await TaskService(desk).update(1, {"points": 9})

    assert "touched" not in inspect(task).unloaded
    assert task.touched is not None


async def test_a_changed_row_is_readable_on_a_default_session(database: Database, desk: AsyncSession) -> None:
    """The row is readable after a change on a session with expire_on_commit=True."""
    async with async_sessionmaker(database.engine)() as session:
        task = await TaskService(session).update(1, {"points": 9})

        assert not {"title", "points", "doubled", "revision", "touched", "updated_at"} & inspect(task).unloaded
        assert (task.title, task.points, task.doubled, task.revision) == ("a", 9, 18, 2)


@pytest.mark.parametrize("service", [PointService, HeroService])
async def test_other_kinds_of_models(desk: AsyncSession, service: type[CRUDService[Any, Any, Any]]) -> None:
    """Dataclasses with init=False fields and SQLModels with columns of a mixin can be updated."""
    rows = service(desk)
    if service is PointService:
        row = await rows.create({"x": 1})
        changed = await rows.update(row.id, {"x": 2, "y": 3})
        assert (changed.x, changed.y) == (2, 3)
    else:
        row = await rows.create({"name": "a"})
        changed = await rows.update(row.id, {"name": "b", "age": 3})
        assert (changed.name, changed.age) == ("b", 3)
        assert changed.updated_at > changed.created_at


# Relationships


async def test_relationships_that_are_not_loaded_stay_so(desk: AsyncSession, database: Database) -> None:
    """Relationships that are not loaded are neither loaded nor written."""
    with assert_max_queries(database, 3) as log:
        task = await TaskService(desk).update(1, {"points": 9})

    assert {"team", "steps"} <= inspect(task).unloaded
    assert not any("steps" in statement or "labels" in statement for statement in log.statements)
    assert await desk.scalar(select(func.count()).select_from(Step).where(Step.task_id == 1)) == 2


async def test_relationships_that_are_loaded_stay_loaded(desk: AsyncSession) -> None:
    """Collections that were loaded before are still loaded."""
    task = await TaskService(desk).get_one(1, options=[selectinload(Task.steps), joinedload(Task.team)])

    changed = await TaskService(desk).update(1, {"points": 9})

    assert changed is task
    assert not {"team", "steps"} & inspect(task).unloaded
    assert ([step.id for step in task.steps], task.team and task.team.name) == ([1, 2], "red")


async def test_deferred_columns_that_are_loaded_stay_loaded(desk: AsyncSession) -> None:
    """Deferred columns that were loaded before can still be read."""
    task = await TaskService(desk).get_one(1, options=[undefer(Task.body)])

    await TaskService(desk).update(1, {"points": 9})

    assert "body" not in inspect(task).unloaded
    assert task.body == "text"


class WithTeam(TaskService):
    def base_query(self) -> Select[Task]:
        return super().base_query().options(joinedload(Task.team))


@pytest.mark.parametrize("service", [TaskService, WithTeam])
async def test_a_changed_reference_does_not_show_the_old_object(desk: AsyncSession, service: type[TaskService]) -> None:
    """The relationship of a changed foreign key is the new object, or is not loaded."""
    await service(desk).get_one(1, options=[joinedload(Task.team)])

    task = await service(desk).update(1, {"team_id": 2})

    assert "team" in inspect(task).unloaded or (task.team is not None and task.team.id == 2)


async def test_relationships_are_values_too(desk: AsyncSession, database: Database) -> None:
    """A relationship can be set to an object or None instead of its foreign key."""
    blue = await desk.get_one(Label, 2)

    assert (await TaskService(desk).update(1, {"team": blue})).team_id == 2
    assert (await TaskService(desk).update(1, {"team": None})).team_id is None
    assert await stored(database, Task.team_id) is None


async def test_collections_are_values_too(desk: AsyncSession) -> None:
    """A collection can be replaced, loaded or not."""
    before = list(await desk.scalars(select(Step).order_by(Step.id)))
    await desk.commit()

    task = await TaskService(desk).update(1, {"details": None, "steps": [*before, Step()]})

    assert [step.task_id for step in task.steps] == [1, 1, 1]
    assert await desk.scalar(select(func.count()).select_from(Step).where(Step.task_id == 1)) == 3


async def test_a_required_relationship_is_not_unset(session: AsyncSession) -> None:
    """None for a required relationship raises an error that names the column, and the row stays as it was."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    book = await BookService(session).create({"title": "a", "author_id": author.id})

    with pytest.raises(InvalidDataError) as caught:
        await BookService(session).update(book.id, {"author": None})

    assert (caught.value.fields, caught.value.reason) == (("author_id",), "null")
    assert book.author_id == author.id


# What cannot be changed


FIXED: list[tuple[str, object]] = [
    ("ident", 2),
    ("ident", 1),
    ("revision", 5),
    ("created_at", datetime(2020, 1, 1, tzinfo=UTC)),
    ("updated_at", datetime(2020, 1, 1, tzinfo=UTC)),
    ("touched", None),
    ("owner", "eve"),
]


class Owned(TaskService):
    read_only = ("owner",)


@pytest.mark.parametrize(("name", "value"), FIXED, ids=str)
async def test_a_schema_cannot_change_what_stays(desk: AsyncSession, database: Database, name: str, value: object) -> None:
    """A schema that changes key, version, timestamps or read_only columns raises InvalidDataError."""
    schema = type("Change", (BaseModel,), {"__annotations__": {"points": int, name: Any}})

    with pytest.raises(InvalidDataError) as caught:
        await Owned(desk).update(1, schema(points=9, **{name: value}))

    assert (caught.value.fields, caught.value.reason) == ((name,), "read_only")
    assert await stored(database, Task.points) == 3


@pytest.mark.parametrize(("name", "value"), [("doubled", 8), ("large", True), ("number", 2), ("shout", "A")], ids=str)
async def test_a_schema_cannot_change_what_cannot_be_set(desk: AsyncSession, database: Database, name: str, value: object) -> None:
    """Computed columns, expressions and synonyms of the key in a schema raise InvalidDataError."""
    schema = type("Change", (BaseModel,), {"__annotations__": {"points": int, name: Any}})

    with pytest.raises((InvalidDataError, ConfigurationError), match=name):
        await TaskService(desk).update(1, schema(points=9, **{name: value}))

    assert (await stored(database, Task.ident), await stored(database, Task.points)) == (1, 3)


async def test_all_that_cannot_be_changed_is_named(desk: AsyncSession, database: Database) -> None:
    """One error names all columns that cannot be changed, before any SQL."""

    class Change(BaseModel):
        ident: int
        revision: int
        points: int

    with assert_max_queries(database, 0), pytest.raises(InvalidDataError) as caught:
        await TaskService(desk).update(1, Change(ident=2, revision=3, points=4))

    assert caught.value.fields == ("ident", "revision")


@pytest.mark.parametrize("name", ["ident", "revision", "number"])
async def test_code_cannot_change_key_and_version(desk: AsyncSession, name: str) -> None:
    """A mapping that changes key or version raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match=name):
        await TaskService(desk).update(1, {name: 2})


async def test_trusted_code_can_change_timestamps_and_read_only_columns(desk: AsyncSession) -> None:
    """A mapping can change timestamps and read_only columns only if it is trusted, because model_dump() makes one of client data."""
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    values = {"created_at": moment, "updated_at": moment, "owner": "eve"}

    with pytest.raises(InvalidDataError) as caught:
        await Owned(desk).update(1, values)
    task = await Owned(desk).update(1, values, trusted=True)

    assert (caught.value.reason, caught.value.fields) == ("read_only", ("created_at", "owner", "updated_at"))

    assert (task.created_at, task.updated_at, task.owner) == (moment, moment, "eve")


@pytest.mark.parametrize("data", [{"nr": 1}, {"points": 1, "metadata": 1}], ids=str)
async def test_unknown_names_are_mistakes_in_the_code(desk: AsyncSession, database: Database, data: dict[str, Any]) -> None:
    """An unknown name raises ConfigurationError before any SQL."""
    with assert_max_queries(database, 0), pytest.raises(ConfigurationError, match="Task has no attribute"):
        await TaskService(desk).update(1, data)


EXTRAS: list[dict[str, Any]] = [{"nr": 1}, {"metadata": 1}, {"registry": 1}, {"steps": [1]}, {"steps": "x"}, {"team": 1}, {"__class__": 1}]


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
async def test_what_a_client_adds_is_rejected_as_its_mistake(desk: AsyncSession, extra: dict[str, Any]) -> None:
    """Extra fields of a client that are not columns raise InvalidDataError, and nothing changes."""
    with pytest.raises(InvalidDataError) as caught:
        await TaskService(desk).update(1, Open(**extra))

    assert caught.value.fields == tuple(extra)


@pytest.mark.parametrize("extra", [{"ident": 2}, {"revision": 7}, {"created_at": None}, {"number": 2}], ids=str)
async def test_a_client_cannot_add_what_stays(desk: AsyncSession, database: Database, extra: dict[str, Any]) -> None:
    """Extra fields of a client cannot change key, version or timestamps."""
    with pytest.raises(InvalidDataError):
        await TaskService(desk).update(1, Open(**extra))

    assert await stored(database, Task.ident) == 1


async def test_columns_that_a_client_adds_are_written(desk: AsyncSession) -> None:
    """Extra fields of a client that are columns are written."""
    assert (await TaskService(desk).update(1, Open(points=9))).points == 9


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"title": "a" * 21}, "title", "too_long"),
    ({"title": "a\0"}, "title", "invalid_text"),
    ({"title": "\ud800"}, "title", "invalid_text"),
    ({"points": 2**31}, "points", "out_of_range"),
    ({"points": -(10**30)}, "points", "out_of_range"),
    ({"team_id": 10**10}, "team_id", "out_of_range"),
    ({"details": {"a": ["\0"]}}, "details", "invalid_text"),
    ({"body": "\0"}, "body", "invalid_text"),
]


@pytest.mark.parametrize(("values", "field", "reason"), REFUSED, ids=ascii)
async def test_values_that_no_database_takes(
    desk: AsyncSession, database: Database, values: dict[str, Any], field: str, reason: str
) -> None:
    """Values that a column cannot hold raise the same InvalidDataError on both databases, before any SQL."""
    for data in (values, Open(**values)):
        with assert_max_queries(database, 0), pytest.raises(InvalidDataError) as caught:
            await TaskService(desk).update(1, data)
        assert (caught.value.fields, caught.value.reason) == ((field,), reason)


async def test_a_duplicate_is_a_conflict(session: AsyncSession, library: Database, tag: Tag) -> None:
    """A duplicate raises ConflictError that names the field, and nothing changes."""
    other = await TagService(session).create({"name": "b", "weight": 2})

    with pytest.raises(ConflictError) as caught:
        await TagService(session).update(other.id, TagUpdate(name="a", weight=9))

    assert caught.value.fields == ("name",)
    assert (other.name, other.weight) == ("b", 2)
    assert await stored(library, Tag.weight, other.id) == 2


async def test_what_only_the_database_can_judge(session: AsyncSession) -> None:
    """Checks and foreign keys that reject a change raise the library's errors, and the row reads as before."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    book = await BookService(session).create({"title": "a", "author_id": author.id, "pages": 3})

    with pytest.raises(InvalidDataError) as caught:
        await BookService(session).update(book.id, {"pages": Book.pages - 3})
    assert (caught.value.fields, caught.value.reason) == (("pages",), "check")
    with pytest.raises(UnknownReferenceError) as unknown:
        await BookService(session).update(book.id, {"author_id": 99})
    assert unknown.value.fields == ("author_id",)
    with pytest.raises(InvalidDataError) as null:
        await BookService(session).update(book.id, {"title": func.nullif("a", "a")})
    assert (null.value.fields, null.value.reason) == (("title",), "null")
    assert (book.pages, book.author_id, book.title) == (3, author.id, "a")


async def test_no_row_no_change(session: AsyncSession, tag: Tag) -> None:
    """A missing row raises NotFoundError, whatever the change is."""
    for data in (TagUpdate(weight=1), TagUpdate(), {"weight": Tag.weight + 1}):
        with pytest.raises(NotFoundError) as caught:
            await TagService(session).update(99, data)
        assert (caught.value.model, caught.value.ident) == (Tag, 99)


# Versions and races


Happening = Callable[[], Awaitable[None]]


def before_statement(database: Database, happen: Happening) -> None:
    """Run this once, after the next write has begun and before it sends anything."""
    event.listen(database.engine.sync_engine, "before_execute", lambda *_: await_only(happen()), once=True)


async def by_another(database: Database, statement: Any) -> None:
    """Return a function that commits the statement in another session."""
    async with database.engine.begin() as connection:
        await connection.execute(statement)


@pytest.fixture
async def leaflet(library: Database) -> Leaflet:
    """A leaflet with version 1."""
    async with library.begin() as session:
        return await LeafletService(session).create({"text": "a"})


async def test_the_expected_version_is_let_through(session: AsyncSession, leaflet: Leaflet) -> None:
    """A row with the expected version is changed, and the returned row has the next version."""
    assert (await LeafletService(session).update(leaflet.id, {"text": "b"}, expected_version=1)).version == 2
    assert (await LeafletService(session).update(leaflet.id, {"text": "c"}, expected_version=2)).version == 3


@pytest.mark.parametrize("data", [{"text": "b"}, {"text": "a"}, {}], ids=str)
async def test_another_version_than_expected_is_a_conflict(
    session: AsyncSession, library: Database, leaflet: Leaflet, data: dict[str, Any]
) -> None:
    """Another version raises StaleVersionError with both versions, even if the change would change nothing."""
    for expected in (0, 2, 10**30):
        with pytest.raises(StaleVersionError) as caught:
            await LeafletService(session).update(leaflet.id, data, expected_version=expected)
        assert (caught.value.expected, caught.value.found) == (expected, 1)

    assert await stored(library, Leaflet.text) == "a"


async def test_the_version_of_the_database_counts(session: AsyncSession, library: Database, leaflet: Leaflet) -> None:
    """The version in the database counts, not that of an object that was loaded before."""
    await LeafletService(session).get_one(leaflet.id)
    async with library.begin() as other:
        await LeafletService(other).update(leaflet.id, {"text": "b"})

    with pytest.raises(StaleVersionError) as caught:
        await LeafletService(session).update(leaflet.id, {"text": "c"}, expected_version=1)
    assert caught.value.found == 2
    assert (await LeafletService(session).update(leaflet.id, {"text": "c"}, expected_version=2)).version == 3


async def test_a_model_without_versions_has_none_to_expect(session: AsyncSession, library: Database, tag: Tag) -> None:
    """expected_version on a model without versions raises ConfigurationError before any SQL."""
    with assert_max_queries(library, 0), pytest.raises(ConfigurationError, match="version"):
        await TagService(session).update(tag.id, {"weight": 2}, expected_version=1)


async def test_a_version_that_advances_in_between_is_a_conflict(session: AsyncSession, library: Database, leaflet: Leaflet) -> None:
    """An update with a version never overwrites a concurrent change, and the session still works."""
    before_statement(library, lambda: by_another(library, update(Leaflet.__table__).values(text="theirs", version=2)))

    with pytest.raises(StaleVersionError):
        await LeafletService(session).update(leaflet.id, {"text": "mine"}, expected_version=1)

    assert await stored(library, Leaflet.text) == "theirs"
    assert (await LeafletService(session).update(leaflet.id, {"text": "mine"})).version == 3


@pytest.mark.parametrize("expected", [None, 1])
async def test_a_versioned_row_that_is_deleted_in_between(
    session: AsyncSession, library: Database, leaflet: Leaflet, expected: int | None
) -> None:
    """A row with a version that another session deletes meanwhile raises the library's error."""
    before_statement(library, lambda: by_another(library, delete(Leaflet)))

    with pytest.raises((NotFoundError, StaleVersionError)):
        await LeafletService(session).update(leaflet.id, {"text": "mine"}, expected_version=expected)

    assert await LeafletService(session).count() == 0


async def test_a_row_that_is_deleted_in_between_is_not_found(session: AsyncSession, library: Database, tag: Tag) -> None:
    """A row that another session deletes meanwhile raises NotFoundError, and the session still works."""
    before_statement(library, lambda: by_another(library, delete(Tag)))

    with pytest.raises(NotFoundError) as caught:
        await TagService(session).update(tag.id, {"weight": 2})

    assert (caught.value.model, caught.value.ident) == (Tag, tag.id)
    assert not session.in_transaction()
    assert await TagService(session).count() == 0


async def test_a_row_that_is_deleted_in_between_in_an_opened_transaction(postgres_database: Database) -> None:
    """A row that another session deletes meanwhile raises NotFoundError in an open transaction, and earlier writes stay."""
    await postgres_database.create_tables(LibraryBase.metadata)
    async with opened(postgres_database) as session:
        tag = await TagService(session).create({"name": "a"})
        async with unit_of_work(session):
            await AuthorService(session).create({"email": "a@example.org"})
            before_statement(postgres_database, lambda: by_another(postgres_database, delete(Tag)))
            with pytest.raises(NotFoundError):
                await TagService(session).update(tag.id, {"weight": 2})

        assert await AuthorService(session).count() == 1


async def test_a_concurrent_change_of_another_column_is_kept(session: AsyncSession, library: Database, tag: Tag) -> None:
    """A concurrent change of another column is not overwritten."""
    before_statement(library, lambda: by_another(library, update(Tag).values(name="theirs")))

    await TagService(session).update(tag.id, {"weight": 2})

    assert (await stored(library, Tag.name), await stored(library, Tag.weight)) == ("theirs", 2)


async def test_books_keep_their_author(session: AsyncSession) -> None:
    """Changing a row of a relationship does not change the other side."""
    author = await AuthorService(session).create({"email": "a@example.org"})
    await BookService(session).create_many([{"title": title, "author_id": author.id} for title in "ab"])
    loaded = await AuthorService(session).get_one(author.id, options=[selectinload(Author.books)])

    await BookService(session).update(loaded.books[0].id, BookUpdate(pages=7))

    assert "books" not in inspect(loaded).unloaded
    assert [book.pages for book in loaded.books] == [7, 1]
