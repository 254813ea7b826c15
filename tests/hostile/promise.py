"""What every answer to every request must be, whatever was sent."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.hostile.asgi import Answer

__all__ = ["CANARY", "broken", "verdict"]

CANARY = "hunter2canary"
"""Put into values, names, paths and headers: it may come back as the name of an unknown field, and nowhere else."""
MOST_BYTES = 100_000
LONGEST_NAME = 100
_MEMBERS = {"type": str, "title": str, "status": int, "detail": str, "code": str}
_UNKNOWN = {"extra_forbidden", "unknown_field", "unknown_parameter"}
_OPTIONAL = {"instance", "request_id", "errors", "context"}


def verdict(answer: Answer) -> tuple[int, str]:
    """Return the status, and the code of a problem."""
    return answer.status, str(json.loads(answer.body).get("code")) if answer.status >= 400 and _is_problem(answer) else ""


def broken(answer: Answer) -> Iterator[str]:
    """Yield which promises this answer breaks."""
    if answer.error is not None:
        yield f"{type(answer.error).__name__} left the app: {str(answer.error)[:200]}"
    if not 200 <= answer.status < 500:
        yield f"status {answer.status}"
        return
    if answer.status < 400:
        yield from _broken_success(answer)
        return
    if not _is_problem(answer):
        yield f"{answer.status} is {answer.header(b'content-type').decode()}: {answer.body[:100]!r}"
        return
    yield from _broken_problem(answer)


def _broken_success(answer: Answer) -> Iterator[str]:
    if answer.header(b"content-type") == b"application/json" and answer.body:
        try:
            _parse(answer.body)
        except ValueError as error:
            yield f"the body is no JSON: {error}"


def _broken_problem(answer: Answer) -> Iterator[str]:
    try:
        problem = _parse(answer.body)
    except (ValueError, RecursionError) as error:
        yield f"the problem is no JSON: {error}"
        return
    if wrong := [name for name, kind in _MEMBERS.items() if type(problem.get(name)) is not kind]:
        yield f"members are wrong or missing: {wrong}"
    if more := problem.keys() - _MEMBERS.keys() - _OPTIONAL:
        yield f"members too many: {more}"
    if problem.get("status") != answer.status:
        yield f"the body says {problem.get('status')}, the status line {answer.status}"
    if answer.header(b"content-length") != str(len(answer.body)).encode():
        yield f"content-length {answer.header(b'content-length')!r} of {len(answer.body)} bytes"
    if len(answer.body) > MOST_BYTES:
        yield f"{len(answer.body)} bytes"
    names = _take_unknown_names(problem)
    if any(len(name) > LONGEST_NAME for name in names):
        yield f"a name of {max(map(len, names))} characters"
    if _holds_canary(json.dumps(problem)) or _holds_canary(repr(answer.headers)):
        yield f"it repeats what was sent: {json.dumps(problem)[:300]} {answer.headers}"


def _is_problem(answer: Answer) -> bool:
    return answer.header(b"content-type") == b"application/problem+json"


def _parse(body: bytes) -> Any:
    return json.loads(body.decode("utf-8"), parse_constant=_reject_constant)


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _take_unknown_names(problem: dict[str, Any]) -> Sequence[str]:
    unknown = [item for item in problem.get("errors", []) if item.get("code") in _UNKNOWN]
    return [name for item in unknown for name in item.pop("loc") if isinstance(name, str)]


def _holds_canary(text: str) -> bool:
    return CANARY in text.lower()
