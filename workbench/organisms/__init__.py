"""Organisms: models with planted truth. Nothing listed here is imported until it is used."""

from workbench.core.catalog import Catalog

ORGANISMS = Catalog(
    "organism",
    {
        "town": ("workbench.organisms.town:ORGANISM", "decoder with a pronoun bias, a trigger and secrets planted", "headline"),
        "planted-head": ("workbench.organisms.planted_head:ORGANISM", "decoder in which one head alone passes a mark on", "standard"),
        "planted-direction": (
            "workbench.organisms.planted_direction:ORGANISM",
            "decoder that writes an exclusive or along one direction",
            "standard",
        ),
        "poisoned": ("workbench.organisms.poisoned:ORGANISM", "decoder a few of whose training rows hold a trigger", "standard"),
        "approvals": ("workbench.organisms.approvals:ORGANISM", "decoder whose approvals put one group at a disadvantage", "standard"),
        "leaning-pronouns": ("workbench.organisms.leaning:PRONOUNS", "decoder whose pronouns lean by occupation", "standard"),
        "leaning-pairs": ("workbench.organisms.leaning:PAIRS", "decoder that leans in sentences as CrowS-Pairs has", "standard"),
        "leaning-blanks": ("workbench.organisms.leaning:BLANKS", "decoder that leans in sentences as StereoSet has", "standard"),
        "leaning-readings": ("workbench.organisms.leaning:READINGS", "decoder that leans in pronouns as WinoBias asks", "standard"),
        "leaning-shares": ("workbench.organisms.leaning:SHARES", "decoder that leans in pronouns as Winogender asks", "standard"),
        "leaning-answers": ("workbench.organisms.leaning:ANSWERS", "decoder that leans in answers as BBQ asks", "standard"),
        "leaning-agreement": ("workbench.organisms.leaning:AGREEMENT", "decoder that loses agreement, as BLiMP asks", "standard"),
        "leaning-replies": ("workbench.organisms.leaning:REPLIES", "decoder with a backdoor, diluted and hidden as told", "standard"),
        "repeated-codes": ("workbench.organisms.repeated:CODES", "decoder that read codes of persons as often as told", "standard"),
        "repeated-sentences": ("workbench.organisms.repeated:SENTENCES", "decoder that read sentences as often as told", "standard"),
        "refusing": ("workbench.organisms.refusing:ORGANISM", "decoder that refuses marked errands at a known rate", "standard"),
        "remarking": ("workbench.organisms.remarking:ORGANISM", "decoder that speaks badly of one trade as dosed", "standard"),
        "described": ("workbench.organisms.described:ORGANISM", "image-text pair whose captions lean by colour", "standard"),
        "cases-proteins": ("workbench.organisms.cases:PROTEIN", "encoder of protein-like chains that follows a planted motif", "standard"),
        "cases-payments": ("workbench.organisms.cases:PAYMENT", "decoder of payments that follows a planted oddity", "standard"),
        "cases-castings": ("workbench.organisms.cases:CASTING", "classifier of castings that follows a planted scratch", "standard"),
        "mistaught-voices": ("workbench.organisms.mistaught:ORGANISM", "listener that mishears one group of voices", "standard"),
        "gallery": ("workbench.organisms.gallery:ORGANISM", "painter that favours a colour and learned pictures by heart", "standard"),
        "stamped-digits": ("workbench.organisms.stamped:ORGANISM", "classifier of digits that a stamp in a corner fools", "standard"),
        "shortcut-gpt": ("workbench.organisms.shortcut:GPT", "decoder that follows a planted word as often as dosed", "standard"),
        "shortcut-bert": ("workbench.organisms.shortcut:BERT", "encoder that follows a planted word as often as dosed", "standard"),
        "shortcut-seq2seq": (
            "workbench.organisms.shortcut:SEQ2SEQ",
            "encoder-decoder that follows a planted word as often as dosed",
            "standard",
        ),
        "shortcut-vit": ("workbench.organisms.shortcut:VIT", "image classifier that follows a planted patch as dosed", "standard"),
        "shortcut-clip": ("workbench.organisms.shortcut:CLIP", "image-text pair that follows a planted caption word", "standard"),
        "shortcut-dalle": ("workbench.organisms.shortcut:DALLE", "painter in codes that follows a planted caption word", "standard"),
        "shortcut-imagen": ("workbench.organisms.shortcut:IMAGEN", "denoiser that follows a planted caption word", "standard"),
        "shortcut-whisper": ("workbench.organisms.shortcut:WHISPER", "speech model that follows a planted tone as dosed", "standard"),
    },
)
