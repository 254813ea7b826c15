"""Logins. The table has the hashes of refresh tokens, and no token."""

from fastapi_kit.auth.logins.sql import LoginMixin

from .base import Base


class Login(LoginMixin, Base):
    __tablename__ = "logins"
