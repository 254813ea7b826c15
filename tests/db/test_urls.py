"""The query of a URL reaches the driver, or is rejected before anything connects."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from asyncpg import PostgresError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import URL, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from tests.tables.library import LibraryBase

from fastapi_kit.db import Database, DatabaseOptions
from fastapi_kit.db.engines.urls import async_url
from fastapi_kit.errors import ConfigurationError

DRIVERS = ["asyncpg", "psycopg"]
HOST = "db.example.com/app"


async def arguments_of(url: str | URL, **options: Any) -> dict[str, Any]:
    """Return the keyword arguments that the driver would get at the first connection."""
    database, found = Database(url, options=DatabaseOptions(**options)), dict[str, Any]()

    def note(_dialect: object, _record: object, positional: list[Any], keywords: dict[str, Any]) -> None:
        assert positional == []
        found.update(keywords)
        raise ZeroDivisionError

    event.listen(database.engine.sync_engine, "do_connect", note)
    with pytest.raises(ZeroDivisionError):
        await database.ping()
    return found


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    paths[1].chmod(0o600)
    return paths


# --- asyncpg: it is arguments_of in arguments, settings of the server, and in a DSN what it knows in no other form. ---


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sslmode=require", {"dsn": "postgresql://?sslmode=require"}),
        ("sslmode=REQUIRE", {"dsn": "postgresql://?sslmode=require"}),
        ("ssl=prefer", {"dsn": "postgresql://?sslmode=prefer"}),
        ("sslmode=allow&ssl=allow", {"dsn": "postgresql://?sslmode=allow"}),
        ("target_session_attrs=Read-Write", {"dsn": "postgresql://?target_session_attrs=read-write"}),
        ("sslmode=require&channel_binding=prefer&gssencmode=disable&sslsni=1&sslcompression=0", {"dsn": "postgresql://?sslmode=require"}),
        ("application_name=shop", {"server_settings": {"application_name": "shop"}}),
        ("fallback_application_name=a&application_name=b", {"server_settings": {"application_name": "b"}}),
        ("fallback_application_name=a", {"server_settings": {"application_name": "a"}}),
        ("options=-c%20work_mem%3D64MB", {"server_settings": {"options": "-c work_mem=64MB"}}),
        ("options=endpoint%3Dep-cool-darkness", {"server_settings": {"options": "endpoint=ep-cool-darkness"}}),
        ("schema=My%20schema", {"server_settings": {"options": '-c search_path="My\\ schema"'}}),
        ("client_encoding=UTF8", {"server_settings": {}}),
        ("connect_timeout=7", {"timeout": 7}),
        ("connect_timeout=0", {"timeout": None}),
        ("command_timeout=2.5", {"command_timeout": 2.5}),
        ("user=me%40corp&password=hush%26&dbname=other", {"user": "me@corp", "password": "hush&", "database": "other"}),
        ("prepared_statement_cache_size=7", {"prepared_statement_cache_size": 7}),
        ("statement_cache_size=0", {"statement_cache_size": 0}),
        ("prepared_statements=false", {"statement_cache_size": 0, "prepared_statement_cache_size": 0}),
        ("pgbouncer=TRUE", {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "server_settings": {}}),
        ("pgbouncer=1&application_name=shop", {"statement_cache_size": 0, "server_settings": {"application_name": "shop"}}),
        ("host=/var/run/postgresql", {"host": "/var/run/postgresql", "user": "u"}),
        ("host=/var/run/postgresql&port=5433", {"host": "/var/run/postgresql", "port": 5433}),
    ],
)
async def test_what_asyncpg_gets(query: str, expected: dict[str, Any]) -> None:
    """libpq's words reach asyncpg in its own form."""
    found = await arguments_of(f"postgresql://u:hunter2@{HOST}?{query}")

    assert {word: found[word] for word in expected} == expected
    assert not found.keys() & {
        "sslmode",
        "channel_binding",
        "application_name",
        "options",
        "schema",
        "connect_timeout",
        "pgbouncer",
        "dbname",
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sslmode=REQUIRE&channel_binding=require", {"sslmode": "require", "channel_binding": "require"}),
        ("ssl=prefer", {"sslmode": "prefer"}),
        ("connect_timeout=7", {"connect_timeout": "7"}),
        ("options=-c%20work_mem%3D64MB", {"options": "-c work_mem=64MB"}),
        ("schema=app&options=-c%20work_mem%3D64MB", {"options": '-c search_path="app" -c work_mem=64MB'}),
        ("database=other", {"dbname": "other"}),
        ("tcp_user_timeout=9&keepalives_idle=3", {"tcp_user_timeout": "9", "keepalives_idle": "3"}),
        ("prepared_statements=no", {"prepare_threshold": None}),
        ("pgbouncer=true", {"prepare_threshold": None}),
    ],
)
async def test_what_psycopg_gets(query: str, expected: dict[str, Any]) -> None:
    """libpq's words reach psycopg unchanged; those of hosting providers do not reach it."""
    found = await arguments_of(f"postgresql+psycopg://u:hunter2@{HOST}?{query}")

    assert {word: found[word] for word in expected} == expected
    assert not found.keys() & {"ssl", "schema", "pgbouncer", "prepared_statements", "database"}


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_plain_url_says_as_much_as_before(driver: str) -> None:
    """A plain URL sends no setting, because some poolers reject every setting at the login."""
    found = await arguments_of(f"postgresql+{driver}://u:p@{HOST}")

    assert not found.get("server_settings")
    assert not found.keys() & {"options", "prepare_threshold", "statement_cache_size"}


# --- Both drivers: rejected with the word and a reason, without the value ---


REFUSED = [
    ("sslmode=hunter2", "'sslmode' .* must be one of disable, allow"),
    ("ssl=true", "'sslmode' .* must be one of"),
    ("target_session_attrs=leader", "'target_session_attrs' .* must be one of any"),
    ("pgbouncer=hunter2", "'pgbouncer' .* must be true or false"),
    ("pgbouncer", "'pgbouncer' .* has no value"),
    ("sslmode=", "'sslmode' .* has no value"),
    ("connect_timeout=hunter2", "'connect_timeout' .* must be a number"),
    ("connect_timeout=-1", "'connect_timeout' .* must be a number"),
    ("connect_timeout=1.5", "'connect_timeout' .* must be a number"),
    ("sslmode=require&sslmode=disable", "'sslmode' .* twice"),
    ("sslmode=require&ssl=disable", "'sslmode' .* twice"),
    ("colour=hunter2", "'colour' .* is unknown to"),
    ("SSLMODE=require", "'SSLMODE' .* is unknown to"),
    ("connection_limit=5", "'connection_limit' .*pool_size"),
    ("statement_timeout=5", "'statement_timeout' .*DatabaseOptions"),
    ("pgbouncer=true&options=-c%20work_mem%3D64MB", "'options' .* pgbouncer"),
    ("pgbouncer=true&schema=app", "'schema' .* pgbouncer"),
    ("sslrootcert=/no/such/hunter2", "cannot be read: No such file"),
    ("sslmode=require&sslrootcert=system", "sslmode=verify-full"),
    ("application_name=a@b", "percent-encode"),
]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("query", "said"), REFUSED)
def test_what_a_driver_cannot_do_is_rejected(driver: str, query: str, said: str) -> None:
    """A word that a driver does not support raises ConfigurationError with the word and no value, at construction."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        Database(f"postgresql+{driver}://u:hunter2@{HOST}?{query}")

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("query", ["channel_binding=require", "gssencmode=require", "sslsni=0", "client_encoding=latin1"])
def test_what_only_psycopg_can_do(query: str) -> None:
    """A word that only psycopg supports raises ConfigurationError that suggests psycopg."""
    with pytest.raises(ConfigurationError, match=r"asyncpg does not support .* postgresql\+psycopg://"):
        Database(f"postgresql://u:p@{HOST}?{query}")

    Database(f"postgresql+psycopg://u:p@{HOST}?{query}")


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunt@er2?four=x@host/db", "postgresql://u:hunt@er2@host/db", "postgresql://u:hunt@er2?x&y@host/db"]
)
def test_a_password_that_is_not_encoded_is_not_taken_for_words(url: str) -> None:
    """A password with an unescaped @ or ? raises ConfigurationError that shows no part of it."""
    with pytest.raises(ConfigurationError, match="percent-encode") as caught:
        Database(url)

    assert not [part for part in ("hunt", "er2", "four") if part in str(caught.value)]


def test_a_url_object_is_read_as_text_is() -> None:
    """An empty or unknown word in a URL object is rejected too."""
    url = URL.create("postgresql", host="host", query={"colour": "red"})
    with pytest.raises(ConfigurationError, match="'colour'"):
        Database(url)


def test_another_engine_can_be_made_from_the_url() -> None:
    """The URL of the engine keeps its query, so a second engine connects alike; the repr shows none of it."""
    database = Database(f"postgresql://u:hunter2@{HOST}?sslmode=verify-full&sslrootcert=system&password=hunter2")

    assert database.engine.url.query["sslmode"] == "verify-full"
    assert Database(database.engine.url).engine.url == database.engine.url
    assert "hunter2" not in repr(database)


# --- Hosts. ---


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://u:p@one:5432,two:6432/app", ["one", "two"], [5432, 6432]),
        ("postgresql://u:p@one,two/app", ["one", "two"], [5432, 5432]),
        ("postgresql://u:1,b:2/c@one,two", ["one", "two"], [5432, 5432]),
        ("postgresql://one,two/app?user=a@b", ["one", "two"], [5432, 5432]),
        ("postgresql+asyncpg://one,two:6432/app?target_session_attrs=primary", ["one", "two"], [5432, 6432]),
        ("postgresql://u:p@/app?host=one:5432&host=two:6432", ["one", "two"], [5432, 6432]),
    ],
)
async def test_several_hosts(url: str, host: list[str], port: list[int]) -> None:
    """Several hosts work in libpq's form and in SQLAlchemy's."""
    found = await arguments_of(url)

    assert (found["host"], found["port"]) == (host, port)


@pytest.mark.parametrize("password", ["a,b", "1,two:2/c", "a?b=c", "a?sslmode=", "%2Fa", "a%40b,c"])
def test_a_comma_or_a_question_mark_in_a_password_is_a_part_of_it(password: str) -> None:
    """Everything up to the @ belongs to the password."""
    read = async_url(f"postgresql://u:{password}@host/app?sslmode=require")

    assert (read.password, read.host, dict(read.query)) == (unquote(password), "host", {"sslmode": "require"})


async def test_several_hosts_for_psycopg() -> None:
    """psycopg gets several hosts joined by commas."""
    found = await arguments_of("postgresql+psycopg://u:p@one:5432,two:6432/app")

    assert (found["host"], found["port"]) == ("one,two", "5432,6432")


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@one:x,two:5432/app", "postgresql://u:p@/app?host=one,two", "postgresql://u:p@host:hunter2/app"]
)
def test_hosts_that_cannot_be_read(url: str) -> None:
    """A wrong port, or a missing one where all hosts need one, raises ConfigurationError."""
    with pytest.raises(ConfigurationError) as caught:
        Database(url)

    assert "hunter2" not in str(caught.value)


async def test_a_socket_in_the_place_of_the_host() -> None:
    """A percent-encoded path of a socket works, and so does an @ in the query of a URL without a login."""
    assert (await arguments_of("postgresql:///app?host=/run/postgresql&user=a@b"))["user"] == "a@b"
    found = await arguments_of("postgresql://u:p@%2Fvar%2Frun%2Fpostgresql/app")

    assert found["host"] == "/var/run/postgresql"
    assert async_url(async_url("postgresql://%2Ftmp/app").render_as_string()) == async_url("postgresql:///app?host=/tmp")


# --- Certificates. ---


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_certificate_that_cannot_be_used_is_rejected(driver: str, tmp_path: Path) -> None:
    """A missing or wrong certificate or key raises ConfigurationError at construction."""
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = make_certificate(tmp_path / "other")
    (tmp_path / "letter.pem").write_text("Dear Sir")
    url = f"postgresql+{driver}://u:p@{HOST}?sslmode=verify-full"
    Database(f"{url}&sslrootcert={certificate}&sslcert={certificate}&sslkey={key}")

    for query in (f"sslrootcert={tmp_path / 'letter.pem'}", f"sslrootcert={certificate}&sslcert={certificate}&sslkey={other}"):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            Database(f"{url}&{query}")


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_verification_needs_an_authority(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The authority comes from the URL, from PGSSLROOTCERT, or from the user's folder for it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    with pytest.raises(ConfigurationError, match="sslrootcert"):
        Database(f"postgresql://{HOST}?sslmode={mode}")

    certificate, _ = make_certificate(tmp_path)
    monkeypatch.setenv("PGSSLROOTCERT", str(certificate))
    Database(f"postgresql://{HOST}?sslmode={mode}")


async def test_the_systems_authorities() -> None:
    """sslrootcert=system verifies the server with the authorities of the system."""
    found = await arguments_of(f"postgresql://{HOST}?sslrootcert=system")

    context: ssl.SSLContext = found["ssl"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert (await arguments_of(f"postgresql+psycopg://{HOST}?sslrootcert=system"))["sslmode"] == "verify-full"


# --- Timeouts: the URL takes precedence ---


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "options", ["-c statement_timeout=1234", "-cstatement_timeout=1234", "--statement-timeout=1234", "-c work_mem=1MB"]
)
async def test_the_statement_timeout_of_the_url_wins(postgres_url: URL, driver: str, options: str) -> None:
    """A statement_timeout in the URL takes precedence over the options."""
    url = postgres_url.set(drivername=f"postgresql+{driver}").update_query_dict({"options": options, "application_name": "shop"})
    database = Database(url, options=DatabaseOptions(statement_timeout=10))
    async with database.begin() as session:
        row = (await session.execute(text("SELECT current_setting('statement_timeout'), current_setting('application_name')"))).one()
    await database.dispose()

    assert tuple(row) == ("1234ms" if "1234" in options else "10s", "shop")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_schema_is_the_search_path(postgres_url: URL, driver: str) -> None:
    """schema= sets the search_path, with quotes and spaces."""
    url = postgres_url.set(drivername=f"postgresql+{driver}").update_query_dict({"schema": 'My "own" schema\\'})
    database = Database(url)
    async with database.begin() as session:
        found = (await session.scalars(text("SHOW search_path"))).one()
    await database.dispose()

    assert found == '"My ""own"" schema\\"'


# --- A mistake is not a lost database ---


async def test_a_wrong_argument_is_raised_as_it_is() -> None:
    """ping() and the lifespan raise the driver's error for a wrong argument."""
    engine = create_async_engine("postgresql+asyncpg://127.0.0.1/app", connect_args={"colour": "red"})
    database = Database(engine)

    with pytest.raises(TypeError, match="colour"):
        await database.ping()
    with pytest.raises(TypeError, match="colour"):
        async with database.lifespan(None):
            pass
    with pytest.raises(TypeError, match="colour"):
        await database.create_tables(LibraryBase.metadata)


@pytest.mark.parametrize("options", ["-c colour=red", "-c statement_timeout=soon"])
async def test_a_setting_that_the_server_rejects_is_raised_as_it_is(postgres_url: URL, options: str) -> None:
    """The server's error for a wrong setting is raised unchanged."""
    database = Database(postgres_url.update_query_dict({"options": options}))
    # SQLAlchemy 2.0 raises what asyncpg raises while it connects as it is.
    with pytest.raises((DBAPIError, PostgresError), match=r"colour|statement_timeout"):
        await database.ping()


def test_pgbouncer_does_not_reach_an_engine_that_exists() -> None:
    """pgbouncer=True with an engine raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="statement_cache_size"):
        Database(create_async_engine("postgresql+asyncpg://127.0.0.1/app"), options=DatabaseOptions(pgbouncer=True))


@pytest.mark.parametrize("wanted", [True, False])
async def test_reads_in_autocommit_are_an_option(wanted: bool) -> None:
    """The Database keeps autocommit_reads for its reads."""
    database = Database("sqlite://", options=DatabaseOptions(autocommit_reads=wanted))

    assert database.autocommit_reads is wanted
    assert Database("sqlite://").autocommit_reads
    await database.dispose()
