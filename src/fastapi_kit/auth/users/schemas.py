"""Schemas of the ready routes."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, SecretStr

from fastapi_kit.schemas import Email, Password

__all__ = ["LoginRead", "RefreshRequest", "UserProfile", "UserRegister"]


class UserRegister(BaseModel):
    """What a new user sends. Other fields are rejected. Subclass it to add fields."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    password: Password


class UserProfile(BaseModel):
    """What users may see of themselves."""

    model_config = ConfigDict(from_attributes=True)

    email: str
    is_verified: bool


class RefreshRequest(BaseModel):
    """A refresh token to exchange."""

    model_config = ConfigDict(extra="forbid")

    refresh_token: SecretStr


class LoginRead(BaseModel):
    """What users may see of their logins."""

    id: str
    created_at: datetime
    last_used_at: datetime
    ends_at: datetime
    address: str | None
    user_agent: str | None
    is_current: bool
