"""Passkeys: users register one while they are logged in, and log in with it and nothing else."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Body, Depends
from pydantic import BaseModel
from sqlalchemy import ForeignKey, LargeBinary, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import base64url_to_bytes, options_to_json_dict
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from fastapi_kit import Base, Database, KitSettings, create_app
from fastapi_kit.auth import JWTService, PasswordHasher, TokenClaims, get_current_user_factory
from fastapi_kit.auth.logins import StatelessLogins, TokenPair
from fastapi_kit.auth.users import AuthFlow, UserAccounts, UserMixin, UserProfile, UserRegister, auth_router
from fastapi_kit.db import UTCDateTime
from fastapi_kit.errors import InvalidCredentialsError

RP_ID = "example.org"  # the domain of your site, without https:// and port
ORIGIN = "https://example.org"  # what the browser shows, exactly
MALFORMED = (WebAuthnException, KeyError, TypeError, ValueError)
"""What malformed credentials raise: not all of it is an error of py_webauthn."""


class User(UserMixin, Base):
    __tablename__ = "users"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: Mapped[int] = mapped_column(primary_key=True)


class Passkey(Base):
    __tablename__ = "passkeys"
    id: Mapped[bytes] = mapped_column(LargeBinary(1023), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary())
    sign_count: Mapped[int]


class Challenge(Base):
    """A challenge that was not answered yet."""

    __tablename__ = "passkey_challenges"
    value: Mapped[bytes] = mapped_column(LargeBinary(64), primary_key=True)
    user_id: Mapped[int | None]
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime())


class Users(UserAccounts[User, UserRegister]): ...


settings = KitSettings()  # from the environment, with a SECRET_KEY
db = Database.from_settings(settings)
tokens = JWTService.from_settings(settings)
logins = StatelessLogins(tokens)
flow = AuthFlow(accounts=Users, logins=logins, passwords=PasswordHasher.from_settings(settings))


async def load_user(session: AsyncSession, claims: TokenClaims) -> User | None:
    return await Users(session).get_account(claims.sub)


get_current_user = get_current_user_factory(logins, load_user, session=db.session)
router = auth_router(flow, session=db.session, current_user=get_current_user, read=UserProfile, register=UserRegister)

Session = Annotated[AsyncSession, db.transaction]
CurrentUser = Annotated[User, Depends(get_current_user)]
Credential = Annotated[dict[str, Any], Body()]


class Options(BaseModel):
    """For ``navigator.credentials.create()`` or ``get()``."""

    publicKey: dict[str, Any]  # noqa: N815 - the name in the browser


async def new_challenge(session: AsyncSession, user_id: int | None) -> bytes:
    """Store a challenge for five minutes."""
    value, now = secrets.token_bytes(32), datetime.now(UTC)
    await session.execute(delete(Challenge).where(Challenge.expires_at < now))
    session.add(Challenge(value=value, user_id=user_id, expires_at=now + timedelta(minutes=5)))
    return value


async def use_challenge(session: AsyncSession, credential: dict[str, Any], user_id: int | None) -> bytes:
    """Delete the challenge that the browser has answered, and return it. Of two requests with one answer, one gets it."""
    try:
        client_data = ClientData.model_validate_json(base64url_to_bytes(credential["response"]["clientDataJSON"]))
        value = base64url_to_bytes(client_data.challenge)
    except MALFORMED:
        raise InvalidCredentialsError from None
    owned = Challenge.value == value, Challenge.user_id.is_not_distinct_from(user_id), Challenge.expires_at > datetime.now(UTC)
    found = await session.execute(delete(Challenge).where(*owned).returning(Challenge.value))
    if found.one_or_none() is None:
        raise InvalidCredentialsError
    return value


class ClientData(BaseModel):
    """The part of the client data that names the challenge."""

    challenge: str


@router.post("/passkeys/options")
async def begin_passkey(user: CurrentUser, session: Session) -> Options:
    """Begin to register a passkey of the current user."""
    known = await session.scalars(select(Passkey.id).where(Passkey.user_id == user.id))
    options = generate_registration_options(
        rp_id=RP_ID,
        rp_name="Zenith",
        user_id=str(user.id).encode(),
        user_name=user.email,
        challenge=await new_challenge(session, user.id),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=id) for id in known],
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
    )
    return Options(publicKey=options_to_json_dict(options))


@router.post("/passkeys", status_code=201)
async def add_passkey(credential: Credential, user: CurrentUser, session: Session) -> None:
    """Store the passkey that the browser has made."""
    challenge = await use_challenge(session, credential, user.id)
    try:
        made = verify_registration_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=RP_ID,
            expected_origin=ORIGIN,
            require_user_verification=True,
        )
    except MALFORMED:
        raise InvalidCredentialsError from None
    session.add(Passkey(id=made.credential_id, user_id=user.id, public_key=made.credential_public_key, sign_count=made.sign_count))


@router.post("/login/passkey/options")
async def begin_login(session: Session) -> Options:
    """Begin a login. The browser asks the user which passkey to use."""
    options = generate_authentication_options(
        rp_id=RP_ID, challenge=await new_challenge(session, None), user_verification=UserVerificationRequirement.REQUIRED
    )
    return Options(publicKey=options_to_json_dict(options))


@router.post("/login/passkey")
async def log_in(credential: Credential, session: Session) -> TokenPair:
    """Exchange the answer of a passkey for tokens."""
    challenge = await use_challenge(session, credential, None)
    try:
        passkey = await session.get(Passkey, base64url_to_bytes(credential["rawId"]))
    except MALFORMED:
        raise InvalidCredentialsError from None
    user = None if passkey is None else await session.get(User, passkey.user_id)
    if passkey is None or user is None or not user.is_active:
        raise InvalidCredentialsError
    try:
        answer = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=RP_ID,
            expected_origin=ORIGIN,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=True,
        )
    except MALFORMED:
        raise InvalidCredentialsError from None
    await session.execute(update(Passkey).where(Passkey.id == passkey.id).values(sign_count=answer.new_sign_count))
    return await logins.start(str(user.id))


app = create_app(settings, database=db, create_tables=True)
app.include_router(router, prefix="/auth", tags=["auth"])
