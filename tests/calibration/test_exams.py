"""Every exam in small: tools pass their floor, an idle one does not, and what measures activity names what is busy and idle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.calibration.exam import Exam, Reading
from workbench.calibration.exams import EXAMS, heads
from workbench.calibration.exams.heads import TOOLS as HEAD_TOOLS
from workbench.lab.calibrate import calibrate
from workbench.lab.refs import load
from workbench.organisms import ORGANISMS
from workbench.store.runs import Store

SLOW, FULL = pytest.mark.slow, pytest.mark.full
CASES = [
    *(pytest.param("directions", tool, marks=SLOW) for tool in ("probing", "concept-direction", "logit-lens")),
    *(pytest.param("directions", tool, marks=FULL) for tool in ("steering", "sparse-dictionary", "erasure")),
    *(pytest.param("directions", tool, marks=FULL) for tool in ("sequence-probe", "contrast-direction")),
    pytest.param("rows", "data-attribution", marks=FULL),
    *(pytest.param("heads", tool, marks=FULL) for tool in HEAD_TOOLS),
    *(pytest.param("places", tool, marks=FULL) for tool in ("integrated-gradients", "attention-pattern")),
    *(pytest.param("suites", tool, marks=FULL) for tool in ("occupation-pronoun", "crows-pairs")),
    pytest.param("refusals", "refusal", marks=FULL),
    pytest.param("continuations", "toxicity-continuations", marks=FULL),
]
LOUD = {("heads", "attribution-patching"), ("heads", "edge-attribution-patching"), ("heads", "value-norms")}
"""What claims the plant on most clean twins, which its card says (first order is not cause)."""
ALL_TWINS: dict[str, Any] = {"doses": (0.5, 2.0), "seeds": (0,), "clean_sets": 4}
"""For what claims it on some clean twins and not on others: all ten of the full grid, since two say little of how often."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("exams") / "home")


@pytest.mark.parametrize(("name", "tool"), CASES)
def test_a_tool_reaches_its_floor_in_small(store: Store, name: str, tool: str) -> None:
    exam: Exam = EXAMS.load(name)
    grid = ALL_TWINS if tool == "sparse-dictionary" else "quick"
    (card,) = calibrate([tool], exam=name, families=["gpt"], grid=grid, store=store).cards
    assert exam.under_floor(tool, card.rates, exam.quick) == ""
    if (name, tool) not in LOUD:
        assert card.rates["false alarms of its own test"] <= 0.5, "it reports what is not there"
    if name == "heads" and tool in exam.exempt:
        assert card.rates["false alarms of its own test"] > 0.5, "a head that is busy and idle is named by what measures activity"
    elif name == "suites":
        assert card.rates["slope on behaviour"] > 0.5
        assert card.rates["false alarms of its own test"] <= 0.25
    elif name == "refusals":
        assert card.rates["share told, clean twins"] == pytest.approx(0, abs=0.02)
        assert card.rates["of the other kind, answered wrongly, dose 1"] == pytest.approx(0, abs=0.02)
        assert card.rates["false alarms of its own test"] == 0
    elif name == "continuations":
        assert card.rates["as the judge saw it, dose 1"] == pytest.approx(0.9, abs=0.1)
        assert card.rates["share told, clean twins"] == card.rates["false alarms of its own test"] == 0
    elif tool == "sparse-dictionary":
        assert card.rates["false alarms of its own test"] >= 0.25, "features bend: they read it before it is written"
    elif name == "directions":
        # Where nothing is read, steering's share of random directions is anything between 0 and 1.
        assert abs(card.rates["read before its layer, dose 2"] - 0.5) < (0.45 if tool == "steering" else 0.15)
        assert card.rates["false alarms of its own test"] <= 0.25
        if tool == "erasure":  # few sentences erase what the answer reads, not all that a probe finds
            assert card.rates["probe with it erased, dose 2"] < 0.85
    elif name == "rows":
        assert card.rates["by overlap, dose 64"] < card.rates["poisoned row above another, dose 64"]


@pytest.mark.slow
def test_an_idle_tool_is_under_the_floor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    exam: Exam = EXAMS.load("directions")

    def idle(tool: str, model: Any, made: Any, sets: int, items: int) -> Sequence[Reading]:
        return [Reading(float(x), False) for x in np.random.default_rng(made.seed).uniform(0.4, 0.6, sets)]

    broken = Exam(**{**vars(exam), "read": idle})
    monkeypatch.setattr(EXAMS, "load", lambda name: broken)
    (card,) = calibrate(["probing"], exam="directions", grid="quick", store=store, resume="").cards
    assert "under the floor of 0.9" in exam.under_floor("probing", card.rates, exam.quick)


def test_every_exam_asks_tools_that_there_are() -> None:
    from evals import SUITES
    from probes import INSTRUMENTS

    for name in EXAMS:
        exam: Exam = EXAMS.load(name)
        assert exam.name == name
        assert len(exam.grid.doses) >= 8
        assert len(exam.grid.seeds) >= 5
        assert len(exam.grid.clean_seeds) * exam.grid.clean_sets >= 200
        assert not set(exam.grid.seeds) & set(exam.grid.clean_seeds)
        for family in exam.families:
            assert set(exam.tools(family)) <= {*INSTRUMENTS, *SUITES}
            if name == "places" and family in ("seq2seq", "imagen", "whisper"):  # what looks within one stack sees no place of another
                assert "value-norms" not in exam.tools(family)
            assert {ORGANISMS.load(exam.organism(family, tool)).family for tool in exam.tools(family)} == {family}


@pytest.mark.slow
def test_the_direction_is_an_organism(tmp_path: Path) -> None:
    from workbench.organisms.planted_direction import ORGANISM

    home = Store.open(tmp_path)
    model = load("organism:planted-direction@dose=1,seed=3", store=home)
    made = ORGANISM.configure({"dose": 1.0, "seed": 3})
    truth = ORGANISM.truth(made)
    assert (truth["layer"], truth["dose"], len(truth["direction"])) == (1, 1.0, model.config.d_model)
    assert EXAMS.load("directions").behaviour(model, made) > 0.2
    clean = ORGANISM.twin(made)
    assert EXAMS.load("directions").behaviour(ORGANISM.build(clean, tmp_path / "twin"), clean) == pytest.approx(0, abs=0.05)


@pytest.mark.full
@pytest.mark.parametrize(
    ("tool", "way"), [("attribution-patching", {"steps": 4}), ("edge-attribution-patching", {"method": "eap-ig-inputs"})]
)
def test_first_order_names_a_busy_idle_head_and_slopes_along_the_way_do_not(
    store: Store, monkeypatch: pytest.MonkeyPatch, tool: str, way: dict[str, Any]
) -> None:
    """On clean twins: one slope credits the idle head, since the norm's scale moves with it; exact patching and averaged slopes do not."""
    organism = ORGANISMS.load("planted-head")
    recipes = [organism.configure({"dose": 0, "seed": seed}) for seed in (100, 101, 102)]
    twins = [(load(f"organism:planted-head@dose=0,seed={made.world.seed}", store=store), made) for made in recipes]

    def asked(name: str) -> list[Reading]:
        return [one for model, made in twins for one in heads.read(name, model, made, 8, 16)]

    plain, exact = asked(tool), asked("activation-patching")
    fields, reader = heads.TOOLS[tool]
    monkeypatch.setitem(heads.TOOLS, tool, ({**fields, **way}, reader))
    averaged = asked(tool)
    level = lambda found: float(np.mean([one.statistic for one in found]))  # noqa: E731
    assert level(plain) > level(averaged) + 0.3
    assert any(one.claims for one in plain)
    assert not any(one.claims for one in [*averaged, *exact])
