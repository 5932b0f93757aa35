"""The catalogues in one place, for shells: what there is, and what runs on what."""

from __future__ import annotations

from typing import Any

from evals import SUITES
from probes import INSTRUMENTS
from workbench.calibration.exams import EXAMS
from workbench.calibration.spikes import SPIKES
from workbench.core.catalog import Catalog
from workbench.families import FAMILIES
from workbench.organisms import ORGANISMS


def suites() -> Catalog:
    return SUITES


def instruments() -> Catalog:
    return INSTRUMENTS


def families() -> Catalog:
    return FAMILIES


def organisms() -> Catalog:
    return ORGANISMS


def exams() -> Catalog:
    return EXAMS


def spikes() -> Catalog:
    return SPIKES


def matrix() -> dict[str, dict[str, list[str]]]:
    """For every instrument and family: why it cannot run on the family's tiny model; an empty list where it can."""
    tiny: dict[str, Any] = {name: FAMILIES.load(name).tiny(seed=0)[0] for name in FAMILIES}
    tools = {name: INSTRUMENTS.load(name) for name in INSTRUMENTS}
    return {name: {family: tool.explain_incompatibility(model) for family, model in tiny.items()} for name, tool in tools.items()}
