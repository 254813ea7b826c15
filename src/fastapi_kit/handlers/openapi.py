"""Error bodies in the OpenAPI document, as they are really sent."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, cast

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.constants import METHODS_WITH_BODY, REF_PREFIX
from fastapi.openapi.utils import validation_error_definition, validation_error_response_definition
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, TypeAdapter

from fastapi_kit.dependencies import SAFE_METHODS, rejects_cross_site, requires_login, statuses_of
from fastapi_kit.handlers.problems import JSON, PROBLEM_JSON, ErrorBody, Problem, ProblemItem, make_problem, title_of, typical_answer
from fastapi_kit.middleware.body_limit import BodyLimitMiddleware

__all__ = ["DocumentedBodies", "extend_document", "problem_responses"]

Json: TypeAlias = dict[str, Any]

_FASTAPIS_422 = {"$ref": f"{REF_PREFIX}HTTPValidationError"}
_FASTAPIS_MODELS = {"HTTPValidationError": validation_error_response_definition, "ValidationError": validation_error_definition}
_METHODS = METHODS_WITH_BODY | {"OPTIONS", "TRACE"}

_WAIT = {"Retry-After": {"description": "Seconds to wait before the next attempt", "schema": {"type": "integer"}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "What is wrong with the credentials (RFC 6750, 3)", "schema": {"type": "string"}}}
_LIMITS = {
    "RateLimit-Policy": {"description": "How many requests are allowed in how many seconds", "schema": {"type": "string"}},
    "RateLimit": {"description": "How many requests are left", "schema": {"type": "string"}},
}
_HEADERS: Mapping[int, Json] = {401: _CHALLENGE, 429: _WAIT | _LIMITS, 503: _WAIT}

_EXAMPLES = {"4XX": 400, "5XX": 500, "default": 500}
_REQUEST_ID = "0b9dd5b4-3a1c-4f0f-9e06-5d3c8a1f2b77"


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for *statuses*: ``responses=problem_responses(404, 409)`` of an app, a router or a route.

    They show ``Problem``. Where your app has registered handlers with a body of its own, they show that body.
    """
    content = {PROBLEM_JSON: {"schema": deepcopy(problem_schema())}}
    return {status: {**empty_response(status), "content": content} for status in statuses}


@cache
def problem_schema() -> Json:
    """Return the schema of ``Problem``. It takes as long to make as the rest of a route."""
    schema = Problem.model_json_schema(mode="serialization")
    # An app without the handlers has no component for a reference, so both models are written out.
    schema["properties"]["errors"]["items"] = schema.pop("$defs")[ProblemItem.__name__]
    return schema


@dataclass(frozen=True)
class DocumentedBodies:
    """The error bodies that an app sends. None where another handler answers."""

    validation: ErrorBody | None
    """Of a request that fails validation."""
    declared: ErrorBody | None
    """Of the errors that a route declares."""
    other: ErrorBody | None
    """Of every other error."""


def extend_document(app: FastAPI, bodies: Callable[[], DocumentedBodies]) -> None:
    """Show the error bodies in the OpenAPI document of *app*, as they are when the document is made.

    A declared error status without a body gets one. A body that the application declared stays.
    """
    generate = app.openapi
    shown: Json | None = None

    def openapi() -> Json:
        nonlocal shown
        document = generate()
        # FastAPI makes the document once and keeps it.
        if document is not shown:
            add_statuses(document, app)
            add_bodies(document, bodies())
            shown = document
        return document

    # FastAPI's own way to extend the document is to replace this method.
    vars(app)["openapi"] = openapi


def add_statuses(document: Json, app: FastAPI) -> None:
    """Add the statuses of bodies, security schemes and dependencies to the operations, and show an optional login as optional."""
    has_body_limit = any(middleware.cls is BodyLimitMiddleware for middleware in cast("list[Any]", app.user_middleware))
    of_bodies = {400, 413} if has_body_limit else {400}
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        path: Json = document.get("paths", {}).get(route.path_format, {})
        for method, operation in ((method, path[method.lower()]) for method in route.methods or () if method.lower() in path):
            security: list[dict[str, list[str]]] = operation.get("security", [])
            statuses = of_bodies.copy() if "requestBody" in operation else set[int]()
            has_scopes = any(scopes for each in security for scopes in each.values())
            if security:
                statuses.add(401)
            if has_scopes:
                statuses.add(403)
            if isinstance(dependant, Dependant):
                statuses |= statuses_of(dependant)
                if method not in SAFE_METHODS and rejects_cross_site(dependant):
                    statuses.add(403)
                if depends_on_database(dependant):
                    statuses.add(503)
                if security and not has_scopes and not requires_login(dependant):
                    operation["security"] = [{}, *(each for each in security if each)]
            for status in sorted(statuses):
                operation.setdefault("responses", {}).setdefault(str(status), empty_response(status))


def depends_on_database(dependant: Dependant) -> bool:
    """Return whether a route gets a session of a Database."""
    # Not above, because an application that has no Database need not load it.
    from fastapi_kit.db.database import Database

    return isinstance(getattr(dependant.call, "__self__", None), Database) or any(map(depends_on_database, dependant.dependencies))


def add_bodies(document: Json, bodies: DocumentedBodies) -> None:
    """Show *bodies* in the operations of *document*. A second time changes nothing."""
    shapes = Shapes(document)
    for operation in operations_of(document):
        responses: dict[str, Json] = operation.setdefault("responses", {})
        for status, response in responses.items():
            body = bodies.validation if is_fastapis(response) else bodies.declared
            if body and status[0] in "45d" and is_open(response):
                if status.isdigit() and response.get("description") in {None, "Validation Error"}:
                    response["description"] = title_of(int(status))
                response["content"] = shapes.content_of(body, status)
        if bodies.other and "default" not in responses:
            responses["default"] = {"description": "Any other error", "content": shapes.content_of(bodies.other, "default")}
    schemas: dict[str, Json] = document["components"]["schemas"]
    for name, definition in _FASTAPIS_MODELS.items():
        if schemas.get(name) == definition and f'"{REF_PREFIX}{name}"' not in json.dumps(document):
            del schemas[name]


def operations_of(document: Json) -> Iterator[Json]:
    """Yield the operations under ``paths``."""
    for path in document.get("paths", {}).values():
        yield from (operation for method, operation in path.items() if method.upper() in _METHODS)


def empty_response(status: int) -> Json:
    """Return the response for *status* without a body, with the headers that its errors have."""
    response: Json = {"description": title_of(status)}
    return {**response, "headers": _HEADERS[status]} if status in _HEADERS else response


def is_fastapis(response: Json) -> bool:
    """Return whether *response* is FastAPI's own 422."""
    return any(media.get("schema") == _FASTAPIS_422 for media in response.get("content", {}).values())


def is_open(response: Json) -> bool:
    """Return whether *response* has no body, FastAPI's, or one by ``problem_responses``."""
    content: Mapping[str, Json] = response.get("content", {})
    is_problem = content.get(PROBLEM_JSON, {}).get("schema", {}).get("title") == Problem.__name__
    return not content or is_problem or is_fastapis(response)


class Shapes:
    """Schemas and examples of the bodies. Their models become components of *document*."""

    def __init__(self, document: Json) -> None:
        self.components: dict[str, Json] = document.setdefault("components", {}).setdefault("schemas", {})
        self.known: dict[int, tuple[str, Json]] = {}

    def content_of(self, body: ErrorBody, status: str) -> Json:
        """Return the ``content`` of a response with *status*."""
        if id(body) not in self.known:
            self.known[id(body)] = self.shape_of(body)
        media_type, schema = self.known[id(body)]
        problem = make_problem(typical_answer(_EXAMPLES.get(status) or int(status)), request_id=_REQUEST_ID)
        example = body(problem)
        shown = example.model_dump(mode="json", by_alias=True, exclude_none=isinstance(example, Problem))
        return {media_type: {"schema": schema, "example": shown}}

    def shape_of(self, body: ErrorBody) -> tuple[str, Json]:
        """Return the media type and the schema of *body*, and add its models to the components."""
        kind = returned_by(body)
        schema, models = schema_of(kind, prefix="")
        if any(self.components.get(name, model) != model for name, model in models.items()):
            schema, models = schema_of(kind, prefix="errors__")
        self.components.update(models)
        return PROBLEM_JSON if isinstance(kind, type) and issubclass(kind, Problem) else JSON, schema


def returned_by(body: ErrorBody) -> Any:
    """Return the return annotation of *body*, or Any if it has none, none that can be resolved, or only BaseModel."""
    try:
        kind = inspect.signature(body, eval_str=True).return_annotation
    except (NameError, TypeError, ValueError):
        return Any
    return Any if kind in {inspect.Signature.empty, BaseModel} else kind


def schema_of(kind: Any, *, prefix: str) -> tuple[Json, dict[str, Json]]:
    """Return the schema of *kind* and the models that it refers to. *prefix* is put before their names."""
    schemas, shared = TypeAdapter.json_schemas(
        [("body", "serialization", TypeAdapter(kind))], ref_template=f"{REF_PREFIX}{prefix}{{model}}"
    )
    schema, found = schemas["body", "serialization"], shared.get("$defs", {})
    text = json.dumps([schema, found])
    models = {f"{prefix}{name}": model for name, model in found.items() if f'"{REF_PREFIX}{prefix}{name}"' in text}
    return schema, jsonable_encoder(models, exclude_none=True)
