"""Specs: small frozen values that say everything about what is to be done.

A spec is a frozen pydantic model with ``extra="forbid"`` and at most twenty fields. Its canonical JSON
form (sorted keys, no spaces, defaults included) is hashed, so equal specs have equal digests. A field that came
``later`` is written only where it says something else than its default, so what was stored before it keeps its bytes
and its digest. Making a spec has no side effects. This module imports pydantic and the standard library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self, get_args

import pydantic

from workbench.core.errors import BadValue, UnknownName, UsageError

MAX_FIELDS = 20


def later(default: Any, **rest: Any) -> Any:
    """A field that a spec got after specs of its kind had been stored: left out of every written form at its default."""
    return pydantic.Field(default=default, exclude_if=lambda value: bool(value == default), **rest)


def canonical_json(value: Any) -> str:
    """``value`` as JSON with sorted keys and no spaces: the same value gives the same bytes.

    Raises ValueError on NaN or infinity, which JSON cannot carry: encode them before.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Spec(pydantic.BaseModel):
    """Base of every spec, recipe, plan and family config."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if len(cls.model_fields) > MAX_FIELDS:
            raise TypeError(f"{cls.__name__} has {len(cls.model_fields)} fields; a spec has at most {MAX_FIELDS}: split it by concern")

    def canonical(self) -> str:
        """The canonical JSON form, defaults included but for those of later fields."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """sha256 (hex) of the canonical form."""
        return digest_of(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, what: str = "") -> Self:
        """Validate ``values``; the first problem becomes a UsageError that names the field and what is allowed."""
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise _explain(cls, error, what or cls.__name__) from None

    def override(self, settings: Sequence[str] | Mapping[str, Any]) -> Self:
        """A copy with ``a.b=c`` settings applied (values are read as YAML scalars by the caller or as JSON here)."""
        pairs = settings.items() if isinstance(settings, Mapping) else [_split(s) for s in settings]
        values = _whole(self)
        for path, value in pairs:
            _place(values, path, value)
        return type(self).parse(values)


def _whole(spec: Spec) -> dict[str, Any]:
    """Every field by name, those that came later too."""
    values = spec.model_dump(mode="json")
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            values[name] = _whole(value)
        elif name not in values:
            values[name] = value
    return values


def _split(setting: str) -> tuple[str, Any]:
    name, sign, text = setting.partition("=")
    if not sign or not name:
        raise BadValue("--set", setting, "of the form name=value, such as steps=64")
    try:
        return name, json.loads(text)
    except json.JSONDecodeError:
        return name, {"True": True, "False": False, "None": None}.get(text, text)


def _place(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place: Any = values
    for name in parents:
        if not isinstance(place, dict) or name not in place:
            raise UnknownName("field", path, [str(k) for k in place] if isinstance(place, dict) else [])
        place = place[name]
    if not isinstance(place, dict):
        raise UnknownName("field", path, [])
    if last not in place and parents == []:
        raise UnknownName("field", path, place)
    place[last] = value


def _explain(cls: type[Spec], error: pydantic.ValidationError, what: str) -> UsageError:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return UnknownName("field", path, _fields_at(cls, first["loc"][:-1]), where=f"in {what}")
    if first["type"] == "missing":
        return UsageError(f"{what} has no field '{path}', which is required. Add it, or start from a shipped file.")
    return BadValue(
        f"{what}: {path}" if path else what, first.get("input"), first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    )


def _fields_at(cls: Any, loc: Sequence[int | str]) -> list[str]:
    for part in loc:
        if isinstance(part, int):
            continue
        field = getattr(cls, "model_fields", {}).get(part)
        if field is None:
            return []
        options = [field.annotation, *get_args(field.annotation)]
        cls = next((o for o in options if isinstance(o, type) and issubclass(o, pydantic.BaseModel)), None)
    return list(getattr(cls, "model_fields", {}))
