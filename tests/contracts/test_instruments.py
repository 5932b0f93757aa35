"""What every instrument of the catalogue must do, generated from the catalogue; and broken instruments it must catch."""

import contextlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr

from probes import INSTRUMENTS
from tests.probes.standin import Letters
from workbench.core.batch import IGNORE
from workbench.core.charts.svg import to_svg
from workbench.core.errors import AssayError, BadValue, Incompatible
from workbench.core.measure import Instrument, Needs
from workbench.core.protocol import Inputs, silent
from workbench.core.result import Result
from workbench.core.sites import SiteTable
from workbench.core.spec import Spec
from workbench.families.gpt import GPT, GPTConfig

DOCS = Path(__file__).parents[2] / "docs" / "instruments"
TOKENIZER = Letters()
SMALL: dict[str, Any] = {"n_layers": 2, "d_model": 16, "n_heads": 4, "d_vocab": TOKENIZER.vocab_size, "n_ctx": 24}
CONFIGS = {
    "rope swiglu grouped": GPTConfig(**SMALL, n_kv_heads=2, norm="rms", act="swiglu"),
    "learned gelu": GPTConfig(**SMALL, positions="learned", act="gelu", tied=False),
    "attention only": GPTConfig(**SMALL, norm_placement="none", act="none", bias=False),
    "post-norm": GPTConfig(**SMALL, norm_placement="post", act="relu"),
}
SPECS: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"steps": 2, "max_steps": 8},
    "probing": {"draws": 2, "resamples": 400},
    "concept-direction": {"draws": 1, "resamples": 400},
    "steering": {"doses": [1.0], "randoms": 2, "resamples": 400},
    "erasure": {"randoms": 2, "resamples": 400, "seed": 2},
    "similarity": {"draws": 1, "blocks": 6},
    "description-length": {"resamples": 400},
    "structural-probe": {"resamples": 400, "epochs": 2, "rank": 4},
    "sequence-probe": {"resamples": 400, "epochs": 2, "draws": 1, "least": 2},
    "contrast-direction": {"resamples": 400, "steps": 2, "randoms": 19},
    "interchange": {"steps": 2, "randoms": 1, "resamples": 400},
    "head-scores": {"sequences": 3, "period": 4},
    "activation-patching": {"replacement": "zero"},  # the inputs of a contract have no corrupt twin
    "edge-attribution-patching": {"replacement": "zero", "confirm": 3},
    "path-patching": {"replacement": "zero"},
    "circuit-discovery": {"replacement": "zero", "steps": 2, "nulls": 1, "resamples": 2},
    "attribution-patching": {"replacement": "zero"},
    "tuned-lens": {"steps": 2, "resamples": 400},
    "sparse-dictionary": {"steps": 3, "rows": 32, "resamples": 400},
    "composition-scores": {"draws": 20},
    "explanation-quality": {"method": "saliency", "draws": 2, "points": 3, "subsets": 4, "nudges": 1},
    "shapley": {"samples": 4},
    "generation-attribution": {"most": 3},
    "gradient-shap": {"samples": 2},
    "smooth-grad": {"samples": 2},
}
WEIGHTS_ALONE = {"composition-scores"}
"""Instruments that are given nothing: any input is an error."""
ADDED_UP = ("direct-logit-attribution", "composition-scores", "edge-attribution-patching", "circuit-discovery", "path-patching")
REFUSED = {(name, "post-norm") for name in ADDED_UP}
"""What an instrument and a kind of model say they cannot do together."""
Make = Callable[[], Inputs]


def model_of(name: str = "rope swiglu grouped") -> GPT:
    return GPT(CONFIGS[name], TOKENIZER)


def inputs_for(instrument: Instrument, **changes: Any) -> Inputs:
    """Ragged token ids and whatever else the instrument says it needs."""
    if instrument.name in WEIGHTS_ALONE:
        return replace(Inputs(None), **changes)
    rng = np.random.default_rng(0)
    lengths = torch.from_numpy(rng.integers(4, 9, 14))
    ids = torch.from_numpy(rng.integers(0, 20, (14, 8)))
    ids[torch.arange(8) >= lengths[:, None]] = TOKENIZER.pad_id
    given: dict[str, Any] = {"batch": ids, "lengths": lengths}
    if "targets" in instrument.needs.inputs:
        given["targets"] = torch.from_numpy(rng.integers(0, 20, 14))
    if "labels" in instrument.needs.inputs:
        given["labels"] = torch.where(ids == TOKENIZER.pad_id, IGNORE, ids % 2)
    if instrument.needs.whole:
        given["labels"] = torch.arange(14) % 2
    if "reference" in instrument.needs.inputs:  # each item's source is another item
        given["reference"] = Inputs(ids.roll(1, 0), lengths.roll(1))
    if instrument.name == "contrast-direction":  # pairs that share no sentence but with one other
        given["reference"] = Inputs(ids.flip(0), lengths.flip(0))
    if instrument.name == "structural-probe":  # its labels are trees: each word depends on the one before it
        given["labels"] = torch.where(ids == TOKENIZER.pad_id, IGNORE, (torch.arange(8) - 1).clamp_min(0).expand_as(ids))
    return Inputs(**{**given, **changes})


def spec_for(instrument: Instrument, **changes: Any) -> Spec:
    return instrument.spec.parse({**SPECS.get(instrument.name, {}), **changes})


# --- the checks -----------------------------------------------------------------------------------------------


class PlantedCrash(Exception):
    pass


class Seen:
    """A model seen through glass: everything is passed on, but a test may take abilities away or make a run fail."""

    def __init__(self, model: Any, *, fail_at: int | None = None, **instead: Any) -> None:
        self._model, self._fail_at, self._instead, self.calls = model, fail_at, instead, 0

    def __getattr__(self, name: str) -> Any:
        return self._instead[name] if name in self._instead else getattr(self._model, name)

    def sites(self) -> SiteTable:
        return self._instead.get("table", self._model.sites())

    def run(self, *given: Any, **named: Any) -> Any:
        self.calls += 1
        trace = self._model.run(*given, **named)
        if self.calls == self._fail_at:
            raise PlantedCrash
        return trace


def state_of(model: GPT) -> tuple[Any, ...]:
    """All that a run could leave behind: numbers, gradients, modes, hooks and the random states.

    Python's own random state is left out: the shape checker draws from it.
    """
    ids = torch.arange(8).reshape(1, 8)
    return (
        model.run(ids).logits.numpy().tobytes(),  # type: ignore[union-attr]  # logits were asked for
        [(name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()],
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),  # the old global state is what must not move
        torch.is_grad_enabled(),
    )


def check_survives_json(instrument: Instrument, model: GPT) -> None:
    result = instrument(model, inputs_for(instrument), spec_for(instrument))
    again = Result.from_json(result.to_json())
    assert type(again) is type(result)
    assert again.digest() == result.digest()
    assert again.to_json() == result.to_json()
    assert again.provenance.model_digest == model.digest()
    assert again.spec == spec_for(instrument).model_dump(mode="json")


def check_frame(instrument: Instrument, model: GPT) -> None:
    result = instrument(model, inputs_for(instrument), spec_for(instrument))
    frame = result.to_frame()
    assert set(frame.columns) == set(type(result).columns)  # type: ignore[attr-defined]  # every instrument's result declares them
    assert len(frame) == np.prod([size for axis, size in result.values.sizes.items() if axis not in type(result).aside])
    assert any(np.isfinite(v.values).any() for v in result.values.data_vars.values() if v.dtype.kind == "f")
    assert result.summary().strip()


def check_plot(instrument: Instrument, model: GPT) -> None:
    chart = instrument(model, inputs_for(instrument), spec_for(instrument)).plot()
    assert chart.to_dict()["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    pytest.importorskip("vl_convert")
    assert to_svg(chart).startswith("<svg")


def check_nothing_left(instrument: Instrument, model: GPT) -> None:
    before = state_of(model)
    instrument(model, inputs_for(instrument), spec_for(instrument))
    assert state_of(model) == before
    for call in (1, 2, 3):  # and when the model fails under it
        seen = Seen(model, fail_at=call)
        with contextlib.suppress(PlantedCrash):
            instrument(seen, inputs_for(instrument), spec_for(instrument))  # type: ignore[arg-type]  # passes everything on
        assert state_of(model) == before
        assert seen.calls <= call, "the crash did not end the run"


def check_same_bytes(instrument: Instrument, model: GPT) -> None:
    first, second = (instrument(model, inputs_for(instrument), spec_for(instrument)).canonical() for _ in range(2))
    assert first == second


def check_refuses_unfit(instrument: Instrument, model: GPT) -> None:
    unfit = Seen(model, abilities=frozenset({"generate"}), table=SiteTable([], where="an endpoint"))
    assert instrument.explain_incompatibility(unfit)  # type: ignore[arg-type]  # passes everything on
    with pytest.raises(Incompatible, match=instrument.name):
        instrument(unfit, inputs_for(instrument), spec_for(instrument))  # type: ignore[arg-type]  # passes everything on
    assert unfit.calls == 0


def broken_weights(model: GPT, instrument: Instrument) -> GPT:
    """A NaN in the embedding; for an instrument that reads the heads' weights alone, in one of them."""
    broken = GPT(model.config, TOKENIZER)
    with torch.no_grad():
        if instrument.name in WEIGHTS_ALONE:
            broken.weight("blocks.1.attn.W_O")[0, 0, 0] = float("nan")  # a view
        else:
            broken.embed.token.weight.fill_(float("nan"))
    return broken


def bad_inputs(instrument: Instrument) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(spec changes, input changes) none of which may give a number."""
    ids = torch.arange(14 * 8).reshape(14, 8) % 20 if instrument.name in WEIGHTS_ALONE else inputs_for(instrument).batch
    alone: dict[str, Any] = {"lengths": None}
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"batch": ids[:0], **alone}),
        ({}, {"batch": ids[:, :0], **alone}),
        ({}, {"batch": torch.full((14, 8), 99), **alone}),
        ({}, {"batch": torch.full((14, 8), -1), **alone}),
        ({}, {"batch": ids.float()}),
        ({}, {"batch": ids.repeat(1, 4), **alone}),
        ({}, {"lengths": torch.full((14,), 9)}),
        ({}, {"lengths": torch.zeros(14).long()}),
        ({}, {"batch": ids, **alone}),  # padding ids without lengths
        ({}, {"batch": 7, **alone}),
    ]
    if "targets" in instrument.needs.inputs:
        cases += [
            ({}, {"targets": torch.full((14,), TOKENIZER.vocab_size)}),
            ({}, {"targets": torch.full((14,), -1)}),
            ({}, {"targets": torch.zeros(13).long()}),
            ({}, {"targets": None}),
            ({"quantity": "logit-difference"}, {}),
        ]
    if "labels" in instrument.needs.inputs:
        cases += [({}, {"labels": None}), ({}, {"labels": torch.full((14, 8), float("nan"))}), ({}, {"labels": torch.zeros(14, 8).long()})]
    fields = instrument.spec.model_fields
    if "position" in fields:
        labels = {"labels": torch.arange(14) % 2} if "labels" in instrument.needs.inputs else {}
        cases += [({"position": 7}, labels), ({"position": -9}, labels)]
    if "layers" in fields:
        cases += [({"layers": [2]}, {}), ({"layers": [-1]}, {}), ({"heads": [4]}, {}), ({"layers": []}, {})]
    if "sites" in fields:
        cases += [({"sites": ["blocks.2.hook_resid_post"]}, {}), ({"sites": ["hook_nothing"]}, {})]
    if "baseline" in fields:
        embeddings = torch.full((14, 8, 16), float("nan"))
        cases += [
            ({"baseline": "template-mean"}, {"reference": embeddings}),
            ({"baseline": "token"}, {"reference": ids.float() * float("nan")}),
        ]
    return cases


def check_bad_inputs(instrument: Instrument, model: GPT) -> None:
    for spec, changes in bad_inputs(instrument):
        with pytest.raises(AssayError) as caught:
            instrument(model, inputs_for(instrument, **changes), spec_for(instrument, **spec))
        assert len(str(caught.value)) > 20, f"{spec} {list(changes)}"
    with pytest.raises(BadValue):
        instrument(broken_weights(model, instrument), inputs_for(instrument), spec_for(instrument))


def check_control_spelling(instrument: Instrument, model: GPT) -> None:
    """Text that spells a control token is read letter by letter; the BOS the spec puts first is the only control token."""
    texts = ["<|bos|> a<|eos|>", "abc<|pad|>", *[f"ab {c}" for c in "cdefghijklmn"]]
    changes: dict[str, Any] = {"batch": texts, "lengths": None}
    if instrument.name in WEIGHTS_ALONE:
        with pytest.raises(BadValue, match="left out"):
            instrument(model, inputs_for(instrument, **changes), spec_for(instrument))
        return
    if "labels" in instrument.needs.inputs:
        changes["labels"] = torch.arange(14) % 2
    if instrument.name == "structural-probe":
        tree = torch.full((14, max(map(len, texts)) + 1), IGNORE)
        tree[:, 1:4] = torch.tensor([1, 1, 2])
        changes["labels"] = tree
    result = instrument(model, inputs_for(instrument, **changes), spec_for(instrument))
    width = max(len(t) for t in texts) + 1
    written = getattr(spec_for(instrument), "most", 1) - 1  # what a model writes itself stands behind, but for the last
    for name in ("token", "query_token"):
        if name in result.values.coords:
            pieces = result.values[name].values
            assert pieces.shape == (14, width + written)
            assert "".join(pieces[0][:width]) == "<|bos|>" + texts[0]
            assert pieces[0][:3].tolist() == ["<|bos|>", "<", "|"]


CHECKS = [
    check_survives_json, check_frame, check_plot, check_nothing_left, check_same_bytes, check_refuses_unfit, check_bad_inputs,
    check_control_spelling,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_instrument_keeps_the_contract(name: str, check: Callable[[Instrument, GPT], None]) -> None:
    instrument = INSTRUMENTS.load(name)
    assert instrument.name == name
    check(instrument, model_of())


@pytest.mark.parametrize("config", [c for c in CONFIGS if c != "rope swiglu grouped"])
@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_instrument_runs_on_every_kind_of_model(name: str, config: str) -> None:
    instrument, model = INSTRUMENTS.load(name), model_of(config)
    if (name, config) in REFUSED:
        with pytest.raises(Incompatible, match="not additive"):
            instrument(model, inputs_for(instrument), spec_for(instrument))
        return
    assert not instrument.explain_incompatibility(model)
    for check in (check_frame, check_nothing_left, check_same_bytes):
        check(instrument, model)


# --- broken instruments that must be caught ---------------------------------------------------------------------


class EmptySpec(Spec):
    pass


@dataclass(frozen=True)
class Plain(Result):
    columns: ClassVar[tuple[str, ...]] = ("batch", "value")

    def plot(self) -> Any:
        import altair as alt

        return alt.Chart(self.to_frame(), title="values").mark_point().encode(x="batch:Q", y="value:Q")


@dataclass(frozen=True)
class Misnamed(Plain):
    columns: ClassVar[tuple[str, ...]] = ("batch", "score")


@dataclass(frozen=True)
class Chartless(Plain):
    def plot(self) -> Any:
        return {"mark": "point"}


def measured(values: Sequence[float], kind: type[Plain] = Plain) -> Plain:
    return kind("broken", xr.Dataset({"value": ("batch", np.asarray(values, dtype=float))}, coords={"batch": np.arange(len(values))}))


def honest(model: Any, inputs: Inputs, spec: Any, progress: Any) -> Plain:
    return measured(model.run(inputs.batch, logits="last").logits[:, 0, 0].double().tolist())


def touches_weights(model: Any, inputs: Inputs, spec: Any, progress: Any) -> Plain:
    with torch.no_grad():
        model.embed.token.weight.mul_(1.0001)
    return honest(model, inputs, spec, progress)


def leaves_a_hook(model: Any, inputs: Inputs, spec: Any, progress: Any) -> Plain:
    model.register_forward_hook(lambda *_: None)
    return honest(model, inputs, spec, progress)


def draws_from_the_global_state(model: Any, inputs: Inputs, spec: Any, progress: Any) -> Plain:
    return measured(torch.rand(3).tolist())


def cannot_be_encoded(model: Any, inputs: Inputs, spec: Any, progress: Any) -> Plain:
    return replace(honest(model, inputs, spec, progress), values=xr.Dataset({"value": ("batch", np.array([1j, 2j]))}))


BROKEN = [
    (touches_weights, check_nothing_left),
    (leaves_a_hook, check_nothing_left),
    (draws_from_the_global_state, check_nothing_left),
    (draws_from_the_global_state, check_same_bytes),
    (cannot_be_encoded, check_survives_json),
    (lambda *_: measured([1.0], Misnamed), check_frame),
    (lambda *_: measured([float("nan")]), check_frame),
    (lambda *_: measured([1.0], Chartless), check_plot),
    (lambda *_: measured([0.5]), check_bad_inputs),
    (honest, check_refuses_unfit),
]


@pytest.mark.parametrize(("compute", "check"), BROKEN, ids=lambda f: f.__name__)
def test_a_broken_instrument_is_caught(compute: Callable[..., Plain], check: Callable[[Instrument, GPT], None]) -> None:
    broken = Instrument("broken", "?", EmptySpec, Needs(), compute)
    with pytest.raises((AssertionError, AssayError, AttributeError, pytest.fail.Exception)):
        check(broken, model_of())


def test_the_checks_pass_an_honest_instrument() -> None:
    """So that what catches the broken ones is not something every instrument would trip over."""
    sound = Instrument("broken", "?", EmptySpec, Needs(abilities=frozenset({"logits"})), honest)
    for check in (check_frame, check_plot, check_nothing_left, check_same_bytes, check_refuses_unfit):
        check(sound, model_of())


# --- catalogue and pages ------------------------------------------------------------------------------------------


def test_every_instrument_has_its_page_and_every_page_its_instrument() -> None:
    assert {p.stem for p in DOCS.glob("*.md")} == set(INSTRUMENTS)
    for name, entry in INSTRUMENTS.items():
        page = (DOCS / f"{name}.md").read_text()
        assert page.startswith(f"# {name}\n")
        headings = re.findall(r"^## (.+)$", page, flags=re.MULTILINE)
        assert headings == ["Question", "Definition", "Inputs", "Result", "Cost", "When it misleads", "Calibration", "Source"], name
        assert f"Status: {entry.status}." in page
        for field in entry.load().spec.model_fields:
            assert f"`{field}`" in page, f"{name}: the page does not name the field '{field}'"


def test_the_glossary_names_the_words_of_the_product() -> None:
    glossary = (DOCS.parent / "glossary.md").read_text()
    words = (
        "instrument",
        "suite",
        "organism",
        "twin",
        "dose",
        "card",
        "evidence bundle",
        "site",
        "layer",
        "pos",
        "control task",
        "selectivity",
    )
    for word in words:
        assert f"**{word}**" in glossary, word


def test_reading_the_catalogue_imports_no_instrument() -> None:
    import subprocess
    import sys

    code = "import sys, probes; list(probes.INSTRUMENTS); assert not {'torch', 'numpy', 'altair', 'probes.probing'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=DOCS.parents[1])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_progress_is_called_and_ends_at_the_total(name: str) -> None:
    instrument, heard = INSTRUMENTS.load(name), []
    instrument(model_of(), inputs_for(instrument), spec_for(instrument), progress=lambda done, total, words="": heard.append((done, total)))
    assert heard
    assert all(0 <= done <= total for done, total in heard)
    assert importlib.util.find_spec(INSTRUMENTS[name].target.split(":")[0])
    assert silent(1, 1) is None
