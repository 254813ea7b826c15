"""PostgreSQL: the query of a URL, in the words of libpq and of hosting providers, translated for asyncpg and psycopg."""

import os
import re
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL, Connection, Engine, event

from fastapi_kit.db.engines.options import DatabaseOptions
from fastapi_kit.errors import ConfigurationError

__all__ = ["WITHOUT_LIMITS", "connect_as"]

WITHOUT_LIMITS = ContextVar("WITHOUT_LIMITS", default=False)
"""Whether connections that are made in this context let a statement take as long as it needs."""


_TRUTH = {"true": True, "1": True, "on": True, "yes": True, "false": False, "0": False, "off": False, "no": False}
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_SYNONYMS = {"ssl": "sslmode", "database": "dbname"}
_ELSEWHERE = {
    "connection_limit": "give DatabaseOptions(pool_size=...)",
    "pool_size": "give DatabaseOptions(pool_size=...)",
    "max_overflow": "give DatabaseOptions(max_overflow=...)",
    "pool_timeout": "give DatabaseOptions(pool_timeout=...)",
    "statement_timeout": "give DatabaseOptions(statement_timeout=...), or write options=-c%20statement_timeout%3D...",
}
_SETS_TIMEOUT = re.compile(r"(?:^|\s)(?:-c\s*|--)statement[_-]timeout\s*=", re.IGNORECASE)

_DSN = {
    "gsslib",
    "krbsrvname",
    "passfile",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
}
"""Words of libpq that asyncpg knows, most of them only in a DSN."""
_NUMBERS = {
    "command_timeout": float,
    "max_cacheable_statement_size": int,
    "max_cached_statement_lifetime": int,
    "prepared_statement_cache_size": int,
    "statement_cache_size": int,
    "timeout": float,
}
"""Arguments of asyncpg and of SQLAlchemy's dialect for it."""
_LOGIN = {"user": "user", "password": "password", "dbname": "database"}
"""Words of libpq and the arguments of asyncpg with the same meaning."""
_DEFAULTS = {
    "channel_binding": {"disable", "prefer"},
    "client_encoding": {"utf8", "utf-8", "auto"},
    "gssencmode": {"disable", "prefer"},
    "sslcompression": {"0"},
    "sslsni": {"1"},
}
"""Words of libpq that asyncpg does not know, with the values that ask for what it does anyway."""
_UNPREPARED_ASYNCPG: dict[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    # A statement without a name is sent together with its values, and the server does not keep it.
    "prepared_statement_name_func": lambda: "",
}


def connect_as(engine: Engine, options: DatabaseOptions) -> None:
    """Let *engine* connect with what its URL and *options* say. Call it before the first connection.

    The URL takes precedence over *options* in the time to connect, and in ``statement_timeout`` if its ``options`` set that.

    Raises:
        ConfigurationError: The URL has a word that the driver does not know or support, or a value that the word does not allow. The
            text shows no value.
    """
    words = read(engine.url)
    pooled = take_flag(words, "pgbouncer", default=False) or options.pgbouncer
    prepares = take_flag(words, "prepared_statements", default=True) and not pooled
    for word in {"options", "schema"} & words.keys() if pooled else ():
        raise ConfigurationError(
            f"{word!r} in the database URL has no effect with pgbouncer, whose server connections are shared: "
            "set it for the role or the database (ALTER ROLE ... SET ...)"
        )
    if words.keys() & {"sslmode", "sslrootcert", "sslcert"}:
        tls_context(words)
    if "schema" in words:
        words["options"] = f"-c search_path={as_option(words.pop('schema'))} {words.get('options', '')}".rstrip()
    limit = None if _SETS_TIMEOUT.search(words.get("options", "")) else options.statement_timeout
    if engine.dialect.driver == "asyncpg":
        arguments = for_asyncpg(words, options, limit=limit, pooled=pooled) | ({} if prepares else _UNPREPARED_ASYNCPG)
    else:
        arguments = for_psycopg(words, limit=None if pooled else limit) | ({} if prepares else {"prepare_threshold": None})
        if pooled and limit is not None:
            limit_each_transaction(engine, limit)
    replace_arguments(engine, arguments)


def replace_arguments(engine: Engine, arguments: Mapping[str, Any]) -> None:
    # The URL keeps its query, so that another engine can be created from it.
    words = engine.url.query.keys() - {"host", "port"}

    unlimited = without_limits(arguments)

    def replace(_dialect: object, _record: object, _positional: object, keywords: dict[str, Any]) -> None:
        for word in words:
            keywords.pop(word, None)
        keywords.update(unlimited if WITHOUT_LIMITS.get() else arguments)

    event.listen(engine, "do_connect", replace)


def without_limits(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return *arguments* of a driver without the client's and the server's time limit of a statement."""
    unlimited = dict(arguments)
    if "command_timeout" in arguments:
        unlimited["command_timeout"] = None
    if "statement_timeout" in arguments.get("server_settings", {}):
        unlimited["server_settings"] = arguments["server_settings"] | {"statement_timeout": "0"}
    if _SETS_TIMEOUT.search(arguments.get("options", "")):
        unlimited["options"] = f"{arguments['options']} -c statement_timeout=0"
    return unlimited


def limit_each_transaction(engine: Engine, limit: float) -> None:
    def set_limit(connection: Connection) -> None:
        if WITHOUT_LIMITS.get():
            return
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds(limit)}")

    event.listen(engine, "begin", set_limit)


# --- The words of a URL ---


def read(url: URL) -> dict[str, str]:
    words: dict[str, str] = {}
    for given, value in url.query.items():
        word = _SYNONYMS.get(given, given)
        if word in {"host", "port"}:
            continue
        for each in [value] if isinstance(value, str) else value:
            if words.setdefault(word, each) != each:
                raise ConfigurationError(f"{word!r} is in the database URL twice, with different values")
    for word, cure in _ELSEWHERE.items():
        if word in words:
            raise ConfigurationError(f"{word!r} in the database URL is not a word of PostgreSQL's client library: {cure}")
    for word in _CHOICES.keys() & words.keys():
        words[word] = words[word].lower()
        if words[word] not in _CHOICES[word]:
            raise ConfigurationError(f"{word!r} in the database URL must be one of {', '.join(_CHOICES[word])}")
    return words


def take_flag(words: dict[str, str], word: str, *, default: bool) -> bool:
    flag = _TRUTH.get(words.pop(word, str(default)).lower())
    if flag is None:
        raise ConfigurationError(f"{word!r} in the database URL must be true or false")
    return flag


def read_number(words: Mapping[str, str], word: str, kind: type[int] | type[float]) -> float:
    try:
        number = kind(words[word])
    except ValueError:
        number = -1
    if not 0 <= number < inf:
        raise ConfigurationError(f"{word!r} in the database URL must be a number, 0 or more")
    return number


def as_option(name: str) -> str:
    quoted = name.replace('"', '""')
    return re.sub(r"([\s\\])", r"\\\1", f'"{quoted}"')


def milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def tls_context(words: dict[str, str]) -> ssl.SSLContext:
    """Return a context with the certificates that *words* name. The drivers read the files too late for a clear error."""
    if words.get("sslmode", "").startswith("verify-") and "sslrootcert" not in words:
        words["sslrootcert"] = os.environ.get("PGSSLROOTCERT") or str(Path("~/.postgresql/root.crt").expanduser())
    root = words.get("sslrootcert")
    if root == "system" and words.setdefault("sslmode", "verify-full") != "verify-full":
        raise ConfigurationError("sslrootcert=system in the database URL needs sslmode=verify-full")
    try:
        context = ssl.create_default_context() if root == "system" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if root is not None and root != "system":
            context.load_verify_locations(root)
        if "sslcert" in words and ("sslkey" in words or root == "system"):
            context.load_cert_chain(words["sslcert"], words.get("sslkey"), password=lambda: words.get("sslpassword", ""))
    except OSError as error:
        raise ConfigurationError(
            "a certificate or key that the database URL names or needs (sslrootcert, sslcert, sslkey) cannot be read: "
            f"{error.strerror or type(error).__name__}"
        ) from None
    return context


# --- The drivers ---


def for_asyncpg(words: dict[str, str], options: DatabaseOptions, *, limit: float | None, pooled: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {"command_timeout": options.command_timeout, "timeout": options.pool_timeout}
    settings: dict[str, str] = {}
    if pooled and limit is not None:
        # asyncpg asks the server to cancel a statement that takes longer.
        arguments["command_timeout"] = min(limit, options.command_timeout)
    elif limit is not None:
        settings["statement_timeout"] = milliseconds(limit)
    if "connect_timeout" in words:
        arguments["timeout"] = read_number(words, "connect_timeout", int) or None
        del words["connect_timeout"]
    for word in _NUMBERS.keys() & words.keys():
        arguments[word] = read_number(words, word, _NUMBERS[word])
        del words[word]
    for word, argument in _LOGIN.items():
        if word in words:
            arguments[argument] = words.pop(word)
    for word in ("fallback_application_name", "application_name", "options"):
        if word in words:
            settings[word.removeprefix("fallback_")] = words.pop(word)
    if words.get("sslrootcert") == "system":
        arguments["ssl"] = tls_context(words)
    dsn = {word: words.pop(word) for word in _DSN & words.keys()}
    for word, value in words.items():
        if word not in _DEFAULTS:
            raise ConfigurationError(f"{word!r} in the database URL is unknown to asyncpg")
        if value.lower() not in _DEFAULTS[word]:
            raise ConfigurationError(
                f"asyncpg does not support {word!r} with this value in the database URL; psycopg does: postgresql+psycopg://"
            )
    return arguments | {"server_settings": settings, "dsn": f"postgresql://?{urlencode(dsn)}" if dsn else None}


def for_psycopg(words: dict[str, str], *, limit: float | None) -> dict[str, Any]:
    from psycopg.pq import Conninfo

    for word in words.keys() - {option.keyword.decode() for option in Conninfo.get_defaults()}:
        raise ConfigurationError(f"{word!r} in the database URL is unknown to psycopg")
    if "connect_timeout" in words:
        read_number(words, "connect_timeout", int)
    if limit is not None:
        words["options"] = f"{words.get('options', '')} -c statement_timeout={milliseconds(limit)}".lstrip()
    return dict(words)
