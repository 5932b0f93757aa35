"""The rules of the source tree, as functions over a folder, so that a planted violation can be tried on them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CORE = ("workbench.core",)
# Each package and the packages below it that it may import (besides itself). DESIGN: the layer table.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "workbench.core": (),
    "workbench.blocks": CORE,
    "workbench.data": CORE,
    "workbench.store": CORE,
    "workbench.reports": CORE,
    "workbench.engine": CORE,
    "workbench.families": ("workbench.blocks", *CORE),
    "workbench.training": ("workbench.blocks", "workbench.data", *CORE),
    "workbench.adapters": ("workbench.families", "workbench.blocks", "workbench.engine", *CORE),
    "probes": ("workbench.engine", *CORE),
    "evals": ("workbench.engine", "workbench.data", *CORE),
    "workbench.organisms": ("workbench.families", "workbench.training", "workbench.adapters", "workbench.blocks", "workbench.data", *CORE),
    "workbench.calibration": (
        "workbench.organisms", "probes", "evals", "workbench.training", "workbench.engine", "workbench.adapters", "workbench.data", *CORE,
    ),
    "workbench.lab": (
        "workbench.calibration", "workbench.organisms", "probes", "evals", "workbench.adapters", "workbench.families", "workbench.training",
        "workbench.blocks", "workbench.data", "workbench.store", "workbench.reports", "workbench.engine", *CORE,
    ),
    "workbench.cli": ("workbench.lab", "workbench.store", "workbench.reports", *CORE),
    "dashboards": ("workbench.lab", "workbench.store", "workbench.reports", *CORE),
}  # fmt: skip
OURS = ("workbench", "probes", "evals", "dashboards")
FORBIDDEN_FILES = {"utils.py", "helpers.py", "common.py", "misc.py"}
FILE_LINES, BODY_LINES, PARAMETERS, FAMILY_LINES = 600, 80, 8, 200
# A file or function may exceed a limit only with a reason here.
EXCEPTIONS: dict[str, str] = {}
SHELLS = ("workbench.cli", "dashboards")
NUMERIC = {"torch", "numpy", "scipy", "statsmodels", "sklearn"}


@dataclass(frozen=True)
class Violation:
    where: str
    rule: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}"


def package_of(module: str) -> str:
    """The package of the layer table that ``module`` belongs to; ``workbench`` itself is the front."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "workbench" and len(parts) > 1 else parts[0]


def imports_of(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """(module, line, inside a function?) of every import; names of ``from x import y`` are given as ``x.y`` too if x is a package front."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, node in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, node.lineno, node in inside
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield f"<relative>.{node.module or ''}", node.lineno, node in inside


def sources(root: Path) -> Iterator[tuple[Path, str, ast.Module]]:
    """Every source file of ours below ``root`` with its module name and syntax tree."""
    for top in OURS:
        for path in sorted((root / top).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            yield path, module, ast.parse(path.read_text(encoding="utf-8"))


def import_violations(root: Path, *, late_inside: tuple[str, ...] = SHELLS) -> list[Violation]:
    """Imports that point the wrong way, go through a front, are relative, or hide inside a function.

    Shells (CLI, dashboards) and the lazy front ``workbench`` may import our modules inside functions: that is what keeps
    ``--help`` fast.
    """
    out: list[Violation] = []
    for path, module, tree in sources(root):
        here = package_of(module)
        for target, line, inside in imports_of(tree):
            where = f"{path.relative_to(root)}:{line}"
            if target.startswith("<relative>"):
                out.append(Violation(where, "relative import; name the module in full"))
            top = target.split(".")[0]
            if here in SHELLS and top in NUMERIC:
                out.append(Violation(where, f"a shell holds no numerics, yet it imports {top}"))
            if top not in OURS:
                continue
            there = package_of(target)
            if module == "workbench":
                continue
            if there == "workbench":
                out.append(Violation(where, "import from the defining file, not from the front 'workbench'"))
            elif there != here and there not in MAY_IMPORT.get(here, ()):
                out.append(Violation(where, f"{here} may not import {there}"))
            if inside and here not in late_inside:
                out.append(Violation(where, f"import of {target} inside a function"))
    return out


def size_violations(root: Path) -> list[Violation]:
    """Files, function bodies and signatures over the limits, and files with names that say nothing."""
    out: list[Violation] = []
    for path, module, tree in sources(root):
        name = str(path.relative_to(root))
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = FAMILY_LINES if module.startswith("workbench.families.") else FILE_LINES
        if lines > limit and name not in EXCEPTIONS:
            out.append(Violation(name, f"{lines} lines; at most {limit}"))
        if path.name in FORBIDDEN_FILES:
            out.append(Violation(name, f"'{path.name}' says nothing about what is in it"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            label = f"{name}:{node.lineno} {node.name}"
            if length > BODY_LINES and f"{name}:{node.name}" not in EXCEPTIONS:
                out.append(Violation(label, f"a body of {length} lines; at most {BODY_LINES}"))
            arguments = node.args
            count = len([a for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg not in ("self", "cls")])
            if not node.name.startswith("_") and count > PARAMETERS and f"{name}:{node.name}" not in EXCEPTIONS:
                out.append(Violation(label, f"{count} parameters; at most {PARAMETERS}"))
    return out
