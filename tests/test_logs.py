"""Logging: two styles, ids, servers, and masked secrets."""

import asyncio
import json
import logging
import logging.config
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from io import StringIO
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from sqlalchemy import CheckConstraint, Column, Enum, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import create_async_engine
from uvicorn.config import LOGGING_CONFIG

from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.logs import configure_logging
from fastapi_kit.middleware.access_log import AccessLogMiddleware
from fastapi_kit.middleware.request_id import RequestIdMiddleware
from fastapi_kit.testing import app_client

SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access", "gunicorn.error", "gunicorn.access")
SECRETS = ["hunter2", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"]

logger = logging.getLogger("tests.host")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Restore the loggers of the process after each test."""
    root = logging.getLogger()
    others = [logging.getLogger(name) for name in (*SERVERS, "aiosqlite", "tests.host")]
    level = root.level
    kept = [(other, list(other.handlers), list(other.filters), other.level, other.propagate) for other in others]
    yield
    for handler in [handler for handler in root.handlers if handler.get_name() == "fastapi_kit"]:
        root.removeHandler(handler)
    root.setLevel(level)
    for other, handlers, filters, its_level, propagate in kept:
        other.handlers[:], other.filters[:], other.propagate = handlers, filters, propagate
        other.setLevel(its_level)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the lines written to stderr since the last call. Nothing may be written to stdout."""

    def read() -> list[str]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return read


@pytest.fixture
def records(lines: Any) -> Any:
    """Return the JSON records written since the last call."""

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in lines()]

    return read


def kit_handler() -> logging.Handler:
    (handler,) = [handler for handler in logging.getLogger().handlers if handler.get_name() == "fastapi_kit"]
    return handler


# --- The two styles ---


def test_json_is_one_object_per_record(records: Any) -> None:
    """Time in UTC (RFC 3339), level, logger, message, and the extras."""
    configure_logging(style="json")

    logger.info("%s paid", "Zoë", extra={"order": 7, "tags": {"a"}, "gift": None})
    kit_handler().handle(logging.makeLogRecord({"created": 0.25, "msg": "old"}))

    first, second = records()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "INFO", "logger": "tests.host", "message": "Zoë paid", "order": 7, "tags": ["a"], "gift": None}
    assert second["time"] == "1970-01-01T00:00:00.250Z"


def test_console_is_one_line_per_record(lines: Any) -> None:
    """One line with the request id, if any. Extras follow the message, unless the message already contains them."""
    configure_logging()

    logger.warning("paid", extra={"order": 7, "by": "a card", "request_id": "r-1"})
    logger.info("%(method)s in %(ms)d ms", {"method": "GET", "ms": 3}, extra={"method": "GET", "ms": 3, "status": 200})

    first, second = (line.partition(" ")[2] for line in lines())
    assert first == 'WARNING  tests.host [r-1] paid order=7 by="a card"'
    assert second == "INFO     tests.host GET in 3 ms status=200"


def test_json_holds_the_traceback(records: Any) -> None:
    """Exception and stack are text in the record. Without an exception there is none."""
    configure_logging(style="json")

    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed", stack_info=True)
    logger.error("nothing raised", exc_info=(None, None, None))

    first, second = records()
    assert first["exception"].startswith("Traceback")
    assert first["exception"].endswith("ValueError: no")
    assert "test_logs.py" in first["stack"]
    assert {"exception", "stack"}.isdisjoint(second)


def test_console_indents_the_traceback(lines: Any) -> None:
    """A traceback has its own indented lines, none of which looks like a record."""
    configure_logging()

    try:
        raise ValueError("no\n2026-01-01T00:00:00.000Z INFO     forged")
    except ValueError:
        logger.exception("failed")

    head, *rest = lines()
    assert head.endswith("failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "    2026-01-01T00:00:00.000Z INFO     forged"
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize("style", ["console", "json"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_nothing_forges_a_second_record(style: Any, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All line ends are escaped, in message, arguments, extras and logger name."""
    configure_logging(style=style)
    text = f"a{end}2026-01-01T00:00:00.000Z INFO     forged{end}{{}}"

    message = f"{text} %s"
    logging.getLogger(f"tests.{text}").error(message, text, extra={"user": text, text: 1, "request_id": text})

    written = capsys.readouterr().err
    assert written.endswith("\n")
    assert len(written.splitlines()) == 1


def test_the_console_shows_control_characters(lines: Any) -> None:
    """Escape sequences that would change the terminal are shown as text."""
    configure_logging()

    kit_handler().handle(logging.makeLogRecord({"msg": "\x1b[2Jgone\x07 \u202eevil \x9b1m tab\there \ud800"}))

    assert lines()[0].endswith(r"\x1b[2Jgone\x07 \u202eevil \x9b1m tab" "\t" r"here \ud800")


@pytest.mark.parametrize("style", ["console", "json"])
def test_no_record_is_lost(style: Any, lines: Any) -> None:
    """Lone surrogates, wrong arguments, objects without a text, circles and a wrong time are written, not raised."""

    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError

    configure_logging(style=style)
    circle: dict[str, Any] = {}
    circle["circle"] = circle

    for given in (
        {"msg": "first \ud800", "a": "\udfff", "nan": float("nan"), "endless": 10**5000},
        {"msg": "second %d", "args": ("password=hunter2",)},
        {"msg": "third %s", "args": (Unprintable(),), "circle": circle, "what": Unprintable()},
        {"msg": "fourth", "created": float("inf"), "pathname": "app.py", "lineno": 4},
    ):
        kit_handler().handle(logging.makeLogRecord(given))

    first, second, third, fourth = lines()
    assert "first \\ud800" in first.replace("\\\\", "\\")
    assert "second %d (its arguments do not fit: ('password=***" in second
    assert "third" in third
    assert "A record of app.py:4 could not be formatted: OverflowError" in fourth


def test_extras_do_not_replace_members(records: Any) -> None:
    """An extra with the name of a member gets an underscore. uvicorn's coloured copy of the message is left out."""
    configure_logging(style="json")

    logger.info("real", extra={"time": "t", "level": "l", "logger": "n", "exception": "e", "stack": "s", "color_message": "\x1b[1mreal"})

    (record,) = records()
    assert (record["level"], record["logger"], record["message"]) == ("INFO", "tests.host", "real")
    assert [record[f"{name}_"] for name in ("time", "level", "logger", "exception", "stack")] == ["t", "l", "n", "e", "s"]
    assert {"exception", "stack", "color_message"}.isdisjoint(record)


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_lost_stderr_breaks_nothing(stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log call returns even if there is no stderr."""
    configure_logging()
    closed = StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed if stream else None)

    logger.error("anybody?")

    monkeypatch.undo()
    assert kit_handler()


# --- Secrets ---


@pytest.mark.parametrize("style", ["console", "json"])
def test_no_secret_is_in_any_part_of_a_record(style: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Message, arguments, exceptions with their causes and source lines, stack, extras and logger name are masked."""
    configure_logging(style=style, level="DEBUG")
    password, token = SECRETS
    login = {"user": "bob", "password": password, "tokens": [token]}

    logging.getLogger(f"tests.token={token}").debug("connect to %s", f"postgresql+asyncpg://app:{password}@db/app")
    logger.info(
        "login %s, header %r", login, {"Authorization": f"Bearer {token}"}, extra={"login": login, "api_key": password, "url": token}
    )
    try:
        try:
            raise KeyError(f"secret={password}")
        except KeyError as error:
            raise ValueError({"password": "hunter2"}) from error
    except ValueError:
        logger.exception("token: %s", token, stack_info=True)

    written = capsys.readouterr().err
    assert [secret for secret in SECRETS if secret in written] == []
    assert "KeyError" in written
    assert "ValueError" in written


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_no_value_of_the_database_is_in_a_record(
    style: Any, driver: str, postgres_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values that PostgreSQL quotes are masked in messages, tracebacks, chains, groups and extras, over all lines."""
    metadata = MetaData()
    code, kind = Column("code", String, unique=True), Column("kind", Enum("a", name="log_kind", create_constraint=False))
    table = Table("logged", metadata, Column("id", Integer, primary_key=True), code, Column("n", Integer, CheckConstraint("n > 0")), kind)
    await postgres_database.create_tables(metadata)
    engine = create_async_engine(postgres_database.engine.url.set(drivername=f"postgresql+{driver}"))
    value = "hunter2 (a)\n\nhunter2"
    statements = [
        insert(table).values([{"code": value}, {"code": value}]),
        insert(table).values(code=value, n=-1),
        insert(table).values(code=value, n="hunter2"),
        insert(table).values(kind="hunter2"),
    ]
    configure_logging(style=style)

    for statement in statements:
        try:
            async with engine.begin() as connection:
                await connection.execute(statement)
        except Exception as error:
            driver_error: Any = error.__cause__
            logger.error("failed: %s", error)
            logger.error("failed", extra={"error": driver_error, "detail": getattr(driver_error.__cause__, "detail", None)})
            logger.exception("failed")
            wrapped = RuntimeError("wrapped")
            wrapped.__cause__ = error
            logger.error("failed", exc_info=wrapped)
            logger.error("failed", exc_info=ExceptionGroup("several", [error, ExceptionGroup("more", [driver_error])]))
    await engine.dispose()

    written = capsys.readouterr().err
    assert written.count("failed") >= 5 * 3
    assert "hunter2" not in written


def test_the_statements_of_aiosqlite_stay_out(records: Any) -> None:
    """At DEBUG aiosqlite logs every value. An application that sets its level gets them."""
    configure_logging(level="DEBUG", style="json")
    logging.getLogger("aiosqlite").debug("executing INSERT ... ('hunter2',)")
    assert records() == []

    logging.getLogger("aiosqlite").setLevel("DEBUG")
    configure_logging(level="DEBUG", style="json")
    logging.getLogger("aiosqlite").debug("executing SELECT 1")

    assert [record["logger"] for record in records()] == ["aiosqlite"]


# --- Ids ---


async def test_records_of_a_request_have_its_id(records: Any) -> None:
    """All records of a request, also those of threads, have the id that the client gets."""
    app = FastAPI()
    app.add_middleware(AccessLogMiddleware)
    app.add_middleware(RequestIdMiddleware)

    @app.get("/items/{item_id}")
    def read(item_id: int) -> None:
        logger.info("reading")

    configure_logging(style="json")
    async with app_client(app) as client:
        answer = await client.get("/items/7?token=hunter2")
    logger.info("outside")

    reading, access, outside = [record for record in records() if record["logger"] in {"tests.host", "fastapi_kit.access"}]
    assert reading["request_id"] == access["request_id"] == answer.headers["x-request-id"]
    assert (access["method"], access["route"], access["status"]) == ("GET", "/items/{item_id}", 200)
    assert isinstance(access["duration_ms"], float)
    assert {"request_id", "trace_id", "span_id"}.isdisjoint(outside)


def test_records_of_a_span_have_its_ids(records: Any) -> None:
    """Trace and span id are those of OpenTelemetry's current span. A record may bring its own."""
    configure_logging(style="json")
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=False))

    with trace.use_span(span):
        logger.info("inside", extra={"trace_id": None})
        logger.info("its own", extra={"trace_id": "mine"})

    inside, own = records()
    assert (inside["trace_id"], inside["span_id"]) == ("abc".zfill(32), "def".zfill(16))
    assert own["trace_id"] == "mine"


async def test_a_record_written_in_another_thread_keeps_its_id(records: Any) -> None:
    """With a queue, the handler's filters are added in front of it, in the thread of the request."""
    configure_logging(style="json")
    handler = kit_handler()
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    waiting = QueueHandler(queue)
    for each in handler.filters:
        waiting.addFilter(each)
    listener = QueueListener(queue, handler)
    app = FastAPI()
    app.add_middleware(RequestIdMiddleware)

    @app.get("/")
    async def read() -> None:
        waiting.handle(logging.makeLogRecord({"name": "queued", "msg": "from afar"}))

    async with app_client(app) as client:
        answer = await client.get("/")
    listener.start()
    listener.stop()

    (record,) = [record for record in records() if record["logger"] == "queued"]
    assert record["request_id"] == answer.headers["x-request-id"]


# --- Other handlers, levels, options ---


def test_a_second_call_replaces_the_first(lines: Any) -> None:
    """There is only one handler, with the level and style of the last call."""
    for _ in range(3):
        configure_logging(level="debug", style="json")
    configure_logging(level="WARNING")

    logger.info("too low")
    logger.warning("once")
    logging.getLogger("uvicorn.error").warning("once")

    assert [line.split(" ", 1)[1] for line in lines()] == ["WARNING  tests.host once", "WARNING  uvicorn.error once"]


def test_handlers_of_others_stay_unless_they_write_to_the_terminal(records: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """pytest's caplog, files and others stay. Handlers of basicConfig are removed: they would write every record again, unmasked."""
    root = logging.getLogger()
    file = logging.FileHandler(tmp_path / "app.log", encoding="utf-8")
    basic = [logging.StreamHandler(sys.stderr), logging.StreamHandler(sys.stdout)]
    for handler in (file, *basic):
        root.addHandler(handler)
    try:
        configure_logging(style="json")

        logger.info("hello")

        assert [record["message"] for record in records()] == ["hello"]
        assert caplog.messages == ["hello"]
        assert (tmp_path / "app.log").read_text() == "hello\n"
        assert {*basic}.isdisjoint(root.handlers)
    finally:
        for handler in (file, *basic):
            root.removeHandler(handler)
            handler.close()


@pytest.mark.parametrize("when", ["before", "after", "both"])
def test_uvicorns_records_come_once(when: str, records: Any) -> None:
    """uvicorn configures logging before it imports the application; `fastapi run` and `uvicorn.run(app)` do so afterwards."""
    if when != "after":
        logging.config.dictConfig(LOGGING_CONFIG)
    configure_logging(level="WARNING", style="json")
    if when != "before":
        logging.config.dictConfig(LOGGING_CONFIG)

    for name in ("uvicorn.error", "uvicorn", "uvicorn.asgi"):
        logging.getLogger(name).info("too low")
        logging.getLogger(name).error("token=hunter2")
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', "127.0.0.1", "GET", "/?token=hunter2", "1.1", 200)

    assert [(record["logger"], record["message"]) for record in records()] == [
        ("uvicorn.error", "token=***"),
        ("uvicorn", "token=***"),
        ("uvicorn.asgi", "token=***"),
    ]
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_gunicorns_records_come_once(records: Any, tmp_path: Path) -> None:
    """The terminal handlers of gunicorn are removed, its log files stay."""
    error, access = logging.getLogger("gunicorn.error"), logging.getLogger("gunicorn.access")
    file = logging.FileHandler(tmp_path / "error.log", encoding="utf-8")
    for server, handlers in ((error, [file, logging.StreamHandler(sys.stderr)]), (access, [logging.StreamHandler(sys.stdout)])):
        server.handlers[:], server.propagate = handlers, False
        server.setLevel("INFO")

    configure_logging(style="json")
    error.info("Booting worker")
    access.info("%(r)s", {"r": "GET /?token=hunter2 HTTP/1.1"})
    file.close()

    assert [record["message"] for record in records()] == ["Booting worker", "GET /?token=*** HTTP/1.1"]
    assert (tmp_path / "error.log").read_text() == "Booting worker\n"


def test_a_level_of_the_hosts_for_a_server_stays() -> None:
    """A level that the application sets later stays."""
    configure_logging()
    server = logging.getLogger("uvicorn.error")
    server.setLevel("ERROR")

    server.error("a record")

    assert server.level == logging.ERROR


@pytest.mark.parametrize(("given", "level"), [("info", 20), (" Debug ", 10), ("CRITICAL", 50)])
def test_a_level_is_a_name_as_in_the_settings(given: str, level: int) -> None:
    """Upper or lower case, as for LOG_LEVEL."""
    configure_logging(level=given)

    assert logging.getLogger().level == level


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"level": "LOUD"}, "level 'LOUD' is not a level"),
        ({"level": 20}, "level 20 is not"),
        ({"style": "xml"}, "'xml' is unknown: use console or json"),
    ],
)
def test_a_wrong_option_is_rejected_and_changes_nothing(options: Any, text: str) -> None:
    """The error says what is allowed, and nothing has changed."""
    before = (list(logging.getLogger().handlers), logging.getLogger().level)

    with pytest.raises(ConfigurationError, match=text):
        configure_logging(**options)

    assert (logging.getLogger().handlers, logging.getLogger().level) == before


# --- Real servers ---

APP = """
import logging
from fastapi import FastAPI
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.logs import configure_logging
from fastapi_kit.middleware.access_log import AccessLogMiddleware

configure_logging(style="json")
app = FastAPI()
register_exception_handlers(app)
app.add_middleware(AccessLogMiddleware)


@app.get("/")
async def read() -> None:
    logging.getLogger("host").info("reading")


@app.get("/bug")
async def bug() -> None:
    raise ValueError("password=hunter2")


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=PORT)
"""

COMMANDS = {
    "uvicorn": ["-m", "uvicorn", "hostapp:app", "--port", "PORT"],
    "workers": ["-m", "uvicorn", "hostapp:app", "--port", "PORT", "--workers", "2"],
    "reload": ["-m", "uvicorn", "hostapp:app", "--port", "PORT", "--reload"],
    "run": ["hostapp.py"],
    "fastapi": ["-m", "fastapi", "run", "hostapp.py", "--host", "127.0.0.1", "--port", "PORT"],
    "gunicorn": ["-m", "gunicorn", "-k", "asgi", "-b", "127.0.0.1:PORT", "--access-logfile", "-", "hostapp:app"],
}
NEEDED = {"fastapi": "fastapi_cli", "gunicorn": "gunicorn", "reload": "watchfiles"}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@asynccontextmanager
async def served(arguments: list[str], folder: Path, port: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    (folder / "hostapp.py").write_text(APP.replace("PORT", port))
    command = [argument.replace("PORT", port) for argument in arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")} | {"PYTHONPATH": str(folder)}
    with (folder / "output").open("wb") as output:
        server = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield server
    finally:
        if server.returncode is None:
            os.killpg(server.pid, signal.SIGKILL)
        await server.wait()


async def request(port: str, path: str) -> bytes:
    """Send one request as soon as the server listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.write(f"GET {path}?token=hunter2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            return answer


@pytest.mark.only_full
@pytest.mark.parametrize("server", [*COMMANDS])
async def test_one_call_at_import_is_enough(server: str, tmp_path: Path) -> None:
    """Under each server all records are JSON, once, without secrets: the server's, the application's and the traceback of a bug."""
    if server in NEEDED and find_spec(NEEDED[server]) is None:
        pytest.skip(f"{NEEDED[server]} is not installed")
    port = free_port()

    async with served(COMMANDS[server], tmp_path, port) as process:
        assert (await request(port, "/")).startswith(b"HTTP/1.1 200")
        await request(port, "/bug")
        process.terminate()
        async with asyncio.timeout(30):
            await process.wait()

    output = (tmp_path / "output").read_text()
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert "hunter2" not in output
    assert "Traceback" not in "".join(line for line in output.splitlines() if not line.startswith("{"))
    assert [record["logger"] for record in found].count("host") == 1
    assert [record["route"] for record in found if record["logger"] == "fastapi_kit.access"] == ["/", "/bug"]
    assert len([record for record in found if "ValueError: password=***" in record.get("exception", "")]) == 1
    assert any(record["logger"] in {"uvicorn.error", "gunicorn.error"} for record in found)
    assert not any(record["logger"] == "uvicorn.access" for record in found)
