"""Organizations and their members."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fastapi_kit.schemas import Int32, NonBlank, partial_model

from ..utils.validators import Name


class OrganizationCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    description: Annotated[NonBlank, Field(max_length=1000)] | None = None


@partial_model
class OrganizationUpdate(OrganizationCreate): ...


class OrganizationRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str | None
    created_at: datetime
    updated_at: datetime


class MembershipCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_id: Int32
    role: Literal["owner", "member"] = "member"


class MembershipRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    user_id: int
    role: Literal["owner", "member"]
