"""The distribution: its contents, metadata, extras and installation."""

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from tests.thorough import few

import fastapi_kit

REPOSITORY = Path(__file__).parent.parent
SOURCES = REPOSITORY / "src"
EXTRAS = {"all", "argon2", "cache", "migrations", "postgres", "ratelimit", "remote", "server", "testing"}

IMPORT_EVERY_NAME = """
import importlib, pkgutil
import fastapi_kit

for info in pkgutil.walk_packages(fastapi_kit.__path__, "fastapi_kit."):
    if not info.name.startswith("fastapi_kit.testing"):
        importlib.import_module(info.name)
for name in fastapi_kit.__all__:
    getattr(fastapi_kit, name)
"""


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and the wheel from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def members(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path, members: set[str]) -> Message:
    (name,) = (member for member in members if member.endswith(".dist-info/METADATA"))
    return Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())


def test_the_wheel_holds_the_package_and_nothing_else(members: set[str]) -> None:
    """The wheel contains every module, its data and py.typed, and no tests, examples or documentation."""
    package = {
        path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*") if path.suffix in {".py", ".txt"} or path.name == "py.typed"
    }
    others = {PurePosixPath(member).parts[0] for member in members - package}

    assert package <= members
    assert others == {f"fastapi_kit_blocks-{fastapi_kit.__version__}.dist-info"}


def test_the_source_distribution_holds_what_a_build_needs(dist: Path) -> None:
    """The source distribution contains sources, README, licence and changelog, and nothing else."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        top = {PurePosixPath(name).parts[1] for name in archive.getnames()}

    assert top == {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "src"}


def test_the_version_has_one_source(metadata: Message) -> None:
    """The distribution has the version of the package."""
    assert metadata["Name"] == "fastapi-kit-blocks"
    assert metadata["Version"] == fastapi_kit.__version__


def test_the_licence_is_declared_and_shipped(metadata: Message, members: set[str]) -> None:
    """The licence is an SPDX expression (PEP 639), and its text is in the wheel."""
    assert metadata["License-Expression"] == "MIT"
    assert [name for name in members if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_extras_are_declared(metadata: Message) -> None:
    """``all`` installs every extra that an application needs at run time."""
    lines = [line.partition("; extra == ") for line in metadata.get_all("Requires-Dist") or []]
    packages = {extra: {package for package, _, of in lines if of == f"'{extra}'"} for extra in EXTRAS}

    assert set(metadata.get_all("Provides-Extra") or []) == EXTRAS
    assert packages["all"] == set().union(*(packages[extra] for extra in EXTRAS - {"all", "testing"}))


def test_the_documented_versions_are_those_of_the_package(metadata: Message) -> None:
    """The table of the oldest versions says what the package requires; SQLAlchemy 2.1.0 to 2.1.4 are excluded."""
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]
    floors = {each.name: min(part.version for part in each.specifier if part.operator == ">=") for each in requirements if each.specifier}
    (sqlalchemy,) = (each for each in requirements if each.name == "sqlalchemy")
    table = re.findall(r"^\| ([\w. ]+) \| ([\d.]+) \|", (REPOSITORY / "docs" / "index.md").read_text(), re.MULTILINE)
    documented = {name.lower(): version for name, version in table}

    assert documented.pop("python") == (metadata["Requires-Python"] or "").removeprefix(">=")
    newer_line = documented.pop("sqlalchemy 2.1")
    assert documented.pop("sqlalchemy 2.0") == floors["sqlalchemy"]
    assert {name: floors[name] for name in documented} == documented
    assert [f"2.1.{patch}" in sqlalchemy.specifier for patch in range(7)] == [f"2.1.{patch}" >= newer_line for patch in range(7)]


@pytest.mark.only_full
@pytest.mark.network
@pytest.mark.parametrize(
    "other",
    few(
        [
            "fastapi-users[sqlalchemy]>=15.0.5",
            "advanced-alchemy>=1.12",
            "fastapi-filter[sqlalchemy]>=3.0",
            "fastapi-pagination>=0.16.1",
            "fastcrud>=0.23",
            "sqlmodel>=0.0.50",
        ]
    ),
)
def test_it_can_be_installed_beside(other: str, wheel: Path, tmp_path: Path) -> None:
    """An application keeps the packages that it has: a set of versions meets their requirements and the library's."""
    requirements = tmp_path / "requirements.in"
    requirements.write_text(f"fastapi-kit-blocks[all] @ {wheel.as_uri()}\n{other}\n")
    run(sys.executable, "-m", "uv", "pip", "compile", "--quiet", requirements, cwd=tmp_path)


@pytest.mark.only_full
@pytest.mark.network
def test_the_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """In an empty environment the wheel installs, and every public name can be imported without an extra."""
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "uv", "pip"]
    run(*pip, "install", "--quiet", "--python", python, wheel, cwd=tmp_path)

    run(*pip, "check", "--python", python, cwd=tmp_path)
    run(python, "-W", "error", "-c", IMPORT_EVERY_NAME, cwd=tmp_path)
