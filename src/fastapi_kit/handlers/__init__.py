"""Turn errors into responses: statuses, and one error body."""

from fastapi_kit.handlers.answers import STATUSES
from fastapi_kit.handlers.openapi import problem_responses
from fastapi_kit.handlers.problems import ErrorBody, Problem, ProblemItem, legacy_body, problem_body
from fastapi_kit.handlers.registrars import (
    problem_response,
    register_exception_handlers,
    register_http_error_handler,
    register_integrity_error_handler,
    register_kit_error_handler,
    register_unavailable_error_handler,
    register_unhandled_error_handler,
    register_validation_error_handler,
    register_value_error_handler,
)

__all__ = [
    "STATUSES",
    "ErrorBody",
    "Problem",
    "ProblemItem",
    "legacy_body",
    "problem_body",
    "problem_response",
    "problem_responses",
    "register_exception_handlers",
    "register_http_error_handler",
    "register_integrity_error_handler",
    "register_kit_error_handler",
    "register_unavailable_error_handler",
    "register_unhandled_error_handler",
    "register_validation_error_handler",
    "register_value_error_handler",
]
