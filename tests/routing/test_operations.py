"""Operation ids: operation_id() and check_operation_ids()."""

import enum

import pytest
from fastapi import APIRouter, FastAPI
from tests.routing.models import NoteRead, NoteService, document_of, get_session

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.routing import Endpoint, check_operation_ids, crud_router, operation_id


def test_operation_ids_are_unique_even_twice() -> None:
    """One router under two prefixes has ten operation ids."""
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
    """What a generated client calls."""
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
    """Of the first tag, whatever it is."""
    router = APIRouter()

    @router.get("/x", tags=own, name=name)
    async def read() -> None: ...

    (found,) = ids_of(app_with_ids((router, included)))

    assert found == expected
    assert found.isidentifier()


def test_a_router_may_be_there_twice_under_two_tags() -> None:
    """The tag is part of the id."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)
    app = app_with_ids((router, ["a"]), (router, ["b"]))

    check_operation_ids(app)
    assert len(set(ids_of(app))) == 10


def test_a_router_twice_under_one_tag_is_refused() -> None:
    """Both operations are named."""
    router = crud_router(NoteService, read=NoteRead, session=get_session)

    with pytest.raises(ConfigurationError, match=r"GET /0 and GET /1 have the operation id notes_list_notes"):
        check_operation_ids(app_with_ids((router, ["notes"]), (router, ["notes"])))


def test_ids_of_the_hosts_own_are_looked_at_too() -> None:
    """Two equal ``operation_id=``, one that a router was included with, and a webhook."""
    app, inner = FastAPI(), APIRouter()

    @app.get("/a", operation_id="same")
    async def first() -> None: ...

    @inner.post("/b", operation_id="same")
    async def second() -> None: ...

    check_operation_ids(app)
    app.include_router(inner, prefix="/inner")
    with pytest.raises(ConfigurationError, match="GET /a and POST /inner/b have the operation id same"):
        check_operation_ids(app)


def test_ids_of_webhooks_are_looked_at_too() -> None:
    """They are in the same document."""
    app = FastAPI()

    @app.get("/a", operation_id="same")
    async def first() -> None: ...

    @app.webhooks.post("told", operation_id="same")
    async def told() -> None: ...

    with pytest.raises(ConfigurationError, match="GET /a and POST told"):
        check_operation_ids(app)


def test_a_route_of_several_methods_has_one_id_too_many() -> None:
    """The document would show one id twice."""
    app = FastAPI()

    @app.api_route("/a", methods=["GET", "HEAD"])
    async def read() -> None: ...

    with pytest.raises(ConfigurationError, match="GET /a and HEAD /a"):
        check_operation_ids(app)


def test_what_is_not_in_the_document_has_no_id() -> None:
    """Hidden routes, hidden inclusions, mounts, and plain Starlette routes."""
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
