"""The tasks that recipes train for: one file each, nothing imported until used."""

from workbench.core.catalog import Catalog

TASKS = Catalog(
    "task",
    {
        "copying": ("evals.tasks.copying:TASK", "symbol strings to copy or reverse, for an encoder-decoder", "standard"),
        "digits": ("evals.tasks.digits:TASK", "handwritten digits, for an image classifier", "standard"),
        "spoken-digits": ("evals.tasks.spoken_digits:TASK", "spoken digits, for a listener that writes", "standard"),
        "tones": ("evals.tasks.tones:TASK", "tones spelled as text, for a listener that writes", "standard"),
        "translation": ("evals.tasks.translation:TASK", "a generated language to translate, for an encoder-decoder", "standard"),
    },
)
