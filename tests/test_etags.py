"""ETags and the headers of preconditions, without a database."""

from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from httpx import AsyncClient
from pydantic import BaseModel, Field
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.tables.library import Leaflet, Tag

from fastapi_kit.db import VersionMixin
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.etags import IfMatch, RequiredIfMatch, answer_with_etag, etag_of
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing.client import app_client


class Base(DeclarativeBase): ...


class Page(VersionMixin, Base):
    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True)


class Title(BaseModel):
    text: str = Field(serialization_alias="title")


class EmptyTitle(Title):
    def __len__(self) -> int:
        return 0


def test_a_tag_is_of_table_key_and_version() -> None:
    """Rows of other tables, keys and versions have other tags; the same row has the same in every process."""
    rows: list[Any] = [Page(id=1, version=1), Page(id=1, version=2), Page(id=2, version=1), Leaflet(id=1, version=1)]

    assert len({etag_of(row) for row in rows}) == len(rows)
    assert etag_of(rows[0]) == etag_of(Page(id=1, version=1)) == '"1-399a1584d8bdf913"'


def test_a_tag_of_a_response_is_of_its_bytes() -> None:
    """A schema has a tag of what is sent; with its row, of the version too, even if the schema is empty."""
    page = Page(id=1, version=3)

    assert etag_of(Title(text="a")) != etag_of(Title(text="b"))
    assert etag_of(page, shown=Title(text="a")) == etag_of(Title(text="a")).replace('"', '"3-', 1)
    assert etag_of(page, shown=EmptyTitle(text="a")) != etag_of(page)


def test_a_row_without_a_version_has_no_tag() -> None:
    """A row whose model counts no versions is a mistake, and the text names the cure."""
    with pytest.raises(ConfigurationError, match="VersionMixin"):
        etag_of(Tag(id=1))


def app_of(*, handlers: bool) -> FastAPI:
    app = FastAPI()
    if handlers:
        register_exception_handlers(app)

    @app.get("/title")
    async def read(request: Request, response: Response) -> Title:
        title = Title(text="a")
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Other"] = "1"
        answer_with_etag(title, request=request, response=response)
        return title

    @app.put("/optional")
    async def change(version: IfMatch) -> int | None:
        return version

    @app.put("/required")
    async def change_required(version: RequiredIfMatch) -> int:
        return version

    return app


@pytest.mark.parametrize("handlers", [True, False])
async def test_a_304_keeps_the_headers_of_a_cache(handlers: bool) -> None:
    """A 304 has the ETag and Cache-Control and no body, with the handlers of the library or FastAPI's."""
    async with app_client(app_of(handlers=handlers)) as client:
        read = await client.get("/title")
        again = await client.get("/title", headers={"If-None-Match": read.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert (again.headers["etag"], again.headers["cache-control"]) == (read.headers["etag"], "no-cache")
    assert "x-other" not in again.headers


async def versions(client: AsyncClient, path: str, *sent: str) -> tuple[int, Any]:
    answer = await client.put(path, headers=[("If-Match", each) for each in sent])
    return answer.status_code, answer.json() if answer.status_code == 200 else answer.json()["code"]


async def test_if_match_gives_the_version() -> None:
    """A tag of a row gives its version; *, or no header, gives None or a 428; everything else is a 412."""
    tag = etag_of(Page(id=1, version=7))
    async with app_client(app_of(handlers=True)) as client:
        assert await versions(client, "/optional", tag) == await versions(client, "/required", f" {tag} ") == (200, 7)
        assert await versions(client, "/optional") == await versions(client, "/optional", "*") == (200, None)
        assert await versions(client, "/required") == await versions(client, "/required", "*") == (428, "precondition_required")
        for sent in ((f"W/{tag}",), ('"7"',), ("",), (tag, tag), (f"{tag}, *",), (tag.upper(),), (etag_of(Title(text="a")),)):
            for path in ("/optional", "/required"):
                assert await versions(client, path, *sent) == (412, "precondition_failed"), sent


def test_the_document_shows_the_header_and_its_errors() -> None:
    """OpenAPI shows If-Match, 412, and 428 where it is required."""
    paths = app_of(handlers=True).openapi()["paths"]
    optional, required = paths["/optional"]["put"], paths["/required"]["put"]

    assert [(each["name"], each["in"]) for each in optional["parameters"]] == [("If-Match", "header")]
    assert "412" in optional["responses"]
    assert "428" not in optional["responses"]
    assert {"412", "428"} <= required["responses"].keys()
