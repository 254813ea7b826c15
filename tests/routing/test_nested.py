"""Routes nested under a parent, over HTTP and on both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from fastapi import APIRouter, FastAPI
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from tests.routing.models import ANY_DATABASE, app_of, client_on
from tests.tables.blog import Article, BlogBase, Comment, Folder, LateFootnote, Line, Usage, Word
from tests.tables.zoo import Animal, Dog, ZooBase

from fastapi_kit.crud import CRUDService
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, NotFoundError, PermissionDeniedError
from fastapi_kit.routing import Endpoint, RouterOptions, crud_router
from fastapi_kit.testing.client import app_client
from fastapi_kit.testing.queries import assert_max_queries


class CommentIn(BaseModel):
    text: str


class CommentRead(CommentIn):
    id: int


class OpenComment(BaseModel):
    """A schema with fields for the parent and the folder."""

    model_config = ConfigDict(extra="allow")

    text: str = "-"
    article_id: int | None = None
    folder_id: int | None = None


class CommentService(CRUDService[Comment, CommentIn, CommentIn]): ...


class OpenCommentService(CRUDService[Comment, OpenComment, OpenComment]): ...


class NumberedIn(CommentIn):
    number: int = 1


class LateFootnoteService(CRUDService[LateFootnote, NumberedIn, CommentIn]): ...


class Empty(BaseModel): ...


class UsageRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: UUID


class UsageService(CRUDService[Usage, Empty, Empty]): ...


class PartRead(UsageRead):
    part_of: UUID


class LineIn(BaseModel):
    number: int
    text: str


class LineRead(LineIn):
    usages: list[UsageRead]


class LineService(CRUDService[Line, LineIn, CommentIn]): ...


ALL = Endpoint.CRUD | Endpoint.CREATE_MANY
COMMENTS = "/articles/{article_id}/comments"


@cache
def app_of_comments(service: type[CRUDService[Any, Any, Any]], read: type[BaseModel]) -> FastAPI:
    """Return the app with all endpoints that several tests share."""
    options = RouterOptions(parent=Comment.article_id, max_batch=3)
    return app_of(crud_router(service, read=read, endpoints=ALL, session=ANY_DATABASE.session, options=options), prefix=COMMENTS)


@asynccontextmanager
async def client_of(
    database: Database, service_class: type[CRUDService[Any, Any, Any]], parent: Any, **more: Any
) -> AsyncIterator[AsyncClient]:
    prefix = more.pop("prefix", COMMENTS)
    more = {"read": CommentRead, "endpoints": ALL, "session": database.session, **more}
    router = crud_router(service_class, options=RouterOptions(parent=parent, max_batch=3), **more)
    async with app_client(app_of(router, prefix=prefix)) as client:
        yield client


def article(number: int) -> Article:
    return Article(id=number, slug=f"article-{number}", title="-")


@pytest.fixture
async def blog(database: Database) -> Database:
    """Articles 1 and 2, with the comments 1 and 2, which are in folder 1."""
    await database.create_tables(BlogBase.metadata)
    async with database.begin() as session:
        session.add_all([article(1), article(2), Folder(id=1)])
    async with database.begin() as session:
        await CommentService(session).create_many([{"article_id": id, "text": f"of {id}", "folder_id": 1} for id in (1, 2)])
    return database


@pytest.fixture
async def client(blog: Database) -> AsyncIterator[AsyncClient]:
    """A client of the comments of articles with all endpoints."""
    async with client_on(blog, app_of_comments(CommentService, CommentRead)) as client:
        yield client


async def parents_of(database: Database) -> list[tuple[int, int]]:
    async with database.sessions() as session:
        return [(row.id, row.article_id) for row in await CommentService(session).list()]


async def test_a_list_shows_the_parents_rows(client: AsyncClient) -> None:
    """Rows, total and links of a list are those of one parent; an unknown parent has none."""
    await client.post("/articles/1/comments", json={"text": "second"})

    page = await client.get("/articles/1/comments", params={"limit": 1})
    empty = await client.get("/articles/9/comments")

    assert ([row["text"] for row in page.json()["items"]], page.json()["total"]) == (["of 1"], 2)
    assert page.links["next"]["url"] == "/articles/1/comments?skip=1&limit=1"
    assert (empty.status_code, empty.json()["total"]) == (200, 0)


async def test_a_row_of_another_parent_is_a_404(client: AsyncClient) -> None:
    """A row of another parent is a 404 and stays as it is."""
    for method, body in (("GET", None), ("PATCH", {"text": "x"}), ("DELETE", None)):
        for article in (2, 9):
            response = await client.request(method, f"/articles/{article}/comments/1", json=body)

            assert (response.status_code, response.json()["code"]) == (404, "not_found"), f"{method} under {article}"
            assert (await client.get("/articles/1/comments/1")).json() == {"id": 1, "text": "of 1"}


async def test_a_row_of_another_parent_shows_nothing(client: AsyncClient) -> None:
    """A change of another parent's row is a 404 even if it would be a conflict."""
    response = await client.patch("/articles/2/comments/1", json={"text": "of 2"})

    assert response.status_code == 404


async def test_a_row_is_read_changed_and_deleted_under_its_parent(client: AsyncClient) -> None:
    """A row that is created under a parent is found at its Location."""
    created = await client.post("/articles/2/comments", json={"text": "new"})
    path = created.headers["location"]
    read, changed, deleted, gone = (
        await client.get(path),
        await client.patch(path, json={"text": "newer"}),
        await client.delete(path),
        await client.get(path),
    )

    assert (created.status_code, path) == (201, "/articles/2/comments/3")
    assert (read.json(), changed.json()["text"]) == ({"id": 3, "text": "new"}, "newer")
    assert (deleted.status_code, gone.status_code) == (204, 404)


@pytest.mark.parametrize(("path", "body"), [("", {"text": "x"}), ("/batch", [{"text": "x"}, {"text": "y"}])])
async def test_nothing_is_created_under_an_unknown_parent(client: AsyncClient, blog: Database, path: str, body: object) -> None:
    """Creating a row of an unknown parent is a 404, not a 422."""
    response = await client.post(f"/articles/9/comments{path}", json=body)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert await parents_of(blog) == [(1, 1), (2, 2)]


async def test_a_parent_that_is_checked_at_commit(blog: Database) -> None:
    """A deferred constraint and a deferred column also give a 404."""
    async with client_of(blog, LateFootnoteService, LateFootnote.article_id) as client:
        unknown = await client.post("/articles/9/comments", json={"text": "x"})
        created = await client.post("/articles/1/comments", json={"text": "x"})
        path = created.headers["location"]
        answers = [await client.get(path), await client.patch(path, json={"text": "y"}), await client.delete(path)]

    assert (unknown.status_code, created.status_code) == (404, 201)
    assert [answer.status_code for answer in answers] == [200, 200, 204]


async def test_another_unknown_reference_stays_a_422(blog: Database) -> None:
    """An unknown folder under a known parent is a 422."""
    async with client_of(blog, OpenCommentService, Comment.article_id) as client:
        response = await client.post("/articles/1/comments", json={"folder_id": 9})

    assert (response.status_code, response.json()["code"]) == (422, "unknown_reference")


@pytest.fixture
async def open_client(blog: Database) -> AsyncIterator[AsyncClient]:
    """A client of comments whose schemas have a field for the parent."""
    async with client_on(blog, app_of_comments(OpenCommentService, OpenComment)) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "place"),
    [("POST", "", ["body", "article_id"]), ("POST", "/batch", ["body", 1, "article_id"]), ("PATCH", "/1", ["body", "article_id"])],
)
async def test_a_body_cannot_name_another_parent(
    open_client: AsyncClient, blog: Database, method: str, path: str, place: list[object]
) -> None:
    """A body that names another parent is a 422 with the field and its row, and nothing is written."""
    for other in (2, 9, None):
        body = {"text": "x", "article_id": other}
        sent = [{"text": "y"}, body] if path == "/batch" else body
        response = await open_client.request(method, f"/articles/1/comments{path}", json=sent)

        assert response.status_code == 422
        assert [item["loc"] for item in response.json()["errors"]] == [place]
        assert await parents_of(blog) == [(1, 1), (2, 2)]


async def test_a_body_may_name_the_same_parent(open_client: AsyncClient) -> None:
    """A body may repeat the parent of the path; without it the parent of the path counts, not the default of the schema."""
    answers = [
        await open_client.post("/articles/1/comments", json={"text": "same", "article_id": 1}),
        await open_client.post("/articles/1/comments", json={"text": "silent"}),
        await open_client.patch("/articles/1/comments/1", json={"article_id": 1}),
    ]

    assert [(answer.status_code, answer.json()["article_id"]) for answer in answers] == [(201, 1), (201, 1), (200, 1)]


async def test_a_hook_cannot_move_a_row(blog: Database) -> None:
    """A change whose hook sets another parent is rejected and rolled back."""

    class Moving(BaseModel):
        article: int
        text: str

    class MovingService(CRUDService[Comment, CommentIn, Moving]):
        async def update_values(self, data: Moving) -> dict[str, Any]:
            return {"article_id": data.article, "text": data.text}

    async with client_of(blog, MovingService, Comment.article_id) as client:
        moved = await client.patch("/articles/1/comments/1", json={"article": 2, "text": "moved"})
        stays = await client.patch("/articles/1/comments/1", json={"article": 1, "text": "stays"})

    assert (moved.status_code, stays.status_code) == (422, 200)
    assert await parents_of(blog) == [(1, 1), (2, 2)]


async def test_a_batch_is_stored_whole_under_its_parent(client: AsyncClient) -> None:
    """A batch keeps its order, and a conflict stores nothing."""
    created = await client.post("/articles/1/comments/batch", json=[{"text": "b"}, {"text": "a"}])
    rejected = await client.post("/articles/1/comments/batch", json=[{"text": "c"}, {"text": "a"}])

    assert (created.status_code, [row["text"] for row in created.json()]) == (201, ["b", "a"])
    assert rejected.status_code == 409
    assert (await client.get("/articles/1/comments")).json()["total"] == 3


async def test_an_invalid_parent_is_a_422(client: AsyncClient) -> None:
    """An invalid parent in the path is a 422, as an invalid key is."""
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/batch"), ("GET", "/1"), ("PATCH", "/1"), ("DELETE", "/1")):
        body: Any = {"text": "x"} if method in {"POST", "PATCH"} else None
        for article in ("x", "+1", "1.0", str(2**31), "%00", "9" * 5000):
            response = await client.request(method, f"/articles/{article}/comments{path}", json=[body] if path == "/batch" else body)

            assert response.status_code == 422, f"{method} {path} under {article[:10]}"
            assert [item["loc"] for item in response.json()["errors"]] == [["path", "article_id"]]


async def test_a_string_is_a_parent(blog: Database) -> None:
    """A string parent is escaped in Location; an unknown one is a 404 and an invalid one a 422."""
    async with blog.begin() as session:
        session.add(Word(text="ä b?"))

    async with client_of(blog, UsageService, Usage.word, read=UsageRead, prefix="/words/{word}/usages") as client:
        created = await client.post("/words/ä b%3F/usages", json={})
        path = created.headers["location"]
        found, other = await client.get(path), await client.get(path.replace("%C3%A4%20b%3F", "a"))
        unknown, impossible = await client.post("/words/a/usages", json={}), await client.get("/words/%00/usages")

    assert path == f"/words/%C3%A4%20b%3F/usages/{created.json()['id']}"
    assert [answer.status_code for answer in (found, other, unknown, impossible)] == [200, 404, 404, 422]


async def test_a_row_without_a_parent_is_a_404(blog: Database) -> None:
    """A row whose parent is null is under no parent, not even one called null."""
    async with blog.begin() as session:
        session.add(Word(text="null"))
        orphan = await UsageService(session).create({"word": None})

    async with client_of(blog, UsageService, Usage.word, read=UsageRead, prefix="/words/{word}/usages") as client:
        answers = [await client.request(method, f"/words/null/usages/{orphan.id}") for method in ("GET", "DELETE")]

    assert [answer.status_code for answer in answers] == [404, 404]


async def test_a_uuid_is_a_parent(blog: Database) -> None:
    """The parent in the path has the type of its column."""
    async with blog.begin() as session:
        session.add(Word(text="a"))
        await session.flush()
        usage = await UsageService(session).create({"word": "a"})

    async with client_of(blog, UsageService, Usage.part_of, read=PartRead, prefix="/usages/{part_of}/usages") as client:
        created = await client.post(f"/usages/{usage.id}/usages", json={})
        found = await client.get(created.headers["location"])
        unknown, impossible = await client.post(f"/usages/{uuid4()}/usages", json={}), await client.get("/usages/1/usages")

    assert found.json() == {"id": created.json()["id"], "part_of": str(usage.id)}
    assert (unknown.status_code, impossible.status_code) == (404, 422)


async def test_a_parent_may_be_part_of_the_key(blog: Database) -> None:
    """The prefix has the parent, and the path of a row has the rest of the key."""
    async with client_of(blog, LineService, Line.article_id, read=LineRead, prefix="/articles/{article_id}/lines") as client:
        created = await client.post("/articles/1/lines", json={"number": 7, "text": "a"})
        twin = await client.post("/articles/2/lines", json={"number": 7, "text": "b"})
        many = await client.post("/articles/2/lines/batch", json=[{"number": 9, "text": "d"}, {"number": 8, "text": "c"}])
        path = created.headers["location"]
        found, changed = await client.get(path), await client.patch(path, json={"text": "c"})
        listed, deleted = await client.get("/articles/1/lines"), await client.delete(path)
        left = await client.get(twin.headers["location"])

    assert (path, created.json()) == ("/articles/1/lines/7", {"number": 7, "text": "a", "usages": []})
    assert (found.json()["text"], changed.json()["text"], listed.json()["total"], deleted.status_code) == ("a", "c", 1, 204)
    assert [row["number"] for row in many.json()] == [9, 8]
    assert left.json()["text"] == "b"


async def test_a_parent_of_several_columns(blog: Database) -> None:
    """If one column of a composite foreign key is in the path, a failed reference is a 404."""

    class PlaceIn(BaseModel):
        line_number: int

    class PlaceService(CRUDService[Usage, PlaceIn, PlaceIn]): ...

    async with blog.begin() as session:
        await LineService(session).create({"article_id": 1, "number": 7, "text": "a"})

    async with client_of(blog, PlaceService, Usage.article_id, read=UsageRead, prefix="/articles/{article_id}/usages") as client:
        created = await client.post("/articles/1/usages", json={"line_number": 7})
        unknown = await client.post("/articles/9/usages", json={"line_number": 7})

    assert (created.status_code, unknown.status_code) == (201, 404)


async def test_statements_of_nested_endpoints(client: AsyncClient, blog: Database) -> None:
    """Reads and creates take no more statements than without a parent; an update and a delete take one more, which locks the row."""
    costs = {
        1: [("POST", "", {"text": "x"}), ("GET", "/1", None), ("POST", "/batch", [{"text": "y"}, {"text": "z"}])],
        2: [("GET", "", None), ("DELETE", "/3", None), ("PATCH", "/1", {"text": "changed"})],
    }
    for cost, requests in costs.items():
        for method, path, body in requests:
            with assert_max_queries(blog, cost) as log:
                response = await client.request(method, f"/articles/1/comments{path}", json=body)

            assert response.status_code < 300
            assert log.count == cost


async def test_a_change_and_its_check_are_one_transaction(blog: Database) -> None:
    """An error after the change rolls it back, and a session that never commits loses no change."""

    class RejectingService(CommentService):
        async def update(self, ident: object, data: Any, /, *, expected_version: int | None = None) -> Comment:
            row = await super().update(ident, data)
            if row.text == "rejected":
                raise PermissionDeniedError
            return row

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with blog.sessions() as session:
            yield session

    async with client_of(blog, RejectingService, Comment.article_id, session=get_db) as client:
        rejected = await client.patch("/articles/1/comments/1", json={"text": "rejected"})
        kept = await client.get("/articles/1/comments/1")
        changed = await client.patch("/articles/1/comments/1", json={"text": "changed"})
        deleted = await client.delete("/articles/2/comments/2")
        listed = await client.get("/articles/1/comments")

    assert (rejected.status_code, kept.json()["text"]) == (403, "of 1")
    assert (changed.status_code, deleted.status_code, listed.json()["items"][0]["text"]) == (200, 204, "changed")
    assert await parents_of(blog) == [(1, 1)]


@pytest.mark.parametrize(("method", "body"), [("PATCH", {"text": "x"}), ("DELETE", None)])
async def test_a_row_that_is_being_moved_is_waited_for(postgres_database: Database, method: str, body: object) -> None:
    """The row is locked before its parent is checked."""
    await postgres_database.create_tables(BlogBase.metadata)
    async with postgres_database.begin() as session:
        session.add_all([article(1), article(2)])
        await session.flush()
        session.add(Comment(id=1, article_id=1, text="a"))

    async with client_of(postgres_database, CommentService, Comment.article_id) as client:
        async with postgres_database.begin() as session:
            await CommentService(session).update(1, {"article_id": 2})
            request = asyncio.create_task(client.request(method, "/articles/1/comments/1", json=body))
            async with postgres_database.sessions() as watching:
                waits = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
                while not await watching.scalar(waits):
                    # Within a transaction PostgreSQL shows the same activity again and again.
                    await watching.rollback()
                    await asyncio.sleep(0.01)
        response = await request

    assert response.status_code == 404
    assert await parents_of(postgres_database) == [(1, 2)]


async def test_a_request_in_one_transaction(blog: Database) -> None:
    """Nested routes work with db.transaction."""
    async with client_of(blog, CommentService, Comment.article_id, session=blog.transaction) as client:
        answers = [
            await client.post("/articles/1/comments", json={"text": "x"}),
            await client.post("/articles/9/comments", json={"text": "y"}),
            await client.patch("/articles/1/comments/3", json={"text": "z"}),
            await client.delete("/articles/1/comments/3"),
        ]

    assert [answer.status_code for answer in answers] == [201, 404, 200, 204]


async def test_overrides_of_the_service_count_under_a_parent(blog: Database) -> None:
    """An overridden get_one() and base_query() count for the endpoints under a parent."""

    class PrivateService(CommentService):
        async def get_one(self, ident: object, **options: Any) -> Comment:
            raise PermissionDeniedError

    class HiddenService(CommentService):
        def base_query(self) -> Any:
            return super().base_query().where(Comment.text != "of 1")

    requests: list[tuple[str, object]] = [("GET", None), ("PATCH", {"text": "x"}), ("DELETE", None)]
    for service, status in ((PrivateService, 403), (HiddenService, 404)):
        async with client_of(blog, service, Comment.article_id) as client:
            answers = [await client.request(method, "/articles/1/comments/1", json=body) for method, body in requests]

        assert [answer.status_code for answer in answers] == [status] * 3
    assert await parents_of(blog) == [(1, 1), (2, 2)]


async def test_a_dependency_may_make_the_service(blog: Database) -> None:
    """service= and a parent work together."""

    async def get_service(session: Annotated[AsyncSession, blog.session]) -> CommentService:
        return CommentService(session)

    async with client_of(blog, CommentService, Comment.article_id, session=None, service=get_service) as client:
        assert (await client.get("/articles/1/comments/1")).status_code == 200
        assert (await client.get("/articles/2/comments/1")).status_code == 404


async def get_session() -> AsyncSession:
    return AsyncSession()


@pytest.mark.parametrize("prefix", ["/comments", "/articles/{id}/comments", "/articles/{article}/comments"])
async def test_a_prefix_without_the_parent_raises_at_startup(prefix: str) -> None:
    """A prefix that lacks the parameter of the parent raises ConfigurationError at start-up."""
    router = crud_router(
        CommentService, read=CommentRead, session=get_session, endpoints=Endpoint.LIST, options=RouterOptions(parent=Comment.article_id)
    )
    inner = APIRouter()
    inner.include_router(router, prefix=prefix)

    for app in (app_of(router, prefix=prefix), app_of(inner, prefix="/api")):
        with pytest.raises(ConfigurationError, match=r"needs \{article_id\} in the prefix"):
            async with app_client(app):
                pass


async def test_a_prefix_without_the_parent_in_a_mounted_app(blog: Database) -> None:
    """In a mounted app, whose lifespan does not run, requests without the parent are a 422."""
    router = crud_router(CommentService, read=CommentRead, session=blog.session, options=RouterOptions(parent=Comment.article_id))
    outer = FastAPI()
    outer.mount("/sub", app_of(router, prefix="/comments"))

    async with app_client(outer) as client:
        answers = [await client.get("/sub/comments"), await client.get("/sub/comments?article_id=1"), await client.get("/sub/comments/1")]

    assert [answer.status_code for answer in answers] == [422, 422, 422]


async def test_own_routes_need_no_parent(blog: Database) -> None:
    """Routes that the application adds to the router need no parameter of the parent."""
    router = crud_router(CommentService, read=CommentRead, session=blog.session, options=RouterOptions(parent=Comment.article_id))

    @router.get("/count")
    async def count(article_id: int) -> int:
        return article_id

    class Unhashable(list[int]):
        async def __call__(self) -> str:
            return "own"

    app = app_of(router, prefix=COMMENTS)
    app.add_api_route("/own", Unhashable(), name="own")
    app.include_router(router, prefix="/v2/{article_id:int}/comments")
    async with app_client(app) as client:
        assert (await client.get("/articles/1/comments/count")).json() == 1
        assert (await client.get("/v2/1/comments/1")).status_code == 200


@pytest.mark.parametrize("parent", [Article.id, "article_id", Line.usages, Comment.id])
def test_an_invalid_parent_option_raises(parent: Any) -> None:
    """A column of another model, a name, a relationship and the whole key raise ConfigurationError."""
    with pytest.raises(ConfigurationError, match="parent="):
        crud_router(CommentService, read=CommentRead, session=get_session, options=RouterOptions(parent=parent))


async def test_a_parent_of_the_base_class(blog: Database) -> None:
    """An inherited column can be the parent."""

    class DogRead(BaseModel):
        ident: int

    class DogService(CRUDService[Dog, Empty, Empty]): ...

    await blog.create_tables(ZooBase.metadata)
    for parent in (Animal.age, Dog.age):
        async with client_of(blog, DogService, parent, read=DogRead, prefix="/ages/{age}/dogs") as client:
            path = (await client.post("/ages/3/dogs", json={})).headers["location"]
            assert (await client.get(path)).status_code == 200
            assert (await client.get(path.replace("3", "4", 1))).status_code == 404


async def test_a_missing_parent_is_named_in_the_log(blog: Database) -> None:
    """NotFoundError names the model of the parent."""
    router = crud_router(CommentService, read=CommentRead, session=blog.session, options=RouterOptions(parent=Comment.article_id))
    app = FastAPI()
    app.include_router(router, prefix=COMMENTS)

    async with app_client(app, raise_errors=True) as client:
        with pytest.raises(NotFoundError, match="Article 9"):
            await client.post("/articles/9/comments", json={"text": "x"})
