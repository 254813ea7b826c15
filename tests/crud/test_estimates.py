"""Totals that PostgreSQL estimates, and what they are on SQLite."""

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import ColumnElement, String, case, cast, event, insert, literal, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from tests.tables.shop import Item, ItemRead, ItemService, Owner, ShopBase

from fastapi_kit.crud import QuerySpec
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.pagination import Page, PageParams
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
from fastapi_kit.testing import app_client
from fastapi_kit.testing.queries import assert_max_queries

MANY = 5000
COUNTED = 100


class Estimated(QuerySpec[Item]):
    max_total: ClassVar[int | None] = COUNTED
    estimate_total: ClassVar[bool] = True
    sort_fields: ClassVar[Any] = (Item.id,)
    stock: int | None = None
    name__startswith: str | None = None
    owner__email: str | None = None


def numbers(last: int) -> ColumnElement[int]:
    """Return a column with the numbers from 1 to *last*."""
    first = select(literal(1).label("at")).cte("numbers", recursive=True)
    return first.union_all(select(first.c.at + 1).where(first.c.at < last)).c.at


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[AsyncSession]:
    """5,000 items, a fifth of them in stock."""
    await database.create_tables(ShopBase.metadata)
    async with database.begin() as session:
        await session.execute(insert(Owner), [{"id": 1, "email": "ann@x.org"}])
        at = numbers(MANY)
        name, stock, owner = "item " + cast(at, String), case((at % 5 == 0, 1), else_=0), case((at % 2 == 1, 1), else_=None)
        await session.execute(insert(Item).from_select(["id", "name", "stock", "owner_id"], select(at, name, stock, owner)))
    async with database.begin() as session:
        await session.execute(text("ANALYZE"))
    async with database.sessions() as session:
        yield session


def is_estimating(database: Database) -> bool:
    return database.engine.dialect.name == "postgresql"


async def page_of(session: AsyncSession, **asked: Any) -> Page[ItemRead]:
    return await ItemService(session).page_as(ItemRead, Estimated(**asked))


async def test_a_large_total_is_estimated(shop: AsyncSession, database: Database) -> None:
    """PostgreSQL answers about how many there are, with filters too; SQLite stops counting. Both say so, and has_more is right."""
    for asked, wanted in ({}, MANY), ({"stock": 1}, MANY / 5), ({"stock": 0, "limit": 2}, MANY * 4 / 5), ({"skip": 4950}, MANY):
        page = await page_of(shop, **asked)
        if is_estimating(database):
            assert wanted * 0.8 < page.total < wanted * 1.25
        else:
            assert page.total == COUNTED
        assert (page.total_is_estimate, page.total_capped) == (is_estimating(database), not is_estimating(database))
        assert page.has_more == (page.skip + len(page.items) < wanted)
        assert 'rel="last"' not in page.link_header("/items")


async def test_a_small_total_is_exact(shop: AsyncSession) -> None:
    """Up to max_total rows are counted, on both databases, and no estimate is asked for."""
    page = await page_of(shop, name__startswith="item 499")
    assert (page.total, page.total_is_estimate, page.total_capped) == (11, False, False)
    page = await page_of(shop, name__startswith="none")
    assert (page.total, page.total_is_estimate, page.total_capped) == (0, False, False)


async def test_an_estimate_is_one_more_statement(shop: AsyncSession, database: Database) -> None:
    """The rows, the count and the plan; nothing more for a total that is counted."""
    with assert_max_queries(database, 3 if is_estimating(database) else 2) as log:
        await page_of(shop)
    assert sum("EXPLAIN (FORMAT JSON) SELECT" in statement for statement in log.statements) == is_estimating(database)
    with assert_max_queries(database, 2):
        await page_of(shop, name__startswith="item 499")


async def test_an_estimate_is_no_less_than_what_is_known(shop: AsyncSession) -> None:
    """A wrong estimate is corrected by the rows that were counted and shown."""
    page = await page_of(shop, owner__email="ann@x.org", stock=0)
    assert page.total >= (COUNTED + 1 if page.total_is_estimate else COUNTED)
    page = await page_of(shop, skip=4000, limit=500)
    assert page.total >= (4501 if page.total_is_estimate else COUNTED)


async def test_criteria_and_base_query_count(shop: AsyncSession, database: Database) -> None:
    """The estimate is of the rows that the service and the session allow."""

    class Some(ItemService):
        def base_query(self) -> Any:
            return select(Item).where(Item.stock == 1)

    page: Page[ItemRead] = await Some(shop).page_as(ItemRead, Estimated())
    assert page.total < 1500

    def hide(state: ORMExecuteState) -> None:
        if state.is_select:
            state.statement = state.statement.options(with_loader_criteria(Item, Item.id <= 400))

    event.listen(shop.sync_session, "do_orm_execute", hide)
    page = await page_of(shop)
    assert page.total <= 500
    assert page.total_is_estimate == is_estimating(database)


async def test_a_service_that_overrides_the_list_estimates_too(shop: AsyncSession, database: Database) -> None:
    """Where list() is the application's, the total is estimated all the same."""

    class Own(ItemService):
        async def list(self, *conditions: Any, **options: Any) -> Any:
            return await super().list(*conditions, **options)

    page = await Own(shop).page_as(ItemRead, Estimated(limit=3))
    assert (len(page.items), page.total_is_estimate) == (3, is_estimating(database))


async def test_lists_of_routers(shop: AsyncSession, database: Database) -> None:
    """A router shows estimates by its options and by its query, and OpenAPI has the field."""
    app = FastAPI()
    register_exception_handlers(app)
    made: dict[str, Any] = {"read": ItemRead, "session": database.session, "endpoints": Endpoint.READ}
    app.include_router(crud_router(ItemService, options=RouterOptions(max_total=10, estimate_total=True), **made), prefix="/options")
    app.include_router(crud_router(ItemService, query=Estimated, **made), prefix="/query")
    app.include_router(crud_router(ItemService, **made), prefix="/counted")
    async with app_client(app) as client:
        for url in ("/options", "/query?stock=0"):
            page = (await client.get(url)).json()
            assert page["total_is_estimate"] == is_estimating(database)
            assert (page["total"] > 2000) == is_estimating(database)
        page = (await client.get("/counted")).json()
        assert (page["total"], page["total_is_estimate"]) == (MANY, False)
        schema = (await client.get("/openapi.json")).json()["components"]["schemas"]["Page_ItemRead_"]
    assert schema["properties"]["total_is_estimate"]["type"] == "boolean"


def test_an_estimate_needs_a_number_to_count_to() -> None:
    """Without max_total the class and the router are errors."""
    with pytest.raises(ConfigurationError, match="estimate_total needs a max_total"):
        type("Endless", (PageParams,), {"estimate_total": True, "__module__": __name__})

    class Small(BaseModel):
        id: int

    database = Database("sqlite:///:memory:")
    with pytest.raises(ConfigurationError, match="estimate_total needs a max_total"):
        crud_router(ItemService, read=Small, session=database.session, endpoints=Endpoint.READ, options=RouterOptions(estimate_total=True))
    options = RouterOptions(estimate_total=True)
    with pytest.raises(ConfigurationError, match="has a max_total of its own"):
        crud_router(ItemService, read=Small, query=Estimated, session=database.session, endpoints=Endpoint.READ, options=options)
