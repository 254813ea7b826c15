"""The OpenAPI document shows the error bodies that are really sent."""

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from fastapi_kit.app import create_app
from fastapi_kit.errors import NotFoundError
from fastapi_kit.handlers import (
    ErrorBody,
    Problem,
    legacy_body,
    problem_responses,
    register_exception_handlers,
    register_kit_error_handler,
    register_validation_error_handler,
)
from fastapi_kit.settings import KitSettings
from fastapi_kit.testing import app_client

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers


class Item(BaseModel):
    name: str


class Fault(BaseModel):
    text: str


class AppError(BaseModel):
    faults: list[Fault]


def own_body(problem: Problem) -> AppError:
    return AppError(faults=[Fault(text=problem.detail)])


class BiggerProblem(Problem):
    help: str = "call us"


def bigger_body(problem: Problem) -> BiggerProblem:
    return BiggerProblem(**problem.model_dump())


def new_app() -> FastAPI:
    app = FastAPI()

    @app.get("/items/{number}", responses=problem_responses(404, 503))
    async def read_item(number: int) -> Item:
        raise NotFoundError(Item, number)

    @app.post("/items", responses={400: {"description": "Not today"}, 418: {"model": Item}})
    async def create_item(item: Item) -> Item:
        return item

    @app.get("/plain")
    async def read_plain() -> Item:
        return Item(name="plain")

    return app


def responses_of(app: FastAPI, path: str = "/items", method: str = "post") -> dict[str, Any]:
    responses: dict[str, Any] = app.openapi()["paths"][path][method]["responses"]
    return responses


def media_of(response: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    [(media_type, media)] = response["content"].items()
    return media_type, media


def unresolved(document: dict[str, Any]) -> set[str]:
    """Return the references that lead nowhere."""
    found = set[str]()

    def visit(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                found.add(node["$ref"].removeprefix("#/components/schemas/"))
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(document)
    return found - document["components"]["schemas"].keys()


def test_every_operation_shows_problems() -> None:
    """Declared errors, the 422 and the default response of every operation refer to one component."""
    app = new_app()
    register_exception_handlers(app)

    shown = {
        (path, status): media_of(response)
        for path, methods in app.openapi()["paths"].items()
        for operation in methods.values()
        for status, response in operation["responses"].items()
        if status not in {"200", "418"}
    }

    assert {media_type for media_type, _ in shown.values()} == {"application/problem+json"}
    assert {media["schema"]["$ref"] for _, media in shown.values()} == {"#/components/schemas/Problem"}
    assert shown.keys() == {
        *[("/items/{number}", status) for status in ("404", "422", "503", "default")],
        *[("/items", status) for status in ("400", "422", "default")],
        ("/plain", "default"),
    }


def test_fastapis_own_errors_are_gone() -> None:
    """FastAPI's error models are removed, and every reference can be resolved."""
    app = new_app()
    register_exception_handlers(app)

    assert "ValidationError" not in json.dumps(app.openapi())
    assert app.openapi()["components"]["schemas"].keys() == {"Item", "Problem", "ProblemItem"}
    assert unresolved(app.openapi()) == set()


def test_what_the_application_declared_stays() -> None:
    """A response with a model or a description of the application keeps them."""
    app = new_app()
    register_exception_handlers(app)

    assert media_of(responses_of(app)["418"]) == ("application/json", {"schema": {"$ref": "#/components/schemas/Item"}})
    assert responses_of(app)["400"]["description"] == "Not today"


@pytest.mark.parametrize(
    ("body", "media_type", "model", "others"),
    [
        (own_body, "application/json", "AppError", {"Fault"}),
        (legacy_body, "application/json", "LegacyError", {"LegacyErrorItem", "JsonValue"}),
        (bigger_body, "application/problem+json", "BiggerProblem", {"ProblemItem"}),
    ],
)
def test_a_body_of_the_application_is_shown(body: ErrorBody, media_type: str, model: str, others: set[str]) -> None:
    """The document shows the return annotation of the body, also for what problem_responses() declared."""
    app = new_app()
    register_exception_handlers(app, body=body)

    expected = (media_type, f"#/components/schemas/{model}")
    shown = [media_of(responses_of(app)[status]) for status in ("400", "422", "default")]
    shown.append(media_of(responses_of(app, "/items/{number}", "get")["404"]))
    assert {(kind, media["schema"]["$ref"]) for kind, media in shown} == {expected}
    assert app.openapi()["components"]["schemas"].keys() == {"Item", model} | others
    assert unresolved(app.openapi()) == set()


def untold(problem: Problem):  # type: ignore[no-untyped-def]
    return own_body(problem)


def vague(problem: Problem) -> BaseModel:
    return own_body(problem)


def unreadable(problem: Problem) -> "OnlyForCheckers":
    return own_body(problem)  # type: ignore[return-value]


def either(problem: Problem) -> AppError | Fault:
    return own_body(problem)


@pytest.mark.parametrize("body", [untold, vague, unreadable])
def test_a_body_without_annotation_is_shown_by_example(body: ErrorBody) -> None:
    """A body without a return annotation that can be resolved has an empty schema and an example."""
    app = new_app()
    register_exception_handlers(app, body=body)

    assert media_of(responses_of(app)["422"]) == (
        "application/json",
        {"schema": {}, "example": {"faults": [{"text": "The request is not valid."}]}},
    )


def test_a_body_of_several_kinds_shows_them_all() -> None:
    """A union in the annotation is a union in the document."""
    app = new_app()
    register_exception_handlers(app, body=either)

    _, media = media_of(responses_of(app)["422"])
    assert media["schema"] == {"anyOf": [{"$ref": "#/components/schemas/AppError"}, {"$ref": "#/components/schemas/Fault"}]}


def test_an_application_may_have_a_model_of_the_same_name() -> None:
    """Both models are shown, each under its own name."""
    own_problem = type("Problem", (Item,), {})
    app = new_app()
    app.add_api_route("/sums", lambda: None, response_model=own_problem)
    register_exception_handlers(app)

    schemas = app.openapi()["components"]["schemas"]
    assert "name" in schemas["Problem"]["properties"]
    assert "detail" in schemas["errors__Problem"]["properties"]
    assert schemas["errors__Problem"]["properties"]["errors"]["items"] == {"$ref": "#/components/schemas/errors__ProblemItem"}
    assert unresolved(app.openapi()) == set()


@pytest.mark.parametrize("body", [None, own_body, legacy_body])
async def test_the_example_is_what_is_sent(body: ErrorBody | None) -> None:
    """The example is the body that the app sends."""
    app = new_app()
    register_exception_handlers(app, **({} if body is None else {"body": body}))

    async with app_client(app) as client:
        answer = await client.get("/items/7")

    media_type, media = media_of(responses_of(app, "/items/{number}", "get")["404"])
    example = {name: value for name, value in media["example"].items() if name not in {"instance", "request_id"}}
    assert answer.headers["content-type"] == media_type
    assert answer.json() == example


class Traced(BaseModel):
    request_id: str


def traced_body(problem: Problem) -> Traced:
    return Traced.model_validate({"request_id": problem.request_id})


def test_the_example_has_a_request_id() -> None:
    """A body that requires the request id has an example."""
    app = new_app()
    register_exception_handlers(app, body=traced_body)

    assert media_of(responses_of(app)["default"])[1]["example"].keys() == {"request_id"}


def test_members_of_a_problem_are_never_null() -> None:
    """Empty members are left out, so the schema of a problem has no null."""
    app = new_app()
    register_exception_handlers(app)

    problem = app.openapi()["components"]["schemas"]["Problem"]
    assert "null" not in json.dumps(problem)
    assert problem["required"] == ["title", "status", "detail", "code"]
    assert problem["properties"]["errors"]["items"] == {"$ref": "#/components/schemas/ProblemItem"}


def test_one_registrar_documents_its_own_family() -> None:
    """With only one registrar, FastAPI's own 422 stays in the document."""
    app = new_app()
    register_kit_error_handler(app)

    assert media_of(responses_of(app, "/items/{number}", "get")["404"])[1]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert media_of(responses_of(app)["422"])[1]["schema"] == {"$ref": "#/components/schemas/HTTPValidationError"}
    assert "default" not in responses_of(app)

    register_validation_error_handler(app, body=own_body)

    assert media_of(responses_of(app)["422"])[1]["schema"] == {"$ref": "#/components/schemas/AppError"}
    assert "HTTPValidationError" not in json.dumps(app.openapi())


def test_without_handlers_problems_are_written_out() -> None:
    """In an app without handlers, problem_responses() shows the whole schema without references."""
    app = new_app()

    schema = media_of(responses_of(app, "/items/{number}", "get")["404"])[1]["schema"]
    assert schema["properties"]["errors"]["items"]["properties"].keys() == {"loc", "code", "message"}
    assert unresolved(app.openapi()) == set()


def test_retry_after_is_documented() -> None:
    """A 503 documents Retry-After."""
    app = new_app()
    register_exception_handlers(app)

    assert responses_of(app, "/items/{number}", "get")["503"]["headers"].keys() == {"Retry-After"}
    assert "headers" not in responses_of(app, "/items/{number}", "get")["404"]


def test_the_document_is_made_once_and_grows_with_the_routes() -> None:
    """The document is cached as FastAPI does it, and a route that is added later is in it."""
    app = new_app()
    register_exception_handlers(app)
    before = app.openapi()
    kept = copy.deepcopy(before)

    assert app.openapi() is before
    assert before == kept

    @app.get("/late")
    async def read_late(number: int) -> Item:
        return Item(name=str(number))

    assert media_of(responses_of(app, "/late", "get")["422"])[0] == "application/problem+json"


def test_registering_again_changes_the_document() -> None:
    """The document shows the last registration, even if it was generated before."""
    app = new_app()
    register_exception_handlers(app)
    app.openapi()

    register_exception_handlers(app, body=own_body)

    assert "Problem" not in json.dumps(app.openapi()["components"])


def test_an_own_openapi_method_is_kept() -> None:
    """An app that has replaced openapi() keeps what its own method generates."""
    app = new_app()
    generate = app.openapi

    def with_logo() -> dict[str, Any]:
        return {**generate(), "x-logo": "logo.svg"}

    vars(app)["openapi"] = with_logo
    register_exception_handlers(app)

    assert app.openapi()["x-logo"] == "logo.svg"
    assert media_of(responses_of(app)["422"])[0] == "application/problem+json"


def test_webhooks_are_left_alone() -> None:
    """Webhooks keep FastAPI's 422: other servers answer them."""
    app = new_app()

    @app.webhooks.post("new-item")
    async def new_item(item: Item) -> None: ...

    register_exception_handlers(app)

    document = app.openapi()
    assert media_of(document["webhooks"]["new-item"]["post"]["responses"]["422"])[1]["schema"] == {
        "$ref": "#/components/schemas/HTTPValidationError"
    }
    assert unresolved(document) == set()


def test_an_app_without_paths_has_a_document() -> None:
    """The document of an app without routes can be generated."""
    app = FastAPI()
    register_exception_handlers(app)

    assert app.openapi()["paths"] == {}


async def test_the_document_is_served_with_its_errors() -> None:
    """/openapi.json of create_app shows the error body."""
    app = create_app(KitSettings(), error_body=own_body)

    @app.post("/items")
    async def create_item(item: Item) -> Item:
        return item

    async with app_client(app) as client:
        document = (await client.get("/api/v1/openapi.json")).json()

    assert document["paths"]["/items"]["post"]["responses"]["422"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/AppError"
    }


def test_problems_can_be_documented() -> None:
    """problem_responses() shows problems under their media type and replaces FastAPI's 422."""
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
