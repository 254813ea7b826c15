"""Health checks for load balancers and orchestrators."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal, TypeAlias

from fastapi import APIRouter, FastAPI, Response
from pydantic import BaseModel
from starlette.types import Scope

from fastapi_kit._signals import noticed_termination
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.middleware.routes import app_path

__all__ = ["PROBE_PATHS", "HealthCheck", "HealthReport", "health_router", "is_probe"]

PROBE_PATHS = ("/livez", "/readyz", "/health")

_logger = logging.getLogger(__name__)

Result: TypeAlias = Literal["ok", "failed", "timeout"]


@dataclass(frozen=True)
class HealthCheck:
    """A check of something that the app needs, such as the database.

    Args:
        name: Its name in the report.
        check: Is awaited. It raises if something is wrong, as ``db.ping`` does.
        critical: Whether the app is unready (503) if the check fails.
        timeout: Seconds until the check is given up.
    """

    name: str
    check: Callable[[], Awaitable[object]]
    critical: bool = True
    timeout: float = 2.0
    _given_up: set[asyncio.Task[Result]] = field(default_factory=set[asyncio.Task[Result]], init=False, repr=False, compare=False)

    async def run(self) -> Result:
        """Return the result. The class of an error is logged; its text is neither logged nor sent."""
        task = asyncio.create_task(self._run_check())
        try:
            done, _ = await asyncio.wait({task}, timeout=self.timeout)
            if done:
                # The check may have been cancelled by what it waited for.
                return "failed" if task.cancelled() else task.result()
            return "timeout"
        finally:
            if not task.done():
                # Not awaited, because closing a connection to a frozen server takes seconds.
                self._given_up.add(task)
                task.add_done_callback(self._given_up.discard)
                task.cancel()

    async def _run_check(self) -> Result:
        try:
            await self.check()
        except TimeoutError:
            return "timeout"
        except Exception as error:
            _logger.warning("Health check %s failed: %s", self.name, type(error).__name__)
            return "failed"
        return "ok"


class HealthReport(BaseModel):
    """The answer of ``/health`` and ``/readyz``."""

    status: Literal["healthy", "degraded", "unhealthy"]
    """``degraded`` means that only checks fail which are not critical."""
    version: str
    checks: dict[str, Result]


def health_router(*, version: str, checks: Sequence[HealthCheck] = (), cache_seconds: float = 1.0, drain_seconds: float = 0.0) -> APIRouter:
    """Build the routes ``/livez``, ``/readyz`` and ``/health``, for GET and HEAD. They are not in the OpenAPI document.

    ``/livez`` runs no checks. The others run all checks at once and answer 503 if a critical one fails, or if the app is stopping.

    The app is stopping from SIGTERM on. A load balancer sees the 503 and sends no more requests, while the app still serves. A second
    SIGTERM ends the wait. Under gunicorn's ``asgi`` worker, which handles signals in the event loop, there is no wait.

    Args:
        version: The version in the report.
        checks: The checks. Each has a name of its own.
        cache_seconds: The checks run at most once in this time, however many requests come.
        drain_seconds: Seconds between SIGTERM and the shutdown of the server.

    Raises:
        ConfigurationError: Two checks have the same name.

    Example:
        ```python
        from fastapi import FastAPI

        from fastapi_kit import Database, health_router
        from fastapi_kit.health import HealthCheck

        db = Database("sqlite:///:memory:")
        app = FastAPI()
        app.include_router(health_router(version="1.0.0", checks=[HealthCheck("database", db.ping)]))
        ```
    """
    if len({check.name for check in checks}) < len(checks):
        raise ConfigurationError("two health checks have the same name")
    health = Health(version, checks, cache_seconds, drain_seconds)
    router = APIRouter(lifespan=health.lifespan, include_in_schema=False)
    router.add_api_route("/livez", livez, methods=_PROBES)
    router.add_api_route("/readyz", health.answer, methods=_PROBES, name="readyz", response_model=HealthReport)
    router.add_api_route("/health", health.answer, methods=_PROBES, name="health", response_model=HealthReport)
    return router


_PROBES = ["GET", "HEAD"]


def is_probe(scope: Scope) -> bool:
    """Return whether *scope* is a health check of the app itself, not of a mounted one: ``FastAPI(telemetry={"exclude": is_probe})``."""
    return scope["type"] == "http" and app_path(scope) in PROBE_PATHS


async def livez(response: Response) -> dict[str, str]:
    """Answer 200 as long as the process serves."""
    response.headers["Cache-Control"] = "no-store"
    return {"status": "alive"}


class Health:
    """The state of an app: its checks, their last report, and whether it is stopping."""

    def __init__(self, version: str, checks: Sequence[HealthCheck], cache_seconds: float, drain_seconds: float) -> None:
        self.version = version
        self.checks = checks
        self.cache_seconds = cache_seconds
        self.drain_seconds = drain_seconds
        self.is_stopping = False
        self.run: asyncio.Task[HealthReport] | None = None
        self.expires = 0.0

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncGenerator[None, None]:
        """Note SIGTERM, and the end."""
        self.is_stopping = False
        with noticed_termination(self.stop, delay=self.drain_seconds):
            yield
        self.stop()

    def stop(self) -> None:
        """Answer 503 from now on."""
        self.is_stopping = True

    async def answer(self, response: Response) -> HealthReport:
        """Answer ``/readyz`` and ``/health``. Requests that come meanwhile share one run of the checks."""
        run = self.run
        # A run of another event loop would never end here.
        if run is None or run.get_loop() is not asyncio.get_running_loop() or (run.done() and monotonic() >= self.expires):
            run = self.run = asyncio.create_task(self.run_checks())
        report = await asyncio.shield(run)
        if self.is_stopping:
            report = report.model_copy(update={"status": "unhealthy"})
        response.status_code = 503 if report.status == "unhealthy" else 200
        response.headers["Cache-Control"] = "no-store"
        return report

    async def run_checks(self) -> HealthReport:
        """Run all checks at once."""
        results = await asyncio.gather(*(check.run() for check in self.checks))
        failed = [check for check, result in zip(self.checks, results, strict=True) if result != "ok"]
        status: Literal["healthy", "degraded", "unhealthy"] = "degraded" if failed else "healthy"
        if any(check.critical for check in failed):
            status = "unhealthy"
        self.expires = monotonic() + self.cache_seconds
        names = [check.name for check in self.checks]
        return HealthReport(status=status, version=self.version, checks=dict(zip(names, results, strict=True)))
