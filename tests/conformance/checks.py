"""Checks beside schemathesis's own. ``st`` loads the module as its ``hooks``."""

import schemathesis
from schemathesis import Case, CheckContext, Response

__all__ = ["documented_status", "error_is_a_problem"]

_OF_THE_FRAMEWORK = {404, 405}
"""Answers of a path or a method that no operation has."""


@schemathesis.check
def documented_status(ctx: CheckContext, response: Response, case: Case) -> None:
    """status_code_conformance lets everything pass where an operation has a ``default`` answer: each status must stand there itself."""
    documented = {*map(str, case.operation.responses.status_codes)} - {"default"}
    status = response.status_code
    assert str(status) in documented or status in _OF_THE_FRAMEWORK, f"{status} is documented as default only, beside {sorted(documented)}"


@schemathesis.check
def error_is_a_problem(ctx: CheckContext, response: Response, case: Case) -> None:
    """Every error has the one body (RFC 9457), also where schemathesis calls a method that is not documented."""
    if response.status_code >= 400 and response.request.method != "HEAD":
        kind = response.headers.get("content-type", [""])[0]
        assert kind == "application/problem+json", f"{response.status_code} is {kind or 'nothing'}"
        assert response.json()["status"] == response.status_code
