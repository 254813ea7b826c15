"""Users of an application: what logins need of them, the steps of logging in, and ready routes.

The names are imported on first use (PEP 562), so that a model or a script does not load FastAPI.
"""

from typing import TYPE_CHECKING

from fastapi_kit._lazy import names_of

if TYPE_CHECKING:
    from fastapi_kit.auth.users.accounts import Account, Accounts, EditableAccounts, normalize_email
    from fastapi_kit.auth.users.flow import AuthFlow
    from fastapi_kit.auth.users.mail import Mail, MailFlow, SendLink
    from fastapi_kit.auth.users.router import AuthEndpoint, NoStoreRoute, PasswordForm, auth_router
    from fastapi_kit.auth.users.schemas import LoginRead, RefreshRequest, UserProfile, UserRegister
    from fastapi_kit.auth.users.sql import NoChanges, UserAccounts, UserMixin
    from fastapi_kit.auth.users.superuser import superuser_command

__all__ = [
    "Account",
    "Accounts",
    "AuthEndpoint",
    "AuthFlow",
    "EditableAccounts",
    "LoginRead",
    "Mail",
    "MailFlow",
    "NoChanges",
    "NoStoreRoute",
    "PasswordForm",
    "RefreshRequest",
    "SendLink",
    "UserAccounts",
    "UserMixin",
    "UserProfile",
    "UserRegister",
    "auth_router",
    "normalize_email",
    "superuser_command",
]

_HOMES = {
    "accounts": ["Account", "Accounts", "EditableAccounts", "normalize_email"],
    "flow": ["AuthFlow"],
    "mail": ["Mail", "MailFlow", "SendLink"],
    "router": ["AuthEndpoint", "NoStoreRoute", "PasswordForm", "auth_router"],
    "schemas": ["LoginRead", "RefreshRequest", "UserProfile", "UserRegister"],
    "sql": ["NoChanges", "UserAccounts", "UserMixin"],
    "superuser": ["superuser_command"],
}

# Hidden from the type checkers, which would otherwise accept any name.
if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
