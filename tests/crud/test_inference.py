"""The model of a service, the keys that it accepts, and one task for each session."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tests.tables.library import Shelf, ShelfService, Tag, TagCreate, TagService, TagUpdate

from fastapi_kit.crud import CRUDService, ReadService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.testing.queries import assert_max_queries

ModelT = TypeVar("ModelT")
CreateT = TypeVar("CreateT", bound=BaseModel)
UpdateT = TypeVar("UpdateT", bound=BaseModel)


class Direct(CRUDService[Tag, TagCreate, TagUpdate]): ...


class Tenants(CRUDService[ModelT, CreateT, UpdateT]): ...


class ThroughOneBase(Tenants[Tag, TagCreate, TagUpdate]): ...


class Audited(Tenants[ModelT, CreateT, UpdateT], Generic[ModelT, CreateT, UpdateT]): ...


class ThroughTwoBases(Audited[Tag, TagCreate, TagUpdate]): ...


class Reordered(CRUDService[ModelT, CreateT, UpdateT], Generic[UpdateT, ModelT, CreateT]): ...


class ThroughReordered(Reordered[TagUpdate, Tag, TagCreate]): ...


class PartlyBound(CRUDService[ModelT, TagCreate, TagUpdate]): ...


class ThroughPartlyBound(PartlyBound[Tag]): ...


class Logged:
    """A mixin that is not a service."""


class BesideMixin(Logged, Tenants[Tag, TagCreate, TagUpdate]): ...


class Explicit(CRUDService[Any, TagCreate, TagUpdate]):
    model = Tag


class ExplicitOnly(CRUDService):
    model = Tag
    create_schema = TagCreate
    update_schema = TagUpdate


class Concrete(Direct): ...


class ConcreteTwice(Concrete): ...


def by_type_parameters() -> type[CRUDService[Any, Any, Any]]:
    """Make a generic base class in the newest syntax of this Python."""
    if sys.version_info >= (3, 12):
        base = "class Base[M, C: BaseModel, U: BaseModel](CRUDService[M, C, U]): ..."
    else:
        base = "class Base(CRUDService[ModelT, CreateT, UpdateT], Generic[ModelT, CreateT, UpdateT]): ..."
    names: dict[str, Any] = dict(globals())
    exec(f"{base}\nclass Service(Base[Tag, TagCreate, TagUpdate]): ...", names)
    service: type[CRUDService[Any, Any, Any]] = names["Service"]
    return service


SERVICES = [
    Direct,
    ThroughOneBase,
    ThroughTwoBases,
    ThroughReordered,
    ThroughPartlyBound,
    BesideMixin,
    Explicit,
    ExplicitOnly,
    Concrete,
    ConcreteTwice,
    by_type_parameters(),
]


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.__name__)
def test_the_model_and_schemas_come_from_the_class(service: type[CRUDService[Any, Any, Any]]) -> None:
    """Model and schemas come from the type arguments, through any classes between, or from the class body."""
    found = service(AsyncSession())

    assert (found.model, found.create_schema, found.update_schema) == (Tag, TagCreate, TagUpdate)


def test_a_read_service_needs_the_model_alone() -> None:
    """A ReadService has one type argument."""

    class Reports(ReadService[Tag]): ...

    assert Reports(AsyncSession()).model is Tag


def test_a_subclass_can_narrow_the_model() -> None:
    """A model in a subclass takes precedence over the type arguments of its parent."""

    class Narrow(Direct):
        model = Shelf

    assert Narrow(AsyncSession()).model is Shelf
    assert Direct(AsyncSession()).model is Tag


class NoArguments(CRUDService): ...


class OpenArguments(CRUDService[ModelT, CreateT, UpdateT]): ...


@pytest.mark.parametrize(
    "service", [CRUDService, ReadService, NoArguments, OpenArguments, OpenArguments[Tag, TagCreate, TagUpdate]], ids=str
)
def test_a_service_without_a_model_is_rejected(service: Callable[[AsyncSession], object]) -> None:
    """A service without a model raises ConfigurationError at construction, with the remedy."""
    with pytest.raises(ConfigurationError, match=r"names no model.*\[Model"):
        service(AsyncSession())


async def test_a_model_that_is_not_mapped_is_rejected(session: AsyncSession) -> None:
    """A model that is not mapped raises ConfigurationError before any SQL."""

    class Wrong(CRUDService[TagCreate, TagCreate, TagUpdate]): ...

    with pytest.raises(ConfigurationError, match="not a mapped class"):
        await Wrong(session).get(1)


# Keys


@pytest.mark.parametrize("ident", [(1, 2), {"room": 1, "number": 2}, {"number": 2, "room": 1}], ids=str)
async def test_a_composite_key_is_a_tuple_or_a_mapping(session: AsyncSession, ident: object) -> None:
    """Every method accepts a composite key as a tuple or as a mapping by name."""
    service = ShelfService(session)
    await service.create_many([{"room": 1, "number": 2, "label": "old"}, {"room": 2, "number": 1, "label": "other"}])

    assert (await service.get_one(ident)).label == "old"
    assert [shelf.label for shelf in await service.get_many([ident])] == ["old"]
    assert (await service.update(ident, {"label": "new"})).label == "new"
    await service.delete(ident)
    assert await service.get(ident) is None
    assert await service.count() == 1


@pytest.mark.parametrize("ident", [1, (1,), {"id": 1}], ids=str)
async def test_a_single_key_is_a_scalar_a_tuple_or_a_mapping(session: AsyncSession, ident: object) -> None:
    """Every method accepts a single key as a scalar, a tuple or a mapping."""
    await TagService(session).create({"name": "a"})

    assert (await TagService(session).get_one(ident)).name == "a"


WRONG_KEYS: list[tuple[type[CRUDService[Any, Any, Any]], object]] = [
    (ShelfService, 1),
    (ShelfService, "12"),
    (ShelfService, None),
    (ShelfService, ()),
    (ShelfService, (1,)),
    (ShelfService, (1, 2, 3)),
    (ShelfService, [1, 2]),
    (ShelfService, {}),
    (ShelfService, {"room": 1}),
    (ShelfService, {"room": 1, "nr": 2}),
    (ShelfService, {"room": 1, "number": 2, "label": "a"}),
    (TagService, ()),
    (TagService, (1, 2)),
    (TagService, {}),
    (TagService, {"nr": 1}),
    (TagService, {"id": 1, "name": "a"}),
    (TagService, [1]),
    (TagService, {1}),
]


@pytest.mark.parametrize(("service", "ident"), WRONG_KEYS, ids=str)
async def test_a_wrong_key_is_rejected_before_sql(
    sqlite_database: Database, service: type[CRUDService[Any, Any, Any]], ident: object
) -> None:
    """A key with too few or too many parts, unknown names, or a list raises ConfigurationError before any SQL."""
    async with sqlite_database.sessions() as session:
        rows = service(session)
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: rows.get(ident),
            lambda: rows.get_one(ident),
            lambda: rows.get_as(TagCreate, ident),
            lambda: rows.get_many([ident]),
            lambda: rows.update(ident, {}),
            lambda: rows.delete(ident),
        ]
        with assert_max_queries(sqlite_database, 0):
            for use in uses:
                with pytest.raises(ConfigurationError):
                    await use()

        assert not session.in_transaction()


async def test_a_rejected_key_says_what_a_key_is(session: AsyncSession) -> None:
    """The error names the columns of the key."""
    with pytest.raises(ConfigurationError, match=r"Shelf is a tuple \(room, number\)"):
        await ShelfService(session).get(1)


# One session, one task


async def read_a_tag(session: AsyncSession) -> None:
    await TagService(session).get(1)


async def count_tags(session: AsyncSession) -> None:
    await TagService(session).count()


async def create_a_tag(session: AsyncSession) -> None:
    await TagService(session).create({"name": f"tag {id(asyncio.current_task())}"})


async def create_tags(session: AsyncSession) -> None:
    await TagService(session).create_many([{"name": f"tag {id(asyncio.current_task())} {number}"} for number in range(3)])


async def update_a_tag(session: AsyncSession) -> None:
    await TagService(session).update(1, {"weight": 1})


async def delete_a_tag(session: AsyncSession) -> None:
    await TagService(session).delete(2)


async def stream_tags(session: AsyncSession) -> None:
    async with aclosing(TagService(session).stream(batch_size=1)) as tags:
        async for _ in tags:
            pass


Work = Callable[[AsyncSession], Awaitable[None]]
AT_ONCE: list[tuple[Work, Work]] = [
    (read_a_tag, read_a_tag),
    (read_a_tag, create_a_tag),
    (read_a_tag, stream_tags),
    (create_a_tag, create_a_tag),
    (create_a_tag, count_tags),
    (update_a_tag, delete_a_tag),
    (create_tags, update_a_tag),
    (create_tags, stream_tags),
    (stream_tags, read_a_tag),
    (stream_tags, create_a_tag),
    (stream_tags, stream_tags),
]


@pytest.mark.parametrize(("first", "second"), AT_ONCE, ids=lambda work: work.__name__)
async def test_two_tasks_on_one_session_are_rejected(library: Database, session: AsyncSession, first: Work, second: Work) -> None:
    """A second task on a session raises ConfigurationError; the first task finishes and the session still works."""
    async with library.begin() as other:
        await TagService(other).create_many([{"name": name} for name in "abc"])

    results = await asyncio.gather(first(session), second(session), return_exceptions=True)

    assert results[0] is None
    assert isinstance(results[1], ConfigurationError)
    assert "two tasks" in str(results[1])
    assert not session.in_transaction()
    assert (await TagService(session).get_one(1)).name == "a"


async def test_one_task_after_the_other_may_use_a_session(session: AsyncSession) -> None:
    """Tasks can use a session one after the other."""
    await asyncio.create_task(create_a_tag(session))
    await asyncio.create_task(read_a_tag(session))

    assert await TagService(session).count() == 1


async def test_a_cancelled_task_leaves_the_session_to_others(session: AsyncSession) -> None:
    """After a task was cancelled in a statement another task can use the session."""
    task = asyncio.create_task(create_a_tag(session))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await create_a_tag(session)
