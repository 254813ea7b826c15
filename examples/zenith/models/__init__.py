"""Tables."""

from .base import Base, TimestampMixin
from .organization import Membership, Organization
from .user import User

__all__ = ["Base", "Membership", "Organization", "TimestampMixin", "User"]
