"""What base_query() restricts: each of its rows comes once, and no other row is read or written."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    Delete,
    Insert,
    Select,
    Update,
    event,
    exists,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    ORMExecuteState,
    Session,
    aliased,
    contains_eager,
    joinedload,
    load_only,
    selectinload,
    with_loader_criteria,
)
from tests.tables.press import Label, Post, PressBase, Tag, Writer, article_tags
from tests.thorough import few
from tests.versions import distinct_on

from fastapi_kit.crud import FOR_UPDATE, CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import NotFoundError
from fastapi_kit.pagination import PageParams


class PostRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int


class LabelRead(PostRead): ...


class PostWithLabels(PostRead):
    labels: list[LabelRead]


class PostService(CRUDService[Post, BaseModel, BaseModel]): ...


First = aliased(Post)
Query = Callable[[], Select[Post]]


def _through_cte() -> Select[Post]:
    good = select(Label.article_id).where(Label.public).cte("good")
    return select(Post).join(good, good.c.article_id == Post.id)


def _through_subquery() -> Select[Post]:
    counted = select(Label.article_id, func.count().label("n")).where(Label.public).group_by(Label.article_id).subquery()
    return select(Post).join(counted, counted.c.article_id == Post.id)


def _through_window() -> Select[Post]:
    numbered = select(Post.id, func.row_number().over(partition_by=Post.id, order_by=Post.id).label("n")).subquery()
    return select(Post).join(numbered, numbered.c.id == Post.id).where(numbered.c.n == 1, Post.id <= 3)


def _through_lateral() -> Select[Post]:
    one = select(Label.id).where(Label.article_id == Post.id, Label.public).limit(1).lateral()
    return select(Post).join(one, true())


def _labelled() -> Select[Post]:
    return select(Post).join(Post.labels).where(Label.public)


QUERIES: dict[str, Query] = {
    "where": lambda: select(Post).where(Post.id <= 3),
    "to many": _labelled,
    "to one": lambda: select(Post).join(Post.writer).where(Writer.name == "ann"),
    "outer": lambda: select(Post).outerjoin(Post.labels).where(Label.public),
    "self join": lambda: select(Post).join(First, Post.answers),
    "aliased": lambda: select(Post).join(Post.answers.of_type(First)).where(First.title == "a"),
    "secondary": lambda: select(Post).join(article_tags, article_tags.c.article_id == Post.id),
    "distinct": lambda: _labelled().distinct(),
    "group by": lambda: _labelled().group_by(Post.id),
    "having": lambda: _labelled().group_by(Post.id).having(func.count(Label.id) == 2),
    "limit": lambda: select(Post).order_by(Post.id).limit(3),
    "limited join": lambda: _labelled().distinct().limit(3),
    "cte": _through_cte,
    "subquery": _through_subquery,
    "window": _through_window,
    "other table": lambda: select(Post).where(Post.id == Label.article_id, Label.public),
    "exists": lambda: select(Post).where(Post.labels.any(Label.public)),
    "select from": lambda: select(Post).select_from(Label).join(Post, Label.article_id == Post.id).where(Label.public),
    "ordered by one": lambda: select(Post).join(Post.writer).order_by(Writer.name),
    "ordered by many": lambda: _labelled().order_by(Label.rank.desc()),
    "ordered by a group": lambda: _labelled().group_by(Post.id).order_by(func.count(Label.id)),
    "eager to one": lambda: select(Post).join(Post.writer).where(Writer.name == "ann").options(contains_eager(Post.writer)),
    "eager to many": lambda: _labelled().options(contains_eager(Post.labels)),
    "selectinload": lambda: _labelled().options(selectinload(Post.labels)),
    "joinedload": lambda: _labelled().options(joinedload(Post.labels)),
    "load only": lambda: select(Post).where(Post.id <= 3).options(load_only(Post.title)),
    "criteria": lambda: select(Post).options(with_loader_criteria(Post, Post.id <= 3)),
    "criteria of a join": lambda: select(Post).join(Post.labels).options(with_loader_criteria(Label, Label.public)),
    "for update": lambda: select(Post).where(Post.id <= 3).with_for_update(),
}
POSTGRES_QUERIES: dict[str, Query] = {
    "lateral": _through_lateral,
    "distinct on": lambda: distinct_on(_labelled(), Post.id).order_by(Post.id, Label.rank),
    "distinct on alone": lambda: distinct_on(select(Post), Post.answers_id, Post.id).where(Post.id <= 3),
}
CASES = [
    *(
        pytest.param(fixture, query, id=f"{fixture}-{name}")
        for position, (name, query) in enumerate(QUERIES.items())
        for fixture in few(("sqlite_database", "postgres_database")[:: 1 if position % 2 else -1])
    ),
    *(pytest.param("postgres_database", query, id=f"postgres_database-{name}") for name, query in POSTGRES_QUERIES.items()),
]


@pytest.fixture(params=["sqlite_database", "postgres_database"])
def place(request: pytest.FixtureRequest) -> Database:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Database)
    return found


@pytest.fixture
async def posts(place: Database) -> Database:
    """Six posts. 1 to 3 are Ann's, answer to 1, have two public labels each and two tags; 4 has labels that are not public."""
    database = place
    rows: dict[Any, Sequence[dict[str, Any]]] = {
        Writer.__table__: [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}],
        Post.__table__: [
            {"id": n, "title": "abcdef"[n - 1], "group": 1, "answers_id": 1 if n <= 3 else None, "writer_id": 1 if n <= 3 else None}
            for n in range(1, 7)
        ],
        Label.__table__: [{"id": 10 * n + m, "article_id": n, "public": n <= 3, "rank": 10 * m - n} for n in range(1, 5) for m in (1, 2)],
        Tag.__table__: [{"name": "x"}, {"name": "y"}],
        article_tags: [{"article_id": n, "tag_name": name} for n in (1, 2, 3) for name in "xy"],
    }
    await database.create_tables(PressBase.metadata)
    async with database.engine.begin() as connection:
        for table, values in rows.items():
            await connection.execute(insert(table), values)
    return database


def _confined(query: Query) -> type[PostService]:
    class Confined(PostService):
        def base_query(self) -> Select[Post]:
            return query()

    return Confined


@asynccontextmanager
async def _session(database: Database) -> AsyncIterator[AsyncSession]:
    async with asynccontextmanager(database.get_session)() as session:
        yield session


def _ids(rows: Sequence[Post]) -> list[int]:
    return [row.id for row in rows]


@pytest.mark.thorough
@pytest.mark.parametrize(("place", "query"), CASES, indirect=["place"])
async def test_each_row_is_read_once(posts: Database, query: Query) -> None:
    async with _session(posts) as session:
        service = _confined(query)(session)
        assert sorted(_ids(await service.list())) == [1, 2, 3]
        assert sorted(_ids([*await service.list(limit=2), *await service.list(skip=2, limit=2)])) == [1, 2, 3]
        assert _ids(await service.list(Post.title == "b")) == [2]
        first = await service.first(Post.title == "b")
        assert first is not None
        assert first.id == 2
        assert await service.get(1) is not None
        assert await service.get(5) is None
        assert await service.get_by(title="c") is not None
        assert await service.get_by(title="e") is None
        assert _ids(await service.get_many([3, 5, 1, 3])) == [3, 1]
        assert (await service.count(), await service.count(Post.title == "a"), await service.count(Post.title == "e")) == (3, 1, 0)
        assert (await service.exists(Post.title == "a"), await service.exists(Post.title == "e")) == (True, False)


@pytest.mark.thorough
@pytest.mark.parametrize(("place", "query"), CASES, indirect=["place"])
@pytest.mark.parametrize("schema", [PostRead, PostWithLabels])
async def test_each_row_is_shown_once(posts: Database, query: Query, schema: type[PostRead]) -> None:
    async with _session(posts) as session:
        service = _confined(query)(session)
        assert sorted(row.id for row in await service.list_as(schema)) == [1, 2, 3]
        pages = [await service.page_as(schema, PageParams(skip=skip, limit=2)) for skip in (0, 2)]
        assert [page.total for page in pages] == [3, 3]
        assert sorted(row.id for page in pages for row in page.items) == [1, 2, 3]
        shown = await service.get_as(schema, 2)
        if isinstance(shown, PostWithLabels):
            assert sorted(label.id for label in shown.labels) == [21, 22]


@pytest.mark.thorough
@pytest.mark.parametrize(("place", "query"), CASES, indirect=["place"])
async def test_each_row_is_locked_and_written_alone(posts: Database, query: Query) -> None:
    async with _session(posts) as session:
        service = _confined(query)(session)
        assert sorted(_ids(await service.list(lock=FOR_UPDATE))) == [1, 2, 3]
        await session.rollback()
        assert (await service.update(2, {"group": 7})).group == 7
        assert (await service.update(2, {"group": 7})).group == 7
    async with _session(posts) as session:
        service = _confined(query)(session)
        changed = await service.update(2, {"group": 8})
        assert [label.id for label in vars(changed).get("labels", []) if label.article_id != 2] == []
        for change in ({"group": 9}, {"labels": []}, {}):
            with pytest.raises(NotFoundError):
                await service.update(5, change)
        with pytest.raises(NotFoundError):
            await service.delete(5)
        await service.delete(2)
    async with _session(posts) as session:
        left = {row.id: row.group for row in await PostService(session).list()}
        assert left == {1: 1, 3: 1, 4: 1, 5: 1, 6: 1}


async def test_streams_yield_each_row_once(posts: Database) -> None:
    for query in (QUERIES["to many"], QUERIES["ordered by many"], QUERIES["limit"]):
        async with _session(posts) as session, aclosing(_confined(query)(session).stream(batch_size=2)) as rows:
            assert sorted([row.id async for row in rows]) == [1, 2, 3]


async def test_a_row_stands_where_it_comes_first(posts: Database) -> None:
    async with _session(posts) as session:
        service = _confined(QUERIES["to many"])(session)
        assert _ids(await service.list(order_by=Label.rank)) == [3, 2, 1]
        assert _ids(await service.list(order_by=Label.rank.desc())) == [1, 2, 3]
        assert _ids(await service.list(order_by=[Label.public.desc().nulls_last(), Post.title.desc()])) == [3, 2, 1]
        assert _ids(await service.list(order_by=Label.rank, skip=1, limit=1)) == [2]


async def test_a_delete_through_a_cte_that_finds_nothing_says_so(posts: Database) -> None:
    async with _session(posts) as session:
        with pytest.raises(NotFoundError):
            await _confined(QUERIES["cte"])(session).delete(5)


async def test_what_a_limit_leaves_out_is_no_row(posts: Database) -> None:
    async with _session(posts) as session:
        service = _confined(QUERIES["limit"])(session)
        assert await service.list(Post.id > 3) == []
        with pytest.raises(NotFoundError):
            await service.update(4, {"title": "new"})


@pytest.mark.parametrize("name", ["where", "to one", "exists", "selectinload", "criteria", "eager to one"])
@pytest.mark.parametrize("flushes", [False, True])
async def test_a_row_may_be_moved_out(posts: Database, name: str, flushes: bool) -> None:
    query: Query = {
        "where": lambda: select(Post).where(Post.group == 1),
        "selectinload": lambda: select(Post).where(Post.group == 1).options(selectinload(Post.labels)),
        "criteria": lambda: select(Post).options(with_loader_criteria(Post, Post.group == 1)),
        "exists": lambda: select(Post).where(exists().where(Writer.id == Post.writer_id, Writer.name == "ann")),
    }.get(name, QUERIES[name])
    async with _session(posts) as session:
        if flushes:
            event.listen(session.sync_session, "before_flush", lambda *_: None)
        service = _confined(query)(session)
        moved = await service.update(2, {"group": 5, "writer_id": 2})
        assert (moved.group, moved.writer_id) == (5, 2)
        if name == "selectinload":
            assert [label.id for label in moved.labels] == [21, 22]
        assert await service.get(2) is None


@pytest.mark.parametrize("place", ["postgres_database"], indirect=True)
@pytest.mark.parametrize("name", ["where", "to one", "exists", "criteria", "eager to one"])
@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_a_row_that_leaves_meanwhile_is_not_written(posts: Database, name: str, flushes: bool, verb: str) -> None:
    query: Query = {
        "where": lambda: select(Post).where(Post.group == 1),
        "criteria": lambda: select(Post).options(with_loader_criteria(Post, Post.group == 1)),
        "exists": lambda: select(Post).where(exists().where(Writer.id == Post.writer_id, Writer.name == "ann")),
    }.get(name, QUERIES[name])
    async with _session(posts) as other, _session(posts) as session:
        if flushes:
            event.listen(session.sync_session, "before_flush", lambda *_: None)
        service = _confined(query)(session)
        await service.get_one(2)
        await other.execute(update(Post).where(Post.id == 2).values(group=9, writer_id=2))
        write = asyncio.ensure_future(service.update(2, {"title": "new"}) if verb == "update" else service.delete(2))
        done, _ = await asyncio.wait([write], timeout=0.2)
        assert not done
        await other.commit()
        with pytest.raises(NotFoundError):
            await write
    async with _session(posts) as session:
        assert (await PostService(session).get_one(2)).title == "b"


def _selects_only(state: ORMExecuteState) -> None:
    if state.is_select and not state.is_column_load and not state.is_relationship_load:
        _all_but_inserts(state)


def _all_but_inserts(state: ORMExecuteState) -> None:
    if not state.is_insert and not state.execution_options.get("everything"):
        state.statement = state.statement.options(with_loader_criteria(Post, Post.id <= 3))


@pytest.mark.parametrize("listener", [_selects_only, _all_but_inserts])
@pytest.mark.parametrize("query", [lambda: select(Post), lambda: select(Post).outerjoin(Post.writer)])
async def test_criteria_of_the_session_confine_too(posts: Database, listener: Any, query: Query) -> None:
    async with _session(posts) as session:
        event.listen(session.sync_session, "do_orm_execute", listener)
        service = _confined(query)(session)
        assert (await service.count(), await service.exists(Post.id == 5), await service.get(5)) == (3, False, None)
        with pytest.raises(NotFoundError):
            await service.update(5, {"title": "new"})
        with pytest.raises(NotFoundError):
            await service.delete(5)
        assert (await service.update(2, {"title": "new"})).title == "new"


@pytest.mark.parametrize(
    "query",
    [
        lambda: select(Post).execution_options(everything=True),
        lambda: select(Post).outerjoin(Post.writer).execution_options(everything=True),
    ],
)
async def test_execution_options_reach_every_statement(posts: Database, query: Query) -> None:
    async with _session(posts) as session:
        event.listen(session.sync_session, "do_orm_execute", _all_but_inserts)
        service = _confined(query)(session)
        assert (await service.count(), await service.exists(Post.id == 5)) == (6, True)
        assert (await service.update(5, {"title": "new"})).title == "new"
        assert len(await service.get_many([4, 5])) == 2


@pytest.mark.parametrize("place", ["postgres_database"], indirect=True)
async def test_a_session_that_reads_elsewhere_is_not_in_its_own_way(posts: Database) -> None:
    """A session that reads from another database takes no lock there that would block its write."""
    leader = posts.engine.execution_options(leads=True).sync_engine

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **kwargs: Any) -> Any:
            writes = self._flushing or isinstance(clause, Insert | Update | Delete)
            return leader if writes else posts.engine.sync_engine

    async with async_sessionmaker(posts.engine, sync_session_class=Routing, expire_on_commit=False)() as session:
        service = _confined(QUERIES["to one"])(session)
        assert (await service.update(2, {"title": "new"})).title == "new"
        assert (await service.update(2, {"writer": await session.get_one(Writer, 1), "title": "newer"})).title == "newer"
        await service.delete(3)
    async with _session(posts) as session:
        assert _ids(await PostService(session).list()) == [1, 2, 4, 5, 6]
