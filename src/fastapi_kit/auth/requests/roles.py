"""Roles and their permissions, declared once."""

from collections.abc import Collection, Iterable, Mapping
from typing import Generic, TypeVar

from fastapi_kit.errors import ConfigurationError

__all__ = ["Roles"]

RoleT = TypeVar("RoleT", bound=str)
PermissionT = TypeVar("PermissionT", bound=str)


class Roles(Generic[RoleT, PermissionT]):
    """Which role has which permissions. Names are strings, or members of a ``StrEnum``, which type checkers compare.

    Call ``having`` where your application starts: in the arguments of ``require``, or in a constant.

    Args:
        permissions: The permissions of each role.

    Raises:
        TypeError: The permissions of a role are one string instead of a collection.

    Example:
        ```python
        from dataclasses import dataclass

        from fastapi_kit.auth import Roles, require

        ROLES = Roles({"owner": ["notes:edit", "notes:delete"], "editor": ["notes:edit"], "guest": []})


        @dataclass
        class User:
            roles: list[str]


        async def get_current_user() -> User:  # or from get_current_user_factory
            return User(roles=["editor"])


        require_editing = require(get_current_user, roles=ROLES.having("notes:edit"))
        assert ROLES.having("notes:edit") == {"owner", "editor"}
        assert ROLES.permissions_of("editor") == {"notes:edit"}
        ```
    """

    def __init__(self, permissions: Mapping[RoleT, Collection[PermissionT]]) -> None:
        for role, names in permissions.items():
            if isinstance(names, str):
                raise TypeError(f"the permissions of {role} are a collection: write [{str(names)!r}]")
        self._permissions = {role: frozenset(names) for role, names in permissions.items()}
        self._known = frozenset[PermissionT]().union(*self._permissions.values())

    def having(self, *permissions: PermissionT) -> frozenset[RoleT]:
        """Return the roles that have all *permissions*, for ``require(roles=...)``, for a *check*, or for ``column.in_(...)``.

        Raises:
            ConfigurationError: No role has one of them, as with a misspelt name; or none is given.
        """
        if not permissions:
            raise ConfigurationError("name at least one permission")
        if unknown := frozenset(permissions) - self._known:
            raise ConfigurationError(f"no role has {', '.join(sorted(unknown))}; the permissions are {', '.join(sorted(self._known))}")
        return frozenset(role for role, names in self._permissions.items() if names.issuperset(permissions))

    def permissions_of(self, *roles: str) -> frozenset[PermissionT]:
        """Return the permissions of *roles* together, for ``user.permissions``. A role that is not declared has none."""
        known: Iterable[frozenset[PermissionT]] = (names for role, names in self._permissions.items() if role in roles)
        return frozenset[PermissionT]().union(*known)
