"""The tasks that recipes train for: one file each, nothing imported until used."""

from workbench.core.catalog import Catalog

TASKS = Catalog(
    "task",
    {
        "digits": ("evals.tasks.digits:TASK", "handwritten digits, for an image classifier", "standard"),
    },
)
