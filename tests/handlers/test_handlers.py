"""Errors, their statuses and their one body, over HTTP."""

import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Form, Header, HTTPException, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from httpx import AsyncClient
from httpx import Response as ClientResponse
from pydantic import BaseModel, ConfigDict, EmailStr, Field, FiniteFloat, Json, field_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import MetaData, String, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_kit.db import Database, DatabaseOptions
from fastapi_kit.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    FieldError,
    InsufficientScopeError,
    InvalidCredentialsError,
    InvalidDataError,
    InvalidQueryError,
    InvalidTokenError,
    KitError,
    MultipleMatchesError,
    NotFoundError,
    PermissionDeniedError,
    StaleVersionError,
    StillReferencedError,
    UnavailableError,
    UnknownReferenceError,
    UserInputError,
)
from fastapi_kit.handlers import (
    Problem,
    legacy_body,
    problem_response,
    problem_responses,
    register_exception_handlers,
    register_http_error_handler,
    register_integrity_error_handler,
    register_kit_error_handler,
    register_unavailable_error_handler,
    register_unhandled_error_handler,
    register_validation_error_handler,
    register_value_error_handler,
)
from fastapi_kit.middleware import UnhandledErrorMiddleware
from fastapi_kit.testing.client import app_client

JSON = {"Content-Type": "application/json"}


def failing_app(error: Exception) -> FastAPI:
    """An app without handlers, whose only route raises *error*."""
    app = FastAPI()

    @app.get("/")
    async def fail() -> None:
        raise error

    return app


async def answer_to(error: Exception, *, headers: dict[str, str] | None = None, **options: Any) -> ClientResponse:
    """What the client gets for *error* when all handlers are registered."""
    app = failing_app(error)
    register_exception_handlers(app, **options)
    async with app_client(app) as client:
        return await client.get("/", headers=headers)


@asynccontextmanager
async def client_of(app: FastAPI, **options: Any) -> AsyncIterator[AsyncClient]:
    register_exception_handlers(app, **options)
    async with app_client(app) as client:
        yield client


# --- The library's errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFoundError(dict, 7), 404, "not_found"),
        (MultipleMatchesError(dict, ["name"]), 409, "multiple_matches"),
        (ConflictError(["email"]), 409, "conflict"),
        (StaleVersionError(expected=1, found=2), 409, "stale_version"),
        (StillReferencedError(["id"]), 409, "still_referenced"),
        (InvalidDataError(["age"], reason="out_of_range"), 422, "invalid_data"),
        (UnknownReferenceError(["author_id"]), 422, "unknown_reference"),
        (UserInputError("sold in sixes"), 422, "invalid_input"),
        (InvalidQueryError("unknown filter"), 422, "invalid_query"),
        (AuthenticationError(), 401, "not_authenticated"),
        (InvalidCredentialsError(), 401, "invalid_credentials"),
        (InvalidTokenError("expired"), 401, "invalid_token"),
        (PermissionDeniedError(), 403, "permission_denied"),
        (InsufficientScopeError(frozenset({"a"})), 403, "insufficient_scope"),
        (UnavailableError("database"), 503, "unavailable"),
    ],
)
async def test_an_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    """One body for all: RFC 9457's members, the machine code, a text, and nothing empty."""
    response = await answer_to(error)
    body = response.json()

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert isinstance(body["detail"], str)
    assert isinstance(body["title"], str)
    assert None not in body.values()


async def test_the_text_for_logs_is_not_sent() -> None:
    """Str(error) names the key that was asked for; the client gets the fixed text of the code."""
    response = await answer_to(NotFoundError(dict, "4711-secret"))

    assert response.json()["detail"] == "There is nothing here."
    assert "4711" not in response.text


async def test_a_declared_text_is_sent() -> None:
    """An error may declare a text that is safe to send."""
    assert (await answer_to(UserInputError("sold in sixes"))).json()["detail"] == "sold in sixes"


async def test_fields_at_fault_are_named() -> None:
    """A conflict and a refused input say which fields."""
    conflict = await answer_to(ConflictError(["email"]))
    refused = await answer_to(UserInputError("no", errors=[FieldError(("body", "lines", 0), "not_a_six", "must be six")]))

    assert conflict.json()["errors"] == [{"loc": ["email"], "code": "conflict", "message": "is already taken"}]
    assert refused.json()["errors"] == [{"loc": ["body", "lines", 0], "code": "not_a_six", "message": "must be six"}]


async def test_a_refused_query_says_what_is_allowed() -> None:
    """The names that exist come with the refusal."""
    response = await answer_to(InvalidQueryError("unknown sort key", allowed=["name", "age"]))

    assert response.json()["context"] == {"allowed": ["name", "age"]}


async def test_a_stale_version_is_a_failed_precondition_where_there_was_one() -> None:
    """With If-Match the status is 412 (RFC 9110, 13.1.1)."""
    response = await answer_to(StaleVersionError(expected=1), headers={"If-Match": '"1"'})

    assert (response.status_code, response.json()["status"]) == (412, 412)


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        (AuthenticationError(), "Bearer"),
        (InvalidCredentialsError(), "Bearer"),
        (InvalidTokenError("expired"), 'Bearer error="invalid_token"'),
        (InsufficientScopeError(frozenset({"b", "a"})), 'Bearer error="insufficient_scope", scope="a b"'),
    ],
)
async def test_who_is_not_known_is_challenged(error: Exception, challenge: str) -> None:
    """R21, R22, R23: WWW-Authenticate says what is wrong with the token (RFC 6750, 3), and no more."""
    response = await answer_to(error)

    assert response.headers["www-authenticate"] == challenge
    assert "expired" not in response.text


@pytest.mark.parametrize(("given", "sent"), [(0.2, "1"), (1.0, "1"), (59.5, "60")])
async def test_try_again_later_says_when(given: float, sent: str) -> None:
    """Retry-After has whole seconds, rounded up."""
    assert (await answer_to(UnavailableError("x", retry_after=given))).headers["retry-after"] == sent


class OutOfStockError(KitError):
    code = "out_of_stock"
    detail = "We have only 12 of these."


class HostError(Exception):
    """Not the library's."""


async def test_a_hosts_error_gets_the_status_the_host_says() -> None:
    """*statuses* adds errors, the library's kind with their code and text, others with nothing of theirs."""
    own = await answer_to(OutOfStockError("left: 12"), statuses={OutOfStockError: 409})
    foreign = await answer_to(HostError("secret"), statuses={HostError: 402})

    assert (own.status_code, own.json()["code"], own.json()["detail"]) == (409, "out_of_stock", "We have only 12 of these.")
    assert (foreign.status_code, foreign.json()["code"], foreign.json()["detail"]) == (402, "payment_required", "Payment Required")


async def test_a_host_may_change_a_status() -> None:
    """*statuses* wins over the library's table, for database errors too."""
    assert (await answer_to(ConflictError(), statuses={ConflictError: 422})).status_code == 422


# --- Bugs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), ConfigurationError("secret"), OutOfStockError("secret"), OSError("secret")])
async def test_a_bug_is_a_500_that_tells_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """What has no status is answered, logged in one line without its text, and the connection is closed."""
    with caplog.at_level(logging.INFO, logger="fastapi_kit"):
        response = await answer_to(error)

    assert response.status_code == 500
    assert response.headers["connection"] == "close"
    assert response.json()["code"] == "internal_error"
    assert "secret" not in response.text + caplog.text
    assert [record.exc_info for record in caplog.records] == [None]


@pytest.mark.parametrize("error", [ZeroDivisionError(), ConfigurationError()])
async def test_a_bug_reaches_the_server(error: Exception) -> None:
    """The error itself is raised on, so that the server and OpenTelemetry see it."""
    app = failing_app(error)
    register_exception_handlers(app)

    async with app_client(app, raise_errors=True) as client:
        with pytest.raises(type(error)) as caught:
            await client.get("/")
    assert caught.value is error


@pytest.mark.parametrize("cors_first", [True, False])
async def test_a_500_passes_through_cors(cors_first: bool) -> None:
    """A browser may read the answer; the order of registration does not matter."""
    app = failing_app(ZeroDivisionError())
    if not cors_first:
        register_exception_handlers(app)
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])
    if cors_first:
        register_exception_handlers(app)

    async with app_client(app) as client:
        response = await client.get("/", headers={"Origin": "https://a.example"})
    assert response.status_code == 500
    assert response.headers["access-control-allow-origin"] == "https://a.example"


async def test_an_error_in_a_middleware_has_the_same_body() -> None:
    """Outside the innermost middleware the server's last resort answers, in the same shape."""

    class Failing:
        def __init__(self, app: ASGIApp) -> None:
            pass

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise ZeroDivisionError

    app = FastAPI()
    app.add_middleware(Failing)
    async with client_of(app) as client:
        response = await client.get("/")

    assert (response.status_code, response.json()["code"]) == (500, "internal_error")


async def sent_by(app: ASGIApp, *, http_version: str = "1.1") -> list[Any]:
    """What the last resort sends for an *app* that divides by zero."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": http_version, "headers": [], "method": "GET", "path": "/"}
    with pytest.raises(ZeroDivisionError):
        await UnhandledErrorMiddleware(app)(scope, receive, send)
    return sent


async def test_a_started_response_is_left_alone() -> None:
    """An error in a stream sends no second response; it is only raised on."""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    assert [message.get("status") for message in await sent_by(stream)] == [200]


@pytest.mark.parametrize(("version", "headers"), [("1.1", [b"close"]), ("2", [])])
async def test_http2_knows_no_connection_header(version: str, headers: list[bytes]) -> None:
    """HTTP/2 forbids it (RFC 9113, 8.2.2); without a host's answer there is a plain problem."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    start, body = await sent_by(fail, http_version=version)

    assert start["status"] == json.loads(body["body"])["status"] == 500
    assert [value for name, value in start["headers"] if name == b"connection"] == headers


# --- The framework's errors --------------------------------------------------------------------------------------------


class Cat(BaseModel):
    tag: Literal["cat"]


class Dog(BaseModel):
    tag: Literal["dog"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    password: Annotated[str, Field(min_length=8)] = "12345678"
    price: float = 0
    kind: Literal["cat", "dog"] = "cat"
    scores: dict[str, int] = {}
    email: EmailStr | None = None
    nested: list[Any] = []
    id: UUID | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="tag")] | None = None
    code: str = "ok"
    inner: dict[str, dict[str, int]] = {}
    text: Json[dict[str, int]] = {}
    choice: int | list[int] = 1
    street: Annotated[str, Field(alias="Straße 1")] = ""

    @field_validator("code")
    @classmethod
    def check_code(cls, code: str) -> str:
        match code.split():
            case ["echo", *_]:
                raise ValueError(f"what is {code}?")
            case ["shout", *_]:
                raise ValueError(f"what is {code[:20].upper()}...?")
            case ["bad"]:
                raise ValueError("must be a known code")
            case ["assert"]:
                raise AssertionError("must hold")
            case ["input"]:
                raise UserInputError("the code input is not taken")
            case ["custom"]:
                raise PydanticCustomError("no_code", "has no such code")
            case ["names", name]:
                raise PydanticCustomError("alone", "goes with {field} only", {"field": name})
        return code


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    app = FastAPI()

    @app.post("/items")
    async def create(item: Strict) -> None:
        pass

    @app.get("/items/{number}")
    async def read(number: int, page: float = 1) -> None:
        pass

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout", headers={"X-Pot": "tea"})

    @app.get("/locked", dependencies=[Depends(HTTPBearer())])
    async def locked() -> None:
        pass

    async with client_of(app) as client:
        yield client


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


class Named(BaseModel):
    name: str


async def test_a_refused_body_names_fields(client: AsyncClient) -> None:
    """422 of the framework: where, which rule, and a text."""
    response = await client.post("/items", json={"name": 1, "kind": "cow"})

    assert response.status_code == 422
    assert response.json()["code"] == "invalid_request"
    assert response.json()["errors"] == [
        {"loc": ["body", "name"], "code": "string_type", "message": "Input should be a valid string"},
        {"loc": ["body", "kind"], "code": "literal_error", "message": "Input should be 'cat' or 'dog'"},
    ]


async def test_the_schemas_own_texts_are_always_shown(client: AsyncClient) -> None:
    """A value that happens to be a word of pydantic's text hides nothing, and one it would quote is not quoted."""
    response = await client.post("/items", json={"name": ["should"], "kind": "Input", "id": "zq", "pet": {"tag": "zq"}})

    assert [item["message"] for item in response.json()["errors"]] == [
        "Input should be a valid string",
        "Input should be 'cat' or 'dog'",
        "Input should be a valid UUID",
        "Input should have one of the expected tags",
    ]


SECRET = "hunter2-hunter2-hunter2"


@pytest.mark.parametrize(
    "item",
    [
        {"password": SECRET},  # name is missing: FastAPI shows the whole body
        {"name": {"deep": SECRET}},
        {"name": "n", "price": SECRET},
        {"name": "n", "kind": SECRET},
        {"name": "n", "email": f"{SECRET}@@"},
        {"name": "n", "scores": {"a": SECRET}},
        {"name": "n", "unknown": SECRET},
        {"name": "n", "code": f"echo {SECRET}"},
        {"name": "n", "code": f"shout {SECRET}"},
        SECRET,
        [SECRET],
    ],
)
async def test_what_was_sent_is_not_sent_back(client: AsyncClient, item: Any) -> None:
    """No value of the request is in the answer, whoever wrote the message."""
    response = await client.post("/items", json=item)

    assert response.status_code == 422
    assert SECRET[:7].lower() not in response.text.lower()


async def test_what_was_sent_in_the_address_is_not_sent_back(client: AsyncClient) -> None:
    """Neither path nor query come back."""
    response = await client.get(f"/items/{SECRET}?page={SECRET}")

    assert response.status_code == 422
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("bad", "is not valid"),
        ("assert", "is not valid"),
        ("echo abc", "is not valid"),
        ("input", "the code input is not taken"),
        ("custom", "has no such code"),
        ("names code", "goes with code only"),
        ("names hunter2", "is not valid"),
    ],
)
async def test_a_validators_text_is_shown_if_it_is_declared_safe(client: AsyncClient, code: str, message: str) -> None:
    """UserInputError, and a template with nothing but names of the schema; a bare ValueError may hold anything."""
    response = await client.post("/items", json={"name": "n", "code": code})

    assert [item["message"] for item in response.json()["errors"]] == [message]


@pytest.mark.parametrize("value", ["hun", "h", "7", "12"])
async def test_not_even_a_short_value_is_sent_back(client: AsyncClient, value: str) -> None:
    """What is too short to be looked for in a text is not told either."""
    response = await client.post("/items", json={"name": "n", "code": f"echo {value}"})

    assert [item["message"] for item in response.json()["errors"]] == ["is not valid"]


async def test_keys_that_the_client_chose_are_not_sent_back(client: AsyncClient) -> None:
    """In a dict, at any depth, and in JSON within a text; fields, labels of unions and aliases of any spelling stay."""
    item = {"scores": {"hunter2": "x"}, "inner": {"hunter2": {"hunter3": "x"}}, "text": '{"hunter2": "x"}', "choice": {}, "Straße 1": 1}
    response = await client.post("/items", json=item)

    assert [item["loc"][1:] for item in response.json()["errors"]] == [
        ["name"],
        ["scores", "*"],
        ["inner", "*", "*"],
        ["text", "*"],
        ["choice", "int"],
        ["choice", "list[int]"],
        ["Straße 1"],
    ]


async def test_a_key_of_the_schemas_words_and_something_else_is_the_clients(client: AsyncClient) -> None:
    """Not a single sign of it is told."""
    keys = ["name!hunter2", "name 4111111111111111", "4111name", "name!", "1", "\ud800", "name\n"]
    body = json.dumps({"name": "n", "scores": dict.fromkeys(keys, "x")})
    response = await client.post("/items", content=body, headers=JSON)

    assert {item["loc"][2] for item in response.json()["errors"]} == {"*"}


async def test_parameters_of_dependencies_and_included_routers_are_known() -> None:
    """Wherever a route has its parameters from, they are named."""

    def page(
        size: Annotated[int, Query(alias="page[size]")] = 1, x_odd: Annotated[int, Header()] = 1, visits: Annotated[int, Cookie()] = 1
    ) -> None: ...

    router, app = APIRouter(), FastAPI()

    @router.post("/{number}")
    async def read(number: int, item: Named, note: Annotated[str, Body()]) -> None: ...

    app.include_router(router, prefix="/in", dependencies=[Depends(page)])
    async with client_of(app) as client:
        client.cookies["visits"] = "x"
        response = await client.post("/in/x?page[size]=x", json={"item": {"name": 1}}, headers={"X-Odd": "x"})

    found = {tuple(item["loc"]) for item in response.json()["errors"]}
    assert found == {
        ("path", "number"),
        ("query", "page[size]"),
        ("header", "x-odd"),
        ("cookie", "visits"),
        ("body", "item", "name"),
        ("body", "note"),
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [("colour", "colour"), ("$ref", "$ref"), ("page[size]", "page[size]"), ("my secret", "*"), ("a@b.example", "*"), ("x" * 65, "*")],
)
async def test_an_unknown_field_is_named_if_that_is_a_name(client: AsyncClient, name: str, shown: str) -> None:
    """A typing error can be found, and a value that stands where a name should is not told."""
    response = await client.post("/items", json={"name": "n", name: 1})

    assert [item["loc"] for item in response.json()["errors"]] == [["body", shown]]


async def test_an_unknown_field_of_a_service_is_named_if_that_is_a_name() -> None:
    """The same where an open schema lets it through to the model."""
    response = await answer_to(InvalidDataError(["colour", "my secret"], reason="unknown_field"))

    assert [item["loc"] for item in response.json()["errors"]] == [["colour"], ["*"]]


async def test_the_number_of_errors_is_bounded() -> None:
    """A small request cannot make a huge answer."""
    app = FastAPI()

    @app.post("/")
    async def create(items: list[Named]) -> None:
        pass

    async with client_of(app) as client:
        response = await client.post("/", json=[{}] * 5000)
    assert len(response.json()["errors"]) == 100


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b'{"name": ', 422),
        (b'{"name": "\xff"}', 400),
        (b"\xff\xfe\x00", 400),
        (rb'{"name": "n", "price": "\ud800"}', 422),
        (rb'{"\ud800": 1}', 422),
        (rb'{"name": "n", "scores": {"\udfff": "x"}}', 422),
        (b'{"name": NaN}', 422),
        (b'{"name": "n", "scores": {"a": NaN}}', 422),
        (b'{"name": "n", "price": Infinity, "unknown": -Infinity}', 422),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"name":' + b"[" * 500 + b"]" * 500 + b"}", 422),
        (b'{"name": ' + b"1" * 5000 + b"}", 400),
        (b'{"name": ' + b"1" * 4000 + b"}", 422),
        (b"null", 422),
        (b"\x00", 422),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_hostile_bodies_are_the_clients_fault(client: AsyncClient, content: bytes, status: int) -> None:
    """Broken JSON, lone surrogates, NaN, huge numbers and deep nesting are never a 5xx."""
    response = await client.post("/items", content=content, headers=JSON)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a" * 500, ""])
async def test_a_wrong_content_type_is_a_problem(client: AsyncClient, content_type: str) -> None:
    """JSON that is not called JSON."""
    response = await client.post("/items", content=b'{"name": "n"}', headers={"Content-Type": content_type})

    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("path", ["/items/%ff", "/items/%00", "/items/%ED%A0%80", f"/items/{'9' * 5000}", "/items/1?page=%ff", "/%ff"])
async def test_hostile_addresses_are_the_clients_fault(client: AsyncClient, path: str) -> None:
    """Bytes that are no text, NUL and huge numbers in path and query are never a 5xx."""
    response = await client.get(path)

    assert response.status_code in {404, 422}
    assert response.headers["content-type"] == "application/problem+json"


# --- What cannot be sent back -------------------------------------------------------------------------------------------


async def as_dict(data: dict[str, Any]) -> dict[str, Any]:
    return data


async def as_any(data: Annotated[Any, Body()]) -> Any:
    return data


def in_thread(data: dict[str, Any]):  # type: ignore[no-untyped-def]
    return data


async def as_response(data: dict[str, Any]) -> Response:
    return JSONResponse(data)


async def by_hand(request: Request) -> Response:
    return JSONResponse(await request.json())


async def as_model(data: dict[str, Any]) -> Named:
    return Named.model_construct(name=data.get("a", data))


async def deep_in_it(data: dict[str, Any]) -> int:
    def depth(value: Any) -> int:
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    return depth(data["a"])


LONE, DEEP = rb'{"a": "\ud800"}', b'{"a": ' + b"[" * 400 + b"]" * 400 + b"}"


@pytest.mark.parametrize(
    ("route", "content", "code"),
    [
        *((route, LONE, "invalid_text") for route in (as_dict, as_any, in_thread, as_response, by_hand, as_model)),
        (as_dict, rb'[{"a": {"\udfff": 1}}]'[1:-1], "invalid_text"),
        *((route, b'{"a": [NaN]}', "out_of_range") for route in (in_thread, as_response, by_hand)),
        (as_response, b'{"a": 1e400}', "out_of_range"),
        *((route, DEEP, "too_deep") for route in (as_dict, as_any)),
        (deep_in_it, DEEP.replace(b"[", b"[" * 2).replace(b"]", b"]" * 2), "too_deep"),
    ],
)
async def test_what_a_route_cannot_send_back_is_the_clients_fault(route: Callable[..., Any], content: bytes, code: str) -> None:
    """Lone surrogates, NaN and deep nesting in an untyped body are no 5xx, however the route answers."""
    app = FastAPI()
    app.post("/")(route)

    async with client_of(app) as client:
        response = await client.post("/", content=content, headers=JSON)

    assert response.status_code == 422
    assert [(item["loc"], item["code"]) for item in response.json()["errors"]] == [(["body"], code)]


async def test_a_number_that_is_none_is_the_clients_fault_wherever_it_came_from() -> None:
    """A float in query, path, header, cookie or form is NaN if the client says so."""
    app = FastAPI()

    @app.post("/{x}")
    async def echo(
        x: float, q: float = 0, h: Annotated[float, Header()] = 0, c: Annotated[float, Cookie()] = 0, f: Annotated[float, Form()] = 0
    ):  # type: ignore[no-untyped-def]
        return [x, q, h, c, f]

    async with client_of(app) as client:
        answers = [
            await client.post("/nan"),
            await client.post("/1?q=-inf"),
            await client.post("/1", headers={"H": "1e999"}),
            await client.post("/1", headers={"Cookie": "c=NaN"}),
            await client.post("/1", data={"f": "Infinity"}),
            await client.post("/1"),
        ]

    assert [answer.json()["errors"][0]["loc"][0] for answer in answers[:-1]] == ["path", "query", "header", "cookie", "body"]
    assert answers[-1].json() == [1, 0, 0, 0, 0]


class Ratio(BaseModel):
    ratio: FiniteFloat


@pytest.mark.parametrize("content", [b"{}", b'{"a": "text", "b": 1e308, "c": [[1]]}', b'{"a": '])
async def test_what_the_host_cannot_send_is_a_bug(content: bytes) -> None:
    """The same errors stay a 500 where the request has nothing of the kind."""
    deep: Any = []
    for _ in range(5000):
        deep = [deep]

    async def text() -> Any:
        return "\ud800"

    async def number() -> Response:
        return JSONResponse(float("nan"))

    async def nested() -> Any:
        return deep

    async def ascii_only() -> bytes:
        return "é".encode("ascii")

    async def unfit() -> Ratio:
        return {"ratio": float("nan")}  # type: ignore[return-value]

    for route in (text, number, nested, ascii_only, unfit):
        app = FastAPI()
        app.post("/")(route)
        async with client_of(app) as client:
            assert (await client.post("/", content=content, headers=JSON)).status_code == 500


@pytest.mark.parametrize("hosts_first", [True, False])
async def test_the_hosts_handler_of_value_errors_stays(hosts_first: bool) -> None:
    """Registering ours does not undo what an app does with its ValueErrors."""
    app = failing_app(ValueError("odd"))

    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"mine": True}, 410)

    if not hosts_first:
        register_exception_handlers(app)
    app.add_exception_handler(ValueError, answer)
    if hosts_first:
        register_exception_handlers(app)

    async with app_client(app) as client:
        assert (await client.get("/")).status_code == 410


async def test_a_second_registrar_takes_nothing_away() -> None:
    """An error of a text is the database's or the answer's."""
    app = FastAPI()
    app.post("/")(as_response)
    register_exception_handlers(app)
    register_integrity_error_handler(app)

    async with app_client(app) as client:
        assert (await client.post("/", content=LONE, headers=JSON)).status_code == 422


# --- Request id ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_id", "instance"),
    [("0190163d-8694-739b-aea5-966c26f8ad91", "urn:uuid:0190163d-8694-739b-aea5-966c26f8ad91"), ("abc", None)],
)
async def test_a_known_request_id_is_in_the_body(request_id: str, instance: str | None) -> None:
    """Instance is the id, never the path; an id that is no UUID makes no URN."""
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


# --- Other bodies -------------------------------------------------------------------------------------------------------


class ErrorList(BaseModel):
    body: list[str]


class RealWorldError(BaseModel):
    errors: ErrorList
    hint: str | None = None


def realworld(problem: Problem) -> RealWorldError:
    lines = [f"{item.loc[-1]} {item.message}" for item in problem.errors or ()]
    return RealWorldError(errors=ErrorList(body=lines or [problem.detail]))


class BrandedProblem(Problem):
    brand: str = "acme"


async def test_a_host_may_have_a_body_of_its_own() -> None:
    """Any model, sent as JSON as it is, for errors of every family."""
    for error, lines in [
        (ConflictError(["email"]), ["email is already taken"]),
        (HTTPException(404), ["Not Found"]),
        (ZeroDivisionError(), ["Internal Server Error"]),
    ]:
        response = await answer_to(error, body=realworld)

        assert response.headers["content-type"] == "application/json"
        assert response.json() == {"errors": {"body": lines}, "hint": None}


async def test_a_bigger_problem_is_still_a_problem() -> None:
    """A subclass of Problem keeps the media type."""
    response = await answer_to(NotFoundError(dict, 1), body=lambda problem: BrandedProblem(**problem.model_dump()))

    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["brand"] == "acme"


async def test_the_legacy_body_is_fastapis() -> None:
    """Hosts whose clients know FastAPI's shapes keep them, without what was sent."""
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


# --- Errors of hand-written database code --------------------------------------------------------------------------------


class HostBase(DeclarativeBase):
    metadata = MetaData()


class Person(HostBase):
    __tablename__ = "persons"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(20), unique=True)


def writing_app(database: Database) -> FastAPI:
    app = FastAPI()

    @app.post("/{email}")
    async def create(email: str) -> None:
        async with database.engine.begin() as connection:
            await connection.execute(insert(Person).values(email=None if email == "null" else email.replace("NUL", "\0")))

    return app


@pytest.mark.parametrize("register", [register_exception_handlers, register_integrity_error_handler])
async def test_a_refused_write_of_the_hosts_is_no_500(database: Database, register: Callable[[FastAPI], None]) -> None:
    """Unique 409, null 422, the field named, nothing of the SQL told."""
    await database.create_tables(HostBase.metadata)
    app = writing_app(database)
    register(app)

    async with app_client(app) as client:
        answers = [await client.post(f"/{email}") for email in ("a@example", "a@example", "null")]

    assert [answer.status_code for answer in answers] == [200, 409, 422]
    assert [answer.json()["code"] for answer in answers[1:]] == ["conflict", "invalid_data"]
    assert "email" in answers[2].json()["errors"][0]["loc"]
    assert not [answer for answer in answers[1:] if "INSERT" in answer.text or "a@example" in answer.text]


async def test_values_that_postgresql_refuses_are_no_500(postgres_database: Database) -> None:
    """Too long texts and NUL arrive as errors that are no IntegrityError."""
    await postgres_database.create_tables(HostBase.metadata)

    async with client_of(writing_app(postgres_database)) as client:
        answers = [await client.post(f"/{email}") for email in ("x" * 21, "NUL")]

    assert [answer.status_code for answer in answers] == [422, 422]


def reading_app(database: Database) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def read() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    return app


@pytest.mark.parametrize("register", [register_exception_handlers, register_unavailable_error_handler])
async def test_a_lost_database_is_a_503(register: Callable[[FastAPI], None]) -> None:
    """Asyncpg's raw ConnectionRefusedError becomes 503 with Retry-After, without the address."""
    database = Database("postgresql+asyncpg://someone:secret@127.0.0.1:1/db")
    app = reading_app(database)
    register(app)

    async with app_client(app) as client:
        response = await client.get("/")
    await database.dispose()

    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (503, "unavailable", "1")
    assert not [part for part in ("someone", "secret", "127.0.0.1") if part in response.text]


async def test_a_503_is_logged_by_its_kinds(caplog: pytest.LogCaptureFixture) -> None:
    """An operator sees what was lost; the log knows no address and no text of the driver."""
    database = Database("postgresql+asyncpg://someone:secret@127.0.0.1:1/db")
    app = reading_app(database)

    async with client_of(app) as client:
        await client.get("/")
    with_cause = UnavailableError("cache")
    with_cause.__cause__ = ConnectionResetError("10.0.0.1")
    await answer_to(with_cause)
    await database.dispose()

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "Request None is answered 503: ConnectionRefusedError"),
        ("WARNING", "Request None is answered 503: UnavailableError from ConnectionResetError"),
    ]


async def test_an_exhausted_pool_is_a_503(tmp_path: Path) -> None:
    """No connection to be had in time is worth a retry."""
    options = DatabaseOptions(pool_size=1, max_overflow=0, pool_timeout=0.01)
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'small.db'}", options=options)

    async with client_of(reading_app(database)) as client, database.engine.connect():
        response = await client.get("/")
    await database.dispose()

    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


NO_TEXT = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")


@pytest.mark.parametrize("error", [FileNotFoundError("a"), ConnectionRefusedError("mail"), TimeoutError(), OverflowError(), NO_TEXT])
async def test_errors_that_are_not_the_databases_are_bugs(error: Exception) -> None:
    """The host's own files, sockets and numbers are not taken for a lost database."""
    assert (await answer_to(error)).status_code == 500


async def test_a_mistake_in_sql_is_a_bug(database: Database) -> None:
    """Wrong SQL is the host's fault and told to nobody."""
    app = FastAPI()

    @app.get("/")
    async def read() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT nonsense"))

    async with client_of(app) as client:
        response = await client.get("/")
    assert response.status_code == 500
    assert "nonsense" not in response.text


# --- Registration -------------------------------------------------------------------------------------------------------


async def test_each_registrar_takes_its_family_only() -> None:
    """An app that exists may take one and keep FastAPI's answers to the rest."""
    register: Callable[[FastAPI], None]
    for register, error, status in [
        (register_kit_error_handler, NotFoundError(dict, 1), 404),
        (register_http_error_handler, HTTPException(409), 409),
        (register_value_error_handler, ValueError("odd"), 400),
        (register_unhandled_error_handler, ZeroDivisionError(), 500),
    ]:
        app = failing_app(error)
        register(app)
        async with app_client(app) as client:
            own, foreign = await client.get("/"), await client.get("/nope")

        assert (own.status_code, own.headers["content-type"]) == (status, "application/problem+json")
        assert (foreign.json() == {"detail": "Not Found"}) is (register is not register_http_error_handler)


async def test_the_validation_registrar_takes_the_422() -> None:
    """The rest stays FastAPI's."""
    app = FastAPI()
    register_validation_error_handler(app)

    @app.get("/{number}")
    async def read(number: int) -> None:
        raise HTTPException(404)

    async with app_client(app) as client:
        assert (await client.get("/x")).json()["code"] == "invalid_request"
        assert (await client.get("/1")).json() == {"detail": "Not Found"}


async def test_two_database_registrars_do_not_push_each_other_out(database: Database) -> None:
    """Both families may arrive as the same class."""
    await database.create_tables(HostBase.metadata)
    lost = Database("postgresql+asyncpg://127.0.0.1:1/db")
    for registrars in (
        [register_integrity_error_handler, register_unavailable_error_handler],
        [register_unavailable_error_handler, register_integrity_error_handler],
    ):
        writing, reading = writing_app(database), reading_app(lost)
        for register in registrars:
            register(writing)
            register(reading)
        async with app_client(writing) as writer, app_client(reading) as reader:
            assert (await writer.post("/null")).status_code == 422
            assert (await reader.get("/")).status_code == 503
    await lost.dispose()


async def test_value_errors_are_bugs_unless_the_host_says_otherwise() -> None:
    """A ValueError is a 500; UserInputError is shown; the registrar of the page's pattern is opt-in and has a status of its own."""
    assert (await answer_to(ValueError("secret"))).status_code == 500
    assert (await answer_to(UserInputError("shown"))).json()["detail"] == "shown"

    app = failing_app(ValueError("odd"))
    register_exception_handlers(app)
    register_value_error_handler(app, status=422)
    async with app_client(app) as client:
        response = await client.get("/")
    assert (response.status_code, response.json()["detail"], response.json()["code"]) == (422, "odd", "invalid_input")


async def test_a_failed_model_is_a_bug_even_then() -> None:
    """Pydantic's ValidationError is a ValueError whose text is full of values."""
    app = FastAPI()
    register_value_error_handler(app)
    register_unhandled_error_handler(app)

    @app.get("/")
    async def read() -> None:
        Named.model_validate({"name": [SECRET]})

    async with app_client(app) as client:
        response = await client.get("/")
    assert response.status_code == 500
    assert SECRET not in response.text


async def test_registering_twice_is_harmless_and_the_last_wins() -> None:
    """One middleware, one body."""
    app = failing_app(ZeroDivisionError())
    register_exception_handlers(app, body=realworld)
    register_exception_handlers(app)

    async with app_client(app) as client:
        assert (await client.get("/")).json()["code"] == "internal_error"
    assert len([middleware for middleware in app.user_middleware if str(middleware).startswith("Middleware(UnhandledError")]) == 1


async def test_routes_may_come_before_or_after() -> None:
    """Registration needs no order relative to routes, routers and middleware."""
    app = FastAPI()
    register_exception_handlers(app)
    router = APIRouter()

    @router.get("/")
    async def fail() -> None:
        raise NotFoundError(dict, 1)

    app.include_router(router, prefix="/a")
    async with app_client(app) as client:
        assert (await client.get("/a/")).json()["code"] == "not_found"


async def test_registering_too_late_is_refused() -> None:
    """After the first request it would have no effect, silently."""
    app = FastAPI()
    async with app_client(app) as client:
        await client.get("/")

    with pytest.raises(ConfigurationError):
        register_exception_handlers(app)


async def test_the_hosts_narrower_handler_goes_first() -> None:
    """Adopting the library does not undo what an app has already."""
    app = failing_app(OutOfStockError())

    @app.exception_handler(OutOfStockError)
    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"mine": True}, 410)

    async with client_of(app) as client:
        response = await client.get("/")
    assert (response.status_code, response.json()) == (410, {"mine": True})


# --- For middleware and documents ---------------------------------------------------------------------------------------


def answering_app(answer: Callable[[Request], Awaitable[Response]]) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/", answer, response_model=None)
    return app


@pytest.mark.parametrize(("error", "status"), [(UnavailableError("x"), 503), (HTTPException(413), 413), (ZeroDivisionError(), 500)])
async def test_a_middleware_can_answer_like_the_app(error: Exception, status: int) -> None:
    """With the app's body where handlers are registered, with the default where none are."""

    async def answer(request: Request) -> Response:
        return problem_response(request, error)

    async with app_client(answering_app(answer)) as client:
        plain = await client.get("/")
    async with client_of(answering_app(answer), body=realworld) as client:
        own = await client.get("/")

    assert (plain.status_code, plain.json()["status"]) == (status, status)
    assert (own.status_code, list(own.json())) == (status, ["errors", "hint"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError(dict, 7), 404),
        (HTTPException(404), 404),
        (HostError(), 418),
        (UnavailableError("database"), 503),
        (ValueError("x"), 400),
    ],
)
async def test_a_handler_in_the_place_of_ours_can_answer_like_the_app(error: Exception, status: int) -> None:
    """The body and the statuses are those that were registered, whoever handles the error."""
    app = failing_app(error)

    @app.exception_handler(type(error))
    async def own(request: Request, error: Exception) -> Response:
        return problem_response(request, error)

    register_value_error_handler(app, body=realworld)
    async with client_of(app, body=realworld, statuses={HostError: 418}) as client:
        app.add_exception_handler(type(error), own)
        answer = await client.get("/")

    assert (answer.status_code, list(answer.json())) == (status, ["errors", "hint"])


async def test_the_last_registrar_says_how_a_middleware_answers() -> None:
    """An earlier body and earlier statuses are gone, as they are from the handlers."""

    async def answer(request: Request) -> Response:
        return problem_response(request, HostError())

    app = answering_app(answer)
    register_exception_handlers(app, body=realworld, statuses={HostError: 418})
    async with client_of(app) as client:
        answered = await client.get("/")

    assert (answered.status_code, answered.json()["code"]) == (500, "internal_error")


async def test_a_mounted_app_answers_in_its_own_body() -> None:
    """The inner app's in the inner app, its own middleware included; the outer app's around it."""

    class Refusing:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"].endswith("/refused"):
                await problem_response(Request(scope), PermissionDeniedError())(scope, receive, send)
            else:
                await self.app(scope, receive, send)

    async def fails(request: Request) -> Response:
        return problem_response(request, NotFoundError(dict, 7))

    outer, inner, bare = answering_app(fails), answering_app(fails), answering_app(fails)
    inner.add_middleware(Refusing)
    register_exception_handlers(inner, body=realworld)
    outer.mount("/inner", inner)
    outer.mount("/bare", bare)
    async with client_of(outer, body=legacy_body) as client:
        answers = [await client.get(path) for path in ("/", "/inner/", "/inner/refused", "/bare/")]

    assert [answer.status_code for answer in answers] == [404, 404, 403, 404]
    assert [next(iter(answer.json())) for answer in answers] == ["detail", "errors", "errors", "type"]


async def test_gunicorns_worker_leaves_the_traceback_to_the_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """That server logs no error whose answer is complete; over HTTP/2, and where the answer had begun, it does."""

    async def breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def drop(message: Any) -> None: ...

    monkeypatch.setitem(sys.modules, "gunicorn.workers.gasgi", sys)
    for app, version in ((fails, "1.1"), (breaks_off, "1.1"), (fails, "2")):
        with pytest.raises(ZeroDivisionError):
            await UnhandledErrorMiddleware(app)({"type": "http", "http_version": version}, never, drop)

    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]


async def never() -> Any:
    raise AssertionError


def test_problems_can_be_documented() -> None:
    """A route shows its errors under their media type, in place of FastAPI's 422."""
    app = FastAPI()

    @app.get("/{number}", responses=problem_responses(404, 422))
    async def read(number: int) -> None:
        pass

    document = app.openapi()
    responses = document["paths"]["/{number}"]["get"]["responses"]

    assert list(responses["404"]["content"]) == list(responses["422"]["content"]) == ["application/problem+json"]
    assert responses["404"]["content"]["application/problem+json"]["schema"]["required"] == ["title", "status", "detail", "code"]
    assert "$defs" not in json.dumps(document)
    assert "HTTPValidationError" not in json.dumps(document)


async def test_a_second_registration_replaces_the_first_and_its_statuses() -> None:
    """Also for the host's own errors: afterwards every error has the new body."""

    class OwnError(Exception):
        pass

    app = FastAPI()
    register_exception_handlers(app, statuses={OwnError: 409})
    register_exception_handlers(app, body=legacy_body)

    assert OwnError not in app.exception_handlers


async def test_a_refused_registration_changes_nothing() -> None:
    """Too late is refused before anything is taken away."""
    app = failing_app(NotFoundError(dict, 1))
    register_exception_handlers(app)
    async with app_client(app) as client:
        await client.get("/")
        with pytest.raises(ConfigurationError):
            register_exception_handlers(app)

        assert KitError in app.exception_handlers


async def test_a_value_error_stays_answered_whoever_comes_first() -> None:
    """The opt-in is no part of what register_exception_handlers replaces."""
    app = failing_app(ValueError("must be even"))
    register_value_error_handler(app)
    register_exception_handlers(app)

    async with app_client(app) as client:
        assert (await client.get("/")).status_code == 400


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -3.0, 0.0])
async def test_a_wait_that_is_no_number_of_seconds_is_one(seconds: float) -> None:
    """Retry-After is a whole number of seconds, at least one."""
    assert (await answer_to(UnavailableError("x", retry_after=seconds))).headers["retry-after"] == "1"


async def test_scopes_cannot_break_the_challenge() -> None:
    """RFC 6749, 3.3: only tokens stand in scope=."""
    response = await answer_to(InsufficientScopeError(frozenset({"read", 'a"b', "lösen→"})))

    assert response.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="read"'


class Untold:
    def __str__(self) -> str:
        raise RuntimeError


async def test_a_detail_without_a_text_is_its_kind() -> None:
    """What cannot be written does not crash the handler."""
    response = await answer_to(HTTPException(400, {"x": Untold()}))

    assert (response.status_code, response.json()["context"]) == (400, {"x": "<Untold whose text is a RuntimeError>"})


class Checked(BaseModel):
    password: str

    @field_validator("password")
    @classmethod
    def _check(cls, value: str) -> str:
        kind, _, rest = value.partition("|")
        match kind:
            case "repr":
                raise ValueError(f"bad {value!r}")
            case "cut":
                raise ValueError(f"{rest[:10]}... is too weak")
            case _:
                raise ValueError(f"domain {rest} is blocked")


@pytest.mark.parametrize("password", ["repr|p\\ass'word-hunter2-long", "cut|hunter2-and-more", "part|secret-corp.example", "part|hunter2"])
async def test_a_part_of_what_was_sent_is_not_sent_back(password: str) -> None:
    """Not in another spelling, cut or split either."""
    app = FastAPI()

    @app.post("/")
    async def check(data: Checked) -> None: ...

    async with client_of(app) as client:
        response = await client.post("/", json={"password": password})

    assert response.json()["errors"][0]["message"] == "is not valid"
