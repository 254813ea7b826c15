"""The public names: pinned, real, documented, and cheap to import."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import fastapi_kit

EXPORTS = {
    "fastapi_kit": """
        Base CRUDService ConflictError Database Endpoint JWTService KitError KitSettings NotFoundError Page PasswordHasher
        PageParams PermissionDeniedError RouterOptions TimestampMixin TokenClaims UUIDv7Mixin UserInputError create_app crud_router
        get_current_user_factory health_router register_exception_handlers require require_access unit_of_work
    """,
    "fastapi_kit.auth": """
        APIKeyTransport BearerTransport CookieTransport CurrentUserDependency FirstMessageTransport JWTService Key Keyring PasswordHasher
        PasswordPolicy Roles SubprotocolTransport TokenClaims TokenPolicy TokenVerifier Transport UserDependency accept_websocket
        get_claims_factory get_current_user_factory jwks_router require require_access while_logged_in
    """,
    "fastapi_kit.auth.api_keys": "APIKeyInfo APIKeyRecord APIKeyStore APIKeys MemoryAPIKeyStore NewAPIKey",
    "fastapi_kit.auth.logins": """
        ClientInfo EndableLogins LoginInfo LoginRecord LoginStore Logins MemoryLoginStore StatelessLogins StoredLogins TokenPair
    """,
    "fastapi_kit.auth.passwords": "HashContext PasswordCheck PasswordHasher PasswordPolicy",
    "fastapi_kit.auth.requests": """
        APIKeyTransport BearerTransport CookieTransport CurrentUserDependency FirstMessageTransport Roles SubprotocolTransport Transport
        UserDependency accept_websocket client_of get_claims_factory get_current_user_factory jwks_router require
        require_access while_logged_in
    """,
    "fastapi_kit.auth.second_factor": """
        Cipher Enrolment FactorState FactorStore RecoveryCodes SecondFactor TOTP new_recovery_codes use_recovery_code
    """,
    "fastapi_kit.auth.tokens": """
        Algorithm Clock JWKSet JWTService Key Keyring TokenClaims TokenPolicy TokenType TokenVerifier
    """,
    "fastapi_kit.auth.tokens.remote": "Fetch RemoteIssuer",
    "fastapi_kit.auth.users": """
        Account AccountChange Accounts AuthEndpoint AuthFlow ChangeKind EditableAccounts Impersonation ImpersonationStart ImpersonationToken
        LoginRead LoginThrottle Mail MailFlow NoChanges NoStoreRoute Notify PasswordForm RefreshRequest SendLink UserAccounts UserMixin
        UserProfile UserRegister auth_router begin_second_factor confirm_second_factor disable_second_factor login_with_code normalize_email
        renew_recovery_codes superuser_command
    """,
    "fastapi_kit.cache": "Cache cached",
    "fastapi_kit.crud": "CRUDService FOR_UPDATE FilterSpec KeysetSpec QuerySpec ReadService RowLock SparseModel SparseSpec Where any_of",
    "fastapi_kit.crud.filters": "FilterSpec KeysetSpec QuerySpec Where any_of",
    "fastapi_kit.db": """
        Base Database DatabaseOptions NAMING_CONVENTION TimestampMixin UTCDateTime UUIDv7Mixin UnitOfWork VersionMixin
        as_kit_error on_commit run_transaction typed_errors unit_of_work uuid7
    """,
    "fastapi_kit.crud.read_plan": "",
    "fastapi_kit.db.engines": "",
    "fastapi_kit.db.checks": "Check check_offsets check_values key_is_possible value_check",
    "fastapi_kit.db.errors": "as_kit_error is_retryable watch",
    "fastapi_kit.handlers": """
        ErrorBody Problem ProblemItem STATUSES legacy_body problem_body problem_response problem_responses register_exception_handlers
        register_http_error_handler register_integrity_error_handler register_kit_error_handler register_unavailable_error_handler
        register_unhandled_error_handler register_validation_error_handler register_value_error_handler
    """,
    "fastapi_kit.middleware": """
        AccessLogMiddleware BodyLimitMiddleware RequestIdMiddleware SecurityHeadersMiddleware ServerTimingMiddleware
        UnhandledErrorMiddleware get_request_id timed
    """,
    "fastapi_kit.ratelimit": "AttemptCounter MemoryCounter RateLimiter client_address client_key",
    "fastapi_kit.routing": ("Endpoint RouterOptions check_operation_ids crud_router get_row_factory operation_id set_link_header"),
    "fastapi_kit.testing": """
        CapturedMail FrozenClock QueryLog app_client assert_max_queries assert_no_n_plus_one bearer captured_mails cheap_hasher isolated
        login_as
    """,
}

FOUND = [info for info in pkgutil.walk_packages(fastapi_kit.__path__, "fastapi_kit.") if "._" not in info.name]
PACKAGES = {"fastapi_kit", *(info.name for info in FOUND if info.ispkg)}
MODULES = ["fastapi_kit", *(info.name for info in FOUND)]

WARNINGS = ["-W", "error"]

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def definitions(node: ast.Module | ast.ClassDef) -> list[Definition]:
    return [child for child in node.body if isinstance(child, Definition) and not child.name.startswith("_")]


@pytest.mark.parametrize("package", EXPORTS)
def test_the_exported_names_are_pinned(package: str) -> None:
    """A package exports exactly the names listed above."""
    assert sorted(importlib.import_module(package).__all__) == sorted(EXPORTS[package].split())


def test_every_package_is_pinned() -> None:
    """Each package of the library is in the list above."""
    assert set(EXPORTS) == PACKAGES


@pytest.mark.parametrize("name", MODULES)
def test_exported_names_exist(name: str) -> None:
    """Each module has an ``__all__`` without duplicates, and every name in it can be imported."""
    module = importlib.import_module(name)

    assert len(set(module.__all__)) == len(module.__all__)
    assert [exported for exported in module.__all__ if not hasattr(module, exported)] == []


@cache
def imported_names() -> set[tuple[str, str]]:
    """Return each module and name that some module of the library imports with ``from``."""
    every = (info.name for info in pkgutil.walk_packages(fastapi_kit.__path__, "fastapi_kit."))
    nodes = [node for name in every for node in ast.walk(tree_of(name)) if isinstance(node, ast.ImportFrom)]
    return {(node.module or "", alias.name) for node in nodes for alias in node.names}


def imports_from(module: str) -> set[str]:
    """Return the names that other modules of the library import from *module*."""
    return {name for source, name in imported_names() if source == module and f"{module}.{name}" not in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_what_other_modules_import_is_exported(name: str) -> None:
    """The ``__all__`` of a module is what others may import: a helper that is not in it belongs to its module alone."""
    assert imports_from(name) - set(importlib.import_module(name).__all__) == set()


LAZY = {
    "fastapi_kit": "fastapi_kit.errors.NotFoundError",
    "fastapi_kit.auth": "fastapi_kit.auth.tokens.JWTService",
    "fastapi_kit.auth.users": "fastapi_kit.auth.users.sql.UserMixin",
    "fastapi_kit.ratelimit": "fastapi_kit.ratelimit.counters.MemoryCounter",
}


@pytest.mark.parametrize(("package", "example"), LAZY.items())
def test_a_lazy_package_finds_names_on_first_use(package: str, example: str) -> None:
    """A lazy package returns the object of the defining module, and dir() lists all names."""
    lazy, (home, _, name) = importlib.import_module(package), example.rpartition(".")

    assert getattr(lazy, name) is getattr(importlib.import_module(home), name)
    assert set(lazy.__all__) <= set(dir(lazy))


@pytest.mark.parametrize("package", LAZY)
def test_a_lazy_package_rejects_unknown_names(package: str) -> None:
    """Reading an unknown name raises an AttributeError that names it."""
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        inspect.getattr_static(importlib.import_module(package), "__getattr__")("nonsense")


@pytest.mark.parametrize("package", LAZY)
def test_the_type_checkers_see_the_same_names(package: str) -> None:
    """The imports for type checkers and ``__all__`` have the same names."""
    imports = [node for node in ast.walk(tree_of(package)) if isinstance(node, ast.ImportFrom)]
    homes = [node for node in imports if (node.module or "").startswith("fastapi_kit") and node.module != "fastapi_kit._lazy"]
    seen = {alias.name for node in homes for alias in node.names}

    assert seen == set(importlib.import_module(package).__all__)


def test_importing_the_package_is_light() -> None:
    """``import fastapi_kit`` loads no framework, no database toolkit and no cryptography."""
    loaded = modules_loaded_by("import fastapi_kit")

    assert {"fastapi", "starlette", "pydantic", "sqlalchemy", "jose", "passlib", "bcrypt"}.isdisjoint(loaded)


@pytest.mark.only_full
@pytest.mark.parametrize("name", ["JWTService", "PasswordHasher", "PasswordPolicy", "TokenClaims", "Keyring"])
def test_a_script_loads_no_framework(name: str) -> None:
    """A script that makes tokens or hashes passwords loads neither FastAPI nor SQLAlchemy."""
    loaded = modules_loaded_by(f"from fastapi_kit.auth import {name}")

    assert {"fastapi", "starlette", "sqlalchemy"}.isdisjoint(loaded)


def modules_loaded_by(statement: str) -> list[str]:
    command = [sys.executable, *WARNINGS, "-c", f"{statement}; import sys; print(*sys.modules)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def documented(module: str) -> Iterator[tuple[str, bool]]:
    """Yield the exported classes, functions and methods of a module, and whether each has a docstring."""
    exported = importlib.import_module(module).__all__
    for node in definitions(tree_of(module)):
        if node.name not in exported:
            continue
        yield node.name, ast.get_docstring(node) is not None
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{method.name}", ast.get_docstring(method) is not None) for method in definitions(node))


def test_public_things_have_docstrings() -> None:
    """At least 95 of 100 public modules, classes, functions and methods say what they do."""
    trees = {name: tree_of(name) for name in MODULES}
    found = {name: ast.get_docstring(tree) is not None for name, tree in trees.items()}
    found |= {f"{name}.{thing}": has for name in MODULES for thing, has in documented(name)}
    missing = [thing for thing, has in found.items() if not has]

    assert len(missing) <= 0.05 * len(found), missing


def test_the_package_is_typed() -> None:
    """The marker that makes type checkers read the library's annotations is in the package (PEP 561)."""
    assert (Path(fastapi_kit.__file__).parent / "py.typed").is_file()
