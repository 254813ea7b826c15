"""A ready route that publishes the public keys."""

from datetime import timedelta

from fastapi import APIRouter, Response

from fastapi_kit.auth.tokens.keys import JWKSet
from fastapi_kit.auth.tokens.service import JWTService
from fastapi_kit.errors import ConfigurationError

__all__ = ["jwks_router"]

PATH = "/.well-known/jwks.json"


def jwks_router(tokens: JWTService, *, max_age: timedelta = timedelta(minutes=15)) -> APIRouter:
    """Build ``GET /.well-known/jwks.json``, for those who verify your tokens (RFC 7517, 5). Include the router without a prefix.

    The document has the public keys only, those that do not sign yet included.

    Args:
        tokens: Signs or verifies the tokens.
        max_age: How long clients may keep the document: 0 to 24 hours. A key that you remove is accepted there for so long.

    Raises:
        ConfigurationError: All keys of *tokens* are secrets, or *max_age* is out of bounds.
    """
    if not timedelta() <= max_age <= timedelta(days=1):
        raise ConfigurationError("max_age must be from 0 to 24 hours")
    document = tokens.jwks()
    if not document["keys"]:
        raise ConfigurationError("there is no public key to publish: use a key for RS256, ES256, EdDSA or the like, not a secret")
    cache_control = f"public, max-age={int(max_age.total_seconds())}"

    async def read_public_keys(response: Response) -> JWKSet:
        response.headers["Cache-Control"] = cache_control
        return document

    router = APIRouter()
    router.add_api_route(
        PATH,
        read_public_keys,
        methods=["GET"],
        tags=["auth"],
        summary="Public keys",
        description="The keys that verify the tokens of this API (RFC 7517).",
        response_description="The keys",
    )
    return router
