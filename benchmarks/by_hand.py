"""The work as one writes it by hand, in the style of FastAPI's and SQLAlchemy's tutorials."""

from collections.abc import AsyncIterator, Callable, Sequence

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer
from jose import JWTError, jwt
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from benchmarks.login import ALGORITHM, SECRET_KEY
from benchmarks.models import User, UserCreate, UserRead, UserReadPlain, UserUpdate

__all__ = ["UserPage", "UserService", "make_app"]


class UserPage(BaseModel):
    items: list[UserRead]
    total: int


class UserService:
    def __init__(self, db: AsyncSession) -> None:
        self.db = db

    async def get(self, user_id: int) -> User | None:
        result = await self.db.execute(select(User).where(User.id == user_id))
        return result.scalar_one_or_none()

    async def get_by_email(self, email: str) -> User | None:
        result = await self.db.execute(select(User).where(User.email == email))
        return result.scalar_one_or_none()

    async def list(self, skip: int = 0, limit: int = 100) -> Sequence[User]:
        result = await self.db.execute(select(User).order_by(User.id).offset(skip).limit(limit))
        return result.scalars().all()

    async def list_read(self, skip: int = 0, limit: int = 100) -> Sequence[UserRead]:
        return [UserRead.model_validate(user) for user in await self.list(skip, limit)]

    async def page(self, skip: int = 0, limit: int = 100) -> UserPage:
        users = await self.list_read(skip, limit)
        total = await self.db.scalar(select(func.count()).select_from(User))
        return UserPage(items=list(users), total=total or 0)

    async def create(self, user_in: UserCreate) -> User:
        user = User(**user_in.model_dump())
        self.db.add(user)
        await self.db.commit()
        await self.db.refresh(user)
        return user

    async def create_many(self, users_in: Sequence[UserCreate]) -> Sequence[User]:
        users = [User(**user_in.model_dump()) for user_in in users_in]
        self.db.add_all(users)
        await self.db.commit()
        return users

    async def update(self, user_id: int, user_update: UserUpdate) -> User | None:
        user = await self.get(user_id)
        if not user:
            return None
        for field, value in user_update.model_dump(exclude_unset=True).items():
            setattr(user, field, value)
        await self.db.commit()
        await self.db.refresh(user)
        return user

    async def delete(self, user_id: int) -> None:
        user = await self.get(user_id)
        if user:
            await self.db.delete(user)
            await self.db.commit()


def make_app(sessions: async_sessionmaker[AsyncSession]) -> FastAPI:
    async def get_db() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    oauth2_scheme = OAuth2PasswordBearer(tokenUrl="login")

    async def get_current_user(token: str = Depends(oauth2_scheme), db: AsyncSession = Depends(get_db)) -> User:
        credentials_error = HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"})
        try:
            payload = jwt.decode(token, SECRET_KEY, algorithms=[ALGORITHM])
            user_id = int(payload["sub"])
        except (JWTError, KeyError, ValueError):
            raise credentials_error from None
        user = await UserService(db).get(user_id)
        if user is None or not user.is_active:
            raise credentials_error
        return user

    app = FastAPI()
    app.include_router(_make_router(get_db, UserRead, list[UserRead]), prefix="/users")
    app.include_router(_make_router(get_db, UserReadPlain, list[UserReadPlain]), prefix="/plain-users")
    guarded = _make_router(get_db, UserRead, list[UserRead])
    app.include_router(guarded, prefix="/guarded-users", dependencies=[Depends(get_current_user)])
    return app


def _make_router(get_db: Callable[[], AsyncIterator[AsyncSession]], one: object, many: object) -> APIRouter:
    router = APIRouter()

    @router.get("", response_model=many)
    async def list_users(
        skip: int = Query(0, ge=0), limit: int = Query(100, ge=1, le=1000), db: AsyncSession = Depends(get_db)
    ) -> Sequence[User]:
        return await UserService(db).list(skip, limit)

    @router.get("/{user_id}", response_model=one)
    async def get_user(user_id: int, db: AsyncSession = Depends(get_db)) -> User:
        user = await UserService(db).get(user_id)
        if not user:
            raise HTTPException(status_code=404, detail="User not found")
        return user

    @router.post("", response_model=one, status_code=201)
    async def create_user(user_in: UserCreate, db: AsyncSession = Depends(get_db)) -> User:
        return await UserService(db).create(user_in)

    return router
