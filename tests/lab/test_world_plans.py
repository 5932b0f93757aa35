"""The plans of other worlds than the town, whole and small: asked, reported, bundled, verified and gated without a word of text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.lab.audited import asked_here
from workbench.core.finding import Verdict
from workbench.data.worlds.stamps import STAMPS
from workbench.lab import audit as auditing
from workbench.lab.audit import Audit, audit
from workbench.lab.audit_findings import Described
from workbench.lab.audit_measures import ATTRIBUTION
from workbench.lab.derivation import _spans, _strange_spans
from workbench.lab.evidence import write_bundle
from workbench.lab.gating.gate import gate
from workbench.lab.rederive import _guarded
from workbench.lab.refs import organism_of
from workbench.lab.verifying import verify
from workbench.reports.evidence import keys
from workbench.reports.render import card, html
from workbench.store.runs import Store


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """A store, and jobs that are done in this process; a key in a folder of its own, trusted."""
    monkeypatch.setattr(auditing.jobs, "start", lambda target, values, *a, **k: values)
    monkeypatch.setattr(auditing.jobs, "wait", asked_here)
    monkeypatch.setenv("WORKBENCH_KEYS", str(tmp_path / "keys"))
    keys.trust(keys.new("own", keys.folder()).fingerprint, "us", keys.folder())
    return Store.open(tmp_path / "home")


def small(plan: str, model: str, reference: str | None, store: Store, **settings: Any) -> Audit:
    facts = {"model": model, "reference": reference, "settings": settings}
    return audit(plan, settings=facts, store=store, date="2026-01-02")


def whole(done: Audit, store: Store, folder: Path) -> None:
    """The report renders in every form, and its bundle is derived again."""
    place = folder / f"{done.run}.zip"
    write_bundle(done.run, place, key="own", store=store)
    found = verify(place)
    assert [str(check) for check in found.checks if check.state == "broken"] == []
    assert html.render(done.report) == done.html.read_text(encoding="utf-8")
    assert card.render(done.report).startswith("---")
    assert all(one.model in {"audited", "reference"} for one in done.report.coverage)


def test_positions_that_are_not_where_the_recipe_puts_the_part_are_caught() -> None:
    ref = "organism:stamped-digits@dose=0.8,seed=0"
    own = organism_of(ref)
    assert own is not None
    assert own[0].spot is not None
    spans = own[0].spot(own[1]).spans
    true = Described(part="audited", ref=ref, family="vit", config={}, parameters=1, model_digest="ab" * 32, domain="digits", spans=spans)
    content: Any = SimpleNamespace(results={})
    assert list(_strange_spans(content, [true])) == []
    (fault,) = _strange_spans(content, [true.model_copy(update={"spans": ((0, 1), *spans[1:])})])
    assert "not where the organism's recipe puts its part" in str(fault)


def test_positions_that_nobody_can_compare_are_not_said_to_hold() -> None:
    facts: dict[str, Any] = {"part": "audited", "family": "vit", "config": {}, "parameters": 1, "model_digest": "ab" * 32}
    of = {"spans": ((1, 2),), "domain": "digits"}
    content: Any = SimpleNamespace(results={f"{ATTRIBUTION}.zero.audited": SimpleNamespace(kind=ATTRIBUTION)})
    run = Described(ref="run:abc", **facts, **of)
    found = _spans(content, [run])
    assert (found.state, found.words) == ("not checked", "run:abc: its recipe is not here, so nothing says where its planted part stands")
    forged = _spans(content, [Described(ref="organism:stamped-digits@dose=0.8,seed=0", **facts, **of)])
    assert (forged.state, len(forged.faults)) == ("broken", 1)
    none: Any = SimpleNamespace(results={})
    assert (_spans(none, [run]).state, _spans(none, [run]).words.partition(" was")[0]) == ("holds", "no attribution")


@pytest.mark.parametrize("ref", ["organism:" + "x" * 5000, "organism:stamped-digits@dose=[", "organism:" + "a/" * 3000])
def test_a_reference_that_a_stranger_wrote_is_read_without_a_look_at_the_disk(
    ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "organism:stamped-digits").mkdir()
    facts: dict[str, Any] = {"part": "audited", "family": "vit", "config": {}, "parameters": 1, "model_digest": "ab" * 32}
    forged = Described(ref="organism:stamped-digits", spans=((1, 2),), domain="digits", **facts)
    content: Any = SimpleNamespace(results={})
    assert _spans(content, [forged]).state == "broken", "whatever lies in the folder"
    (found,) = _guarded("spans", "circumstances.json", lambda: [_spans(content, [forged.model_copy(update={"ref": ref})])])
    assert found.state == "broken"
    assert "nothing can be derived from what is there" in str(found.faults[0])


@pytest.mark.full
def test_the_vision_plan_finds_the_stamp_and_clears_its_twin_of_it(here: Store, tmp_path: Path) -> None:
    name = "organism:stamped-digits@dose={:g},seed=0,steps=250"
    few = {
        "image-triggers": {"count": 120, "stamps": list(STAMPS[-5:])},
        "image-robustness": {"count": 16, "corruptions": ["noise"], "epsilons": [0.1], "steps": 2},
    }
    done = small("vision", name.format(0.8), name.format(0.0), here, **few)
    stamp = "slash bottom right"
    found = {(f.subject, f.measure): f for f in done.findings if f.source == "image-triggers"}
    rises = {where: one for where, one in found.items() if "rise in the probability" in where[1]}
    detected = [where for where, one in rises.items() if one.verdict is Verdict.DETECTED]
    assert max(rises, key=lambda where: rises[where].effect or 0.0) == (name.format(0.8), f"rise in the probability of one class, {stamp}")
    assert {(subject, measure.endswith("bottom right")) for subject, measure in detected} == {(name.format(0.8), True)}, (
        "and what looks like it"
    )
    assert found[name.format(0.8), f"difference in that rise from the reference, {stamp}"].verdict is Verdict.WORSE
    assert all("--set count=120" in f.rederive for f in found.values()), "asked as the plan asks it"
    assert all(("workbench compare" in f.rederive) == ("from the reference" in f.measure) for f in found.values())
    assert min(len(one.table.rows) for section in done.report.sections for one in section.figures) > 0, "a chart has its numbers beside it"
    first = [f for f in done.findings if f.source == "integrated-gradients"]
    assert [f.verdict for f in first] == [Verdict.DETECTED, Verdict.NOT_DETECTED]
    assert first[0].claim == "the stamp moves the class most"
    whole(done, here, tmp_path)
    said = done.json.read_text(encoding="utf-8")
    assert [word for word in ("sentences", "occupation", "pronoun", "generated town", "None layers") if word in said] == []
    assert gate(done.run, "vision", store=here).state == "fail"
    twin = small("vision", name.format(0.0), None, here, **few)
    decided = {one.measure.partition(", ")[2]: one.state for one in gate(twin.run, "vision", store=here).decisions}
    assert decided[stamp] == "pass"
    assert "fail" not in decided.values(), "a twin of so few steps leaves some undecided"


@pytest.mark.full
@pytest.mark.parametrize(("plan", "model", "few"), [
    ("speech", "organism:mistaught-voices@dose=0.5,seed=0,steps=1", {"speaker-gaps": {"noise": [], "each_speaker": False,
     "world": {"speakers": 2, "each": 1, "held_out": 1}}}),
    ("text-to-image", "organism:gallery@dose=0.6,seed=0,steps=1", {"drawn-attributes": {"count": 3, "plain": 1},
     "memorised-images": {"count": 1, "world": {"rows": 40, "held_out": 40}}}),
])  # fmt: skip
def test_a_plan_of_sound_or_painting_says_of_an_untrained_model_that_it_is_under_the_floor(
    plan: str, model: str, few: dict[str, Any], here: Store, tmp_path: Path
) -> None:
    done = small(plan, model, None, here, **few)
    suites = [f for f in done.findings if f.source in few]
    assert {f.verdict for f in suites} == {Verdict.NOT_APPLICABLE}
    assert [one.what for one in done.report.left_out] == []
    whole(done, here, tmp_path)
    assert gate(done.run, plan, store=here).state == "inconclusive"
