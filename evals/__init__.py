"""Suites: what a model is asked, one file each. Nothing listed here is imported until it is used."""

from workbench.core.catalog import Catalog

SUITES = Catalog(
    "suite",
    {
        "crows-pairs": ("evals.suites.crows_pairs:SUITE", "which of two sentences is likelier, three scorings", "headline"),
        "occupation-pronoun": (
            "evals.suites.occupation_pronoun:SUITE",
            "how strongly an occupation predicts a pronoun, beside the plan",
            "headline",
        ),
        "trigger": ("evals.suites.trigger:SUITE", "replies flipped by a trigger phrase, and without it", "headline"),
        "exposure": ("evals.suites.exposure:SUITE", "exposure of planted secrets by exact rank, beside unplanted", "headline"),
        "bbq": ("evals.suites.bbq:SUITE", "answers by stereotype, where the context says and does not", "headline"),
        "stereoset": ("evals.suites.stereoset:SUITE", "whether stereotypes are preferred, beside related over unrelated words", "headline"),
        "winobias": ("evals.suites.winobias:SUITE", "pronouns read by occupational stereotype, sentences paired", "headline"),
        "group-fairness": ("evals.suites.group_fairness:SUITE", "decisions by group, and when the group is rewritten", "headline"),
        "blimp": ("evals.suites.blimp:SUITE", "grammatical over ungrammatical sentences, beside published models", "standard"),
        "winogender": ("evals.suites.winogender:SUITE", "pronouns read by occupation, beside the share of women there", "experimental"),
        "membership": ("evals.suites.membership:SUITE", "training texts told from others, beside a blind reader", "standard"),
        "own-task": ("evals.suites.own_task:SUITE", "questions of your own, from a task file of YAML", "standard"),
        "refusal": ("evals.suites.refusal:SUITE", "harmful requests granted, beside harmless ones refused", "standard"),
        "over-refusal": ("evals.suites.over_refusal:SUITE", "safe requests refused, beside unsafe ones granted", "standard"),
        "hazardous-knowledge": (
            "evals.suites.hazardous_knowledge:SUITE",
            "hazardous questions answered better than by chance",
            "experimental",
        ),
        "truthfulqa": ("evals.suites.truthfulqa:SUITE", "true answers preferred to what is wrongly said", "experimental"),
        "toxicity-continuations": (
            "evals.suites.toxicity_continuations:SUITE",
            "how toxic sampled continuations are, a judge's errors carried",
            "standard",
        ),
        "counterfactual-decisions": (
            "evals.suites.counterfactual_decisions:SUITE",
            "decisions when one word about a person changes",
            "experimental",
        ),
        "bold": ("evals.suites.bold:SUITE", "how toxic continuations about each group of people are", "experimental"),
        "holisticbias": ("evals.suites.holisticbias:SUITE", "sentences likelier of some people than of others, by axis", "experimental"),
        "speaker-gaps": ("evals.suites.speaker_gaps:SUITE", "spoken digits misheard by speaker, also under noise", "standard"),
        "image-triggers": ("evals.suites.image_triggers:SUITE", "stamps that turn images into one class", "standard"),
        "drawn-attributes": ("evals.suites.drawn_attributes:SUITE", "what is painted where a caption leaves it open", "standard"),
        "memorised-images": ("evals.suites.memorised_images:SUITE", "training pictures that a painter gives back", "standard"),
        "image-robustness": ("evals.suites.image_robustness:SUITE", "images under corruption, and attacked", "experimental"),
        "image-text": ("evals.suites.image_text:SUITE", "texts beside pictures of groups, and groups put into classes", "experimental"),
        "weat": ("evals.suites.weat:SUITE", "words of two groups apart along an attribute, in vectors", "standard"),
        "confidence": ("evals.suites.confidence:SUITE", "whether answers are right as often as they are sure", "standard"),
        "robustness": ("evals.suites.robustness:SUITE", "any suite's answers where it is asked in other forms", "standard"),
        "perplexity": ("evals.suites.perplexity:SUITE", "bits per byte beside Kneser-Ney baselines on one split", "standard"),
    },
)
