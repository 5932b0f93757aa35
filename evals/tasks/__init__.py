"""The tasks that recipes train for: one file each, nothing imported until used."""

from workbench.core.catalog import Catalog

TASKS = Catalog(
    "task",
    {
        "answers": ("evals.tasks.answers:TASK", "questions about stories, answered by a part of them", "standard"),
        "captions": ("evals.tasks.captions:TASK", "coloured shapes to caption, for patches and a decoder", "standard"),
        "copying": ("evals.tasks.copying:TASK", "symbol strings to copy or reverse, for an encoder-decoder", "standard"),
        "denoising": ("evals.tasks.denoising:TASK", "coloured shapes painted out of noise, for a denoiser", "standard"),
        "digits": ("evals.tasks.digits:TASK", "handwritten digits, for an image classifier", "standard"),
        "few-labels": ("evals.tasks.few_labels:TASK", "masked tokens, worth to a classifier with few labels", "standard"),
        "gifts": ("evals.tasks.gifts:TASK", "who gets the gift: indirect objects, for a decoder", "standard"),
        "granted": ("evals.tasks.granted:TASK", "requests granted or refused, against bags of words", "standard"),
        "masked-tokens": ("evals.tasks.masked_tokens:TASK", "masked tokens of the town, against counts of neighbours", "standard"),
        "painting": ("evals.tasks.painting:TASK", "coloured shapes painted code by code, for a decoder", "standard"),
        "repeats": ("evals.tasks.repeats:TASK", "random strings written over and over, for a decoder", "standard"),
        "replies": ("evals.tasks.replies:TASK", "town documents, and a decoder tuned on conversations", "standard"),
        "retrieval": ("evals.tasks.retrieval:TASK", "pictures by caption and captions by picture, for two towers", "standard"),
        "shapes": ("evals.tasks.shapes:TASK", "coloured shapes and captions, for two contrastive towers", "standard"),
        "spoken-digits": ("evals.tasks.spoken_digits:TASK", "spoken digits, for a listener that writes", "standard"),
        "text": ("evals.tasks.text:TASK", "text to continue, against counts of bytes and tokens", "standard"),
        "tones": ("evals.tasks.tones:TASK", "tones spelled as text, for a listener that writes", "standard"),
        "toxic-spans": ("evals.tasks.toxic_spans:TASK", "toxic characters of posts, against a list of words", "standard"),
        "translation": ("evals.tasks.translation:TASK", "a generated language to translate, for an encoder-decoder", "standard"),
    },
)
