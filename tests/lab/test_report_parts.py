"""What the report says of its models and denominators follows from what was gathered, and adds up."""

from __future__ import annotations

from typing import Any

import pytest
import xarray as xr

from workbench.core.errors import UnknownName
from workbench.core.finding import Denominators, Finding, Interval, Plan, Verdict, decide
from workbench.core.result import Result
from workbench.data.worlds.town import TownSpec
from workbench.lab.audit_findings import Described, Gathered, Origin
from workbench.lab.audit_report import _counted, _method
from workbench.lab.plan import read_plan
from workbench.lab.report_parts import coverage, identities, layers, limits

WORLD = TownSpec.parse({}).model_dump(mode="json")
CONFIG = {"n_layers": 2, "n_heads": 4, "d_model": 32, "norm": "rms", "norm_placement": "pre"}
PLAN = Plan(
    name="p", model="run:a", reference="run:b", suites=("trigger", "crows-pairs"), instruments=("integrated-gradients", "head-scores"),
    about={"licence": "MIT", "intended_use": "answering questions about a town"},
)  # fmt: skip


def subject(part: str, ref: str, world: dict[str, Any] | None) -> Described:
    return Described(
        part=part, ref=ref, family="gpt", config=CONFIG, parameters=1234, model_digest="ab" * 32, domain="town", world=world
    )  # fmt: skip


def finding(source: str, ref: str, counts: Denominators | None, verdict: Verdict = Verdict.DETECTED) -> Finding:
    return Finding(claim="c", subject=ref, source=source, measure="m", effect=1.0, verdict=verdict, denominators=counts)


def result(kind: str, asked: Denominators | None, notes: tuple[str, ...] = ()) -> Result:
    attrs = {} if asked is None else {"asked": asked.model_dump(mode="json")}
    return Result(kind=kind, values=xr.Dataset({"x": ("i", [1.0])}, attrs=attrs), notes=notes)


def test_a_model_is_told_by_its_digest_world_and_what_the_plan_states() -> None:
    audited, reference = identities(PLAN, (subject("audited", "run:a", WORLD), subject("reference", "run:b", None)))
    assert (audited.licence, audited.intended_use) == ("MIT", "answering questions about a town")
    assert (reference.licence, reference.training_data) == ("", ())
    assert audited.architecture == "2 layers, 4 heads, width 32, rms norm (pre)"
    assert audited.sha256 == "ab" * 32
    assert audited.training_data[0].items == WORLD["documents"]
    assert "dose 0.8, seed 0, spec " in audited.training_data[0].source
    assert audited.lineage == ("random weights, seed 0", "trained on the generated town")


def test_a_model_of_another_world_is_told_by_its_organism_and_each_stack() -> None:
    """However a config was stored, the stack that reads comes first; nothing of the town is said of it."""
    origin = Origin(words="a listener", dose=0.5, seed=3, trained_on="voices", recipe="cd" * 32)
    stored = {"n_layers_decoder": 1, "d_model": 48, "n_layers_encoder": 2, "n_heads": 4}
    for config in (stored, dict(sorted(stored.items(), reverse=True))):
        other = subject("audited", "run:a", None).model_copy(update={"config": config, "origin": origin})
        (told,) = identities(PLAN, (other,))
        assert told.architecture == "2 layers (encoder), 1 layer (decoder), 4 heads, width 48"
        assert told.lineage == ("random weights, seed 3", "a listener")
        assert [(data.name, data.source) for data in told.training_data] == [("voices", f"dose 0.5, recipe {'cd' * 8}")]
    assert layers({"n_layers": 4, "n_layers_text": 2}) == ["4 layers", "2 layers (text)"]
    assert (other.planted, other.model_copy(update={"origin": Origin()}).planted) == (True, False)


def test_every_denominator_has_its_column() -> None:
    asked = Denominators(run=20, scored=12, unscored={"no parse": 3, "the server: the request was refused": 5}, excluded=4)
    smaller = Denominators(run=6, scored=6)
    gathered = Gathered(
        results={
            "audited": {"trigger": result("trigger", asked), "crows-pairs": result("c", smaller), "head-scores": result("h", None)},
            "reference": {"integrated-gradients.zero": result("i", None)},
        },
        findings=[
            finding("trigger", "run:a", smaller),
            finding("crows-pairs", "run:a", smaller, Verdict.NOT_APPLICABLE),
            finding("integrated-gradients", "run:b", smaller),
            finding("integrated-gradients", "run:b", Denominators(run=9, scored=8, unscored={"edge": 1})),
        ],
        left_out=[],
    )  # fmt: skip
    rows = {(c.asked, c.model): c for c in coverage(PLAN, gathered)}
    assert list(rows) == [
        ("trigger", "audited"),
        ("crows-pairs", "audited"),
        ("integrated-gradients", "reference"),
        ("head-scores", "audited"),
    ]
    whole = rows["trigger", "audited"]
    assert (whole.drawn, whole.run, whole.scored, whole.refused, dict(whole.unscored)) == (24, 20, 12, 5, {"no parse": 3})
    below = rows["crows-pairs", "audited"]
    assert (below.run, below.scored, below.not_applicable) == (6, 0, 6)
    assert (rows["integrated-gradients", "reference"].run, rows["integrated-gradients", "reference"].scored) == (9, 8)
    assert rows["head-scores", "audited"].run is None


def test_what_a_suite_noted_is_a_limit_once() -> None:
    noted = result("trigger", None, ("3 continuations were encoded apart",))
    gathered = Gathered({"audited": {"trigger": noted, "head-scores": noted}}, [], [])
    assert limits(gathered) == ("trigger (audited): 3 continuations were encoded apart.",)


def test_a_plan_that_states_what_no_model_has_is_refused_before_anything_runs() -> None:
    with pytest.raises(UnknownName, match="license"):
        read_plan("town", {"about": {"license": "MIT"}})
    assert read_plan("town", {"about": {"licence": "MIT"}}).about == {"licence": "MIT"}
    assert "about" not in Plan(name="p", model="m").model_dump(mode="json"), "plans that were stored before keep their digest"


def test_the_method_tells_how_verdicts_are_decided() -> None:
    told, inside = " ".join(_method(PLAN).text), Interval(low=-0.01, high=0.01, level=0.95, method="m")
    assert decide(0.0, None, null=0.0)[0] is decide(0.0, inside, null=None)[0] is Verdict.INCONCLUSIVE
    assert "Without an interval, or a null to compare with, it is 'inconclusive'." in told
    verdicts = [decide(0.0, inside, null=0.0, margin=0.1, detectable=known)[0] for known in (None, 0.05, 0.2)]
    assert verdicts == [Verdict.EQUIVALENT, Verdict.EQUIVALENT, Verdict.INCONCLUSIVE]
    assert "where no detectable effect is known, the interval alone decides" in told


def test_findings_on_the_reference_are_counted_as_what_was_asked_for_comparison() -> None:
    found = [finding("trigger", ref, None) for ref in ("run:a", "run:b", "run:b")]
    assert list(_counted(PLAN, Gathered({}, found, []))) == [
        "1 finding on the audited model: 1 detected.", "2 findings on the reference, asked the same for comparison: 2 detected.",
    ]  # fmt: skip
