"""Status, code, text and headers of the library's errors."""

import pytest
from tests.handlers.apps import AppError, OutOfStockError, answer_to

from fastapi_kit.errors import (
    AuthenticationError,
    ConflictError,
    FieldError,
    ImpersonatedError,
    InsufficientScopeError,
    InvalidCredentialsError,
    InvalidDataError,
    InvalidQueryError,
    InvalidTokenError,
    MultipleMatchesError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    StaleVersionError,
    StillReferencedError,
    UnavailableError,
    UnknownReferenceError,
    UserInputError,
)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFoundError(dict, 7), 404, "not_found"),
        (MultipleMatchesError(dict, ["name"]), 409, "multiple_matches"),
        (ConflictError(["email"]), 409, "conflict"),
        (StaleVersionError(expected=1, found=2), 409, "stale_version"),
        (StillReferencedError(["id"]), 409, "still_referenced"),
        (InvalidDataError(["age"], reason="out_of_range"), 422, "invalid_data"),
        (UnknownReferenceError(["author_id"]), 422, "unknown_reference"),
        (UserInputError("sold in sixes"), 422, "invalid_input"),
        (InvalidQueryError("unknown filter"), 422, "invalid_query"),
        (AuthenticationError(), 401, "not_authenticated"),
        (InvalidCredentialsError(), 401, "invalid_credentials"),
        (InvalidTokenError("expired"), 401, "invalid_token"),
        (PermissionDeniedError(), 403, "permission_denied"),
        (InsufficientScopeError(frozenset({"a"})), 403, "insufficient_scope"),
        (ImpersonatedError(), 403, "impersonated"),
        (RateLimitedError(7), 429, "rate_limited"),
        (UnavailableError("database"), 503, "unavailable"),
    ],
)
async def test_an_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    """Every error has the members of RFC 9457, its code and a text, and no empty member."""
    response = await answer_to(error)
    body = response.json()

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert isinstance(body["detail"], str)
    assert isinstance(body["title"], str)
    assert None not in body.values()


async def test_the_text_for_logs_is_not_sent() -> None:
    """The client gets the fixed text of the code, not str(error), which names the key."""
    response = await answer_to(NotFoundError(dict, "4711-secret"))

    assert response.json()["detail"] == "There is nothing here."
    assert "4711" not in response.text


async def test_a_declared_text_is_sent() -> None:
    """The text of a UserInputError is sent."""
    assert (await answer_to(UserInputError("sold in sixes"))).json()["detail"] == "sold in sixes"


async def test_invalid_fields_are_named() -> None:
    """A conflict and a UserInputError name their fields."""
    conflict = await answer_to(ConflictError(["email"]))
    refused = await answer_to(UserInputError("no", errors=[FieldError(("body", "lines", 0), "not_a_six", "must be six")]))

    assert conflict.json()["errors"] == [{"loc": ["email"], "code": "conflict", "message": "is already taken"}]
    assert refused.json()["errors"] == [{"loc": ["body", "lines", 0], "code": "not_a_six", "message": "must be six"}]


async def test_a_rejected_query_shows_what_is_allowed() -> None:
    """An InvalidQueryError shows the allowed names."""
    response = await answer_to(InvalidQueryError("unknown sort key", allowed=["name", "age"]))

    assert response.json()["context"] == {"allowed": ["name", "age"]}


async def test_a_stale_version_is_a_412_after_if_match() -> None:
    """With If-Match the status of a StaleVersionError is 412 (RFC 9110, 13.1.1)."""
    response = await answer_to(StaleVersionError(expected=1), headers={"If-Match": '"1"'})

    assert (response.status_code, response.json()["status"]) == (412, 412)


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        (AuthenticationError(), "Bearer"),
        (InvalidCredentialsError(), "Bearer"),
        (InvalidTokenError("expired"), 'Bearer error="invalid_token"'),
        (InsufficientScopeError(frozenset({"b", "a"})), 'Bearer error="insufficient_scope", scope="a b"'),
    ],
)
async def test_a_401_has_a_challenge(error: Exception, challenge: str) -> None:
    """R21, R22, R23: WWW-Authenticate says what is wrong with the token (RFC 6750, 3), and no more."""
    response = await answer_to(error)

    assert response.headers["www-authenticate"] == challenge
    assert "expired" not in response.text


@pytest.mark.parametrize(("given", "sent"), [(0.2, "1"), (1.0, "1"), (59.5, "60")])
async def test_retry_after_has_whole_seconds(given: float, sent: str) -> None:
    """Retry-After has whole seconds, rounded up."""
    for error in (UnavailableError("x", retry_after=given), RateLimitedError(given)):
        assert (await answer_to(error)).headers["retry-after"] == sent


async def test_a_limit_is_sent_if_it_is_given() -> None:
    """A 429 shows the limit if the error has it, and only Retry-After if not."""
    shown = await answer_to(RateLimitedError(6.5, limit=10, window=60))
    hidden = await answer_to(RateLimitedError(6.5))

    assert shown.headers["ratelimit-policy"] == '"10-in-60";q=10;w=60'
    assert shown.headers["ratelimit"] == '"10-in-60";r=0;t=7'
    assert not [name for name in hidden.headers if name.startswith("ratelimit")]


async def test_an_error_of_the_application_gets_its_status() -> None:
    """*statuses* sets the status of an application's error; only a KitError shows its code and text."""
    own = await answer_to(OutOfStockError("left: 12"), statuses={OutOfStockError: 409})
    foreign = await answer_to(AppError("secret"), statuses={AppError: 402})

    assert (own.status_code, own.json()["code"], own.json()["detail"]) == (409, "out_of_stock", "We have only 12 of these.")
    assert (foreign.status_code, foreign.json()["code"], foreign.json()["detail"]) == (402, "payment_required", "Payment Required")


async def test_an_application_may_change_a_status() -> None:
    """*statuses* wins over the status of the library."""
    assert (await answer_to(ConflictError(), statuses={ConflictError: 422})).status_code == 422


async def test_an_unknown_field_of_a_service_is_shown_if_it_looks_like_a_name() -> None:
    """The name of an unknown field from an open schema is shown only if it looks like a name."""
    response = await answer_to(InvalidDataError(["colour", "my secret"], reason="unknown_field"))

    assert [item["loc"] for item in response.json()["errors"]] == [["colour"], ["*"]]


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -3.0, 0.0])
async def test_retry_after_is_at_least_one(seconds: float) -> None:
    """Retry-After is at least one second, also for infinity and NaN."""
    for error in (UnavailableError("x", retry_after=seconds), RateLimitedError(seconds)):
        assert (await answer_to(error)).headers["retry-after"] == "1"


async def test_scopes_cannot_break_the_challenge() -> None:
    """Only tokens of RFC 6749, 3.3 are in the scope of a challenge."""
    response = await answer_to(InsufficientScopeError(frozenset({"read", 'a"b', "lösen→"})))

    assert response.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="read"'
