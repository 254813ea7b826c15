"""Tables."""

from .base import Base, TimestampMixin
from .login import Login
from .organization import Membership, Organization
from .user import User

__all__ = ["Base", "Login", "Membership", "Organization", "TimestampMixin", "User"]
