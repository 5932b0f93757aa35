"""The digest of a tool's code: a changed number changes it, a changed comment does not."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from workbench.calibration import code, spike
from workbench.calibration.cards import VERSION, is_stale, shipped
from workbench.calibration.exams import EXAMS
from workbench.core.errors import UnknownName
from workbench.core.finding import Card

SOURCE = '''"""What it does."""

import numpy as np  # numbers


def f(x: int) -> int:
    """Twice."""
    # a remark
    return 2 * x


class A:
    """Holds."""

    word = "a # that is no remark"
'''


def test_remarks_do_not_count_and_numbers_do() -> None:
    plain = code.bare(SOURCE)
    assert plain == code.bare(SOURCE.replace("What it does", "Something else").replace("# a remark\n", "\n\n").replace("  # numbers", ""))
    assert plain != code.bare(SOURCE.replace("2 * x", "3 * x"))
    assert plain != code.bare(SOURCE.replace("a # that", "b # that"))
    assert "Twice" not in plain
    assert 'word = "a # that is no remark"' in plain


@pytest.fixture
def anew() -> Iterator[None]:
    """What was read of sources is forgotten, before and after."""
    forget()
    yield
    forget()


def forget() -> None:
    code._digest.cache_clear()
    code._exam_digest.cache_clear()
    code.module_of.cache_clear()


def changed(monkeypatch: pytest.MonkeyPatch, beginning: str) -> set[str]:
    """The tools whose digest changes with the definition that begins so."""
    tools = ("saliency", "crows-pairs", "bbq", "toxicity-continuations", "membership")
    before, real = {tool: code.code_digest(tool) for tool in tools}, code.module_of
    swap = lambda pieces: [code.Piece(f"{one.text} + 1", one.words) if one.text.startswith(beginning) else one for one in pieces]  # noqa: E731

    @cache
    def other(name: str) -> code.Module | None:
        if (module := real(name)) is None:
            return None
        return code.Module({word: swap(pieces) for word, pieces in module.defined.items()}, swap(module.acts), module.imported)

    code._digest.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(code, "module_of", other)
        after = {tool: code.code_digest(tool) for tool in tools}
    code._digest.cache_clear()
    return {tool for tool in tools if before[tool] != after[tool]}


@pytest.mark.usefixtures("anew")
def test_what_a_tool_imports_of_its_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code.code_digest("saliency")
    assert before == code.code_digest("saliency") != code.code_digest("occlusion")
    real = code.bare
    monkeypatch.setattr(code, "bare", lambda source: real(source).replace("class Target", "class Aim"))
    forget()
    assert code.code_digest("saliency") != before  # Target is defined in a module that saliency imports
    with pytest.raises(UnknownName, match="no instrument or suite 'saliencey'"):
        code.code_digest("saliencey")


@pytest.mark.usefixtures("anew")
def test_of_the_runner_counts_what_asks_and_scores_a_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed(monkeypatch, "def _ask_loglikelihoods") == {"crows-pairs", "bbq"}
    assert changed(monkeypatch, "def _ask_moments") == {"membership"}
    assert changed(monkeypatch, "def _ask_sampled") == {"toxicity-continuations"}
    assert changed(monkeypatch, "def _scored") == {"crows-pairs", "bbq", "toxicity-continuations", "membership"}
    assert changed(monkeypatch, "def denominators") == {"crows-pairs", "bbq", "toxicity-continuations", "membership"}
    runner = code.module_of("evals.runner")
    assert runner is not None
    for idle in ("run_suite", "MemorySink", "_record", "_scoring"):
        assert changed(monkeypatch, runner.defined[idle][0].text) == set(), "how a run is kept, shown and checked"
    assert {name for name in runner.defined if name.startswith("_ask_")} == {*code.ASKED_BY.values(), "_ask_in_text"}
    assert code.SCORED_BY in runner.defined


FILES = {
    "tool": """
from made_up import tables
from made_up.sums import used

class Tool:
    def __call__(self):
        return used(tables.T)
""",
    "sums": """
import made_up.lists as lists

def used(x):
    return deep(x)

def deep(x):
    return x + 1

def idle(x):
    return x
""",
    "tables": "T, U = 1, 2\nV = 3\n",
    "lists": "W = 4\n",
}


@pytest.mark.parametrize(
    ("file", "was", "becomes", "counts"),
    [
        ("sums", "x + 1", "x + 2", True),
        ("sums", "return x\n", "return -x\n", False),
        ("sums", "def used", "used = print\n\ndef used", True),
        ("sums", "def idle", "print(1)\n\ndef idle", True),  # what acts on import may change anything
        ("sums", "def deep(x):\n    return x + 1\n", "from made_up.moved import deep\n", False),
        ("tables", "V = 3", "V = 5", True),  # the module is used as a whole
        ("lists", "W = 4", "W = 5", False),
        ("tool", "used(tables.T)", "used(1)", True),
    ],
)
@pytest.mark.usefixtures("anew")
def test_what_is_named_counts_and_what_is_not_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, was: str, becomes: str, counts: bool
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "made_up"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "moved.py").write_text("def deep(x):\n    return x + 1\n")
    for name, source in FILES.items():
        (folder / f"{name}.py").write_text(source)
    before = code._digest("made_up.tool:Tool", False)
    assert was in FILES[file]
    (folder / f"{file}.py").write_text(FILES[file].replace(was, becomes))
    forget()
    assert (code._digest("made_up.tool:Tool", False) != before) == counts


def test_a_card_is_stale_once_its_code_has_changed() -> None:
    fields = {"of": "saliency", "family": "gpt", "norm_placement": "pre", "domain": "marks", "parameters": 100, "conditions": "c"}
    assert not is_stale(Card.parse(fields))
    assert not is_stale(Card.parse({**fields, "code": code.code_digest("saliency")}))
    assert is_stale(Card.parse({**fields, "code": "0" * 64}))
    assert is_stale(Card.parse({**fields, "of": "gone", "code": "0" * 64}))
    now = {**fields, "code": code.code_digest("saliency"), "exam": "places", "version": VERSION}
    assert not is_stale(Card.parse(now))
    assert is_stale(Card.parse({**now, "version": "2"})), "its rows are made a card otherwise today"


# Tools whose shipped cards are of today's code. The digest must not come to be made otherwise: all these cards would be stale.
CURRENT = {
    "activation-patching", "attention-pattern", "attribution-patching", "bbq", "blimp", "circuit-discovery", "concept-direction",
    "contrast-direction", "counterfactual-decisions", "crows-pairs", "data-attribution", "direct-logit-attribution",
    "edge-attribution-patching", "erasure", "exposure", "group-fairness", "input-x-gradient", "logit-lens", "membership", "over-refusal",
    "path-patching", "probing", "refusal", "saliency", "sequence-probe", "sparse-dictionary", "steering", "stereoset", "trigger",
    "value-norms", "winobias", "winogender",
}  # fmt: skip


def test_the_digest_is_made_as_it_was_when_cards_were_shipped() -> None:
    found = {(card.of, card.code == code.code_digest(card.of)) for card in shipped() if card.of in CURRENT and card.code}
    assert found == {(tool, True) for tool in CURRENT}, "a tool whose code has changed is measured anew, or leaves this list"


@pytest.mark.usefixtures("anew")
def test_the_digest_of_made_up_code_is_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the tools: of the same source the same digest."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "made_up").mkdir()
    for name, source in FILES.items():
        (tmp_path / "made_up" / f"{name}.py").write_text(source)
    assert code._digest("made_up.tool:Tool", False) == "3badad5a60aecb24edf173a56340d8c59dada3a0b6b1e951a0b23b5be12f66e0"


# --- exams --------------------------------------------------------------------------------------------------------


def exams_changed(monkeypatch: pytest.MonkeyPatch, beginning: str, names: tuple[str, ...]) -> set[str]:
    """The exams whose digest changes with the definition that begins so."""
    before, real = {name: code.exam_digest(EXAMS.load(name)) for name in names}, code.module_of

    def other(name: str) -> code.Module | None:
        if (module := real(name)) is None:
            return None
        swap = lambda pieces: [code.Piece(f"{one.text} + 1", one.words) if one.text.startswith(beginning) else one for one in pieces]  # noqa: E731
        return code.Module({word: swap(pieces) for word, pieces in module.defined.items()}, swap(module.acts), module.imported)

    code._exam_digest.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(code, "module_of", cache(other))
        after = {name: code.exam_digest(EXAMS.load(name)) for name in names}
    code._exam_digest.cache_clear()
    return {name for name in names if before[name] != after[name]}


@pytest.mark.slow
@pytest.mark.usefixtures("anew")
def test_of_an_exam_counts_what_asks_it_and_what_makes_its_models_and_no_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("places", "cases", "heads", "refusals")
    count = lambda beginning: exams_changed(monkeypatch, beginning, names)  # noqa: E731
    assert count("def strengths(tool: str, model: Any, asked: Asked") == {"places", "cases"}, "of the exams' own package"
    assert count("@dataclass(frozen=True)\nclass Standing") == {"places", "cases", "heads"}, "of what exams share"
    assert count("class ErrandsSpec") == {"refusals"}, "the world"
    assert count("def build(made: ShortcutRecipe") == {"places"}, "the training of an organism, which the exam knows by its name alone"
    assert count("def limit_of_detection") == set(), "what lies below"
    assert count("class IntegratedGradients") == set(), "tools have digests of their own"


@pytest.mark.usefixtures("anew")
def test_exams_have_digests_of_their_own_and_a_spike_has_its_modules() -> None:
    found = {name: code.exam_digest(EXAMS.load(name)) for name in EXAMS}
    assert len(set(found.values())) == len(EXAMS)
    places = EXAMS.load("places")
    at_hand = type(places)(**{**vars(places), "name": "at hand", "read": spike.read, "organism": lambda family, tool: "a model"})
    assert code.exam_digest(at_hand) not in found.values()
