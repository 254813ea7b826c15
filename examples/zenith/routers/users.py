"""Users. Superusers see, create, change and delete all users; other users see and change themselves.

Users delete their own account with ``POST /auth/me/delete``, which asks for the password.
"""

from fastapi import Depends, Response

from fastapi_kit import Endpoint, crud_router
from fastapi_kit.auth.users import ImpersonationToken
from fastapi_kit.handlers import problem_responses
from fastapi_kit.schemas import Int32

from ..dependencies import Claims, Session, get_users, require_self_or_superuser, require_superuser
from ..models import User
from ..schemas import PrivilegesUpdate, UserQuery, UserRead
from ..services import UserService, impersonation

router = crud_router(
    UserService,
    read=UserRead,
    service=get_users,
    query=UserQuery,
    dependencies={
        Endpoint.LIST | Endpoint.CREATE | Endpoint.DELETE: [Depends(require_superuser)],
        Endpoint.GET | Endpoint.UPDATE: [Depends(require_self_or_superuser)],
    },
)


@router.patch(
    "/{id}/privileges",
    summary="Update privileges",
    response_model=UserRead,
    dependencies=[Depends(require_superuser)],
    responses=problem_responses(404, 409),
)
async def update_privileges(id: Int32, changes: PrivilegesUpdate, session: Session) -> User:
    """Set who may log in, and who is a superuser. It applies from the next request on."""
    return await UserService(session).update(id, changes.model_dump())


@router.post("/{id}/impersonate", summary="Act as a user", dependencies=[Depends(require_superuser)], responses=problem_responses(404))
async def impersonate(id: Int32, claims: Claims, session: Session, response: Response) -> ImpersonationToken:
    """Get a token with which a superuser acts as another user for 15 minutes. The log shows both."""
    response.headers["Cache-Control"] = "no-store"
    return await impersonation.start(session, claims, str(id))
