"""The row of a path as a dependency, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Header
from fastapi.security import HTTPBearer
from httpx import AsyncClient
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.routing.models import NoteRead, SeatPlan, SeatPlanService, get_session
from tests.tables.blog import Article, BlogBase

from fastapi_kit.auth import require_access
from fastapi_kit.crud import FOR_UPDATE, CRUDService, ReadService
from fastapi_kit.db import Database
from fastapi_kit.errors import AuthenticationError, ConfigurationError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.routing import get_row_factory
from fastapi_kit.testing.client import app_client

REQUESTS = 20


class ArticleService(CRUDService[Article, NoteRead, NoteRead]): ...


class OwnArticles(ReadService[Article]):
    def __init__(self, session: AsyncSession, owner: str) -> None:
        super().__init__(session)
        self.owner = owner

    def base_query(self) -> Select[Article]:
        return super().base_query().where(Article.owner == self.owner)


scheme = HTTPBearer(auto_error=False)


async def get_user(credentials: Annotated[object, Depends(scheme)], user: Annotated[str | None, Header()] = None) -> str:
    if user is None:
        raise AuthenticationError
    return user


def app_of(db: Database) -> FastAPI:
    get_article = get_row_factory(ArticleService, session=db.session, name="article_id")
    get_by_slug = get_row_factory(ArticleService, session=db.session, key=Article.slug)
    get_by_title = get_row_factory(ArticleService, session=db.session, key=Article.title)
    get_locked = get_row_factory(ArticleService, session=db.transaction, lock=FOR_UPDATE)
    get_locked_of_session = get_row_factory(ArticleService, session=db.session, lock=FOR_UPDATE)
    get_plan = get_row_factory(SeatPlanService, session=db.session)
    get_permitted = require_access(get_user, get_article, check=lambda user, article: article.owner == user)

    async def get_own_articles(session: Annotated[AsyncSession, db.session], user: Annotated[str, Depends(get_user)]) -> OwnArticles:
        return OwnArticles(session, user)

    get_own = get_row_factory(OwnArticles, service=get_own_articles)
    app = FastAPI()
    register_exception_handlers(app)

    @app.get("/articles/{article_id}/slug")
    async def read(article: Annotated[Article, Depends(get_article)]) -> str:
        return article.slug

    @app.get("/permitted/{article_id}")
    async def read_permitted(article: Annotated[Article, Depends(get_permitted)]) -> str:
        return article.slug

    @app.get("/by-slug/{slug}")
    async def read_by_slug(article: Annotated[Article, Depends(get_by_slug)]) -> int:
        return article.id

    @app.get("/by-title/{title}")
    async def read_by_title(article: Annotated[Article, Depends(get_by_title)]) -> int:
        return article.id

    @app.get("/own/{id}")
    async def read_own(article: Annotated[Article, Depends(get_own)]) -> str:
        return article.slug

    @app.get("/plans/{hall}/{day}")
    async def read_plan(plan: Annotated[SeatPlan, Depends(get_plan)]) -> str:
        return f"{plan.hall}, {plan.day}"

    @app.post("/articles/{id}/like")
    async def like(article: Annotated[Article, Depends(get_locked)]) -> int:
        likes = article.likes
        await asyncio.sleep(0)
        article.likes = likes + 1
        return article.likes

    @app.post("/sessions/{id}/like")
    async def like_by_service(
        article: Annotated[Article, Depends(get_locked_of_session)], session: Annotated[AsyncSession, db.session]
    ) -> int:
        return (await ArticleService(session).update(article.id, {"likes": article.likes + 1})).likes

    @app.get("/locked/{id}")
    async def read_locked(article: Annotated[Article, Depends(get_locked_of_session)]) -> int:
        return article.likes

    return app


@pytest.fixture
async def client(database: Database) -> AsyncIterator[AsyncClient]:
    """A client of an app with two articles of Ada and Bob, and one seat plan."""
    await database.create_tables(BlogBase.metadata)
    async with database.begin() as session:
        session.add_all([Article(slug="a", title="A", owner="ada"), Article(slug="b", title="B", owner="bob")])
        session.add(SeatPlan(hall="A", day=date(2026, 1, 1), seats=9))
    async with app_client(app_of(database)) as client:
        yield client


async def test_a_route_gets_the_row_of_its_path(client: AsyncClient) -> None:
    """The row with the key in the path is there; a missing one is a 404, a key of another form a 422."""
    assert (await client.get("/articles/1/slug")).json() == "a"
    assert (await client.get("/articles/9/slug")).json()["code"] == "not_found"
    for key in ("x", "01", str(2**40)):
        assert (await client.get(f"/articles/{key}/slug")).status_code == 422


async def test_a_row_is_found_by_another_unique_column(client: AsyncClient) -> None:
    """key= takes the column in the path; a value of no row is a 404."""
    assert (await client.get("/by-slug/b")).json() == 2
    assert (await client.get("/by-slug/c")).status_code == 404
    assert (await client.get("/by-slug/%00")).status_code == 422


async def test_a_column_that_is_not_unique_never_picks_a_row(client: AsyncClient, database: Database) -> None:
    """Two rows with the value in the path are a 409."""
    async with database.begin() as session:
        session.add(Article(slug="c", title="A", owner="eve"))

    assert (await client.get("/by-title/B")).json() == 2
    assert (await client.get("/by-title/A")).json()["code"] == "multiple_matches"


async def test_a_composite_key_has_a_segment_for_each_column(client: AsyncClient) -> None:
    """The parameters are named as the attributes of the key."""
    assert (await client.get("/plans/A/2026-01-01")).json() == "A, 2026-01-01"
    assert (await client.get("/plans/A/2026-01-02")).status_code == 404


async def test_access_is_checked_after_the_user_is_known(client: AsyncClient) -> None:
    """With require_access: 401 without a user, whether the row exists or not, 404 for a missing row, 403 for the row of another."""
    statuses = {
        (path, user): (await client.get(f"/permitted/{path}", headers={"user": user} if user else {})).status_code
        for path in (1, 9)
        for user in ("ada", "bob", "")
    }

    assert statuses == {(1, "ada"): 200, (1, "bob"): 403, (1, ""): 401, (9, "ada"): 404, (9, "bob"): 404, (9, ""): 401}


async def test_a_service_limits_the_rows(client: AsyncClient) -> None:
    """The row is read through the service, so one outside its base_query is a 404."""
    assert (await client.get("/own/1", headers={"user": "ada"})).json() == "a"
    assert (await client.get("/own/2", headers={"user": "ada"})).status_code == 404


@pytest.mark.parametrize("path", ["/articles/1/like", "/sessions/1/like"])
async def test_a_locked_row_does_not_change_meanwhile(client: AsyncClient, path: str) -> None:
    """Read, change, write: 20 requests at once lose no increment, in one transaction or with a write that commits itself."""
    answers = await asyncio.gather(*(client.post(path) for _ in range(REQUESTS)))

    assert sorted(answer.json() for answer in answers) == list(range(1, REQUESTS + 1))


async def test_a_lock_ends_with_the_request(client: AsyncClient) -> None:
    """A route that only reads a locked row holds up no later one."""
    for _ in range(3):
        assert (await client.get("/locked/1")).json() == 0


def test_the_document_shows_the_errors() -> None:
    """OpenAPI shows the path parameter and 404, and with require_access 401 and 403."""
    db = Database("sqlite:///:memory:")
    paths = app_of(db).openapi()["paths"]
    plain, permitted = paths["/articles/{article_id}/slug"]["get"], paths["/permitted/{article_id}"]["get"]

    assert [(each["name"], each["schema"]["type"]) for each in plain["parameters"]] == [("article_id", "integer")]
    assert {"404", "422"} <= plain["responses"].keys()
    assert {"401", "403", "404"} <= permitted["responses"].keys()
    assert "application/problem+json" in plain["responses"]["404"]["content"]


def test_mistakes_are_found_at_once() -> None:
    """A column of another model, a name for a composite key, a service without a model and two sources are rejected."""
    with pytest.raises(ConfigurationError, match="not a column of Article"):
        get_row_factory(ArticleService, session=get_session, key=SeatPlan.seats)
    with pytest.raises(ConfigurationError, match="hall, day"):
        get_row_factory(SeatPlanService, session=get_session, name="plan")
    with pytest.raises(ConfigurationError, match="no model"):
        get_row_factory(ReadService, session=get_session)
    with pytest.raises(TypeError, match="exactly one"):
        get_row_factory(ArticleService)
