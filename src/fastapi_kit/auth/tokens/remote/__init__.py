"""Access tokens of another issuer, such as Auth0, Keycloak or Cognito. Fetching its keys needs the extra ``remote``."""

from fastapi_kit.auth.tokens.remote.fetch import Fetch
from fastapi_kit.auth.tokens.remote.issuer import RemoteIssuer

__all__ = ["Fetch", "RemoteIssuer"]
