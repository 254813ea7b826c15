"""Operation ids: operation_id() and check_operation_ids()."""

import enum

import pytest
from fastapi import APIRouter, FastAPI
from tests.routing.models import NoteRead, NoteService, document_of, get_session

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import Endpoint, check_operation_ids, crud_router, operation_id


def test_operation_ids_are_unique_even_twice() -> None:
    """One router under two prefixes has ten different operation ids."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)
    paths = document_of(("/a", router), ("/b", router))["paths"]

    assert len({operation["operationId"] for methods in paths.values() for operation in methods.values()}) == 10


def app_with_ids(*included: tuple[APIRouter, list[str | enum.Enum]]) -> FastAPI:
    app = FastAPI(generate_unique_id_function=operation_id)
    for number, (router, tags) in enumerate(included):
        app.include_router(router, prefix=f"/{number}", tags=tags)
    return app


def ids_of(app: FastAPI) -> list[str]:
    return [operation["operationId"] for methods in app.openapi()["paths"].values() for operation in methods.values()]


def test_operation_ids_are_tag_and_name() -> None:
    """An operation id is the tag and the name of the route."""
    app = app_with_ids((crud_router(NoteService, read=NoteRead, session=get_session, endpoints=Endpoint.READ), ["notes"]))

    assert ids_of(app) == ["notes_list_notes", "notes_get_note"]


class Tag(enum.Enum):
    ACCOUNTS = "user accounts"


@pytest.mark.parametrize(
    ("included", "own", "name", "expected"),
    [
        ([], [], "read", "read"),
        ([], ["notes"], "read", "notes_read"),
        (["first", "second"], ["own"], "read", "first_read"),
        ([Tag.ACCOUNTS], [], "read", "user_accounts_read"),
        (["a / b!"], [], "read-one", "a_b_read_one"),
        (["2fa"], [], "read", "_2fa_read"),
        (["Größe"], [], "read", "Größe_read"),
        (["!"], [], "read", "read"),
    ],
)
def test_operation_ids_are_identifiers(included: list[str | enum.Enum], own: list[str | enum.Enum], name: str, expected: str) -> None:
    """An operation id is an identifier, whatever the first tag is."""
    router = APIRouter()

    @router.get("/x", tags=own, name=name)
    async def read() -> None: ...

    (found,) = ids_of(app_with_ids((router, included)))

    assert found == expected
    assert found.isidentifier()


def test_a_router_may_be_included_twice_with_two_tags() -> None:
    """A router that is included with two tags has different ids."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)
    app = app_with_ids((router, ["a"]), (router, ["b"]))

    check_operation_ids(app)
    assert len(set(ids_of(app))) == 10


def test_a_router_included_twice_with_one_tag_raises() -> None:
    """The error names both operations."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)

    with pytest.raises(ConfigurationError, match=r"GET /0 and GET /1 have the operation id notes_list_notes"):
        check_operation_ids(app_with_ids((router, ["notes"]), (router, ["notes"])))


def test_own_operation_ids_count_too() -> None:
    """Two routes with the same operation_id= raise ConfigurationError."""
    app, inner = FastAPI(), APIRouter()

    @app.get("/a", operation_id="same")
    async def first() -> None: ...

    @inner.post("/b", operation_id="same")
    async def second() -> None: ...

    check_operation_ids(app)
    app.include_router(inner, prefix="/inner")
    with pytest.raises(ConfigurationError, match="GET /a and POST /inner/b have the operation id same"):
        check_operation_ids(app)


def test_ids_of_webhooks_count_too() -> None:
    """A webhook and a route with the same id raise ConfigurationError."""
    app = FastAPI()

    @app.get("/a", operation_id="same")
    async def first() -> None: ...

    @app.webhooks.post("noticed", operation_id="same")
    async def noticed() -> None: ...

    with pytest.raises(ConfigurationError, match="GET /a and POST noticed"):
        check_operation_ids(app)


def test_a_route_with_several_methods_raises() -> None:
    """A route with two methods has one id for both and raises ConfigurationError."""
    app = FastAPI()

    @app.api_route("/a", methods=["GET", "HEAD"])
    async def read() -> None: ...

    with pytest.raises(ConfigurationError, match="GET /a and HEAD /a"):
        check_operation_ids(app)


def test_what_is_not_in_the_document_does_not_count() -> None:
    """Hidden routes, mounts and plain Starlette routes may share names."""
    app, hidden = FastAPI(), APIRouter()

    @app.get("/a", operation_id="same")
    async def first() -> None: ...

    @app.api_route("/b", methods=["GET", "HEAD"], operation_id="same", include_in_schema=False)
    async def second() -> None: ...

    @hidden.get("/c", operation_id="same")
    async def third() -> None: ...

    app.include_router(hidden, prefix="/hidden", include_in_schema=False)
    app.mount("/sub", app_with_ids((hidden, [])))

    check_operation_ids(app)
