"""Run the Python blocks of one page, given as JSON on standard input, in one namespace.

``await`` may stand at the top level. Test functions without arguments run at the end.
"""

import ast
import asyncio
import inspect
import json
import sys
from types import ModuleType


def main() -> None:
    page = json.load(sys.stdin)
    # Models and dataclasses look their annotations up in the module that defines them.
    # A page that builds the file app.py imports it as app.
    module = sys.modules["page"] = sys.modules["app"] = ModuleType("page")
    with asyncio.Runner() as runner:
        for line, source in page["blocks"]:
            code = compile("\n" * line + source, page["path"], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, module.__dict__)
            if inspect.iscoroutine(result):
                runner.run(result)
        for name, test in vars(module).items():
            if name.startswith("test_") and not inspect.signature(test).parameters:
                runner.run(test())


if __name__ == "__main__":
    main()
