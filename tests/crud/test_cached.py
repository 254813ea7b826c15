"""Reads of a service from a cache: what is kept, what drops it, and what is never shown."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, event, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import with_loader_criteria
from tests.redis_server import RedisServer, answers, shared_redis
from tests.reliability.aside import eventually
from tests.tables.accounts import AccountsBase, User
from tests.tables.press import Post, PressBase, Publisher, Tag, Writer

from fastapi_kit.auth.users import NoChanges, UserAccounts
from fastapi_kit.cache import Cache
from fastapi_kit.crud import CRUDService, ReadService
from fastapi_kit.crud.cached import CachedReadsMixin
from fastapi_kit.db import Database, on_commit, unit_of_work
from fastapi_kit.errors import ConfigurationError, ConflictError, NotFoundError, UnknownReferenceError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.pagination import PageParams
from fastapi_kit.routing import crud_router
from fastapi_kit.testing import app_client, isolated
from fastapi_kit.testing.queries import assert_max_queries

MINUTE = timedelta(minutes=1)


class Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class WriterShown(Shown):
    id: int
    name: str


class PostShown(Shown):
    id: int
    title: str
    price: Decimal


class PostTitle(Shown):
    title: str


class PostWithWriter(Shown):
    title: str
    writer: WriterShown | None


class TagShown(Shown):
    meaning: str


class PublisherShown(Shown):
    id: UUID
    since: datetime


class AnythingShown(Shown):
    """Says of no type what it is read back as."""

    since: Any


class UserShown(Shown):
    hashed_password: str | None


class PostIn(BaseModel):
    title: str
    price: Decimal = Decimal(0)
    writer_id: int | None = None
    group: int = 1


class PostChange(BaseModel):
    title: str | None = None
    writer_id: int | None = None


class WriterIn(BaseModel):
    name: str


class TagIn(BaseModel):
    name: str
    meaning: str


class Posts(CachedReadsMixin[Post], CRUDService[Post, PostIn, PostChange]):
    cache = Cache()
    cache_lifetime = MINUTE


@pytest.fixture(autouse=True)
async def cache(monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache for each test."""
    cache = Cache()
    monkeypatch.setattr(Posts, "cache", cache)
    return cache


@pytest.fixture
async def db(database: Database) -> Database:
    await database.create_tables(PressBase.metadata)
    return database


@asynccontextmanager
async def opened(db: Database) -> AsyncIterator[AsyncSession]:
    """A request's session."""
    async with asynccontextmanager(db.get_session)() as session:
        yield session


async def show(db: Database, ident: object = 1, service: type[Any] = Posts, schema: type[Any] = PostTitle) -> Any:
    """Read as a request of its own does."""
    async with opened(db) as session:
        return await service(session).get_as(schema, ident)


async def titles(db: Database, service: type[Any] = Posts) -> list[str]:
    async with opened(db) as session:
        return [post.title for post in await service(session).list_as(PostTitle)]


async def change_behind(db: Database, title: str) -> None:
    """Change post 1 by SQL, which the service does not notice."""
    async with db.begin() as session:
        await session.execute(update(Post).where(Post.id == 1).values(title=title))


@pytest.fixture
async def post(db: Database) -> Post:
    """Post 1, which has been read: alone and in a list."""
    async with opened(db) as session:
        post = await Posts(session).create(PostIn(title="old"))
    assert (await show(db)).title == "old"
    assert await titles(db) == ["old"]
    return post


# --- What is kept ---


async def test_a_row_is_read_once(db: Database, post: Post) -> None:
    """The second request sends no SQL."""
    with assert_max_queries(db, 999) as log:
        assert (await show(db)).title == "old"
        assert await titles(db) == ["old"]
    assert log.count == 0


async def test_what_comes_from_the_cache_equals_what_was_read(db: Database) -> None:
    """Decimals, datetimes, UUIDs and nested schemas come back as what they were."""

    class Publishers(CachedReadsMixin[Publisher], CRUDService[Publisher, BaseModel, BaseModel]):
        cache = Posts.cache
        cache_lifetime = MINUTE

    async with opened(db) as session:
        session.add(Writer(id=7, name="f"))
        await session.commit()
        await Posts(session).create(PostIn(title="a", price=Decimal("1.50"), writer_id=7))
        made = await Publishers(session).create({"name": "p"})
    shown = [(Posts, 1, PostShown), (Posts, 1, PostWithWriter), (Publishers, made.id, PublisherShown), (Publishers, made.id, AnythingShown)]
    for service, ident, schema in shown:
        loaded = await show(db, ident, service, schema)
        with assert_max_queries(db, 999) as log:
            kept = await show(db, ident, service, schema)
        assert kept == loaded
        assert log.count == (1 if schema is AnythingShown else 0)


async def test_lists_differ_by_what_was_asked(db: Database) -> None:
    """Conditions, order, window and schema are part of the key of a list."""
    async with opened(db) as session:
        await Posts(session).create_many([PostIn(title=title) for title in "abc"])
        posts = Posts(session)
        asked: list[Any] = [
            lambda: posts.list_as(PostTitle),
            lambda: posts.list_as(PostTitle, order_by=Post.id.desc()),
            lambda: posts.list_as(PostTitle, skip=1),
            lambda: posts.list_as(PostTitle, limit=1),
            lambda: posts.list_as(PostTitle, limit=0),
            lambda: posts.list_as(PostTitle, Post.title == "a"),
            lambda: posts.list_as(PostTitle, Post.title == "b"),
            lambda: posts.list_as(PostTitle, Post.title.in_(["a", "b"])),
            lambda: posts.list_as(PostTitle, Post.title.in_(["b", "c"])),
            lambda: posts.list_as(PostShown),
        ]
        loaded = [await ask() for ask in asked]
        with assert_max_queries(db, 999) as log:
            kept = [await ask() for ask in asked]
    assert kept == loaded
    assert log.count == 0
    assert [[each.title for each in found] for found in loaded] == [
        ["a", "b", "c"],
        ["c", "b", "a"],
        ["b", "c"],
        ["a"],
        [],
        ["a"],
        ["b"],
        ["a", "b"],
        ["b", "c"],
        ["a", "b", "c"],
    ]


async def test_a_slice_is_a_list(db: Database, post: Post) -> None:
    """``slice_as``, which needs no count, is answered from the cache."""
    async with opened(db) as session:
        first = await Posts(session).slice_as(PostTitle, PageParams())
        with assert_max_queries(db, 999) as log:
            assert await Posts(session).slice_as(PostTitle, PageParams()) == first
    assert log.count == 0


async def test_generated_routes_are_cached(db: Database, post: Post) -> None:
    """``GET /posts/1`` sends no SQL, and shows a change made by ``PATCH`` at once."""
    app = FastAPI()
    register_exception_handlers(app)
    app.include_router(crud_router(Posts, read=PostShown, session=db.session), prefix="/posts")
    async with app_client(app) as client:
        await client.get("/posts/1")
        with assert_max_queries(db, 999) as log:
            assert (await client.get("/posts/1")).json()["title"] == "old"
        assert log.count == 0
        assert (await client.patch("/posts/1", json={"title": "new"})).json()["title"] == "new"
        assert (await client.get("/posts/1")).json()["title"] == "new"
        assert (await client.delete("/posts/1")).status_code == 204
        assert (await client.get("/posts/1")).status_code == 404


async def test_a_missing_row_is_not_kept(db: Database) -> None:
    """A row that did not exist is found as soon as it does, also if your own SQL has made it."""
    with pytest.raises(NotFoundError):
        await show(db)
    async with db.begin() as session:
        session.add(Post(title="new"))
    assert (await show(db)).title == "new"


async def test_concurrent_requests_read_once(db: Database, post: Post) -> None:
    """Twenty requests for a row that is not kept send one statement."""
    await Posts.cache.clear()
    with assert_max_queries(db, 999) as log:
        found = await asyncio.gather(*(show(db) for _ in range(20)))
    assert {each.title for each in found} == {"old"}
    assert log.count == 1


async def test_a_read_service_can_be_cached(db: Database, post: Post) -> None:
    """A service that only reads has the mixin, too, and the service that writes the table drops its entries."""

    class Report(CachedReadsMixin[Post], ReadService[Post]):
        cache = Posts.cache
        cache_lifetime = MINUTE

    await show(db, 1, Report)
    with assert_max_queries(db, 999) as log:
        assert (await show(db, 1, Report)).title == "old"
    assert log.count == 0
    async with opened(db) as session:
        await Posts(session).update(1, PostChange(title="new"))
    assert (await show(db, 1, Report)).title == "new"


# --- What drops it ---


async def update_one(posts: Posts) -> None:
    await posts.update(1, PostChange(title="new"))


async def delete_one(posts: Posts) -> None:
    await posts.delete(1)


async def discard_one(posts: Posts) -> None:
    await posts.discard(1)


async def create_one(posts: Posts) -> None:
    await posts.create(PostIn(title="second"))


async def create_two(posts: Posts) -> None:
    await posts.create_many([PostIn(title="second"), PostIn(title="third")])


async def create_very_many(posts: Posts) -> None:
    await posts.create_many([PostIn(title=f"n{number}") for number in range(150)])


@pytest.mark.parametrize("write", [update_one, delete_one, discard_one, create_one, create_two, create_very_many])
@pytest.mark.parametrize("in_unit", [False, True])
async def test_a_write_drops_what_it_changed(db: Database, post: Post, write: Any, in_unit: bool) -> None:
    """After each write of the service a request sees what the database has, the row as well as the list."""
    async with opened(db) as session:
        if in_unit:
            async with unit_of_work(session):
                await write(Posts(session))
        else:
            await write(Posts(session))
    async with db.begin() as session:
        stored = list(await session.scalars(select(Post.title).order_by(Post.id).limit(100)))
        first = await session.scalar(select(Post.title).where(Post.id == 1))
    assert await titles(db) == stored
    try:
        assert (await show(db)).title == first
    except NotFoundError:
        assert first is None


async def test_a_write_leaves_other_rows_alone(db: Database, post: Post) -> None:
    """The entries of other rows stay."""
    async with opened(db) as session:
        second = await Posts(session).create(PostIn(title="second"))
        await show(db, second.id)
        await Posts(session).update(1, PostChange(title="new"))
    with assert_max_queries(db, 999) as log:
        await show(db, second.id)
    assert log.count == 0


async def test_a_key_that_is_used_again_shows_the_new_row(db: Database, post: Post) -> None:
    """SQL of the application deletes a row, the service creates one with the same key: the old one is not shown."""
    async with db.begin() as session:
        await session.execute(text("DELETE FROM articles"))
    async with opened(db) as session:
        await Posts(session).create({"id": 1, "title": "new"})
    assert (await show(db)).title == "new"


async def test_text_keys_may_be_equal_to_the_database_only(db: Database) -> None:
    """A write by another form of a text key drops the entry: all entries of a model with such a key go."""

    class Tags(CachedReadsMixin[Tag], CRUDService[Tag, TagIn, TagIn]):
        cache = Posts.cache
        cache_lifetime = MINUTE

    async with opened(db) as session:
        tags = Tags(session)
        await tags.create(TagIn(name="tea", meaning="a drink"))
        await tags.create(TagIn(name="Tea", meaning="a name"))
        assert (await tags.get_as(TagShown, "tea")).meaning == "a drink"
        async with db.begin() as other:
            await other.execute(update(Tag).values(meaning="changed"))
        await tags.update("Tea", {"meaning": "another name"})
        assert (await tags.get_as(TagShown, "tea")).meaning == "changed"


async def test_forget_drops_a_row_now(db: Database, post: Post) -> None:
    """After SQL of your own, ``forget`` drops the row; without a key it drops everything of the model."""
    for forgotten in ([1], []):
        title = f"changed {forgotten}"
        await change_behind(db, title)
        assert (await show(db)).title != title
        async with opened(db) as session:
            await Posts(session).forget(*forgotten)
        assert (await show(db)).title == title
        assert await titles(db) == [title]


async def test_forget_can_wait_for_the_commit(db: Database, post: Post) -> None:
    """``on_commit(session, posts.forget, 1)`` drops the row with the transaction of your SQL."""
    async with db.begin() as session:
        await session.execute(update(Post).values(title="new"))
        on_commit(session, Posts(session).forget, 1)
        assert (await show(db)).title == "old"
    assert (await show(db)).title == "new"


async def test_a_service_can_drop_what_shows_its_rows(db: Database, cache: Cache) -> None:
    """``cache_drops`` names the models whose schemas nest rows of this one."""

    class Writers(CachedReadsMixin[Writer], CRUDService[Writer, WriterIn, WriterIn]):
        cache = Posts.cache
        cache_lifetime = MINUTE
        cache_drops: ClassVar[Sequence[type[object]]] = [Post]

    async with opened(db) as session:
        writer = await Writers(session).create(WriterIn(name="old"))
        await Posts(session).create(PostIn(title="a", writer_id=writer.id))
        assert (await show(db, 1, Posts, PostWithWriter)).writer.name == "old"
        await Writers(session).update(writer.id, WriterIn(name="new"))
    assert (await show(db, 1, Posts, PostWithWriter)).writer.name == "new"


async def test_a_new_password_drops_the_user(db: Database, cache: Cache) -> None:
    """``set_password`` of a user service is one statement of its own, and drops the entry as any write does."""

    class Users(CachedReadsMixin[User], UserAccounts[User, BaseModel, NoChanges]):
        cache = Posts.cache
        cache_lifetime = MINUTE

    await db.create_tables(AccountsBase.metadata)
    async with opened(db) as session:
        user = await Users(session).create({"email": "ada@example.org"})
        assert (await show(db, user.id, Users, UserShown)).hashed_password is None
        await Users(session).set_password(user, hashed_password="x")
    assert (await show(db, user.id, Users, UserShown)).hashed_password == "x"


async def test_processes_drop_each_others_entries(db: Database) -> None:
    """Two processes on one Redis: a write in one is seen in the other."""
    async with shared_redis(processes=2) as caches:

        class Here(CachedReadsMixin[Post], CRUDService[Post, PostIn, PostChange]):
            cache, cache_lifetime = caches[0], MINUTE

        class There(CachedReadsMixin[Post], CRUDService[Post, PostIn, PostChange]):
            cache, cache_lifetime = caches[1], MINUTE

        async with opened(db) as session:
            await Here(session).create(PostIn(title="old"))
            assert [(await show(db, 1, each)).title for each in (Here, There)] == ["old", "old"]
            assert await titles(db, There) == ["old"]
            await Here(session).update(1, PostChange(title="new"))
        assert [(await show(db, 1, each)).title for each in (Here, There)] == ["new", "new"]
        assert await titles(db, There) == ["new"]


async def test_requests_are_served_without_redis(
    db: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis is stopped: reads and writes go on with the database. It is started: nothing old is shown."""
    server = RedisServer(tmp_path)
    await server.start()
    cache = Cache(server.url, timeout=10)
    monkeypatch.setattr(Posts, "cache", cache)
    try:
        async with cache.lifespan(None), opened(db) as session:
            await Posts(session).create(PostIn(title="old"))
            assert (await show(db)).title == "old"
            await server.stop()
            await change_behind(db, "while it was gone")
            assert (await show(db)).title == "while it was gone"
            await Posts(session).update(1, PostChange(title="new"))
            assert (await show(db)).title == "new"
            await server.start()
            await eventually(lambda: answers(cache))
            assert (await show(db)).title == "new"
    finally:
        await server.stop()
    assert [record.getMessage()[:17] for record in caplog.records if record.name == "fastapi_kit.cache"] == [
        "the cache is gone",
        "the cache is back",
    ]


# --- What is never kept or shown ---


async def test_a_rolled_back_write_drops_nothing(db: Database, post: Post) -> None:
    """The entries are as they were, and right."""
    async with opened(db) as session:
        with pytest.raises(LookupError):
            async with unit_of_work(session):
                await Posts(session).update(1, PostChange(title="new"))
                raise LookupError
        async with unit_of_work(session):
            with pytest.raises(LookupError):
                async with unit_of_work(session):
                    await Posts(session).update(1, PostChange(title="new"))
                    raise LookupError
    with assert_max_queries(db, 999) as log:
        assert (await show(db)).title == "old"
        assert await titles(db) == ["old"]
    assert log.count == 0


async def test_a_rejected_write_drops_nothing(db: Database, post: Post) -> None:
    """Nor does a write that the database rejects, at once or at COMMIT."""
    async with opened(db) as session:
        with pytest.raises(ConflictError):
            await Posts(session).create(PostIn(title="old"))
        with pytest.raises(UnknownReferenceError):
            await Posts(session).update(1, PostChange(title="new", writer_id=99))
    with assert_max_queries(db, 999) as log:
        assert (await show(db)).title == "old"
        assert await titles(db) == ["old"]
    assert log.count == 0


async def test_an_entry_is_dropped_after_the_commit(db: Database, post: Post) -> None:
    """Others see the old row until the commit, and never a row that is not committed."""
    async with opened(db) as session:
        async with unit_of_work(session):
            await Posts(session).update(1, PostChange(title="new"))
            if db.engine.dialect.name == "postgresql":
                await Posts.cache.clear()
            assert (await show(db)).title == "old"
        assert (await show(db)).title == "new"


async def test_a_writing_transaction_reads_what_it_wrote(db: Database, post: Post) -> None:
    """Inside, reads show the uncommitted row; it is not kept, so that a rollback leaves nothing of it."""
    async with opened(db) as session:
        posts = Posts(session)
        with pytest.raises(LookupError):
            async with unit_of_work(session):
                await posts.update(1, PostChange(title="new"))
                assert (await posts.get_as(PostTitle, 1)).title == "new"
                assert [each.title for each in await posts.list_as(PostTitle)] == ["new"]
                raise LookupError
        assert (await posts.get_as(PostTitle, 1)).title == "old"
    await Posts.cache.clear()
    assert (await show(db)).title == "old"
    assert await titles(db) == ["old"]


async def test_pending_changes_of_a_session_are_not_kept(db: Database, post: Post) -> None:
    """An object that was changed and not flushed yet makes the session ask the database, which flushes it."""
    async with opened(db) as session:
        row = await Posts(session).get_one(1)
        row.title = "pending"
        assert [each.title for each in await Posts(session).list_as(PostTitle)] == ["pending"]
        await session.rollback()
    assert await titles(db) == ["old"]
    await Posts.cache.clear()
    assert await titles(db) == ["old"]


async def test_an_old_snapshot_is_not_kept(db: Database, post: Post) -> None:
    """A transaction that sees the past reads it from the database, and does not put it into the cache."""
    async with db.sessions() as session:
        if db.engine.dialect.name == "postgresql":
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        assert await session.scalar(select(Post.title)) == "old"
        async with opened(db) as other:
            await Posts(other).update(1, PostChange(title="new"))
        # SQLite begins a transaction with its first write, so a read sees what is committed.
        seen = "old" if db.engine.dialect.name == "postgresql" else "new"
        assert (await Posts(session).get_as(PostTitle, 1)).title == seen
    assert (await show(db)).title == "new"


async def test_a_read_from_before_a_write_is_not_kept(db: Database, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader loads the old row, a writer commits and drops, the reader stores: nobody is shown the old row."""
    loaded, written = asyncio.Event(), asyncio.Event()
    read_row = ReadService.get_as

    async def slow(self: Any, schema: Any, ident: object, *conditions: Any) -> Any:
        found = await read_row(self, schema, ident, *conditions)
        if not loaded.is_set():
            loaded.set()
            await written.wait()
        return found

    await Posts.cache.clear()
    monkeypatch.setattr(ReadService, "get_as", slow)
    reader = asyncio.ensure_future(show(db))
    await loaded.wait()
    async with opened(db) as session:
        await Posts(session).update(1, PostChange(title="new"))
    joining = asyncio.ensure_future(show(db))
    written.set()

    assert (await reader).title == "old"
    assert (await joining).title == "new"
    assert (await show(db)).title == "new"


async def test_a_session_on_a_connection_is_not_cached(db: Database, post: Post) -> None:
    """Tests that roll back with ``isolated`` leave nothing in the cache and find nothing in it."""
    async with isolated(db), opened(db) as session:
        await Posts(session).update(1, PostChange(title="rolled back"))
        assert (await show(db)).title == "rolled back"
    assert (await show(db)).title == "old"


async def test_two_databases_are_kept_apart(database: Database, cache: Cache) -> None:
    """One service on two databases, as with a database for each tenant, shows each its own rows."""
    other = Database("sqlite:///:memory:")
    try:
        for db, title in ((database, "here"), (other, "there")):
            await db.create_tables(PressBase.metadata)
            async with opened(db) as session:
                await Posts(session).create(PostIn(title=title))
        for _ in range(2):
            assert [(await show(db)).title for db in (database, other)] == ["here", "there"]
    finally:
        await other.dispose()


async def test_sessions_of_the_application_are_cached_too(db: Database, post: Post) -> None:
    """A plain ``async_sessionmaker`` asks the cache as long as its session has not begun a transaction."""
    sessions = async_sessionmaker(db.engine)
    async with sessions() as session:
        assert (await Posts(session).get_as(PostTitle, 1)).title == "old"
    async with sessions() as session:
        with assert_max_queries(db, 999) as log:
            await Posts(session).get_as(PostTitle, 1)
        assert log.count == 0
        await Posts(session).update(1, PostChange(title="new"))
    assert (await show(db)).title == "new"


# --- Who may see what ---


class Confined(CRUDService[Post, PostIn, PostChange]):
    """The posts of a tenant."""

    def __init__(self, session: AsyncSession, tenant: int | None = 1) -> None:
        super().__init__(session)
        self.tenant = tenant

    def base_query(self) -> Select[Any]:
        return super().base_query().where(Post.group == self.tenant)


async def test_tenants_do_not_see_each_others_rows(db: Database) -> None:
    """With ``cache_key_parts`` each tenant has entries of its own; a write of one drops them for all."""

    class OfTenant(CachedReadsMixin[Post], Confined):
        cache = Posts.cache
        cache_lifetime = MINUTE

        def cache_key_parts(self) -> Sequence[int | None]:
            return [self.tenant]

    async with opened(db) as session:
        one, two = OfTenant(session, 1), OfTenant(session, 2)
        await Posts(session).create_many([PostIn(title="one", group=1), PostIn(title="two", group=2)])
        for _ in range(2):
            assert (await one.get_as(PostTitle, 1)).title == "one"
            with pytest.raises(NotFoundError):
                await two.get_as(PostTitle, 1)
            assert [[each.title for each in await posts.list_as(PostTitle)] for posts in (one, two)] == [["one"], ["two"]]
        with assert_max_queries(db, 999) as log:
            await one.list_as(PostTitle)
            await one.get_as(PostTitle, 1)
        assert log.count == 0
        await Posts(session).update(1, {"group": 2})
        with pytest.raises(NotFoundError):
            await one.get_as(PostTitle, 1)
        assert (await two.get_as(PostTitle, 1)).title == "one"


async def test_parts_that_look_alike_differ(db: Database) -> None:
    """The number 1, the text "1" and two parts that join to the same text are different."""

    class Parts(CachedReadsMixin[Post], CRUDService[Post, PostIn, PostChange]):
        cache = Posts.cache
        cache_lifetime = MINUTE
        parts: ClassVar[Any] = ()

        def cache_key_parts(self) -> Any:
            return self.parts

    async with opened(db) as session:
        await Posts(session).create(PostIn(title="old"))
        for parts in ([1], ["1"], ["1, 1"], [1, 1], [None], [], ["a', 'b"], ["a", "b"], [uuid4()]):
            Parts.parts = parts
            with assert_max_queries(db, 999) as log:
                await Parts(session).get_as(PostTitle, 1)
            assert log.count == 1
        Parts.parts = None
        for _ in range(2):
            with assert_max_queries(db, 999) as log:
                await Parts(session).get_as(PostTitle, 1)
            assert log.count == 1
        Parts.parts = [object()]
        with pytest.raises(ConfigurationError, match="cache_key_parts"):
            await Parts(session).get_as(PostTitle, 1)


class OwnGet(CRUDService[Post, PostIn, PostChange]):
    async def get(self, ident: object, **options: Any) -> Post | None:
        return await super().get(ident, **options)


class OwnGetAs(CRUDService[Post, PostIn, PostChange]):
    async def get_as(self, schema: Any, ident: object, *conditions: Any) -> Any:
        return await super().get_as(schema, ident, *conditions)


@pytest.mark.parametrize("base", [Confined, OwnGet, OwnGetAs])
def test_a_service_that_may_confine_rows_must_say_by_what(base: type[Any]) -> None:
    """Without ``cache_key_parts`` such a class cannot be created, so that no tenant is shown rows of another."""
    with pytest.raises(ConfigurationError, match="cache_key_parts"):
        type("Wrong", (CachedReadsMixin, base), {"cache": Cache(), "cache_lifetime": MINUTE})


def test_a_mixin_behind_the_service_is_rejected() -> None:
    """There its reads would be cached and its writes drop nothing."""
    with pytest.raises(ConfigurationError, match="in front"):

        class Wrong(CRUDService[Post, PostIn, PostChange], CachedReadsMixin[Post]):
            cache = Cache()
            cache_lifetime = MINUTE


@pytest.mark.parametrize("given", [{}, {"cache": Cache()}, {"cache_lifetime": MINUTE}, {"cache": Cache(), "cache_lifetime": timedelta(0)}])
def test_a_service_without_cache_or_lifetime_is_rejected(given: dict[str, Any]) -> None:
    """The mistake shows at import."""
    with pytest.raises(ConfigurationError, match="cache"):
        type("Wrong", (CachedReadsMixin, CRUDService), {**given, "model": Post})


async def test_criteria_of_a_session_switch_the_cache_off(db: Database, post: Post) -> None:
    """A listener that confines a tenant works below the service: the database is asked, and nothing is kept."""
    async with opened(db) as session:

        @event.listens_for(session.sync_session, "do_orm_execute")
        def confine(state: Any) -> None:
            state.statement = state.statement.options(with_loader_criteria(Post, Post.group == 2))

        with pytest.raises(NotFoundError):
            await Posts(session).get_as(PostTitle, 1)
        assert await Posts(session).list_as(PostTitle) == []
    assert await titles(db) == ["old"]


@pytest.mark.parametrize("target", ["session", "engine"])
async def test_a_listener_to_the_begin_switches_the_cache_off(db: Database, post: Post, target: str) -> None:
    """As for policies of PostgreSQL that depend on a variable, which the listener sets."""
    async with opened(db) as session:
        where, name = (session.sync_session, "after_begin") if target == "session" else (db.engine.sync_engine, "begin")

        def set_tenant(*_: object) -> None: ...

        event.listen(where, name, set_tenant)
        try:
            with assert_max_queries(db, 999) as log:
                await Posts(session).get_as(PostTitle, 1)
        finally:
            event.remove(where, name, set_tenant)
        assert log.count >= 1
