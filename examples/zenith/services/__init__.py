"""The operations of the application, without HTTP."""

from .auth_service import flow, load_user, logins, send_welcome
from .organization_service import MembershipService, OrganizationService
from .user_service import UserService

__all__ = ["MembershipService", "OrganizationService", "UserService", "flow", "load_user", "logins", "send_welcome"]
