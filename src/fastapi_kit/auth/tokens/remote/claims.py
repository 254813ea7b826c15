"""The payload of a token of another issuer: the same checks as for our own, without the claims that only we write."""

import hashlib
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

from pydantic import JsonValue

from fastapi_kit.auth.tokens._compact import Compact, JsonObject
from fastapi_kit.auth.tokens.claims import RESERVED, TOKEN_TYPES, TokenClaims, is_scope, read_actor, read_audience, read_text, read_times
from fastapi_kit.auth.tokens.policy import TokenPolicy, is_printable
from fastapi_kit.errors import InvalidTokenError

__all__ = ["AudienceClaim", "check_is_access_token", "read_foreign_claims"]

AudienceClaim = Literal["aud", "client_id"]

ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})
"""Claims of ID tokens (OpenID Connect Core, 2 and 3.3.2.11) and of logout tokens, which are for the client."""
OTHER_TYPES = frozenset({*TOKEN_TYPES, "id", "logout"}) - {"access"}
"""What ``type`` of a ``JWTService``, and the same or ``token_type`` of others, say of tokens that are for something else."""


def check_is_access_token(header: JsonObject, payload: JsonObject) -> None:
    """Raise InvalidTokenError for an ID, refresh or logout token.

    The claims ``type`` and ``token_type`` must not name another type: an issuer may be an application with a ``JWTService``. Then the first
    of these that a token has decides: the ``typ`` of its header (RFC 9068, 2.1), the claim ``token_use`` of Cognito, the claim ``typ`` of
    Keycloak. Without them, it must have no claim that only ID tokens have.
    """
    if any(str(payload.get(name)).lower() in OTHER_TYPES for name in ("type", "token_type")):
        raise InvalidTokenError("another type of token")
    if str(header.get("typ", "")).lower().removeprefix("application/") == "at+jwt":
        return
    if "token_use" in payload:
        is_access = payload["token_use"] == "access"
    elif "typ" in payload:
        is_access = payload["typ"] == "Bearer"
    else:
        is_access = ID_TOKEN_CLAIMS.isdisjoint(payload)
    if not is_access:
        raise InvalidTokenError("another type of token")


def read_foreign_claims(
    parts: Compact, payload: JsonObject, *, policy: TokenPolicy, now: float, scope_claim: str, audience_claim: AudienceClaim
) -> TokenClaims:
    """Check the claims of a payload whose signature is good, and return them. *now* is in seconds.

    A token without ``jti`` gets the hash of what was signed, so that it has a name all the same. Raises InvalidTokenError.
    """
    check_is_access_token(parts.header, payload)
    iat, exp = read_times(payload, leeway=policy.leeway.total_seconds(), now=now)
    iss = read_text(payload, "iss")
    if iss != policy.issuer:
        raise InvalidTokenError("another issuer")
    sid = payload.get("sid")
    return TokenClaims(
        sub=read_text(payload, "sub"),
        type="access",
        jti=read_text(payload, "jti") if "jti" in payload else hashlib.sha256(parts.signing_input).hexdigest(),
        iat=datetime.fromtimestamp(iat, UTC),
        exp=datetime.fromtimestamp(exp, UTC),
        scopes=read_any_scopes(payload.get(scope_claim)),
        iss=iss,
        aud=read_audience(payload.get(audience_claim), policy.audience),
        sid=sid if is_printable(sid) else None,
        actor=read_actor(payload["act"], "access") if "act" in payload else None,
        extra=MappingProxyType({name: value for name, value in payload.items() if name not in RESERVED}),
    )


def read_any_scopes(value: JsonValue) -> frozenset[str]:
    """Return the scopes in a string or a list. Without the claim there are none."""
    scopes = value.split() if isinstance(value, str) else [] if value is None else value
    if not isinstance(scopes, list) or not all(map(is_scope, scopes)):
        raise InvalidTokenError("the scopes are malformed")
    return frozenset(map(str, scopes))
