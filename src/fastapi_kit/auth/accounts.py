"""What the ready-made routes need of the host's users."""

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from fastapi_kit.errors import FieldError, UserInputError
from fastapi_kit.schemas import Email

__all__ = ["PRIVILEGES", "Account", "Accounts", "normalize_email"]

UserT = TypeVar("UserT")
RegisterT_contra = TypeVar("RegisterT_contra", bound=BaseModel, contravariant=True)

PRIVILEGES = frozenset(
    {
        "active",
        "admin",
        "disabled",
        "email_verified",
        "groups",
        "hashed_password",
        "id",
        "is_active",
        "is_admin",
        "is_disabled",
        "is_email_verified",
        "is_owner",
        "is_staff",
        "is_superuser",
        "is_verified",
        "password_hash",
        "permissions",
        "role",
        "role_id",
        "roles",
        "scopes",
        "staff",
        "superuser",
        "token_epoch",
        "verified",
    }
)
"""Fields that a self-service schema must not contain: users could grant themselves privileges."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What the routes know of a user; *subject* is the id that tokens carry, and never changes: not the e-mail address."""

    subject: str
    email: str
    hashed_password: str | None = field(repr=False)
    is_active: bool = True
    is_verified: bool = True


class Accounts(Protocol[UserT, RegisterT_contra]):
    """The host's users, over one session. ``UserAccounts`` has these methods; a service of the host may have them too."""

    def describe(self, user: UserT, /) -> Account:
        """Return what the routes need to know of *user*."""
        ...

    async def get_account(self, subject: str, /) -> UserT | None:
        """Return the user that a token names."""
        ...

    async def get_account_by_email(self, email: str, /) -> UserT | None:
        """Return the user with this address, given in normal form."""
        ...

    async def register(self, data: RegisterT_contra, /, *, hashed_password: str) -> UserT:
        """Create a user who is active, unverified and without privileges. Raises ConflictError."""
        ...

    async def set_password(self, user: UserT, /, *, hashed_password: str, replacing: str | None = None) -> bool:
        """Store a new hash; with *replacing* only if that is still the stored one, in one statement. Return whether it was."""
        ...


_EMAIL: TypeAdapter[str] = TypeAdapter(Email)


def normalize_email(email: str) -> str:
    """Return the one form in which an address is stored and looked up: that of ``schemas.Email``. Raises UserInputError."""
    try:
        return _EMAIL.validate_python(email)
    except ValidationError:
        text = "is not a valid e-mail address"
        raise UserInputError(f"The address {text}.", errors=[FieldError(("email",), "email", text)]) from None
