"""Probes."""

import asyncio
import logging

import pytest
from fastapi import FastAPI

from fastapi_kit.errors import ConfigurationError
from fastapi_kit.health import HealthCheck, health_router, is_probe
from fastapi_kit.testing.client import app_client


async def pass_() -> None:
    """Pass."""


async def fail() -> None:
    raise RuntimeError("postgresql://user:secret@host/db")


async def hang() -> None:
    await asyncio.Event().wait()


def app_with(*checks: HealthCheck, cache_seconds: float = 0) -> FastAPI:
    app = FastAPI()
    app.include_router(health_router(version="1.2.3", checks=checks, cache_seconds=cache_seconds))
    return app


class Counter:
    """A check that counts its runs and can be held."""

    def __init__(self) -> None:
        self.runs = 0
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> None:
        self.runs += 1
        self.has_begun.set()
        await self.may_end.wait()


async def test_a_healthy_app_says_so() -> None:
    """/health has the status, the version and each check by name."""
    async with app_client(app_with(HealthCheck("database", pass_))) as client:
        for path in ("/health", "/readyz"):
            response = await client.get(path)

            assert response.status_code == 200
            assert response.json() == {"status": "healthy", "version": "1.2.3", "checks": {"database": "ok"}}


async def test_livez_runs_no_checks() -> None:
    """/livez is a 200 even if a check fails."""
    async with app_client(app_with(HealthCheck("database", fail))) as client:
        assert (await client.get("/livez")).status_code == 200


async def test_a_failing_critical_check_makes_the_app_unready() -> None:
    """A failed critical check is a 503."""
    async with app_client(app_with(HealthCheck("database", fail), HealthCheck("cache", pass_))) as client:
        response = await client.get("/readyz")

    assert response.status_code == 503
    assert response.json() == {"status": "unhealthy", "version": "1.2.3", "checks": {"database": "failed", "cache": "ok"}}


async def test_a_failing_minor_check_only_degrades() -> None:
    """A failed check that is not critical makes the app degraded, with 200."""
    async with app_client(app_with(HealthCheck("cache", fail, critical=False))) as client:
        response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json()["status"] == "degraded"


async def test_a_hanging_check_is_given_up() -> None:
    """A check is given up after its timeout."""
    async with app_client(app_with(HealthCheck("queue", hang, timeout=0.01))) as client:
        response = await client.get("/readyz")

    assert response.status_code == 503
    assert response.json()["checks"] == {"queue": "timeout"}


async def test_a_failure_shows_only_its_class(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the response nor the log has the text of the error."""
    with caplog.at_level(logging.WARNING):
        async with app_client(app_with(HealthCheck("database", fail))) as client:
            response = await client.get("/health")

    assert "secret" not in response.text + caplog.text
    assert "Health check database failed: RuntimeError" in caplog.text


async def test_a_check_that_was_cancelled_has_failed() -> None:
    """A check that is cancelled from elsewhere counts as failed."""

    async def cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with app_client(app_with(HealthCheck("cache", cancelled, critical=False))) as client:
        response = await client.get("/readyz")

    assert (response.status_code, response.json()["checks"]) == (200, {"cache": "failed"})


async def test_checks_run_at_the_same_time() -> None:
    """All checks run at the same time."""
    met = asyncio.Barrier(2)
    checks = [HealthCheck("a", met.wait, timeout=10), HealthCheck("b", met.wait, timeout=10)]

    async with app_client(app_with(*checks)) as client:
        assert (await client.get("/readyz")).json()["checks"] == {"a": "ok", "b": "ok"}


async def test_requests_at_the_same_time_share_one_run() -> None:
    """Many requests at the same time run the checks once."""
    counter = Counter()
    async with app_client(app_with(HealthCheck("database", counter), cache_seconds=60)) as client:
        counter.may_end.clear()
        probes = [asyncio.create_task(client.get("/readyz")) for _ in range(5)]
        await counter.has_begun.wait()
        counter.may_end.set()
        answers = await asyncio.gather(*probes)

    assert {answer.status_code for answer in answers} == {200}
    assert counter.runs == 1


@pytest.mark.parametrize(("cache_seconds", "runs"), [(60, 1), (0, 2)])
async def test_a_result_is_kept_for_a_while(cache_seconds: float, runs: int) -> None:
    """A result is kept for cache_seconds; 0 keeps none."""
    counter = Counter()
    async with app_client(app_with(HealthCheck("database", counter), cache_seconds=cache_seconds)) as client:
        await client.get("/readyz")
        await client.get("/health")

    assert counter.runs == runs


async def test_a_client_that_leaves_does_not_stop_the_run() -> None:
    """If one client leaves, the others get their response."""
    counter = Counter()
    async with app_client(app_with(HealthCheck("database", counter))) as client:
        counter.may_end.clear()
        leaving, staying = [asyncio.create_task(client.get("/readyz")) for _ in range(2)]
        await counter.has_begun.wait()
        leaving.cancel()
        counter.may_end.set()

        assert (await staying).status_code == 200


async def test_a_stopping_app_is_unready() -> None:
    """The app is a 503 after the end of the lifespan, and ready after the next start."""
    app = app_with()
    async with app_client(app) as client:
        async with app.router.lifespan_context(app):
            assert (await client.get("/readyz")).status_code == 200

        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
    async with app_client(app) as client:
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
async def test_health_checks_are_not_cached_and_answer_head(path: str) -> None:
    """Responses have Cache-Control: no-store, and HEAD is answered."""
    async with app_client(app_with()) as client:
        assert (await client.get(path)).headers["cache-control"] == "no-store"
        assert (await client.head(path)).status_code == 200


def test_health_checks_are_not_in_the_document() -> None:
    """Health checks are not in the OpenAPI document."""
    assert app_with().openapi()["paths"] == {}


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"type": "http", "path": "/livez"}, True),
        ({"type": "http", "path": "/health"}, True),
        ({"type": "http", "path": "/api/readyz", "root_path": "/api"}, True),
        ({"type": "http", "path": "/readyz", "root_path": "/api"}, True),
        ({"type": "http", "path": "/readyz", "root_path": "/"}, True),
        ({"type": "http", "path": "/other/readyz"}, False),
        ({"type": "http", "path": "/livez/"}, False),
        ({"type": "lifespan"}, False),
    ],
)
def test_a_probe_is_known_by_its_path(scope: dict[str, str], expected: bool) -> None:
    """is_probe() works with and without a root path."""
    assert is_probe(scope) is expected


def test_two_checks_need_two_names() -> None:
    """Two checks with the same name raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        health_router(version="1", checks=[HealthCheck("a", pass_), HealthCheck("a", fail)])
