"""An app with a fault for each check: where none is found, a check is asleep."""

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel

__all__ = ["FAULTS", "app"]

FAULTS = {
    "allow_header_conformance": "AllowHeaderMismatch",
    "content_type_conformance": "UndefinedContentType",
    "ensure_resource_availability": "EnsureResourceAvailability",
    "ignored_auth": "IgnoredAuth",
    "missing_required_header": "MissingHeaderNotRejected",
    "negative_data_rejection": "AcceptedNegativeData",
    "not_a_server_error": "ServerError",
    "object_level_authorization": "ObjectLevelAuthorizationViolation",
    "positive_data_acceptance": "RejectedPositiveData",
    "response_headers_conformance": "MissingHeaders",
    "response_schema_conformance": "JsonSchemaError",
    "status_code_conformance": "UndefinedStatusCode",
    "unsupported_method": "UnsupportedMethodResponse",
    "use_after_free": "UseAfterFree",
}
"""What each check of schemathesis calls what it finds here."""


class Thing(BaseModel):
    name: str


class StoredThing(Thing):
    id: int


_TEXT = {"200": {"content": {"application/json": {"schema": {"type": "string"}}}}}
router = APIRouter()
things: dict[int, StoredThing] = {}
numbers = itertools.count(1)


@router.get("/error")
async def error() -> str:
    return PlainTextResponse("a bug", 500)


@router.get("/status")
async def status() -> Any:
    return JSONResponse("unheard of", 418)


@router.get("/type", responses=_TEXT)
async def type_of_content() -> Any:
    return PlainTextResponse("no JSON")


@router.get("/shape", responses=_TEXT)
async def shape() -> Any:
    return JSONResponse({"no": "text"})


@router.get("/header", responses={200: {"headers": {"X-Count": {"required": True, "schema": {"type": "integer"}}}}})
async def header() -> str:
    return "without its header"


def documented(name: str, place: str, kind: str) -> dict[str, Any]:
    """A parameter that is not read."""
    return {"parameters": [{"name": name, "in": place, "required": True, "schema": {"type": kind}}]}


@router.get("/accepts/{number}", openapi_extra=documented("number", "path", "integer"))
async def accept() -> str:
    return "whatever you say"


@router.post("/rejects")
async def reject(thing: Thing) -> str:
    return JSONResponse("no", 422)


@router.get("/needs", openapi_extra=documented("X-Reason", "header", "string"))
async def need() -> str:
    return "not really"


@router.api_route("/needs", methods=["POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def another_method() -> str:
    return "undeclared"


@router.options("/error", include_in_schema=False)
async def allow() -> Response:
    return Response(headers={"Allow": "GET, DELETE"})


@router.post("/things", status_code=201)
async def create_thing(thing: Thing) -> StoredThing:
    stored = StoredThing(id=next(numbers), name=thing.name)
    things[stored.id] = stored
    return stored


@router.get("/things/{id}")
async def read_thing(id: int) -> StoredThing:
    return things.get(id) or StoredThing(id=id, name="there for ever")


@router.delete("/things/{id}", status_code=204)
async def delete_thing(id: int) -> None:
    things.pop(id, None)


@router.post("/ghosts", status_code=201)
async def create_ghost(thing: Thing) -> StoredThing:
    return StoredThing(id=next(numbers), name=thing.name)


@router.get("/ghosts/{id}")
async def read_ghost(id: int) -> StoredThing:
    return JSONResponse({"detail": "missing"}, 404)


@router.get("/open", dependencies=[Depends(HTTPBearer(auto_error=False))])
async def unguarded() -> str:
    return "for everybody"


diaries: dict[int, StoredThing] = {}
User = Annotated[Any, Depends(HTTPBearer())]


@router.post("/diaries", status_code=201)
async def create_diary(user: User, thing: Thing) -> StoredThing:
    stored = StoredThing(id=next(numbers), name=thing.name)
    diaries[stored.id] = stored
    return stored


@router.get("/diaries/{id}")
async def read_diary(user: User, id: int) -> StoredThing:
    return diaries.get(id) or JSONResponse({"detail": "missing"}, 404)


app = FastAPI()
app.include_router(router)
