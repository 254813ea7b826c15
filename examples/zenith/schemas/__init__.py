"""What clients send and receive."""

from .organization import (
    MembershipCreate,
    MembershipRead,
    MembershipUpdate,
    OrganizationCreate,
    OrganizationQuery,
    OrganizationRead,
    OrganizationUpdate,
)
from .user import PrivilegesUpdate, UserChange, UserCreate, UserQuery, UserRead, UserRegister, UserUpdate

__all__ = [
    "MembershipCreate",
    "MembershipRead",
    "MembershipUpdate",
    "OrganizationCreate",
    "OrganizationQuery",
    "OrganizationRead",
    "OrganizationUpdate",
    "PrivilegesUpdate",
    "UserChange",
    "UserCreate",
    "UserQuery",
    "UserRead",
    "UserRegister",
    "UserUpdate",
]
