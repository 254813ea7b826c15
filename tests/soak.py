"""A long run of schemathesis, all checks, with other requests every time, and a watch on what the servers hold meanwhile."""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.databases import DATABASES
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.conformance.apps import TOKENS
from tests.conformance.drive import Server, drive, serving

__all__ = ["Held", "main"]

ROUND = 60
"""Seconds of one run of ``st``, with a seed of its own. The first warms up."""
MORE_MEMORY = 16 * 2**20
"""Bytes that a server may have more of after a round than after the first."""
MORE_CONNECTIONS = 3
"""How many a pool may open later than in the first round: it opens one when all others are in use. Each is a descriptor too."""


@dataclass(frozen=True)
class App:
    """What is served, and how it is driven."""

    name: str
    target: str
    tables: Sequence[str]
    hooks: str = "checks"
    users: Mapping[str, str] = field(default_factory=dict[str, str])


APPS = [
    App("quickstart", "examples.quickstart.app:app", ["notes"], hooks="columns"),
    App("every endpoint", "tests.conformance.apps:every_endpoint()", ["books", "authors", "seats", "shifts", "entries"], users=TOKENS),
]


@dataclass(frozen=True)
class Held:
    """What a server holds while it has nothing to do."""

    memory: int
    descriptors: int
    connections: int

    def __str__(self) -> str:
        return f"{self.memory / 2**20:.1f} MiB, {self.descriptors} descriptors, {self.connections} connections"

    def leaked_since(self, first: "Held") -> bool:
        """Return whether it is more than may be."""
        return (
            self.memory > first.memory + MORE_MEMORY
            or self.descriptors > first.descriptors + MORE_CONNECTIONS
            or self.connections > first.connections + MORE_CONNECTIONS
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Return 1 if something is found, after all else has been tried."""
    options = _parser().parse_args(arguments)
    _say(f"--minutes {options.minutes:g} --seed {options.seed}")
    found = asyncio.run(_soak_all(options.minutes * 60, random.Random(options.seed)))
    _say("\n".join([*found, f"{len(found)} findings"]))
    return 1 if found else 0


async def _soak_all(seconds: float, seeds: random.Random) -> list[str]:
    """Soak one app after the other, each on all databases at once."""
    found: list[str] = []
    for app in APPS:
        runs = [_soak(app, name, seconds / len(APPS), random.Random(seeds.getrandbits(32))) for name in DATABASES]
        found += [finding for run in await asyncio.gather(*runs) for finding in run]
    return found


async def _soak(app: App, database: str, seconds: float, seeds: random.Random) -> list[str]:
    """Drive *app* for so long; return what is found in the first round that finds something."""
    subject = f"{app.name} on {database}"
    async with DATABASES[database]() as url:
        if url is None:
            _say(f"{subject}: left out, the database does not answer")
            return []
        address = url.render_as_string(hide_password=False)
        with tempfile.TemporaryDirectory(prefix="soak-") as folder, serving(app.target, Path(folder), database=address) as server:
            return [f"{subject}: {finding}" for finding in await _rounds(app, subject, server, url, seconds, seeds)]


async def _rounds(app: App, subject: str, server: Server, url: URL, seconds: float, seeds: random.Random) -> list[str]:
    first: Held | None = None
    end = time.monotonic() + seconds
    while first is None or time.monotonic() < end:
        seed = seeds.getrandbits(32)
        limits = ("--max-time", str(ROUND), "--seed", str(seed))
        report = await asyncio.to_thread(
            drive, f"{server.url}/api/v1/openapi.json", server.folder, *limits, hooks=app.hooks, users=app.users
        )
        held = await _held(server, url, app.tables)
        _say(f"{subject}: seed {seed}, {report.cases} cases, {held}")
        found = [] if report.is_clean else [report.text]
        found += server.faults
        if first is not None and held.leaked_since(first):
            found.append(f"it held {first}, and now {held}")
        if found:
            return found
        first = first or held
    return []


async def _held(server: Server, url: URL, tables: Sequence[str]) -> Held:
    """Return what the server holds after a second of rest, and empty the tables, so that each round finds them alike."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            for table in tables:
                await connection.execute(text(f"DELETE FROM {table}"))
            connections = 0
            if engine.dialect.name == "postgresql":
                others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                connections = (await connection.execute(text(others))).scalar_one()
    finally:
        await engine.dispose()
    await asyncio.sleep(1)
    process = Path("/proc") / str(server.process.pid)
    pages = int((process / "statm").read_text().split()[1])
    return Held(pages * os.sysconf("SC_PAGE_SIZE"), len(list((process / "fd").iterdir())), connections)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Schemathesis for long, on Linux. Exits with 1 on a finding.")
    parser.add_argument("--minutes", type=float, default=10, help="in all, shared by the apps; at least one round each (default: 10)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32), help="repeats the requests of another run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
