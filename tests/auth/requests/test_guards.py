"""Guards."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Security
from tests.auth.people import People, Person, app_with, client_of, no_session, tokens

from fastapi_kit.auth import get_current_user_factory, require, require_access
from fastapi_kit.errors import NotFoundError
from fastapi_kit.testing import app_client, bearer, login_as

people = People(
    Person(1),
    Person(2, is_superuser=True),
    Person(3, is_verified=False),
    Person(4, roles=["editor"], permissions=["write", "delete"]),
    Person(5, roles=["auditor", "reader"], permissions=["write"]),
)
get_user = get_current_user_factory(tokens, people.load, session=no_session)
get_optional = get_current_user_factory(tokens, people.load, session=no_session, optional=True)


def guarded(guard: Callable[..., Any]) -> Callable[[FastAPI], None]:
    def build(app: FastAPI) -> None:
        @app.get("/")
        async def read(user: Annotated[Person, Depends(guard)]) -> int:
            return user.id

    return build


async def let_in(guard: Callable[..., Any], headers: Callable[[int], Mapping[str, str]] | None = None) -> list[int]:
    """Return the people who pass *guard*; the others must get a 403."""
    entered: list[int] = []
    async with client_of(guarded(guard)) as client:
        for ident in people.rows:
            response = await client.get("/", headers=headers(ident) if headers else bearer(tokens, str(ident)))
            assert response.status_code in {200, 403}
            entered += [response.json()] if response.status_code == 200 else []
    return entered


async def test_no_condition() -> None:
    """R23: a guard without conditions passes every user."""
    assert await let_in(require(get_user)) == [1, 2, 3, 4, 5]


async def test_superuser() -> None:
    """R23: a guard for superusers rejects other users."""
    assert await let_in(require(get_user, superuser=True)) == [2]


async def test_verified() -> None:
    """R23: an unverified user is a 403."""
    assert await let_in(require(get_user, verified=True)) == [1, 2, 4, 5]


async def test_roles() -> None:
    """R23: any one of the roles is enough."""
    assert await let_in(require(get_user, roles=["editor", "auditor"])) == [4, 5]


async def test_permissions() -> None:
    """R23: all of the permissions are needed."""
    assert await let_in(require(get_user, permissions=["write", "delete"])) == [4]


async def test_conditions_together() -> None:
    """R23: every condition of a guard must hold."""
    assert await let_in(require(get_user, verified=True, roles=["editor", "auditor"], check=lambda user: user.id > 4)) == [5]


async def test_a_check() -> None:
    """R23: a check of your own may be sync or async."""

    async def is_odd(user: Person) -> bool:
        return user.id % 2 == 1

    assert await let_in(require(get_user, check=lambda user: user.id < 3)) == [1, 2]
    assert await let_in(require(get_user, check=is_odd)) == [1, 3, 5]


async def test_a_guard_over_a_guard() -> None:
    """R23: a guard can be built on a guard."""
    assert await let_in(require(require(get_user, verified=True), check=lambda user: user.id < 4)) == [1, 2]


async def test_scopes() -> None:
    """R23: scopes are read from the token, and all of them are required."""
    guard = require(get_user, scopes=["a", "b"])

    assert await let_in(guard, lambda ident: bearer(tokens, str(ident), scopes=["a", "b", "c"] if ident < 3 else ["a"])) == [1, 2]


async def test_scopes_of_a_guard_over_a_guard() -> None:
    """R23: a guard over a guard can require scopes."""
    guard = require(require(get_user, superuser=True), scopes=["a"])

    assert await let_in(guard, lambda ident: bearer(tokens, str(ident), scopes=["a"])) == [2]


async def test_missing_scopes_are_named() -> None:
    """R23: the challenge names the required scopes."""
    async with client_of(guarded(require(get_user, scopes=["b", "a"]))) as client:
        response = await client.get("/", headers=bearer(tokens, "1", scopes=["a"]))

    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="a b"'


async def test_a_403_names_no_condition() -> None:
    """R23: the answer does not name missing roles and flags."""
    async with client_of(guarded(require(get_user, roles=["chief"]))) as client:
        response = await client.get("/", headers=bearer(tokens, "1"))

    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")
    assert "chief" not in response.text


async def test_an_anonymous_request_is_a_401() -> None:
    """R21: a guard answers 401 to anonymous requests, over an optional user as well."""
    for guard in (require(get_user, superuser=True), require(get_optional, superuser=True), require(get_user, scopes=["a"])):
        async with client_of(guarded(guard)) as client:
            assert (await client.get("/")).status_code == 401


async def test_a_flag_that_the_user_lacks_is_an_error() -> None:
    """R23: a condition on an attribute that the user lacks raises ConfigurationError."""

    class Visitor:
        id = 1
        roles = "admin"

    async def get_visitor() -> Visitor:
        return Visitor()

    for guard in (require(get_visitor, superuser=True), require(get_visitor, permissions=["x"]), require(get_visitor, roles=["a"])):
        async with client_of(guarded(guard)) as client:
            assert (await client.get("/")).status_code == 500


async def test_a_flag_that_is_a_method_is_an_error() -> None:
    """R23: a method is always true, so a condition on one raises ConfigurationError and passes no user."""

    class Visitor:
        def is_superuser(self) -> bool:
            return False

    async def get_visitor() -> Visitor:
        return Visitor()

    async with client_of(guarded(require(get_visitor, superuser=True))) as client:
        assert (await client.get("/")).status_code == 500


async def test_a_dependency_of_your_own() -> None:
    """R29: a guard can be built on any dependency that gives a user."""

    async def get_visitor() -> Person:
        return Person(9, is_superuser=True)

    async with client_of(guarded(require(get_visitor, superuser=True))) as client:
        assert (await client.get("/")).json() == 9


def test_scopes_need_a_token() -> None:
    """R29: scopes over a dependency without claims raise TypeError."""

    async def get_visitor() -> Person:
        return Person(9)

    with pytest.raises(TypeError, match="get_current_user_factory"):
        require(get_visitor, scopes=["a"])


async def test_scopes_without_a_token() -> None:
    """R29: Security() with scopes over a guard whose user has no token raises ConfigurationError."""

    async def get_visitor() -> Person:
        return Person(9)

    async def get_nothing() -> int:
        return 1

    for guard in (require(get_visitor), require_access(get_visitor, get_nothing, check=lambda user, found: True)):

        def build(app: FastAPI, guard: Callable[..., Any] = guard) -> None:
            @app.get("/", dependencies=[Security(guard, scopes=["a"])])
            async def read() -> None: ...

        async with client_of(build) as client:
            assert (await client.get("/")).status_code == 500


@pytest.mark.parametrize("condition", ["scopes", "roles", "permissions"])
def test_a_text_is_no_collection(condition: str) -> None:
    """R23: one string instead of a collection raises TypeError."""
    options: dict[str, Any] = {condition: "admin"}

    with pytest.raises(TypeError, match=rf"{condition}=\['admin'\]"):
        require(get_user, **options)


async def test_guards_are_in_the_document() -> None:
    """R29: an operation shows the scopes of its guards."""
    app = app_with(guarded(require(get_user, scopes=["reports:read"])))

    operation = app.openapi()["paths"]["/"]["get"]
    assert operation["security"] == [{"Bearer": ["reports:read"]}]
    assert {"401", "403"} <= operation["responses"].keys()


async def test_a_guard_without_scopes_is_in_the_document() -> None:
    """R23: OpenAPI documents 403 for every route with a guard, and for no other."""

    def build(app: FastAPI) -> None:
        for name, dependency in {"user": get_user, "guard": require(get_user, superuser=True)}.items():
            app.add_api_route(f"/{name}", list, dependencies=[Depends(dependency)], response_model=None)

    paths = app_with(build).openapi()["paths"]
    assert ["403" in paths[path]["get"]["responses"] for path in ("/user", "/guard")] == [False, True]
    assert ["401" in paths[path]["get"]["responses"] for path in ("/user", "/guard")] == [True, True]


# --- Objects ---


async def get_note(note_id: int) -> Person:
    if note_id not in people.rows:
        raise NotFoundError(Person, note_id)
    return people.rows[note_id]


def notes(guard: Callable[..., Any]) -> Callable[[FastAPI], None]:
    def build(app: FastAPI) -> None:
        @app.get("/{note_id}")
        async def read(note: Annotated[Person, Depends(guard)]) -> int:
            return note.id

    return build


async def test_access_to_an_object() -> None:
    """R23: require_access gives the object to its owner, and answers 403 to other users."""
    guard = require_access(get_user, get_note, check=lambda user, note: user.is_superuser or note.id == user.id)

    async with client_of(notes(guard)) as client:
        statuses = {
            (ident, note): (await client.get(f"/{note}", headers=bearer(tokens, str(ident)))).status_code
            for ident in (1, 2)
            for note in (1, 3, 99)
        }
        assert (await client.get("/1")).status_code == 401
    assert statuses == {(1, 1): 200, (1, 3): 403, (1, 99): 404, (2, 1): 200, (2, 3): 200, (2, 99): 404}


async def test_access_by_an_async_check_that_hides() -> None:
    """R23: a check may be async, and may raise NotFoundError."""

    async def check(user: Person, note: Person) -> bool:
        if note.id != user.id:
            raise NotFoundError(Person, note.id)
        return True

    async with client_of(notes(require_access(get_user, get_note, check=check))) as client:
        assert (await client.get("/3", headers=bearer(tokens, "1"))).status_code == 404
        assert (await client.get("/1", headers=bearer(tokens, "1"))).json() == 1


async def test_access_of_an_anonymous_request() -> None:
    """R21: require_access answers 401 to anonymous requests, over an optional user as well."""
    async with client_of(notes(require_access(get_optional, get_note, check=lambda user, note: True))) as client:
        assert (await client.get("/1")).status_code == 401


# --- Overrides in tests ---


@pytest.fixture
def app() -> FastAPI:
    def build(app: FastAPI) -> None:
        guards = {
            "plain": get_user,
            "superuser": require(get_user, superuser=True),
            "scoped": require(get_user, scopes=["a"]),
            "both": require(require(get_user, superuser=True), scopes=["a"]),
        }
        for name, guard in guards.items():

            @app.get(f"/{name}", name=name)
            async def read(user: Annotated[Person, Depends(guard)]) -> int:
                return user.id

    return app_with(build)


PATHS = ("plain", "superuser", "scoped", "both")


async def test_overriding_only_the_user(app: FastAPI) -> None:
    """R29: with only the user overridden, guards on the user see that user, and guards on scopes answer 401."""
    app.dependency_overrides[get_user] = lambda: Person(8, is_superuser=True)

    async with app_client(app) as client:
        assert [(await client.get(f"/{path}")).status_code for path in PATHS] == [200, 200, 401, 401]


async def test_login_as(app: FastAPI) -> None:
    """R29: ``login_as`` overrides the user and the claims, and restores both."""
    async with app_client(app) as client:
        with login_as(app, get_user, Person(8, is_superuser=True), scopes=["a"]):
            assert [(await client.get(f"/{path}")).status_code for path in PATHS] == [200, 200, 200, 200]
        with login_as(app, get_user, Person(8)):
            assert [(await client.get(f"/{path}")).status_code for path in PATHS] == [200, 403, 403, 403]
        assert [(await client.get(f"/{path}")).status_code for path in PATHS] == [401, 401, 401, 401]
