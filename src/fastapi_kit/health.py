"""Probes."""

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

_Result: TypeAlias = Literal["ok", "failed", "timeout"]


@dataclass(frozen=True)
class HealthCheck:
    """One thing the app stands on: *check* raises if it is not well (``db.ping``). Only *critical* ones make the app unready.

    It is given up after *timeout* seconds.
    """

    name: str
    check: Callable[[], Awaitable[object]]
    critical: bool = True
    timeout: float = 2.0
    _given_up: set[asyncio.Task[_Result]] = field(default_factory=set[asyncio.Task[_Result]], init=False, repr=False, compare=False)

    async def run(self) -> _Result:
        """Return how it went; why it failed is only logged, by kind."""
        task = asyncio.create_task(self._run_check())
        try:
            done, _ = await asyncio.wait({task}, timeout=self.timeout)
        except asyncio.CancelledError:
            self._give_up(task)
            raise
        if done:
            # Cancelled by itself: it has waited for something that was.
            return "failed" if task.cancelled() else task.result()
        self._give_up(task)
        return "timeout"

    async def _run_check(self) -> _Result:
        try:
            await self.check()
        except TimeoutError:
            return "timeout"
        except Exception as error:
            _logger.warning("Health check %s failed: %s", self.name, type(error).__name__)
            return "failed"
        return "ok"

    def _give_up(self, task: asyncio.Task[_Result]) -> None:
        # Not awaited: to hang up on a frozen server takes seconds of its own.
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)
        task.cancel()


class HealthReport(BaseModel):
    """The answer of ``/health`` and ``/readyz``; errors are named by kind, never by text."""

    status: Literal["healthy", "degraded", "unhealthy"]
    """``degraded``: only checks that are not critical fail."""
    version: str
    checks: dict[str, _Result]


def health_router(*, version: str, checks: Sequence[HealthCheck] = (), cache_seconds: float = 1.0, drain_seconds: float = 0.0) -> APIRouter:
    """Build ``/livez``, ``/readyz`` and ``/health``, for GET and HEAD. Not in the schema.

    ``/livez`` runs no checks. The others run all of them at once, at most once in *cache_seconds* however many probes
    come, and answer 503 if a critical one fails or the app is stopping. Raises ConfigurationError if two have one name.

    The app is stopping from SIGTERM on. The server is told *drain_seconds* later and serves as ever meanwhile, so that a
    load balancer sees the 503 and sends nobody to a closed door; a second SIGTERM ends the wait. Under gunicorn's ``asgi``
    worker, which hears of signals by the event loop, there is no wait.
    """
    if len({check.name for check in checks}) < len(checks):
        raise ConfigurationError("two health checks have the same name")
    health = _Health(version, checks, cache_seconds, drain_seconds)
    router = APIRouter(lifespan=health.lifespan, include_in_schema=False)
    router.add_api_route("/livez", _livez, methods=_PROBES)
    router.add_api_route("/readyz", health.answer, methods=_PROBES, name="readyz", response_model=HealthReport)
    router.add_api_route("/health", health.answer, methods=_PROBES, name="health", response_model=HealthReport)
    return router


_PROBES = ["GET", "HEAD"]


def is_probe(scope: Scope) -> bool:
    """Whether *scope* is a probe of the app itself, not of one mounted in it: ``FastAPI(telemetry={"exclude": is_probe})``."""
    return scope["type"] == "http" and app_path(scope) in PROBE_PATHS


async def _livez(response: Response) -> dict[str, str]:
    response.headers["Cache-Control"] = "no-store"
    return {"status": "alive"}


class _Health:
    def __init__(self, version: str, checks: Sequence[HealthCheck], cache_seconds: float, drain_seconds: float) -> None:
        self._version = version
        self._checks = checks
        self._cache_seconds = cache_seconds
        self._drain_seconds = drain_seconds
        self._stopping = False
        self._run: asyncio.Task[HealthReport] | None = None
        self._expires = 0.0

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncGenerator[None, None]:
        self._stopping = False
        with noticed_termination(self._stop, delay=self._drain_seconds):
            yield
        self._stop()

    def _stop(self) -> None:
        self._stopping = True

    async def answer(self, response: Response) -> HealthReport:
        report = await asyncio.shield(self._shared_run())
        if self._stopping:
            report = report.model_copy(update={"status": "unhealthy"})
        response.status_code = 503 if report.status == "unhealthy" else 200
        response.headers["Cache-Control"] = "no-store"
        return report

    def _shared_run(self) -> asyncio.Task[HealthReport]:
        run = self._run
        # A run of another event loop never ends here.
        if run is None or run.get_loop() is not asyncio.get_running_loop() or (run.done() and monotonic() >= self._expires):
            run = self._run = asyncio.create_task(self._run_checks())
        return run

    async def _run_checks(self) -> HealthReport:
        results = await asyncio.gather(*(check.run() for check in self._checks))
        failed = [check for check, result in zip(self._checks, results, strict=True) if result != "ok"]
        status: Literal["healthy", "degraded", "unhealthy"] = "degraded" if failed else "healthy"
        if any(check.critical for check in failed):
            status = "unhealthy"
        self._expires = monotonic() + self._cache_seconds
        return HealthReport(
            status=status, version=self._version, checks={check.name: result for check, result in zip(self._checks, results, strict=True)}
        )
