"""Users of an application: what logins need of them, the steps of logging in, and ready routes.

The names are imported on first use (PEP 562), so that a model or a script does not load FastAPI.
"""

from typing import TYPE_CHECKING

from fastapi_kit._lazy import names_of

if TYPE_CHECKING:
    from fastapi_kit.auth.users.accounts import Account, Accounts, EditableAccounts, normalize_email
    from fastapi_kit.auth.users.flow import AuthFlow
    from fastapi_kit.auth.users.impersonation import Impersonation, ImpersonationStart, ImpersonationToken
    from fastapi_kit.auth.users.mail import Mail, MailFlow, SendLink
    from fastapi_kit.auth.users.notices import AccountChange, ChangeKind, Notify
    from fastapi_kit.auth.users.router import AuthEndpoint, NoStoreRoute, PasswordForm, auth_router
    from fastapi_kit.auth.users.schemas import LoginRead, RefreshRequest, UserProfile, UserRegister
    from fastapi_kit.auth.users.second_factor import (
        begin_second_factor,
        confirm_second_factor,
        disable_second_factor,
        login_with_code,
        renew_recovery_codes,
    )
    from fastapi_kit.auth.users.sql import NoChanges, UserAccounts, UserMixin
    from fastapi_kit.auth.users.superuser import superuser_command
    from fastapi_kit.auth.users.throttle import LoginThrottle

__all__ = [
    "Account",
    "AccountChange",
    "Accounts",
    "AuthEndpoint",
    "AuthFlow",
    "ChangeKind",
    "EditableAccounts",
    "Impersonation",
    "ImpersonationStart",
    "ImpersonationToken",
    "LoginRead",
    "LoginThrottle",
    "Mail",
    "MailFlow",
    "NoChanges",
    "NoStoreRoute",
    "Notify",
    "PasswordForm",
    "RefreshRequest",
    "SendLink",
    "UserAccounts",
    "UserMixin",
    "UserProfile",
    "UserRegister",
    "auth_router",
    "begin_second_factor",
    "confirm_second_factor",
    "disable_second_factor",
    "login_with_code",
    "normalize_email",
    "renew_recovery_codes",
    "superuser_command",
]

_HOMES = {
    "accounts": ["Account", "Accounts", "EditableAccounts", "normalize_email"],
    "flow": ["AuthFlow"],
    "mail": ["Mail", "MailFlow", "SendLink"],
    "notices": ["AccountChange", "ChangeKind", "Notify"],
    "impersonation": ["Impersonation", "ImpersonationStart", "ImpersonationToken"],
    "router": ["AuthEndpoint", "NoStoreRoute", "PasswordForm", "auth_router"],
    "schemas": ["LoginRead", "RefreshRequest", "UserProfile", "UserRegister"],
    "second_factor": ["begin_second_factor", "confirm_second_factor", "disable_second_factor", "login_with_code", "renew_recovery_codes"],
    "sql": ["NoChanges", "UserAccounts", "UserMixin"],
    "superuser": ["superuser_command"],
    "throttle": ["LoginThrottle"],
}

# Hidden from the type checkers, which would otherwise accept any name.
if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
