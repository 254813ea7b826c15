"""What clients send and receive."""

from .organization import MembershipCreate, MembershipRead, OrganizationCreate, OrganizationRead, OrganizationUpdate
from .user import PrivilegesUpdate, UserChange, UserCreate, UserRead, UserRegister, UserUpdate

__all__ = [
    "MembershipCreate",
    "MembershipRead",
    "OrganizationCreate",
    "OrganizationRead",
    "OrganizationUpdate",
    "PrivilegesUpdate",
    "UserChange",
    "UserCreate",
    "UserRead",
    "UserRegister",
    "UserUpdate",
]
