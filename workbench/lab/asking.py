"""What an instrument can be told, field by field, for a form: its kind, its choices, its default, and its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic_core import PydanticUndefined

from probes import INSTRUMENTS
from workbench.core.errors import UsageError
from workbench.core.measure import Instrument
from workbench.core.protocol import HookedModel

Kind = Literal["choice", "flag", "count", "number", "text"]
ASIDE = ("bos", "stack", "tokens_a_pass", "max_cells", "memory_mib", "seed")
"""Fields of every instrument that a look seldom changes; they come last."""


@dataclass(frozen=True)
class Asked:
    """One field: ``kind`` says how it is asked; ``choices`` of a choice; ``default`` as the spec has it; ``words`` what it means."""

    name: str
    kind: Kind
    default: Any
    words: str
    choices: tuple[str, ...] = ()

    def read(self, typed: Any) -> Any:
        """What was put into the form, as the spec takes it; what was typed is YAML. Raises UsageError for what is none."""
        if self.kind != "text":
            return typed
        if not str(typed).strip():
            return None if self.default is None else self.default
        try:
            return yaml.safe_load(str(typed))
        except yaml.YAMLError:
            raise UsageError(
                f"'{typed}' cannot be read as a value of '{self.name}'. Write a number, a word, or a list as [0, 1]."
            ) from None

    def shown(self) -> str:
        """The default as it would be typed; empty where there is none."""
        value = list(self.default) if isinstance(self.default, tuple) else self.default
        return "" if value is None else yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def instrument(name: str) -> Instrument:
    """An instrument of the catalogue. Raises UnknownName."""
    return INSTRUMENTS.load(name)


def fields_of(tool: Instrument) -> tuple[Asked, ...]:
    """The fields of an instrument's spec, those that are seldom changed last."""
    found = [_asked(name, info) for name, info in tool.spec.model_fields.items()]
    return tuple(sorted(found, key=lambda one: one.name in ASIDE))


def _asked(name: str, info: Any) -> Asked:
    default = None if info.default is PydanticUndefined else info.default
    kind, choices = _kind(info.annotation)
    return Asked(name, kind, default, info.description or "", choices)


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    if get_origin(annotation) is Literal and all(isinstance(one, str) for one in get_args(annotation)):
        return "choice", get_args(annotation)
    plain: dict[Any, Kind] = {bool: "flag", int: "count", float: "number"}
    return plain.get(annotation, "text"), ()


def changed(tool: Instrument, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that differ from their defaults, as the spec takes them. Raises UsageError."""
    out = {}
    for field in fields_of(tool):
        if field.name in typed:
            value = field.read(typed[field.name])
            same = list(value) == list(field.default) if isinstance(field.default, tuple) and isinstance(value, Sequence) else False
            if not same and value != field.default:
                out[field.name] = value
    return out


@dataclass(frozen=True)
class Offer:
    """An instrument of the catalogue: ``words`` what it answers, its ``status``, and ``against``: why this model cannot be asked, or ''."""

    name: str
    words: str
    status: str
    against: str


def offers(model: HookedModel) -> tuple[Offer, ...]:
    """Every instrument in the catalogue's order, those that this model cannot be asked last."""
    found = []
    for name, entry in INSTRUMENTS.items():
        tool = entry.load()
        found.append(Offer(name, entry.words, entry.status, "; ".join(tool.explain_incompatibility(model))))
    return tuple(sorted(found, key=lambda one: bool(one.against)))
