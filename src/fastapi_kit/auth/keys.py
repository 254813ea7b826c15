"""Another import path for the names of ``fastapi_kit.auth.tokens.keys``."""

from fastapi_kit.auth.tokens.keys import Algorithm, JWKSet, Key, Keyring

__all__ = ["Algorithm", "JWKSet", "Key", "Keyring"]
