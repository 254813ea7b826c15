"""Where a request comes from."""

from starlette.requests import HTTPConnection

from fastapi_kit.auth.logins.protocol import ClientInfo

__all__ = ["client_of"]


def client_of(connection: HTTPConnection) -> ClientInfo:
    """Return the address and the ``User-Agent`` of the client, for ``AuthFlow.login`` and ``MailFlow``.

    The address is that of the ASGI server. Behind a proxy, configure the server to trust the proxy's headers.
    """
    return ClientInfo(address=connection.client and connection.client.host, user_agent=connection.headers.get("user-agent"))
