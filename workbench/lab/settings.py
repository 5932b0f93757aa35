"""``--set name=value`` as values, and specs made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import yaml

from workbench.core.errors import BadValue, UnknownName
from workbench.core.spec import Spec

AnySpec = TypeVar("AnySpec", bound=Spec)


def read_settings(settings: Iterable[str]) -> dict[str, Any]:
    """``["a.b=3", "c=[1, 2]"]`` as ``{"a": {"b": 3}, "c": [1, 2]}``; values are YAML, so ``3`` is a number and ``"3"`` text."""
    out: dict[str, Any] = {}
    for setting in settings:
        path, sign, text = setting.partition("=")
        if not sign or not all(path.split(".")):
            raise BadValue("--set", setting, "of the form name=value, such as steps=64")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise BadValue("--set", setting, "of the form name=value with a YAML value", do="Quote text that has signs in it.") from None
        place = out
        *parents, last = path.split(".")
        for name in parents:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise BadValue("--set", setting, f"set once: '{name}' was given a value before")
        if last in place:
            raise BadValue("--set", setting, "set once")
        place[last] = value
    return out


def overlay(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``settings`` laid over, mapping by mapping."""
    out = dict(values)
    for name, value in settings.items():
        here = out.get(name)
        out[name] = overlay(here, value) if isinstance(here, Mapping) and isinstance(value, Mapping) else value
    return out


def spec_with(cls: type[AnySpec], settings: Mapping[str, Any], what: str) -> AnySpec:
    """The spec with its defaults but for ``settings``. Raises UnknownName for a field it has not, BadValue for a bad value."""
    return cls.parse(settings, what=what)


def by_name(names: Sequence[str], settings: Mapping[str, Any], what: str) -> dict[str, dict[str, Any]]:
    """Settings for each of ``names``: plain fields where there is one name, else ``{name: {field: value}}``."""
    out: dict[str, dict[str, Any]] = {name: {} for name in names}
    if len(names) == 1 and not (settings.keys() <= set(names) and all(isinstance(v, Mapping) for v in settings.values())):
        return {names[0]: dict(settings)}
    for name, fields in settings.items():
        if name not in out:
            raise UnknownName(what, name, names, where="in this call", hint=f"With several, settings are written {what}.field=value.")
        if not isinstance(fields, Mapping):
            raise BadValue(f"the settings of '{name}'", fields, f"fields, such as {name}.seed=1")
        out[name] = dict(fields)
    return out
