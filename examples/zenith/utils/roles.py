"""What members may do in an organization."""

from enum import StrEnum, auto

from fastapi_kit.auth import Roles


class Role(StrEnum):
    OWNER = auto()
    ADMIN = auto()
    MEMBER = auto()


class May(StrEnum):
    CHANGE = auto()
    MANAGE_MEMBERS = auto()
    MANAGE_ROLES = auto()
    DELETE = auto()


ROLES = Roles({Role.OWNER: list(May), Role.ADMIN: [May.CHANGE, May.MANAGE_MEMBERS], Role.MEMBER: []})
