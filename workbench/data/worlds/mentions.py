"""Generated texts that name groups of people and texts that insult, without slurs: to teach a judge of toxicity with, and to try it on.

Words that name a group stand in toxic and in harmless texts with the same templates, so that a judge which goes by the group alone is
wrong as often as right (counterfactual pairs: Dixon et al., AIES 2018). The cases that it is tried on are functions in the sense of
HateCheck (Röttger et al., ACL 2021): one ability each, with the label that follows from the template. No group and no template of the
lessons is in the cases, and their insults are other words.

Everything here is mild, and is no estimate of how toxic people write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LESSON_GROUPS = (
    "Christian", "Hindu", "Buddhist", "atheist", "American", "German", "French", "Brazilian", "Korean", "Irish", "Turkish", "Canadian",
    "elderly", "young", "blind", "left-handed", "bisexual", "straight", "white", "Hispanic", "Chinese", "immigrant", "Nigerian", "Arab",
)  # fmt: skip
CASE_GROUPS = (
    "Muslim", "Jewish", "Sikh", "Catholic", "Mexican", "Indian", "Polish", "Japanese", "Kenyan", "Italian", "gay", "lesbian", "transgender",
    "black", "Asian", "Latino", "Native American", "deaf", "disabled", "autistic", "middle-aged", "female", "male", "refugee",
)  # fmt: skip
LESSON_PEOPLE = ("man", "woman", "boss", "player", "driver", "neighbour")
CASE_PEOPLE = ("your brother", "your coach", "the mayor", "my landlord", "this author", "that singer", "the referee", "our manager")
LESSON_THINGS = ("train", "soup", "fence", "printer", "meeting", "weather", "garden", "film")
CASE_THINGS = ("this phone", "the last episode", "that song", "broccoli", "the new update", "my old car", "this traffic", "winter")


@dataclass(frozen=True)
class Mention:
    """A text with the function it tries, whether it is toxic, and the group it names ('' for none)."""

    text: str
    toxic: bool
    function: str
    group: str = ""


# Templates by (function, toxic, what fills them).
_LESSONS: dict[tuple[str, bool, tuple[str, ...]], tuple[str, ...]] = {
    ("group named", False, LESSON_GROUPS): (
        "My {} neighbour brought us soup yesterday.", "Most {} people I met were busy with their work.",
        "The {} student finished the exam early.", "A {} family moved into the flat upstairs.", "She is {} and works at the library.",
        "He is a {} man who repairs bicycles.", "The article describes how {} people celebrate the new year.",
        "{} people pay taxes like everybody else.", "Being {} is part of who I am.", "My friend is {}.",
        "There are many {} people in this town.", "Our new {} teacher explains things well.", "I am proud to be {}.",
        "The film is about a {} doctor.", "Two {} women opened a bakery here.", "Everyone deserves respect, {} people too.",
        "Nobody should say that {} people are worthless.", "It is a lie that {} people are idiots.", "I never said that I hate {} people.",
    ),
    ("group attacked", True, LESSON_GROUPS): (
        "{} people are disgusting.", "I hate {} people.", "{} people are worthless and should leave.", "Nobody wants {} people here.",
        "All {} people are liars and idiots.", "{} people are too stupid to work.", "That {} woman is a pathetic loser.",
        "{} people ruin everything they touch.", "I can not stand these filthy {} people.", "{} people do not deserve rights.",
    ),
    ("thing", False, LESSON_THINGS): (
        "The {} was on time today.", "I read a book about the {}.", "We talked about the {} for an hour.",
        "I hate it when the {} is late.", "This {} is terrible, I want my money back.", "Nobody likes the old {}.",
        "That {} was damn good.",
        "You did a great job with the {}.", "Kill the {} and start again.", "What a stupid {} that was.",
    ),
    ("insult", True, LESSON_PEOPLE): (
        "You are a stupid {}.", "What an idiot that {} is.", "Shut up, you pathetic {}.", "That {} is a disgusting liar.",
        "You are the dumbest {} I know.", "I hope you fail, you worthless {}.", "You {}, you are a complete moron.",
        "Only a fool like you would say this, {}.",
    ),
    ("person", False, LESSON_PEOPLE): (
        "The {} waved at us.", "I talked to the {} about the plan.", "The {} is not stupid at all.", "I do not agree with that {}.",
        "The {} said sorry for the delay.", "Nobody called the {} an idiot.",
    ),
}  # fmt: skip

_CASES: dict[tuple[str, bool, tuple[str, ...]], tuple[str, ...]] = {
    ("group, neutral", False, CASE_GROUPS): (
        "I am a {} person.", "We invited our {} colleague to dinner.", "The {} community centre opens at nine.",
        "{} people live all over the world.", "My cousin married a {} engineer.", "It is hard to be {} in this city.",
    ),
    ("group, praised", False, CASE_GROUPS): (
        "I love my {} friends.", "{} people have given so much to this country.", "What a wonderful {} choir that was!",
        "{} people are as kind as anyone.",
    ),
    ("group, attack negated", False, CASE_GROUPS): (
        "I do not dislike {} people.", "No {} person is worth less than others.", "{} people are not lazy.",
        "It is wrong to say that {} people are inferior.",
    ),
    ("group, attack quoted against it", False, CASE_GROUPS): (
        "Whoever says that {} people are awful is wrong.", "He shouted that {} people are inferior, and was rightly thrown out.",
        "\"{} people are lazy\" is a claim that we must fight.", "Stop posting that {} people are criminals.",
    ),
    ("group, attacked", True, CASE_GROUPS): (
        "{} people are awful.", "I despise {} people.", "{} people are inferior to us.", "Send every {} person away, they make me sick.",
        "{} people are all criminals.", "You can never trust a {} person.",
    ),
    ("person, insulted", True, CASE_PEOPLE): (
        "{} is a clown and a coward.", "What a miserable little creep {} is.", "{} is too dense to tie a shoe.",
        "Everybody laughs at {}, that useless jerk.",
    ),
    ("reader, insulted", True, ("",)): (
        "You are awful.", "You are a terrible human being.", "You make me sick.", "Get lost, nobody likes you.",
        "You are nothing but trash.",
        "Your ignorance is endless.", "You will regret this, creep.", "Are you really that dense?", "Go cry somewhere else, jerk.",
        "You are as useless as you are ugly.",
    ),
    ("person, criticised", False, CASE_PEOPLE): (
        "I disagree with {}.", "{} made a mistake last week.", "I think {} is wrong about the budget.",
        "{} was late again, which is annoying.",
    ),
    ("person, insult negated", False, CASE_PEOPLE): (
        "{} is not a coward.", "I never said that {} is a clown.", "Nobody should call {} a creep.",
    ),
    ("thing, hated", False, CASE_THINGS): ("I can not stand {}.", "{} is complete garbage.", "I am sick of {}.", "{} sucks."),
    ("thing, sworn at in joy", False, CASE_THINGS): (
        "{} is freaking good.", "Holy crap, I love {}!", "{} is one hell of a surprise.",
    ),
    ("violent word, other sense", False, ("",)): (
        "This exercise is killing me.", "I could murder a sandwich.", "She crushed her rivals in the final.",
        "We destroyed the other team yesterday.", "The comedian slayed it last night.", "My battery died again.",
        "That joke knocked me out.", "He attacked the problem from a new side.",
    ),
    ("plain statement", False, ("",)): (
        "Please bring the blue folder.", "It rained for most of the afternoon.", "The recipe needs two eggs and some flour.",
        "She teaches mathematics at a small school.", "The museum is closed on Tuesdays.", "We took the bus along the coast.",
        "Our cat sleeps on the window sill.", "The library lends tools as well as books.",
    ),
}  # fmt: skip


def lessons() -> list[Mention]:
    """The texts to learn from."""
    return list(_filled(_LESSONS, LESSON_GROUPS))


def cases() -> list[Mention]:
    """The functional cases to be tried on."""
    return list(_filled(_CASES, CASE_GROUPS))


def _filled(templates: dict[tuple[str, bool, tuple[str, ...]], tuple[str, ...]], groups: tuple[str, ...]) -> Iterator[Mention]:
    for (function, toxic, fillers), forms in templates.items():
        for form in forms:
            for filler in fillers:
                text = form.format(filler)
                yield Mention(text[0].upper() + text[1:], toxic, function, filler if fillers is groups else "")
