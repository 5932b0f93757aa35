"""From failure to internals: the planted head is found and the idle one is not, on a decoder trained for it and on one made by hand."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from workbench.core.errors import BadValue, UnknownName
from workbench.core.finding import Plan, Verdict
from workbench.core.result import Provenance, Result
from workbench.core.stats.multiplicity import holm
from workbench.families.gpt import GPT
from workbench.lab import internals
from workbench.lab.internals import KIND, Failure, InternalsResult, InternalsSpec, Part, clusters_needed, locate, parts_of_model
from workbench.lab.internals_findings import findings, section
from workbench.lab.plan import read_plan
from workbench.organisms.planted_head import ORGANISM, HeadOptions, ask, planted_in, recipe, twin

QUICK = InternalsSpec(controls=2, sets=3, draws=999)


@cache
def tiny() -> Any:
    return GPT.tiny(seed=0)[0].eval()


def failure(items: int = 24, score: Any = None) -> Failure:
    """Random token ids; the failure is, unless told otherwise, how far head 1.0 moves one logit: what it is made of is known."""
    ids = torch.randint(0, tiny().config.d_vocab, (items, 8), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8 - n % 3 for n in range(items)])

    def read(logits: Tensor, _: Tensor) -> Tensor:
        return logits[:, 3]

    return Failure("toy", ids, lengths, score or read, [str(n // 2) for n in range(items)], ids[:6], lengths[:6])


@pytest.mark.full
def test_every_part_is_ablated_at_the_items_last_tokens_as_the_plain_way_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow twin: one plain run for each part, the mean written by hand, each item read at its own last token."""
    monkeypatch.setattr(internals, "clusters_needed", lambda parts, alpha: 4)
    asked = failure()
    found = locate(tiny(), asked, QUICK).values
    here = [n for n in range(24) if str(n // 2) in set(found.cluster.values)]
    ids, lengths = asked.batch[here], asked.lengths[here]
    rows = torch.arange(len(here))
    with torch.no_grad():
        whole = tiny().run(ids).logits[rows, lengths - 1, 3].double()
        for number, part in enumerate(parts_of_model(tiny())):
            kept = tiny().run(ids, capture=part.site).at[part.site]
            mean = torch.stack([kept[row, place] for row in range(len(here)) for place in range(int(lengths[row]))]).mean(0)

            def flat(old: Tensor, site: Any, part: Part = part, mean: Tensor = mean) -> Tensor:
                new = old.clone()
                new[:] = mean if part.head is None else new
                if part.head is not None:
                    new[:, :, part.head] = mean[part.head]
                return new

            after = tiny().run(ids, edit=[internals.Apply(part.site, fn=flat)]).logits[rows, lengths - 1, 3].double()
            torch.testing.assert_close(torch.from_numpy(found.effect.values[number]), whole - after, rtol=0, atol=2e-6)
    assert np.array_equal(found.holm.values, holm(found.p.values))
    assert set(found.cluster.values) & set(found.held_cluster.values) == set()
    assert locate(tiny(), asked, QUICK).digest() == locate(tiny(), asked, QUICK).digest()


def test_a_random_change_moves_a_part_as_far_as_its_ablation_does() -> None:
    mean = torch.randn(4, generator=torch.Generator().manual_seed(1))
    old = torch.randn(2, 3, 1, 4, generator=torch.Generator().manual_seed(2))
    edit: Any = internals._shake(Part(0, 1), mean, 0, 0)
    torch.testing.assert_close((edit.fn(old, None) - old).norm(dim=-1), (mean - old).norm(dim=-1))
    other: Any = internals._shake(Part(0, 1), mean, 0, 1)
    assert not torch.equal(edit.fn(old, None), other.fn(old, None))


def test_too_few_clusters_to_decide_are_refused() -> None:
    assert clusters_needed(15, 0.05) == 9
    assert 15 * 0.5**9 <= 0.05 < 15 * 0.5**8
    with pytest.raises(BadValue, match="is 6, but it must be at least 12: 8 to locate on, 4 to test on"):
        locate(tiny(), failure(items=12), QUICK)


def test_few_clusters_are_divided_so_that_both_sides_can_decide_and_many_in_halves() -> None:
    """Twelve terms and ten parts: eight can decide (10 / 2^8 <= 0.05), six could not (10 / 2^6 > 0.05)."""
    needed = clusters_needed(10, 0.05)
    assert needed == 8
    for count, here in ((12, 8), (13, 8), (15, 8), (16, 8), (17, 8), (18, 9), (40, 20)):
        clusters = [str(n // 2) for n in range(2 * count)]
        first, held = internals._halves(clusters, needed, random.Random(0))
        assert len({clusters[n] for n in first}) == here
        assert len({clusters[n] for n in held}) == count - here >= 4
        assert sorted([*first, *held]) == list(range(2 * count))
        assert {clusters[n] for n in first} & {clusters[n] for n in held} == set()
    with pytest.raises(BadValue, match="is 11, but it must be at least 12"):
        internals._halves([str(n) for n in range(11)], needed, random.Random(0))
    effect, none = np.full((10, 8), 0.0), np.zeros((10, 8))
    effect[3], effect[4] = np.arange(1, 9), [-0.1, *range(1, 8)]
    _, adjusted = internals.tested(effect, none, [str(n) for n in range(8)], QUICK)
    assert adjusted[3] == pytest.approx(10 / 256)
    assert adjusted[4] > 0.05, "one of eight clusters in which nothing is taken away, and the first part of ten is not shown"


# --- the planted head -------------------------------------------------------------------------------------------


def head_failure(made: Any, model: Any) -> Failure:
    """Following the planted mark: its kind's logit against the next kind's, on held-out items, each a cluster."""
    asked = ask(made, 64)
    targets, foils = torch.as_tensor(asked.targets), torch.as_tensor(asked.foils)

    def score(logits: Tensor, chosen: Tensor) -> Tensor:
        rows = torch.arange(len(chosen))
        return logits[rows, targets[chosen]] - logits[rows, foils[chosen]]

    lengths = torch.full((64,), asked.batch.shape[1])
    return Failure("planted mark", asked.batch, lengths, score, [str(n) for n in range(64)], asked.reference, lengths, unit="logits")


@pytest.mark.full
def test_the_planted_head_is_found_and_its_idle_twin_is_not(tmp_path: Path) -> None:
    made = recipe(HeadOptions(dose=4.0, seed=3))
    model: Any = ORGANISM.build(made, tmp_path / "target")
    layer, head = planted_in(model, made)
    found = locate(model, head_failure(made, model), QUICK)
    effects = dict(zip(found.values.part.values.tolist(), found.values.effect.mean("item").values.tolist(), strict=True))
    adjusted = dict(zip(found.values.part.values.tolist(), found.values.holm.values.tolist(), strict=True))
    carrying = {name for name, p in adjusted.items() if p <= 0.05 and effects[name] > 0}
    assert f"head {layer}.{head}" in carrying, "recall 1 of 1"
    assert max(effects, key=lambda name: effects[name]) == f"head {layer}.{head}"
    assert [str(n) for n in found.values.part.values[found.values.chosen.values]] == [f"head {layer}.{head}"], (
        "and nothing else in the repair"
    )
    repair, _ = findings(found, "m", 0.95)
    assert repair.verdict is Verdict.DETECTED
    assert repair.details["share"] > 0.8
    terms = replace(head_failure(made, model), clusters=[f"term {n % 12}" for n in range(64)])
    few = locate(model, terms, QUICK)
    assert [str(n) for n in few.values.part.values[few.values.chosen.values]] == [f"head {layer}.{head}"], "twelve terms decide too"
    repair, _ = findings(few, "m", 0.95)
    assert (repair.verdict, getattr(repair.interval, "method", "")) == (Verdict.DETECTED, "Student t of 4 clusters")
    assert repair.details["share"] > 0.8
    idle = twin(made)
    other: Any = ORGANISM.build(idle, tmp_path / "twin")
    quiet = locate(other, head_failure(idle, other), QUICK).values
    where = "head {}.{}".format(*planted_in(other, idle))
    assert not bool(quiet.chosen.sel(part=where))
    assert abs(float(quiet.effect.sel(part=where).mean())) < 0.2


# --- what is said of it -----------------------------------------------------------------------------------------


def made_up(chosen: bool, cost: float = 0.0, held_clusters: int = 12) -> InternalsResult:
    """A result as ``locate`` leaves it, with numbers of our own; ``held_clusters`` of the 24 held-out items."""
    rng = np.random.default_rng(0)
    held = rng.normal(2.0, 0.3, 24)
    text = rng.normal(1.4, 0.1, 30)
    values = xr.Dataset(
        {
            "effect": (("part", "item"), np.stack([np.full(24, 1.8), np.full(24, 0.1)])), "control": (("part", "item"), np.zeros((2, 24))),
            "p": ("part", np.array([0.001, 0.4])), "holm": ("part", np.array([0.002, 0.4])), "chosen": ("part", np.array([chosen, False])),
            "cluster": ("item", np.array([f"c{n // 2}" for n in range(24)], dtype=object)),
            "failure": ("held", held), "repaired": ("held", rng.normal(0.1, 0.1, 24) if chosen else held),
            "random": (("set", "held"), np.stack([held, held + 0.01])),
            "held_cluster": ("held", np.array([f"h{n % held_clusters}" for n in range(24)], dtype=object)), "nats": ("text", text),
            "repaired_nats": ("text", text + cost + rng.normal(0, 0.01, 30)), "random_nats": (("set", "text"), np.stack([text, text])),
        },
        coords={"part": np.array(["head 0.1", "mlp 0"], dtype=object)},
        attrs={"of": "occupation-pronoun", "unit": "log-odds", "before": 2.0},
    )  # fmt: skip
    return InternalsResult(KIND, values, {}, Provenance())


def test_a_repair_that_works_and_one_that_costs_are_told_apart() -> None:
    repair, cost = findings(made_up(True), "m", 0.95)
    assert (repair.verdict, cost.verdict) == (Verdict.DETECTED, Verdict.EQUIVALENT)
    assert repair.effect == pytest.approx(1.9, abs=0.2)
    assert repair.details["repair"] == ["head 0.1"]
    assert {repair.status, cost.status} == {"experimental"}, "it has no card, so no gate may rest on it"
    _, dear = findings(made_up(True, cost=0.3), "m", 0.95)
    assert dear.verdict is Verdict.WORSE
    (none,) = findings(made_up(False), "m", 0.95)
    assert (none.verdict, none.effect) == (Verdict.NOT_DETECTED, None)
    again = Result.from_json(made_up(True).to_json())
    assert isinstance(again, InternalsResult)
    assert findings(again, "m", 0.95) == [repair, cost]


def test_a_repair_that_is_tested_on_few_clusters_has_the_wider_interval_and_it_is_said() -> None:
    wide, narrow = made_up(True, held_clusters=4), made_up(True)
    (repair, _), (other, _) = findings(wide, "m", 0.95), findings(narrow, "m", 0.95)
    assert repair.interval is not None
    assert other.interval is not None
    gap = wide.values.failure.values - wide.values.repaired.values
    of = wide.values.held_cluster.values.astype(str)
    centres = np.array([gap[of == name].mean() for name in sorted(set(of))])  # clusters of one size: the plain t of their means
    said = stats.ttest_1samp(centres, 0).confidence_interval(0.95)
    np.testing.assert_allclose([repair.interval.low, repair.interval.high], [said.low, said.high], rtol=1e-9)
    assert repair.interval.method == "Student t of 4 clusters"
    assert repair.verdict is Verdict.DETECTED
    text = section("toy", wide, (repair,)).text[1]
    assert text.startswith("Parts were chosen on 12 of the 16 contexts, the fewest that can decide")
    assert section("toy", narrow, (other,)).text[1].startswith("Parts were chosen on one half of the contexts, and the repair is measured")


def test_the_report_has_a_section_of_it_and_a_plan_names_only_what_can_be_located() -> None:
    found = tuple(findings(made_up(True), "m", 0.95))
    said = section("occupation-pronoun", made_up(True), found)
    assert said.tables[0].rows[0][0] == "head 0.1"
    assert said.tables[0].rows[0][4] == "in the repair"
    assert "head 0.1 carry it; without them" in said.text[0]
    assert read_plan("quickstart").internals == ("occupation-pronoun",)
    with pytest.raises(UnknownName, match="whose failure can be located"):
        read_plan("town", {"internals": ["exposure"]})
    assert "internals" not in Plan(name="p", model="m").model_dump(mode="json")
