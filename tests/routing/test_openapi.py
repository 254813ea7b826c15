"""The OpenAPI document of a router."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from httpx import AsyncClient
from tests.routing.models import (
    Note,
    NoteRead,
    NoteService,
    SeatPlanIn,
    SeatPlanService,
    Usage,
    client_of,
    document_of,
    get_session,
    operations_of,
)

from fastapi_kit.db import Database
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.middleware import BodyLimitMiddleware
from fastapi_kit.routing import Endpoint, crud_router
from fastapi_kit.testing.client import app_client


def test_the_document_shows_real_models() -> None:
    """Bodies and responses are the schemas of the service and the router."""
    operations = operations_of(crud_router(NoteService, read=NoteRead, session=get_session))

    def schema(message: dict[str, Any]) -> str:
        return str(message["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2])

    assert schema(operations["", "post"]["requestBody"]) == "NoteCreate"
    assert schema(operations["/{id}", "patch"]["requestBody"]) == "NoteUpdate"
    assert schema(operations["", "post"]["responses"]["201"]) == "NoteRead"
    assert schema(operations["", "get"]["responses"]["200"]) == "Page_NoteRead_"
    assert operations["", "post"]["requestBody"]["required"] is True


def test_the_document_shows_the_errors() -> None:
    """Each endpoint documents its own errors as problems."""
    router = crud_router(NoteService, read=NoteRead, session=get_session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    errors = {
        key: {status for status, response in operation["responses"].items() if "application/problem+json" in response.get("content", {})}
        for key, operation in operations_of(router).items()
    }

    assert errors == {
        ("", "get"): {"422", "503"},
        ("", "post"): {"400", "409", "413", "422", "503"},
        ("/batch", "post"): {"400", "409", "413", "422", "503"},
        ("/{id}", "get"): {"404", "422", "503"},
        ("/{id}", "patch"): {"400", "404", "409", "413", "422", "503"},
        ("/{id}", "delete"): {"404", "409", "422", "503"},
    }
    assert "HTTPValidationError" not in json.dumps(document_of(("/x", router)))


async def error_statuses(client: AsyncClient, *requests: tuple[str, str, Any]) -> set[int]:
    answers = [await client.request(method, f"/notes{path}", json=body) for method, path, body in requests]
    return {answer.status_code for answer in answers if answer.status_code >= 400}


async def test_the_documented_errors_happen(notes: Database) -> None:
    """Every documented status can be caused, and every status that is caused is documented."""
    router = crud_router(NoteService, read=NoteRead, session=notes.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    lost = Database("postgresql+asyncpg://postgres@127.0.0.1:1/test")
    away = crud_router(NoteService, read=NoteRead, session=lost.session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    row, small = {"title": "b"}, {"title": "x" * 100}
    async with notes.begin() as session:
        session.add_all([Note(id=1, title="a"), Note(id=2, title="b")])
        await session.flush()
        session.add(Usage(note_id=1))

    caused: dict[tuple[str, str], set[int]] = {}
    async with client_of(router, prefix="/notes") as client:
        caused["", "get"] = await error_statuses(client, ("GET", "?limit=0", None))
        caused["", "post"] = await error_statuses(client, ("POST", "", row), ("POST", "", {}))
        caused["/batch", "post"] = await error_statuses(client, ("POST", "/batch", [row]), ("POST", "/batch", []))
        caused["/{id}", "get"] = await error_statuses(client, ("GET", "/9", None), ("GET", "/x", None))
        caused["/{id}", "patch"] = await error_statuses(
            client, ("PATCH", "/9", row), ("PATCH", "/1", row), ("PATCH", "/1", {"title": None})
        )
        caused["/{id}", "delete"] = await error_statuses(client, *(("DELETE", path, None) for path in ("/9", "/x", "/1")))
        for path, method in (("", "post"), ("/batch", "post"), ("/{id}", "patch")):
            no_text = {"content": b"\xff", "headers": {"content-type": "application/json"}}
            caused[path, method].add((await client.request(method, f"/notes{path.format(id=1)}", **no_text)).status_code)
    app = FastAPI()
    register_exception_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=50)
    app.include_router(router, prefix="/notes")
    async with app_client(app) as client:
        for path, method, body in (("", "post", small), ("/batch", "post", [small]), ("/{id}", "patch", small)):
            caused[path, method] |= await error_statuses(client, (method, path.format(id=1), body))
    async with client_of(away, prefix="/notes") as client:
        for path, method in caused:
            body = {"post": row, "patch": row}.get(method)
            caused[path, method] |= await error_statuses(client, (method, path.format(id=1), [body] if path == "/batch" else body))

    documented = {
        key: {int(status) for status in operation["responses"] if status.isdigit() and int(status) >= 400}
        for key, operation in operations_of(router).items()
    }
    assert caused == documented


def test_the_document_reads_as_if_written_by_hand() -> None:
    """Summaries and descriptions use the names of the table and the model."""
    router = crud_router(SeatPlanService, read=SeatPlanIn, session=get_session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)
    operations = operations_of(router)
    listing, creating, batch = operations["", "get"], operations["", "post"], operations["/batch", "post"]

    assert {operation["summary"] for operation in operations.values()} == {
        "List seat plans",
        "Get seat plan",
        "Create seat plan",
        "Create many seat plans",
        "Update seat plan",
        "Delete seat plan",
    }
    assert set(listing["responses"]["200"]["headers"]) == {"Link"}
    assert creating["responses"]["201"]["headers"]["Location"]["description"] == "Path of the new seat plan"
    assert {parameter["name"]: parameter["description"] for parameter in operations["/{hall}/{day}", "patch"]["parameters"]} == {
        "hall": "Hall of the seat plan",
        "day": "Day of the seat plan",
    }
    assert [parameter["name"] for parameter in listing["parameters"] if parameter["description"]] == ["skip", "limit"]
    assert batch["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/SeatPlanIn"},
        "minItems": 1,
        "maxItems": 1000,
        "title": "Seat plans",
    }
    described = [response["description"] for operation in operations.values() for response in operation["responses"].values()]
    assert "Successful Response" not in described
    found = json.dumps(document_of(("/x", router))["paths"]).lower().replace("keys", "")
    assert [name for name in ("_row", "window", "key", '"title": "value"', "serve") if name in found] == []


def test_functions_have_the_names_of_their_routes() -> None:
    """The endpoint functions have the names of their routes, for logs and traces."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)

    for route in router.routes:
        assert isinstance(route, APIRoute)
        assert route.endpoint.__name__ == route.endpoint.__qualname__ == route.name


def test_routes_are_named_after_table_and_model() -> None:
    """Routes of a model whose name has several words have readable names."""
    router = crud_router(SeatPlanService, read=SeatPlanIn, session=get_session, endpoints=Endpoint.CRUD | Endpoint.CREATE_MANY)

    assert {route.name for route in router.routes if isinstance(route, APIRoute)} == {
        "list_seat_plans",
        "create_many_seat_plans",
        "get_seat_plan",
        "create_seat_plan",
        "update_seat_plan",
        "delete_seat_plan",
    }
