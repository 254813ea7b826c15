"""HTTPException, FastAPI's own 404 and 405 included."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from httpx import AsyncClient
from tests.handlers.apps import Named, answer_to, client_of

from fastapi_kit.testing.client import app_client


async def test_an_unknown_path_is_a_problem(client: AsyncClient) -> None:
    """404 of the framework."""
    response = await client.get("/nope/4711")

    assert response.status_code == 404
    assert response.json() == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Not Found", "code": "not_found"}


async def test_a_wrong_method_is_a_problem_and_keeps_allow(client: AsyncClient) -> None:
    """405 of the framework."""
    response = await client.put("/items")

    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_allow_names_every_method_of_the_path() -> None:
    """A path is often several routes, and routers several deep (RFC 9110, 15.5.6)."""
    inner, outer = APIRouter(), APIRouter()
    inner.add_api_route("/{number}", Named, methods=["GET", "HEAD"])
    outer.add_api_route("/{number}", Named, methods=["PATCH"])
    outer.add_api_route("/{number}/more", Named, methods=["POST"])
    outer.include_router(inner)
    app, parent = FastAPI(), FastAPI()
    app.include_router(outer, prefix="/things")
    parent.mount("/api", app)

    async with client_of(app) as client, app_client(parent) as mounted:
        assert (await client.delete("/things/1")).headers["allow"] == "GET, HEAD, PATCH"
        assert (await mounted.delete("/api/things/1")).headers["allow"] == "GET, HEAD, PATCH"


async def test_allow_is_the_hosts_where_the_host_says_405() -> None:
    """An HTTPException raised by hand keeps its header."""
    assert (await answer_to(HTTPException(405, headers={"Allow": "POST"}))).headers["allow"] == "POST"


async def test_an_http_exception_keeps_text_and_headers(client: AsyncClient) -> None:
    """What the host raises by hand is the host's to say."""
    response = await client.get("/teapot")

    assert (response.status_code, response.json()["detail"], response.headers["x-pot"]) == (418, "short and stout", "tea")


async def test_fastapis_security_is_a_problem_with_a_challenge(client: AsyncClient) -> None:
    """FastAPI's own 401 keeps WWW-Authenticate."""
    response = await client.get("/locked")

    assert (response.status_code, response.json()["code"], response.headers["www-authenticate"]) == (401, "not_authenticated", "Bearer")


@pytest.mark.parametrize("status", [204, 304])
async def test_some_statuses_have_no_body(status: int) -> None:
    """204 and 304 end after the headers (RFC 9110, 15.3.5 and 15.4.5)."""
    response = await answer_to(HTTPException(status, headers={"ETag": '"1"'}))

    assert (response.status_code, response.content, response.headers["etag"]) == (status, b"", '"1"')


@pytest.mark.parametrize("detail", [{"left": 3}, ["a", {"b": None}], 7])
async def test_a_detail_that_is_no_text_is_kept_beside_one(detail: Any) -> None:
    """Detail stays text; the host's structure is under context."""
    body = (await answer_to(HTTPException(409, detail))).json()

    assert (body["detail"], body["context"]) == ("Conflict", detail)


async def test_a_detail_may_hold_anything() -> None:
    """What JSON cannot carry does not make a 4xx a 5xx, and an exception tells its kind only."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    detail = {"nan": float("nan"), "\ud800": "\udfff", "error": ValueError("secret"), "deep": deep, "set": {1}, "model": Named(name="n")}

    response = await answer_to(HTTPException(400, detail))
    context = response.json()["context"]

    assert response.status_code == 400
    assert (context["nan"], context["\\ud800"], context["error"], context["set"]) == (None, "\\udfff", "ValueError", [1])
    assert context["model"] == {"name": "n"}


class Untold:
    def __str__(self) -> str:
        raise RuntimeError


async def test_a_detail_without_a_text_is_its_kind() -> None:
    """What cannot be written does not crash the handler."""
    response = await answer_to(HTTPException(400, {"x": Untold()}))

    assert (response.status_code, response.json()["context"]) == (400, {"x": "<Untold whose text is a RuntimeError>"})
