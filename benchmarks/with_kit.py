"""The same work with the library."""

from fastapi import FastAPI

from benchmarks.models import User, UserCreate, UserRead, UserReadPlain, UserUpdate
from fastapi_kit import CRUDService, Database, crud_router

__all__ = ["UserService", "make_app"]


class UserService(CRUDService[User, UserCreate, UserUpdate]): ...


def make_app(database: Database) -> FastAPI:
    app = FastAPI()
    app.include_router(crud_router(UserService, read=UserRead, session=database.session), prefix="/users")
    app.include_router(crud_router(UserService, read=UserReadPlain, session=database.session), prefix="/plain-users")
    return app
