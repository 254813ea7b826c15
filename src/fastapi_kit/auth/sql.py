"""Columns for the host's table of users, and the users over them as a service."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Boolean, CursorResult, String, and_, false, true, update
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.orm.attributes import set_committed_value
from typing_extensions import TypeVar as TypeVarWithDefault

from fastapi_kit._compat import python_type
from fastapi_kit.auth.accounts import PRIVILEGES, Account, normalize_email
from fastapi_kit.crud import CRUDService
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.crud.values import new_values
from fastapi_kit.db.mixins import unannotated
from fastapi_kit.db.transactions import unit_of_work
from fastapi_kit.errors import ConfigurationError

__all__ = ["NoChanges", "UserAccounts", "UserMixin"]


class UserMixin:
    """Columns of a user for hosts that start from nothing; ``id`` is the host's.

    ``email`` (254 characters) is unique in its normal form, in which ``UserAccounts`` and ``schemas.Email`` give it. A user without
    ``hashed_password`` cannot log in by password. New users are active, not verified and no superusers, in the database too.

    Tokens name the ``id``, and SQLite gives that of the last row, once it was deleted, to the next: with an ``int`` key say
    ``__table_args__ = {"sqlite_autoincrement": True}``.
    """

    email = unannotated(lambda _: _email())
    hashed_password = unannotated(lambda _: _hashed_password())
    is_active = unannotated(lambda _: _flag(default=True))
    is_verified = unannotated(lambda _: _flag(default=False))
    is_superuser = unannotated(lambda _: _flag(default=False))


def _email() -> Mapped[str]:
    return mapped_column(String(254), unique=True, nullable=False)


def _hashed_password() -> Mapped[str | None]:
    return mapped_column(String(255), nullable=True)


def _flag(*, default: bool) -> Mapped[bool]:
    return mapped_column(Boolean(), insert_default=default, server_default=true() if default else false(), nullable=False)


UserT = TypeVar("UserT", bound=UserMixin)
RegisterT = TypeVar("RegisterT", bound=BaseModel)


class NoChanges(BaseModel):
    """The schema of updates where no other is given: nothing can be changed."""

    model_config = ConfigDict(extra="forbid")


UpdateT = TypeVarWithDefault("UpdateT", bound=BaseModel, default=NoChanges)


class UserAccounts(CRUDService[UserT, RegisterT, UpdateT], Generic[UserT, RegisterT, UpdateT]):
    """Accounts over a model with UserMixin and a key ``id``: ``class Users(UserAccounts[User, UserRegister])``.

    A CRUDService whose e-mail addresses are always in normal form, and whose registration stores the fields that *RegisterT* declares and
    nothing else: flags and hash are set here. A third type argument is the schema of updates, in which users could decide about themselves:
    one with flags or roles raises ConfigurationError. Change those by a mapping, ``update(id, {"is_active": False})``. Writes commit
    themselves.
    """

    not_registered: ClassVar[frozenset[str]] = frozenset({"password"})
    """Fields of the registration that are no columns."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        schema = getattr(cls, "update_schema", None)
        if schema is not None and (unsafe := schema.model_fields.keys() & PRIVILEGES):
            raise ConfigurationError(f"whoever changes her own data could set {sorted(unsafe)}: take that out of {schema.__name__}")

    def describe(self, user: UserT, /) -> Account:
        """Return what the routes need to know of *user*."""
        return Account(
            subject=str(cast("Any", user).id),
            email=user.email,
            hashed_password=user.hashed_password,
            is_active=user.is_active,
            is_verified=user.is_verified,
        )

    async def get_account(self, subject: str, /) -> UserT | None:
        """Return the user whose ``id`` is written *subject*, or None."""
        ident = _read_key(subject, self._key_type)
        return None if ident is None else await self.get(ident)

    async def get_account_by_email(self, email: str, /) -> UserT | None:
        """Return the user with this address, in whatever form it is written. Raises UserInputError if it is not a valid address."""
        return await self.get_by(email=normalize_email(email))

    async def register(self, data: RegisterT, /, *, hashed_password: str) -> UserT:
        """Create a user who is active, unverified and no superuser. Raises ConflictError if the address is taken.

        ``create_values`` is not asked: there the host may hash, and here it is done.
        """
        names = type(data).model_fields.keys() - self.not_registered
        values = {name: value for name, value in new_values(data, self.mapper).items() if name in names}
        return await self.create(values, hashed_password=hashed_password, is_active=True, is_verified=False, is_superuser=False)

    async def set_password(self, user: UserT, /, *, hashed_password: str, replacing: str | None = None) -> bool:
        """Store a new hash; with *replacing* only if that is still the stored one. Return whether it was, and the user still there.

        One statement: of two who have verified the same password, one comes first, and the other is told. Commits itself.
        """
        identity = identity_of(self.mapper)
        conditions = [self.model.hashed_password == replacing] if replacing is not None else []
        statement = update(self.model).where(*identity.has(identity.key_of_row(user)), *conditions)
        async with unit_of_work(self.session):
            done = await self.session.execute(
                statement.values(hashed_password=hashed_password).execution_options(synchronize_session=False)
            )
        if not cast("CursorResult[Any]", done).rowcount:
            return False
        set_committed_value(user, "hashed_password", hashed_password)
        return True

    def prepare_insert(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a new user, the address in normal form."""
        return _normalized(super().prepare_insert(values))

    def prepare_update(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a change, the address in normal form; a new address is not verified yet."""
        values = _normalized(super().prepare_update(values))
        if isinstance(values.get("email"), str):
            values.setdefault("is_verified", and_(self.model.is_verified, self.model.email == values["email"]))
        return values

    @property
    def _key_type(self) -> type[object]:
        (column,) = identity_of(self.mapper).columns
        return python_type(column.type) or object


def _normalized(values: Mapping[str, Any]) -> dict[str, Any]:
    email = values.get("email")
    return {**values, "email": normalize_email(email)} if isinstance(email, str) else dict(values)


def _read_key(subject: str, kind: type[object]) -> object:
    """Return *subject* as a key, or None if it is not exactly how a key is written."""
    if kind not in _KEYS:
        raise ConfigurationError(
            f"a key of type {kind.__name__} cannot be the subject of a token: use int, str or UUID, or write get_account()"
        )
    try:
        key: object = _KEYS[kind](subject)
    except ValueError:
        return None
    return key if str(key) == subject else None


_KEYS: dict[type[object], Any] = {int: int, str: str, UUID: UUID}
