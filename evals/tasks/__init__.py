"""The tasks that recipes train for: one file each, nothing imported until used."""

from workbench.core.catalog import Catalog

TASKS = Catalog("task", {})
