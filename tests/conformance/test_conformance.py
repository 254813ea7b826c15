"""schemathesis, all checks: what the apps answer is what their OpenAPI documents say."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import URL
from tests.conformance import zenith
from tests.conformance.apps import TOKENS
from tests.conformance.broken import FAULTS
from tests.conformance.drive import Report, drive, serving
from tests.databases import new_database
from tests.thorough import FULL, few

SQLITE, POSTGRESQL = few(("sqlite", "postgresql")), few(("postgresql", "sqlite"))
"""Locally one database for each app, and not the same one for all."""


FEW_PHASES = ("--phases", "examples,fuzzing,stateful")
"""Without the longest, which tries the limits of each parameter and every method."""


def bounded(examples: int) -> tuple[str, ...]:
    """Always the same cases: *examples* of each operation and as many chains of calls. ``make soak`` has many more."""
    return ("--generation-deterministic", "--max-examples", str(examples))


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"


@pytest.fixture
async def postgresql(postgres_url: URL) -> AsyncIterator[str]:
    async with new_database(f"{postgres_url.database}_conformance") as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    return str(request.getfixturevalue(request.param))


def drive_clean(
    app: str,
    folder: Path,
    database: str,
    *,
    document: str,
    examples: int = 6 if FULL else 4,
    every_phase: bool = FULL,
    hooks: str = "checks",
    users: Mapping[str, str] | None = None,
    unguessed: frozenset[str] = frozenset(),
) -> Report:
    """Drive *app*: nothing is found, some requests of each operation but *unguessed* are accepted, and the server logs no fault."""
    with serving(app, folder, database=database) as server:
        report = drive(server.url + document, folder, *bounded(examples), *(() if every_phase else FEW_PHASES), hooks=hooks, users=users)

    assert report.is_clean, report.text
    assert set(report.never_accepted) <= unguessed
    assert server.faults == []
    return report


@pytest.mark.only_full
@pytest.mark.parametrize("database", SQLITE, indirect=True)
def test_the_quickstart_does_what_its_document_says(tmp_path: Path, database: str) -> None:
    """On both databases, for valid and invalid requests."""
    app, document, examples = "examples.quickstart.app:app", "/api/v1/openapi.json", 20 if FULL else 4
    report = drive_clean(app, tmp_path, database, document=document, examples=examples, hooks="columns")

    assert report.facts["operations"]["tested"] == 5


@pytest.mark.only_full
@pytest.mark.parametrize("database", POSTGRESQL, indirect=True)
def test_every_kind_of_endpoint_does_what_its_document_says(tmp_path: Path, database: str) -> None:
    """Lists with filters in offset and keyset pages, rows, batches, nested rows, keys of several columns, guards, and rows of one owner."""
    app = "tests.conformance.apps:every_endpoint()"
    report = drive_clean(app, tmp_path, database, document="/api/v1/openapi.json", hooks="lists", users=TOKENS)

    assert report.facts["operations"]["tested"] == 28


@pytest.mark.only_full
@pytest.mark.parametrize("database", SQLITE, indirect=True)
def test_routes_written_by_hand_do_what_their_document_says(tmp_path: Path, database: str) -> None:
    """An app with the handlers alone."""
    report = drive_clean("tests.conformance.apps:written()", tmp_path, database, document="/openapi.json", hooks="lists")

    assert report.facts["operations"]["tested"] == 6


@pytest.mark.only_full
@pytest.mark.parametrize("database", POSTGRESQL, indirect=True)
def test_zenith_does_what_its_document_says(tmp_path: Path, database: str) -> None:
    """Users, logins, organizations and members, on both databases; what is one user's, a stranger does not see."""
    document = "/api/v1/openapi.json"
    report = drive_clean(
        "tests.conformance.zenith:app()",
        tmp_path,
        database,
        document=document,
        hooks="columns",
        users=zenith.TOKENS,
        unguessed=zenith.UNGUESSED,
    )

    assert report.facts["operations"]["tested"] == 31


@pytest.mark.only_full
def test_every_check_is_awake(tmp_path: Path) -> None:
    """Each check that schemathesis has, and each of our own, finds its fault in an app that is full of them."""
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()

    with serving("tests.conformance.broken:app", tmp_path, database="") as server:
        report = drive(server.url + "/openapi.json", tmp_path, *bounded(12 if FULL else 4), users=TOKENS)

    assert set(FAULTS) == set(CHECKS.get_all_names())
    assert report.faults == {*FAULTS.values(), "documented_status", "error_is_a_problem"}
