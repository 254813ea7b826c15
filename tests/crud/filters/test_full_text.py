"""The indexes on PostgreSQL that the guide to lists names are used, and a full-text search is a filter."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Index, event, func, insert, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit.crud import FilterSpec, KeysetSpec, QuerySpec, ReadService, Where
from fastapi_kit.crud.filters.cursors import CursorCodec, Position
from fastapi_kit.db import Database

ENGLISH = text("'english'")


class ArticleBase(DeclarativeBase): ...


class Article(ArticleBase):
    __tablename__ = "articles"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    rank: Mapped[int]


WORDS = func.to_tsvector(ENGLISH, Article.body)
Index("articles_words", WORDS, postgresql_using="gin").ddl_if(dialect="postgresql")
Index("articles_rank_id", Article.rank, Article.id)
Index("articles_body_trgm", Article.body, postgresql_using="gin", postgresql_ops={"body": "gin_trgm_ops"}).ddl_if(dialect="postgresql")


def has_words(words: str) -> ColumnElement[bool]:
    return WORDS.bool_op("@@")(func.websearch_to_tsquery(ENGLISH, words))


class ArticleFilters(FilterSpec[Article]):
    search_fields: ClassVar[Any] = (Article.body,)
    sort_fields: ClassVar[Any] = (Article.rank, Article.id)
    body__icontains: str | None = None
    words: Annotated[str | None, Where(has_words)] = None


class ArticleQuery(ArticleFilters, QuerySpec[Article]): ...


class ArticleFeed(ArticleFilters, KeysetSpec[Article]): ...


class ArticleRead(BaseModel):
    id: int


class Articles(ReadService[Article]): ...


@pytest.fixture
async def session(postgres_database: Database) -> AsyncIterator[AsyncSession]:
    """Five thousand articles, and what the planner has to know of them."""
    async with postgres_database.begin() as session:
        await session.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
    await postgres_database.create_tables(ArticleBase.metadata)
    rows = [{"id": n, "body": f"The runner number {n} was running slowly", "rank": n % 10} for n in range(1, 5001)]
    async with postgres_database.begin() as session:
        await session.execute(insert(Article), rows)
    async with postgres_database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("VACUUM ANALYZE articles"))
    async with postgres_database.sessions() as session:
        yield session


async def plan_of(session: AsyncSession, query: ArticleQuery | ArticleFeed) -> tuple[list[int], str]:
    """Return the ids of the page, and how PostgreSQL finds its rows."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        sent.append((statement, parameters))

    connection = await session.connection()
    event.listen(connection.sync_connection, "before_cursor_execute", note)
    try:
        if isinstance(query, KeysetSpec):
            found = [item.id for item in (await Articles(session).keyset_page_as(ArticleRead, query)).items]
        else:
            found = [item.id for item in (await Articles(session).slice_as(ArticleRead, query)).items]
    finally:
        event.remove(connection.sync_connection, "before_cursor_execute", note)
    ((statement, parameters),) = sent
    plan = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    return found, "\n".join(plan.scalars())


async def test_a_full_text_search_uses_its_index(session: AsyncSession) -> None:
    """The filter finds other forms of a word, and phrases, by the GIN index."""
    found, plan = await plan_of(session, ArticleQuery(words='"runners number" 77 run'))

    assert found == [77]
    assert "articles_words" in plan


@pytest.mark.parametrize("query", [ArticleQuery(body__icontains="R 77 W"), ArticleQuery(q="77 running")])
async def test_a_search_uses_a_trigram_index(session: AsyncSession, query: ArticleQuery) -> None:
    """``icontains`` and ``q`` use an index of pg_trgm."""
    found, plan = await plan_of(session, query)

    assert found[0] == 77
    assert "articles_body_trgm" in plan


@pytest.mark.parametrize(("sort", "scan"), [("rank", "Index"), ("-rank,-id", "Backward")])
async def test_a_deep_keyset_page_uses_the_index_of_its_sort(session: AsyncSession, sort: str, scan: str) -> None:
    """The page starts in the index at the row of the cursor; nothing is sorted."""
    cursor = CursorCodec(ArticleFeed(sort=sort).cursor_context(), None).encode(Position((5, 555)))
    found, plan = await plan_of(session, ArticleFeed(sort=sort, cursor=cursor, limit=2))

    assert found == ([565, 575] if sort == "rank" else [545, 535])
    assert scan in plan
    assert "articles_rank_id" in plan
    assert "Index Cond: (ROW(rank, id)" in plan
    assert "Sort" not in plan


async def test_an_estimate_of_the_whole_table(session: AsyncSession) -> None:
    """PostgreSQL keeps the number of rows that it found at the last vacuum."""
    estimate = text("SELECT reltuples::bigint FROM pg_class WHERE oid = 'articles'::regclass")

    assert await session.scalar(estimate) == 5000
