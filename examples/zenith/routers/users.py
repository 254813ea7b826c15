"""Users. Superusers see, create and change all users; other users see and change themselves."""

from fastapi import Depends

from fastapi_kit import Endpoint, crud_router
from fastapi_kit.handlers import problem_responses
from fastapi_kit.schemas import Int32

from ..dependencies import Session, get_users, require_self_or_superuser, require_superuser
from ..models import User
from ..schemas import PrivilegesUpdate, UserQuery, UserRead
from ..services import UserService

router = crud_router(
    UserService,
    read=UserRead,
    service=get_users,
    query=UserQuery,
    dependencies={
        Endpoint.LIST | Endpoint.CREATE: [Depends(require_superuser)],
        Endpoint.GET | Endpoint.UPDATE | Endpoint.DELETE: [Depends(require_self_or_superuser)],
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
