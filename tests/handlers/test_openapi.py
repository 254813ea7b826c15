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


class HostError(BaseModel):
    faults: list[Fault]


def host_body(problem: Problem) -> HostError:
    return HostError(faults=[Fault(text=problem.detail)])


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
    """References that lead nowhere."""
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
    """Declared errors, the 422 of parameters and bodies, and everything else, as one component."""
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
    """Nothing refers to them, and nothing leads nowhere."""
    app = new_app()
    register_exception_handlers(app)

    assert "ValidationError" not in json.dumps(app.openapi())
    assert app.openapi()["components"]["schemas"].keys() == {"Item", "Problem", "ProblemItem"}
    assert unresolved(app.openapi()) == set()


def test_what_the_host_declared_stays() -> None:
    """A body of its own, a description of its own."""
    app = new_app()
    register_exception_handlers(app)

    assert media_of(responses_of(app)["418"]) == ("application/json", {"schema": {"$ref": "#/components/schemas/Item"}})
    assert responses_of(app)["400"]["description"] == "Not today"


@pytest.mark.parametrize(
    ("body", "media_type", "model", "others"),
    [
        (host_body, "application/json", "HostError", {"Fault"}),
        (legacy_body, "application/json", "LegacyError", {"LegacyErrorItem", "JsonValue"}),
        (bigger_body, "application/problem+json", "BiggerProblem", {"ProblemItem"}),
    ],
)
def test_a_body_of_the_hosts_is_shown(body: ErrorBody, media_type: str, model: str, others: set[str]) -> None:
    """Its return annotation is what the document shows, also for what problem_responses() declared."""
    app = new_app()
    register_exception_handlers(app, body=body)

    expected = (media_type, f"#/components/schemas/{model}")
    shown = [media_of(responses_of(app)[status]) for status in ("400", "422", "default")]
    shown.append(media_of(responses_of(app, "/items/{number}", "get")["404"]))
    assert {(kind, media["schema"]["$ref"]) for kind, media in shown} == {expected}
    assert app.openapi()["components"]["schemas"].keys() == {"Item", model} | others
    assert unresolved(app.openapi()) == set()


def untold(problem: Problem):  # type: ignore[no-untyped-def]
    return host_body(problem)


def vague(problem: Problem) -> BaseModel:
    return host_body(problem)


def unreadable(problem: Problem) -> "OnlyForCheckers":
    return host_body(problem)  # type: ignore[return-value]


def either(problem: Problem) -> HostError | Fault:
    return host_body(problem)


@pytest.mark.parametrize("body", [untold, vague, unreadable])
def test_a_body_that_says_little_is_shown_as_anything(body: ErrorBody) -> None:
    """Without an annotation, or with one that only type checkers can read, nothing is claimed; the example shows it all the same."""
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
    assert media["schema"] == {"anyOf": [{"$ref": "#/components/schemas/HostError"}, {"$ref": "#/components/schemas/Fault"}]}


def test_a_host_may_have_a_model_of_the_same_name() -> None:
    """Both are shown, each under a name of its own."""
    hosts_problem = type("Problem", (Item,), {})
    app = new_app()
    app.add_api_route("/sums", lambda: None, response_model=hosts_problem)
    register_exception_handlers(app)

    schemas = app.openapi()["components"]["schemas"]
    assert "name" in schemas["Problem"]["properties"]
    assert "detail" in schemas["errors__Problem"]["properties"]
    assert schemas["errors__Problem"]["properties"]["errors"]["items"] == {"$ref": "#/components/schemas/errors__ProblemItem"}
    assert unresolved(app.openapi()) == set()


@pytest.mark.parametrize("body", [None, host_body, legacy_body])
async def test_the_example_is_what_is_sent(body: ErrorBody | None) -> None:
    """A real answer has the example's shape, and the example has the schema's."""
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
    """A body that needs one does not break the document."""
    app = new_app()
    register_exception_handlers(app, body=traced_body)

    assert media_of(responses_of(app)["default"])[1]["example"].keys() == {"request_id"}


def test_members_of_a_problem_are_never_null() -> None:
    """What is empty is left out, so the document knows no null."""
    app = new_app()
    register_exception_handlers(app)

    problem = app.openapi()["components"]["schemas"]["Problem"]
    assert "null" not in json.dumps(problem)
    assert problem["required"] == ["title", "status", "detail", "code"]
    assert problem["properties"]["errors"]["items"] == {"$ref": "#/components/schemas/ProblemItem"}


def test_one_registrar_documents_its_own_family() -> None:
    """FastAPI's 422 stays where FastAPI still answers it."""
    app = new_app()
    register_kit_error_handler(app)

    assert media_of(responses_of(app, "/items/{number}", "get")["404"])[1]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert media_of(responses_of(app)["422"])[1]["schema"] == {"$ref": "#/components/schemas/HTTPValidationError"}
    assert "default" not in responses_of(app)

    register_validation_error_handler(app, body=host_body)

    assert media_of(responses_of(app)["422"])[1]["schema"] == {"$ref": "#/components/schemas/HostError"}
    assert "HTTPValidationError" not in json.dumps(app.openapi())


def test_without_handlers_problems_are_written_out() -> None:
    """The document is whole in an app that answers them in its own way."""
    app = new_app()

    schema = media_of(responses_of(app, "/items/{number}", "get")["404"])[1]["schema"]
    assert schema["properties"]["errors"]["items"]["properties"].keys() == {"loc", "code", "message"}
    assert unresolved(app.openapi()) == set()


def test_waiting_is_documented() -> None:
    """A 503 tells when to come back."""
    app = new_app()
    register_exception_handlers(app)

    assert responses_of(app, "/items/{number}", "get")["503"]["headers"].keys() == {"Retry-After"}
    assert "headers" not in responses_of(app, "/items/{number}", "get")["404"]


def test_the_document_is_made_once_and_grows_with_the_routes() -> None:
    """It is FastAPI's cached document, changed once; a route that comes later is in it."""
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
    """The last registration is shown, also after the document was asked for."""
    app = new_app()
    register_exception_handlers(app)
    app.openapi()

    register_exception_handlers(app, body=host_body)

    assert "Problem" not in json.dumps(app.openapi()["components"])


def test_the_hosts_own_document_is_kept() -> None:
    """An app whose openapi() was replaced keeps what that one makes."""
    app = new_app()
    generate = app.openapi

    def with_logo() -> dict[str, Any]:
        return {**generate(), "x-logo": "logo.svg"}

    vars(app)["openapi"] = with_logo
    register_exception_handlers(app)

    assert app.openapi()["x-logo"] == "logo.svg"
    assert media_of(responses_of(app)["422"])[0] == "application/problem+json"


def test_webhooks_are_left_alone() -> None:
    """What others answer is none of ours."""
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
    """Nothing to show is no error."""
    app = FastAPI()
    register_exception_handlers(app)

    assert app.openapi()["paths"] == {}


async def test_the_document_is_served_with_its_errors() -> None:
    """What /openapi.json sends is what was shown, in an app by create_app too."""
    app = create_app(KitSettings(), error_body=host_body)

    @app.post("/items")
    async def create_item(item: Item) -> Item:
        return item

    async with app_client(app) as client:
        document = (await client.get("/api/v1/openapi.json")).json()

    assert document["paths"]["/items"]["post"]["responses"]["422"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/HostError"
    }


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
