"""Organizations and their members."""

from datetime import date, datetime
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from fastapi_kit.crud import QuerySpec
from fastapi_kit.schemas import Int32, NonBlank, partial_model

from ..models import Organization
from ..utils.roles import Role
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


class OrganizationQuery(QuerySpec[Organization]):
    """The list of organizations: ``?q=tea&sort=name``."""

    search_fields: ClassVar[Any] = (Organization.name, Organization.description)
    sort_fields: ClassVar[Any] = (Organization.name, Organization.created_at)
    description__isnull: bool | None = None
    created_at__gte: date | None = None


class MembershipCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_id: Int32
    role: Role = Role.MEMBER


class MembershipUpdate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Role


class MembershipRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    user_id: int
    role: Role
