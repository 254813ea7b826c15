"""The same work with the library."""

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.login import TOKENS
from benchmarks.models import User, UserCreate, UserRead, UserReadPlain, UserUpdate
from fastapi_kit import CRUDService, Database, crud_router
from fastapi_kit.auth import TokenClaims, get_current_user_factory
from fastapi_kit.routing import Endpoint, RouterOptions

__all__ = ["UserService", "make_app"]


class UserService(CRUDService[User, UserCreate, UserUpdate]): ...


async def _load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    return await UserService(session).get(claims.subject(int))


def make_app(database: Database) -> FastAPI:
    session = database.session
    guards = {Endpoint.CRUD: [Depends(get_current_user_factory(TOKENS, _load_user, session=session))]}
    app = FastAPI()
    # As the hand-written routes: rows, and no total.
    options = RouterOptions(max_total=0)
    app.include_router(crud_router(UserService, read=UserRead, session=session, options=options), prefix="/users")
    app.include_router(crud_router(UserService, read=UserReadPlain, session=session, options=options), prefix="/plain-users")
    app.include_router(
        crud_router(UserService, read=UserRead, session=session, dependencies=guards, options=options), prefix="/guarded-users"
    )
    return app
