"""Organizations and their members."""

from fastapi import Depends

from fastapi_kit import Endpoint, crud_router
from fastapi_kit.handlers import problem_responses
from fastapi_kit.routing import RouterOptions, get_row_factory
from fastapi_kit.schemas import Int32

from ..database import db
from ..dependencies import Organizations, get_organizations
from ..models import Membership
from ..schemas import MembershipRead, OrganizationQuery, OrganizationRead
from ..services import MembershipService, OrganizationService

require_member = get_row_factory(OrganizationService, service=get_organizations, name="organization_id")


async def require_owner(organization_id: Int32, organizations: Organizations) -> None:
    await organizations.require_owner(organization_id)


members = crud_router(
    MembershipService,
    read=MembershipRead,
    session=db.session,
    endpoints=Endpoint.LIST | Endpoint.CREATE,
    dependencies={Endpoint.LIST: [Depends(require_member)], Endpoint.CREATE: [Depends(require_owner)]},
    options=RouterOptions(parent=Membership.organization_id),
)


@members.delete("/{user_id}", summary="Remove member", status_code=204, responses=problem_responses(409))
async def remove_member(organization_id: Int32, user_id: Int32, organizations: Organizations) -> None:
    """Remove a member, or leave. The last owner cannot leave."""
    await organizations.remove_member(organization_id, user_id)


router = crud_router(OrganizationService, read=OrganizationRead, service=get_organizations, query=OrganizationQuery)
router.include_router(members, prefix="/{organization_id}/members", responses=problem_responses(404))
