"""Operations on organizations, and who may run them."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit import ConflictError, CRUDService, PermissionDeniedError, unit_of_work
from fastapi_kit.crud import FOR_UPDATE

from ..models import Membership, Organization, User
from ..schemas import MembershipCreate, OrganizationCreate, OrganizationUpdate
from ..utils.roles import ROLES, May, Role


class LastOwnerError(ConflictError):
    code = "last_owner"
    detail = "An organization needs an owner. Add another owner first, or delete the organization."


class MembershipService(CRUDService[Membership, MembershipCreate, MembershipCreate]):
    """Members of organizations."""


class OrganizationService(CRUDService[Organization, OrganizationCreate, OrganizationUpdate]):
    """The organizations that *actor* may see: their own, or all for a superuser. The role of a member says what they may do."""

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
            await self.memberships.create({"organization_id": organization.id, "user_id": self.actor.id, "role": Role.OWNER})
        return organization

    async def update(self, ident: object, data: OrganizationUpdate | Mapping[str, Any], /, **options: Any) -> Organization:
        await self.require(ident, May.CHANGE)
        return await super().update(ident, data, **options)

    async def delete(self, ident: object, /, **options: Any) -> None:
        await self.require(ident, May.DELETE)
        await super().delete(ident, **options)

    async def require(self, ident: object, permission: May) -> None:
        """Raise NotFoundError for strangers, PermissionDeniedError for members whose role lacks *permission*."""
        organization = await self.get_one(ident)
        if not self.actor.is_superuser and not await self.memberships.exists(
            Membership.organization_id == organization.id,
            Membership.user_id == self.actor.id,
            Membership.role.in_(ROLES.having(permission)),
        ):
            raise PermissionDeniedError(f"the role in the organization does not allow to {permission}")

    async def add_member(self, ident: int, data: MembershipCreate) -> Membership:
        """Add a member. It takes more to add an owner or an admin."""
        await self.require(ident, May.MANAGE_MEMBERS if data.role == Role.MEMBER else May.MANAGE_ROLES)
        return await self.memberships.create(data, organization_id=ident)

    async def set_role(self, ident: int, user_id: int, role: Role) -> Membership:
        """Give a member another role. Raises LastOwnerError for the last owner."""
        async with unit_of_work(self.session):
            await self.get_one(ident, lock=FOR_UPDATE)
            await self.require(ident, May.MANAGE_ROLES)
            member = await self.memberships.get_one((ident, user_id))
            if role != Role.OWNER:
                await self.require_another_owner(member)
            return await self.memberships.update((ident, user_id), {"role": role})

    async def remove_member(self, ident: int, user_id: int) -> None:
        """Remove a member. All members may leave. Raises LastOwnerError for the last owner."""
        async with unit_of_work(self.session):
            await self.get_one(ident, lock=FOR_UPDATE)  # two owners may leave at the same time
            is_self = user_id == self.actor.id
            if not is_self:
                await self.require(ident, May.MANAGE_MEMBERS)
            member = await self.memberships.get_one((ident, user_id))
            if not is_self and member.role != Role.MEMBER:
                await self.require(ident, May.MANAGE_ROLES)
            await self.require_another_owner(member)
            await self.memberships.delete((ident, user_id))

    async def require_another_owner(self, member: Membership) -> None:
        others = (Membership.organization_id == member.organization_id, Membership.user_id != member.user_id)
        if member.role == Role.OWNER and not await self.memberships.exists(*others, Membership.role == Role.OWNER):
            raise LastOwnerError
