"""The tasks that recipes train for: one file each, nothing imported until used."""

from workbench.core.catalog import Catalog

TASKS = Catalog(
    "task",
    {
        "captions": ("evals.tasks.captions:TASK", "coloured shapes to caption, for patches and a decoder", "standard"),
        "copying": ("evals.tasks.copying:TASK", "symbol strings to copy or reverse, for an encoder-decoder", "standard"),
        "digits": ("evals.tasks.digits:TASK", "handwritten digits, for an image classifier", "standard"),
        "shapes": ("evals.tasks.shapes:TASK", "coloured shapes and captions, for two contrastive towers", "standard"),
        "spoken-digits": ("evals.tasks.spoken_digits:TASK", "spoken digits, for a listener that writes", "standard"),
        "tones": ("evals.tasks.tones:TASK", "tones spelled as text, for a listener that writes", "standard"),
        "translation": ("evals.tasks.translation:TASK", "a generated language to translate, for an encoder-decoder", "standard"),
    },
)
