"""One request to an ASGI app in process: no sockets, and no client whose own cost would hide the app's."""

import asyncio
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Scope

__all__ = ["request"]

JSON = (b"content-type", b"application/json")


async def request(
    app: ASGIApp, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = (), *, status: int | None = None
) -> bytes:
    """Return the body of the answer. *path* may have a query. Raises AssertionError unless it has *status*, or without it, is a 2xx."""
    received: list[Message] = []
    unread = [body]

    async def receive() -> Message:
        if not unread:
            await asyncio.Future()  # the client stays
        return {"type": "http.request", "body": unread.pop(), "more_body": False}

    async def send(message: Message) -> None:
        received.append(message)

    await app(_scope(method, path, headers), receive, send)
    found, answer = received[0]["status"], b"".join(message.get("body", b"") for message in received)
    assert found == status if status is not None else 200 <= found < 300, f"{method} {path}: {found} {answer!r}"
    return answer


def _scope(method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Scope:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost"), *(headers if any(name == b"content-type" for name, _ in headers) else [JSON, *headers])],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
