"""The house keeps its shape: floors, third-party worlds, no circles, short import chains, few private names."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import fastapi_kit

PACKAGE = "fastapi_kit"
ROOT = Path(fastapi_kit.__file__).parent


@dataclass(frozen=True)
class Place:
    """Where modules stand: *members* may import each other, *below* and the third-party *worlds*. A name covers all that is under it."""

    members: frozenset[str]
    below: frozenset[str] = frozenset()
    worlds: frozenset[str] | None = frozenset()


def place(members: str, below: frozenset[str] = frozenset(), worlds: str | None = "") -> Place:
    return Place(frozenset(members.split()), below, None if worlds is None else frozenset(worlds.split()))


PYDANTIC = "annotated_types pydantic pydantic_core pydantic_settings typing_extensions"
WEB = f"{PYDANTIC} anyio fastapi opentelemetry sqlalchemy starlette"

GROUND = frozenset({"errors", "settings", "pagination", "schemas", "_text"})
TOKENS, PASSWORDS, LOGINS = frozenset({"auth.tokens"}), frozenset({"auth.passwords"}), frozenset({"auth.logins"})
FACTOR, API_KEYS = frozenset({"auth.second_factor"}), frozenset({"auth.api_keys"})
FLOW_MEMBERS = """
    auth.users.accounts auth.users.flow auth.users.throttle auth.users.notices auth.users.mail auth.users.impersonation
    auth.users.second_factor
"""
FLOW = frozenset(FLOW_MEMBERS.split())
TOOLS = GROUND | TOKENS | PASSWORDS | {"db", "middleware", "cache"}
ON_DATABASE = TOOLS | {"crud"}
WEB_MEMBERS = "_masking _signals dependencies handlers health metrics logs tasks etags idempotency ratelimit routing"
USER_TOOLS = frozenset({"auth.users.sql", "auth.users.superuser"})
AUTH_WEB_MEMBERS = """
    auth.__init__ auth.requests auth.users.__init__ auth.users.account_routes auth.users.cookie_routes auth.users.router
    auth.users.schemas auth.users.second_factor_routes
"""
# Import paths beside those of the rooms: they only pass names on.
AUTH_PATHS = """
    auth.accounts auth.dependencies auth.flow auth.keys auth.remote auth.router auth.schemas auth.sessions auth.sql auth.totp
    auth.transports auth.websocket
"""
EVERYTHING_BUT_APP = ON_DATABASE | set(WEB_MEMBERS.split()) | {"auth"}

PLACES = [
    # the ground
    place("errors"),
    place("_text", frozenset(), PYDANTIC),
    place("settings _secrets", frozenset({"errors"}), PYDANTIC),
    place("pagination _partial", frozenset({"errors"}), PYDANTIC),
    place("schemas", frozenset({"errors", "_partial", "_text"}), PYDANTIC),
    place("_redis", frozenset({"errors"}), "redis"),
    place("ratelimit.counters ratelimit.fields", frozenset({"errors"})),
    place("ratelimit.redis", frozenset({"_redis", "ratelimit.counters"}), "limits"),
    # tools: the ground and one third-party world each, never a neighbour
    place("_compat", frozenset(), "pydantic_core sqlalchemy"),
    place("_compat_web", frozenset(), "fastapi"),
    place("db", GROUND | {"_compat"}, f"{PYDANTIC} aiosqlite anyio asyncpg psycopg sqlalchemy"),
    place("db.migrations", GROUND | {"db"}, "alembic sqlalchemy"),
    place("middleware", GROUND, f"{PYDANTIC} opentelemetry starlette"),
    place("cache", GROUND, f"{PYDANTIC} cashews redis"),
    place("auth.tokens", GROUND | {"_secrets"}, f"{PYDANTIC} cryptography jose"),
    place("auth.tokens.remote", GROUND | TOKENS, f"{PYDANTIC} cryptography httpx"),
    place("auth.passwords", GROUND, f"{PYDANTIC} anyio argon2 bcrypt passlib"),
    place("auth.logins", GROUND | TOKENS, PYDANTIC),
    place("auth.api_keys", GROUND | TOKENS, PYDANTIC),
    place("auth.logins.redis", GROUND | LOGINS | {"_redis"}, PYDANTIC),
    place("auth.api_keys.redis", GROUND | API_KEYS | {"_redis"}, PYDANTIC),
    # it hands a session through
    place("auth.second_factor", GROUND | TOKENS | {"ratelimit.counters"}, f"{PYDANTIC} sqlalchemy"),
    # on the database
    place("auth.second_factor.sql", GROUND | FACTOR | {"db"}, f"{PYDANTIC} sqlalchemy"),
    place("auth._rows", GROUND | {"db"}, f"{PYDANTIC} sqlalchemy"),
    place("auth.logins.sql", GROUND | LOGINS | {"db", "auth._rows"}, f"{PYDANTIC} sqlalchemy"),
    place("auth.api_keys.sql", GROUND | API_KEYS | {"db", "auth._rows"}, f"{PYDANTIC} sqlalchemy"),
    place("crud", GROUND | {"_compat", "db"}, f"{PYDANTIC} sqlalchemy"),
    place("crud.cached", GROUND | {"db", "cache", "crud"}, f"{PYDANTIC} sqlalchemy"),
    place("auth.users.sql", GROUND | FLOW | {"_compat", "db", "crud"}, f"{PYDANTIC} sqlalchemy"),
    place("auth.users.superuser", GROUND | FLOW | {"auth.users.sql", "db"}, PYDANTIC),
    # the web; auth is handed a loader and never imports db or crud
    place(WEB_MEMBERS, ON_DATABASE | {"_compat", "_lazy"}, f"{WEB} limits prometheus_client"),
    # it hands a session of SQLAlchemy through, and waits for its commit
    place(FLOW_MEMBERS, GROUND | TOKENS | PASSWORDS | LOGINS | FACTOR | {"db", "ratelimit.counters"}, f"{PYDANTIC} sqlalchemy"),
    place(
        f"{AUTH_WEB_MEMBERS} auth.api_keys.router",
        TOOLS - {"db"} | LOGINS | API_KEYS | FACTOR | FLOW | USER_TOOLS | {"_lazy", "dependencies", "handlers"},
        WEB,
    ),
    place(AUTH_PATHS, TOKENS | LOGINS | FACTOR | FLOW | {"auth.requests", "auth.users"}),
    # the roof
    place("app", EVERYTHING_BUT_APP | {"_compat_web"}, WEB),
    place("testing", EVERYTHING_BUT_APP, None),
    place("_lazy"),
    place("__init__", EVERYTHING_BUT_APP | {"_lazy", "app"}),
]

# How large each figure of ``figures_of`` may be. Lower a limit when the figure falls; do not raise it.
LIMITS = {
    "import depth": 10,
    "private functions in percent": 20,
    "lines of the longest module": 450,
    "imports of private names from another folder": 0,
}

MOST_TABLES = 82
"""How many tables the tests may declare outside of ``tests/tables``. Lower it when they share more."""

# What the marker properties of Database import when they are read.
LAZY_EXCEPTIONS = {"db.database": {"fastapi.Depends", "fastapi.params.Depends"}}


@dataclass(frozen=True)
class Import:
    """*module* imports *target*; *lazy* inside a function or for the type checkers only."""

    module: str
    target: str
    lazy: bool


def modules_of(root: Path) -> Mapping[str, Path]:
    """Return each module by its name without the package's: ``db.engine``, ``db.__init__``."""
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in sorted(root.rglob("*.py"))}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def runs_later(node: ast.AST) -> bool:
    for_checkers = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    return for_checkers or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Yield every import of the file, wherever it stands."""
    package = ".".join([PACKAGE, *module.split(".")[:-1]])

    def visit(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(module, alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            yield from (Import(module, f"{source}.{alias.name}", lazy) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy=lazy or runs_later(node))

    return visit(tree_of(path), lazy=False)


def covers(names: frozenset[str], module: str) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:end]) in names for end in range(1, len(parts) + 1))


def place_of(module: str) -> Place | None:
    """Return the place that names the most of *module*."""
    named = {name: place for place in PLACES for name in place.members if covers(frozenset({name}), module)}
    return named[max(named, key=len)] if named else None


def inside(target: str, modules: Mapping[str, Path]) -> str | None:
    """Return the module of the package that the import of *target* reads, or None for one from outside."""
    package, _, name = target.partition(".")
    if package != PACKAGE:
        return None
    if not name or (name not in modules and f"{name}.__init__" not in modules and "." not in name):
        return "__init__"
    parent = name.rpartition(".")[0]
    return next((found for found in (name, f"{name}.__init__", parent, f"{parent}.__init__") if found in modules), name)


def is_allowed(imported: Import, modules: Mapping[str, Path]) -> bool:
    here = place_of(imported.module)
    assert here is not None
    target = inside(imported.target, modules)
    if target is not None:
        return covers(here.below | here.members, target)
    world = imported.target.split(".")[0]
    if world in sys.stdlib_module_names or here.worlds is None or world in here.worlds:
        return True
    return imported.lazy and imported.target in LAZY_EXCEPTIONS.get(imported.module, ())


def offences(root: Path) -> list[str]:
    """Return what breaks the order of the floors, one line each."""
    modules = modules_of(root)
    homeless = [f"{module} has no place" for module in modules if place_of(module) is None]
    imports = [imported for module, path in modules.items() if place_of(module) for imported in imports_of(module, path)]
    return homeless + [f"{imported.module} imports {imported.target}" for imported in imports if not is_allowed(imported, modules)]


def circle(root: Path) -> list[str]:
    """Return the modules of an import circle, or nothing."""
    modules = modules_of(root)
    graph = {module: {inside(imported.target, modules) or "" for imported in imports_of(module, path)} for module, path in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def importers(root: Path, world: str) -> list[str]:
    return [module for module, path in modules_of(root).items() if any(i.target.split(".")[0] == world for i in imports_of(module, path))]


def runtime_graph(root: Path) -> Mapping[str, set[str]]:
    """Return the modules that each module imports when it is imported itself."""
    modules = modules_of(root)
    targets = {module: {inside(i.target, modules) for i in imports_of(module, path) if not i.lazy} for module, path in modules.items()}
    return {module: {found for found in targets[module] if found in modules and found != module} for module in modules}


def longest_chain(root: Path) -> list[str]:
    """Return the longest chain of modules in which each imports the next."""
    graph = runtime_graph(root)

    @cache
    def chain_from(module: str) -> list[str]:
        return [module, *max((chain_from(found) for found in graph[module]), key=len, default=[])]

    return max((chain_from(module) for module in graph), key=len)


def private_functions(path: Path) -> tuple[int, int]:
    """Return how many functions and methods of the file begin with one underscore, and how many there are without ``__magic__`` ones."""
    nodes = ast.walk(tree_of(path))
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__")]
    return sum(name.startswith("_") for name in names), len(names)


def private_imports(root: Path) -> list[str]:
    """Return the imports of names and modules that begin with ``_`` from outside their own folder and its subfolders."""
    modules = modules_of(root)
    found: list[str] = []
    for module, path in modules.items():
        folder = module.split(".")[:-1]
        for imported in imports_of(module, path):
            package, *parts = imported.target.split(".")
            if package != PACKAGE:
                continue
            for position, part in enumerate(parts):
                home = parts[:position]
                if ".".join(home) in modules:
                    home = home[:-1]  # a name in a module: its folder is the module's
                if part.startswith("_") and not part.startswith("__") and folder[: len(home)] != home:
                    found.append(f"{module} imports {imported.target}")
    return found


@cache
def figures_of(root: Path) -> Mapping[str, int]:
    """Return what LIMITS bounds."""
    paths = modules_of(root).values()
    private, all_functions = (sum(counts) for counts in zip(*map(private_functions, paths), strict=True))
    return {
        "import depth": len(longest_chain(root)),
        "private functions in percent": round(100 * private / max(all_functions, 1)),
        "lines of the longest module": max(len(path.read_text().splitlines()) for path in paths),
        "imports of private names from another folder": len(private_imports(root)),
    }


def test_imports_point_down() -> None:
    """Each module imports from lower floors, from its own place and from its own third-party world only."""
    assert offences(ROOT) == []


def test_there_is_no_import_circle() -> None:
    """No module reaches itself by its imports, those for the type checkers included."""
    assert circle(ROOT) == []


@pytest.mark.parametrize("figure", LIMITS)
def test_a_limit_is_kept(figure: str) -> None:
    """Short import chains, few private functions, modules that can be read at a sitting, and no private name of another folder."""
    evidence = {"import depth": longest_chain, "imports of private names from another folder": private_imports}.get(figure)

    assert figures_of(ROOT)[figure] <= LIMITS[figure], evidence and evidence(ROOT)


def declares_a_table(node: ast.AST) -> bool:
    body = node.body if isinstance(node, ast.ClassDef) else []
    return any(isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "__tablename__" for each in body)


def test_the_tests_share_their_tables() -> None:
    """A test uses the mappings of ``tests/tables`` unless it is about another one."""
    here = Path(__file__).parent
    files = [path for path in here.rglob("*.py") if here / "tables" not in path.parents and "__tablename__" in path.read_text()]
    declared = {path: sum(map(declares_a_table, ast.walk(tree_of(path)))) for path in files}

    assert sum(declared.values()) <= MOST_TABLES, {str(path): number for path, number in declared.items() if number}


@pytest.mark.parametrize(("world", "most"), [("jose", 1), ("passlib", 1), ("bcrypt", 1)])
def test_a_delicate_dependency_has_one_door(world: str, most: int) -> None:
    """Packages with known faults are imported by one module at most, which makes them safe."""
    assert len(importers(ROOT, world)) <= most


# --- The checks above, checked on made-up trees ---

MakeTree = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    def make(files: Mapping[str, str]) -> Path:
        for name, source in {"__init__.py": "", "errors.py": "", "db/__init__.py": "", "crud/__init__.py": "", **files}.items():
            path = tmp_path / PACKAGE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return tmp_path / PACKAGE

    return make


def test_a_tidy_tree_has_no_offence(make_tree: MakeTree) -> None:
    """Imports from below, relative ones, and the marker's lazy import of Depends are in order."""
    root = make_tree(
        {
            "db/database.py": "import sqlalchemy\nfrom ..errors import KitError\ndef session():\n    from fastapi import Depends\n",
            "crud/service.py": "from fastapi_kit.db.database import Database\nfrom . import query\n",
            "crud/query.py": "from fastapi_kit import errors\n",
            "handlers.py": "from fastapi_kit.db import Base\n",
            "routing.py": "import fastapi\nfrom fastapi_kit.crud import CRUDService\nfrom fastapi_kit.handlers import answers\n",
            "app.py": "from fastapi_kit.routing import crud_router\n",
        }
    )

    assert offences(root) == []
    assert circle(root) == []


@pytest.mark.parametrize(
    ("name", "source", "offence"),
    [
        ("errors.py", "import pydantic", "errors imports pydantic"),
        ("pagination.py", "from sqlalchemy import select", "pagination imports sqlalchemy.select"),
        ("settings.py", "from fastapi_kit import pagination", "settings imports fastapi_kit.pagination"),
        ("db/engine.py", "from fastapi_kit.crud.service import CRUDService", "db.engine imports fastapi_kit.crud.service.CRUDService"),
        ("db/engine.py", "from ..crud import service", "db.engine imports fastapi_kit.crud.service"),
        ("db/engine.py", "def f():\n    from fastapi import Depends", "db.engine imports fastapi.Depends"),
        ("db/database.py", "from fastapi import Depends", "db.database imports fastapi.Depends"),
        ("db/database.py", "def f():\n    from fastapi import FastAPI", "db.database imports fastapi.FastAPI"),
        ("crud/service.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fastapi", "crud.service imports fastapi"),
        ("crud/service.py", "import fastapi_kit.cache.memory", "crud.service imports fastapi_kit.cache.memory"),
        ("middleware/errors.py", "from fastapi_kit.db import Base", "middleware.errors imports fastapi_kit.db.Base"),
        ("auth/tokens/service.py", "import passlib", "auth.tokens.service imports passlib"),
        ("auth/requests/guards.py", "from fastapi_kit.db import Base", "auth.requests.guards imports fastapi_kit.db.Base"),
        ("handlers.py", "from fastapi_kit.app import create_app", "handlers imports fastapi_kit.app.create_app"),
        ("testing/client.py", "from fastapi_kit.app import create_app", "testing.client imports fastapi_kit.app.create_app"),
        ("health.py", "import redis", "health imports redis"),
        ("health.py", "from fastapi_kit import Base", "health imports fastapi_kit.Base"),
        ("helpers.py", "", "helpers has no place"),
        ("auth/novelty.py", "", "auth.novelty has no place"),
    ],
)
def test_an_offence_is_found(make_tree: MakeTree, name: str, source: str, offence: str) -> None:
    """An import against the order is named, wherever in the file it stands."""
    root = make_tree({"pagination.py": "", "app.py": "", "crud/service.py": "", name: source})

    assert offences(root) == [offence]


def test_a_circle_is_found(make_tree: MakeTree) -> None:
    """A circle is found even where one of its imports is for the type checkers only."""
    lazy = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fastapi_kit.crud.query import Where\n"
    root = make_tree({"crud/query.py": "from fastapi_kit.crud.service import CRUDService", "crud/service.py": lazy})

    assert set(circle(root)) == {"crud.query", "crud.service"}


def test_a_second_door_is_found(make_tree: MakeTree) -> None:
    """Each module that imports a package counts, whichever part of it."""
    root = make_tree({"errors.py": "import jose.jwt", "pagination.py": "def f():\n    from jose import jwt"})

    assert importers(root, "jose") == ["errors", "pagination"]


def test_the_longest_chain_is_found(make_tree: MakeTree) -> None:
    """An ``__init__`` counts as a module; imports inside functions and for the type checkers do not count."""
    root = make_tree(
        {
            "app.py": "from fastapi_kit.crud import CRUDService",
            "crud/__init__.py": "from fastapi_kit.crud.service import CRUDService",
            "crud/service.py": "from ..errors import KitError\ndef load():\n    from fastapi_kit.db import engine",
            "db/engine.py": "import fastapi_kit.db.pool",
            "db/pool.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fastapi_kit.app import create_app",
        }
    )

    assert longest_chain(root) == ["app", "crud.__init__", "crud.service", "errors"]
    assert figures_of(root)["import depth"] == 4


def test_private_functions_are_counted(make_tree: MakeTree) -> None:
    """Methods and functions inside functions count; ``__magic__`` methods do not."""
    source = "def _a():\n    def b(): ...\nclass C:\n    def __init__(self): ...\n    async def _d(self): ...\n    def e(self): ...\n"
    root = make_tree({"errors.py": source})

    assert private_functions(root / "errors.py") == (2, 4)
    assert figures_of(root)["private functions in percent"] == 50


def test_a_long_module_is_found(make_tree: MakeTree) -> None:
    """The longest module counts, blank lines included."""
    assert figures_of(make_tree({"db/engine.py": "\n" * 451}))["lines of the longest module"] == 451


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("app", "from fastapi_kit.db._pool import Pool"),
        ("app", "import fastapi_kit.db._pool"),
        ("crud.service", "from ..db import _pool"),
        ("crud.service", "from ..db import _name_of_the_package"),
        ("crud.service", "def f():\n    from fastapi_kit.db.engine import _make"),
        ("db.engine", "from fastapi_kit.db.errors._drivers.names import read"),
    ],
)
def test_a_private_import_is_found(make_tree: MakeTree, module: str, statement: str) -> None:
    """A private name or module of another folder is found, whichever form the import has."""
    root = make_tree({"db/_pool.py": "", "db/errors/_drivers/names.py": "", f"{module.replace('.', '/')}.py": statement})

    (found,) = private_imports(root)
    assert found.startswith(f"{module} imports fastapi_kit.db.")


def test_private_names_are_imported_within_their_folder(make_tree: MakeTree) -> None:
    """A folder's own modules and those below it may import what is private to it; ``__all__`` and its kind are not private."""
    root = make_tree(
        {
            "_text.py": "",
            "db/_pool.py": "from fastapi_kit._text import shorten, _cut",
            "db/engine.py": "from fastapi_kit.db._pool import Pool, _size",
            "db/errors/drivers.py": "from .._pool import _size\nfrom fastapi_kit import _text, __version__\nimport os._private",
        }
    )

    assert private_imports(root) == []


@pytest.mark.only_full
@pytest.mark.parametrize("package", ["ecdsa", "rsa"])
def test_pure_python_cryptography_stays_unimported(package: str) -> None:
    """R10: what python-jose brings along, with a known fault in it, is not even loaded where tokens are made and checked."""
    statements = (
        "import sys",
        "from fastapi_kit.auth import JWTService",
        "tokens = JWTService(secret_key='o3Q9vK1cXf7mZ2rT8yLwB5nH4dJ6sGaE')",
        "tokens.decode(tokens.create_access_token('1'))",
        f"assert {package!r} not in sys.modules",
    )

    assert subprocess.run([sys.executable, "-c", "; ".join(statements)], check=False).returncode == 0
