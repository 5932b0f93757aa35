"""A suite inside another: the suite that a wrapper names, with its own settings, read once.

A wrapper asks what another suite asks and measures something else of the answers. Wrappers are not wrapped, and neither are suites that
look at a model themselves: there is nothing asked of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from evals import SUITES
from evals.bound import Looking
from workbench.core.errors import BadValue
from workbench.core.measure import Suite
from workbench.core.spec import Spec, canonical_json

WRAPPERS = ("confidence", "robustness")


def inner_of(name: str, settings: Mapping[str, Any]) -> tuple[Suite, Spec]:
    """The suite and its spec. Raises UnknownName for a suite there is not, BadValue for one that cannot be wrapped, and what a spec
    raises."""
    if name in WRAPPERS:
        raise BadValue("of", name, "a suite that is not a wrapper itself")
    suite: Suite = SUITES.load(name)
    if isinstance(suite, Looking):
        raise BadValue("of", name, "a suite that asks for text or log-probabilities; this one looks at the model itself")
    return suite, _spec(name, canonical_json(dict(settings)))


@lru_cache(maxsize=16)
def _spec(name: str, settings: str) -> Spec:
    return SUITES.load(name).spec.parse(json.loads(settings), what=f"settings of '{name}'")
