"""What logins need of the users of an application."""

from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, TypeAdapter, ValidationError

from fastapi_kit.errors import ConfigurationError, FieldError, UserInputError
from fastapi_kit.schemas import Email

__all__ = ["PRIVILEGES", "Account", "Accounts", "EditableAccounts", "check_own_fields", "editable", "is_superuser", "normalize_email"]

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
        "totp_last_step",
        "totp_recovery_hashes",
        "totp_secret",
        "verified",
    }
)
"""Fields that a self-service schema must not contain, because users could grant themselves privileges."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What ``AuthFlow`` needs to know of a user."""

    subject: str
    """The id that tokens carry. It never changes, so it is not the e-mail address."""
    email: str = ""
    """Empty for a user without an address."""
    hashed_password: str | None = field(repr=False)
    """None for a user without a password, who cannot log in with one."""
    is_active: bool = True
    is_verified: bool = True


class Accounts(Protocol[UserT, RegisterT_contra]):
    """Your users, over one session. ``UserAccounts`` has these methods; a service of your own may have them, too."""

    def describe(self, user: UserT, /) -> Account:
        """Return what ``AuthFlow`` needs to know of *user*."""
        ...

    async def get_account(self, subject: str, /) -> UserT | None:
        """Return the user that a token names, or None."""
        ...

    async def get_account_by_email(self, email: str, /) -> UserT | None:
        """Return the user with this address, or None.

        *email* is what the client sent: bring it into the form that you store, with ``normalize_email``. UserInputError, which that raises
        for a malformed address, counts as None. A flow with *identify* does not call the method.
        """
        ...

    async def register(self, data: RegisterT_contra, /, *, hashed_password: str) -> UserT:
        """Create a user who is active, not verified and without privileges. Raises ConflictError if the address is taken."""
        ...

    async def set_password(self, user: UserT, /, *, hashed_password: str, replacing: str | None = None) -> bool:
        """Store a new hash, and return whether it was stored. With *replacing*, store it only over that hash, in one statement."""
        ...

    async def change(
        self, user: UserT, data: BaseModel, /, *, hashed_password: str | None = None, replacing: str | None = None
    ) -> UserT | None:
        """Store the fields that *data* sets, without its passwords, and the new hash if there is one. Return the user.

        With *replacing*, return None and store nothing unless that hash is stored. Raises ConflictError if the address is taken.
        """
        ...


@runtime_checkable
class EditableAccounts(Accounts[UserT, RegisterT_contra], Protocol[UserT, RegisterT_contra]):
    """Users whose address is verified or changed by mail, and who can be deleted. ``UserAccounts`` has these methods, too.

    ``AuthFlow.delete_account`` and ``MailFlow`` need them. They are called inside a transaction.
    """

    async def lock_account(self, subject: str, /) -> UserT | None:
        """Return the user that a token names as stored now, locked until the transaction ends, or None."""
        ...

    async def set_email(self, user: UserT, /, *, email: str) -> None:
        """Store *email* as the verified address of the user. Raises ConflictError if it is taken."""
        ...

    async def remove(self, user: UserT, /) -> None:
        """Delete the user. Raises StillReferencedError if other rows reference it."""
        ...


def editable(accounts: Accounts[UserT, RegisterT_contra]) -> EditableAccounts[UserT, RegisterT_contra]:
    """Return *accounts*. Raises ConfigurationError if it lacks the methods to change an address and to delete a user."""
    if not isinstance(accounts, EditableAccounts):
        raise ConfigurationError(f"{type(accounts).__name__} needs the methods lock_account, set_email and remove: see EditableAccounts")
    return accounts


def is_superuser(user: object) -> bool:
    """Return ``user.is_superuser``, or False without such an attribute. Raises ConfigurationError for a method, which is always true."""
    flag = getattr(user, "is_superuser", False)
    if callable(flag):
        raise ConfigurationError(f"{type(user).__name__}.is_superuser is a method: make it a property")
    return bool(flag)


def check_own_fields(schema: type[BaseModel], *, who: str = "users who change their own data") -> None:
    """Raise ConfigurationError if those who send *schema* about themselves could set a privilege, or any column."""
    if unsafe := schema.model_fields.keys() & PRIVILEGES:
        raise ConfigurationError(f"{who} could set {sorted(unsafe)}: remove that from {schema.__name__}")
    if schema.model_config.get("extra") == "allow":
        raise ConfigurationError(f'{who} could set every column: write extra="forbid" in {schema.__name__}')


EMAIL: TypeAdapter[str] = TypeAdapter(Email)


def normalize_email(email: str) -> str:
    """Return the one form in which an address is stored and looked up, as ``schemas.Email`` does.

    Raises:
        UserInputError: *email* is not a valid address.
    """
    try:
        return EMAIL.validate_python(email)
    except ValidationError:
        text = "is not a valid e-mail address"
        raise UserInputError(f"The address {text}.", errors=[FieldError(("email",), "email", text)]) from None
