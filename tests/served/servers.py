"""Servers as processes of their own: how one is started, watched and stopped."""

import asyncio
import os
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from httpx import AsyncClient

__all__ = [
    "PATIENCE",
    "Answer",
    "Command",
    "Connection",
    "Server",
    "alarms",
    "fastapi_run",
    "gunicorn",
    "launched",
    "serving",
    "until",
    "uvicorn",
]

APP = Path(__file__).with_name("app.py")
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "deployment.md"
PATIENCE = 30
"""Seconds after which something that has not happened never will."""


@dataclass(frozen=True)
class Command:
    """What a person types in the folder of ``app.py``."""

    words: Sequence[str]
    ready: str
    """What each worker says when it serves."""
    workers: int = 1
    drains: bool = True
    """Whether it serves on for SHUTDOWN_DRAIN_SECONDS."""

    def __str__(self) -> str:
        return " ".join(word for word in self.words if word not in _EVERYWHERE)

    @property
    def exit_code(self) -> int:
        """How it ends after SIGTERM: uvicorn by that very signal, those that keep workers by themselves."""
        return -signal.SIGTERM if self.drains and self.workers == 1 else 0


_EVERYWHERE = {"app:app", "app.py", "--port", "0", "--host", "--bind", "127.0.0.1", "127.0.0.1:0", "--no-control-socket"}


def uvicorn(*options: str, workers: int = 1) -> Command:
    more = ("--workers", str(workers)) if workers > 1 else ()
    return Command(("uvicorn", "app:app", "--port", "0", *more, *options), "Application startup complete", workers)


def fastapi_run(*options: str) -> Command:
    return Command(("fastapi", "run", "app.py", "--host", "127.0.0.1", "--port", "0", *options), "Application startup complete")


def gunicorn(*options: str, workers: int = 1) -> Command:
    # A control socket in the home directory would be one for all tests, or its path too long.
    words = ("gunicorn", "app:app", "-k", "asgi", "--workers", str(workers), "--bind", "127.0.0.1:0", "--no-control-socket", *options)
    return Command(words, "ASGI server listening", workers, drains=False)


@dataclass
class Server:
    """A running server, or one that has ended."""

    command: Command
    folder: Path
    process: asyncio.subprocess.Process

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "stderr").read_text()

    @property
    def alarms(self) -> Sequence[str]:
        """The lines of its log that say something else than that all goes as usual."""
        return alarms(self.log)

    @property
    def output(self) -> str:
        """Everything it wrote, for people."""
        return f"$ {' '.join(self.command.words)}\n{(self.folder / 'stdout').read_text()}\n{self.log}"

    @property
    def port(self) -> int:
        address = re.search(r"(?:running on|Listening at:) http://127\.0\.0\.1:(\d+)", self.log)
        assert address is not None
        return int(address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def workers(self) -> Mapping[int, str]:
        """The processes in which the app has started, dead ones too, and what each said of its secret."""
        return {int(path.stem): path.read_text() for path in self.folder.glob("*.worker")}

    def client(self) -> AsyncClient:
        return AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False)

    async def logs(self, text: str, *, times: int = 1) -> None:
        """Wait until it has logged *text*."""
        await self._until(lambda: self.log.count(text) >= times)

    async def holds(self, name: str) -> None:
        """Wait until a request waits at the gate as *name*."""
        await self._until((self.folder / f"{name}.waits").exists)

    def release(self, name: str) -> None:
        (self.folder / f"{name}.may_go_on").touch()

    def send_workers(self, number: signal.Signals) -> None:
        """Send a signal to each worker, past the process that keeps them."""
        for pid in self.workers:
            os.kill(pid, number)

    def send(self, number: signal.Signals, *, everyone: bool = False) -> None:
        """Send a signal to the process that was started, or to *everyone*, as a terminal does."""
        os.killpg(self.process.pid, number) if everyone else self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it has ended and return its exit code. It leaves no worker behind."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
        assert [pid for pid in self.workers if _exists(pid)] == []
        return code

    async def _until(self, happened: Callable[[], bool]) -> None:
        await until(lambda: happened() or self.process.returncode is not None)
        assert happened(), f"it has ended with {self.process.returncode}"


def alarms(log: str) -> Sequence[str]:
    """Return the lines of *log* that say something else than that all goes as usual."""
    return [line for line in log.splitlines() if line.strip() and not _USUAL.match(line)]


_USUAL = re.compile(r"INFO: |\[[^]]*\] \[\d+\] \[INFO\] ")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 (it happens in another process)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def launched(command: Command, folder: Path, **environment: str) -> AsyncGenerator[Server]:
    """Start *command* in a *folder* of its own, with nothing but *environment*; at the end nothing of it runs."""
    shutil.copy(APP, folder)
    (folder / "gunicorn.conf.py").write_text(_documented("gunicorn.conf.py"))
    base = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {"HOME": str(folder), "ENVIRONMENT": "local"}
    program = Path(sys.executable).with_name(command.words[0])
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            program, *command.words[1:], cwd=folder, env=base | environment, stdout=stdout, stderr=stderr, start_new_session=True
        )
    server = Server(command, folder, process)
    try:
        yield server
    except BaseException as error:
        error.add_note(server.output)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _documented(name: str) -> str:
    """Return the Python file *name* as the deployment guide shows it."""
    found = re.search(rf"```python\n( *# {re.escape(name)}\n.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    return textwrap.dedent(found[1])


@asynccontextmanager
async def serving(command: Command, folder: Path, **environment: str) -> AsyncGenerator[Server]:
    """Start *command* as ``launched`` does, and wait until every worker serves."""
    async with launched(command, folder, **environment) as server:
        await server.logs(command.ready, times=command.workers)
        await until(lambda: "http://127.0.0.1:" in server.log)
        yield server


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Connection:
    """One connection, kept alive as long as the server likes: httpx would open another without a word."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answered: int = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, server: Server) -> AsyncGenerator["Connection"]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def get(self, path: str) -> Answer | None:
        """Return the answer, or None where the server has closed the connection without a byte of one."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except ConnectionResetError:
                return None
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
                return None
            status, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        self.answered += 1
        return Answer(int(status.split()[1]), headers, body)
