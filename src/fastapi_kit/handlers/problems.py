"""The error body, what it says for each status, and the response that carries it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import accumulate
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import Response
from starlette.types import Scope

from fastapi_kit._text import safe_json, safe_text
from fastapi_kit.errors import (
    AuthenticationError,
    ConflictError,
    FieldError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
)
from fastapi_kit.handlers.validation import MAX_ERRORS
from fastapi_kit.middleware.request_id import read_request_id

__all__ = [
    "INVALID_REQUEST",
    "JSON",
    "PROBLEM_JSON",
    "Answer",
    "ErrorBody",
    "Problem",
    "ProblemItem",
    "code_of",
    "legacy_body",
    "make_problem",
    "problem_body",
    "respond",
    "title_of",
    "typical_answer",
]

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
_MAX_NAME = 100
_MAX_PARTS = 20
_MAX_SIZE = 50_000
INVALID_REQUEST = ("invalid_request", "The request is not valid.")
_CODES = {401: "not_authenticated", 403: "permission_denied", 429: "rate_limited", 500: "internal_error", 503: "unavailable"}
_TEXTS = {
    kind.code: kind.detail
    for kind in (NotFoundError, ConflictError, AuthenticationError, PermissionDeniedError, RateLimitedError, UnavailableError)
}
# Python renamed these between 3.11 and 3.13.
_TITLES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}


@dataclass(frozen=True)
class Answer:
    """What is sent for an error, whatever the shape of the body."""

    status: int
    code: str
    detail: str
    errors: Sequence[FieldError] = ()
    context: object = None
    headers: Mapping[str, str] | None = None


def title_of(status: int) -> str:
    """Return the phrase of *status*. It is the same on every version of Python."""
    if status in _TITLES:
        return _TITLES[status]
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"


def typical_answer(status: int) -> Answer:
    """Return the most usual answer with *status*: the example in OpenAPI."""
    if status == 422:
        return Answer(422, *INVALID_REQUEST, [FieldError(("body", "name"), "missing", "Field required")])
    code = code_of(status)
    return Answer(status, code, _TEXTS.get(code) or title_of(status))


def code_of(status: int) -> str:
    """Return the machine code for *status*: the phrase in snake case, except for the statuses of the library's errors."""
    return _CODES.get(status) or re.sub(r"\W+", "_", title_of(status).lower().replace("'", ""))


class ProblemItem(BaseModel):
    """One invalid field. It never holds the value that was sent."""

    loc: list[str | int]
    code: str
    message: str


def describe_for_clients(schema: dict[str, Any]) -> None:
    """Describe what clients get: the first line of the docstring, and members that are never null."""
    if "description" in schema:
        schema["description"] = schema["description"].partition("\n")[0]
    for member in schema["properties"].values():
        if member.get("default", ...) is None:
            del member["default"]


class Problem(BaseModel):
    """A problem document (RFC 9457). The code tells problems apart; empty members are left out.

    It is sent as ``application/problem+json``. *type* is always ``about:blank`` and *title* the phrase of the status. *detail* is a
    string, as clients of FastAPI expect. *instance* is ``urn:uuid:`` and the request id, if that is a UUID.
    """

    model_config = ConfigDict(json_schema_extra=describe_for_clients)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | SkipJsonSchema[None] = None
    code: str
    request_id: str | SkipJsonSchema[None] = None
    errors: list[ProblemItem] | SkipJsonSchema[None] = None
    """At most 100 errors and 50 kB of them, with the first 20 parts of each ``loc``."""
    context: Annotated[JsonValue, WithJsonSchema({})] = None
    """The detail of an HTTPException that is not a string, what is allowed in a query, or the challenge of a second factor."""


ErrorBody: TypeAlias = Callable[[Problem], BaseModel]
"""A function that makes the error body of your application. Its return annotation is what OpenAPI shows.

A Problem is sent as ``application/problem+json`` without its empty members. Any other model is sent as JSON, as it is.
"""


def problem_body(problem: Problem) -> Problem:
    """Return *problem* as it is. It is the default."""
    return problem


class LegacyErrorItem(BaseModel):
    """One invalid field in FastAPI's words."""

    type: str
    loc: list[str | int]
    msg: str


class LegacyError(BaseModel):
    """FastAPI's error body."""

    detail: str | list[LegacyErrorItem] | JsonValue


def legacy_body(problem: Problem) -> LegacyError:
    """Return FastAPI's own body: ``{"detail": text}``, or for a 422 the list of errors, without ``input`` and ``ctx``."""
    if problem.status == 422 and problem.errors:
        return LegacyError(detail=[LegacyErrorItem(type=item.code, loc=item.loc, msg=item.message) for item in problem.errors])
    return LegacyError(detail=problem.detail if problem.context is None else problem.context)


def respond(scope: Scope, answer: Answer, body: ErrorBody) -> Response:
    """Return the response with *answer* to the request in *scope*."""
    if answer.status < 200 or answer.status in {204, 205, 304}:
        return Response(status_code=answer.status, headers=answer.headers)
    content = body(make_problem(answer, request_id=read_request_id(scope)))
    is_problem = isinstance(content, Problem)
    return Response(
        content.model_dump_json(by_alias=True, exclude_none=is_problem),
        status_code=answer.status,
        headers=answer.headers,
        media_type=PROBLEM_JSON if is_problem else JSON,
    )


def make_problem(answer: Answer, *, request_id: str | None = None) -> Problem:
    """Return *answer* as a document that can always be sent. The names in its errors may be the client's, so they are bounded."""
    items = [
        ProblemItem(
            loc=[part if isinstance(part, int) else safe_text(part[:_MAX_NAME]) for part in error.loc[:_MAX_PARTS]],
            code=safe_text(error.code),
            message=safe_text(error.message),
        )
        for error in answer.errors[:MAX_ERRORS]
    ]
    sizes = accumulate(len(item.model_dump_json()) for item in items)
    fitting = [item for item, size in zip(items, sizes, strict=True) if size <= _MAX_SIZE] or items[:1]
    return Problem(
        title=title_of(answer.status),
        status=answer.status,
        detail=safe_text(answer.detail),
        instance=instance_of(request_id),
        code=answer.code,
        request_id=request_id,
        errors=fitting or None,
        context=safe_json(answer.context),
    )


def instance_of(request_id: str | None) -> str | None:
    """Return the URN of *request_id*, or None if it is not a UUID."""
    try:
        return request_id and UUID(request_id).urn
    except ValueError:
        return None
