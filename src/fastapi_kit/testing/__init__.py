"""Helpers for the tests of your application."""

from fastapi_kit.testing.auth import CapturedMail, FrozenClock, bearer, captured_mails, cheap_hasher, login_as
from fastapi_kit.testing.client import app_client
from fastapi_kit.testing.database import isolated
from fastapi_kit.testing.queries import QueryLog, assert_max_queries, assert_no_n_plus_one

__all__ = [
    "CapturedMail",
    "FrozenClock",
    "QueryLog",
    "app_client",
    "assert_max_queries",
    "assert_no_n_plus_one",
    "bearer",
    "captured_mails",
    "cheap_hasher",
    "isolated",
    "login_as",
]
