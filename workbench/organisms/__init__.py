"""Organisms: models with planted truth. Nothing listed here is imported until it is used."""

from workbench.core.catalog import Catalog

ORGANISMS = Catalog(
    "organism",
    {"town": ("workbench.organisms.town:ORGANISM", "decoder with a pronoun bias, a trigger and secrets planted", "headline")},
)
