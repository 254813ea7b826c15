"""Helpers for the tests of your application."""

from fastapi_kit.testing.auth import FrozenClock, bearer, cheap_hasher, login_as
from fastapi_kit.testing.client import app_client
from fastapi_kit.testing.database import isolated
from fastapi_kit.testing.queries import QueryLog, assert_max_queries, assert_no_n_plus_one

__all__ = [
    "FrozenClock",
    "QueryLog",
    "app_client",
    "assert_max_queries",
    "assert_no_n_plus_one",
    "bearer",
    "cheap_hasher",
    "isolated",
    "login_as",
]
