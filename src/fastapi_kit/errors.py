"""The errors of the library: data and a machine code, no HTTP.

KitError
├── NotFoundError                 no such row
├── MultipleMatchesError          one row was asked for, several match
├── ConflictError                 a unique or exclusion constraint refused the write
│   ├── StaleVersionError         the row is no longer at the version the caller expected
│   └── StillReferencedError      other rows point at this one
├── InvalidDataError              the database would refuse the values: null, check, length, range
│   └── UnknownReferenceError     a foreign key points at no row
├── UserInputError                the caller's input is wrong; its text may be shown (also a ValueError)
│   └── InvalidQueryError         unknown or malformed filter, sort or search
│       └── InvalidCursorError    damaged, forged or foreign page cursor
├── PreconditionRequiredError     a conditional header or key is required and absent
├── AuthenticationError           nobody, or nobody valid
│   ├── InvalidCredentialsError   wrong login, one error for every reason
│   └── InvalidTokenError         bad, expired, revoked or wrong kind of token
├── PermissionDeniedError         somebody, but not allowed
│   └── InsufficientScopeError    the token does not allow this
├── RateLimitedError              too many attempts
├── UnavailableError              database, pool, lock or Redis: worth a retry
└── ConfigurationError            a mistake in the host's code, never the client's (also a RuntimeError)
    ├── ScopeNotBoundError        a scoped model was used and no scope is bound to the session
    ├── UnboundedWriteError       a bulk write without a condition
    ├── NotLoadedError            an attribute was read that the query did not load
    └── MissingExtraError         an optional package is absent; names the install command (also an ImportError)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "AuthenticationError",
    "ConfigurationError",
    "ConflictError",
    "FieldError",
    "InsufficientScopeError",
    "InvalidCredentialsError",
    "InvalidCursorError",
    "InvalidDataError",
    "InvalidQueryError",
    "InvalidTokenError",
    "KitError",
    "MissingExtraError",
    "MultipleMatchesError",
    "NotFoundError",
    "NotLoadedError",
    "PermissionDeniedError",
    "PreconditionRequiredError",
    "RateLimitedError",
    "ScopeNotBoundError",
    "StaleVersionError",
    "StillReferencedError",
    "UnavailableError",
    "UnboundedWriteError",
    "UnknownReferenceError",
    "UserInputError",
]


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field, without the value that was sent.

    *loc* is the path to the field, *code* is for machines, *message* for people.
    """

    loc: tuple[str | int, ...]
    code: str
    message: str


class KitError(Exception):
    """Base of all errors of the library. Subclass it in the host and give it a *code*.

    ``str(error)`` is for logs and is never sent to a client.
    """

    code: ClassVar[str] = "error"
    """For machines; stays the same when texts change."""
    detail: str | None = None
    """Text that is safe to send; None sends a fixed one for the code."""

    @property
    def errors(self) -> Sequence[FieldError]:
        """One entry per field at fault; empty where no field is known."""
        return ()


class NotFoundError(KitError):
    """No row of *model* has the key *ident*."""

    code = "not_found"

    def __init__(self, model: type[object], ident: object) -> None:
        super().__init__(f"{model.__name__} {ident!r} does not exist")
        self.model = model
        self.ident = ident


class MultipleMatchesError(KitError):
    """More than one row of *model* matches *fields*."""

    code = "multiple_matches"

    def __init__(self, model: type[object], fields: Sequence[str]) -> None:
        super().__init__(f"more than one {model.__name__} has the given {_names(fields)}")
        self.model = model
        self.fields = tuple(fields)


class ConflictError(KitError):
    """A constraint over *fields* refused the write."""

    code = "conflict"

    def __init__(self, fields: Sequence[str] = (), *, constraint: str | None = None, table: str | None = None) -> None:
        super().__init__(_write_text(self.code, fields, constraint=constraint, table=table))
        self.fields = tuple(fields)
        self.constraint = constraint
        self.table = table

    @property
    def errors(self) -> Sequence[FieldError]:
        """One entry per field of the constraint."""
        message = _FIELD_MESSAGES.get(self.code, _FIELD_MESSAGES["conflict"])
        return tuple(FieldError((field,), self.code, message) for field in self.fields)


class StaleVersionError(ConflictError):
    """The row is at version *found* (None: unknown or gone), not at *expected*."""

    code = "stale_version"

    def __init__(self, *, expected: int, found: int | None = None) -> None:
        super().__init__()
        self.args = (f"expected version {expected}, found {'none' if found is None else found}",)
        self.expected = expected
        self.found = found


class StillReferencedError(ConflictError):
    """Rows of another table still point at this one."""

    code = "still_referenced"


class InvalidDataError(KitError):
    """The database refuses values of *fields*; *reason* says why, for machines.

    Reasons of the library: ``null``, ``check``, ``too_long``, ``out_of_range``, ``invalid_text``, ``wrong_type``, ``too_deep``,
    ``naive_datetime``, ``read_only``, ``unknown_field``, ``unknown_reference`` and ``invalid``.
    """

    code = "invalid_data"

    def __init__(self, fields: Sequence[str] = (), *, reason: str = "invalid", table: str | None = None) -> None:
        super().__init__(_write_text(reason, fields, table=table))
        self.fields = tuple(fields)
        self.reason = reason
        self.table = table

    @property
    def errors(self) -> Sequence[FieldError]:
        """One entry per field at fault, its code the *reason*."""
        message = _FIELD_MESSAGES.get(self.reason, _FIELD_MESSAGES["invalid"])
        return tuple(FieldError((field,), self.reason, message) for field in self.fields)


class UnknownReferenceError(InvalidDataError):
    """A foreign key among *fields* points at no row; not *precise*: the database did not say which."""

    code = "unknown_reference"

    def __init__(self, fields: Sequence[str] = (), *, table: str | None = None, precise: bool = True) -> None:
        super().__init__(fields, reason="unknown_reference", table=table)
        self.precise = precise


class UserInputError(KitError, ValueError):
    """Input is wrong and *message* may be shown to the client. Raise it in host code instead of a bare ValueError."""

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
    """A filter, search or sort is unknown or malformed; *allowed* names what is not."""

    code = "invalid_query"

    def __init__(self, message: str, *, allowed: Sequence[str] = (), errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message, errors=errors)
        self.allowed = tuple(allowed)


class InvalidCursorError(InvalidQueryError):
    """A page cursor is damaged, forged, or belongs to another list, sort or filter."""

    code = "invalid_cursor"


class PreconditionRequiredError(KitError):
    """The request must carry *header*."""

    code = "precondition_required"

    def __init__(self, header: str) -> None:
        super().__init__(f"the request must carry {header}")
        self.header = header


class AuthenticationError(KitError):
    """No caller could be established."""

    code = "not_authenticated"


class InvalidCredentialsError(AuthenticationError):
    """The login failed. Says nothing about why."""

    code = "invalid_credentials"


class InvalidTokenError(AuthenticationError):
    """The token is refused; *reason* is for logs and tests and never sent."""

    code = "invalid_token"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PermissionDeniedError(KitError):
    """The caller may not do this. *message* is for logs."""

    code = "permission_denied"

    def __init__(self, message: str = "not allowed") -> None:
        super().__init__(message)


class InsufficientScopeError(PermissionDeniedError):
    """The token does not have all of *scopes*."""

    code = "insufficient_scope"

    def __init__(self, scopes: frozenset[str]) -> None:
        super().__init__(f"the token does not have all of {_names(sorted(scopes))}")
        self.scopes = scopes


class RateLimitedError(KitError):
    """Too many attempts; try again in *retry_after* seconds."""

    code = "rate_limited"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many attempts, try again in {retry_after:g} s")
        self.retry_after = retry_after


class UnavailableError(KitError):
    """*service* cannot answer now; try again in *retry_after* seconds."""

    code = "unavailable"

    def __init__(self, service: str, *, retry_after: float = 1.0) -> None:
        super().__init__(f"{service} is unavailable")
        self.service = service
        self.retry_after = retry_after


class ConfigurationError(KitError, RuntimeError):
    """The host's code is at fault."""

    code = "configuration"


class ScopeNotBoundError(ConfigurationError):
    """*model* is scoped and the session has no value for it."""

    def __init__(self, model: type[object], attribute: str) -> None:
        super().__init__(f"{model.__name__} is scoped by {attribute}: bind a value to the session, or bypass the scope")
        self.model = model
        self.attribute = attribute


class UnboundedWriteError(ConfigurationError):
    """A bulk write would touch every row of *model*; pass ``all_rows=True`` to mean it."""

    def __init__(self, model: type[object]) -> None:
        super().__init__(f"no condition: this would touch every {model.__name__}; pass all_rows=True to mean it")
        self.model = model


class NotLoadedError(ConfigurationError):
    """*attribute* of *model* was read and the query did not load it."""

    def __init__(self, model: type[object], attribute: str) -> None:
        super().__init__(f"{model.__name__}.{attribute} was not loaded: add a loader option for it in read_options()")
        self.model = model
        self.attribute = attribute


class MissingExtraError(ConfigurationError, ImportError):
    """*extra* is not installed; the text is the command that installs it."""

    def __init__(self, extra: str) -> None:
        super().__init__(f"pip install 'fastapi-kit-blocks[{extra}]'")
        self.extra = extra


_FIELD_MESSAGES = {
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


def _names(fields: Sequence[str]) -> str:
    return ", ".join(fields)


def _write_text(reason: str, fields: Sequence[str], *, constraint: str | None = None, table: str | None = None) -> str:
    parts = [reason.replace("_", " ")]
    if fields:
        parts.append(f"in {_names(fields)}")
    if table:
        parts.append(f"of {table}")
    if constraint:
        parts.append(f"({constraint})")
    return " ".join(parts)
