"""Browsers with a cookie, programs with a bearer token: one user, roles, and a check on the object."""
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import BaseModel
from sqlalchemy import JSON
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from fastapi_kit import Base, CRUDService, Database, KitSettings, create_app
from fastapi_kit.auth import BearerTransport, CookieTransport, JWTService, PasswordHasher, TokenClaims, get_current_user_factory, require
from fastapi_kit.auth.flow import AuthFlow
from fastapi_kit.auth.router import AuthEndpoint, auth_router
from fastapi_kit.auth.schemas import UserProfile, UserRegister
from fastapi_kit.auth.sessions import MemoryLoginStore, StoredLogins
from fastapi_kit.auth.sql import UserAccounts, UserMixin
from fastapi_kit.errors import PermissionDeniedError

class User(UserMixin, Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    roles: Mapped[list[str]] = mapped_column(JSON, default=list)

class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int]

class NoteIn(BaseModel):
    owner_id: int

class NoteService(CRUDService[Note, NoteIn, NoteIn]): ...
class Users(UserAccounts[User, UserRegister]): ...

settings = KitSettings()
db = Database.from_settings(settings)
Session = Annotated[AsyncSession, db.session]
tokens = JWTService.from_settings(settings)
logins = StoredLogins(tokens, MemoryLoginStore())
cookie = CookieTransport(csrf_key=b"c" * 32, trusted_origins=settings.ALLOWED_ORIGINS)
async def load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    return await session.get(User, claims.subject(int))

transports = [cookie, BearerTransport(scopes={"notes": "Read notes"})]
get_current_user = get_current_user_factory(logins, load_user, session=db.session, transports=transports)
CurrentUser = Annotated[User, Depends(get_current_user)]
flow = AuthFlow(accounts=Users, logins=logins, passwords=PasswordHasher())
own_login = AuthEndpoint.ALL & ~AuthEndpoint.LOGIN
auth = auth_router(flow, session=db.session, current_user=get_current_user, read=UserProfile, register=UserRegister, endpoints=own_login)

@auth.post("/login", status_code=204)
async def login(form: Annotated[OAuth2PasswordRequestForm, Depends()], session: Session, request: Request, response: Response) -> None:
    cookie.check_origin(request)                                   # no other site logs its visitors in
    user = await flow.authenticate(session, email=form.username, password=form.password)
    pair = await logins.start(str(user.id))
    cookie.log_in(response, pair.access_token, lifetime=tokens.policy.access_lifetime)

app = create_app(settings, database=db, routers=[auth])

@app.delete("/notes/{note_id}", status_code=204)
async def delete_note(note_id: int, user: CurrentUser, session: Session) -> None:
    note = await NoteService(session).get_one(note_id)
    if note.owner_id != user.id:
        raise PermissionDeniedError
    await NoteService(session).delete(note_id)

@app.get("/audit", dependencies=[Depends(require(get_current_user, roles=["admin", "auditor"], verified=True))])
async def audit(session: Session) -> int:
    return await NoteService(session).count()
