"""Ready schemas for hosts that start from nothing."""

from pydantic import BaseModel, ConfigDict, SecretStr

from fastapi_kit.schemas import Email, Password

__all__ = ["RefreshRequest", "UserProfile", "UserRegister"]


class UserRegister(BaseModel):
    """What a new user sends. Anything else is refused."""

    model_config = ConfigDict(extra="forbid")

    email: Email
    password: Password


class UserProfile(BaseModel):
    """What users may see of themselves."""

    model_config = ConfigDict(from_attributes=True)

    email: str
    is_verified: bool


class RefreshRequest(BaseModel):
    """A refresh token to be exchanged."""

    model_config = ConfigDict(extra="forbid")

    refresh_token: SecretStr
