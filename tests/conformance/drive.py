"""Serve an app with uvicorn and drive it with ``st``, each in a process of its own."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Report", "Server", "drive", "serving"]

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 60
"""Seconds after which a server that does not stop never will."""

# passlib 1.7.4, its last release, imports the crypt module before Python 3.13.
_PYTHON = (sys.executable, "-W", "error", "-W", "ignore:'crypt' is deprecated:DeprecationWarning:passlib.utils")

# Not --fd, which takes the socket for one of another family, that has no TCP_NODELAY to be set: 40 ms for each request.
_SERVE = """
import socket, sys, uvicorn
app, descriptor = sys.argv[1:]
config = uvicorn.Config(app.removesuffix("()"), factory=app.endswith("()"), lifespan="on", ws="none", access_log=False)
uvicorn.Server(config).run([socket.socket(fileno=int(descriptor))])
"""

_CONFIGURATION = """
hooks = "tests.conformance.{hooks}"

[cache]
enabled = false

[generation]
database = "none"

[phases.examples]
fill-missing = true
"""

_USERS = """
[auth.wfc]
path = "users.json"
user = "{first}"
peers = {peers}
"""


@dataclass
class Server:
    """uvicorn with an app, in *folder*."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def faults(self) -> list[str]:
        """What it logged beside its start, its end and requests that uvicorn itself rejects."""
        log = (self.folder / "server.log").read_text(errors="replace")
        usual = re.compile(r"INFO: |(\S+ )?WARNING:? +(uvicorn\.error )?Invalid HTTP request received\.$")
        return [line for line in log.splitlines() if line.strip() and not usual.match(line)]


@contextmanager
def serving(app: str, folder: Path, *, database: str) -> Iterator[Server]:
    """Serve *app*, ``module:app`` or ``module:factory()``, on the *database*; a request that comes before it has started waits.

    At the end it stops by itself: TimeoutExpired if it does not.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "server.log").open("wb") as log:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            [*_PYTHON, "-c", _SERVE, app, str(listener.fileno())],
            cwd=folder,
            env=_environment() | {"DATABASE_URL": database},
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
        )
    try:
        yield Server(url, process, folder)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    own = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    # A table of all characters, which takes hypothesis a second to make.
    return own | {
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "src"))),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(REPOSITORY / ".hypothesis"),
    }


@dataclass(frozen=True)
class Report:
    """What ``st`` found: *text* for people, *facts* as its JSON report has them."""

    text: str
    facts: Mapping[str, Any]

    @property
    def cases(self) -> int:
        return int(self.facts["test_cases"]["generated"])

    @property
    def is_clean(self) -> bool:
        """Whether it ran to its end and found nothing."""
        return bool(self.facts["complete"]) and self.facts["exit_code"] == 0

    @property
    def faults(self) -> set[str]:
        """The kinds of what it found: the class of the failure, for a check of our own its name."""
        own = re.compile(r"Custom check failed: `(\w+)`")
        return {match[1] if (match := own.match(each["title"])) else each["type"] for each in self.facts["failures"]}

    @property
    def never_accepted(self) -> list[str]:
        """Operations of which no request was accepted: nothing is known of their answers."""
        rates: Mapping[str, Mapping[str, Mapping[str, int]]] = self.facts["valid_rates"]
        return [name for name, phases in rates.items() if not any(phase["accepted"] for phase in phases.values())]


def drive(url: str, folder: Path, *options: str, hooks: str = "checks", users: Mapping[str, str] | None = None) -> Report:
    """Run every check, in every phase, with valid and invalid data, on the app whose OpenAPI document is at *url*.

    *options* are those of ``st run``, *hooks* is a module beside this one. *users* are bearer tokens by name: the first calls, and the
    others must not see what is the first's.
    """
    (folder / "schemathesis.toml").write_text(_CONFIGURATION.format(hooks=hooks) + _signed_in(folder, users or {}))
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command: Sequence[str] = [
        *(str(Path(sys.executable).with_name("st")), "--no-color", "run", url),
        *("--checks", "all", "--mode", "all", "--continue-on-failure", "--report-json-path", str(report)),
        *options,
    ]
    done = subprocess.run(command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if not report.exists():
        raise RuntimeError(f"st made no report:\n{done.stdout}")
    return Report(done.stdout, json.loads(report.read_text()))


def _signed_in(folder: Path, users: Mapping[str, str]) -> str:
    if not users:
        return ""
    headers = {name: [{"name": "Authorization", "value": f"Bearer {token}"}] for name, token in users.items()}
    (folder / "users.json").write_text(json.dumps({"auth": [{"name": name, "fixedHeaders": each} for name, each in headers.items()]}))
    return _USERS.format(first=next(iter(users)), peers=json.dumps(list(users)))
