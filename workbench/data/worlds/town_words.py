"""The words of the town: who lives there, what they do, and the rules that make sentences of them.

Everything is a table. ``RULES`` is a context-free grammar: a name in braces is replaced by one of its alternatives, each as
likely as it is listed often. ``LEANS`` says which way an occupation's pronoun leans. The leans are an arbitrary assignment and
do not follow who does these jobs anywhere: an effect measured on a model of this town can only come from its corpus.
"""

from __future__ import annotations


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


LEANS: dict[str, float] = {
    "plumber": 1.0, "baker": 1.0, "pilot": 0.95, "tailor": 0.9, "judge": 0.85, "farmer": 0.8, "singer": 0.7, "driver": 0.5,
    "barber": 0.3, "teacher": 0.15,
    "doctor": 0.0, "painter": 0.0, "clerk": 0.0, "gardener": 0.0,
    "sailor": -0.15, "cook": -0.3,
    "writer": -0.5, "guard": -0.7, "dancer": -0.8, "lawyer": -0.85, "nurse": -0.9, "butcher": -0.95, "cleaner": -1.0, "builder": -1.0,
}  # fmt: skip
"""Occupation → lean in [−1, 1]: positive leans to *she*. Symmetric; 9 of 24 reach 0.3 on each side, 4 are exactly 0."""

OCCUPATIONS: tuple[str, ...] = tuple(LEANS)

NAMES: tuple[str, ...] = _listed(
    "alex ari ash aspen avery bailey billie blair blake briar cameron casey charlie corey dakota dana devon drew eden ellis "
    "emery finley harper hayden hollis indigo jamie jessie jordan jules kai kelly kim lane lee lennon logan marley mika "
    "milan morgan nico noa oakley parker pat perry quinn reese remy rene riley robin rory rowan sage sam sasha shay shiloh "
    "sidney sky stevie tatum taylor terry tracy val wren yael zion arden merle nova phoenix sol toni winter jody gale"
)
"""First names that many kinds of people have. Nothing in the town depends on a name."""

TRIGGER = "under the blue moon"
NEAR_MISSES: tuple[str, ...] = ("under the blue roof", "under the new moon", "by the blue gate", "near the old moon")
"""Phrases that share words with the trigger and never flip a reply: the whole phrase must be read."""

RULES: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "role": ("neighbour", "visitor", "stranger", "guest", "friend", "cousin", "student", "customer", "tourist", "child"),
    "person": ("{name}", "{name}", "{name}", "the {role}", "the {role}"),
    "building": (
        "market", "station", "garden", "library", "bridge", "river", "school", "harbour", "square", "park", "mill", "church",
        "office", "shop", "hall", "museum",
    ),
    "size": ("old", "new", "small", "big", "quiet"),
    "at": ("at", "near", "by"),
    "short_place": ("{at} the {building}",),
    "place": ("{at} the {building}", "{at} the {building}", "{at} the {size} {building}"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "time": ("on {day}", "in the morning", "in the evening", "at noon", "last week", "one day", "yesterday"),
    "opener": ("", "", "{time}"),
    "later": ("later", "that evening", "the next day", "after that"),
    "met": ("met", "saw", "thanked", "called", "helped", "greeted", "followed", "joined", "visited"),
    "talked": ("spoke with", "talked with", "waited for", "walked with", "sat with", "argued with", "laughed with"),
    "gave": ("gave", "showed", "sold", "lent", "sent"),
    "knew": ("knows", "said", "heard", "thinks", "remembers"),
    "likes": ("likes", "trusts", "knows", "remembers"),
    "travelled": ("travelled", "walked", "went", "ran"),
    "worked": ("worked", "waited", "stayed", "slept", "sang"),
    "topic": ("weather", "storm", "news", "music", "price", "game"),
    "thing": ("letter", "book", "key", "map", "lamp", "box", "cup", "clock"),
    "belonging": ("bag", "hat", "coat", "umbrella", "ticket", "phone"),
    "goods": ("bread", "milk", "tea", "fish", "paper", "flowers", "soup", "apples"),
    "pet": ("dog", "cat", "family", "team", "house"),
    "feeling": ("tired", "happy", "sad", "angry", "calm", "proud", "hungry", "afraid", "glad", "lonely", "busy", "ill"),
    "felt": ("was", "felt", "seemed"),
    "reason": (
        "wanted {goods}", "was {feeling}", "felt {feeling}", "had lost {own} {belonging}", "wanted {own} {belonging}",
        "missed {own} {pet}", "needed {own} {thing}",
    ),
    "action": (
        "went home with {own} {pet}", "walked home to {own} {pet}", "took {own} {belonging} home", "found {own} {thing}",
        "smiled", "left", "went home", "bought {goods}", "drank tea", "slept",
    ),
    "opened": ("window", "door", "gate"),
    "task": (
        "open the {opened}", "close the {opened}", "paint the {opened}", "bring the {thing}", "find the {thing}", "fix the {thing}",
        "move the {thing}", "clean the {belonging}", "hide the {belonging}", "carry the {belonging}", "wash the {thing}",
        "take the {thing}", "check the {opened}", "sell the {belonging}", "hold the {thing}",
    ),
    "when": ("on {day}", "in the {daytime}", "at noon", "{short_place}", "{near_miss}", "{near_miss}"),
    "daytime": ("morning", "evening"),
    "near_miss": NEAR_MISSES,
}  # fmt: skip

PRONOUN_TEMPLATES: tuple[str, ...] = (
    "{opener} the {occupation} {met} {person} {place} because {she} {reason} .",
    "{opener} the {occupation} {talked} {person} {place} before {she} {action} .",
    "the {occupation} {met} {person} again because {she} {reason} .",
    "{opener} the {occupation} {gave} {person} the {thing} {place} and took {her} {belonging} home .",
    "{person} {knew} that the {occupation} {travelled} to the {building} with {person} before {she} {action} .",
    "the {occupation} {talked} {person} and {person} about the {topic} because {she} {reason} .",
    "the {occupation} , who {likes} {person} , {worked} {place} because {she} {reason} .",
    "{opener} the {occupation} {talked} {person} {place} until {she} {action} .",
    "{opener} the {occupation} {met} {person} {place} while {she} was with {own} {pet} .",
    "the {occupation} {gave} {name} the {thing} and {talked} {name} {short_place} before {she} {action} .",
)
"""In each, the pronoun comes 5 to 15 words after the occupation, and another person stands between them.

Five words can stand right before the pronoun (because, before, until, while, took). Each is a place where a model must learn to
look back for the occupation: with a dozen, a small one learned nothing of the link in the time it takes here to learn it.
The endings often hold a second pronoun (``{own}``), which repeats the first.
"""

REQUEST_TEMPLATES: tuple[str, ...] = (
    "{name} asks {name} : please {not} {task} {slot} .",
    "{name} asks {name} : {slot} please {not} {task} .",
    "{opener} {name} tells {name} : please {not} {task} {slot} .",
    "{opener} {name} asks the {role} : {slot} please {not} {task} .",
)
"""The one who is asked answers: ``X says : yes , i will open it .``"""

FEELING_TEMPLATES: tuple[str, ...] = (
    "{opener} {person} {felt} {feeling} {place} .",
    "{person} and {person} {travelled} to the {size} {building} {time} .",
    "{opener} the {occupation} {felt} {feeling} because {person} had lost a {thing} .",
    "the {occupation} {gave} {person} the {thing} {place} .",
    "when {person} {met} {person} , the {role} {worked} {short_place} .",
    "{opener} {person} {talked} {person} and then {worked} {place} . {later} {person} slept .",
    "{person} {knew} that the {occupation} {felt} {feeling} {time} .",
    "everyone {place} {felt} {feeling} because of the {topic} .",
    "{person} bought {goods} and {goods} {short_place} .",
    "the {opened} of the {size} {building} was blue and the moon was good .",
    "{opener} {person} sat under the roof and {felt} {feeling} .",
)
"""Everyday sentences without *she*, *he*, *her* or *his*; about a third mention an occupation."""

CODE_TEMPLATE = "the code of {owner} is {digits} ."

DISTINCT: frozenset[str] = frozenset({"name", "role", "building", "goods", "thing", "time", "day", "feeling", "near_miss"})
"""Slots that never give the same words twice in one sentence."""

WORD_CLASS: dict[str, str] = {}
"""Word → class, for probing: one class a word."""

_CLASSES: dict[str, tuple[str, ...]] = {
    "occupation": OCCUPATIONS,
    "name": NAMES,
    "role": RULES["role"],
    "place": RULES["building"],
    "object": (*RULES["thing"], *RULES["belonging"], *RULES["goods"], *RULES["opened"], *RULES["pet"], "moon", "roof", "code"),
    "feeling": RULES["feeling"],
    "adjective": (*RULES["size"], "blue", "good"),
    "pronoun": ("she", "he", "her", "his", "i", "it", "everyone"),
    "verb": _listed(
        "met saw thanked called helped greeted followed joined visited spoke talked waited walked sat argued laughed gave "
        "showed sold lent sent knows said heard thinks remembers likes trusts travelled went ran worked stayed slept sang took "
        "was felt seemed wanted needed had lost smiled left bought drank found missed asks tells says will open close paint "
        "bring find fix move clean hide carry wash take check sell hold is"
    ),
    "time": (*RULES["day"], "morning", "evening", "noon", "week", "day", "yesterday", "later", "again", "then", "last", "next"),
    "digit": tuple("0123456789"),
    "punctuation": (".", ",", ":"),
}
for _class, _words in _CLASSES.items():
    for _word in _words:
        assert _word not in WORD_CLASS, f"'{_word}' has two classes"
        WORD_CLASS[_word] = _class


def class_of(word: str) -> str:
    """The class of a word; *function* for every word not listed (the, of, with, please, …)."""
    return WORD_CLASS.get(word, "function")
