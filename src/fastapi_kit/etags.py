"""Conditional requests (RFC 9110, 13) over rows with a version."""

import re
from collections.abc import Collection
from hashlib import sha256
from typing import Annotated, Any, TypeAlias, cast

from fastapi import Depends, Header, HTTPException, Request, Response
from pydantic import BaseModel
from sqlalchemy import inspect
from sqlalchemy.orm import object_mapper

from fastapi_kit.crud.identity import identity_of
from fastapi_kit.dependencies import answering
from fastapi_kit.errors import ConfigurationError, PreconditionFailedError, PreconditionRequiredError

__all__ = [
    "IfMatch",
    "RequiredIfMatch",
    "answer_with_etag",
    "check_if_match",
    "check_preconditions",
    "etag_of",
    "get_if_match",
    "get_required_if_match",
    "is_conditional",
    "require_if_match",
    "version_of",
]

_TAG = re.compile(r'(?:^|,)[ \t]*(W/)?("[^"]*")[ \t]*(?=,|$)')
_VERSION = re.compile(r'"([0-9]{1,18})-[0-9a-f]{16}"')
_KEPT_IN_304 = ("Cache-Control", "Content-Location", "Expires", "Vary")


def etag_of(row: object, *, shown: BaseModel | None = None) -> str:
    """Return the ETag of a row or schema.

    A row with a version gets a tag of its key and version. That is right if the response shows columns of the row and nothing else. Give
    *shown*, the response, if it shows more: the tag is then of the version and the bytes of the response. A schema gets a tag of its bytes.

    Raises:
        ConfigurationError: *row* is a row without a version.
    """
    if shown is None and isinstance(row, BaseModel):
        return f'"{digest_of(row)}"'
    version = version_of(row)
    if version is None:
        raise ConfigurationError(f"{type(row).__name__} has no version: use VersionMixin, or give the schema that is sent")
    mapper = object_mapper(row)
    key = (mapper.local_table.description, identity_of(mapper).key_of_row(row), version)
    digest = digest_of(key if shown is None else shown)
    return f'"{version}-{digest}"'


def answer_with_etag(row: object, *, request: Request, response: Response, shown: BaseModel | None = None) -> None:
    """Set the ``ETag`` header of *response*. In a ``GET`` or ``HEAD``, check the preconditions of *request*.

    *row* and *shown* are those of ``etag_of``. The headers of *response* that a 304 needs, such as ``Cache-Control`` and ``Vary``, are sent
    with it if they are set before.

    Raises:
        HTTPException: 304: the client has this response (``If-None-Match``).
        PreconditionFailedError: ``If-Match`` names no ETag of the row.
    """
    tag = etag_of(row, shown=shown)
    response.headers["ETag"] = tag
    if request.method in {"GET", "HEAD"}:
        check_if_match(request, [tag])
        if has_current(request, [tag]):
            kept = {name: response.headers[name] for name in _KEPT_IN_304 if name in response.headers}
            raise HTTPException(304, headers={**kept, "ETag": tag})


def check_preconditions(request: Request, tags: Collection[str] = ()) -> None:
    """Raise PreconditionFailedError unless *request* allows a write to a resource that exists and has these ETags."""
    check_if_match(request, tags)
    if has_current(request, tags):
        raise PreconditionFailedError("If-None-Match")


def is_conditional(request: Request) -> bool:
    """Return whether *request* has a precondition."""
    return "if-match" in request.headers or "if-none-match" in request.headers


def version_of(row: object) -> Any:
    """Return the version of a row, or None if its model counts none."""
    state = cast("Any", inspect(row, raiseerr=False))
    if state is None or state.mapper.version_id_col is None:
        return None
    return getattr(row, state.mapper.get_property_by_column(state.mapper.version_id_col).key)


@answering(412)
def get_if_match(
    if_match: Annotated[list[str] | None, Header(alias="If-Match", description="The ETag that the resource must have")] = None,
) -> int | None:
    """Return the version in ``If-Match``, or None if the header is missing or ``*``.

    Raises:
        PreconditionFailedError: The header has something else than one tag of a row: a weak tag, one of another server, or several tags.
    """
    sent = None if if_match is None else ",".join(if_match).strip()
    if sent is None or sent == "*":
        return None
    found = _VERSION.fullmatch(sent)
    if found is None:
        raise PreconditionFailedError("If-Match")
    return int(found[1])


@answering(428)
def get_required_if_match(version: Annotated[int | None, Depends(get_if_match)]) -> int:
    """Return the version in ``If-Match``.

    Raises:
        PreconditionRequiredError: The header is missing, or ``*``, which names no version.
        PreconditionFailedError: As ``get_if_match``.
    """
    if version is None:
        raise PreconditionRequiredError("If-Match")
    return version


IfMatch: TypeAlias = Annotated[int | None, Depends(get_if_match)]
"""The version that the client expects, for ``expected_version=`` of a service. None: any."""
RequiredIfMatch: TypeAlias = Annotated[int, Depends(get_required_if_match)]
"""The version that the client expects. A request without one is answered 428."""


def require_if_match(request: Request) -> None:
    """Raise PreconditionRequiredError if ``If-Match`` is missing or ``*``."""
    if header_of(request, "if-match") in {None, "*"}:
        raise PreconditionRequiredError("If-Match")


def check_if_match(request: Request, tags: Collection[str] = ()) -> None:
    """Raise PreconditionFailedError unless ``If-Match`` is missing, ``*``, or names one of *tags*. Weak tags match nothing."""
    sent = header_of(request, "if-match")
    if sent is not None and sent != "*" and not any(tag in tags for weak, tag in _TAG.findall(sent) if not weak):
        raise PreconditionFailedError("If-Match")


def has_current(request: Request, tags: Collection[str]) -> bool:
    """Return whether ``If-None-Match`` is ``*`` or names one of *tags*. Weak tags match too."""
    sent = header_of(request, "if-none-match")
    return sent is not None and (sent == "*" or any(tag in tags for _, tag in _TAG.findall(sent)))


def header_of(request: Request, name: str) -> str | None:
    """Return all lines of a header as one, or None if it is missing."""
    lines = request.headers.getlist(name)
    return ",".join(lines).strip() if lines else None


def digest_of(content: object) -> str:
    """Return the hash of a schema as it is sent, or of other content."""
    sent = content.__pydantic_serializer__.to_json(content, by_alias=True) if isinstance(content, BaseModel) else repr(content).encode()
    return sha256(sent).hexdigest()[:16]
