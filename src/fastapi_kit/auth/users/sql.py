"""Columns for a table of users, and a service over them."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Boolean, CursorResult, String, and_, false, true, update
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.orm.attributes import set_committed_value
from typing_extensions import TypeVar as TypeVarWithDefault

from fastapi_kit._compat import python_type
from fastapi_kit.auth.users.accounts import Account, check_own_fields, normalize_email
from fastapi_kit.crud.locks import FOR_UPDATE
from fastapi_kit.crud.service import CRUDService
from fastapi_kit.db.mixins import unannotated
from fastapi_kit.db.transactions import unit_of_work
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.schemas import has_rules_across_fields, validate_merged

__all__ = ["NoChanges", "UserAccounts", "UserMixin"]


class UserMixin:
    """Columns of a user, for applications that have no table of users yet. The primary key ``id`` is yours.

    ``email`` (254 characters) is unique in its normal form, which ``UserAccounts`` and ``schemas.Email`` produce. A user without a
    ``hashed_password`` cannot log in with a password. New users are active, not verified and not superusers, also by the defaults of the
    database.

    Tokens contain the ``id``. SQLite gives the id of a deleted last row to the next row: with an ``int`` key write
    ``__table_args__ = {"sqlite_autoincrement": True}``.
    """

    email = unannotated(lambda _: email_column())
    hashed_password = unannotated(lambda _: hash_column())
    is_active = unannotated(lambda _: flag_column(default=True))
    is_verified = unannotated(lambda _: flag_column(default=False))
    is_superuser = unannotated(lambda _: flag_column(default=False))


def email_column() -> Mapped[str]:
    """Return the column of addresses."""
    return mapped_column(String(254), unique=True, nullable=False)


def hash_column() -> Mapped[str | None]:
    """Return the column of hashes. 255 characters hold every hash."""
    return mapped_column(String(255), nullable=True)


def flag_column(*, default: bool) -> Mapped[bool]:
    """Return the column of a flag, with a default in Python and in the database."""
    return mapped_column(Boolean(), insert_default=default, server_default=true() if default else false(), nullable=False)


UserT = TypeVar("UserT", bound=UserMixin)
RegisterT = TypeVar("RegisterT", bound=BaseModel)


class NoChanges(BaseModel):
    """The schema of updates if no other is given: nothing can be changed."""

    model_config = ConfigDict(extra="forbid")


UpdateT = TypeVarWithDefault("UpdateT", bound=BaseModel, default=NoChanges)


class UserAccounts(CRUDService[UserT, RegisterT, UpdateT], Generic[UserT, RegisterT, UpdateT]):
    """A CRUDService for a model with UserMixin and a key ``id``: ``class Users(UserAccounts[User, UserRegister])``.

    It stores every e-mail address in its normal form. ``register`` stores the fields of *RegisterT*, the hash and the flags of a new user.

    A third type argument is the schema with which users change their own data. A schema with flags or roles, or with ``extra="allow"``,
    raises ConfigurationError; change those with a mapping: ``update(id, {"is_active": False})``. Each write commits itself, unless a
    transaction was opened.
    """

    not_columns: ClassVar[frozenset[str]] = frozenset({"password", "current_password"})
    """Fields of a registration or of a change that are not columns."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        schema = getattr(cls, "update_schema", None)
        if schema is not None:
            check_own_fields(schema)

    def describe(self, user: UserT, /) -> Account:
        """Return what ``AuthFlow`` needs to know of *user*."""
        return Account(
            subject=str(cast("Any", user).id),
            email=user.email,
            hashed_password=user.hashed_password,
            is_active=user.is_active,
            is_verified=user.is_verified,
        )

    async def get_account(self, subject: str, /) -> UserT | None:
        """Return the user whose ``id`` is written *subject*, or None.

        Raises:
            ConfigurationError: The key is not an int, str or UUID. Override the method for other keys.
        """
        key = self.key_of(subject)
        return None if key is None else await self.get(key)

    def key_of(self, subject: str) -> object:
        """Return the key that is written *subject*, or None if it is no key."""
        (column,) = self.mapper.primary_key
        kind: type[object] = python_type(column.type) or object
        if kind not in KEYS:
            raise ConfigurationError(
                f"a key of type {kind.__name__} cannot be the subject of a token: use int, str or UUID, or write get_account()"
            )
        try:
            key = KEYS[kind](subject)
        except ValueError:
            return None
        # A key has one spelling: "07" and " 7" are not the subject of a user.
        return key if str(key) == subject else None

    async def get_account_by_email(self, email: str, /) -> UserT | None:
        """Return the user with this address in any form, or None. Raises UserInputError if it is not a valid address."""
        return await self.get_by(email=normalize_email(email))

    async def register(self, data: RegisterT, /, *, hashed_password: str) -> UserT:
        """Create a user who is active, not verified and not a superuser. Raises ConflictError if the address is taken.

        A ``create_values`` of your own is not called: it may hash a password, which is done already.
        """
        registered = type(data).model_fields.keys() - self.not_columns
        values = {name: value for name, value in (await super().create_values(data)).items() if name in registered}
        return await self.create(values, hashed_password=hashed_password, is_active=True, is_verified=False, is_superuser=False)

    async def set_password(self, user: UserT, /, *, hashed_password: str, replacing: str | None = None) -> bool:
        """Store a new hash, and return whether it was stored: False if the user was deleted.

        It is one statement, which commits itself unless a transaction was opened.

        Args:
            user: The user, from this or another session.
            hashed_password: The new hash.
            replacing: Store the new hash only over this one, and return False if another is stored. Of two callers who have verified the
                same password, one succeeds.
        """
        statement = update(self.model).where(cast("Any", self.model).id == cast("Any", user).id).values(hashed_password=hashed_password)
        if replacing is not None:
            statement = statement.where(self.model.hashed_password == replacing)
        async with unit_of_work(self.session):
            result = await self.session.execute(statement.execution_options(synchronize_session=False))
            self._note_write(cast("Any", user).id)
        if not cast("CursorResult[Any]", result).rowcount:
            return False
        set_committed_value(user, "hashed_password", hashed_password)
        return True

    async def change(
        self, user: UserT, data: BaseModel, /, *, hashed_password: str | None = None, replacing: str | None = None
    ) -> UserT | None:
        """Store the fields that *data* sets and a new hash, in one transaction: ``AuthFlow.change`` calls it.

        ``update_values`` decides what is stored; ``not_columns`` are left out. With *replacing*, return None and store nothing unless that
        hash is stored: of two callers who have verified the same password, one succeeds. Raises NotFoundError, ConflictError.
        """
        key = cast("Any", user).id
        values = {name: value for name, value in (await self.update_values(cast("Any", data))).items() if name not in self.not_columns}
        if hashed_password is not None:
            values["hashed_password"] = hashed_password
        async with unit_of_work(self.session):
            if replacing is not None or has_rules_across_fields(type(data)):
                row = await self.get_one(key, lock=FOR_UPDATE)
                if replacing not in {None, row.hashed_password}:
                    return None
                validate_merged(data, vars(row))
            return await self.update(key, values)

    async def lock_account(self, subject: str, /) -> UserT | None:
        """Return the user whose ``id`` is written *subject* as stored now, locked until the transaction ends, or None."""
        key = self.key_of(subject)
        return None if key is None else await self.get(key, lock=FOR_UPDATE)

    async def set_email(self, user: UserT, /, *, email: str) -> None:
        """Store *email* as the verified address of the user. Raises ConflictError if it is taken."""
        await self.update(cast("Any", user).id, {"email": email, "is_verified": True})

    async def remove(self, user: UserT, /) -> None:
        """Delete the user. Raises StillReferencedError if other rows reference it."""
        await self.delete(cast("Any", user).id)

    def prepare_insert(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a new user, with the address in normal form."""
        return with_normal_email(super().prepare_insert(values))

    def prepare_update(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a change, with the address in normal form. A different address is not verified."""
        values = with_normal_email(super().prepare_update(values))
        if isinstance(values.get("email"), str):
            values.setdefault("is_verified", and_(self.model.is_verified, self.model.email == values["email"]))
        return values


def with_normal_email(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of *values* with the address in normal form."""
    email = values.get("email")
    return {**values, "email": normalize_email(email)} if isinstance(email, str) else dict(values)


KEYS: Mapping[type[object], Callable[[str], object]] = {int: int, str: str, UUID: UUID}
"""From a subject to a key."""
