"""What was found about a model's inner vectors, run by run: what can be read, directions, sparse features; and pushing along one of them.

    a concept's direction    x + dose * s * d    d of length 1, s the distance of the two sides' training means
    a feature's direction    x + dose * a * d    d of length 1, a the feature where it was strongest

at every position, so that dose 1 is a distance that the model itself has covered. Source: as ``probes.steering`` and
``probes.sparse_dictionary``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes import INSTRUMENTS
from probes.dictionaries.files import check_fits, load
from probes.target import device_of, model_dtype
from workbench.core.charts.heat import shown
from workbench.core.errors import BadValue, Incompatible
from workbench.core.protocol import Add, HookedModel, Progress
from workbench.lab import jobs
from workbench.lab.inputs import InputsSpec
from workbench.lab.pokes import FARTHEST, Changed, changed
from workbench.lab.run import probe
from workbench.lab.settings import read_settings
from workbench.lab.started import words_of
from workbench.store.runs import Store

TARGET = "workbench.lab.representations:probe_told"
READ, DIRECTIONS, FEATURES = "read", "directions", "features"
KINDS: Mapping[str, tuple[str, ...]] = {
    READ: ("probing", "description-length", "structural-probe"),
    DIRECTIONS: ("concept-direction", "steering", "erasure", "interchange"),
    FEATURES: ("sparse-dictionary",),
}
"""The instruments whose results belong together."""


@dataclass(frozen=True)
class Found:
    """One stored result: ``run``, ``name`` in it, the ``instrument`` it is of, the model ``ref`` and when the run began."""

    run: str
    name: str
    instrument: str
    ref: str
    created: str


def found(store: Store, kind: str) -> tuple[Found, ...]:
    """The stored results of a kind, newest first: of single looks and of audits alike."""
    tools, out = KINDS[kind], []
    for run in store.runs.list():
        if run.kind not in ("probe", "audit"):
            continue
        for name in store.result_digests(run.id):
            tool = name if name in INSTRUMENTS else name.rpartition(".")[0]
            if tool in tools:
                ref = str(run.spec.get("reference") or run.ref) if name.endswith(".reference") else run.ref
                out.append(Found(run.id, name, tool, ref, run.created))
    return tuple(out)


# --- features -------------------------------------------------------------------------------------------------


def feature_table(result: Any) -> pd.DataFrame:
    """The features shown: number, share of tokens on which each is active, its strongest example, answers raised and lowered."""
    return result.features()


def examples_of(result: Any, feature: int) -> pd.DataFrame:
    """Where one feature is strongest: ``active``, ``text`` (the token between angle brackets) and the item it stands in."""
    v = result.values
    row = _row(result, feature)
    there = v.example_pos.values[row] >= 0
    frame = pd.DataFrame(
        {"active": v.example_active.values[row], "text": v.example.values[row], "item": v.example_item.values[row],
         "position": v.example_pos.values[row]}
    )  # fmt: skip
    return frame.loc[there].reset_index(drop=True)


def _row(result: Any, feature: int) -> int:
    numbers = result.values.shown_feature.values.tolist()
    if feature not in numbers:
        raise BadValue("the feature", feature, f"one of those shown: {', '.join(map(str, numbers))}")
    return numbers.index(feature)


def along_feature(model: HookedModel, text: str, result: Any, feature: int, dose: float, *, write: int = 0) -> Changed:
    """The model pushed along a feature of a dictionary that lies in a folder. Raises Incompatible where it lies in none (it was trained
    for the look and not kept), or fits another model."""
    folder = str(result.spec["dictionary"])
    if not folder:
        reasons = ["its dictionary was trained for this look and not kept"]
        raise Incompatible("a push along a feature", "this result", reasons, do="Name a trained one with `--set dictionary=FOLDER`.")
    dictionary = load(folder).dictionary
    reads, gives = dictionary.origin.site, dictionary.origin.site_out
    check_fits(dictionary, model, reads, gives)
    strongest = float(result.values.example_active.values[_row(result, feature), 0])
    way = dictionary.direction(feature) * strongest
    return _pushed(model, text, gives or reads, way, dose, f"feature {feature}", write)


# --- directions -----------------------------------------------------------------------------------------------


def choices_of(result: Any) -> dict[str, list[str]]:
    """What one direction of a result is named by: ``site``, ``labels`` and ``way``."""
    return {name: [str(one) for one in result.values[name].values] for name in ("site", "labels", "way")}


def along_direction(
    model: HookedModel, text: str, result: Any, dose: float, *, site: str, labels: str, way: str, write: int = 0
) -> Changed:  # fmt: skip
    """The model pushed along a concept's direction. Raises BadValue for a name that is not there, Incompatible for another model."""
    if result.provenance.model_digest != model.digest():
        raise Incompatible("a push along this direction", "this model", ["the direction was found in a model with other weights"])
    apart = float(result.values.separation.sel(site=site, labels=labels))
    vector = result.direction(site, labels, way)
    what = f"'{labels}' ({result.values.concept.sel(labels=labels).values!s}, {way})"
    return _pushed(model, text, site, vector * apart, dose, what, write)


def _pushed(model: HookedModel, text: str, site: str, way: Any, dose: float, what: str, write: int) -> Changed:
    if not np.isfinite(dose) or abs(dose) > FARTHEST:
        raise BadValue("the dose", dose, f"a number of at most {FARTHEST:g} in size")
    table = model.sites()
    if site not in table or table[site].axes[:2] != ("batch", "pos"):
        raise BadValue("the site", site, "one of this model's with a vector a token")
    edit = Add(site, value=(dose * way).to(device_of(model), model_dtype(model)))
    return changed(model, text, [edit], f"Pushed {dose:+g} times along {shown(what)} at {site}", write=write)


# --- asking for one ---------------------------------------------------------------------------------------------


def begin(store: Store, instrument: str, ref: str, settings: str) -> Path:
    """Ask an instrument about a model in a process of its own; the folder of its job, in the store's home. It is asked about the model's
    own world unless ``settings`` (as after ``--set``) name other inputs.

    Raises UsageError before anything is started for settings that cannot be meant.
    """
    changes = words_of(settings)
    _told(instrument, changes)
    folder = store.home / "jobs" / f"probe-{secrets.token_hex(6)}"
    told = {"address": store.address, "instrument": instrument, "ref": ref, "settings": changes}
    jobs.start(TARGET, told, folder, outlive=True)
    return folder


def _told(instrument: str, settings: Sequence[str]) -> tuple[InputsSpec | None, dict[str, Any]]:
    """The inputs that settings name, if they do, and the fields of the instrument."""
    fields = read_settings(settings)
    inputs = fields.pop("inputs", None)
    INSTRUMENTS.load(instrument).spec.parse(fields, what=f"instrument '{instrument}'")
    return (InputsSpec.of(inputs) if inputs is not None else None), fields


def probe_told(progress: Progress, address: str, instrument: str, ref: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What the process does."""
    inputs, fields = _told(instrument, settings)
    with Store.open(address) as store:
        result = probe(instrument, ref, inputs, store=store, progress=progress, **fields)
    return {"run": result.provenance.volatile["run"]}
