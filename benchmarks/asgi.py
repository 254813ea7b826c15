"""One request to an ASGI app in process: no sockets, and no client whose own cost would hide the app's."""

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Scope

__all__ = ["request"]


async def request(app: ASGIApp, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """Return the body of the answer. *path* may have a query. Raises AssertionError unless it is a 2xx."""
    received: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        received.append(message)

    await app(_scope(method, path, headers), receive, send)
    status, answer = received[0]["status"], b"".join(message.get("body", b"") for message in received)
    assert 200 <= status < 300, f"{method} {path}: {status} {answer!r}"
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
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
