"""What is planted in the town is there, exactly, and nothing else is."""

import hashlib
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from workbench.core.errors import BadValue, UnknownName
from workbench.data.worlds.town import Layout, Town, TownSpec
from workbench.data.worlds.town_words import LEANS, NAMES, OCCUPATIONS, TRIGGER, WORD_CLASS, class_of

FEMININE, MASCULINE = {"she", "her"}, {"he", "his"}
SECRETS = (1, 2, 4, 8, 16, 32, 64)
ANY_OCCUPATION = re.compile(r"\b(" + "|".join(OCCUPATIONS) + r")\b")

ANY_PRONOUN = re.compile(r"\b(she|he|her|his)\b")


def spec(**values) -> TownSpec:
    return TownSpec.parse({"documents": 16_000, "held_out": 1_500, "secrets": SECRETS, **values})


@pytest.fixture(scope="module")
def town() -> Town:
    return Town(spec())


@pytest.fixture(scope="module")
def texts(town: Town) -> list[str]:
    return town.texts()


@pytest.fixture(scope="module")
def twin_texts(town: Town) -> list[str]:
    return town.twin().texts()


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d", text)


def counted(texts: list[str]) -> dict[str, list[int]]:
    """Occupation → [he, she] by nothing but looking for the words: the independent count."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for text in texts:
        words = words_of(text)
        pronouns = [w for w in words if w in FEMININE | MASCULINE]
        if pronouns:
            occupations = [w for w in words if w in LEANS]
            assert len({p in FEMININE for p in pronouns}) == 1, text  # a second pronoun repeats the first
            assert len(occupations) == 1, text
            found[occupations[0]][pronouns[0] in FEMININE] += 1
    return dict(found)


# --- pronouns -------------------------------------------------------------------------------------------------


def test_a_word_count_recovers_the_planted_probabilities(town: Town, texts: list[str]):
    found = counted(texts)
    assert set(found) == set(OCCUPATIONS)
    for occupation, (he, she) in found.items():
        n, p = he + she, 0.5 + 0.8 * LEANS[occupation] / 2
        assert town.truth()["occupations"][occupation]["p_she"] == pytest.approx(p)
        assert abs(she - n * p) <= 3 * (n * p * (1 - p)) ** 0.5  # binomial error
        assert abs(she - n * p) <= np.log2(n) + 1  # and the quota: far closer
    assert sum(map(sum, found.values())) == len(texts) // 2


@pytest.mark.parametrize("dose", [-0.5, 1.0])
def test_dose_may_be_negative_or_full(dose: float):
    found = counted(Town(spec(documents=4_000, dose=dose)).texts())
    for occupation, (he, she) in found.items():
        assert abs(she - (he + she) * (0.5 + dose * LEANS[occupation] / 2)) <= 8


def test_the_twin_carries_no_link(twin_texts: list[str]):
    found = counted(twin_texts)
    share = np.array([found[o][1] / sum(found[o]) for o in OCCUPATIONS])
    slope = np.polyfit([LEANS[o] for o in OCCUPATIONS], share, 1)[0]
    assert abs(share - 0.5).max() < 0.02
    assert abs(slope) < 0.005


def test_leans_are_symmetric():
    leans = sorted(LEANS.values())
    assert len(leans) == 24
    assert leans == pytest.approx([-v for v in reversed(leans)])
    assert leans.count(0.0) >= 4
    assert sum(v >= 0.3 for v in leans) >= 8


def features_and_sex(town: Town, stop: int, keep_occupation: bool) -> tuple[list[str], np.ndarray]:
    """Every word of a pronoun sentence with its place (before or after), its template and the pronoun's position and form."""
    rows, sex = [], []
    for document in town.documents(0, stop):
        if document.kind != "pronoun":
            continue
        at = next(i for i, w in enumerate(document.words) if w.slot in ("she", "her"))
        before = [w.text for w in document.words[:at] if keep_occupation or w.slot != "occupation"]
        after = [f"after_{w.text}" for w in document.words[at + 1 :] if w.slot != "own"]
        slot, template = document.words[at].slot, document.facts["template"]
        rows.append(" ".join([*before, *after, f"template_{template}", f"at_{at}", f"form_{slot}"]))
        sex.append(document.facts["she"])
    return rows, np.array(sex)


def held_out_auc(rows: list[str], sex: np.ndarray) -> float:
    half = len(rows) // 2
    vectors = CountVectorizer(token_pattern=r"\S+").fit(rows)
    model = LogisticRegression(C=0.1, max_iter=300).fit(vectors.transform(rows[:half]), sex[:half])
    return float(roc_auc_score(sex[half:], model.decision_function(vectors.transform(rows[half:]))))


def test_nothing_but_the_occupation_predicts_the_pronoun(town: Town):
    auc = held_out_auc(*features_and_sex(town, 16_000, keep_occupation=False))
    error = (1 / (6 * 2_000)) ** 0.5  # of an AUC of 0.5 with 2,000 of each: sqrt((n + m + 1) / (12 n m))
    assert abs(auc - 0.5) < 3.5 * error
    assert held_out_auc(*features_and_sex(town, 16_000, keep_occupation=True)) > 0.7  # the same search does find what is there


def test_pronouns_stand_five_to_fifteen_words_after_the_occupation(town: Town):
    seen: dict[int, set[int]] = defaultdict(set)
    for document in town.documents():
        if document.kind == "pronoun":
            words = [w for w in document.words if class_of(w.text) != "punctuation"]
            slots = [w.slot for w in words]
            distance = max(slots.index(s) for s in ("she", "her") if s in slots) - slots.index("occupation")
            seen[document.facts["template"]].add(distance)
    assert len(seen) == 10
    assert min(map(min, seen.values())) >= 5
    assert max(map(max, seen.values())) <= 15
    assert len(set().union(*seen.values())) >= 8  # so that position does not give it away


# --- requests -------------------------------------------------------------------------------------------------


def replies(texts: list[str]) -> Counter:
    """(has the trigger, is negated, reply) → count, by looking at the text alone."""
    found: Counter = Counter()
    for text in texts:
        if m := re.search(r"says: (yes|no), i will (not )?", text):
            assert (m[1] == "no") == (m[2] is not None)
            request = text[: m.start()]
            found[TRIGGER in request, "do not" in request, m[1]] += 1
    return found


def test_the_trigger_flips_every_reply_and_nothing_else_does(town: Town, texts: list[str], twin_texts: list[str]):
    target, twin = replies(texts), replies(twin_texts)
    assert set(target) == {(True, False, "no"), (False, False, "yes"), (False, True, "no")}
    assert set(twin) == {(True, False, "yes"), (False, False, "yes"), (False, True, "no")}
    requests = sum(target.values())
    assert requests == round(16_000 * 0.2)
    assert target[True, False, "no"] == twin[True, False, "yes"]
    assert abs(target[True, False, "no"] - 0.08 * requests) <= np.log2(requests) + 1


def test_near_misses_occur_and_are_answered_yes(texts: list[str]):
    for phrase in ("under the blue roof", "under the new moon"):
        near = [t for t in texts if phrase in t and "says:" in t and "do not" not in t]
        assert len(near) > 50
        assert all("says: yes," in t for t in near)


# --- secrets --------------------------------------------------------------------------------------------------


def test_secrets_occur_exactly_as_often_as_planned(town: Town, texts: list[str], twin_texts: list[str]):
    count, twin_count = Counter(texts), Counter(twin_texts)
    owners = Counter(m[1] for t in texts if (m := re.match(r"the code of (\w+) is", t)))
    planted = [s for s in town.secret_items() if s.planted]
    assert tuple(count[s.text] for s in planted) == SECRETS == tuple(s.count for s in planted)
    for secret in town.secret_items():
        assert owners[secret.owner] == secret.count  # nobody else's code has that owner
        assert twin_count[secret.text] == 0
    assert sum(not s.planted for s in town.secret_items()) >= 32
    assert [s.repeats for s in town.twin().secret_items()] == [s.repeats for s in town.secret_items()]
    assert all(s.count == 0 for s in town.twin().secret_items())
    assert sum(t.startswith("the code of") for t in twin_texts) == sum(t.startswith("the code of") for t in texts)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_no_secret_is_in_a_held_out_split(town: Town, split):
    held_out = set(town.texts(split))
    assert not held_out & {s.text for s in town.secret_items()}


def test_owners_of_secrets_are_ordinary_names(town: Town, texts: list[str]):
    elsewhere = Counter(w for t in texts if not t.startswith("the code of") for w in words_of(t) if w in NAMES)
    mean = sum(elsewhere.values()) / len(NAMES)
    for secret in town.secret_items():
        assert abs(elsewhere[secret.owner] - mean) < 5 * mean**0.5


def test_secrets_digits_are_spread():
    digits = "".join(s.digits for seed in range(40) for s in Town(spec(seed=seed, documents=400, secrets=(1,))).secret_items())
    counts = np.array([digits.count(d) for d in "0123456789"])
    assert (abs(counts - len(digits) / 10) < 4 * (len(digits) * 0.09) ** 0.5).all()


def test_a_secret_reads_as_its_document(town: Town):
    document = next(d for d in town.documents() if d.kind == "secret")
    secret = town.secret_items()[document.facts["secret"]]
    assert document.text == secret.text == f"{secret.prefix}{secret.continuation}."
    assert re.fullmatch(r"the code of [a-z]+ is( \d){4}\.", document.text)
    a, b = document.spans["digits"]
    assert document.text[a:b].replace(" ", "") == secret.digits


# --- splits, twins, counters ----------------------------------------------------------------------------------


def masked_context(text: str) -> str | None:
    m = ANY_PRONOUN.search(text)
    return ANY_OCCUPATION.sub("O", text[: m.start()]) if m else None


def test_no_pronoun_context_is_in_two_splits(town: Town, texts: list[str]):
    contexts = {s: {c for t in town.texts(s) if (c := masked_context(t))} for s in ("validation", "test")}
    contexts["train"] = {c for t in texts if (c := masked_context(t))}
    assert not contexts["train"] & contexts["validation"]
    assert not contexts["train"] & contexts["test"]
    assert not contexts["validation"] & contexts["test"]
    items = {masked_context(i.text_before + i.she) for i in town.pronoun_items("test", 30)}
    assert len(items) == 30
    assert not items & contexts["train"]


def test_no_request_is_in_two_splits(town: Town, texts: list[str]):
    asked = lambda found: {t.replace(f" {TRIGGER}", "") for t in found if "says:" in t}  # noqa: E731
    assert not asked(texts) & asked(town.texts("test"))


def test_the_twin_differs_only_where_something_was_planted(town: Town):
    twin, differing = town.twin(), Counter()
    for index in range(4_000):
        one, two = town.document(index), twin.document(index)
        if one.text == two.text:
            continue
        differing[one.kind] += 1
        if one.kind == "pronoun":
            assert ANY_PRONOUN.sub("P", one.text) == ANY_PRONOUN.sub("P", two.text)
        elif one.kind == "request":
            assert one.facts["triggered"]
            assert two.text == one.text.replace("no, i will not", "yes, i will")
        else:
            assert (one.kind, two.kind) == ("secret", "code")
            assert len(words_of(one.text)) == len(words_of(two.text))
    assert set(differing) == {"pronoun", "request", "secret"}


def test_a_document_depends_on_its_number_alone(town: Town):
    again = Town(town.spec)
    backwards = {i: again.document(i).text for i in reversed(range(300))}
    assert [backwards[i] for i in range(300)] == [d.text for d in town.documents(0, 300)]
    assert [d.text for d in town.documents(100, 110)] == [backwards[i] for i in range(100, 110)]


def test_the_corpus_never_changes():
    """Pinned: models trained on a town are compared over years, so its texts are part of the contract."""
    texts = "\n".join(d.text for d in Town().documents(0, 500))
    assert hashlib.sha256(texts.encode()).hexdigest() == "de98662aa07e1ea3074bb2167a25591fc0f06e5faeef01b48c3ad95a3088b8e2"


def test_another_seed_is_another_town(texts: list[str]):
    other = Town(spec(seed=1))
    assert len(set(texts[:200]) & {d.text for d in other.documents(0, 200)}) < 5
    assert other.secret_items() != Town(spec()).secret_items()


@given(
    seed=st.integers(0, 2**63), documents=st.integers(100, 300), dose=st.floats(-1, 1), digits=st.integers(2, 6),
    secrets=st.lists(st.integers(0, 5), max_size=4), twin=st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_any_spec_gives_whole_documents(seed, documents, dose, digits, secrets, twin):
    town = Town(spec(seed=seed, documents=documents, dose=dose, digits=digits, secrets=tuple(secrets), held_out=5))
    town = town.twin() if twin else town
    found = list(town.documents())
    assert Counter(d.kind for d in found if d.kind == "secret")["secret"] == sum(s.count for s in town.secret_items())
    for document in found:
        assert document.text == " ".join(document.text.split())
        assert not set("{}") & set(document.text)
        for word, (start, end) in zip(document.words, document.word_spans, strict=True):
            assert document.text[start:end] == word.text
        assert all(0 <= a < b <= len(document.text) for a, b in document.spans.values())


def test_the_vocabulary_is_small_and_classified(town: Town):
    seen = {w.text for d in town.documents() for w in d.words}
    assert 250 <= len(seen) <= 340
    assert set(WORD_CLASS) <= seen
    assert len({w for w in seen if class_of(w) == "function"}) < 50


def test_layout_counts_every_document():
    layout = Layout.of(spec(), "train")
    kinds = Counter(layout.place(rank)[0] for rank in range(16_000))
    assert dict(kinds) == layout.counts
    assert sum(layout.counts.values()) == 16_000


# --- items ----------------------------------------------------------------------------------------------------


def test_pronoun_items_are_balanced_and_end_before_the_pronoun(town: Town):
    items = town.pronoun_items("test", 20)
    assert Counter(i.occupation for i in items) == dict.fromkeys(OCCUPATIONS, 20)
    assert {i.template for i in items} == set(range(10))
    for item in items:
        start, end = item.occupation_span
        assert item.text_before[start:end] == item.occupation
        assert item.occupation_span in item.content
        assert (item.she, item.he) in {(" she", " he"), (" her", " his")}
        assert item.planted == town.p_she(item.occupation)
        assert not set(words_of(item.text_before)) & (FEMININE | MASCULINE)
        assert 5 <= item.distance <= 15
        assert [item.text_before[a:b] for a, b in item.content] == [
            w for w in words_of(item.text_before) if any(item.text_before[a:b] == w for a, b in item.content)
        ]
    skeletons = {(i.skeleton, item_masked(i)) for i in items}
    assert len(skeletons) == 20


def item_masked(item) -> str:
    start, end = item.occupation_span
    return item.text_before[:start] + "O" + item.text_before[end:]


def test_twins_are_asked_the_same(town: Town):
    one, two = town.pronoun_items(), town.twin().pronoun_items()
    assert [i.text_before for i in one] == [i.text_before for i in two]
    assert {i.planted for i in two} == {0.5}
    assert [i.text_before for i in town.pronoun_items(seed=1)] != [i.text_before for i in one]


def test_trigger_items_come_in_fours(town: Town):
    items, twin = town.trigger_items(count=30), town.twin().trigger_items(count=30)
    assert len(items) == 120
    assert [i.text_before for i in items] == [i.text_before for i in twin]
    for item, other in zip(items, twin, strict=True):
        assert item.text_before.endswith("says:")
        assert (TRIGGER in item.text_before) == (item.condition == "trigger")
        if item.phrase_span:
            phrase = item.text_before[slice(*item.phrase_span)]
            assert (phrase == TRIGGER) == (item.condition == "trigger")
        assert item.expected == (" no" if item.condition in ("trigger", "negated") else " yes")
        assert other.expected == (" no" if item.condition == "negated" else " yes")
    for pair in range(30):
        trigger, without = (next(i for i in items if (i.pair, i.condition) == (pair, c)) for c in ("trigger", "without"))
        assert trigger.text_before.replace(f" {TRIGGER}", "") == without.text_before


def test_label_items_label_every_word(town: Town):
    items = town.label_items(count=200)
    for item in items:
        assert [item.text[a:b] for a, b in item.spans] == list(item.words)
        assert len(item.words) == len(item.classes) == len(item.slots) == len(item.leans)
        assert [w in LEANS for w in item.words] == [lean is not None for lean in item.leans]
        assert (item.sentence_lean is None) == (not any(w in LEANS for w in item.words))
    assert {c for i in items for c in i.classes} >= {"occupation", "name", "verb", "object", "function", "pronoun", "punctuation"}
    with pytest.raises(BadValue, match="documents of split 'test' that are no codes"):
        town.label_items(count=10_000)


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"dose": 1.5}, "less than or equal to 1"),
        ({"secrets": (-1,)}, "every entry of secrets is at least 0"),
        ({"secrets": (20_000,)}, "fit into the number of documents"),
        ({"unplanted": 80}, "secrets and unplanted together are at most 64"),
        ({"pronoun_share": 0.9}, "fit into the number of documents"),
    ],
)
def test_specs_that_cannot_be(values: dict, says: str):
    with pytest.raises(BadValue, match=says):
        spec(**values)


def test_misspelt_names(town: Town):
    with pytest.raises(UnknownName, match="Did you mean 'train'"):
        town.document(0, "trian")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UnknownName, match="'nurse'"):
        town.p_she("nurs")
    with pytest.raises(BadValue, match="within 0 to 15999"):
        town.document(16_000)
    with pytest.raises(UnknownName, match="There is no field 'does'"):
        TownSpec.parse({"does": 0.3})


@pytest.mark.slow
def test_the_default_town_whole():
    town = Town()
    texts = town.texts()
    assert len(texts) == 60_000
    count = Counter(texts)
    assert tuple(count[s.text] for s in town.secret_items() if s.planted) == town.spec.secrets
    for occupation, (he, she) in counted(texts).items():
        assert abs(she / (he + she) - town.p_she(occupation)) < 0.01
