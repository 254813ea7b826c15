"""Users, and what belongs to them: a second factor, logins, API keys."""

from sqlalchemy import MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_kit.auth.api_keys.sql import APIKeyMixin
from fastapi_kit.auth.logins.sql import LoginMixin
from fastapi_kit.auth.second_factor.sql import TOTPMixin
from fastapi_kit.auth.users import UserMixin
from fastapi_kit.db import NAMING_CONVENTION


class AccountsBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class User(UserMixin, AccountsBase):
    """The columns of ``UserMixin`` and one of the application. SQLite uses no id twice."""

    __tablename__ = "users"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(primary_key=True)
    full_name: Mapped[str] = mapped_column(String(100), default="")


class FactorUser(TOTPMixin, UserMixin, AccountsBase):
    """Can have a second factor. SQLite uses no id twice."""

    __tablename__ = "factor_users"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(primary_key=True)


class Member(UserMixin, AccountsBase):
    """Has a second unique column, a nullable one and a number. A name is required."""

    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    nickname: Mapped[str | None]
    points: Mapped[int] = mapped_column(default=0)


class Subscriber(AccountsBase):
    """A user without ``UserMixin`` and without an e-mail address."""

    __tablename__ = "subscribers"
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    phone: Mapped[str | None] = mapped_column(unique=True)
    secret: Mapped[str | None]


class Login(LoginMixin, AccountsBase):
    """Only the columns of ``LoginMixin``."""

    __tablename__ = "logins"


class APIKey(APIKeyMixin, AccountsBase):
    """Only the columns of ``APIKeyMixin``."""

    __tablename__ = "api_keys"
