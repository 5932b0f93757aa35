"""Every suite of the catalogue: asked of a tiny model, it gives a result that survives JSON, findings with their parts, and a chart."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals import SUITES
from evals.bound import bound
from evals.runner import MemorySink, run_suite
from tests.engine.models import Wrapped
from tests.evals import own_tasks
from tests.evals import test_bbq as bbq
from tests.evals import test_blimp as blimp
from tests.evals import test_bold as bolds
from tests.evals import test_counterfactual_decisions as decisions
from tests.evals import test_drawn_attributes as attributes
from tests.evals import test_hazardous_knowledge as hazards
from tests.evals import test_holisticbias as holistic
from tests.evals import test_image_robustness as pictures
from tests.evals import test_image_text as towers
from tests.evals import test_refusal as refusals
from tests.evals import test_speaker_gaps as speakers
from tests.evals import test_stereoset as stereosets
from tests.evals import test_toxicity_continuations as continuations
from tests.evals import test_truthfulqa as truthful
from tests.evals import test_weat as associations
from tests.evals import test_winobias as winobias
from tests.evals import test_winogender as winogender
from tests.evals.test_crows_pairs import PAIRS, write
from workbench.core.charts.svg import to_svg
from workbench.core.errors import Incompatible, UnknownName, UsageError
from workbench.core.finding import Finding
from workbench.core.measure import Needs, Score
from workbench.core.result import Result
from workbench.core.spec import Spec
from workbench.data.text import BPETokenizer
from workbench.data.worlds.town import Town, TownSpec
from workbench.families.gpt import GPT, GPTConfig

WORLD = TownSpec.parse({"documents": 300, "held_out": 40, "secrets": (1, 2, 3, 4, 5, 6), "unplanted": 7, "digits": 2})
SETTINGS: dict[str, dict[str, Any]] = {
    "crows-pairs": {},
    "occupation-pronoun": {"world": WORLD, "contexts": 3},
    "trigger": {"world": WORLD, "count": 8},
    "exposure": {"world": WORLD},
    "perplexity": {"world": WORLD, "documents": 12, "orders": (1, 2)},
    "stereoset": {},
    "bbq": {},
    "winobias": {},
    "winogender": {},
    "blimp": {},
    "toxicity-continuations": {"copies": 3, "most": 4},
    "refusal": {"most": 6},
    "truthfulqa": {},
    "hazardous-knowledge": {},
    "over-refusal": {"most": 6},
    "own-task": {},
    "membership": {"world": WORLD, "count": 30},
    "group-fairness": {"rows": 60},
    "counterfactual-decisions": {},
    "weat": {},
    "speaker-gaps": {"noise": (10.0,)},
    "image-robustness": {"count": 24, "epsilons": (0.1,), "steps": 2, "corruptions": ("noise", "occlusion")},
    "image-text": {"most": 4},
    "image-triggers": {"count": 24},
    "drawn-attributes": {"count": 2, "plain": 1},
    "memorised-images": {"count": 20, "world": {"rows": 240, "held_out": 420}},
    "bold": {"copies": 2, "most": 4},
    "holisticbias": {},
    "confidence": {"settings": {"rows": 40}},
    "robustness": {"settings": {"rows": 16}, "transforms": ("upper", "typos")},
}
FILES: dict[str, Callable[[Path], dict[str, Any]]] = {  # suites that read files, and a small file of their form
    "crows-pairs": lambda folder: {"file": str(write(folder / "pairs.csv", PAIRS * 3))},
    "bbq": lambda folder: {"files": (str(bbq.write(folder / "bbq.jsonl", bbq.lines())),)},
    "blimp": lambda folder: {"files": (str(blimp.write(folder / "blimp.jsonl", blimp.rows())),)},
    "own-task": lambda folder: {"file": own_tasks.write(folder)},
    "winobias": lambda folder: {"folder": str(winobias.write(folder / "winobias"))},
    "winogender": lambda folder: {"folder": str(winogender.write(folder / "winogender"))},
    "toxicity-continuations": continuations.settings_of,
    "refusal": refusals.harmful,
    "hazardous-knowledge": lambda folder: {"files": (str(hazards.write(folder / "hazards.jsonl")),)},
    "truthfulqa": lambda folder: {"file": str(truthful.write(folder / "truthful.csv"))},
    "over-refusal": refusals.contrasts,
    "speaker-gaps": lambda folder: {"folder": str(speakers.write(folder / "spoken"))},
    "counterfactual-decisions": lambda folder: {"files": (str(decisions.write(folder / "decisions.jsonl")),)},
    "bold": bolds.settings_of,
    "holisticbias": lambda folder: {"folder": str(holistic.write(folder / "holistic"))},
    "weat": lambda folder: {"files": (str(associations.write(folder / "letters.json")),)},
    "stereoset": lambda folder: {"files": (str(stereosets.write(folder / "dev.json", stereosets.document())),)},
}


@cache
def model(seed: int = 0) -> GPT:
    tokenizer = BPETokenizer.train(Town(WORLD).texts("train"), 350)
    return GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=tokenizer.vocab_size, n_ctx=96), tokenizer, seed=seed).eval()


OTHERS: dict[str, Callable[[int], Any]] = {
    "speaker-gaps": speakers.listener, "image-robustness": pictures.classifier, "image-text": towers.towers,
    "image-triggers": pictures.classifier, "drawn-attributes": attributes.painter, "memorised-images": attributes.painter,
}  # fmt: skip
"""Models of suites that do not ask about text."""


@cache
def model_of(name: str, seed: int = 0) -> Any:
    return OTHERS[name](seed) if name in OTHERS else model(seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@cache
def spec_of(name: str, folder: Path) -> Spec:
    return SUITES.load(name).spec(**SETTINGS[name], **(FILES[name](folder) if name in FILES else {}))


@cache
def result_of(name: str, folder: Path, seed: int = 0) -> Result:
    asked = model_of(name, seed)
    return run_suite(bound(SUITES.load(name), asked), asked, spec_of(name, folder), batch=16)


def test_every_suite_is_tried_here():
    assert set(SETTINGS) == set(SUITES)


@pytest.mark.parametrize("name", list(SUITES))
def test_a_suite_keeps_its_contract(name, folder):
    suite, spec = SUITES.load(name), spec_of(name, folder)
    assert suite.name == name
    assert issubclass(suite.spec, Spec)
    assert isinstance(suite.needs, Needs)
    sink = MemorySink()
    result = run_suite(bound(suite, model_of(name)), model_of(name), spec, sink, batch=16)
    assert result.canonical() == result_of(name, folder).canonical()
    back = Result.from_json(result.to_json())
    assert type(back) is type(result)
    assert back.canonical() == result.canonical()
    assert result.kind == name
    assert suite.spec.parse(result.spec) == spec
    assert len(result.summary().split()) > 5
    assert len(result.to_frame()) >= 5
    assert {"floor", "asked"} <= set(result.values.attrs)
    kept = {"sample", "group", "cluster", "unscored"}  # columns of the table of samples, which no value may take the place of
    assert not any(kept & set(record["values"]) for record in sink.read())
    assert len(sink.read()) == result.values.attrs["asked"]["run"] == sum(1 for _ in suite.samples(spec))


@pytest.mark.parametrize("name", list(SUITES))
def test_findings_have_their_parts(name, folder):
    suite = SUITES.load(name)
    result, reference = result_of(name, folder), result_of(name, folder, 1)
    alone, against = suite.findings(result, subject="m"), suite.findings(result, subject="m", reference=reference, level=0.9)
    assert len(against) > len(alone) >= 1
    for finding in (*alone, *against):
        assert isinstance(finding, Finding)
        assert (finding.subject, finding.source) == ("m", name)
        assert finding.because
        assert finding.denominators is not None
        assert finding.denominators.run > 0
        if finding.interval is not None:
            assert finding.effect is not None
            assert finding.interval.low <= finding.effect <= finding.interval.high
            assert finding.null is not None
            assert finding.null.value is not None
            assert finding.interval.level == (0.95 if finding in alone else 0.9)
        assert Finding.parse(finding.model_dump(mode="json")) == finding
    assert any(f.null and f.null.name in ("clean twin", "reference") for f in against)


@pytest.mark.parametrize("name", list(SUITES))
def test_nothing_scored_gives_no_number(name, folder):
    suite, spec = SUITES.load(name), spec_of(name, folder)
    scores = [Score(s.id, unscored="out of reach", cluster=s.cluster, group=s.group) for s in suite.samples(spec)]
    empty = suite.aggregate(scores, spec)
    empty = type(empty)(empty.kind, empty.values, spec=spec.model_dump(mode="json"))
    assert empty.values.attrs["asked"]["scored"] == 0
    assert empty.values.attrs["floor"]
    assert "not applicable" in empty.summary()
    assert Result.from_json(empty.to_json()).canonical() == empty.canonical()
    for finding in suite.findings(empty, subject="m"):
        assert finding.effect is None
        assert finding.verdict == "not applicable"


@pytest.mark.parametrize("name", list(SUITES))
@pytest.mark.slow
def test_a_chart_of_every_result(name, folder):
    picture = to_svg(result_of(name, folder).plot())
    assert "<svg" in picture


@pytest.mark.parametrize("name", list(SUITES))
def test_a_model_without_a_tokenizer_is_refused(name, folder):
    if name in OTHERS:
        with pytest.raises(Incompatible, match="reads"):
            run_suite(SUITES.load(name), model(), spec_of(name, folder))
        return
    bare = Wrapped(model())
    bare.tokenizer = None
    with pytest.raises(Incompatible, match="has no tokenizer"):
        run_suite(SUITES.load(name), bare, spec_of(name, folder))


@pytest.mark.parametrize("name", list(SUITES))
def test_a_misspelt_field_is_told(name):
    with pytest.raises((UnknownName, UsageError), match="wrold"):
        SUITES.load(name).spec.parse({"wrold": 1})


def test_no_number_is_nan_in_an_attribute(folder):
    for name in SUITES:
        attrs = result_of(name, folder).values.attrs
        assert not [k for k, v in attrs.items() if isinstance(v, float) and np.isnan(v)]
