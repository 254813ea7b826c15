"""Run the benchmarks and print a table of ratios for each database."""

import argparse
import asyncio
import gc
from collections.abc import Sequence

from benchmarks.databases import DATABASES
from benchmarks.logins import show_logins
from benchmarks.measure import FULL, QUICK, Effort, check, speed
from benchmarks.rows import ROWS, Row
from benchmarks.stage import Stage, open_stage
from benchmarks.table import heading, line
from fastapi_kit.auth.passwords import PasswordHasher

__all__ = ["main", "show"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    rows = [row for row in ROWS if row.name in (options.rows or [row.name])]
    # What is imported lives for ever; a collection during a batch need not look at it.
    gc.freeze()
    asyncio.run(_run(rows, QUICK if options.quick else FULL))
    if not options.rows or "logins" in options.rows:
        print(f"\nLogins\n\n{heading()}")
        asyncio.run(show_logins(PasswordHasher(), rounds=9 if options.quick else 99))


async def show(rows: Sequence[Row], stage: Stage, effort: Effort) -> None:
    """Compare all answers, and then print each row of this stage as soon as it is measured."""
    rows = [row for row in rows if row.is_run_on(stage.place)]
    for row in rows:
        await check(row, stage)
    print(heading())
    for row in rows:
        print(line(row, stage.place, await speed(row, stage, effort)), flush=True)


async def _run(rows: Sequence[Row], effort: Effort) -> None:
    for place, database in DATABASES.items():
        if not any(row.is_run_on(place) for row in rows):
            continue
        async with database() as url:
            if url is None:
                print(f"\n{place}: does not answer and is left out")
                continue
            print(f"\n{place}\n")
            many_rows = effort.many_rows if any(row.is_large and row.is_run_on(place) for row in rows) else 1
            async with open_stage(url, place, many_rows=many_rows) as stage:
                await show(rows, stage, effort)


def _parser() -> argparse.ArgumentParser:
    names = [*(row.name for row in ROWS), "logins"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The library against the same work written by hand.")
    parser.add_argument("--quick", action="store_true", help="less than a minute, and noisier")
    parser.add_argument("--rows", nargs="+", metavar="NAME", choices=names, help=f"only these: {', '.join(names)}")
    return parser


if __name__ == "__main__":
    main()
