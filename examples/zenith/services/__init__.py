"""The operations of the application, without HTTP."""

from .auth_service import load_user, mail
from .organization_service import MembershipService, OrganizationService
from .user_service import UserService, attempts, flow, impersonation, logins

__all__ = [
    "MembershipService",
    "OrganizationService",
    "UserService",
    "attempts",
    "flow",
    "impersonation",
    "load_user",
    "logins",
    "mail",
]
