"""Another import path for the names of ``fastapi_kit.auth.users.accounts``."""

from fastapi_kit.auth.users.accounts import PRIVILEGES, Account, Accounts, normalize_email

__all__ = ["PRIVILEGES", "Account", "Accounts", "normalize_email"]
