"""Error bodies in the OpenAPI document, as they are really sent."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastapi.dependencies.models import Dependant
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.constants import METHODS_WITH_BODY, REF_PREFIX
from fastapi.openapi.utils import validation_error_definition, validation_error_response_definition
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, TypeAdapter
from starlette.routing import BaseRoute

from fastapi_kit.dependencies import statuses_of
from fastapi_kit.handlers._answers import title_of, typical_answer
from fastapi_kit.handlers._problems import JSON, PROBLEM_JSON, ErrorBody, Problem, ProblemItem, make_problem

__all__ = ["DocumentedBodies", "document_errors", "document_refusals", "problem_responses"]

_Json: TypeAlias = dict[str, Any]

_FASTAPIS_422 = {"$ref": f"{REF_PREFIX}HTTPValidationError"}
_FASTAPIS_MODELS = {"HTTPValidationError": validation_error_response_definition, "ValidationError": validation_error_definition}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what documents these *statuses* as problems: ``responses=problem_responses(404, 409)`` of a route.

    Where the app has the handlers, its own error body is shown instead, as one component.
    """
    schema = Problem.model_json_schema(mode="serialization")
    # A reference would lead nowhere in an app without the handlers, so both models are written out.
    schema["properties"]["errors"]["items"] = schema.pop("$defs")[ProblemItem.__name__]
    return {status: _problem_response(status, schema) for status in statuses}


def _problem_response(status: int, schema: _Json) -> _Json:
    response: _Json = {"description": title_of(status), "content": {PROBLEM_JSON: {"schema": schema}}}
    return {**response, "headers": _HEADERS[status]} if status in _HEADERS else response


_WAIT = {"Retry-After": {"description": "Seconds to wait before the next attempt", "schema": {"type": "integer"}}}
_CHALLENGE = {"WWW-Authenticate": {"description": "What is wrong with the credentials (RFC 6750, 3)", "schema": {"type": "string"}}}
_HEADERS: Mapping[int, _Json] = {401: _CHALLENGE, 429: _WAIT, 503: _WAIT}


@dataclass(frozen=True)
class DocumentedBodies:
    """The bodies that the handlers of an app send; None where an error is not theirs."""

    refused: ErrorBody | None
    """Of a request that is not valid."""
    raised: ErrorBody | None
    """Of the errors that a route declares."""
    other: ErrorBody | None
    """Of everything else."""


def document_errors(document: _Json, bodies: DocumentedBodies) -> None:
    """Show *bodies* in the operations of *document*, which is changed in place; a second time changes nothing.

    A declared error status without a body gets one; a body that the host declared stays.
    """
    shapes = _Shapes(document)
    for operation in _operations(document):
        responses: dict[str, _Json] = operation.setdefault("responses", {})
        for status, response in responses.items():
            body = bodies.refused if _is_fastapis(response) else bodies.raised
            if body and status[0] in "45d" and _is_open(response):
                response.update(_response(status, response.get("description"), shapes.content_of(body, status)))
        if bodies.other and "default" not in responses:
            responses["default"] = _response("default", "Any other error", shapes.content_of(bodies.other, "default"))
    _drop_fastapis_models(document)


def document_refusals(document: _Json, routes: Sequence[BaseRoute]) -> None:
    """Name the statuses with which *routes* refuse those who may not call them, as far as their security and their dependencies tell."""
    for route in iter_route_contexts(routes):
        dependant = getattr(route, "dependant", None)
        if isinstance(dependant, Dependant):
            path: _Json = document.get("paths", {}).get(route.path_format, {})
            for operation in (path[method.lower()] for method in route.methods or () if method.lower() in path):
                responses: dict[str, _Json] = operation.setdefault("responses", {})
                for status in statuses_of(dependant) | _statuses_of_security(operation):
                    named = {"description": title_of(status), "headers": _HEADERS.get(status, {})}
                    responses.setdefault(str(status), {name: value for name, value in named.items() if value})


def _statuses_of_security(operation: _Json) -> frozenset[int]:
    security: list[dict[str, list[str]]] = operation.get("security", [])
    scoped = any(scopes for each in security for scopes in each.values())
    return frozenset({401, 403} if scoped else {401} if security else ())


def _operations(document: _Json) -> Iterator[_Json]:
    for path in document.get("paths", {}).values():
        yield from (operation for method, operation in path.items() if method.upper() in _METHODS)


_EXAMPLES = {"4XX": 400, "5XX": 500, "default": 500}
_REQUEST_ID = "0b9dd5b4-3a1c-4f0f-9e06-5d3c8a1f2b77"
_METHODS = METHODS_WITH_BODY | {"OPTIONS", "TRACE"}


def _is_fastapis(response: _Json) -> bool:
    return any(media.get("schema") == _FASTAPIS_422 for media in response.get("content", {}).values())


def _is_open(response: _Json) -> bool:
    """Whether the body is FastAPI's, written by problem_responses(), or not declared."""
    content: Mapping[str, _Json] = response.get("content", {})
    inline = content.get(PROBLEM_JSON, {}).get("schema", {}).get("title") == Problem.__name__
    return not content or inline or _is_fastapis(response)


def _response(status: str, description: str | None, content: _Json) -> _Json:
    is_ours = description is None or description == "Validation Error"
    return {"description": title_of(int(status)) if is_ours and status.isdigit() else description, "content": content}


class _Shapes:
    """What the bodies look like; their models become components of *document*."""

    def __init__(self, document: _Json) -> None:
        self._components: dict[str, _Json] = document.setdefault("components", {}).setdefault("schemas", {})
        self._known: dict[int, tuple[str, _Json]] = {}

    def content_of(self, body: ErrorBody, status: str) -> _Json:
        if id(body) not in self._known:
            self._known[id(body)] = self._shape_of(body)
        media_type, schema = self._known[id(body)]
        return {media_type: {"schema": schema, "example": _example(body, _EXAMPLES.get(status) or int(status))}}

    def _shape_of(self, body: ErrorBody) -> tuple[str, _Json]:
        kind = _returned(body)
        is_problem = isinstance(kind, type) and issubclass(kind, Problem)
        schema, models = _schema_of(kind, prefix="")
        if any(self._components.get(name, model) != model for name, model in models.items()):
            schema, models = _schema_of(kind, prefix="errors__")
        self._components.update(models)
        return PROBLEM_JSON if is_problem else JSON, schema


def _returned(body: ErrorBody) -> Any:
    """Return what *body* says it returns; anything where it does not, or where its words cannot be read."""
    try:
        kind = inspect.signature(body, eval_str=True).return_annotation
    except (NameError, TypeError, ValueError):
        return Any
    return Any if kind in {inspect.Signature.empty, BaseModel} else kind


def _schema_of(kind: Any, *, prefix: str) -> tuple[_Json, dict[str, _Json]]:
    """Return the schema of *kind* and the models that it refers to, all named *prefix* and their name."""
    schemas, shared = TypeAdapter.json_schemas(
        [("body", "serialization", TypeAdapter(kind))], ref_template=f"{REF_PREFIX}{prefix}{{model}}"
    )
    schema, found = schemas["body", "serialization"], shared.get("$defs", {})
    text = json.dumps([schema, found])
    models = {f"{prefix}{name}": model for name, model in found.items() if f'"{REF_PREFIX}{prefix}{name}"' in text}
    return schema, jsonable_encoder(models, exclude_none=True)


def _example(body: ErrorBody, status: int) -> object:
    content = body(make_problem(typical_answer(status), request_id=_REQUEST_ID))
    return content.model_dump(mode="json", by_alias=True, exclude_none=isinstance(content, Problem))


def _drop_fastapis_models(document: _Json) -> None:
    schemas: dict[str, _Json] = document["components"]["schemas"]
    for name, definition in _FASTAPIS_MODELS.items():
        if schemas.get(name) == definition and f'"{REF_PREFIX}{name}"' not in json.dumps(document):
            del schemas[name]
