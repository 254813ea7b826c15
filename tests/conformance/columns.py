"""The checks, for apps that reject what their schemas allow.

A column takes less than the schema says: ``title: str`` in a schema, NOT NULL and no NUL in the column. Or there are rules that no JSON
schema can state: a password that is not common, a reference to something that exists, a domain that is not for special use, a sort that
names each key once.
"""

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData
from tests.conformance import checks

__all__ = ["checks", "filter_failure"]


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """Let columns and such rules reject what the schema of the application allows, and nothing else.

    positive_data_acceptance takes a schema for the whole truth. For HTTP it is not: 422 is the answer to content that is well formed and
    yet cannot be processed (RFC 9110, 15.5.21), and the operations document it. So it may stand, with the codes of just these cases.
    """
    return not (isinstance(failure, RejectedPositiveData) and _is_such_a_rule(response))


_CODES = {"invalid_data", "unknown_reference", "invalid_input"}
_FIELD_CODES = {"email", "invalid_sort"}


def _is_such_a_rule(response: Response) -> bool:
    if response.status_code != 422:
        return False
    problem = response.json()
    return problem["code"] in _CODES or set() < {error["code"] for error in problem.get("errors", [])} <= _FIELD_CODES
