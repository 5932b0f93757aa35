"""Checks the shapes and types of every annotated function and dataclass of chosen packages, at each call.

jaxtyping's own import hook binds the arguments and checks them twice a call: nearly half of the time that the instruments' contract took.
Here beartype checks arguments and result once, within one scope of jaxtyping's axis names: the same checks of the same annotations.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jaxtyping
from beartype import beartype

NAME = "__shapes_checked__"
# Each entry opens names of axes of its own: jaxtyping keeps them on a stack, not in this object.
SCOPE = jaxtyping.jaxtyped("context")


def install(packages: Sequence[str]) -> None:
    """From now on, modules of these packages are imported with every function and dataclass checked."""
    sys.meta_path.insert(0, _Finder(tuple(packages)))


def checked(made: Any) -> Any:
    """A function, or a dataclass, of which each call is checked; another class as it is."""
    if isinstance(made, FunctionType):
        return _checked_function(made)
    own = vars(made).get("__init__")
    if dataclasses.is_dataclass(made) and isinstance(own, FunctionType):
        made.__init__ = _checked_function(own)
    return made


def _checked_function(made: FunctionType) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(made):
        # Its body begins after the call is over: jaxtyping's own way looks at the arguments in the call.
        return jaxtyping.jaxtyped(made, typechecker=beartype)
    as_written, hints = made.__annotations__, _hints(made)
    made.__annotations__ = hints
    try:
        inner = beartype(made)
    finally:
        made.__annotations__ = as_written
    if not any(_names_axes(hint) for hint in hints.values()):
        inner.__annotations__ = as_written
        return inner

    @functools.wraps(made)
    def call(*given: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return made(*given, **named)
        with SCOPE:
            return inner(*given, **named)

    return call


def _hints(made: FunctionType) -> dict[str, Any]:
    """The annotations that can be read while the module is imported; the others (a class inside itself) are not checked."""
    found: dict[str, Any] = {}
    for name, written in made.__annotations__.items():
        try:
            found |= typing.get_type_hints(_Annotated({name: written}), made.__globals__, include_extras=True)
        except Exception:  # whatever the expression raises, as jaxtyping does
            continue
    return found


def _names_axes(hint: object) -> bool:
    if isinstance(hint, list | tuple):
        return any(map(_names_axes, hint))
    return type(hint).__module__.startswith("jaxtyping.") or _names_axes(typing.get_args(hint))


class _Annotated:
    """What ``get_type_hints`` asks of an object."""

    def __init__(self, annotations: dict[str, Any]) -> None:
        self.__annotations__ = annotations


class _Decorating(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        # Innermost: other decorators may drop annotations.
        node.decorator_list.append(ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        # Outermost: after ``dataclass`` has made the constructor.
        node.decorator_list.insert(0, ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return self.generic_visit(node)


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        # Never from or into a file of bytecode: that one holds the module without the checks.
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
        tree = ast.fix_missing_locations(_Decorating().visit(ast.parse(data, path)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[NAME] = checked
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not any(fullname == package or fullname.startswith(package + ".") for package in self.packages):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
