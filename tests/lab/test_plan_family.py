"""What a plan declares before: its family of claims holds together, all else is exploratory, and what was added or changed is said."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
import xarray as xr

from evals import SUITES
from tests.lab.audited import home_with_audit
from workbench.cli.compare import compare
from workbench.core.errors import BadValue, UnknownName
from workbench.core.finding import Claim, Finding, Null, Plan, Verdict
from workbench.core.result import Provenance, Result
from workbench.core.stats.intervals import constant_interval, wilson
from workbench.core.stats.resampling import bootstrap
from workbench.lab import audit_findings
from workbench.lab.audit_findings import SUREST, USUAL, Described, Gathered, _suite_findings, family_level, gathered
from workbench.lab.circumstances import read as read_circumstances
from workbench.lab.plan import command_of, names, read_plan
from workbench.lab.report_plan import plan_sections
from workbench.lab.settings import read_settings
from workbench.lab.slices import sliced
from workbench.store.runs import Store

PLAN: dict[str, Any] = {"name": "p", "model": "m", "reference": "r", "suites": ["trigger", "perplexity"], "instruments": ["probing"]}


def finding(subject: str, source: str, measure: str, level: float = 0.95) -> Finding:
    return Finding(
        claim="c", subject=subject, source=source, measure=measure, effect=0.5, interval=wilson(50, 100, level), verdict=Verdict.DETECTED
    )


def drawn(level: float) -> list[Finding]:
    return [finding(*where, level) for where in (("m", "trigger", "flipped, a"), ("m", "trigger", "flipped, b"), ("m", "trigger", "other"),
                                                 ("r", "trigger", "flipped, a"), ("m", "perplexity", "bits [per] byte"))]  # fmt: skip


def family(**facts: Any) -> list[Finding]:
    return audit_findings._family(Plan.parse(PLAN | facts), drawn)


def levels(found: list[Finding]) -> list[float]:
    return [round(one.interval.level, 6) for one in found if one.interval is not None]


def test_declared_claims_hold_together_and_all_else_on_the_model_is_exploratory() -> None:
    assert family() == drawn(0.95)
    found = family(claims=[{"of": "trigger", "measure": "flipped, *"}, {"of": "perplexity", "measure": "bits [per] byte"}])
    strict = round(family_level(0.95, 3), 6)
    assert strict == pytest.approx(1 - 0.05 / 3, abs=1e-6)
    assert levels(found) == [strict, strict, 0.95, 0.95, strict]
    assert [one.exploratory for one in found] == [False, False, True, False, False]
    assert found[2].because.endswith("(exploratory: not a declared claim)")
    assert "exploratory" not in found[0].model_dump(mode="json"), "findings stored before keep their digest"
    (one,) = [f for f in family(claims=[{"of": "trigger", "measure": "other"}]) if not f.exploratory and f.subject == "m"]
    assert levels([one]) == [0.95], "a family of one needs no correction"


def test_a_claim_that_its_suite_does_not_draw_at_the_familys_level_is_undecided() -> None:
    plan = Plan.parse(PLAN | {"claims": [{"of": "trigger", "measure": "flipped, *"}]})
    found = audit_findings._family(plan, lambda level: [one for one in drawn(level) if level == 0.95 or one.measure != "flipped, b"])
    assert [one.verdict for one in found[:2]] == [Verdict.DETECTED, Verdict.INCONCLUSIVE]
    assert found[1].interval is None
    assert "too little" in found[1].because


def test_what_is_added_to_a_plan_is_exploratory(tmp_path: Path) -> None:
    assert [one.exploratory for one in family(added=["perplexity"])] == [False, False, False, False, True]
    made = read_plan("town", added=["bbq", "similarity"])
    assert (made.suites[-1], made.instruments[-1], made.added) == ("bbq", "similarity", ("bbq", "similarity"))
    with pytest.raises(BadValue, match="does not ask already"):
        read_plan("town", added=["trigger"])
    with pytest.raises(UnknownName, match="no suite or instrument 'tirgger'.*Did you mean 'trigger'"):
        read_plan("town", added=["tirgger"])
    with pytest.raises(UnknownName, match="under 'claims'"):
        read_plan({**PLAN, "claims": [{"of": "bbq"}]}, added=["bbq"])


def test_a_plan_that_differs_from_its_file_says_in_what() -> None:
    plan = read_plan("town", {"level": 0.9, "settings": {"trigger": {"count": 5}}})
    assert plan.changed == ("level", "settings")
    assert plan.file == read_plan("town").digest()
    assert (read_plan("town").changed, read_plan("town", {"level": 0.95}).file) == ((), "")


def test_patterns_are_texts_with_stars_and_nothing_else() -> None:
    one = finding("m", "s", "rate (a) [b] x.y")
    assert Claim(of="s", measure="rate (a) [b] x.y").covers(one)
    assert Claim(of="s", measure="*[b]*").covers(one)
    assert not Claim(of="s", measure="rate (a) [b] x-y").covers(one)
    assert not Claim(of="s", measure="rate").covers(one)
    assert not Claim(of="t").covers(one)


def test_margins_and_floors_become_the_suites_own() -> None:
    margins = {"occupation-pronoun": 0.1, "occupation-pronoun.gap_margin": 0.2}
    facts = {"margins": margins, "floors": {"trigger": 0.3}, "settings": {"trigger": {"count": 4}}}
    plan = read_plan({**PLAN, "suites": ["occupation-pronoun", "trigger"], **facts})
    assert plan.settings_of("occupation-pronoun") == {"margin": 0.1, "gap_margin": 0.2}
    assert plan.settings_of("trigger") == {"count": 4, "floor": 0.3}
    for facts, words in (
        ({"margins": {"perplexity": 0.1}}, "no field 'margin' of suite 'perplexity'"),
        ({"floors": {"trigger.flor": 0.1}}, "Did you mean 'floor'"),
        ({"margins": {"bbq": 0.1}}, "under 'margins'"),
        ({"slices": [{"of": "probing", "value": "x"}]}, "under 'slices'"),
        ({"claims": [{"of": "trigegr"}]}, "Did you mean 'trigger'"),
    ):
        with pytest.raises(UnknownName, match=words):
            read_plan(PLAN | facts)


def test_the_shipped_plans_declare_what_they_claim() -> None:
    declared = ("quickstart", "language-model", "release-gate", "encoder", "vision", "speech", "text-to-image")
    assert {*declared, "town"} <= set(names())
    assert all(read_plan(name).claims for name in declared)


def test_a_report_names_the_command_that_gives_its_plan_again() -> None:
    """Whatever was changed and added: the words, typed, make the same plan, but for what they say of themselves."""
    assert command_of(read_plan("town")) == "workbench audit town"
    changes = {"model": "hf:a model", "reference": None, "settings": {"perplexity": {"documents": 7}}, "claims": [], "level": 0.9}
    plan = read_plan("quickstart", changes, ["bbq"])
    words = shlex.split(command_of(plan))
    assert words[:3] == ["workbench", "audit", "quickstart"]
    settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    added = [words[at + 1] for at, word in enumerate(words) if word == "--add"]
    assert read_plan("quickstart", read_settings(settings), added) == plan
    assert command_of(plan.model_copy(update={"name": "mine"})).startswith("workbench audit plan.json")


def test_the_report_says_what_became_of_every_claim() -> None:
    claims = [{"of": "trigger", "measure": "flipped, *"}, {"of": "probing"}]
    facts = {"added": ["perplexity"], "changed": ["level"], "file": "f" * 64, "margins": {"trigger": 0.1}}
    plan = Plan.parse(PLAN | {"claims": claims} | facts)
    found = audit_findings._family(plan, drawn)
    (section,) = plan_sections(plan, Gathered({}, found, []))
    table, rest = section.tables
    assert table.rows == (
        ("trigger", "flipped, a", "detected"),
        ("trigger", "flipped, b", "detected"),
        ("probing", "*", "not answered: it was left out"),
    )
    assert [row[:2] for row in rest.rows] == [("trigger", "other"), ("perplexity", "bits [per] byte")]
    words = " ".join(section.text)
    for said in ("cover 2 findings", "at 97.500%", "2 findings on the audited model are exploratory",
                 "beyond the plan, and exploratory: perplexity",
                 "(digest ffffffffffffffff) before anything was asked: level", "Margins: trigger 0.1."):  # fmt: skip
        assert said in words
    assert list(plan_sections(Plan.parse(PLAN), Gathered({}, found, []))) == []


def test_slices_are_means_by_group_with_their_intervals() -> None:
    def record(n: int, group: str, value: Any, unscored: str = "") -> dict[str, Any]:
        return {"sample": f"{n:02d}", "epoch": 0, "cluster": f"c{n // 2}" if group == "b" else "", "group": group, "unscored": unscored,
                "values": {"deep": {"x": value}}}  # fmt: skip

    records = [record(n, "a", n % 3 == 0) for n in range(30)] + [record(n, "b", n / 7) for n in range(30, 60)]
    records += [record(90, "b", None, "a tie"), record(91, "few", 1.0)]
    plan = Plan.parse(PLAN | {"slices": [{"of": "trigger", "value": "deep.x"}, {"of": "perplexity", "value": "nothing"}]})
    one, none = sliced(plan, ["trigger.audited", "perplexity.audited"], lambda label: records)
    a, b, few = one.groups
    assert (a.n, a.mean, a.interval) == (30, pytest.approx(1 / 3), wilson(10, 30))
    assert b.interval == bootstrap([n / 7 for n in range(30, 60)], clusters=[f"c{n // 2}" for n in range(30, 60)]).interval
    assert (b.unscored, few.interval, few.note) == (1, None, "too few for an interval: 1 cluster")
    assert (none.groups, none.note) == ((), "No sample has a number 'nothing'. There are deep.x.")
    (section,) = plan_sections(plan, Gathered({}, [], [], [one, none]))
    assert [len(table.rows) for table in section.tables] == [3, 0]


def test_a_group_in_which_all_are_alike_has_an_interval_where_its_value_is_a_share() -> None:
    def sliced_by(values: Sequence[float | bool], clusters: Sequence[str]) -> Any:
        records = [
            {"sample": f"{n:02d}", "epoch": 0, "cluster": cluster, "group": "g", "unscored": "", "values": {"right": value}}
            for n, (value, cluster) in enumerate(zip(values, clusters, strict=True))
        ]
        plan = Plan.parse(PLAN | {"slices": [{"of": "trigger", "value": "right"}]})
        return sliced(plan, ["trigger.audited"], lambda label: records)[0].groups[0]

    alone, terms = [""] * 12, [f"c{n // 2}" for n in range(12)]
    assert sliced_by([True] * 12, alone).interval == wilson(12, 12)
    assert sliced_by([True] * 11 + [False], alone).interval == wilson(11, 12)
    assert sliced_by([False, True] * 6, terms).interval == constant_interval(0.5, 6, 0.95, (0.0, 1.0))
    for counts in ([0.5] * 12, [1.0] * 12, [0] * 12):  # errors of each that all happen to be 1, or none: others may have made more
        unlike = sliced_by(counts, alone)
        assert (unlike.interval, unlike.note) == (None, "every cluster has this mean, so nothing says how far others would lie from it")
    counted = sliced_by([1.0] * 11 + [0.0], alone).interval
    assert counted == bootstrap([1.0] * 11 + [0.0], clusters=[f"{n:02d}" for n in range(12)]).interval, "a count's mean, not a share"


class _Toys(dict[str, Any]):
    """A catalogue of one suite with a finding on its model alone and one against another model."""

    def load(self, name: str) -> Any:
        found = [finding("m", name, null).model_copy(update={"null": Null(name=null, value=0.0)}) for null in ("chance", "clean twin")]
        return SimpleNamespace(findings=lambda *_, **__: found)


def test_what_compares_two_models_is_derived_again_from_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_findings, "SUITES", _Toys(trigger=SimpleNamespace(status="headline")))
    plan = Plan.parse(PLAN | {"name": "town", "suites": ["trigger"], "settings": {"trigger": {"count": 40}}})
    subject = Described(part="audited", ref="m", family="gpt", config={}, parameters=1, model_digest="d", domain="town")

    def commands(ours: dict[str, Any], theirs: dict[str, Any], level: float = 0.95, ref: str = "m") -> list[str]:
        sides = {
            part: {"trigger": Result("trigger", xr.Dataset(), spec, Provenance(data_digest="e" * 64))}
            for part, spec in (("audited", ours), ("reference", theirs))
        }
        asked = subject.model_copy(update={"ref": ref})
        return [one.rederive for one in _suite_findings("trigger", asked, sides, level, plan)]

    ours, theirs = "workbench eval trigger --model m --set count=40", "workbench eval trigger --model r --set count=40"
    both, same, again = f"{theirs} && {ours} && workbench compare FIRST_RUN SECOND_RUN --level", {"count": 40}, command_of(plan)
    assert commands(same, same) == [ours, f"{both} 0.95"]
    said = f"{ours}  # draws its interval at 95 %, and this finding's is at"
    assert commands(same, same, 0.9975) == [f"{said} 99.75 %", f"{both} 0.9975"], "an evaluation takes no level, and it is said"
    assert commands(same, same, 0.99995) == [f"{said} 99.995 %", again], "nor does a comparison take one so high"
    quoted = "workbench eval trigger --model 'a;b c' --set count=40"
    assert commands(same, same, ref="a;b c") == [quoted, f"{theirs} && {quoted} && workbench compare FIRST_RUN SECOND_RUN --level 0.95"]
    assert commands({"count": 40, "world": {"dose": 0.8}}, {"count": 40, "world": {"dose": 0.0}}) == [ours, command_of(plan)], (
        "an audit asks each model about its own world, and two evaluations pair what they share"
    )


def test_the_levels_of_the_commands_are_those_that_they_take() -> None:
    taken = inspect.signature(SUITES.load("trigger").findings).parameters["level"].default
    option = get_type_hints(compare, include_extras=True)["level"].__metadata__[0]
    assert (taken, option.max) == (USUAL, SUREST)


@pytest.mark.full
def test_a_declared_family_is_drawn_again_from_a_real_audit() -> None:
    home, run = home_with_audit()
    with Store.open(home) as store:
        subjects, _ = read_circumstances(store.folder(run))
        plan = Plan.parse(store.runs.get(run).spec)
        found = gathered(plan, subjects, store.results(run), ()).findings
        plain = gathered(plan.model_copy(update={"claims": ()}), subjects, store.results(run), ()).findings
    wide = [one.interval for one in found if one.source == "occupation-pronoun" and one.interval]
    narrow = [one.interval for one in plain if one.source == "occupation-pronoun" and one.interval]
    assert all(w.high - w.low > n.high - n.low for w, n in zip(wide, narrow, strict=True))
    assert {one.exploratory for one in found if one.source == "trigger"} == {True}


def test_the_page_names_every_plan_and_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plans.md").read_text(encoding="utf-8")
    assert [name for name in names() if f"\n| `{name}` |" not in page] == []
    kept = set(Plan.model_fields) - {"seed", "added", "changed", "file"}
    assert [name for name in sorted(kept) if f"`{name}`" not in page] == []
