"""Operations on users."""

from typing import Any

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit import UserInputError, unit_of_work
from fastapi_kit.auth.users import UserAccounts
from fastapi_kit.errors import FieldError

from ..models import User
from ..schemas import UserChange, UserCreate, UserRegister, UserUpdate
from ..utils.security import get_password_hash, policy, verify_password


class UserService(UserAccounts[User, UserRegister, UserChange]):
    """Users, read and written on behalf of *actor*, or of the application if it is None."""

    create_schema = UserCreate
    update_schema = UserUpdate

    def __init__(self, session: AsyncSession, actor: User | None = None) -> None:
        super().__init__(session)
        self.actor = actor

    async def create_values(self, data: UserRegister) -> dict[str, Any]:
        """Check and hash the password of a user whom a superuser creates. For registrations the flow does it."""
        await policy.check(data.password, similar_to=[data.email, data.full_name])
        return await with_hash(await super().create_values(data))

    async def update_values(self, data: UserChange) -> dict[str, Any]:
        values = await with_hash(await super().update_values(data))
        values.pop("current_password", None)
        return values

    async def update(self, ident: object, data: UserChange | Any, /, **options: Any) -> User:
        """Change a user. Passwords are checked and hashed before the transaction begins."""
        if not isinstance(data, UserChange):
            return await super().update(ident, data, **options)
        user = await self.get_one(ident)
        verified = await self.check(user, data.model_dump())
        values = await self.update_values(data)
        async with unit_of_work(self.session):
            # Hashing takes time. Fail if the password has changed meanwhile; from here on the row is locked.
            if verified is not None and not await self.set_password(
                user, hashed_password=values.pop("hashed_password", verified), replacing=verified
            ):
                raise wrong_password()
            return await super().update(ident, values, **options)

    async def check(self, user: User, changes: dict[str, Any]) -> str | None:
        """Check the changes. Return the hash of the current password if *actor* had to prove it, else None."""
        if "password" in changes:
            known = [user.email, user.full_name, changes.get("email", ""), changes.get("full_name", "")]
            await policy.check(changes["password"], similar_to=known)
        if self.actor is not None and self.actor.id == user.id and not changes.keys().isdisjoint({"email", "password"}):
            given: SecretStr = changes.get("current_password", SecretStr(""))
            if not await verify_password(given.get_secret_value(), user.hashed_password):
                raise wrong_password()
            return user.hashed_password
        return None


def wrong_password() -> UserInputError:
    error = FieldError(("body", "current_password"), "wrong_password", "is not the current password")
    return UserInputError("wrong current password", errors=[error])


async def with_hash(values: dict[str, Any]) -> dict[str, Any]:
    """Replace the password with its hash."""
    if "password" in values:
        values["hashed_password"] = await get_password_hash(values.pop("password").get_secret_value())
    return values
