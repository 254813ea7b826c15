"""The documentation is true: its Python runs, its commands and links exist, and its table of contents is whole."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.versions import needs_body_limits

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
SOURCES = REPOSITORY / "src" / "fastapi_kit"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

# The names that a newcomer meets first: each has an example in its docstring.
FIRST_NAMES = [
    *("Base", "CRUDService", "Database", "KitSettings", "Page", "TimestampMixin", "create_app", "crud_router", "unit_of_work"),
    *("auth.JWTService", "auth.PasswordHasher", "auth.get_current_user_factory", "auth.require"),
    *("handlers.register_exception_handlers", "health.health_router"),
]

# <!-- no-run: reason --> on the line above a block leaves it out. Few should need it.
MOST_BLOCKS_LEFT_OUT = 5

BLOCK = re.compile(
    r"(?:^ *<!-- no-run: (?P<reason>.+?) -->\n)?^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<source>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
EXAMPLE = re.compile(r"^ *Example:\n(?P<text>(?:(?: .*)?\n)*)", re.MULTILINE)
SNIPPET = re.compile(r'^ *--8<-- "(?P<path>[^"]+)"$', re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|mailto:|#)(?P<target>[^)#\s]+)")
MAKE = re.compile(r"^\s*(?:\$ )?(?:.*&& )?make ([a-z][\w-]*)", re.MULTILINE)
TARGET = re.compile(r"^([a-z][\w-]*):", re.MULTILINE)
EXTRA = re.compile(r"fastapi-kit-blocks\[([\w,]+)\]")
REFERENCE = re.compile(r"^::: fastapi_kit\.([\w.]+)$", re.MULTILINE)

ENVIRONMENT = {name: value for name, value in os.environ.items() if name in {"HOME", "PATH", "PYTHONPATH"} or name.startswith("TEST_")}
WARNINGS = ["-W", "error", "-W", "ignore:'crypt' is deprecated:DeprecationWarning:passlib.utils"]


@dataclass(frozen=True)
class Block:
    """A fenced block: where its source begins, and why it is left out, if it is."""

    page: Path
    line: int
    language: str
    source: str
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in BLOCK.finditer(text):
        source = SNIPPET.sub(lambda snippet: (REPOSITORY / snippet["path"]).read_text(), match["source"])
        yield Block(page, text.count("\n", 0, match.start("source")), match["language"], textwrap.dedent(source), match["reason"])


def named_docstrings(path: Path) -> Iterator[tuple[str, ast.Constant]]:
    """Yield the docstrings of the file's public functions, classes and methods, by their names."""

    def visit(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, ast.Constant]]:
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
                if ast.get_docstring(child, clean=False) is not None:
                    yield f"{prefix}{child.name}", child.body[0].value  # type: ignore[union-attr]
                if isinstance(child, ast.ClassDef):
                    yield from visit(child, f"{prefix}{child.name}.")

    return visit(ast.parse(path.read_text()), "")


def examples_of(path: Path) -> Iterator[tuple[str, list[Block]]]:
    """Yield the Python blocks in the ``Example:`` sections of the file's docstrings, by the names that they belong to."""
    for name, docstring in named_docstrings(path):
        text = str(docstring.value) + "\n"
        blocks = [
            Block(
                path, docstring.lineno - 1 + text.count("\n", 0, section.start("text") + match.start("source")), "python", dedented(match)
            )
            for section in EXAMPLE.finditer(text)
            for match in BLOCK.finditer(section["text"])
            if match["language"] == "python"
        ]
        if blocks:
            yield name, blocks


def dedented(match: re.Match[str]) -> str:
    return textwrap.dedent(match["source"])


EXAMPLES = {
    f"{path.relative_to(SOURCES).as_posix()}::{name}": blocks
    for path in sorted(SOURCES.rglob("*.py"))
    for name, blocks in examples_of(path)
}
PYTHON = [block for page in PAGES for block in blocks_of(page) if block.language == "python"]
SHELL = [block for page in PAGES for block in blocks_of(page) if block.language in {"bash", "console", "shell"}]


@dataclass(frozen=True)
class Runner:
    """Runs blocks in a process of their own; *process* is ``run_blocks.py``."""

    process: subprocess.Popen[str]

    def run(self, page: Path, blocks: list[Block], *, folder: Path) -> tuple[int, str]:
        """Run *blocks* in a new folder below *folder*. Return the exit code and what was printed."""
        log, cwd = folder / "log", folder / "cwd"
        cwd.mkdir()
        given = {"path": str(page), "folder": str(cwd), "log": str(log), "blocks": [(block.line, block.source) for block in blocks]}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()), log.read_text()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The process that pages are forked from, with warnings as errors."""
    command = [sys.executable, *WARNINGS, str(REPOSITORY / "tests" / "run_blocks.py")]
    pipe, empty = subprocess.PIPE, tmp_path_factory.mktemp("docs")
    with subprocess.Popen(command, cwd=empty, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True) as process:
        yield Runner(process)


def page_parameter(page: Path) -> Any:
    marks = needs_body_limits if "max_body_size=" in page.read_text() else ()
    return pytest.param(page, marks=marks, id=page.relative_to(REPOSITORY).as_posix())


@pytest.mark.parametrize("page", [page_parameter(page) for page in sorted({block.page for block in PYTHON})])
def test_the_python_of_a_page_runs(runner: Runner, page: Path, tmp_path: Path) -> None:
    """The blocks of a page run one after the other in a new process and an empty folder, warnings being errors."""
    code, output = runner.run(page, [block for block in PYTHON if block.page == page and block.reason is None], folder=tmp_path)

    assert code == 0, output


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_name_runs(runner: Runner, name: str, tmp_path: Path) -> None:
    """The example in a docstring runs as it stands, in a new process and an empty folder, warnings being errors."""
    blocks = EXAMPLES[name]

    code, output = runner.run(blocks[0].page, blocks, folder=tmp_path)

    assert code == 0, output


@pytest.mark.parametrize("name", FIRST_NAMES)
def test_the_first_names_have_an_example(name: str) -> None:
    """What a newcomer meets first shows how it is used."""
    module, _, attribute = f"fastapi_kit.{name}".rpartition(".")
    docstring = inspect.getdoc(getattr(import_module(module), attribute)) or ""

    assert re.search(r"^Example:\n+ +```python$", docstring, re.MULTILINE) is not None


def test_few_blocks_are_left_out() -> None:
    """Blocks that do not run stay few; each gives its reason."""
    left_out = [f"{block}: {block.reason}" for block in PYTHON if block.reason is not None]

    assert len(left_out) <= MOST_BLOCKS_LEFT_OUT, left_out


def test_a_failing_block_fails_its_page(runner: Runner, tmp_path: Path) -> None:
    """The runner keeps one namespace for a page, awaits at the top level, and points at the line of the page that fails."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nimport asyncio\nvalue = 1\n```\n\n<!-- no-run: wrong on purpose -->\n```python\nvalue = 3\n```\n\n"
        "- in a list\n\n    ```python\n    await asyncio.sleep(0)\n    assert value == 2\n    ```\n"
    )
    blocks = list(blocks_of(page))

    code, output = runner.run(page, [block for block in blocks if block.reason is None], folder=tmp_path)

    assert [block.reason for block in blocks] == [None, "wrong on purpose", None]
    assert code == 1
    assert f'File "{page}", line 15' in output


MODULE = '''
class Shop:
    """A shop.

    ```python
    beside
    ```

    Example:
        Open it:

        ```python
        value = 1
        assert value == 2
        ```
    """

    def _close(self):
        """Close it.

        Example:
            ```python
            1 / 0
            ```
        """
'''


def test_a_failing_example_fails(runner: Runner, tmp_path: Path) -> None:
    """The blocks of an ``Example:`` section are found, those beside it and of private names are not; the failing line is the file's."""
    source = tmp_path / "module.py"
    source.write_text(MODULE)
    ((name, blocks),) = examples_of(source)

    code, output = runner.run(source, blocks, folder=tmp_path)

    assert (name, [block.source for block in blocks]) == ("Shop", ["value = 1\nassert value == 2\n"])
    assert code == 1
    assert f'File "{source}", line 14' in output


def test_commands_exist() -> None:
    """What a page tells the reader to make is a target of the Makefile."""
    targets = set(TARGET.findall((REPOSITORY / "Makefile").read_text()))

    assert [f"{block}: {target}" for block in SHELL for target in MAKE.findall(block.source) if target not in targets] == []


def test_extras_exist() -> None:
    """An extra that a page names is one of the distribution's."""
    known = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = {extra for page in PAGES for names in EXTRA.findall(page.read_text()) for extra in names.split(",")}

    assert named <= known


def test_links_lead_somewhere() -> None:
    """A link to a file of the repository names one that exists."""
    links = [(page, match["target"]) for page in PAGES for match in LINK.finditer(page.read_text())]

    assert [f"{page.relative_to(REPOSITORY)}: {target}" for page, target in links if not (page.parent / target).exists()] == []


def pages_in(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_in(item)


def test_the_table_of_contents_is_whole() -> None:
    """Each page of the documentation is in the table of contents once, and each entry is a page."""
    nav = list(pages_in(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]))

    assert sorted(nav) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_every_part_has_its_reference() -> None:
    """Each public module or package at the top of the library has a place in the reference."""
    parts = {path.stem for path in (REPOSITORY / "src" / "fastapi_kit").iterdir() if path.is_dir() or path.suffix == ".py"}
    documented = {name.split(".")[0] for page in DOCS.rglob("*.md") for name in REFERENCE.findall(page.read_text())}

    assert documented == {part for part in parts if not part.startswith("_")}


PRIVATE_LANGUAGE = re.compile(
    r"\b(refus(e|es|ed|ing|al)|nobody|somebody|honest(ly)?|told|made of|is not there|are not there)\b", re.IGNORECASE
)


def test_plain_words() -> None:
    """Code, pages and examples use the words of the Python and FastAPI documentation: reject, not refuse."""
    files = [*PAGES, REPOSITORY / "CHANGELOG.md", *SOURCES.rglob("*.py"), *(REPOSITORY / "examples").rglob("*.py")]
    lines = [(path, line) for path in files for line in path.read_text().splitlines()]

    assert [f"{path}: {line}" for path, line in lines if PRIVATE_LANGUAGE.search(line)] == []
