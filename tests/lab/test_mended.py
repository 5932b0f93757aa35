"""Mended models are kept: loaded again they are what was asked, an edit is folded into weights where that is exact, and else it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from probes.concept_erasers import leace
from probes.erasure_runs import erasing
from probes.ridge import Moments
from workbench.core.errors import UnknownName, UsageError
from workbench.core.protocol import Add
from workbench.core.tolerance import tolerance
from workbench.families.gpt import GPT, GPTConfig
from workbench.lab.audit_findings import origin_of
from workbench.lab.mitigation.edited import Edited
from workbench.lab.mitigation.kept import as_weights
from workbench.lab.models import known
from workbench.lab.refs import domain_of, folder_of, load, mended_of, organism_of, parse, reference_of, task_of, world_of
from workbench.lab.traced import trained_of
from workbench.store.runs import Store
from workbench.training.checkpoint import write
from workbench.training.lora import LoRASpec, attach

IDS = torch.randint(0, 11, (4, 7), generator=torch.Generator().manual_seed(0))


def decoder(**changed: Any) -> Any:
    """A decoder with weights that say something, all biases among them."""
    shape = {"n_layers": 2, "d_model": 8, "n_heads": 2, "d_vocab": 11, "n_ctx": 16, "init_std": 0.5, **changed}
    made = GPT(GPTConfig.parse(shape), seed=3).eval()
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name.endswith("bias"):
                value += torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name)))
    return made


def steered(model: Any, layer: int) -> Any:
    way = torch.randn(8, generator=torch.Generator().manual_seed(layer))
    edit = Add(f"blocks.{layer}.hook_resid_post", value=way)
    return Edited(model, [edit], {"method": "steering"}, name="m after steering")


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"bias": False, "norm": "rms"},
        {"act": "swiglu", "bias": False},
        {"tied": False, "positions": "learned"},
        {"norm_placement": "none"},
    ],
    ids=["biases", "none", "gated", "untied", "no-norm"],
)
def test_a_steered_model_is_its_weights_and_answers_as_it_did_at_every_site(shape: dict[str, Any], layer: int) -> None:
    made = steered(decoder(**shape), layer)
    kept, why = as_weights(made, IDS)
    assert (why, type(kept), kept.name) == ("", GPT, "m after steering")
    a, b = (one.run(IDS, capture="*resid_post") for one in (made, kept))
    bound = tolerance(torch.float32, "logits").bound
    for one, other in ((a.logits, b.logits), *((a[name], b[name]) for name in a.at)):
        assert float((one - other).abs().max()) <= bound * max(1.0, float(one.abs().max()))
    assert float((b.logits - made.inner.run(IDS).logits).abs().max()) > 0.1, "it is another model than the one that was steered"
    assert kept.digest() != made.inner.digest()
    assert made.inner.digest() == decoder(**shape).digest(), "the model that was steered is left as it was"


def test_in_float64_the_folded_model_is_the_edited_one_to_rounding() -> None:
    made = steered(decoder(bias=False).double(), 1)
    kept, _ = as_weights(made, IDS)
    torch.testing.assert_close(kept.run(IDS).logits, made.run(IDS).logits, rtol=1e-12, atol=1e-12)


def test_what_no_weight_can_hold_is_not_kept_and_it_is_said_why() -> None:
    model = decoder()
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(1)).double()
    sums = Moments()
    sums.add(x, torch.stack([x[:, 0] > 0, x[:, 0] <= 0], 1).double())
    erased = Edited(model, [erasing("blocks.1.hook_resid_post", leace(sums))], {"method": "erasure"}, name="m")
    kept, why = as_weights(erased, IDS)
    assert kept is None
    assert why.startswith("erasure is a projection of the sum that all layers before have written")
    for shape, words in (({"norm_placement": "post"}, "norms after the sum"), ({"act": "none"}, "attention only")):
        kept, why = as_weights(steered(decoder(**shape), 1), IDS)
        assert kept is None
        assert words in why
    adapted = decoder()
    attach(adapted, LoRASpec())
    assert as_weights(steered(adapted, 1), IDS) == (None, "it carries an adapter, whose weights are kept apart")
    assert as_weights(model, IDS) == (model, ""), "what was trained on is its weights"


def test_a_fold_that_answers_otherwise_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deliberately broken case: a direction that lands in the wrong layer."""
    monkeypatch.setattr("workbench.lab.mitigation.kept._folded", lambda model, edit: decoder())
    kept, why = as_weights(steered(decoder(), 1), IDS)
    assert kept is None
    assert why.startswith("folded into its weights it answers otherwise, by ")


@pytest.fixture
def audited(tmp_path: Path) -> Any:
    """A store with an audit whose second mitigation kept its model, of a model that was trained on a town."""
    with Store.open(tmp_path / "home") as store:
        tried = [{"of": "occupation-pronoun", "method": method} for method in ("erasure", "steering")]
        plan = {"name": "p", "model": "organism:town@dose=0.5,seed=7", "mitigations": tried}
        run = store.runs.create("audit", plan, plan["model"])
        write(store.folder(run) / "mended-2", decoder(), train_state={})
        store.runs.finish(run)
        yield store, run


def test_a_kept_model_has_a_reference_and_the_world_of_the_model_that_was_mended(audited: Any) -> None:
    store, run = audited
    ref = f"run:{run}/mended-2"
    assert (parse(ref).scheme, parse(ref).name) == ("run", f"{run}/mended-2")
    model: Any = load(ref, store=store)
    assert (model.digest(), model.name) == (decoder().digest(), ref)
    for other in ("run:last/mended-2", f"run:{run[:10]}/mended-2"):
        assert reference_of(other, store) == ref
        assert folder_of(other, store) == store.folder(run) / "mended-2"
    found = mended_of(ref, store)
    assert found is not None
    assert (found.method, found.audited) == ("steering", "organism:town@dose=0.5,seed=7")
    world: Any = world_of(ref, store)
    assert world == world_of(found.audited, store)
    assert world["dose"] == 0.5
    assert domain_of(ref, store) == domain_of(found.audited, store)
    assert organism_of(ref, store) is None, "it is not what the organism's recipe makes"
    assert task_of(ref, store) is None
    assert mended_of("organism:town", store) is mended_of("run:last", store) is mended_of("memory:ab/mended-1", store) is None
    assert {"ref": ref, "family": "gpt", "words": "organism:town@dose=0.5,seed=7 after steering", "digest": ""} in known(store)
    words = f"mended from organism:town@dose=0.5,seed=7 by steering ({ref})"
    assert origin_of(ref, store, town=True).words == origin_of(ref, store).words == words
    assert origin_of(found.audited, store, town=True).words == ""
    with pytest.raises(UsageError, match="does not say what it was trained on"):
        trained_of(model, ref, store)


def test_a_stored_plan_that_leads_back_to_what_it_made_is_refused_and_never_followed_for_ever(audited: Any) -> None:
    store, first = audited
    plan = {"name": "p", "model": "run:last/mended-2", "mitigations": [{"of": "occupation-pronoun", "method": "steering"}] * 2}
    run = store.runs.create("audit", plan, plan["model"])
    write(store.folder(run) / "mended-2", decoder(), train_state={})
    store.runs.finish(run)
    for asked in (world_of, domain_of, task_of):
        with pytest.raises(UsageError, match=f"the plan of audit {run} names 'run:last/mended-2', which is now what it made itself"):
            asked(f"run:{run}/mended-2", store)
    assert world_of(f"run:{first}/mended-2", store) is not None


def test_a_model_that_was_not_kept_is_refused_with_what_there_is(audited: Any) -> None:
    store, run = audited
    for part in ("mended-1", "mended-02", "../mended-2", "", "report.json"):
        with pytest.raises(UnknownName, match="no mended model") as told:
            load(f"run:{run}/{part}", store=store)
        assert f"run:{run}/mended-2" in str(told.value)
        assert "unless its report says why not" in str(told.value)
    with pytest.raises(UnknownName):
        load("run:nothing-like-it/mended-1", store=store)
    with pytest.raises(UnknownName, match="no mended model 'run:last/mended-9'"):
        load("run:last/mended-9", store=store)
