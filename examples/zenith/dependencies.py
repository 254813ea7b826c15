"""The dependencies of the routes: session and current user."""

from typing import Annotated

from fastapi import Depends, Path
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit import PermissionDeniedError, TokenClaims, get_current_user_factory, require
from fastapi_kit.auth import BearerTransport
from fastapi_kit.dependencies import answering

from .config import settings
from .database import db, get_db
from .models import User
from .services import OrganizationService, UserService, load_user, logins

__all__ = [
    "Claims",
    "CurrentUser",
    "Organizations",
    "Session",
    "get_current_user",
    "get_db",
    "get_organizations",
    "get_users",
    "require_self_or_superuser",
    "require_superuser",
]

bearer = BearerTransport(token_url=f"{settings.API_V1_STR.lstrip('/')}/auth/login")
get_current_user = get_current_user_factory(logins, load_user, session=db.session, transports=[bearer])
require_superuser = require(get_current_user, superuser=True)

Session = Annotated[AsyncSession, db.session]
CurrentUser = Annotated[User, Depends(get_current_user)]
Claims = Annotated[TokenClaims, Depends(get_current_user.claims)]


@answering(403)
async def require_self_or_superuser(id: Annotated[str, Path(include_in_schema=False)], user: CurrentUser) -> None:
    # Compared as text: the route itself checks and documents that the key is a number.
    if id != str(user.id) and not user.is_superuser:
        raise PermissionDeniedError("another user's account")


async def get_users(session: Session, user: CurrentUser, claims: Claims) -> UserService:
    return UserService(session, actor=user, claims=claims)


@answering(403)  # for members who are not owners
async def get_organizations(session: Session, user: CurrentUser) -> OrganizationService:
    return OrganizationService(session, actor=user)


Organizations = Annotated[OrganizationService, Depends(get_organizations)]
