"""Generated texts whose feeling follows from their template: positive, negative or neither. To try a judge of sentiment on.

Functions in the sense of HateCheck and CheckList (Röttger et al., ACL 2021; Ribeiro et al., ACL 2020): one ability each. Groups of people,
names, occupations and grave or glad subjects stand in texts that say nothing good or bad, and groups in praise and attack alike, with the
same templates for each. They are short and mild, and no estimate of how people write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workbench.data.worlds.mentions import CASE_GROUPS

Label = Literal["positive", "negative", "neither"]
POSITIVE, NEGATIVE, NEITHER = LABELS = ("positive", "negative", "neither")

THINGS = ("the concert", "the food", "the hotel", "the new office", "the film", "the journey")
PEOPLE = ("my neighbour", "the mayor", "our teacher", "the driver", "the author", "the nurse")
PLAIN_NAMES = ("Mary", "James", "Ahmed", "Fatima", "Yuki", "Olga", "Kofi", "Carlos", "Mei", "Priya", "Lars", "Aisha")
WORD_NAMES = ("Joy", "Grace", "Hope", "Faith", "Sunny", "Rich", "Will", "Victor", "Ernest", "Rose", "Christian", "Patience")
"""Names that are words as well."""
OCCUPATIONS = (
    "nurse", "soldier", "judge", "dancer", "surgeon", "cleaner", "sheriff", "actress", "farmer", "bishop", "boxer", "engineer",
)  # fmt: skip
NOTHING = ("",)


@dataclass(frozen=True)
class Feeling:
    """A text with what it feels, the function it tries, its form (the template) and what fills it; ``group`` where that is a group."""

    text: str
    label: Label
    function: str
    form: str
    filler: str = ""

    @property
    def group(self) -> str:
        """The group of people that it names, or ''."""
        return self.filler if self.filler in CASE_GROUPS else ""


# Templates by (function, label, what fills them).
_CASES: dict[tuple[str, Label, tuple[str, ...]], tuple[str, ...]] = {
    ("plain, of a thing", "positive", THINGS): (
        "{} was wonderful.", "I really enjoyed {}.", "{} made everyone happy.", "{} is a great success.", "What a lovely surprise {} was!",
    ),
    ("plain, of a thing", "negative", THINGS): (
        "{} was terrible.", "I hated {}.", "{} made everyone sad.", "{} is a complete failure.", "What a nasty surprise {} was!",
    ),
    ("plain, of a thing", "neither", THINGS): (
        "{} was mentioned in the report.", "I read about {}.", "{} comes after lunch.", "{} was moved to Tuesday.", "They talked about {}.",
    ),
    ("plain, of a person", "positive", PEOPLE): (
        "{} is kind and honest.", "I admire {}.", "{} was praised by the whole town.", "{} is brilliant at this.",
    ),
    ("plain, of a person", "negative", PEOPLE): (
        "{} is cruel and dishonest.", "I despise {}.", "{} was blamed by the whole town.", "{} is hopeless at this.",
    ),
    ("plain, of a person", "neither", PEOPLE): (
        "{} was born in 1950.", "I called {} on Monday.", "{} moved to another town.", "{} has two brothers.",
    ),
    ("negated praise", "negative", THINGS): (
        "{} was not good at all.", "I did not enjoy {}.", "Nobody was happy with {}.", "{} is hardly a success.", "I never liked {}.",
    ),
    ("negated blame", "positive", THINGS): (
        "{} was not bad at all.", "I have no complaints about {}.", "There was nothing wrong with {}.", "Nobody was unhappy with {}.",
        "{} did not disappoint us.",
    ),
    ("contrast, ends well", "positive", THINGS): (
        "At first it was awful, but {} was wonderful.", "I expected a disaster, yet {} was excellent.",
        "Although the start was boring, {} was a joy in the end.", "The weather was bad; even so, {} was perfect.",
    ),
    ("contrast, ends badly", "negative", THINGS): (
        "At first it was wonderful, but {} was awful.", "I expected something excellent, yet {} was a disaster.",
        "Although the start was a joy, {} was boring in the end.", "The weather was perfect; even so, {} was bad.",
    ),
    ("intensified", "positive", THINGS): ("{} was extremely pleasant.", "{} was so very nice.", "{} is by far the best of the year."),
    ("intensified", "negative", THINGS): ("{} was extremely unpleasant.", "{} was so very ugly.", "{} is by far the worst of the year."),
    ("question", "neither", THINGS): (
        "Was {} good or bad?", "Do you know whether {} was any good?", "Was {} terrible?", "Who said that {} was wonderful?",
    ),
    ("what might be", "neither", THINGS): (
        "If {} were good, we would know by now.", "It is too early to say whether {} is a success.",
        "Tell us whether you love or hate {}.",
    ),
    ("irony", "negative", NOTHING): (
        "Great, the train is late again.", "Thanks a lot for breaking my bicycle.", "Wonderful, another evening without water.",
        "Just what I needed: a second flat tyre.", "How lovely of him to forget my birthday.", "Brilliant, now the roof leaks as well.",
    ),
    ("loss told in plain words", "negative", NOTHING): (
        "The doctor could do nothing more for her.", "Nobody came to his last birthday.", "They took the house and everything in it.",
        "She waited a year for a letter that was not written.", "After the fire only the chimney stood.",
        "He eats every dinner by himself.",
    ),
    ("group, neutral", "neither", CASE_GROUPS): (
        "I am a {} person.", "The {} community centre opens at nine.", "{} people live all over the world.",
        "My cousin married a {} engineer.", "A {} student took the early bus.", "Two {} women run the bakery.",
    ),
    ("group, praised", "positive", CASE_GROUPS): (
        "{} people are wonderful.", "I love my {} friends.", "The {} choir was fantastic.", "{} people are kind and honest.",
    ),
    ("group, attacked", "negative", CASE_GROUPS): (
        "{} people are awful.", "I despise {} people.", "{} people are cruel and dishonest.", "I hate every {} person.",
    ),
    ("group, attack opposed", "neither", CASE_GROUPS): (
        "Whoever says that {} people are awful is wrong.", "It is not true that {} people are cruel.",
        "The article asks why some hate {} people.",
    ),
    ("plain name", "neither", PLAIN_NAMES): ("{} opened the door.", "{} was born in 1950.", "I met {} at the station."),
    ("name that is a word", "neither", WORD_NAMES): ("{} opened the door.", "{} was born in 1950.", "I met {} at the station."),
    ("occupation", "neither", OCCUPATIONS): (
        "She worked as a {} for ten years.", "The {} was born in 1950 and went to school there.", "A {} sat in the second row.",
    ),
    ("grave subject", "neither", NOTHING): (
        "The museum tells the history of the war.", "She studied how cancer cells grow.", "He wrote two books about crime in cities.",
        "The film is set in a prison.", "Her lecture was about death in old poems.", "The county counted fewer fires than in 1950.",
        "The court heard the murder case in May.", "He translated a novel about poverty.",
    ),
    ("glad subject", "neither", NOTHING): (
        "The prize is awarded every second year.", "She studied how markets set the value of gold.",
        "He wrote two books about love in cities.", "The film is set in a holiday camp.", "Her lecture was about freedom in old poems.",
        "The county counted fewer weddings than in 1950.", "The party held its congress in May.",
        "The trust runs a home for retired seamen.",
    ),
}  # fmt: skip


def cases() -> list[Feeling]:
    """Every functional case, in one order."""
    out = []
    for (function, label, fillers), forms in _CASES.items():
        for form in forms:
            for filler in fillers:
                text = form.format(filler)
                out.append(Feeling(text[0].upper() + text[1:], label, function, form, filler))
    return out
