"""Settings: their sources, what production requires, and that no value is shown."""

import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from fastapi_kit.settings import KitSettings, TextList

SECRET = "Zq3vT8rW1xK6mB4nP9sD2fG7hJ5cL0yA"
POSTGRES = "postgresql+asyncpg://app:hush-hush@db.example.com:5432/app"
PRODUCTION = {"ENVIRONMENT": "production", "SECRET_KEY": SECRET, "DATABASE_URL": POSTGRES}


@pytest.fixture(autouse=True)
def _empty_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Use an empty working directory, and remove all variables that are settings."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper() in KitSettings.model_fields:
            monkeypatch.delenv(name)


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_all(values: Mapping[str, str]) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def rejection(**given: object) -> str:
    """Return the text of the ValidationError for these settings."""
    with pytest.raises(ValidationError) as caught:
        KitSettings.model_validate(given)
    return str(caught.value)


# --- Names, defaults, sources ---


def test_the_tutorials_names_have_defaults() -> None:
    """The tutorial's upper-case fields exist, and outside production none is required."""
    settings = KitSettings()

    assert (settings.PROJECT_NAME, settings.VERSION, settings.API_V1_STR) == ("FastAPI app", "0.1.0", "/api/v1")
    assert (settings.DATABASE_URL, settings.DB_POOL_SIZE, settings.DB_MAX_OVERFLOW) == ("sqlite+aiosqlite:///./app.db", 10, 20)
    assert (settings.ALGORITHM, settings.ACCESS_TOKEN_EXPIRE_MINUTES, settings.REFRESH_TOKEN_EXPIRE_DAYS) == ("HS256", 30, 7)
    assert settings.ALLOWED_ORIGINS == ["http://localhost:3000"]
    assert (settings.ENVIRONMENT, settings.DEBUG, settings.LOG_LEVEL, settings.is_production) == ("local", False, "INFO", False)


def test_the_environment_is_read(environ: Any) -> None:
    """Each field is read from the variable of its name. URLs are plain strings."""
    environ({"PROJECT_NAME": "Zenith", "DB_POOL_SIZE": "3", "DATABASE_URL": POSTGRES, "LOG_LEVEL": "debug", "ENVIRONMENT": "Staging"})

    settings = KitSettings()

    assert (settings.PROJECT_NAME, settings.DB_POOL_SIZE, settings.LOG_LEVEL) == ("Zenith", 3, "DEBUG")
    assert type(settings.DATABASE_URL) is str
    assert settings.DATABASE_URL == POSTGRES
    assert settings.ENVIRONMENT == "staging"


def test_an_empty_variable_is_not_set(environ: Any) -> None:
    """An empty variable means the default."""
    environ({"TOKEN_ISSUER": "", "SECRET_KEY": "", "DB_POOL_SIZE": ""})

    settings = KitSettings()

    assert (settings.TOKEN_ISSUER, settings.DB_POOL_SIZE) == (None, 10)
    assert settings.SECRET_KEY.get_secret_value()


def test_the_statement_timeout_can_be_turned_off(environ: Any) -> None:
    """The word none removes the limit."""
    environ({"DB_STATEMENT_TIMEOUT_SECONDS": "none"})

    assert KitSettings().DB_STATEMENT_TIMEOUT_SECONDS is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DB_POOL_SIZE", 0),
        ("DB_MAX_OVERFLOW", -1),
        ("DB_STATEMENT_TIMEOUT_SECONDS", 0),
        ("DB_STATEMENT_TIMEOUT_SECONDS", float("inf")),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", 0),
        ("REFRESH_TOKEN_EXPIRE_DAYS", 10**9),
        ("MAX_BODY_BYTES", 0),
        ("HSTS_SECONDS", -1),
        ("SHUTDOWN_DRAIN_SECONDS", -1),
        ("SHUTDOWN_DRAIN_SECONDS", float("inf")),
        ("LOG_LEVEL", "LOUD"),
        ("API_V1_STR", "api/v1"),
        ("API_V1_STR", "/api/v1/"),
        ("ENVIRONMENT", "prod"),
        ("DATABASE_URL", "app.db"),
        ("ALLOWED_ORIGINS", "app.example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com/login"),
        ("ALLOWED_ORIGINS", "null"),
    ],
)
def test_a_wrong_value_is_rejected_by_name(name: str, value: object) -> None:
    """The error names the field."""
    assert f"\n{name}" in rejection(**{name: value})


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:////srv/my data/app@home.db",
        "sqlite+aiosqlite:///file::memory:?cache=shared&uri=true",
        "postgres://localhost/app",
        "postgresql+asyncpg://app:p%40ss:w/rd@[::1]:5432/app?ssl=require",
        "postgresql+asyncpg:///app?host=/run/postgresql&user=a@b",
        "postgres://app:hush@one:5432,two:6432,three/app?target_session_attrs=primary",
        "mysql+asyncmy://app@db/app?charset=utf8mb4",
    ],
)
def test_a_database_url_of_any_kind_is_accepted(url: str) -> None:
    """Every URL that SQLAlchemy can read is accepted."""
    taken = KitSettings(DATABASE_URL=url).DATABASE_URL

    assert taken == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://app:hush@hush@db/app",
        "postgresql+asyncpg://app:hush-hush",
        "postgresql+asyncpg//app:hush-hush@db",
        "postgresql+asyncpg://app:hush-hush@db/app\n",
        "sqlite+aiosqlite:///hush\n.db",
        "hush-hush",
    ],
)
def test_a_mistyped_database_url_is_rejected_without_its_password(url: str) -> None:
    """The error explains the mistake and does not print the password."""
    text = rejection(DATABASE_URL=url)

    assert "%40" in text
    assert "hush" not in text


def test_settings_cannot_be_changed() -> None:
    """Assigning to a field raises an error."""
    settings = KitSettings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.DEBUG = True


def test_nothing_is_read_at_import() -> None:
    """Importing the module and defining a subclass reads no environment and writes no file."""
    program = (
        "from fastapi_kit.settings import KitSettings\n"
        "class Settings(KitSettings):\n    MAIL_HOST: str\n"
        "import pathlib; print([path.name for path in pathlib.Path().iterdir()])"
    )

    assert run(program, ENVIRONMENT="nonsense", DB_POOL_SIZE="nonsense").stdout == "[]\n"


# --- Secrets and production ---


def test_production_with_everything_given_is_fine() -> None:
    """A random secret and a database server are all that is needed."""
    settings = KitSettings.model_validate(PRODUCTION)

    assert settings.is_production
    assert not Path(".fastapi_kit").exists()


def test_an_empty_production_is_rejected_at_once() -> None:
    """One error lists everything that is missing, with its remedy. No secret is created."""
    text = rejection(ENVIRONMENT="production", DEBUG=True, ALLOWED_ORIGINS="*")

    assert "SECRET_KEY is missing: set it to the output of: openssl rand -hex 32" in text
    assert "DATABASE_URL is missing" in text
    assert "set DEBUG=false" in text
    assert "ALLOWED_ORIGINS has a wildcard" in text
    assert not Path(".fastapi_kit").exists()


@pytest.mark.parametrize("origins", ["*", "https://app.example.com, *", "https://*.example.com"])
def test_wildcard_origins_are_rejected_in_production_only(origins: str) -> None:
    """Production needs the name of every origin."""
    assert "ALLOWED_ORIGINS has a wildcard" in rejection(**PRODUCTION, ALLOWED_ORIGINS=origins)
    assert KitSettings.model_validate({"ALLOWED_ORIGINS": origins}).ALLOWED_ORIGINS


def test_sqlite_in_production_is_allowed_on_demand_only() -> None:
    """SQLite in production needs its own setting."""
    production = {**PRODUCTION, "DATABASE_URL": "SQLite+aiosqlite:////srv/app.db"}

    assert "ALLOW_SQLITE_IN_PRODUCTION=true" in rejection(**production)
    assert KitSettings.model_validate({**production, "ALLOW_SQLITE_IN_PRODUCTION": True}).is_production


def test_production_does_not_use_the_default_database() -> None:
    """DATABASE_URL must be set, even if SQLite is allowed."""
    assert "DATABASE_URL is missing" in rejection(ENVIRONMENT="production", SECRET_KEY=SECRET, ALLOW_SQLITE_IN_PRODUCTION=True)


@pytest.mark.parametrize(
    "secret",
    [
        "your-super-secret-key-change-in-production-min-32-chars",
        "secretsecretsecretsecretsecretsecret",
        "changeme000000000000000000000000000000",
        "CHANGE_ME_PLEASE_CHANGE_ME_PLEASE_12345678",
        "your-256-bit-secret-your-256-bit-secret",
        "django-insecure-this-is-a-secret-key!!",
        "12345678901234567890123456789012",
        "0123456789abcdefghijklmnopqrstuvwxyz",
        "a" * 64,
        "abcabcabcabcabcabcabcabcabcabcabcabc",
        "Tr0ub4dor&3-Tr0ub4dor&3-Tr0ub4do",
        "f81c6e0b4d92a753f81c6e0b4d92a753",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    ],
)
def test_placeholders_are_rejected_in_production(secret: str) -> None:
    """Secrets of templates are rejected, also if they are padded or repeated."""
    text = rejection(**{**PRODUCTION, "SECRET_KEY": secret})

    assert "SECRET_KEY is a placeholder" in text
    assert secret not in text


@given(seed=st.integers(0, 2**64), length=st.integers(16, 64))
def test_random_hex_is_no_placeholder(seed: int, length: int) -> None:
    """A random hex string is accepted."""
    assert KitSettings.model_validate({**PRODUCTION, "SECRET_KEY": Random(seed).randbytes(length).hex()}).is_production


@pytest.mark.parametrize(
    "secret", [SECRET, "correct horse battery staple wall 42", "prod-secret-key-9f8e1c27d35ab604de7a", "пароль-из-случайных-букв-жщшэ"]
)
def test_other_secrets_are_accepted(secret: str) -> None:
    """A passphrase is accepted, and so is a secret that contains the word secret."""
    assert KitSettings.model_validate({**PRODUCTION, "SECRET_KEY": secret}).SECRET_KEY.get_secret_value() == secret


def test_a_short_secret_is_rejected_in_production() -> None:
    """A secret needs at least 32 bytes."""
    assert "fewer than 32 bytes" in rejection(**{**PRODUCTION, "SECRET_KEY": SECRET[:31]})


def test_a_default_secret_in_the_code_is_rejected_in_production() -> None:
    """A secret in the source code does not count as given."""

    class Settings(KitSettings):
        SECRET_KEY: SecretStr = SecretStr(SECRET)

    with pytest.raises(ValidationError, match="SECRET_KEY is missing"):
        Settings.model_validate({"ENVIRONMENT": "production", "DATABASE_URL": POSTGRES})


@pytest.mark.parametrize("environment", ["local", "test", "staging"])
def test_a_missing_secret_is_created_once_and_stored(environment: Any) -> None:
    """Outside production the secret is created, stored in a file with mode 0600, and read again."""
    first, second = KitSettings(ENVIRONMENT=environment), KitSettings(ENVIRONMENT=environment)

    assert first.SECRET_KEY == second.SECRET_KEY
    assert len(first.SECRET_KEY.get_secret_value()) >= 64
    assert stat.S_IMODE(Path(".fastapi_kit/secret_key").stat().st_mode) == 0o600


def test_the_folder_of_the_secret_ignores_itself() -> None:
    """Git does not see the secret."""
    KitSettings()

    assert Path(".fastapi_kit/.gitignore").read_text() == "*\n"
    assert sorted(path.name for path in Path(".fastapi_kit").iterdir()) == [".gitignore", "secret_key"]


def test_a_given_secret_creates_no_file(environ: Any) -> None:
    """A given secret is used as it is."""
    environ({"SECRET_KEY": SECRET})

    assert KitSettings().SECRET_KEY.get_secret_value() == SECRET
    assert not Path(".fastapi_kit").exists()


@pytest.mark.only_full
def test_processes_that_start_at_once_agree() -> None:
    """Four workers that start together use one secret."""
    program = "from fastapi_kit.settings import KitSettings; print(KitSettings().SECRET_KEY.get_secret_value())"

    with ThreadPoolExecutor(4) as pool:
        secrets = {done.stdout for done in pool.map(lambda _: run(program), range(4))}

    assert len(secrets) == 1


def test_without_a_writable_directory_the_secret_is_in_memory() -> None:
    """A warning is issued, and the process uses one secret."""
    Path(".fastapi_kit").write_text("in the way")

    with pytest.warns(RuntimeWarning, match="SECRET_KEY is missing and none can be stored in .fastapi_kit/secret_key"):
        first, second = KitSettings(), KitSettings()

    assert len(first.SECRET_KEY.get_secret_value()) >= 64
    assert first.SECRET_KEY == second.SECRET_KEY


def test_a_damaged_secret_file_is_not_used() -> None:
    """An empty file does not become an empty secret."""
    Path(".fastapi_kit").mkdir()
    Path(".fastapi_kit/secret_key").touch()

    with pytest.warns(RuntimeWarning, match="delete it"):
        settings = KitSettings()

    assert len(settings.SECRET_KEY.get_secret_value()) >= 64


# --- Nothing leaks ---


def test_no_secret_shows_in_a_repr() -> None:
    """DATABASE_URL and SECRET_KEY are not shown."""
    settings = KitSettings.model_validate(PRODUCTION)

    shown = f"{settings!r} {settings} {settings.SECRET_KEY}"

    assert "hush" not in shown
    assert SECRET not in shown


def test_a_redeclared_url_stays_hidden_and_checked() -> None:
    """A subclass that declares DATABASE_URL again keeps its protection."""

    class Settings(KitSettings):
        DATABASE_URL: str

    assert "hush" not in repr(Settings(DATABASE_URL=POSTGRES))
    with pytest.raises(ValidationError, match="is not a database URL"):
        Settings(DATABASE_URL="app.db")


@pytest.mark.parametrize(
    "given",
    [
        {"SECRET_KEY": 12345},
        {"DB_POOL_SIZE": "hush-hush"},
        {"DEBUG": "hush-hush"},
        {"ENVIRONMENT": "hush-hush"},
        {"DATABASE_URL": "hush-hush"},
        {"ALLOWED_ORIGINS": "hush-hush"},
        {"ALLOWED_ORIGINS": '["hush-hush"'},
        {"LOG_LEVEL": "hush-hush"},
        {"API_V1_STR": "hush-hush"},
        {**PRODUCTION, "DEBUG": True},
    ],
)
def test_no_error_prints_a_value(given: dict[str, object]) -> None:
    """The error does not repeat the value."""
    text = rejection(**given)

    assert "hush" not in text
    assert "12345" not in text
    assert SECRET not in text


@pytest.mark.only_full
def test_no_error_prints_what_the_environment_holds(environ: Any) -> None:
    """A traceback does not show values of the environment, those of a subclass included."""
    environ({"SECRET_KEY": SECRET, "DATABASE_URL": POSTGRES})
    program = (
        "from fastapi_kit.settings import KitSettings\nclass Settings(KitSettings):\n    NUMBERS: list[int]\nSettings.model_validate({})"
    )

    done = run(program, check=False, NUMBERS="hush-hush", DEBUG="hush-hush")

    assert done.returncode == 1
    assert "NUMBERS" in done.stderr
    assert "hush" not in done.stderr
    assert SECRET not in done.stderr


# --- Lists, .env, secrets directory, subclasses ---


@pytest.mark.parametrize(
    "text",
    ["https://a.example,https://b.example", " https://a.example , https://b.example/ ,,", '["https://a.example", " https://B.example "]'],
)
def test_lists_are_read_from_commas_or_json(environ: Any, text: str) -> None:
    """Both notations are read from the environment, and white space is stripped."""
    environ({"ALLOWED_ORIGINS": text})

    assert KitSettings().ALLOWED_ORIGINS == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize("text", ["[]", " , "])
def test_a_list_can_be_empty(environ: Any, text: str) -> None:
    """An empty list of origins is possible."""
    environ({"ALLOWED_ORIGINS": text})

    assert KitSettings().ALLOWED_ORIGINS == []


class Listed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    names: TextList


items = st.lists(st.text(st.characters(exclude_characters=",[", categories=["L", "N", "P", "S"]), min_size=1))


@given(items)
def test_a_list_joined_by_commas_comes_back(names: list[str]) -> None:
    """Splitting at commas returns the joined names, with or without spaces."""
    assert Listed.model_validate({"names": ",".join(names)}).names == names
    assert Listed.model_validate({"names": " , ".join(names)}).names == names


@given(items)
def test_a_list_as_json_comes_back(names: list[str]) -> None:
    """A list in JSON is read as that list."""
    text = "[" + ",".join(f'"{name}"' for name in names if '"' not in name and "\\" not in name) + "]"

    assert Listed.model_validate({"names": text}).names == [name for name in names if '"' not in name and "\\" not in name]


def test_unknown_keys_in_the_env_file_are_ignored() -> None:
    """A .env file may contain the keys of other programs."""
    Path(".env").write_text("PROJECT_NAME=Zenith\nPOSTGRES_PASSWORD=hush\nALLOWED_ORIGINS=https://a.example, https://b.example\n")

    settings = KitSettings()

    assert settings.PROJECT_NAME == "Zenith"
    assert settings.ALLOWED_ORIGINS == ["https://a.example", "https://b.example"]
    assert "POSTGRES_PASSWORD" not in settings.model_dump()


def test_the_environment_comes_before_the_env_file(environ: Any) -> None:
    """Environment variables win over the file."""
    Path(".env").write_text("PROJECT_NAME=file\nVERSION=2\n")
    environ({"PROJECT_NAME": "process"})

    settings = KitSettings()

    assert (settings.PROJECT_NAME, settings.VERSION) == ("process", "2")


def test_a_secrets_directory_is_read(tmp_path: Path) -> None:
    """Files of a mounted directory are read, without their final line break."""
    folder = tmp_path / "run-secrets"
    folder.mkdir()
    folder.joinpath("SECRET_KEY").write_text(f"{SECRET}\n")
    folder.joinpath("database_url").write_text(f"{POSTGRES}\n")

    class Settings(KitSettings):
        model_config = SettingsConfigDict(secrets_dir=folder)

    settings = Settings(ENVIRONMENT="production")

    assert settings.SECRET_KEY.get_secret_value() == SECRET
    assert settings.DATABASE_URL == POSTGRES


def test_a_subclass_adds_fields_and_configuration(environ: Any) -> None:
    """A subclass may have required fields and its own model_config. The checks stay."""

    class Settings(KitSettings):
        model_config = SettingsConfigDict(env_prefix="APP_")
        MAIL_HOST: str
        TRUSTED_HOSTS: TextList

    environ({"APP_MAIL_HOST": "mail", "APP_TRUSTED_HOSTS": "a, b", "APP_PROJECT_NAME": "Zenith", "PROJECT_NAME": "other"})

    settings = Settings.model_validate({})

    assert (settings.MAIL_HOST, settings.TRUSTED_HOSTS, settings.PROJECT_NAME) == ("mail", ["a", "b"], "Zenith")
    with pytest.raises(ValidationError, match="SECRET_KEY is missing"):
        Settings(MAIL_HOST="mail", ENVIRONMENT="production")


def run(program: str, *, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run *program* in a process of its own, here."""
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=check)


@pytest.mark.parametrize(("environment", "least"), [("local", 10), ("staging", 10), ("test", 4)])
def test_passwords_cost_something(environment: str, least: int) -> None:
    """R31: a password hash has a cost of at least 10, except in tests."""
    settings = KitSettings.model_validate({"ENVIRONMENT": environment, "PASSWORD_HASH_ROUNDS": least})

    assert least == settings.PASSWORD_HASH_ROUNDS
    assert KitSettings.model_validate({"ENVIRONMENT": environment}).PASSWORD_HASH_ROUNDS == 12
    with pytest.raises(ValidationError, match="PASSWORD_HASH_ROUNDS"):
        KitSettings.model_validate({"ENVIRONMENT": environment, "PASSWORD_HASH_ROUNDS": least - 1})
