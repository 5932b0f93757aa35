"""The model families: one file each, nothing imported until used."""

from workbench.core.catalog import Catalog

FAMILIES = Catalog(
    "family",
    {
        "gpt": ("workbench.families.gpt:GPT", "decoder-only language model", "headline"),
    },
)
