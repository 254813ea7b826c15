"""The documentation is true: its Python runs, its commands and links exist, and its table of contents is whole."""

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.versions import needs_body_limits

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

# <!-- no-run: reason --> on the line above a block leaves it out. Few should need it.
MOST_BLOCKS_LEFT_OUT = 5

BLOCK = re.compile(
    r"(?:^ *<!-- no-run: (?P<reason>.+?) -->\n)?^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<source>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
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
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in BLOCK.finditer(text):
        source = SNIPPET.sub(lambda snippet: (REPOSITORY / snippet["path"]).read_text(), match["source"])
        yield Block(page, text.count("\n", 0, match.start("source")), match["language"], textwrap.dedent(source), match["reason"])


PYTHON = [block for page in PAGES for block in blocks_of(page) if block.language == "python"]
SHELL = [block for page in PAGES for block in blocks_of(page) if block.language in {"bash", "console", "shell"}]


def run(page: Path, blocks: list[Block], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    given = json.dumps({"path": str(page), "blocks": [(block.line, block.source) for block in blocks]})
    command = [sys.executable, *WARNINGS, str(REPOSITORY / "tests" / "run_blocks.py")]
    return subprocess.run(command, input=given, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=needs_body_limits if "max_body_size=" in page.read_text() else (), id=str(page.relative_to(REPOSITORY)))
        for page in sorted({block.page for block in PYTHON})
    ],
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """The blocks of a page run one after the other in a new process and an empty folder, warnings being errors."""
    done = run(page, [block for block in PYTHON if block.page == page and block.reason is None], cwd=tmp_path)

    assert done.returncode == 0, done.stderr


def test_few_blocks_are_left_out() -> None:
    """Blocks that do not run stay few; each gives its reason."""
    left_out = [f"{block}: {block.reason}" for block in PYTHON if block.reason is not None]

    assert len(left_out) <= MOST_BLOCKS_LEFT_OUT, left_out


def test_a_failing_block_fails_its_page(tmp_path: Path) -> None:
    """The runner keeps one namespace for a page, awaits at the top level, and points at the line of the page that fails."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nimport asyncio\nvalue = 1\n```\n\n<!-- no-run: wrong on purpose -->\n```python\nvalue = 3\n```\n\n"
        "- in a list\n\n    ```python\n    await asyncio.sleep(0)\n    assert value == 2\n    ```\n"
    )
    blocks = list(blocks_of(page))

    done = run(page, [block for block in blocks if block.reason is None], cwd=tmp_path)

    assert [block.reason for block in blocks] == [None, "wrong on purpose", None]
    assert done.returncode == 1
    assert f'File "{page}", line 15' in done.stderr


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
