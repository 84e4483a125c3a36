"""The programs that rules run: a digest of each one's code, and the interpreter."""

import ast
import functools
import hashlib
import os
import sys
from pathlib import Path


def code_version(program: Path) -> str:
    """Return a digest of a program and of all modules, beside it and of this library, that it imports at any depth."""
    seen: dict[Path, bytes] = {}
    queue = [program]
    while queue:
        file = queue.pop()
        if file not in seen:
            seen[file] = file.read_bytes()
            queue += _own_imports(file, seen[file])
    return hashlib.sha256(b"".join(seen[file] for file in sorted(seen))).hexdigest()[:12]


@functools.cache
def _own_imports(file: Path, text: bytes) -> list[Path]:
    """Return the modules, of this library and beside the file, that a file imports, at the top or in a function."""
    workflow = Path(__file__).parents[2]
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [file.with_name(f"{alias.name}.py") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[node.level - 1] if node.level else workflow
            module = folder.joinpath(*(node.module or "").split("."))
            found += [module.with_suffix(".py"), module / "__init__.py"]
            found += [module / f"{alias.name}.py" for alias in node.names]
    return [path for path in found if path.is_file()]


def put_running_python_first() -> None:
    """Make `python` in child processes the interpreter of this one, also where its environment is not activated."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
