"""Pure ASGI middleware, one class for each module. Options are fields, so type checkers check ``app.add_middleware``."""

from fastapi_kit.middleware.access_log import AccessLogMiddleware
from fastapi_kit.middleware.body_limit import BodyLimitMiddleware
from fastapi_kit.middleware.errors import UnhandledErrorMiddleware
from fastapi_kit.middleware.request_id import RequestIdMiddleware, get_request_id
from fastapi_kit.middleware.security_headers import SecurityHeadersMiddleware
from fastapi_kit.middleware.server_timing import ServerTimingMiddleware, timed

__all__ = [
    "AccessLogMiddleware",
    "BodyLimitMiddleware",
    "RequestIdMiddleware",
    "SecurityHeadersMiddleware",
    "ServerTimingMiddleware",
    "UnhandledErrorMiddleware",
    "get_request_id",
    "timed",
]
