"""The checks, for lists: no JSON schema can state that ``sort`` takes each name once, or which cursors a list has made."""

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData
from tests.conformance import checks

__all__ = ["checks", "filter_failure"]

_CODES = {"invalid_sort", "invalid_cursor"}


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """Let lists reject such a sort and such a cursor with 422, and nothing else that their schema allows."""
    return not (isinstance(failure, RejectedPositiveData) and response.status_code == 422 and _codes(response) <= _CODES)


def _codes(response: Response) -> set[str]:
    return {error["code"] for error in response.json().get("errors", [])} or {"none"}
