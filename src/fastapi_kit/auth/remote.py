"""Another import path for the names of ``fastapi_kit.auth.tokens.remote``."""

from fastapi_kit.auth.tokens.remote import Fetch, RemoteIssuer

__all__ = ["Fetch", "RemoteIssuer"]
