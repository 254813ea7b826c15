"""What every part of the library can be told, from the environment."""

import json
import logging
import re
import secrets
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fastapi_kit._secrets import is_placeholder

__all__ = ["KitSettings", "TextList"]


def _read_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    items = _read_json_list(value) if value.lstrip().startswith("[") else value.split(",")
    stripped = [item.strip() if isinstance(item, str) else item for item in items]
    return [item for item in stripped if item != ""]


def _read_json_list(text: str) -> list[object]:
    try:
        items: list[object] = json.loads(text)
    except ValueError:
        raise ValueError('is not a JSON list: write ["a", "b"], or a, b without brackets') from None
    return items


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _known_level(name: str) -> str:
    level = name.strip().upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError("is not a level of the logging module: use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


def _none_if_said(value: object) -> object:
    return None if _lower(value) == "none" else value


def _path_prefix(path: str) -> str:
    if not re.fullmatch(r"(/[\w.~-]+)*", path):
        raise ValueError("must start with a slash and not end with one, as /api/v1 does, or be empty")
    return path


def _origin(text: str) -> str:
    origin = text.rstrip("/").lower()
    if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", origin):
        raise ValueError("an origin is scheme://host or scheme://host:port, without a path")
    return origin


TextList = Annotated[list[str], NoDecode, BeforeValidator(_read_list)]
"""A list of texts, read from ``a, b`` or ``["a", "b"]``; blanks are dropped. For list settings of the host's own, too."""

_HIDDEN = {"DATABASE_URL", "REDIS_URL"}


class KitSettings(BaseSettings):
    """Settings under the tutorial's names. Subclass it in the host; create it once, in the host.

    Each field is read from the environment variable of its name, else from ``.env`` in the working directory, else from the
    ``secrets_dir`` of *model_config* where one is set. An empty variable counts as not set; unknown keys are ignored.
    In production a secret, no wildcard CORS, no debug and no SQLite are demanded; elsewhere everything has a default, and a
    missing secret is made once and kept in ``.fastapi_kit/secret_key``. An instance cannot be changed.

    Raises pydantic's ValidationError, whose text never shows a value.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    ENVIRONMENT: Annotated[Literal["local", "test", "staging", "production"], BeforeValidator(_lower)] = "local"
    DEBUG: bool = False
    LOG_LEVEL: Annotated[str, AfterValidator(_known_level)] = "INFO"
    PROJECT_NAME: str = "FastAPI app"
    VERSION: str = "0.1.0"
    API_V1_STR: Annotated[str, AfterValidator(_path_prefix)] = "/api/v1"

    DATABASE_URL: str = "sqlite+aiosqlite:///./app.db"
    """Plain text, as tutorials read it; kept out of the repr and of errors, as REDIS_URL is. Must be given in production."""
    DB_POOL_SIZE: Annotated[int, Field(ge=1, le=10_000)] = 10
    DB_MAX_OVERFLOW: Annotated[int, Field(ge=0, le=10_000)] = 20
    DB_STATEMENT_TIMEOUT_SECONDS: Annotated[float | None, Field(gt=0, le=86_400, allow_inf_nan=False), BeforeValidator(_none_if_said)] = (
        10.0
    )
    """``none`` in the environment sets no limit."""
    ALLOW_SQLITE_IN_PRODUCTION: bool = False

    SECRET_KEY: SecretStr = SecretStr("")
    """At least 32 bytes; must be given in production, made and kept elsewhere."""
    ALGORITHM: str = "HS256"
    ACCESS_TOKEN_EXPIRE_MINUTES: Annotated[int, Field(ge=1, le=525_600)] = 30
    REFRESH_TOKEN_EXPIRE_DAYS: Annotated[int, Field(ge=1, le=3_650)] = 7
    PASSWORD_HASH_ROUNDS: Annotated[int, Field(ge=4, le=31)] = 12
    """Cost of bcrypt, two to its power: at least 10, in ENVIRONMENT ``test`` at least 4."""
    TOKEN_ISSUER: str | None = None
    TOKEN_AUDIENCE: str | None = None

    ALLOWED_ORIGINS: Annotated[list[Annotated[str, AfterValidator(_origin)]], NoDecode, BeforeValidator(_read_list)] = [
        "http://localhost:3000"
    ]
    """``[]`` in the environment allows none."""
    MAX_BODY_BYTES: Annotated[int, Field(ge=1, le=2**40)] = 1_048_576
    """Of a request's body, uploads included."""
    HSTS_SECONDS: Annotated[int, Field(ge=0, le=2**31)] = 0
    """How long browsers are to use https only; 0 says nothing to them."""
    SHUTDOWN_DRAIN_SECONDS: Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)] = 0.0
    """How long the app goes on serving after SIGTERM, while it says that it is not ready."""
    REDIS_URL: str | None = None
    """The tutorial's value is ``redis://localhost:6379``."""

    @property
    def is_production(self) -> bool:
        """Whether ENVIRONMENT is production."""
        return self.ENVIRONMENT == "production"

    @field_validator("DATABASE_URL")
    @classmethod
    def _check_database_url(cls, url: str) -> str:
        if not _DATABASE_URL.fullmatch(url):
            raise ValueError(
                "is not a database URL such as postgresql+asyncpg://user:password@host:5432/name; "
                "percent-encode special characters of the password, @ as %40"
            )
        return url

    @field_validator("REDIS_URL")
    @classmethod
    def _check_redis_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return url

    @field_validator("SECRET_KEY")
    @classmethod
    def _make_missing_secret(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        may_be_made = info.data.get("ENVIRONMENT", "production") != "production"
        return SecretStr(_development_secret()) if may_be_made and not secret.get_secret_value() else secret

    @field_validator("PASSWORD_HASH_ROUNDS")
    @classmethod
    def _refuse_cheap_hashes(cls, rounds: int, info: ValidationInfo) -> int:
        if rounds < _MIN_ROUNDS and info.data.get("ENVIRONMENT") != "test":
            raise ValueError(f"must be at least {_MIN_ROUNDS}: a lower cost is for ENVIRONMENT=test")
        return rounds

    @model_validator(mode="after")
    def _refuse_unsafe_production(self) -> Self:
        problems = [*self._secret_problems(), *self._database_problems(), *self._web_problems()] if self.is_production else []
        if problems:
            raise ValueError("\n- ".join(["not safe in production:", *problems]))
        return self

    def _secret_problems(self) -> Iterator[str]:
        secret = self.SECRET_KEY.get_secret_value()
        if "SECRET_KEY" not in self.model_fields_set or not secret:
            yield f"SECRET_KEY is missing: {_MAKE_A_SECRET}"
        elif len(secret.encode(errors="replace")) < _MIN_SECRET_BYTES:
            yield f"SECRET_KEY has fewer than {_MIN_SECRET_BYTES} bytes: {_MAKE_A_SECRET}"
        elif is_placeholder(secret):
            yield f"SECRET_KEY is a placeholder that everybody knows or can guess: {_MAKE_A_SECRET}"

    def _database_problems(self) -> Iterator[str]:
        if "DATABASE_URL" not in self.model_fields_set:
            yield "DATABASE_URL is missing: set it to the URL of the database server"
        elif self.DATABASE_URL.lower().startswith("sqlite") and not self.ALLOW_SQLITE_IN_PRODUCTION:
            yield "DATABASE_URL is SQLite: use a database server, or set ALLOW_SQLITE_IN_PRODUCTION=true"

    def _web_problems(self) -> Iterator[str]:
        if self.DEBUG:
            yield "DEBUG is on: set DEBUG=false"
        if any("*" in origin for origin in self.ALLOWED_ORIGINS):
            yield "ALLOWED_ORIGINS has a wildcard: name every origin, such as https://app.example.com"

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # By name, so that a host that declares DATABASE_URL anew does not print its password.
        return [(name, value) for name, value in super().__repr_args__() if name not in _HIDDEN]


_DATABASE_URL = re.compile(
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

_MIN_SECRET_BYTES = 32
_MIN_ROUNDS = 10
_MAKE_A_SECRET = "set it to the output of: openssl rand -hex 32"
_SECRET_FILE = Path(".fastapi_kit", "secret_key")


def _development_secret() -> str:
    try:
        return _kept_secret(_SECRET_FILE)
    except (OSError, ValueError) as error:
        warnings.warn(
            f"SECRET_KEY is missing and none can be kept in {_SECRET_FILE} ({error}): tokens end with this process. "
            "Set SECRET_KEY, or let the process write to its working directory.",
            RuntimeWarning,
            stacklevel=2,
        )
        return _memory_secret()


def _kept_secret(path: Path) -> str:
    """Return the secret in *path*, written first where there is none. Raises OSError, or ValueError if it is damaged."""
    if not path.exists():
        _write_secret(path)
    secret = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(secret) < _MIN_SECRET_BYTES:
        raise ValueError("the file is damaged: delete it")
    return secret


def _write_secret(path: Path) -> None:
    """Write a new secret to *path*, unless another process is faster: a link appears at once and whole, and only once."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.parent.joinpath(".gitignore").write_text("*\n", encoding="ascii")
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    draft.touch(mode=0o600, exist_ok=False)
    try:
        draft.write_text(_new_secret(), encoding="ascii")
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


@cache
def _memory_secret() -> str:
    return _new_secret()


def _new_secret() -> str:
    return secrets.token_urlsafe(64)
