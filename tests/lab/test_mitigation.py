"""Mitigations in a plan: one that works and one that does not are told apart, everything is asked again, and the report says both."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.reports.accessibility import problems
from workbench.core.errors import BadValue, UnknownName, UsageError
from workbench.core.finding import Mitigation, Plan, Verdict
from workbench.core.protocol import Add, Apply, Edit, Resume
from workbench.core.result import Provenance, Result
from workbench.data.worlds.town import Town, TownSpec
from workbench.families.gpt import GPT
from workbench.lab import audit as auditing
from workbench.lab.audit import audit
from workbench.lab.audit_subject import ask_all
from workbench.lab.evidence import write_bundle
from workbench.lab.jobs import Status
from workbench.lab.mitigation.edited import Edited
from workbench.lab.mitigation.methods import mitigated, swapped
from workbench.lab.mitigation.outcome import KIND, MitigationResult, findings
from workbench.lab.plan import read_plan
from workbench.lab.refs import load
from workbench.lab.run import train
from workbench.lab.verifying import verify
from workbench.store.runs import Store


@cache
def tiny() -> Any:
    return GPT.tiny(seed=0)[0].eval()


def edited(edit: Edit, said: Any) -> Any:
    return Edited(tiny(), [edit], said, name="m")


def test_an_edited_model_is_the_model_with_the_edit_in_every_run() -> None:
    ids = torch.randint(0, tiny().config.d_vocab, (2, 6), generator=torch.Generator().manual_seed(0))
    way = torch.randn(tiny().config.d_model, generator=torch.Generator().manual_seed(1))
    edit = Add("blocks.0.hook_resid_post", value=way)
    made = edited(edit, {"way": 1})
    assert torch.equal(made.run(ids).logits, tiny().run(ids, edit=[edit]).logits)
    more = Apply("blocks.1.hook_resid_post", fn=lambda old, _: old * 0.5)
    assert torch.equal(made.run(ids, edit=[more]).logits, tiny().run(ids, edit=[edit, more]).logits)
    assert not torch.equal(made.run(ids).logits, tiny().run(ids).logits)
    first = made.run(ids[:, :4], cache=True)
    rest = made.run(ids[:, 4:], resume=Resume(past=first.past))
    torch.testing.assert_close(rest.logits, made.run(ids).logits[:, 4:], rtol=0, atol=2e-6)
    assert made.digest() != tiny().digest() != edited(edit, {"way": 2}).digest() != made.digest()
    assert "grad" not in made.abilities


def test_a_text_is_swapped_once_and_twice_is_as_it_was() -> None:
    town = Town(TownSpec.parse({"documents": 300, "held_out": 50, "secrets": [1], "unplanted": 2}))
    for document in town.documents(0, 200):
        other = swapped(document.text)
        assert swapped(other) == document.text
        if document.kind == "pronoun":
            assert other != document.text
    assert swapped("the nurse says that she left her hat , she did") == "the nurse says that he left his hat , he did"
    assert swapped("the other shelf") == "the other shelf", "only whole words"


# --- what is said of it -----------------------------------------------------------------------------------------


def made_up(taken: float, cost: float = 0.0, method: str = "erasure") -> MitigationResult:
    """A result with numbers of our own: ``taken`` of a failure of 2 is gone, at ``cost`` nats a token."""
    rng = np.random.default_rng(0)
    before, nats = rng.normal(2.0, 0.3, 48), rng.normal(1.4, 0.1, 40)
    values = xr.Dataset(
        {
            "failure": ("item", before), "mended": ("item", before - 2 * taken + rng.normal(0, 0.1, 48)),
            "cluster": ("item", np.array([str(n // 4) for n in range(48)], dtype=object)), "nats": ("text", nats),
            "mended_nats": ("text", nats + cost + rng.normal(0, 0.01, 40)),
        },
        attrs={"of": "occupation-pronoun", "unit": "log-odds", "method": method, "before": "0" * 64},
    )  # fmt: skip
    return MitigationResult(KIND, values, {}, Provenance())


def test_one_that_works_and_one_that_does_not_are_told_apart() -> None:
    works, free = findings(made_up(0.95), "m", 0.95)
    assert (works.verdict, free.verdict) == (Verdict.BETTER, Verdict.EQUIVALENT)
    assert works.details["works"] is True
    assert "takes the failure away" in made_up(0.95).summary()
    idle, dear = findings(made_up(0.0, cost=0.4), "m", 0.95)
    assert (idle.verdict, dear.verdict) == (Verdict.NOT_DETECTED, Verdict.WORSE)
    assert idle.details["works"] is False
    assert "does not take the failure away" in made_up(0.0).summary()
    half, _ = findings(made_up(0.4), "m", 0.95)
    assert half.verdict is Verdict.BETTER
    assert "only 40% of the failure is gone, and 80% would be called mended" in half.because
    back, _ = findings(made_up(-0.5), "m", 0.95)
    assert back.verdict is Verdict.WORSE
    assert {works.status, free.status} == {"experimental"}
    again = Result.from_json(made_up(0.95).to_json())
    assert isinstance(again, MitigationResult)
    assert findings(again, "m", 0.95) == [works, free]


def test_a_plan_names_only_what_can_be_tried() -> None:
    plan = read_plan("mitigation")
    assert [one.method for one in plan.mitigations] == ["erasure", "counterfactual-augmentation", "steering"]
    with pytest.raises(UnknownName, match="whose failure a mitigation can be tried on"):
        read_plan("mitigation", {"mitigations": [{"of": "trigger", "method": "erasure"}]})
    with pytest.raises(UnknownName, match="no field 'strenght' in settings of mitigation 'steering'"):
        read_plan("mitigation", {"mitigations": [{"of": "occupation-pronoun", "method": "steering", "settings": {"strenght": 2}}]})
    with pytest.raises(UsageError, match="erasure"):
        read_plan("mitigation", {"mitigations": [{"of": "occupation-pronoun", "method": "prayer"}]})
    assert "mitigations" not in Plan(name="p", model="m").model_dump(mode="json")


def test_what_cannot_be_mended_is_refused() -> None:
    wanted = Mitigation(of="occupation-pronoun", method="erasure", settings={"layer": 7})
    with pytest.raises(BadValue, match="not a generated world"):
        mitigated(tiny(), None, wanted)
    with pytest.raises(BadValue, match=r"layer is 7, but it must be from -\d+ to \d+"):
        mitigated(tiny(), Town(), wanted)


# --- on a decoder that learned the bias ---------------------------------------------------------------------------

BIASED: dict[str, Any] = {
    "world": {"documents": 9000, "held_out": 400, "secrets": [1], "unplanted": 2, "pronoun_share": 0.8, "request_share": 0.1, "dose": 1.0},
    "model": {"n_layers": 2, "d_model": 64, "n_heads": 4, "vocabulary": 420, "init_std": 0.12},
    "train": {"steps": 900, "batch_rows": 8, "lr": 3e-3, "min_lr": 3e-4, "warmup": 30, "threads": 1},
}


@pytest.mark.full
def test_an_audit_tries_them_and_says_which_one_helped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way on a small trained decoder: its own lean is nearly gone after erasure and as it was after steering."""
    monkeypatch.setenv("WORKBENCH_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr(auditing.jobs, "start", lambda target, values, *a, **k: values)
    monkeypatch.setattr(
        auditing.jobs, "wait",
        lambda started, **_: [Status("done", value=ask_all(v["plan"], v["run"], v["part"], v["home"])) for v in started],
    )  # fmt: skip
    with Store.open(tmp_path / "home") as store:
        model = f"run:{train('town-target', settings=BIASED, store=store).run}"
        settings = {"model": model, "suites": ["occupation-pronoun", "perplexity"], "internals": [],
                    "settings": {"occupation-pronoun": {"contexts": 6}, "perplexity": {"documents": 40}},
                    "mitigations": [{"of": "occupation-pronoun", "method": method} for method in ("erasure", "steering")]}  # fmt: skip
        done = audit("mitigation", settings=settings, store=store, date="2026-01-02")
        erased, steered = (store.result(done.run, f"mitigation-occupation-pronoun.mended-{n}").result for n in (1, 2))
        write_bundle(done.run, tmp_path / "x.zip", store=store)
        loaded: Any = load(f"run:{done.run}/mended-2", store=store)
        assert loaded.digest() == steered.provenance.model_digest, "what was asked is what is loaded"
        with pytest.raises(UnknownName, match=f"no mended model 'run:{done.run}/mended-1'"):
            load(f"run:{done.run}/mended-1", store=store)
        again = verify(tmp_path / "x.zip", model=f"run:{done.run}/mended-2", count=4, seed=0, store=store)
        assert "8 samples of the mended-2 model, asked again, are worth the same" in again.checks[-1].words
    assert isinstance(erased, MitigationResult)
    assert isinstance(steered, MitigationResult)
    assert float(erased.values.failure.mean()) > 0.5, "the decoder learned the bias"
    assert erased.works
    assert not steered.works
    said = {one.anchor: one for one in done.report.sections}
    assert said["mitigation-1"].lead.endswith("it works.")
    assert said["mitigation-2"].lead.endswith("it does not work.")
    assert any("`run:AUDIT/mended-2`" in text and steered.provenance.model_digest in text for text in said["mitigation-2"].text)
    assert any(text.startswith("The mended model is not kept: erasure is a projection") for text in said["mitigation-1"].text)
    assert {row[0] for row in said["mitigation-1"].tables[0].rows} == {"occupation-pronoun", "perplexity"}
    assert {one.asked for one in done.report.coverage if one.model == "mended-1"} == {"occupation-pronoun", "perplexity"}
    assert problems(done.html.read_text(encoding="utf-8")) == []
    found = verify(tmp_path / "x.zip")
    assert [(one.name, one.faults) for one in found.checks if one.state == "broken"] == []
