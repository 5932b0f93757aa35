"""Whether a tool's code is what it was when its card was measured.

The digest is over the source of the tool's module and of every module of its package that it imports, directly or through others, without
comments, docstrings and empty lines; it is the same under every version of Python. What lies below (engine, blocks) is held to its own
contracts.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import tokenize
from functools import cache
from pathlib import Path

from evals import SUITES
from probes import INSTRUMENTS
from workbench.core.errors import UnknownName


def code_digest(tool: str) -> str:
    """sha256 (hex) of an instrument's or suite's code. Raises UnknownName for neither."""
    for catalog in (INSTRUMENTS, SUITES):
        if tool in catalog:
            return _digest(catalog[tool].target.partition(":")[0])
    raise UnknownName("instrument or suite", tool, [*INSTRUMENTS, *SUITES])


@cache
def _digest(module: str) -> str:
    package = module.partition(".")[0]
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or (path := _file(name)) is None:
            continue
        source = path.read_text(encoding="utf-8")
        waiting += [one for one in _imported(ast.parse(source)) if one.partition(".")[0] == package and one != package]
        found[name] = bare(source)
    whole = hashlib.sha256()
    for name in sorted(found):
        whole.update(f"{name}\0{found[name]}\0".encode())
    return whole.hexdigest()


def _file(name: str) -> Path | None:
    found = importlib.util.find_spec(name)
    return Path(found.origin) if found is not None and found.origin and found.origin.endswith(".py") else None


def _imported(tree: ast.AST) -> list[str]:
    """The modules a source names; of ``from a import b`` both ``a`` and ``a.b``, which may be a module too."""
    out: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            out += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            out += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names if _is_module(node.module, alias.name))]
    return out


def _is_module(package: str, name: str) -> bool:
    try:
        return importlib.util.find_spec(f"{package}.{name}") is not None
    except (ImportError, ValueError):
        return False


def bare(source: str) -> str:
    """A source without its comments, docstrings and empty lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body and _is_text(first := body[0]):
            lines[first.lineno - 1 : first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (row := token.start[0] - 1) < len(lines) and lines[row]:
            lines[row] = lines[row][: token.start[1]]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
