"""Settings of the library and of your application, read from the environment."""

import json
import logging
import re
import secrets
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fastapi_kit._secrets import is_placeholder
from fastapi_kit.errors import ConfigurationError

__all__ = ["KitSettings", "TextList", "check_settings"]


def read_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [item.strip() for item in value.split(",") if item.strip()]
    try:
        items: list[object] = json.loads(value)
    except ValueError:
        raise ValueError('is not a JSON list: write ["a", "b"], or a, b without brackets') from None
    stripped = [item.strip() if isinstance(item, str) else item for item in items]
    return [item for item in stripped if item != ""]


def lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def read_none(value: object) -> object:
    return None if lower(value) == "none" else value


def check_level(name: str) -> str:
    level = name.strip().upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError("is not a level of the logging module: use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


def check_prefix(path: str) -> str:
    if not re.fullmatch(r"(/[\w.~-]+)*", path):
        raise ValueError("must start with a slash and not end with one, as /api/v1 does, or be empty")
    return path


def check_origin(text: str) -> str:
    origin = text.rstrip("/").lower()
    if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", origin):
        raise ValueError("an origin is scheme://host or scheme://host:port, without a path")
    return origin


TextList = Annotated[list[str], NoDecode, BeforeValidator(read_list)]
"""A list of strings, read from ``a, b`` or ``["a", "b"]``. Empty items are dropped. Use it for the lists of your own settings, too."""


class KitSettings(BaseSettings):
    """Settings with the names of the FastAPI tutorial. Subclass it to add your own. Create it once, in your application.

    A field is read from the environment variable of its name, or from ``.env`` in the working directory, or from the
    ``secrets_dir`` of *model_config* if you set one. An empty variable counts as not set. Unknown keys are ignored. An instance
    cannot be changed.

    Outside production every field has a default. A missing SECRET_KEY is created once and stored in ``.fastapi_kit/secret_key``.
    With ``ENVIRONMENT=production``, SECRET_KEY and DATABASE_URL must be set; SQLite, DEBUG and wildcard origins are rejected.

    Raises:
        ValidationError: A value is missing or wrong. The text of the error never contains a value.

    Example:
        ```python
        from fastapi_kit import KitSettings

        class Settings(KitSettings):
            MAIL_FROM: str = "noreply@example.com"

        settings = Settings(PROJECT_NAME="Shop")
        assert settings.MAIL_FROM == "noreply@example.com"
        assert settings.ACCESS_TOKEN_EXPIRE_MINUTES == 30
        ```
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    ENVIRONMENT: Annotated[Literal["local", "test", "staging", "production"], BeforeValidator(lower)] = "local"
    DEBUG: bool = False
    LOG_LEVEL: Annotated[str, AfterValidator(check_level)] = "INFO"
    PROJECT_NAME: str = "FastAPI app"
    VERSION: str = "0.1.0"
    API_V1_STR: Annotated[str, AfterValidator(check_prefix)] = "/api/v1"

    DATABASE_URL: str = "sqlite+aiosqlite:///./app.db"
    """A plain string, as in the tutorial. It is not shown in the repr or in errors. Required in production."""
    DB_POOL_SIZE: Annotated[int, Field(ge=1, le=10_000)] = 10
    DB_MAX_OVERFLOW: Annotated[int, Field(ge=0, le=10_000)] = 20
    DB_STATEMENT_TIMEOUT_SECONDS: Annotated[float | None, Field(gt=0, le=86_400, allow_inf_nan=False), BeforeValidator(read_none)] = 10.0
    """``none`` in the environment sets no limit."""
    ALLOW_SQLITE_IN_PRODUCTION: bool = False
    CACHE_URL: SecretStr | None = None
    """``redis://`` or ``rediss://``. None: the memory of each process."""

    SECRET_KEY: SecretStr = SecretStr("")
    """At least 32 bytes. Required in production. Elsewhere a missing one is created and stored."""
    ALGORITHM: str = "HS256"
    ACCESS_TOKEN_EXPIRE_MINUTES: Annotated[int, Field(ge=1, le=525_600)] = 30
    REFRESH_TOKEN_EXPIRE_DAYS: Annotated[int, Field(ge=1, le=3_650)] = 7
    PASSWORD_HASH_ROUNDS: Annotated[int, Field(ge=4, le=31)] = 12
    """The cost of bcrypt as a power of two: at least 10, and at least 4 if ENVIRONMENT is ``test``."""
    TOKEN_ISSUER: str | None = None
    TOKEN_AUDIENCE: str | None = None

    ALLOWED_ORIGINS: Annotated[list[Annotated[str, AfterValidator(check_origin)]], NoDecode, BeforeValidator(read_list)] = [
        "http://localhost:3000"
    ]
    """The origins of CORS. ``[]`` in the environment allows no other origin."""
    MAX_BODY_BYTES: Annotated[int, Field(ge=1, le=2**40)] = 1_048_576
    """The limit for the body of a request, uploads included."""
    HSTS_SECONDS: Annotated[int, Field(ge=0, le=2**31)] = 0
    """How long browsers use only https. 0 sends no header."""
    SHUTDOWN_DRAIN_SECONDS: Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)] = 0.0
    """How long the application goes on serving after SIGTERM, while it reports that it is not ready."""

    @property
    def is_production(self) -> bool:
        """Whether ENVIRONMENT is ``production``."""
        return self.ENVIRONMENT == "production"

    @field_validator("DATABASE_URL")
    @classmethod
    def _check_database_url(cls, url: str) -> str:
        if not DATABASE_URL.fullmatch(url):
            raise ValueError(
                "is not a database URL such as postgresql+asyncpg://user:password@host:5432/name; "
                "percent-encode special characters of the password, @ as %40"
            )
        return url

    @field_validator("SECRET_KEY")
    @classmethod
    def _fill_secret_key(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        may_be_created = info.data.get("ENVIRONMENT", "production") != "production"
        return SecretStr(development_secret()) if may_be_created and not secret.get_secret_value() else secret

    @field_validator("PASSWORD_HASH_ROUNDS")
    @classmethod
    def _check_hash_rounds(cls, rounds: int, info: ValidationInfo) -> int:
        if rounds < MIN_ROUNDS and info.data.get("ENVIRONMENT") != "test":
            raise ValueError(f"must be at least {MIN_ROUNDS}: a lower cost is for ENVIRONMENT=test")
        return rounds

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        if self.is_production and (problems := list(production_problems(self))):
            raise ValueError("\n- ".join(["not safe in production:", *problems]))
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # By name, so that a subclass that declares DATABASE_URL again does not print its password.
        return [(name, value) for name, value in super().__repr_args__() if name != "DATABASE_URL"]


def check_settings(settings: object, *names: str) -> None:
    """Raise ConfigurationError unless *settings* has all *names*. For settings that are not KitSettings."""
    if missing := [name for name in names if not hasattr(settings, name)]:
        raise ConfigurationError(
            f"{type(settings).__name__} has no {', '.join(missing)}: subclass KitSettings, or pass the values as arguments"
        )


DATABASE_URL = re.compile(
    r"""
    sqlite(\+\w+)?://[^\x00-\x1f\x7f]*                  # what follows is a path
    | [a-z]\w*(\+\w+)?://
      ([^@\s]*@)?                                       # user and password, in which an @ is written %40
      (\[[\da-f:.%]*\] | [^@:/?\[\]\s]*) (:\d*)?        # host and port
      (,[^@:/?\[\]\s]* (:\d*)?)*                       # more hosts
      (/[^@?\s]*)? (\?\S*)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
MIN_SECRET_BYTES = 32
MIN_ROUNDS = 10


def production_problems(settings: KitSettings) -> Iterator[str]:
    """Yield what is not safe in production, each with its remedy."""
    secret, remedy = settings.SECRET_KEY.get_secret_value(), "set it to the output of: openssl rand -hex 32"
    if "SECRET_KEY" not in settings.model_fields_set or not secret:
        yield f"SECRET_KEY is missing: {remedy}"
    elif len(secret.encode(errors="replace")) < MIN_SECRET_BYTES:
        yield f"SECRET_KEY has fewer than {MIN_SECRET_BYTES} bytes: {remedy}"
    elif is_placeholder(secret):
        yield f"SECRET_KEY is a placeholder that is publicly known or easy to guess: {remedy}"
    if "DATABASE_URL" not in settings.model_fields_set:
        yield "DATABASE_URL is missing: set it to the URL of the database server"
    elif settings.DATABASE_URL.lower().startswith("sqlite") and not settings.ALLOW_SQLITE_IN_PRODUCTION:
        yield "DATABASE_URL is SQLite: use a database server, or set ALLOW_SQLITE_IN_PRODUCTION=true"
    if settings.DEBUG:
        yield "DEBUG is on: set DEBUG=false"
    if any("*" in origin for origin in settings.ALLOWED_ORIGINS):
        yield "ALLOWED_ORIGINS has a wildcard: name every origin, such as https://app.example.com"


SECRET_FILE = Path(".fastapi_kit", "secret_key")


def development_secret() -> str:
    """Return the secret that all processes in this working directory share, so that logins outlive a restart."""
    try:
        return stored_secret()
    except (OSError, ValueError) as error:
        warnings.warn(
            f"SECRET_KEY is missing and none can be stored in {SECRET_FILE} ({error}): tokens end with this process. "
            "Set SECRET_KEY, or let the process write to its working directory.",
            RuntimeWarning,
            stacklevel=2,
        )
        return process_secret()


def stored_secret() -> str:
    """Return the secret in the file. Raises OSError, or ValueError if the file is damaged."""
    SECRET_FILE.parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        # Only one process creates the file, and only that one writes it.
        SECRET_FILE.touch(mode=0o600, exist_ok=False)
        SECRET_FILE.with_name(".gitignore").write_text("*\n", encoding="ascii")
        SECRET_FILE.write_text(secrets.token_urlsafe(64), encoding="ascii")
    for _ in range(10):
        secret = SECRET_FILE.read_text(encoding="utf-8", errors="replace").strip()
        if len(secret) >= MIN_SECRET_BYTES:
            return secret
        # Another process has created the file and is about to write it.
        time.sleep(0.05)
    raise ValueError("the file is damaged: delete it")


@cache
def process_secret() -> str:
    return secrets.token_urlsafe(64)
