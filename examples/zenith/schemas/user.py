"""Users. All schemas for input reject unknown fields."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from fastapi_kit.auth.users import schemas
from fastapi_kit.schemas import Email, Password, partial_model

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
