"""API keys: long-lived tokens for programs, which their users create and revoke.

The stores that need a database or Redis, and the ready routes, have their own modules: ``fastapi_kit.auth.api_keys.sql``,
``fastapi_kit.auth.api_keys.redis`` and ``fastapi_kit.auth.api_keys.router``.
"""

from fastapi_kit.auth.api_keys.keys import APIKeys, NewAPIKey
from fastapi_kit.auth.api_keys.memory import MemoryAPIKeyStore
from fastapi_kit.auth.api_keys.store import APIKeyInfo, APIKeyRecord, APIKeyStore

__all__ = ["APIKeyInfo", "APIKeyRecord", "APIKeyStore", "APIKeys", "MemoryAPIKeyStore", "NewAPIKey"]
