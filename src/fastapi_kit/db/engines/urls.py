"""Database URLs: parsed, completed with an async driver, printed without secrets."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import parse_qsl, unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fastapi_kit.errors import ConfigurationError, MissingExtraError

__all__ = ["async_url", "masked"]

_DRIVERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "postgresql": (("asyncpg", "postgresql+asyncpg"), ("psycopg", "postgresql+psycopg")),
    "sqlite": (("aiosqlite", "sqlite+aiosqlite"),),
}
_UNREADABLE = "the database URL cannot be read; it looks like dialect+driver://user:password@host:port/name"
_WORD = re.compile(r"[\w.-]+")
_SEVERAL_HOSTS = re.compile(
    r"""
    (?P<login>postgres\w*(?:\+\w+)?://(?:[^:/?@]*(?::[^@]*)?@)?+)
    (?P<hosts>[^@:/?,]+(?::\d+)?(?:,[^@:/?,]+(?::\d+)?)+)
    (?P<rest>[/?].*)?
    """,
    re.VERBOSE | re.DOTALL,
)


def async_url(url: str | URL) -> URL:
    """Return *url* with an installed async driver: ``postgres://`` and ``postgresql://`` get asyncpg or psycopg, ``sqlite://`` aiosqlite.

    A driver in the URL is kept. libpq's form for several hosts, ``//one:5432,two:5432/name``, and for a socket,
    ``//%2Frun%2Fpostgresql/name``, become ``?host=``.

    Raises:
        ConfigurationError: *url* cannot be parsed, or names another database without a driver. The text does not show the URL.
        MissingExtraError: No driver for PostgreSQL is installed.
    """
    parsed = parse(url)
    if "+" in parsed.drivername:
        return parsed
    dialect = "postgresql" if parsed.drivername == "postgres" else parsed.drivername
    for module, drivername in _DRIVERS.get(dialect, ()):
        if find_spec(module) is not None:
            return parsed.set(drivername=drivername)
    if dialect == "postgresql":
        raise MissingExtraError("postgres")
    raise ConfigurationError(f"no async driver for {dialect!r} is known: name an installed one in the URL, {dialect}+DRIVER://...")


def masked(url: URL) -> str:
    """Return *url* without its password and without its query, which may contain a password too."""
    return url.set(query={}).render_as_string(hide_password=True)


def parse(url: str | URL) -> URL:
    if isinstance(url, URL):
        return url
    several = _SEVERAL_HOSTS.fullmatch(url)
    try:
        parsed = make_url(url if several is None else several["login"] + (several["rest"] or ""))
    except (ArgumentError, ValueError):
        raise ConfigurationError(_UNREADABLE) from None
    check_query(url, parsed)
    hosts = [host if ":" in host else f"{host}:5432" for host in several["hosts"].split(",")] if several is not None else []
    if parsed.host is not None and parsed.host.lower().startswith("%2f"):
        hosts, parsed = [unquote(parsed.host)], parsed.set(host="")
    return parsed.update_query_dict({"host": hosts}) if hosts else parsed


def check_query(url: str, parsed: URL) -> None:
    # The login ends at the first @. If the password contains an @, the rest of it can look like a host or like query words.
    login = parsed.username is not None
    query = (url.partition("@")[2] if login else url).partition("?")[2]
    words = parse_qsl(query, keep_blank_values=True)
    if "@" in (parsed.host or "") or (login and "@" in query) or not all(_WORD.fullmatch(word) for word, _ in words):
        raise ConfigurationError(f"{_UNREADABLE}; percent-encode special characters of the password, @ as %40")
    # make_url() drops them.
    for word, value in words:
        if not value:
            raise ConfigurationError(f"{word!r} in the database URL has no value")
