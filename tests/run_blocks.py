"""Run the Python blocks of pages, each page in a process, a folder and a namespace of its own.

A line of JSON on standard input is a page; the line that answers it is the exit code of its process. What the page prints goes to its file
*log*. ``await`` may stand at the top level of a block. Test functions without arguments run at the end.

The packages are imported once and the processes forked from there, and bcrypt hashes at its least cost, which saves most of the time of a
page.
"""

import ast
import asyncio
import atexit
import gc
import inspect
import json
import os
import sys
from importlib import import_module
from multiprocessing import get_context
from types import ModuleType
from typing import Any

import bcrypt
from fastapi import FastAPI

IMPORTED_ONCE = [
    *("fastapi.testclient", "fastapi.security", "httpx", "pydantic_settings", "email_validator", "jose.jwt", "passlib.context"),
    *("sqlalchemy.ext.asyncio", "sqlalchemy.orm", "sqlalchemy.dialects.sqlite.aiosqlite", "aiosqlite", "anyio._backends._asyncio"),
    *("fastapi_kit.app", "fastapi_kit.auth", "fastapi_kit.crud", "fastapi_kit.db", "fastapi_kit.routing", "fastapi_kit.testing"),
]
LEAST_COST = b"04"


def main() -> None:
    for name in IMPORTED_ONCE:
        import_module(name)
    FastAPI().get("/")(lambda: None)  # its first route imports pydantic.v1
    make_hashing_cheap()
    # What every page has is no garbage: a collection need not look at it, nor copy it into the memory of the page.
    gc.collect()
    gc.freeze()
    fork = get_context("fork")
    for line in sys.stdin:
        process = fork.Process(target=run_to_the_end, args=[json.loads(line)])
        process.start()
        process.join()
        sys.stdout.write(f"{process.exitcode}\n")
        sys.stdout.flush()


def make_hashing_cheap() -> None:
    """Let bcrypt write the cost that it was asked for, and take its least."""
    hash_slowly = bcrypt.hashpw

    def hash_quickly(password: bytes, salt: bytes) -> bytes:
        version, cost, rest = salt[:4], salt[4:6], salt[6:]
        return version + cost + hash_slowly(password, version + LEAST_COST + rest)[6:]

    bcrypt.hashpw = hash_quickly


def run_to_the_end(page: dict[str, Any]) -> None:
    """Run one page and what it leaves for the end of the process, which saves itself the time to take everything apart."""
    try:
        run(page)
    finally:
        atexit._run_exitfuncs()


def run(page: dict[str, Any]) -> None:
    """Run one page, in a process that ends with it."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(page["log"], os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(page["folder"])
    # Models and dataclasses look their annotations up in the module that defines them.
    # A page that builds the file app.py imports it as app.
    module = sys.modules["page"] = sys.modules["app"] = ModuleType("page")
    with asyncio.Runner() as runner:
        for line, source in page["blocks"]:
            code = compile("\n" * line + source, page["path"], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, module.__dict__)
            if inspect.iscoroutine(result):
                runner.run(result)
        for name, test in vars(module).items():
            if name.startswith("test_") and not inspect.signature(test).parameters:
                runner.run(test())


if __name__ == "__main__":
    main()
