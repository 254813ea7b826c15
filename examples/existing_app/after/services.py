"""Operations on users."""

from typing import Any

from fastapi_kit.crud import CRUDService

from .models import User
from .schemas import UserCreate, UserUpdate
from .security import get_password_hash


class UserService(CRUDService[User, UserCreate, UserUpdate]):
    async def create_values(self, data: UserCreate) -> dict[str, Any]:
        return await with_hash(await super().create_values(data))

    async def update_values(self, data: UserUpdate) -> dict[str, Any]:
        return await with_hash(await super().update_values(data))


async def with_hash(values: dict[str, Any]) -> dict[str, Any]:
    """Replace the password with its hash. A null stays null; the service rejects it."""
    if "password" in values:
        password = values.pop("password")
        values["hashed_password"] = None if password is None else await get_password_hash(password)
    return values
