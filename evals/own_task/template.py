"""Templates of a task file: a part of Jinja in a sandbox, so that a file from a stranger fills in the row's words and does nothing else.

Jinja's sandbox refuses what leads out of the data. What would only take time or memory without end is refused here: products, powers,
ranges, names that are set (which can double), macros, other files, and methods that pad. What is left grows with the row alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from workbench.core.errors import BadValue, MissingExtra

LONGEST = 1_000_000
"""Characters that a template, or a replacement in it, may give."""
REFUSED = (
    "Assign",
    "AssignBlock",
    "Macro",
    "CallBlock",
    "Import",
    "FromImport",
    "Include",
    "Extends",
    "Block",
    "ScopedEvalContextModifier",
)
FILTERS = ("center", "format", "indent", "random", "urlize", "wordwrap", "xmlattr", "lipsum", "pprint")
METHODS = frozenset((
    "capitalize", "count", "endswith", "find", "index", "isalpha", "isdigit", "islower", "isnumeric", "isupper", "join", "lower", "lstrip",
    "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper",
))  # fmt: skip
"""What may be called on a text."""


class Unsafe(ValueError):
    """What a template must not do, in words."""


@lru_cache(maxsize=1)
def _environment() -> Any:
    try:
        from jinja2 import BaseLoader, StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise MissingExtra("jinja2", "report", "Reading a task file") from None

    class Closed(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["*", "**", "%"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or not all(isinstance(side, int | float) for side in (left, right)):
                raise Unsafe(f"the operator {operator} on these is not allowed")
            return super().call_binop(context, operator, left, right)

        def wrap_str_format(self, value: Any) -> Any:
            if isinstance(getattr(value, "__self__", None), str) and getattr(value, "__name__", "") in ("format", "format_map"):
                raise Unsafe("the method format of a text is not allowed")
            return None

        def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
            owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
            if isinstance(owner, str):
                if name not in METHODS:
                    raise Unsafe(f"the method {name} of a text is not allowed")
                if name == "replace":
                    return _replaced(owner, *args, **kwargs)
            return super().call(context, obj, *args, **kwargs)

    found = Closed(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    for name in FILTERS:
        found.filters.pop(name, None)
    found.globals.clear()
    found.filters |= {"replace": _replaced, "regex_replace": _regex_replaced}
    return found


def _replaced(text: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = str(text), str(old), str(new)
    if len(text) + text.count(old) * max(0, len(new) - len(old)) > LONGEST:
        raise Unsafe(f"a replacement gives over {LONGEST:,} characters")
    return text.replace(old, new, -1 if count is None else count)


def _regex_replaced(text: Any, pattern: str, repl: str = "", count: int = 0) -> str:
    """As in task files of lm-evaluation-harness; of short texts, since a pattern's time can grow with every character."""
    if len(str(text)) > 2_000 or len(pattern) > 100 or len(repl) > 100:
        raise Unsafe("regex_replace takes texts to 2,000 characters and patterns to 100")
    return re.sub(pattern, repl, str(text), count=count)


@lru_cache(maxsize=64)
def _compiled(template: str) -> Any:
    from jinja2 import nodes

    environment = _environment()
    for node in environment.parse(template).find_all(nodes.Node):
        if type(node).__name__ in REFUSED:
            raise Unsafe(f"'{type(node).__name__.lower()}' is not allowed")
    return environment.from_string(template)


def filled(template: str, row: Mapping[str, Any], *, where: str) -> str:
    """``template`` with the row's columns in it. Raises BadValue, with ``where`` (field, file and line), for a column that is not there,
    a mistake of syntax, and what is not allowed; the row itself is not repeated."""
    _environment()
    from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError, UndefinedError

    try:
        parts, size = [], 0
        for part in _compiled(template).generate(dict(row)):
            size += len(part)
            if size > LONGEST:
                raise Unsafe(f"it gives over {LONGEST:,} characters")
            parts.append(part)
        return "".join(parts)
    except TemplateSyntaxError as error:
        raise BadValue(where, template, f"a Jinja template ({error.message})") from None
    except UndefinedError as error:
        raise BadValue(where, template, f"a template of the columns {', '.join(map(str, row))} ({error.message})") from None
    except Unsafe as error:
        raise BadValue(where, template, f"a template that fills in words and does no more ({error})") from None
    except (SecurityError, TemplateError, TypeError, ValueError, ArithmeticError, re.error) as error:
        raise BadValue(where, template, f"a template that this row can fill ({type(error).__name__})") from None
