"""The steps of a second factor: enrol, ask for a code at the login, use a code, and switch it off."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import timedelta
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.second_factor.recovery import new_recovery_codes, use_recovery_code
from fastapi_kit.auth.second_factor.state import Cipher, FactorState, FactorStore
from fastapi_kit.auth.second_factor.totp import TOTP, read_code
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import JWTService
from fastapi_kit.errors import (
    ConfigurationError,
    ConflictError,
    FieldError,
    InvalidCredentialsError,
    InvalidTokenError,
    SecondFactorRequiredError,
    UserInputError,
)
from fastapi_kit.ratelimit.counters import AttemptCounter, MemoryCounter

__all__ = ["Enrolment", "SecondFactor", "scopes_of", "wrong_code"]

UserT = TypeVar("UserT")

LONGEST_CHALLENGE = timedelta(minutes=5)
ATTEMPTS = 5
"""How many codes one challenge may try."""
WINDOW = 2 * LONGEST_CHALLENGE.total_seconds()
"""How long its codes count together: longer than it can be used, whatever the leeway for clocks that differ."""


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """What the authenticator app needs, shown once: the secret to type, and the address for a QR code. The repr hides both."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)


@dataclass(eq=False, repr=False)
class SecondFactor(Generic[UserT]):
    """A second factor for logins: codes of an authenticator app, and recovery codes.

    A user with an enabled factor gets a challenge for the password: a token of type ``mfa``, which is good for nothing but to send a code
    with it. It ends after *challenge_lifetime*, with a new password, and with a new factor.

    Each code works once: one conditional write decides which of several requests wins. A challenge takes 5 codes. Because who knows the
    password gets new challenges, give the ``AuthFlow`` a throttle.

    Args:
        tokens: Signs the challenges.
        totp: Makes and verifies the codes.
        store: A ``SQLFactorStore``, or a class of your own.
        cipher: Encrypts the secrets that are stored, such as ``Fernet(key)``. With None they are stored as they are: then who reads your
            database or a backup can make codes.
        challenge_lifetime: 1 second to 5 minutes.
        counter: Where the codes of a challenge are counted: a ``RateLimiter`` on Redis for several processes. The default is the memory of
            this process.

    Raises:
        ConfigurationError: *challenge_lifetime* is out of bounds.
    """

    tokens: JWTService
    totp: TOTP
    store: FactorStore[UserT]
    _: KW_ONLY
    cipher: Cipher | None
    challenge_lifetime: timedelta = LONGEST_CHALLENGE
    counter: AttemptCounter = field(default_factory=MemoryCounter)

    def __post_init__(self) -> None:
        if not timedelta(seconds=1) <= self.challenge_lifetime <= LONGEST_CHALLENGE:
            raise ConfigurationError("challenge_lifetime must be from 1 second to 5 minutes")

    # --- At the login ---

    async def require(
        self, session: AsyncSession, user: UserT, *, subject: str, hashed_password: str | None, scopes: Collection[str]
    ) -> None:
        """Raise SecondFactorRequiredError, with a challenge, if *user* has enabled the factor.

        Args:
            session: A session of your database.
            user: Who has given the right password.
            subject: The subject of the user's tokens.
            hashed_password: The stored hash, to which the challenge is bound.
            scopes: What the login shall have; ``scopes_of`` returns them from the challenge.
        """
        state = await self.store.read(session, user)
        if state.is_enabled:
            extra = {"scopes": " ".join(sorted(scopes)), "state": fingerprint(state, hashed_password)}
            token = self.tokens.create_token(subject, type="mfa", lifetime=self.challenge_lifetime, extra=extra)
            raise SecondFactorRequiredError(token, expires_in=int(self.challenge_lifetime.total_seconds()))

    def decode(self, challenge_token: str) -> TokenClaims:
        """Return the claims of a challenge. Raises InvalidTokenError."""
        return self.tokens.decode(challenge_token, type="mfa")

    async def answer(
        self,
        session: AsyncSession,
        user: UserT,
        challenge: TokenClaims,
        code: str,
        *,
        hashed_password: str | None,
    ) -> None:
        """Use up *code* for a challenge.

        Args:
            session: A session of your database.
            user: The user of the challenge, as stored now.
            challenge: From ``decode``.
            code: A code of the app, or a recovery code.
            hashed_password: The hash that is stored now.

        Raises:
            InvalidTokenError: The challenge is over: log in again.
            InvalidCredentialsError: The code is wrong, or was used.
            UnavailableError: *counter* does not answer.
        """
        state = await self.store.read(session, user)
        if challenge.extra.get("state") != fingerprint(state, hashed_password):
            raise InvalidTokenError("the password or the second factor was changed")
        if await self.counter.hit(f"challenge {challenge.jti}", limit=ATTEMPTS, window=WINDOW):
            raise InvalidTokenError("too many codes for one login")
        if not await self._use(session, user, state, code):
            raise InvalidCredentialsError

    # --- With a login ---

    async def begin(self, session: AsyncSession, user: UserT, *, account: str) -> Enrolment:
        """Store a new secret, which ``confirm`` enables. Ask for the password before.

        Args:
            session: A session of your database.
            user: The user as stored now.
            account: What the app shows beside the issuer, such as the e-mail address.

        Raises:
            ConflictError: The factor is enabled already.
        """
        old = await self.store.read(session, user)
        secret = self.totp.new_secret()
        if old.is_enabled or not await self.store.replace(session, user, FactorState(secret=self._encrypt(secret)), old=old):
            raise ConflictError
        return Enrolment(secret=secret, uri=self.totp.uri(secret, account=account))

    async def confirm(self, session: AsyncSession, user: UserT, code: str) -> Sequence[str]:
        """Enable the factor with a first code of the app, and return the recovery codes, which are shown once.

        If the user does not see them, ``renew_recovery_codes`` makes others.

        Raises:
            UserInputError: The code is wrong.
            ConflictError: There is nothing to confirm.
        """
        old = await self.store.read(session, user)
        if old.is_enabled:
            raise ConflictError
        return await self._make_recovery_codes(session, user, code, old=old)

    async def renew_recovery_codes(self, session: AsyncSession, user: UserT, code: str) -> Sequence[str]:
        """Replace all recovery codes, and return the new ones, which are shown once. Ask for the password before.

        It takes no recovery code: if the new ones are not seen, the app is what is left. Who has lost it can disable the factor.

        Args:
            session: A session of your database.
            user: The user as stored now.
            code: A code of the app. It is used up.

        Raises:
            UserInputError: The code is wrong, or was used.
            ConflictError: The factor is not enabled, or another request was faster.
        """
        old = await self.store.read(session, user)
        if not old.is_enabled:
            raise ConflictError
        return await self._make_recovery_codes(session, user, code, old=old)

    async def is_enabled(self, session: AsyncSession, user: UserT) -> bool:
        """Return whether the logins of *user* need a code."""
        return (await self.store.read(session, user)).is_enabled

    async def use(self, session: AsyncSession, user: UserT, code: str) -> None:
        """Use up *code*, which may be a recovery code, for a user who is logged in. Raises UserInputError if it is wrong or was used."""
        if not await self._use(session, user, await self.store.read(session, user), code):
            raise wrong_code()

    async def disable(self, session: AsyncSession, user: UserT, code: str) -> None:
        """Switch the factor off with a code, which may be a recovery code. Ask for the password before.

        Raises:
            UserInputError: The code is wrong, or was used.
            ConflictError: The factor is not enabled.
        """
        old = await self.store.read(session, user)
        if not old.is_enabled:
            raise ConflictError
        if self._without(old, code) is None:
            raise wrong_code()
        if not await self.store.replace(session, user, FactorState(), old=old):
            raise ConflictError

    async def _make_recovery_codes(self, session: AsyncSession, user: UserT, code: str, *, old: FactorState) -> Sequence[str]:
        """Store new recovery codes over *old* with a code of the app, and return them."""
        if old.secret is None:
            raise ConflictError
        step = self.totp.verify(self._decrypt(old.secret), code, last_step=old.last_step)
        if step is None:
            raise wrong_code()
        recovery = new_recovery_codes()
        if not await self.store.replace(session, user, replace(old, last_step=step, recovery_hashes=recovery.hashes), old=old):
            raise ConflictError
        return recovery.codes

    async def _use(self, session: AsyncSession, user: UserT, state: FactorState, code: str) -> bool:
        """Use up a code, and return whether it was good."""
        # Another request may use another code at the same moment.
        for _ in range(3):
            left = self._without(state, code)
            if left is None:
                return False
            if await self.store.replace(session, user, left, old=state):
                return True
            state = await self.store.read(session, user)
        return False

    def _without(self, state: FactorState, code: str) -> FactorState | None:
        """Return what is left after *code* was used, or None if it is not good."""
        if state.secret is None or state.last_step is None:
            return None
        if read_code(code) is not None:
            step = self.totp.verify(self._decrypt(state.secret), code, last_step=state.last_step)
            return None if step is None else replace(state, last_step=step)
        left = use_recovery_code(code, state.recovery_hashes)
        return None if left is None else replace(state, recovery_hashes=left)

    def _encrypt(self, secret: str) -> bytes:
        return secret.encode() if self.cipher is None else self.cipher.encrypt(secret.encode())

    def _decrypt(self, stored: bytes) -> str:
        try:
            return (stored if self.cipher is None else self.cipher.decrypt(stored)).decode()
        except Exception as error:
            # Each cipher raises errors of its own.
            raise ConfigurationError("the secret of a second factor cannot be decrypted: the cipher has another key") from error


def scopes_of(challenge: TokenClaims) -> frozenset[str]:
    """Return the scopes that the login shall have."""
    return frozenset(str(challenge.extra.get("scopes", "")).split())


def fingerprint(state: FactorState, hashed_password: str | None) -> str:
    """Return what changes with the password and with the factor, without showing either."""
    return hashlib.sha256(b"\0".join([(hashed_password or "").encode(errors="replace"), state.secret or b""])).hexdigest()


def wrong_code() -> UserInputError:
    """Return the error for a code of a user who is logged in."""
    return UserInputError("The code is missing or wrong.", errors=[FieldError(("body", "code"), "wrong_code", "is not a current code")])
