"""The origin of the page that makes a request (RFC 6454): whether it is the application's own, or one that it trusts."""

import re
from collections.abc import Collection

from starlette.requests import HTTPConnection

from fastapi_kit.errors import ConfigurationError, CrossSiteRequestError

__all__ = ["check_origin", "trusted_origin"]

ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE | re.ASCII)
LOCAL = re.compile(r"(?:[a-z0-9.-]*\.)?localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")
DEFAULT_PORTS = {"http": "80", "https": "443"}
FOREIGN = (
    "The request must come from a page of this application, or of an origin in trusted_origins. "
    "A browser says so in the Origin header; another client can send it, or use a bearer token."
)


def trusted_origin(text: str) -> str:
    """Return an origin of the configuration in its one spelling.

    Raises:
        ConfigurationError: *text* is not ``scheme://host`` or ``scheme://host:port``. The wildcard and ``null`` are rejected, too: every
            site can have the origin ``null``.
    """
    match = ORIGIN.fullmatch(text)
    if match is None:
        raise ConfigurationError("a trusted origin is scheme://host or scheme://host:port; a wildcard and null would trust every site")
    return spelled(match)


def check_origin(connection: HTTPConnection, *, trusted: Collection[str], insecure_http: bool) -> None:
    """Raise CrossSiteRequestError unless the request comes from its own origin or one of *trusted*.

    ``Origin`` decides; without it, the origin of ``Referer``. The own origin has the request's ``Host`` and is https; http counts for
    localhost, and for every host with *insecure_http*.
    """
    found = origin_of(connection)
    if found is None or (found not in trusted and not is_own(found, connection, insecure_http=insecure_http)):
        raise CrossSiteRequestError(FOREIGN)


def origin_of(connection: HTTPConnection) -> str | None:
    """Return the origin that the client names, or None if it names none, a malformed one, ``null``, or several."""
    headers = connection.headers.getlist("origin")
    if headers:
        match = ORIGIN.fullmatch(headers[0])
    else:
        headers = connection.headers.getlist("referer")
        # The path begins after the port, so neither user information nor a backslash can hide the real host.
        match = re.match(rf"(?:{ORIGIN.pattern})(?=[/?#]|\Z)", headers[0], ORIGIN.flags) if headers else None
    return spelled(match) if match is not None and len(headers) == 1 else None


def is_own(origin: str, connection: HTTPConnection, *, insecure_http: bool) -> bool:
    """Return whether *origin* is that of the request's ``Host``."""
    hosts = connection.headers.getlist("host")
    for scheme in ("https", "http"):
        match = ORIGIN.fullmatch(f"{scheme}://{hosts[0]}") if len(hosts) == 1 else None
        if match is not None and spelled(match) == origin:
            return scheme == "https" or insecure_http or LOCAL.fullmatch(match[2].lower()) is not None
    return False


def spelled(match: re.Match[str]) -> str:
    """Return an origin in lower case and without the default port, as browsers write it."""
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    return f"{scheme}://{host}" if port is None or port == DEFAULT_PORTS.get(scheme) else f"{scheme}://{host}:{port}"
