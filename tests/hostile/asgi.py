"""A client that sends anything: it speaks ASGI to the app as a server does, and no library stands between."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

__all__ = ["JSON", "Answer", "Sent", "ask"]

_CHUNK = 64 * 1024
JSON = ((b"content-type", b"application/json"),)

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request, byte for byte. *path* is as it stands in the request line."""

    method: str = "POST"
    path: bytes = b"/notes"
    query: bytes = b""
    headers: Headers = JSON
    body: bytes = b""
    host: bytes = b"test"
    ends: bool = True
    """Whether the body comes to its end; if not, the client leaves."""

    def __str__(self) -> str:
        body = self.body if len(self.body) < 80 else self.body[:60] + f"... ({len(self.body)} bytes)".encode()
        headers = "" if self.headers == JSON else f" {[(name, value[:60]) for name, value in self.headers]}"
        return f"{self.method} {self.path[:80]!r}?{self.query[:60]!r}{headers} {body!r}"

    @property
    def is_write(self) -> bool:
        """Whether the request asks for rows to be changed."""
        return self.method in {"POST", "PATCH", "DELETE"} and not self.path.startswith(b"/p/")

    @property
    def table(self) -> str:
        """The collection that a write is meant for."""
        first = self.path.split(b"/")[1].decode()
        return first if first in {"notes", "samples", "labels", "tickets"} else "samples"

    def to(self, path: bytes, method: str | None = None) -> "Sent":
        """Return the same request to another place."""
        return replace(self, path=path, method=method or self.method)


@dataclass
class Answer:
    """What came back; *error* is what left the app as an exception."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    body: bytes = b""
    error: Exception | None = None

    def header(self, name: bytes) -> bytes:
        """Return the value of a header, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), b"")


async def ask(app: ASGIApp, sent: Sent, *, state: Mapping[str, Any] | None = None) -> Answer:
    """Send one request as uvicorn hands it to an app. Never raises."""
    answer, chunks = Answer(), bytearray()
    receive = _messages(sent)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            chunks.extend(message.get("body", b""))

    try:
        await app(_scope(sent, dict(state or {})), _receiver(receive), send)
    except Exception as error:
        answer.error = error
    answer.body = bytes(chunks)
    return answer


def _scope(sent: Sent, state: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": sent.method,
        "root_path": "",
        "path": unquote(sent.path.decode("ascii")),
        "raw_path": sent.path,
        "query_string": sent.query,
        "headers": [(b"host", sent.host), *sent.headers],
        "state": state,
    }


def _messages(sent: Sent) -> Iterator[Message]:
    for start in range(0, len(sent.body), _CHUNK):
        yield {"type": "http.request", "body": sent.body[start : start + _CHUNK], "more_body": True}
    if sent.ends:
        yield {"type": "http.request", "body": b"", "more_body": False}
    while True:
        yield {"type": "http.disconnect"}


def _receiver(messages: Iterator[Message]) -> Callable[[], Any]:
    async def receive() -> Message:
        return next(messages)

    return receive
