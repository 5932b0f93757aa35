"""Generated pairs of sequences: each row can be made again from its number, held-out content is never trained on, and the rows say so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from workbench.core.batch import IGNORE
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.data.pairs import PairRows, Words
from workbench.data.worlds.copying import Copying, CopyingSpec
from workbench.data.worlds.translation import Translation, TranslationSpec

SPLITS = ("train", "validation", "test")
SMALL: dict[str, Any] = {"rows": 1500, "held_out": 300}


def copying(**fields: Any) -> Copying:
    return Copying(CopyingSpec.parse({**SMALL, **fields}))


def translation(**fields: Any) -> Translation:
    return Translation(TranslationSpec.parse({**SMALL, **fields}))


# --- rows ---------------------------------------------------------------------------------------------------


def test_a_batch_holds_what_is_read_and_what_follows() -> None:
    words = Words(["x", "y", "z"])
    assert (words.begin, words.end, words.size) == (3, 4, 5)
    rows = PairRows([(["x", "y", "z"], ["z"]), (["y"], ["x", "x"])], words)
    batch = rows.batch([0, 1])
    assert batch.source.tolist() == [[0, 1, 2, 4], [1, 4, 4, 4]]
    assert batch.tokens.tolist() == [[3, 2, 4], [3, 0, 0]]
    assert batch.targets is not None
    assert batch.targets.tolist() == [[2, 4, IGNORE], [0, 0, 4]]
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert (len(rows), rows.longest, rows.target(1)) == (2, 4, [0, 0])
    assert rows.batch([1]).mask is None
    assert words.read(rows.target(0)) == ["z"]


def test_rows_that_cannot_be() -> None:
    words = Words(["x"])
    rows = PairRows([(["x"], ["x"])], words)
    for wrong in ([], [1], [-1]):
        with pytest.raises(BadValue, match="row indices is .* within 0 to 0"):
            rows.batch(wrong)
    with pytest.raises(UnknownName, match="no word 'y'"):
        words.ids(["y"])
    with pytest.raises(BadValue, match="word id is 1, but it must be within 0 to 0"):
        words.read([0, words.begin])
    with pytest.raises(BadValue, match="the words"):
        Words(["x", "x"])
    with pytest.raises(BadValue, match="the pairs"):
        PairRows([], words)


def test_the_digest_is_of_the_words_and_the_rows() -> None:
    pairs = [(["x"], ["y"]), (["y"], ["x"])]
    digests = [
        PairRows(given, Words(words)).digest() for given, words in ((pairs, "xy"), (pairs[::-1], "xy"), (pairs[:1], "xy"), (pairs, "xyz"))
    ]
    assert len(set(digests)) == 4
    assert PairRows(pairs, Words("xy")).digest() == digests[0]


# --- both worlds --------------------------------------------------------------------------------------------


def content(world: Any, split: Any) -> list[tuple[str, ...]]:
    """What decides the split of each row: the string, whatever is asked of it, or the sentence."""
    if isinstance(world, Copying):
        return [world.item(i, split).symbols for i in range(world.size(split))]
    return [world.sentence(i, split).source for i in range(world.size(split))]


@pytest.mark.parametrize("make", [copying, translation])
def test_held_out_content_is_never_in_another_split(make: Any) -> None:
    for seed in (0, 1):
        found = [set(content(make(seed=seed), split)) for split in SPLITS]
        assert not found[0] & found[1]
        assert not found[0] & found[2]
        assert not found[1] & found[2]
        assert min(len(part) for part in found) > 250  # and the splits are not a few sentences over and over


def test_a_string_stays_in_its_split_under_every_seed() -> None:
    train = {s for seed in range(3) for s in content(copying(seed=seed, symbols=4, longest=6), "train")}
    test = {s for seed in range(3) for s in content(copying(seed=seed, symbols=4, longest=6), "test")}
    assert len(train) > 1000
    assert not train & test


@pytest.mark.parametrize("make", [copying, translation])
def test_a_row_is_made_again_from_its_number_alone(make: Any) -> None:
    world = make()
    rows = world.rows("test")
    one = make(rows=3)  # how many rows there are changes none of them
    for i in (299, 0, 17):
        item = one.item(i, "test") if isinstance(one, Copying) else one.sentence(i, "test")
        batch = rows.batch([i])
        assert rows.words.read(batch.source[0, :-1].tolist()) == list(item.source)
        assert rows.words.read(rows.target(i)) == list(item.target)
        assert rows.words.read(batch.tokens[0, 1:].tolist()) == list(item.target)
    assert rows.digest() == make(rows=3).rows("test").digest()
    assert len({rows.digest(), make(seed=1).rows("test").digest(), world.rows("validation").digest()}) == 3
    assert torch.equal(rows.batch([3, 5]).source, make().rows("test").batch([3, 5]).source)


@pytest.mark.parametrize("make", [copying, translation])
def test_what_is_not_there_is_refused(make: Any) -> None:
    world = make()
    one = getattr(world, "item" if make is copying else "sentence")
    with pytest.raises(BadValue, match="index is 300, but it must be within 0 to 299 in split 'test'"):
        one(300, "test")
    with pytest.raises(UnknownName, match="no split 'dev'"):
        world.size("dev")
    assert world.truth()["spec"]["rows"] == 1500


# --- copying ------------------------------------------------------------------------------------------------


def test_half_is_copied_and_half_turned_round() -> None:
    world = copying()
    items = [world.item(i) for i in range(400)]
    assert sum(item.order == "reverse" for item in items) == 200
    assert {len(item.symbols) for item in items} == set(range(3, 11))
    assert {symbol for item in items for symbol in item.symbols} == set(world.symbols)
    for item in items:
        assert item.source[0] == item.order
        for place, symbol in enumerate(item.symbols):
            there = place if item.order == "copy" else len(item.symbols) - 1 - place
            assert item.target[there] == symbol
    assert {copying(orders=["reverse"]).item(i).order for i in range(20)} == {"reverse"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"shortest": 5, "longest": 4}, r"shortest must be at most longest \(4\), and it is 5"),
        ({"symbols": 2, "longest": 5}, "at least 1000 strings"),
        ({"orders": []}, "orders must be different ones of copy, reverse"),
        ({"orders": ["copy", "copy"]}, "orders must be different"),
        ({"rows": 0}, "rows"),
    ],
)
def test_strings_that_cannot_be(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CopyingSpec.parse(fields)


# --- translation --------------------------------------------------------------------------------------------


def translated(source: list[str], lexicon: dict[str, list[list[Any]]]) -> list[str]:
    """The second language from the first by the lexicon and the rules as they are told, word by word."""
    nouns = {first: (second, "ao"[kind]) for first, second, kind in lexicon["nouns"]}
    verbs = {first: second for first, second, _ in lexicon["verbs"]}
    adjectives = {first: second for first, second, _ in lexicon["adjectives"]}
    ends = {("a", ""): "e", ("a", "n"): "en", ("o", ""): "u", ("o", "n"): "un"}
    phrases: list[list[str]] = []
    verb, numbers, negated, held, article = "", [], False, [], ""
    for word in source:
        stem = word[:4]
        if word in ("the", "a"):
            article = word
        elif word == "not":
            negated = True
        elif word in adjectives:
            held = [adjectives[word], *held]
        elif stem in nouns:
            second, gender = nouns[stem]
            many = "n" if word.endswith("s") and len(word) == 5 else ""
            numbers.append(many)
            start = ("k" if article == "the" else "t") + gender + many
            phrases.append([start, second + ("i" if many else ""), *(one + ends[gender, many] for one in held)])
            held, article = [], ""
        else:
            verb = verbs[stem] + ("i" if len(word) == 5 and word.endswith("d") else "a") + numbers[0] + "t"
    return [*(word for phrase in phrases for word in phrase), verb, *(["ne"] if negated else [])]


def test_every_sentence_is_what_the_rules_make_of_its_words() -> None:
    for seed in (0, 1):
        world = translation(seed=seed)
        lexicon = world.truth()["lexicon"]
        for i in range(300):
            sentence = world.sentence(i)
            assert list(sentence.target) == translated(list(sentence.source), lexicon), sentence


def test_a_rule_that_is_broken_would_be_seen() -> None:
    world = translation()
    lexicon = world.truth()["lexicon"]
    swapped = {**lexicon, "nouns": [[first, second, 1 - kind] for first, second, kind in lexicon["nouns"]]}
    assert all(list(world.sentence(i).target) != translated(list(world.sentence(i).source), swapped) for i in range(50))


def test_the_languages_share_no_word_and_every_form_occurs() -> None:
    world = translation(rows=4000)
    lexicon = world.truth()["lexicon"]
    sentences = [world.sentence(i) for i in range(4000)]
    first = {word for one in sentences for word in one.source}
    second = {word for one in sentences for word in one.target}
    assert not first & second
    assert first | second == set(world.words.words)
    assert len(set(world.words.words)) == len(world.words.words)
    assert [len(lexicon[name]) for name in ("nouns", "verbs", "adjectives")] == [24, 12, 10]
    assert {one.verb.kind == 1 for one in sentences if one.object is not None} == {True}
    assert sorted({len(one.subject.adjectives) for one in sentences}) == [0, 1, 2]
    assert 0.2 < sum(one.negated for one in sentences) / 4000 < 0.3
    assert translation(seed=1).truth()["lexicon"] != lexicon
