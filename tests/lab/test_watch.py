"""Watching a training: it changes no bit of it, loses and doubles no look, and is refused where it cannot be meant."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.training.setting import Copying, model, spec
from workbench.core.batch import IGNORE, EncoderBatch, TokenBatch
from workbench.core.errors import BadValue, Incompatible, UnknownName, UsageError
from workbench.core.result import Result
from workbench.core.sites import Site
from workbench.families import FAMILIES
from workbench.lab import run as lab
from workbench.lab.recipe import plan_of, read
from workbench.lab.record import Interrupted
from workbench.lab.watch import follow
from workbench.lab.watch.follow import Following, Watcher
from workbench.lab.watch.measures import ENTROPY, Ground, Reading, Watch, entropies, queries_of
from workbench.lab.watch.metrics import METRICS, Metrics, of_event, read_metrics
from workbench.lab.watch.result import WATCHED, WatchedResult, curve_of, watched_result
from workbench.lab.watch.spec import WATCHES, WatchSpec
from workbench.store.runs import Store
from workbench.training.loop import train

HEADS = ("attention-entropy", "induction", "previous-token")
LETTERS: dict[str, Any] = {
    "name": "letters", "text": {"file": "text.txt", "length": 16}, "tokenizer": {"kind": "char"},
    "model": {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_ctx": 16, "dropout": 0.1},
    "train": {"steps": 12, "batch_rows": 2, "warmup": 1, "save_every": 4, "threads": 1},
}  # fmt: skip
WATCHING: dict[str, Any] = {**LETTERS, "watch": {"measures": list(HEADS), "every": 3, "rows": 4}}


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store, in a folder with a text to train on."""
    monkeypatch.chdir(tmp_path)
    draw_from = random.Random(0)
    (tmp_path / "text.txt").write_text("".join(draw_from.choice("abcdefghijklmnopqrst") for _ in range(900)))
    return Store.open(tmp_path / "home")


def following(path: Path, every: int = 3, measures: tuple[str, ...] = HEADS) -> Following:
    watcher = Watcher(WatchSpec.parse({"measures": measures, "every": every, "rows": 4}))
    return Following(Metrics(path), lambda event, facts: None, watcher)


# --- the recipe -----------------------------------------------------------------------------------------------


def test_recipes_without_a_watch_keep_their_bytes() -> None:
    """The digests are those of the version before recipes could say it."""
    for name, digest in (("tinyshakespeare-baseline", "622209c118835d25"), ("town-twin", "ac5ef2e9fd208de2")):
        recipe = read(name)
        assert recipe.digest()[:16] == digest
        assert "watch" not in plan_of(recipe)


@pytest.mark.parametrize("name", ["tinyshakespeare-baseline", "vit-digits", "town-target"])
def test_every_kind_of_recipe_may_watch_and_says_so(name: str) -> None:
    recipe = read(name, {"watch": {"measures": ["attention-entropy"], "every": 50}})
    assert recipe.watch.every == 50
    assert plan_of(recipe)["watch"]["measures"] == ["attention-entropy"]
    assert read(plan_of(recipe)) == recipe
    assert recipe.model_copy(update={"watch": WatchSpec()}) == read(name), "nothing else of it is another"


@pytest.mark.parametrize(
    ("watch", "kind", "words"),
    [
        ({"measures": ["inductoin"]}, UnknownName, "no watch 'inductoin'. Did you mean 'induction'"),
        ({"measures": ["bias"]}, UnknownName, "no watch 'bias'. Did you mean 'bias-gap'"),
        ({"measure": ["induction"]}, UnknownName, r"no field 'watch\.measure'.*'measures'"),
        ({"measures": ["induction", "induction"]}, BadValue, "measures that each stand once"),
        ({"every": 5}, BadValue, "some measures, since every is 5"),
        ({"measures": ["induction"], "every": -1}, BadValue, r"watch\.every is -1"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(watch: Any, kind: type[UsageError], words: str, letters: Store) -> None:
    with pytest.raises(kind, match=words):
        lab.train({**LETTERS, "watch": watch}, store=letters)
    assert letters.runs.list() == ()


@pytest.mark.parametrize(
    ("recipe", "watch", "words"),
    [
        ("vit-digits", "induction", "'induction' cannot run on this vit model: it reads tokens, and this vit model reads pixels"),
        ("tinyshakespeare-baseline", "bias-gap", "cannot run on this gpt model: it asks about the people of the generated town"),
        ("whisper-tones", "probe-accuracy", "it reads tokens, and this whisper model reads sequences"),
    ],
)
def test_a_family_that_cannot_be_asked_is_refused_before_training(recipe: str, watch: str, words: str, letters: Store) -> None:
    with pytest.raises(Incompatible, match=words):
        lab.train(recipe, settings={"watch": {"measures": [watch]}}, store=letters)
    assert letters.runs.list() == ()


def test_a_model_in_parts_is_not_watched(letters: Store) -> None:
    for parallel in ({"kind": "fsdp"}, {"kind": "pipeline"}, {"compile": True}):
        changed = {**WATCHING, "train": {**WATCHING["train"], "parallel": parallel}}
        with pytest.raises(Incompatible, match="it asks the whole model, layer by layer, in one process"):
            lab.train(changed, store=letters)
    assert letters.runs.list() == ()


def test_looks_are_due_before_the_first_step_at_intervals_and_at_the_end() -> None:
    whole = WatchSpec.parse({"measures": ["induction"], "every": 5})
    assert [s for s in range(13) if whole.due(s, 12, 4)] == [0, 5, 10, 12]
    at_checkpoints = WatchSpec.parse({"measures": ["induction"]})
    assert [s for s in range(13) if at_checkpoints.due(s, 12, 4, 0)] == [0, 4, 8, 12]
    assert [s for s in range(13) if at_checkpoints.due(s, 12, 0, 0)] == [0, 12]


# --- the training is what it was ----------------------------------------------------------------------------------


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)


def states() -> list[str]:
    """A short name for the state of torch's and numpy's global generators (Python's own is drawn from by the checks of types)."""
    found = torch.default_generator.get_state().tolist(), np.random.get_state()
    return [hashlib.sha256(repr(one).encode()).hexdigest() for one in found]


def test_watching_changes_no_bit_of_the_training_and_no_generator(tmp_path: Path) -> None:
    """With dropout. The global states are compared at every event, so a look that draws from them would be seen."""
    seen: dict[bool, list[Any]] = {False: [], True: []}
    weights = {}
    for watching in (False, True):
        seed_all(5)
        note = lambda event, state, watching=watching: seen[watching].append((event, state["step"], states()))  # noqa: E731
        callbacks = [following(tmp_path / "m.jsonl"), note] if watching else [note]
        history = train(model(), Copying(), spec(save_every=5), out=tmp_path / str(watching), callbacks=callbacks)
        weights[watching] = history["weights"]
    assert weights[True] == weights[False]
    assert seen[True] == seen[False]
    assert len(of_event(read_metrics(tmp_path / "m.jsonl"), "watch")) == 8
    for name in ("model.safetensors", "train_state.json"):
        assert (tmp_path / "True/final" / name).read_bytes() == (tmp_path / "False/final" / name).read_bytes()


def test_a_measure_that_draws_and_leaves_the_model_training_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def rude(model: Any) -> list[Reading]:
        assert not model.training
        assert not torch.is_grad_enabled()
        drawn.append(float(torch.rand(3).sum()))
        model.train()
        return [Reading("x", drawn[-1])]

    monkeypatch.setattr(type(WATCHES), "load", lambda self, name: Watch(name, "", lambda *_: rude))
    learner, before = model().eval(), torch.default_generator.get_state()
    Watcher(WatchSpec.parse({"measures": ["induction"]})).ready(learner, None)
    watcher = Watcher(WatchSpec.parse({"measures": ["induction"]}))
    watcher.ready(learner, None)
    for _ in range(2):
        watcher.look(learner)
        assert not learner.training
    assert torch.equal(torch.default_generator.get_state(), before)
    assert len(set(drawn)) == 1, "a measure that draws draws the same at every look"


def test_a_look_that_fails_is_unscored_and_the_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def failing(model: Any) -> list[Reading]:
        asked.append(1)
        if len(asked) > 1:
            raise BadValue("the attention pattern", "NaN", "finite")
        return [Reading("x", 1.0)]

    monkeypatch.setattr(type(WATCHES), "load", lambda self, name: Watch(name, "nats", lambda *_: failing))
    train(model(), Copying(), spec(), callbacks=[following(tmp_path / "m.jsonl", 10, ("induction",))])
    lines = read_metrics(tmp_path / "m.jsonl")
    assert [line["watched"] for line in of_event(lines, "watch")] == [{"induction": {"x": [1.0, None, None]}}, *[{"induction": {}}] * 2]
    found = watched_result(lines, ["induction"], [0, 10, 20], recipe="r", plan={}, model=model())
    assert found.notes == ("induction was not scored at 2 of 3 looks: at step 10, the attention pattern is 'NaN', but it must be finite.",)
    assert np.isnan(found.values.value.values[1:]).all()


def test_a_first_look_that_fails_ends_the_training_before_its_first_step(tmp_path: Path) -> None:
    learner = model()
    before = learner.digest()
    with pytest.raises(BadValue, match=r"the rows watched is 'no queries'"):
        train(learner, Unpredicting(), spec(), callbacks=[following(tmp_path / "m.jsonl", 5, ("attention-entropy",))])
    assert learner.digest() == before


class Unpredicting(Copying):
    """Rows whose every target is left out."""

    def batch(self, indices: Any) -> TokenBatch:
        found = super().batch(indices)
        return TokenBatch(found.tokens, torch.full_like(found.targets, IGNORE))


# --- no look lost, none doubled -----------------------------------------------------------------------------------


def stop_at(step: int) -> Callable[..., None]:
    def stop(done: int, total: int, words: str = "") -> None:
        if done == step:
            raise KeyboardInterrupt

    return stop


def keys(path: Path) -> list[tuple[str, int]]:
    return [(line["event"], line["step"]) for line in read_metrics(path) if line["event"] != "begin"]


def timeless(path: Path) -> list[dict[str, Any]]:
    timed = ("time", "seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in read_metrics(path) if line["event"] != "begin"]


@pytest.mark.slow
def test_a_training_resumed_again_and_again_has_the_looks_of_an_unbroken_one(letters: Store) -> None:
    whole = lab.train(WATCHING, store=letters)
    run = ""
    for step in (2, 3, 6, 7, 11):
        with pytest.raises(Interrupted) as stopped:
            lab.train(WATCHING, store=letters, progress=stop_at(step), resume=run)
        run = stopped.value.run
    done = lab.train(WATCHING, store=letters, resume=run)
    assert done.watched is not None
    assert whole.watched is not None
    assert done.model.digest() == whole.model.digest()
    assert done.watched.canonical() == whole.watched.canonical()
    assert done.watched.values.step.values.tolist() == [0, 3, 6, 9, 12]
    paths = [letters.folder(one) / METRICS for one in (done.run, whole.run)]
    assert timeless(paths[0]) == timeless(paths[1])
    assert len(keys(paths[0])) == len(set(keys(paths[0])))
    for name in ("watch", "validation"):
        steps = [[e.details["step"] for e in letters.events(one) if e.name == name] for one in (done.run, whole.run)]
        assert steps[0] == steps[1]
        assert len(steps[0]) == len(set(steps[0]))
    history = whole.history.values
    recorded = of_event(read_metrics(paths[0]), "step")
    assert [line["loss"] for line in recorded] == history.loss.values.tolist()
    assert [line["norm"] for line in recorded] == history.norm.values.tolist()
    assert [line["tokens"] for line in recorded] == history.tokens.values.tolist()


@pytest.mark.slow
def test_a_file_that_was_taken_away_is_a_note_and_not_a_shorter_curve(letters: Store) -> None:
    with pytest.raises(Interrupted) as stopped:
        lab.train(WATCHING, store=letters, progress=stop_at(10))
    (letters.folder(stopped.value.run) / METRICS).unlink()
    done = lab.train(WATCHING, store=letters, resume=stopped.value.run)
    assert done.watched is not None
    assert any(note.startswith("The looks at steps 0, 3") and note.endswith("were lost.") for note in done.watched.notes)


LINES = st.lists(st.integers(1, 12), max_size=8, unique=True).map(sorted)


@given(steps=LINES, begin=st.integers(0, 12), torn=st.integers(0, 60))
def test_whatever_a_kill_left_each_step_stands_in_the_file_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], begin: int, torn: int
) -> None:
    path = tmp_path_factory.mktemp("metrics") / METRICS
    first = Metrics(path)
    first.begin(0, steps=12)
    for step in steps:
        first.say("step", step, loss=step / 7)
    path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - torn)])
    before = [line["step"] for line in of_event(read_metrics(path), "step")]
    again = Metrics(path)
    again.begin(begin, steps=12)
    for step in range(1, 13):
        again.say("step", step, loss=step / 7)
    after = [line["step"] for line in of_event(read_metrics(path), "step")]
    assert after == sorted(set(after))
    assert set(range(1, 13)) == set(after)
    assert {s for s in before if s <= begin} <= set(after)
    assert [line["loss"] for line in of_event(read_metrics(path), "step")] == [step / 7 for step in after]


def test_a_torn_last_line_is_not_read_and_a_spoilt_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    metrics = Metrics(path)
    assert read_metrics(path) == []
    assert metrics.say("step", 1, loss=1.0)
    assert not metrics.say("step", 1, loss=2.0)
    assert metrics.say("step", 1, part="coder", loss=3.0)
    with path.open("a") as file:
        file.write('{"event": "step", "st')
    assert [line["loss"] for line in read_metrics(path)] == [1.0, 3.0]
    assert [line["loss"] for line in of_event(read_metrics(path), "step", "coder")] == [3.0]
    path.write_text('{"event": "step", "step": 1}\nnonsense\n')
    with pytest.raises(Exception, match=r"metrics\.jsonl' should be lines of a JSON object with event and step, but line 2 is not"):
        read_metrics(path)


def test_the_part_before_the_last_has_its_own_lines(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / METRICS)
    metrics.begin(0, part="coder", steps=2)
    metrics.say("step", 1, part="coder", loss=1.0)
    metrics.begin(0, steps=2)
    metrics.say("step", 2, loss=1.0)
    again = Metrics(tmp_path / METRICS)
    again.begin(0, steps=2)
    assert [(line["event"], line.get("part", ""), line["step"]) for line in read_metrics(tmp_path / METRICS)] == [
        ("begin", "coder", 0), ("step", "coder", 1), ("begin", "", 0), ("begin", "", 0),
    ]  # fmt: skip


# --- the numbers --------------------------------------------------------------------------------------------------


def slow_entropy(pattern: torch.Tensor, asked: torch.Tensor) -> tuple[list[float], float]:
    """The definition, one number at a time."""
    heads, evens = [], []
    for head in range(pattern.shape[1]):
        each, even = [], []
        for row in range(pattern.shape[0]):
            for query in range(pattern.shape[2]):
                if bool(asked[row, query]):
                    weights = [float(w) for w in pattern[row, head, query].double() if float(w) > 0]
                    each.append(-sum(w * math.log(w) for w in weights))
                    even.append(math.log(len(weights)))
        heads.append(sum(each) / len(each))
        evens.append(sum(even) / len(even))
    return heads, sum(evens) / len(evens)


def test_entropy_is_its_definition() -> None:
    draw_from = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 2, 5, 5, generator=draw_from, dtype=torch.float64).masked_fill(~torch.ones(5, 5).tril().bool(), -math.inf)
    pattern, asked = scores.softmax(-1), torch.rand(3, 5, generator=draw_from) > 0.3
    pattern[:, :, 0, :] = math.nan  # a query that is not asked may be anything
    asked[:, 0] = False
    found, even = entropies(pattern, asked)
    heads, slow_even = slow_entropy(pattern, asked)
    assert found.tolist() == pytest.approx(heads, rel=1e-12)
    assert float(even) == pytest.approx(slow_even, rel=1e-12)
    one, all_even = entropies(torch.eye(4)[None, None], torch.ones(1, 4).bool())
    assert (one.tolist(), float(all_even)) == ([0.0], 0.0)
    with pytest.raises(BadValue, match="NaN or infinity"):
        entropies(pattern, torch.ones(3, 5).bool())


def test_queries_that_are_padding_are_not_counted() -> None:
    ids, real = torch.zeros(2, 3).long(), torch.tensor([[True, True, False], [True, True, True]])
    here, there = Site("blocks.0.attn.hook_pattern", ()), Site("decoder.blocks.0.attn.hook_pattern", ())
    assert queries_of(EncoderBatch(ids, mask=real), here, (2, 3)).equal(real)
    assert queries_of(TokenBatch(ids, torch.where(real, 1, IGNORE)), here, (2, 3)).equal(real)
    assert queries_of(TokenBatch(ids, torch.where(real, 1, IGNORE)), there, (2, 7)).all()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_attention_is_watched_in_every_family(family: str) -> None:
    """On the smallest model; at most the even head's, whatever the stack."""
    learner, batch = FAMILIES.load(family).tiny(seed=0)
    watch = Ground(rows=_Rows(batch))
    look = ENTROPY.ready(learner.eval(), watch, WatchSpec())
    with torch.no_grad():
        first, second = look(learner), look(learner)
    assert first == second
    assert len({one.part for one in first}) == len(first)
    for one in first:
        assert 0 <= one.value <= one.null + 1e-9


class _Rows:
    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 2

    def batch(self, indices: Any) -> Any:
        return self._batch.rows(list(indices))


# --- the result ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_result_survives_json_says_itself_and_is_drawn(letters: Store) -> None:
    done = lab.train(WATCHING, store=letters)
    found = letters.result(done.run, WATCHED).result
    assert isinstance(found, WatchedResult)
    assert done.watched is not None
    assert found.canonical() == done.watched.canonical()
    assert Result.from_json(found.to_json()).to_json() == found.to_json()
    assert found.watches() == list(HEADS)
    assert found.values.sizes == {"step": 5, "measure": 12}
    assert sorted(found.to_frame().columns) == sorted(["step", "measure", "value", "null", "planted", "watch", "part"])
    said = found.summary()
    assert said.startswith("watched: 5 looks at steps 0, 3, … 12\nattention-entropy (nats): L")
    assert "an even head" in said
    assert "and 1 more" in said
    whole = json.dumps(found.plot().to_dict())
    assert all(name in whole for name in HEADS)
    assert found.values.value.values.min() >= 0


def test_many_heads_are_drawn_the_ones_that_changed_most_in_colour() -> None:
    looks = [{f"L0H{h}": [0.1 + step * h / 100, 0.1, None] for h in range(9)} for step in (0, 1)]
    lines = [{"event": "begin", "step": 0, "watching": {"induction": {"unit": "attention", "null": "an even head"}}}]
    lines += [{"event": "watch", "step": step, "watched": {"induction": look}} for step, look in enumerate(looks)]
    found = watched_result(lines, ["induction"], [0, 1, 2], recipe="r", plan={}, model=model())
    chart = found.plot().to_dict()
    assert chart["title"]["text"] == ["induction: the 6 of 9 that changed most in colour"]
    assert found.notes == ("The looks at steps 2 are missing: lines of the metrics file were lost.",)
    assert "L0H8 0.1 at step 0 to 0.18 at step 1 (an even head 0.1)" in found.summary()
    with pytest.raises(BadValue, match="the looks at this training is 'none'"):
        curve_of(lines[:1])
    assert isinstance(curve_of(lines), xr.Dataset)


def test_everything_that_can_be_watched_is_whole() -> None:
    for name, entry in WATCHES.items():
        watch = entry.load()
        assert watch.name == name
        assert watch.unit
        assert watch.null
    assert follow.family_of(read("vit-digits")) == "vit"
    assert follow.family_of(read("town-twin")) == "gpt"
