"""Roles and their permissions, declared once."""

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from tests.auth.people import People, Person, client_of, no_session, tokens

from fastapi_kit.auth import Roles, get_current_user_factory, require, require_access
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.testing import bearer


class Role(StrEnum):
    OWNER = auto()
    EDITOR = auto()
    GUEST = auto()


class May(StrEnum):
    READ = auto()
    EDIT = auto()
    DELETE = auto()


ROLES = Roles({Role.OWNER: list(May), Role.EDITOR: [May.READ, May.EDIT], Role.GUEST: [May.READ]})


@dataclass
class Membership:
    role: str


people = People(Person(1, roles=["owner"]), Person(2, roles=["guest", "editor"]), Person(3, roles=["king", "OWNER"]), Person(4))
get_user = get_current_user_factory(tokens, people.load, session=no_session)


def test_the_roles_that_have_a_permission() -> None:
    """A permission stands for the roles that have it; several stand for the roles that have all of them."""
    assert ROLES.having(May.READ) == {"owner", "editor", "guest"}
    assert ROLES.having(May.READ, May.EDIT) == {Role.OWNER, Role.EDITOR}
    assert ROLES.having(May.DELETE) == {Role.OWNER}


def test_the_permissions_of_a_role() -> None:
    """Roles have their permissions together; a role that is not declared, for example an old one in the database, has none."""
    assert ROLES.permissions_of("guest", "editor") == {"read", "edit"}
    assert ROLES.permissions_of("king", "OWNER", "") == frozenset()
    assert ROLES.permissions_of() == frozenset()


def test_a_misspelt_permission() -> None:
    """A permission that no role has is an error when the application starts, and not a guard that rejects everybody."""
    roles = Roles({"owner": ["notes:edit"], "guest": []})

    with pytest.raises(ConfigurationError, match="notes:edti; the permissions are notes:edit"):
        roles.having("notes:edti")
    with pytest.raises(ConfigurationError, match="at least one"):
        roles.having()
    with pytest.raises(TypeError, match="collection"):
        Roles({"owner": "notes:edit"})


def test_a_declaration_that_changes_later() -> None:
    """The permissions are those of the declaration: changing its lists afterwards grants nothing."""
    granted = ["read"]
    roles = Roles({"guest": granted})
    granted.append("delete")

    assert roles.permissions_of("guest") == {"read"}


async def test_guards() -> None:
    """R23: a guard lets in the users with a role that has the permission, and rejects unknown roles."""

    def build(app: FastAPI) -> None:
        require_editing = require(get_user, roles=ROLES.having(May.EDIT))

        @app.get("/edit")
        async def edit(user: Annotated[Person, Depends(require_editing)]) -> int:
            return user.id

    async with client_of(build) as client:
        statuses = [(await client.get("/edit", headers=bearer(tokens, str(ident)))).status_code for ident in (1, 2, 3, 4)]

    assert statuses == [200, 200, 403, 403]


async def test_guards_on_permissions_of_the_user() -> None:
    """R23: a user whose permissions come from the roles passes a guard on permissions with several roles together."""

    class Granted(Person):
        def __init__(self, id: int, *roles: str) -> None:
            super().__init__(id, roles=list(roles), permissions=sorted(ROLES.permissions_of(*roles)))

    several = People(Granted(1, "guest", "editor"), Granted(2, "guest"), Granted(3, "king"))
    get_granted = get_current_user_factory(tokens, several.load, session=no_session)

    def build(app: FastAPI) -> None:
        @app.get("/", dependencies=[Depends(require(get_granted, permissions=[May.READ, May.EDIT]))])
        async def read() -> None: ...

    async with client_of(build) as client:
        assert [(await client.get("/", headers=bearer(tokens, str(ident)))).status_code for ident in (1, 2, 3)] == [200, 403, 403]


async def test_a_role_per_object() -> None:
    """R23: a role that a user has in one organization counts there and nowhere else."""
    memberships = {("a", 1): Membership("owner"), ("b", 1): Membership("guest"), ("b", 2): Membership("editor")}

    async def get_membership(organization: str, user: Annotated[Person, Depends(get_user)]) -> Membership:
        return memberships.get((organization, user.id), Membership("none"))

    may_edit = ROLES.having(May.EDIT)

    def build(app: FastAPI) -> None:
        get_editing = require_access(get_user, get_membership, check=lambda user, membership: membership.role in may_edit)

        @app.get("/{organization}")
        async def edit(membership: Annotated[Membership, Depends(get_editing)]) -> str:
            return membership.role

    async with client_of(build) as client:
        found = {
            (name, ident): (await client.get(f"/{name}", headers=bearer(tokens, str(ident)))).status_code
            for name in "ab"
            for ident in (1, 2)
        }

    assert found == {("a", 1): 200, ("a", 2): 403, ("b", 1): 403, ("b", 2): 200}
