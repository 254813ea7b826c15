"""Columns for a table of users, and the store over them."""

from typing import Any, cast

from sqlalchemy import BigInteger, ColumnElement, CursorResult, LargeBinary, Text, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Mapper, Session, mapped_column, object_mapper
from sqlalchemy.orm.attributes import set_committed_value

from fastapi_kit.auth.second_factor.state import FactorState
from fastapi_kit.db.errors.translate import typed
from fastapi_kit.db.mixins import unannotated
from fastapi_kit.db.reads import read
from fastapi_kit.db.transactions import unit_of_work

__all__ = ["SQLFactorStore", "TOTPMixin"]


class TOTPMixin:
    """Columns of a second factor, for your table of users: ``class User(TOTPMixin, UserMixin, Base)``.

    All are NULL for a user without one. ``totp_secret`` is what the cipher of ``SecondFactor`` makes of the secret. Let no schema show the
    three, and none set them.
    """

    totp_secret = unannotated(lambda _: secret_column())
    totp_last_step = unannotated(lambda _: step_column())
    totp_recovery_hashes = unannotated(lambda _: hashes_column())


def secret_column() -> Mapped[bytes | None]:
    """Return the column of secrets."""
    return mapped_column(LargeBinary(), nullable=True)


def step_column() -> Mapped[int | None]:
    """Return the column of steps."""
    return mapped_column(BigInteger(), nullable=True)


def hashes_column() -> Mapped[str | None]:
    """Return the column of the hashes of recovery codes, separated by spaces."""
    return mapped_column(Text(), nullable=True)


class SQLFactorStore:
    """A ``FactorStore`` in the columns of ``TOTPMixin``.

    A change is one UPDATE, whose WHERE decides which of several requests wins. It commits itself unless a transaction was opened.
    """

    async def read(self, session: AsyncSession, user: TOTPMixin, /) -> FactorState:
        """Return what is stored now. It is empty if the user was deleted."""
        model = cast("Any", type(user))
        statement = select(model.totp_secret, model.totp_last_step, model.totp_recovery_hashes).where(*key_of(user))

        def work(session: Session) -> FactorState:
            row = session.execute(statement).first()
            return FactorState() if row is None else state_of(*row)

        return await read(session, work, mapper=mapper_of(user))

    async def replace(self, session: AsyncSession, user: TOTPMixin, new: FactorState, /, *, old: FactorState) -> bool:
        """Store *new* over *old*, and return whether that was stored."""
        model, values = type(user), values_of(new)
        stored = [getattr(model, name).is_not_distinct_from(value) for name, value in values_of(old).items()]
        statement = update(model).where(*key_of(user), *stored).values(values).execution_options(synchronize_session=False)
        with typed(mapper_of(user)):
            async with unit_of_work(session):
                result = await session.execute(statement)
        if not cast("CursorResult[Any]", result).rowcount:
            return False
        for name, value in values.items():
            set_committed_value(user, name, value)
        return True


def mapper_of(user: object) -> Mapper[Any]:
    """Return the mapper of the model."""
    return object_mapper(user)


def key_of(user: object) -> list[ColumnElement[bool]]:
    """Return the conditions that find the row of a stored user."""
    state: Any = inspect(user)
    return [column == value for column, value in zip(mapper_of(user).primary_key, state.identity, strict=True)]


def state_of(secret: bytes | None, last_step: int | None, hashes: str | None) -> FactorState:
    """Return the state in the values of a row."""
    return FactorState(secret=secret, last_step=last_step, recovery_hashes=(hashes or "").split())


def values_of(state: FactorState) -> dict[str, Any]:
    """Return the values of a row."""
    hashes = " ".join(state.recovery_hashes) or None
    return {"totp_secret": state.secret, "totp_last_step": state.last_step, "totp_recovery_hashes": hashes}
