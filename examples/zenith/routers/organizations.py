"""Organizations and their members."""

from fastapi import Depends

from fastapi_kit import Endpoint, crud_router
from fastapi_kit.handlers import problem_responses
from fastapi_kit.routing import RouterOptions, get_row_factory
from fastapi_kit.schemas import Int32

from ..database import db
from ..dependencies import Organizations, get_organizations
from ..models import Membership
from ..schemas import MembershipCreate, MembershipRead, MembershipUpdate, OrganizationQuery, OrganizationRead
from ..services import MembershipService, OrganizationService

require_member = get_row_factory(OrganizationService, service=get_organizations, name="organization_id")

members = crud_router(
    MembershipService,
    read=MembershipRead,
    session=db.session,
    endpoints=Endpoint.LIST,
    dependencies={Endpoint.LIST: [Depends(require_member)]},
    options=RouterOptions(parent=Membership.organization_id),
)


@members.post("", summary="Add member", status_code=201, response_model=MembershipRead, responses=problem_responses(409))
async def add_member(organization_id: Int32, data: MembershipCreate, organizations: Organizations) -> Membership:
    return await organizations.add_member(organization_id, data)


@members.patch("/{user_id}", summary="Change role", response_model=MembershipRead, responses=problem_responses(409))
async def change_role(organization_id: Int32, user_id: Int32, data: MembershipUpdate, organizations: Organizations) -> Membership:
    """Give a member another role. The last owner stays one."""
    return await organizations.set_role(organization_id, user_id, data.role)


@members.delete("/{user_id}", summary="Remove member", status_code=204, responses=problem_responses(409))
async def remove_member(organization_id: Int32, user_id: Int32, organizations: Organizations) -> None:
    """Remove a member, or leave. The last owner cannot leave."""
    await organizations.remove_member(organization_id, user_id)


router = crud_router(OrganizationService, read=OrganizationRead, service=get_organizations, query=OrganizationQuery)
router.include_router(members, prefix="/{organization_id}/members", responses=problem_responses(404))
