"""Schemas of the ready routes."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from fastapi_kit.schemas import Email, Password, SafeText

__all__ = [
    "AccountDelete",
    "AccountName",
    "EmailChange",
    "LinkToken",
    "LoginRead",
    "PasswordChange",
    "PasswordReset",
    "RefreshRequest",
    "UserProfile",
    "UserRegister",
]


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


class PasswordChange(BaseModel):
    """A new password, and the current one."""

    model_config = ConfigDict(extra="forbid")

    current_password: SecretStr = Field(max_length=1024)
    password: Password


class AccountDelete(BaseModel):
    """The current password of a user who deletes the account."""

    model_config = ConfigDict(extra="forbid")

    current_password: SecretStr = Field(max_length=1024)


class AccountName(BaseModel):
    """The address of an account, or what ``AuthFlow(identify=...)`` takes."""

    model_config = ConfigDict(extra="forbid")

    email: Annotated[SafeText, Field(min_length=1, max_length=320)]


class EmailChange(BaseModel):
    """A new address, and the current password."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    current_password: SecretStr = Field(max_length=1024)


class LinkToken(BaseModel):
    """The token of a link in a mail."""

    model_config = ConfigDict(extra="forbid")

    token: SecretStr


class PasswordReset(BaseModel):
    """The token of a link in a mail, and a new password."""

    model_config = ConfigDict(extra="forbid")

    token: SecretStr
    password: Password
