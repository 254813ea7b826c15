"""The errors of the library: data and a machine-readable code, no HTTP.

KitError
├── NotFoundError                 no row has this key
├── MultipleMatchesError          one row was expected, several match
├── ConflictError                 a unique or exclusion constraint, or a trigger, rejected the write
│   ├── StaleVersionError         the row is not at the version that the caller expected
│   └── StillReferencedError      other rows reference this one
├── InvalidDataError              the values cannot be stored: null, check, length, range
│   └── UnknownReferenceError     a foreign key references no row
├── UserInputError                the input is wrong; the text may be sent to the client (also a ValueError)
│   └── InvalidQueryError         a filter, sort or search is unknown or malformed
├── PreconditionFailedError       the resource is not as a conditional header of the request expects it
├── PreconditionRequiredError     the request needs a conditional header and has none
├── AuthenticationError           the caller is not known
│   ├── InvalidCredentialsError   the login failed; one error for every reason
│   ├── SecondFactorRequiredError the password is right, and a code is needed, too
│   └── InvalidTokenError         the token is malformed, expired, revoked or of another type
├── PermissionDeniedError         the caller is known, and not allowed to do this
│   ├── CrossSiteRequestError     a request with cookies may come from another site
│   ├── InsufficientScopeError    the token does not have the needed scopes
│   └── ImpersonatedError         only the user may do this, and another one acts as the user
├── RateLimitedError              too many attempts; try again later
├── UnavailableError              the database cannot answer now; try again later
└── ConfigurationError            a mistake in the application's code, never the client's (also a RuntimeError)
    ├── NotLoadedError            an attribute was read that the query did not load
    └── MissingExtraError         an optional package is not installed (also an ImportError)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "FIELD_MESSAGES",
    "AuthenticationError",
    "ConfigurationError",
    "ConflictError",
    "CrossSiteRequestError",
    "FieldError",
    "ImpersonatedError",
    "InsufficientScopeError",
    "InvalidCredentialsError",
    "InvalidDataError",
    "InvalidQueryError",
    "InvalidTokenError",
    "KitError",
    "MissingExtraError",
    "MultipleMatchesError",
    "NotFoundError",
    "NotLoadedError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "PreconditionRequiredError",
    "RateLimitedError",
    "SecondFactorRequiredError",
    "StaleVersionError",
    "StillReferencedError",
    "UnavailableError",
    "UnknownReferenceError",
    "UserInputError",
]


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field. Does not contain the value that was sent.

    Attributes:
        loc: The path to the field.
        code: A word for machines.
        message: A text for people.
    """

    loc: tuple[str | int, ...]
    code: str
    message: str


class KitError(Exception):
    """Base of all errors of the library. Subclass it for the errors of your application, and set *code*.

    ``str(error)`` is for logs. It is never sent to a client.
    """

    code: ClassVar[str] = "error"
    """A word for machines. It stays the same when texts change."""
    detail: str | None = None
    """A text that is safe to send. With None, the client gets the phrase of the status."""

    @property
    def errors(self) -> Sequence[FieldError]:
        """One entry for each wrong field. Empty if the fields are not known."""
        return ()


class NotFoundError(KitError):
    """No row of *model* has the key *ident*."""

    code = "not_found"
    detail = "There is nothing here."

    def __init__(self, model: type[object], ident: object) -> None:
        super().__init__(f"{model.__name__} {ident!r} does not exist")
        self.model = model
        self.ident = ident


class MultipleMatchesError(KitError):
    """More than one row of *model* matches *fields*."""

    code = "multiple_matches"
    detail = "More than one resource matches."

    def __init__(self, model: type[object], fields: Sequence[str]) -> None:
        super().__init__(f"more than one {model.__name__} has the given {', '.join(fields)}")
        self.model = model
        self.fields = tuple(fields)


class ConflictError(KitError):
    """A constraint over *fields* rejected the write."""

    code = "conflict"
    detail = "The change conflicts with what is stored."

    def __init__(self, fields: Sequence[str] = (), *, constraint: str | None = None, table: str | None = None) -> None:
        super().__init__(describe(self.code, fields, table=table, constraint=constraint))
        self.fields = tuple(fields)
        self.constraint = constraint
        self.table = table

    @property
    def errors(self) -> Sequence[FieldError]:
        """One entry for each field of the constraint."""
        message = FIELD_MESSAGES.get(self.code, FIELD_MESSAGES["conflict"])
        return tuple(FieldError((field,), self.code, message) for field in self.fields)


class StaleVersionError(ConflictError):
    """The row is at version *found*, not at *expected*. *found* is None if the version is unknown or the row does not exist."""

    code = "stale_version"
    detail = "The resource has been changed since it was read."

    def __init__(self, *, expected: int, found: int | None = None) -> None:
        super().__init__()
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"expected version {self.expected}, found {self.found}"


class StillReferencedError(ConflictError):
    """Rows of another table reference this one."""

    code = "still_referenced"
    detail = "Other resources still refer to this one."


class InvalidDataError(KitError):
    """The values of *fields* cannot be stored.

    *reason* is a word for machines. The library uses ``null``, ``check``, ``too_long``, ``out_of_range``, ``invalid_text``,
    ``wrong_type``, ``too_deep``, ``naive_datetime``, ``read_only``, ``unknown_field``, ``unknown_reference`` and ``invalid``.
    """

    code = "invalid_data"
    detail = "The values cannot be stored."

    def __init__(self, fields: Sequence[str] = (), *, reason: str = "invalid", table: str | None = None) -> None:
        super().__init__(describe(reason, fields, table=table))
        self.fields = tuple(fields)
        self.reason = reason
        self.table = table

    @property
    def errors(self) -> Sequence[FieldError]:
        """One entry for each of *fields*. Its code is *reason*."""
        message = FIELD_MESSAGES.get(self.reason, FIELD_MESSAGES["invalid"])
        return tuple(FieldError((field,), self.reason, message) for field in self.fields)


class UnknownReferenceError(InvalidDataError):
    """A foreign key among *fields* references no row. *precise* is False if the database does not say which of them."""

    code = "unknown_reference"
    detail = "A resource that is referred to does not exist."

    def __init__(self, fields: Sequence[str] = (), *, table: str | None = None, precise: bool = True) -> None:
        super().__init__(fields, reason=self.code, table=table)
        self.precise = precise


class UserInputError(KitError, ValueError):
    """The input is wrong. *message* is sent to the client.

    Raise it in your application instead of a bare ValueError.
    """

    code = "invalid_input"

    def __init__(self, message: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.detail = message
        self._errors = tuple(errors)

    @property
    def errors(self) -> Sequence[FieldError]:
        """The entries that were given."""
        return self._errors


class InvalidQueryError(UserInputError):
    """A filter, search or sort is unknown or malformed. *allowed* lists what is allowed; it is sent to the client."""

    code = "invalid_query"

    def __init__(self, message: str, *, allowed: Sequence[str] = (), errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message, errors=errors)
        self.allowed = tuple(allowed)


class PreconditionFailedError(KitError):
    """The resource is not as *header* of the request expects it."""

    code = "precondition_failed"
    detail = "The resource is not as the request expects it."

    def __init__(self, header: str) -> None:
        super().__init__(f"{header} does not hold")
        self.header = header


class PreconditionRequiredError(KitError):
    """The request needs *header*, with an ETag in it."""

    code = "precondition_required"
    detail = "The request needs an If-Match header with the ETag of the resource."

    def __init__(self, header: str) -> None:
        super().__init__(f"{header} is required")
        self.header = header


class AuthenticationError(KitError):
    """The caller is not known."""

    code = "not_authenticated"
    detail = "Not authenticated."


class InvalidCredentialsError(AuthenticationError):
    """The login failed. Does not say why."""

    code = "invalid_credentials"
    detail = "The credentials are not valid."


class SecondFactorRequiredError(AuthenticationError):
    """The password is right, and the login needs a code of the second factor.

    *challenge_token* is to be sent with the code, within *expires_in* seconds. The client gets both. ``str(error)`` hides the token.
    """

    code = "second_factor_required"
    detail = "A code of the second factor is needed."

    def __init__(self, challenge_token: str, *, expires_in: int) -> None:
        super().__init__("a code of the second factor is needed")
        self.challenge_token = challenge_token
        self.expires_in = expires_in


class InvalidTokenError(AuthenticationError):
    """The token is not accepted. *reason* is for logs and tests and is never sent."""

    code = "invalid_token"
    detail = "The token is not valid."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PermissionDeniedError(KitError):
    """The caller is not allowed to do this. *message* is for logs."""

    code = "permission_denied"
    detail = "Not allowed."

    def __init__(self, message: str = "not allowed") -> None:
        super().__init__(message)


class CrossSiteRequestError(PermissionDeniedError):
    """A request with cookies may have been made by a page of another site. *detail* says what it must send; it is sent to the client."""

    code = "cross_site_request"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InsufficientScopeError(PermissionDeniedError):
    """The token does not have all of *scopes*."""

    code = "insufficient_scope"
    detail = "The token does not allow this."

    def __init__(self, scopes: frozenset[str]) -> None:
        super().__init__(f"the token does not have all of {', '.join(sorted(scopes))}")
        self.scopes = scopes


class ImpersonatedError(PermissionDeniedError):
    """Only the user may do this, and the token is that of another user who acts as the user."""

    code = "impersonated"
    detail = "Not allowed while you act as another user."

    def __init__(self) -> None:
        super().__init__("the token has an actor")


class RateLimitedError(KitError):
    """Too many attempts. The client may try again in *retry_after* seconds.

    *limit* attempts in *window* seconds are allowed. Both are sent to the client; leave them out if it must not know them.
    """

    code = "rate_limited"
    detail = "Too many requests. Try again later."

    def __init__(self, retry_after: float, *, limit: int | None = None, window: float | None = None) -> None:
        super().__init__("too many attempts")
        self.retry_after = retry_after
        self.limit = limit
        self.window = window


class UnavailableError(KitError):
    """*service* cannot answer now. The client may try again in *retry_after* seconds."""

    code = "unavailable"
    detail = "The service cannot answer now. Try again later."

    def __init__(self, service: str, *, retry_after: float = 1.0) -> None:
        super().__init__(f"{service} is unavailable")
        self.service = service
        self.retry_after = retry_after


class ConfigurationError(KitError, RuntimeError):
    """The application's code is wrong."""

    code = "configuration"


class NotLoadedError(ConfigurationError):
    """*attribute* of *model* was read, but the query did not load it."""

    def __init__(self, model: type[object], attribute: str) -> None:
        super().__init__(f"{model.__name__}.{attribute} was not loaded: add a loader option for it in read_options()")
        self.model = model
        self.attribute = attribute


class MissingExtraError(ConfigurationError, ImportError):
    """*extra* is not installed. The text is the command that installs it."""

    def __init__(self, extra: str) -> None:
        super().__init__(f"pip install 'fastapi-kit-blocks[{extra}]'")
        self.extra = extra


FIELD_MESSAGES = {
    "conflict": "is already taken",
    "still_referenced": "is still referenced",
    "null": "must not be null",
    "check": "is not allowed",
    "too_long": "is too long",
    "out_of_range": "is out of range",
    "invalid_text": "has characters that cannot be stored",
    "wrong_type": "has the wrong type",
    "too_deep": "is nested too deeply",
    "naive_datetime": "needs a time zone",
    "read_only": "cannot be changed",
    "unknown_field": "is not known",
    "unknown_reference": "does not exist",
    "invalid": "is not valid",
}


def describe(reason: str, fields: Sequence[str], *, table: str | None, constraint: str | None = None) -> str:
    """Return a text for logs: ``conflict in email of users (uq_users_email)``."""
    text = reason.replace("_", " ")
    if fields:
        text += f" in {', '.join(fields)}"
    if table:
        text += f" of {table}"
    return f"{text} ({constraint})" if constraint else text
