"""Users. All schemas for input reject unknown fields."""

from datetime import date, datetime
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from fastapi_kit.auth.users import schemas
from fastapi_kit.crud import QuerySpec
from fastapi_kit.schemas import Email, Int32, Password, partial_model

from ..models import User
from ..utils.validators import Name


class UserRegister(schemas.UserRegister):
    """What a new user sends: address, password and name."""

    full_name: Name


class UserCreate(UserRegister):
    """What a superuser sends to create a user, with privileges."""

    is_active: bool = True
    is_superuser: bool = False


class UserChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Email
    full_name: Name
    password: Password
    current_password: Annotated[SecretStr, Field(max_length=128, description="Required to change your own address or password")]


UserUpdate = partial_model(UserChange, name="UserUpdate")


@partial_model
class PrivilegesUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    is_active: bool
    is_superuser: bool


class UserRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    full_name: str
    is_active: bool
    is_verified: bool
    is_superuser: bool
    created_at: datetime
    updated_at: datetime


class UserQuery(QuerySpec[User]):
    """The list of users: ``?q=ada&is_active=true&organizations__id=3&sort=-created_at``."""

    search_fields: ClassVar[Any] = (User.full_name, User.email)
    sort_fields: ClassVar[Any] = (User.full_name, User.email, User.created_at)
    is_active: bool | None = None
    is_verified: bool | None = None
    is_superuser: bool | None = None
    created_at__gte: date | None = None
    organizations__id: Int32 | None = None
