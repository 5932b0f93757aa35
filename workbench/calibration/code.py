"""Whether a tool's code is what it was when its card was measured.

The digest is over the definitions (functions, classes, assignments) of the tool's package that the tool's own object reaches by name,
directly or through others, without comments, docstrings and empty lines; of a suite also over those that ask its kinds of request and
score what comes back. In which file a definition stands does not count, nor does one that nothing of the tool names; a module used as a
whole counts as a whole. The digest is the same under every version of Python. How answers are dealt out, kept and shown, and what lies
below (engine, blocks), is held to its own contracts.

Of an exam there is such a digest too, over what its rows come from besides the tools: the exam, the organisms that it asks about, and the
worlds that those are made of.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.exam import Exam
from workbench.calibration.exams import EXAMS
from workbench.core.errors import UnknownName
from workbench.organisms import ORGANISMS

RUNNER = "evals.runner"
SCORED_BY = "_scored"
ASKED_BY = {
    "Loglikelihood": "_ask_loglikelihoods", "Rolling": "_ask_rolling", "Moments": "_ask_moments", "Generate": "_ask_generations",
    "Sampled": "_ask_sampled",
}  # fmt: skip
"""What of the runner asks each kind of request."""
WHOLE = ""
"""In the place of a name: everything in a module."""
EXAMINED_BY = ("workbench.calibration", "workbench.organisms", "workbench.data.worlds")
"""Where the code of exams lies."""


def code_digest(tool: str) -> str:
    """sha256 (hex) of an instrument's or suite's code. Raises UnknownName for neither."""
    for catalog in (INSTRUMENTS, SUITES):
        if tool in catalog:
            return _digest(catalog[tool].target, catalog is SUITES)
    raise UnknownName("instrument or suite", tool, [*INSTRUMENTS, *SUITES])


@cache
def _digest(target: str, asks: bool) -> str:
    module, _, name = target.partition(":")
    pieces = reached([(module, name)])
    if asks:
        kinds = sorted({word for piece in pieces for word in piece.words} & set(ASKED_BY))
        pieces |= reached([(RUNNER, SCORED_BY), *((RUNNER, ASKED_BY[kind]) for kind in kinds)])
    return _over(pieces)


def exam_digest(exam: Exam) -> str:
    """sha256 (hex) of the code that asks an exam and makes its models: what its own object and its organisms' reach. Of an exam that is in
    no catalogue (it is about a model at hand), what the module reaches that reads its tools."""
    organisms = {exam.organism(family, tool) for family in exam.families for tool in exam.tools(family)}
    targets = [EXAMS[exam.name].target if exam.name in EXAMS else exam.read.__module__]
    return _exam_digest(tuple(sorted([*targets, *(ORGANISMS[name].target for name in organisms if name in ORGANISMS)])))


@cache
def _exam_digest(targets: tuple[str, ...]) -> str:
    roots = [(module, name) for module, _, name in (target.partition(":") for target in targets)]
    return _over(reached(roots, EXAMINED_BY))


def _over(pieces: Iterable[Piece]) -> str:
    return hashlib.sha256("\0".join(sorted(piece.text for piece in pieces)).encode()).hexdigest()


@dataclass(frozen=True)
class Piece:
    """A top-level statement, bare, and the names that stand in it."""

    text: str
    words: frozenset[str]


@dataclass
class Module:
    """A module's statements by the name they define; those that define none (they act when it is imported); what it imports: local name →
    (module, name there or ``WHOLE``)."""

    defined: dict[str, list[Piece]] = field(default_factory=dict)
    acts: list[Piece] = field(default_factory=list)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    def named(self, name: str) -> list[Piece]:
        """What defines ``name``, and what acts anyway."""
        chosen = self.defined.get(name, []) if name != WHOLE else [piece for pieces in self.defined.values() for piece in pieces]
        return [*self.acts, *chosen]


def reached(roots: Iterable[tuple[str, str]], within: Sequence[str] = ()) -> set[Piece]:
    """Everything that (module, name) pairs reach within their packages, or within the packages that ``within`` names."""
    found: set[Piece] = set()
    waiting, seen = list(roots), set()
    while waiting:
        asked = waiting.pop()
        if asked in seen or (module := module_of(asked[0])) is None:
            continue
        seen.add(asked)
        pieces = module.named(asked[1])
        found.update(pieces)
        for word in sorted({word for piece in pieces for word in piece.words}):
            if word in module.defined:
                waiting.append((asked[0], word))
            elif word in module.imported and _counts(there := module.imported[word], asked[0], within):
                waiting.append(_where(*there))
    return found


def _counts(there: tuple[str, str], here: str, within: Sequence[str]) -> bool:
    """Whether what a module imports is followed."""
    if not within:
        return there[0].partition(".")[0] == here.partition(".")[0]
    return any(f"{'.'.join(there)}.".startswith(f"{package}.") for package in within)


def _where(module: str, name: str) -> tuple[str, str]:
    """An imported name as (module, name): a module of that name, or a definition; what is neither is looked for in the whole module."""
    there = module_of(module)
    if name == WHOLE or (there is not None and (name in there.defined or name in there.imported)):
        return module, name
    return (f"{module}.{name}", WHOLE) if module_of(f"{module}.{name}") is not None else (module, WHOLE)


@cache
def module_of(name: str) -> Module | None:
    """A module read from its source; None for what has none (a folder, a package that only lists)."""
    path = _file(name)
    if path is None:
        return None
    source = path.read_text(encoding="utf-8")
    lines, tree, out = source.splitlines(), ast.parse(source), Module()
    for node in ast.walk(tree):
        out.imported.update(_bound(node))
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom) and not _is_text(node):
            _add(out, node, Piece(bare("\n".join(_own(lines, node))), _words(node)))
    return out


def _file(name: str) -> Path | None:
    """Where a module of a package lies; found without importing anything. A package itself only lists what it has."""
    package, *below = name.split(".")
    root = next(iter(getattr(importlib.util.find_spec(package), "submodule_search_locations", None) or ()), None)
    if root is None or not below:
        return None
    place = Path(root, *below)
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _bound(node: ast.AST) -> dict[str, tuple[str, str]]:
    """What an import binds. Of ``import a.b`` the name is ``a``, and all of ``a.b`` is meant."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.partition(".")[0]: (alias.name, WHOLE) for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return {}


def _add(module: Module, node: ast.stmt, piece: Piece) -> None:
    names = _defines(node)
    for name in names:
        module.defined.setdefault(name, []).append(piece)
    if not names:
        module.acts.append(piece)


def _defines(node: ast.stmt) -> list[str]:
    """The names that a statement gives a meaning to, where that is all it does."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets: Sequence[ast.expr] = node.targets if isinstance(node, ast.Assign) else ()
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    leaves = [leaf for target in targets for leaf in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])]
    return [leaf.id for leaf in leaves if isinstance(leaf, ast.Name)] if all(isinstance(leaf, ast.Name) for leaf in leaves) else []


def _words(node: ast.AST) -> frozenset[str]:
    return frozenset(part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _own(lines: Sequence[str], node: ast.stmt) -> Sequence[str]:
    """The lines of a statement, its decorators among them."""
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    return lines[first - 1 : node.end_lineno]


def bare(source: str) -> str:
    """A source without its comments, docstrings and empty lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for one in node.body:
                if _is_text(one) and one.lineno > getattr(node, "lineno", 0):
                    lines[one.lineno - 1 : one.end_lineno] = [""] * ((one.end_lineno or one.lineno) - one.lineno + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (row := token.start[0] - 1) < len(lines) and lines[row]:
            lines[row] = lines[row][: token.start[1]]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
