"""A second factor, and tokens of another issuer, as an application declares them."""

from collections.abc import Sequence
from typing import assert_type

from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from fastapi_kit import Base
from fastapi_kit.auth import JWTService, TokenVerifier, jwks_router
from fastapi_kit.auth.logins import StatelessLogins, TokenPair
from fastapi_kit.auth.second_factor import TOTP, Enrolment, FactorState, FactorStore, SecondFactor
from fastapi_kit.auth.second_factor.sql import SQLFactorStore, TOTPMixin
from fastapi_kit.auth.tokens.remote import RemoteIssuer
from fastapi_kit.auth.users import (
    AuthFlow,
    UserAccounts,
    UserMixin,
    UserRegister,
    begin_second_factor,
    confirm_second_factor,
    disable_second_factor,
    login_with_code,
    renew_recovery_codes,
)
from fastapi_kit.ratelimit import RateLimiter


class Member(TOTPMixin, UserMixin, Base):
    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)


class Members(UserAccounts[Member, UserRegister]): ...


class OwnStore:
    async def read(self, session: AsyncSession, user: Member, /) -> FactorState:
        return FactorState()

    async def replace(self, session: AsyncSession, user: Member, new: FactorState, /, *, old: FactorState) -> bool:
        return True


tokens = JWTService(secret_key=b"")
stores: list[FactorStore[Member]] = [SQLFactorStore(), OwnStore()]
totp = TOTP(issuer="Zenith")
plain: SecondFactor[Member] = SecondFactor(tokens, totp, OwnStore(), cipher=None)
rotated: SecondFactor[Member] = SecondFactor(tokens, totp, SQLFactorStore(), cipher=MultiFernet([Fernet(b""), Fernet(b"")]))
shared: SecondFactor[Member] = SecondFactor(tokens, totp, SQLFactorStore(), cipher=None, counter=RateLimiter(fail_open=False))
flow = AuthFlow[Member, UserRegister](
    accounts=Members,
    logins=StatelessLogins(tokens),
    second_factor=SecondFactor(tokens, totp, SQLFactorStore(), cipher=Fernet(b"")),
)
verifier: TokenVerifier = RemoteIssuer("https://tenant.example.org", audience="api", algorithms=["RS256", "ES256"])
router = jwks_router(tokens)


async def fetch(url: str) -> bytes:
    return b""


own: TokenVerifier = RemoteIssuer("https://tenant.example.org", audience="api", audience_claim="client_id", fetch=fetch)


async def use(session: AsyncSession, member: Member) -> None:
    assert_type(await login_with_code(flow, session, challenge_token="", code=""), TokenPair)
    assert_type(await begin_second_factor(flow, session, member, current_password=""), Enrolment)
    assert_type(await confirm_second_factor(flow, session, member, code=""), Sequence[str])
    assert_type(await renew_recovery_codes(flow, session, member, current_password="", code=""), Sequence[str])
    await disable_second_factor(flow, session, member, current_password="", code="")
    assert_type(totp.verify("", "", last_step=None), int | None)
    assert_type(member.totp_last_step, int | None)
    assert_type(member.totp_secret, bytes | None)
