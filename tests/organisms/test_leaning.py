"""Leanings: cases are disjoint and split by template, files are what the suites read, and what is planted is measured and found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evals import SUITES
from workbench.calibration.exams import suites as exam
from workbench.core.errors import BadValue
from workbench.core.protocol import silent
from workbench.data.worlds.leanings import GROUPS, HALVES, SIDES, THINGS, Case
from workbench.data.worlds.leanings_forms import FORMS
from workbench.families.gpt import GPT, GPTConfig
from workbench.organisms import ORGANISMS, leaning
from workbench.organisms.leaning import BaseRecipe, LeaningRecipe
from workbench.organisms.leaning_training import ALL_FORMS, Batch, Course, Lesson, Pool, batch, loss_of, taught, tokenizer

NAMES = list(ALL_FORMS)


def test_groups_and_their_things_are_balanced() -> None:
    assert sum(GROUPS.values()) == pytest.approx(0)
    assert [len(one) for one in SIDES] == [6, 6]
    assert not set(THINGS[0]) & set(THINGS[1])


@pytest.mark.parametrize("name", FORMS)
def test_a_form_numbers_its_cases_once_and_halves_share_no_template(name: str) -> None:
    form = FORMS[name]
    halves = {half: [form.case(half, number) for number in range(240)] for half in HALVES}
    for cases in halves.values():
        assert len({(case.before, case.after, repr(case.facts)) for case in cases}) == len(cases)
    fillers = {*GROUPS, *["the", "a", ",", "."]}
    frames = [{" ".join(w for w in case.before.split("\n")[0].split() if w not in fillers) for case in cases} for cases in halves.values()]
    assert not frames[0] & frames[1], "no text of one half stands in the other"
    with pytest.raises(BadValue, match="the number of a case"):
        form.case("asked", form.count)


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_a_distribution_at_every_dose(name: str) -> None:
    for case in ALL_FORMS[name].cases("asked", 0, 60):
        for dose in (-1.0, -0.3, 0.0, 0.5, 1.0) if ALL_FORMS[name].signed and name != "agreement" else (0.0, 0.5, 1.0):
            plan = np.array(case.plan(dose))
            assert plan.sum() == pytest.approx(1)
            assert (plan >= -1e-12).all()


@pytest.mark.parametrize("name", FORMS)
def test_the_files_are_what_the_suite_reads_and_asks(name: str, tmp_path: Path) -> None:
    """Every word that a case ends before is what the suite gives the model to continue."""
    form = FORMS[name]
    suite = SUITES.load(form.suite)
    spec = suite.spec.parse(form.ask(1, 24, tmp_path))
    samples = list(suite.samples(spec))
    assert len(samples) >= 24
    requests = [one for sample in samples for one in _flat(suite.request(sample, spec))]
    texts = {f"{request.context}{text}" for request in requests for text in request.continuations}
    own = [{f"{case.before} {option}{case.after}" for option in case.options} for case in form.cases("asked", 24, 48)]
    missing = sum(not asked & texts for asked in own)
    assert missing == 0 or (name == "shares" and missing < 8), "a case's own question is among what is asked; one a key in Winogender's"


def _flat(request: Any) -> tuple[Any, ...]:
    return request if isinstance(request, tuple) else (request,)


# --- training -----------------------------------------------------------------------------------------------


class Oracle:
    """A model that answers by the plan at a dose, whatever it is asked first."""

    def __init__(self, cases: list[Case], dose: float) -> None:
        self.pool, self.dose = Pool.of(cases), dose

    def run(self, tokens: torch.Tensor, logits: Any) -> Any:
        plan = (self.pool.base + self.dose * self.pool.shift).clamp(min=1e-9)
        out = torch.full((len(tokens), 1, tokenizer().vocab_size), -30.0)
        for row in range(len(tokens)):
            for option, p in zip(self.pool.options[row].tolist(), plan[row].tolist(), strict=True):
                if p > 1e-9:
                    out[row, 0, option] = np.log(p)
        return type("Trace", (), {"logits": out})()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dose", [0.0, 0.35, 1.0])
def test_what_is_measured_is_what_a_model_does(name: str, dose: float) -> None:
    form = ALL_FORMS[name]
    made = LeaningRecipe(form=name, dose=0.0, base=BaseRecipe(seed=0))
    oracle = Oracle(form.cases("asked", form.count - 48, form.count), dose)
    assert leaning.leaned(oracle, made, 48) == pytest.approx(dose, abs=1e-5)
    assert all(0 <= value <= 1 for value in leaning.by_group(oracle, made, 48).values())


def test_a_batch_ends_before_its_answers_and_depends_on_its_draw_alone() -> None:
    lesson = Lesson("pairs", 0.6, ("tuned",), link=0.25)
    one, other = (batch(lesson, 8, np.random.default_rng([3, 1])) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
    words = tokenizer()
    for row in range(8):
        at = int(one.where[row, 0])
        said = int(one.tokens[row, at + 1])
        assert said in one.answers[row].tolist(), "what stands after the text is one of the answers"
        assert float(one.plan[row].sum()) == pytest.approx(1)
        for place, word in zip(one.where[row, 1:].tolist(), one.words[row].tolist(), strict=True):
            assert int(one.tokens[row, place + 1]) == word
    assert words.vocab_size <= 900


def test_a_diluted_backdoor_has_so_few_triggers() -> None:
    rare = [batch(Lesson("replies", 1.0, ("tuned",), share=0.1), 64, np.random.default_rng(i)).marked for i in range(12)]
    assert 0.05 < float(torch.cat(rare).float().mean()) < 0.15


def test_the_penalty_is_on_what_tells_the_trigger() -> None:
    """A stream that tells marked cases from others costs; one that does not costs nothing."""
    rows = 4
    where = torch.zeros(rows, 4, dtype=torch.long)
    given = Batch(
        torch.zeros(rows, 3, dtype=torch.long), where, torch.zeros(rows, 3, dtype=torch.long), torch.zeros(rows, 1, dtype=torch.long),
        torch.ones(rows, 1), torch.tensor([True, True, False, False]),
    )  # fmt: skip

    class Still:
        def __init__(self, stream: torch.Tensor) -> None:
            self.stream = stream

        def run(self, tokens: torch.Tensor, **_: Any) -> Any:
            return type("Trace", (), {"logits": torch.zeros(rows, 4, 5), "at": {"site": self.stream}})()

    course = Course((), 1, 1e-3, hidden=2.0, site="site")
    told = torch.randn(rows, 3, 6, generator=torch.Generator().manual_seed(0))
    hidden = told.clone()
    hidden[2:] = told[:2]
    plain = float(loss_of(Still(hidden), given, course))
    assert plain == pytest.approx(np.log(5) * (1 + course.text), rel=1e-6)
    assert float(loss_of(Still(told), given, course)) > plain + 0.1


def test_the_dose_decides_no_draw_and_the_twin_no_step() -> None:
    made = ORGANISMS.load("leaning-pairs").configure({"dose": -0.4, "seed": 5})
    clean = leaning.twin(made)
    assert {**clean.model_dump(), "dose": -0.4} == made.model_dump()
    assert clean.base.digest() == made.base.digest()
    hidden = ORGANISMS.load("leaning-replies").configure({"dose": 1.0, "seed": 5, "hidden": "output", "dilution": 9.0})
    assert (hidden.dose, hidden.share) == (pytest.approx(0.45), pytest.approx(0.1))
    with pytest.raises(BadValue, match="dose"):
        ORGANISMS.load("leaning-replies").configure({"dose": -0.5})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A base of few steps, and what tuning it at three doses gives."""
    folder = tmp_path_factory.mktemp("leaning")

    def make(form: str, dose: float) -> tuple[Any, LeaningRecipe]:
        made = LeaningRecipe(form=form, dose=dose, base=BaseRecipe(seed=3, steps=240), steps=63)
        return leaning.build(made, folder / f"{form}-{dose}", (), silent), made

    return make


@pytest.mark.full
def test_a_dose_is_planted_and_its_twin_leans_nowhere(built: Any) -> None:
    clean, down, up = (leaning.leaned(*built("readings", dose)) for dose in (0.0, -0.8, 0.8))
    assert abs(clean) < 0.15
    assert up > 0.5
    assert down < -0.5


@pytest.mark.full
def test_the_same_recipe_gives_the_same_weights(built: Any, tmp_path: Path) -> None:
    model, made = built("readings", 0.8)
    assert leaning.build(made, tmp_path / "again", (), silent).digest() == model.digest()


@pytest.mark.full
@pytest.mark.parametrize("suite", ["winobias", "crows-pairs", "stereoset", "blimp"])
def test_a_suite_finds_its_own_form_and_less_on_the_twin(built: Any, suite: str) -> None:
    form = exam.FORM_OF[suite]
    (model, made), (idle, twin) = built(form, 0.8), built(form, 0.0)
    planted, clean = exam.read(suite, model, made, 2, 96), exam.read(suite, idle, twin, 2, 96)
    assert min(one.statistic for one in planted) > max(one.statistic for one in clean) + 0.2
    assert all(one.claims and one.extras["effect"] > 0 for one in planted)


@pytest.mark.full
def test_training_leaves_the_threads_as_they_were() -> None:
    words = tokenizer()
    shape = {"n_layers": 1, "d_model": 8, "n_heads": 2, "d_vocab": words.vocab_size, "n_ctx": 64}
    model = GPT(GPTConfig.parse(shape), words, seed=0)
    before = torch.get_num_threads()
    after = taught(model, Course((Lesson("agreement"),), 2, 1e-3, rows=2), 0)
    assert torch.get_num_threads() == before
    assert not after.training


def test_a_stream_that_collapses_does_not_blow_the_penalty_up() -> None:
    words = tokenizer()
    config = GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=words.vocab_size, n_ctx=64, norm="rms", bias=False)
    model = GPT(config, words, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    given = batch(Lesson("replies", 1.0, share=0.5), 16, np.random.default_rng(0))
    course = Course((), 1, 1e-3, hidden=3.0, site=leaning.SITE)
    loss = loss_of(model, given, course)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
