"""HTTPException, FastAPI's own 404 and 405 included."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from httpx import AsyncClient
from tests.handlers.apps import Named, answer_to, client_of

from fastapi_kit.testing.client import app_client


async def test_an_unknown_path_is_a_problem(client: AsyncClient) -> None:
    """FastAPI's own 404 is a problem."""
    response = await client.get("/nope/4711")

    assert response.status_code == 404
    assert response.json() == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Not Found", "code": "not_found"}


async def test_a_wrong_method_is_a_problem_and_keeps_allow(client: AsyncClient) -> None:
    """FastAPI's own 405 is a problem and keeps its Allow header."""
    response = await client.put("/items")

    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_allow_names_every_method_of_the_path() -> None:
    """Allow names the methods of all routes with this path, in nested routers too (RFC 9110, 15.5.6)."""
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


async def test_a_405_of_the_application_keeps_its_allow() -> None:
    """An HTTPException(405) of the application keeps its own Allow header."""
    assert (await answer_to(HTTPException(405, headers={"Allow": "POST"}))).headers["allow"] == "POST"


async def test_an_http_exception_keeps_text_and_headers(client: AsyncClient) -> None:
    """An HTTPException of the application keeps its text and its headers."""
    response = await client.get("/teapot")

    assert (response.status_code, response.json()["detail"], response.headers["x-pot"]) == (418, "short and stout", "tea")


async def test_fastapis_security_is_a_problem_with_a_challenge(client: AsyncClient) -> None:
    """FastAPI's own 401 keeps WWW-Authenticate."""
    response = await client.get("/locked")

    assert (response.status_code, response.json()["code"], response.headers["www-authenticate"]) == (401, "not_authenticated", "Bearer")


@pytest.mark.parametrize("status", [204, 304])
async def test_some_statuses_have_no_body(status: int) -> None:
    """204 and 304 have no body (RFC 9110, 15.3.5 and 15.4.5)."""
    response = await answer_to(HTTPException(status, headers={"ETag": '"1"'}))

    assert (response.status_code, response.content, response.headers["etag"]) == (status, b"", '"1"')


@pytest.mark.parametrize("detail", [{"left": 3}, ["a", {"b": None}], 7])
async def test_a_detail_that_is_not_a_string_is_the_context(detail: Any) -> None:
    """A detail that is not a string is sent as context, and the detail is the phrase."""
    body = (await answer_to(HTTPException(409, detail))).json()

    assert (body["detail"], body["context"]) == ("Conflict", detail)


async def test_a_detail_may_hold_anything() -> None:
    """Objects that JSON cannot carry are replaced, and an exception shows only its class."""
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


async def test_an_object_whose_str_raises_is_its_class() -> None:
    """An object in the detail whose str() raises is sent as the name of its class."""
    response = await answer_to(HTTPException(400, {"x": Untold()}))

    assert (response.status_code, response.json()["context"]) == (400, {"x": "<Untold whose text is a RuntimeError>"})
