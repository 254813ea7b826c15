"""Schemas of the ready routes."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from fastapi_kit.schemas import Email, Password, SafeText

__all__ = [
    "CHALLENGE_DESCRIPTION",
    "CODE_ERRORS",
    "AccountDelete",
    "AccountName",
    "CodeConfirmation",
    "CodeLogin",
    "EmailChange",
    "EnrolmentRead",
    "LinkToken",
    "LoginRead",
    "PasswordAndCode",
    "PasswordChange",
    "PasswordConfirmation",
    "PasswordReset",
    "RecoveryCodesRead",
    "RefreshRequest",
    "SecondFactorRead",
    "UserProfile",
    "UserRegister",
]

Code = Annotated[SecretStr, Field(min_length=1, max_length=64, description="A code of the authenticator app, or a recovery code")]
OptionalCode = Annotated[Code | None, Field(description="For an account with a second factor: a code, or a recovery code")]

FORM = ConfigDict(extra="forbid", hide_input_in_errors=True)
"""Other fields are rejected, and the text of a ValidationError shows nothing of the form."""


class UserRegister(BaseModel):
    """What a new user sends. Other fields are rejected. Subclass it to add fields."""

    model_config = FORM

    email: Email
    password: Password


class UserProfile(BaseModel):
    """What users may see of themselves."""

    model_config = ConfigDict(from_attributes=True)

    email: str
    is_verified: bool


class RefreshRequest(BaseModel):
    """A refresh token to exchange."""

    model_config = FORM

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

    model_config = FORM

    current_password: SecretStr = Field(max_length=1024)
    password: Password


class AccountDelete(BaseModel):
    """The current password of a user who deletes the account, and a code of the second factor if there is one."""

    model_config = FORM

    current_password: SecretStr = Field(max_length=1024)
    code: OptionalCode = None


class AccountName(BaseModel):
    """The address of an account, or what ``AuthFlow(identify=...)`` takes."""

    model_config = FORM

    email: Annotated[SafeText, Field(min_length=1, max_length=320)]


class EmailChange(BaseModel):
    """A new address, the current password, and a code of the second factor if there is one."""

    model_config = FORM

    email: Email
    current_password: SecretStr = Field(max_length=1024)
    code: OptionalCode = None


class LinkToken(BaseModel):
    """The token of a link in a mail."""

    model_config = FORM

    token: SecretStr


class PasswordReset(BaseModel):
    """The token of a link in a mail, and a new password."""

    model_config = FORM

    token: SecretStr
    password: Password


# --- A second factor ---

CHALLENGE_DESCRIPTION = (
    " If the account has a second factor, a right password is a 401 with the code `second_factor_required`:"
    " send the `challenge_token` in its `context` to `/login/second-factor`, with a code."
)
CODE_ERRORS = "`invalid_credentials` is a wrong code; `invalid_token` is a challenge that is over: log in again."

CurrentPassword = Annotated[SecretStr, Field(min_length=1, max_length=1024)]


class CodeLogin(BaseModel):
    """The challenge of a login, and a code."""

    model_config = FORM

    challenge_token: SecretStr
    code: Code


class PasswordConfirmation(BaseModel):
    """The current password."""

    model_config = FORM

    current_password: CurrentPassword


class CodeConfirmation(BaseModel):
    """A code of the authenticator app."""

    model_config = FORM

    code: Code


class PasswordAndCode(BaseModel):
    """The current password and a code."""

    model_config = FORM

    current_password: CurrentPassword
    code: Code


class SecondFactorRead(BaseModel):
    """Whether a login needs a code, and how many recovery codes are left."""

    enabled: bool
    recovery_codes: int


class EnrolmentRead(BaseModel):
    """For the authenticator app. It is shown once."""

    secret: str = Field(repr=False)
    uri: str = Field(repr=False)


class RecoveryCodesRead(BaseModel):
    """For when the authenticator app is lost. They are shown once, and each works once."""

    recovery_codes: list[str] = Field(repr=False)
