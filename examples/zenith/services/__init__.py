"""The operations of the application, without HTTP."""

from .auth_service import load_user, mail
from .organization_service import MembershipService, OrganizationService
from .user_service import UserService, flow, logins

__all__ = ["MembershipService", "OrganizationService", "UserService", "flow", "load_user", "logins", "mail"]
