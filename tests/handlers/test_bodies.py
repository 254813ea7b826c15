"""The error body: the request id in it, and bodies of the application."""

import pytest
from fastapi import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.handlers.apps import SECRET, Named, answer_to, client_of, failing_app, realworld

from fastapi_kit.errors import ConflictError, NotFoundError
from fastapi_kit.handlers import Problem, legacy_body


@pytest.mark.parametrize(
    ("request_id", "instance"),
    [("0190163d-8694-739b-aea5-966c26f8ad91", "urn:uuid:0190163d-8694-739b-aea5-966c26f8ad91"), ("abc", None)],
)
async def test_a_known_request_id_is_in_the_body(request_id: str, instance: str | None) -> None:
    """The body has the request id, and a URN of it as instance if it is a UUID."""
    app = failing_app(NotFoundError(dict, 1))

    class Naming:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("state", {})["request_id"] = request_id
            await self.app(scope, receive, send)

    app.add_middleware(Naming)
    async with client_of(app) as client:
        body = (await client.get("/")).json()

    assert (body["request_id"], body.get("instance")) == (request_id, instance)


class BrandedProblem(Problem):
    brand: str = "acme"


async def test_an_application_may_have_its_own_body() -> None:
    """Any model can be the error body, and is sent as JSON for all kinds of errors."""
    for error, lines in [
        (ConflictError(["email"]), ["email is already taken"]),
        (HTTPException(404), ["Not Found"]),
        (ZeroDivisionError(), ["Internal Server Error"]),
    ]:
        response = await answer_to(error, body=realworld)

        assert response.headers["content-type"] == "application/json"
        assert response.json() == {"errors": {"body": lines}, "hint": None}


async def test_a_subclass_of_problem_is_a_problem() -> None:
    """A subclass of Problem keeps the media type."""
    response = await answer_to(NotFoundError(dict, 1), body=lambda problem: BrandedProblem(**problem.model_dump()))

    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["brand"] == "acme"


async def test_the_legacy_body_is_fastapis() -> None:
    """legacy_body keeps FastAPI's own bodies, without what the client sent."""
    app = failing_app(HTTPException(404, {"a": 1}))

    @app.post("/")
    async def create(item: Named) -> None:
        raise NotFoundError(dict, 1)

    async with client_of(app, body=legacy_body) as client:
        assert (await client.get("/")).json() == {"detail": {"a": 1}}
        assert (await client.post("/", json={"name": "n"})).json() == {"detail": "There is nothing here."}
        refused = await client.post("/", json={"name": 1, "password": SECRET})

    assert refused.headers["content-type"] == "application/json"
    assert refused.json() == {"detail": [{"type": "string_type", "loc": ["body", "name"], "msg": "Input should be a valid string"}]}
