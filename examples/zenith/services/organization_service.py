"""Operations on organizations, and who may run them."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit import ConflictError, CRUDService, PermissionDeniedError, unit_of_work
from fastapi_kit.crud import FOR_UPDATE

from ..models import Membership, Organization, User
from ..schemas import MembershipCreate, OrganizationCreate, OrganizationUpdate


class LastOwnerError(ConflictError):
    code = "last_owner"
    detail = "An organization needs an owner. Add another owner first, or delete the organization."


class MembershipService(CRUDService[Membership, MembershipCreate, MembershipCreate]):
    """Members of organizations."""


class OrganizationService(CRUDService[Organization, OrganizationCreate, OrganizationUpdate]):
    """The organizations that *actor* may see: their own, or all for a superuser. Only owners and superusers may change them."""

    def __init__(self, session: AsyncSession, actor: User) -> None:
        super().__init__(session)
        self.actor = actor
        self.memberships = MembershipService(session)

    def base_query(self) -> Select[Any]:
        """Hide other organizations: they are missing in lists, and a 404."""
        mine = select(Membership.organization_id).where(Membership.user_id == self.actor.id)
        return super().base_query() if self.actor.is_superuser else super().base_query().where(Organization.id.in_(mine))

    async def create(self, data: OrganizationCreate | Mapping[str, Any], /, **values: object) -> Organization:
        async with unit_of_work(self.session):
            organization = await super().create(data, **values)
            await self.memberships.create({"organization_id": organization.id, "user_id": self.actor.id, "role": "owner"})
        return organization

    async def update(self, ident: object, data: OrganizationUpdate | Mapping[str, Any], /, **options: Any) -> Organization:
        await self.require_owner(ident)
        return await super().update(ident, data, **options)

    async def delete(self, ident: object, /, **options: Any) -> None:
        await self.require_owner(ident)
        await super().delete(ident, **options)

    async def require_owner(self, ident: object) -> None:
        """Raise NotFoundError for strangers, PermissionDeniedError for members who are not owners."""
        organization = await self.get_one(ident)
        if not self.actor.is_superuser and not await self.memberships.exists(
            Membership.organization_id == organization.id, Membership.user_id == self.actor.id, Membership.role == "owner"
        ):
            raise PermissionDeniedError("not an owner of the organization")

    async def remove_member(self, ident: int, user_id: int) -> None:
        """Remove a member. Members may leave; owners and superusers may remove others. Raises LastOwnerError for the last owner."""
        async with unit_of_work(self.session):
            await self.get_one(ident, lock=FOR_UPDATE)  # two owners may leave at the same time
            if user_id != self.actor.id:
                await self.require_owner(ident)
            member = await self.memberships.get_one((ident, user_id))
            others = (Membership.organization_id == ident, Membership.user_id != user_id, Membership.role == "owner")
            if member.role == "owner" and not await self.memberships.exists(*others):
                raise LastOwnerError
            await self.memberships.delete((ident, user_id))
