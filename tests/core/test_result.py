"""A result survives JSON to the byte, keeps its class, and refuses to be tampered with."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import BadValue, CorruptFile
from workbench.core.result import Provenance, Result


@dataclass(frozen=True)
class Named(Result):
    def summary(self) -> str:
        return "its own words"


def made(values: list[float], **facts: object) -> Named:
    data = xr.Dataset(
        {"score": ("item", np.array(values)), "word": ("item", np.array([f"w{i}" for i in range(len(values))], dtype=object))},
        coords={"item": np.arange(len(values))},
    )
    return Named("named", data, {"steps": 3}, Provenance.here(model="m", seed=1, **facts), notes=("a note",))


@given(st.lists(st.floats(width=64), min_size=1, max_size=8))
def test_round_trip(values: list[float]) -> None:
    result = made(values)
    again = Result.from_json(result.to_json())
    assert type(again) is Named
    assert again.summary() == "its own words"
    assert again.canonical() == result.canonical()
    assert np.array_equal(again.values["score"].values, np.array(values), equal_nan=True)


def test_time_and_host_are_outside_the_digest() -> None:
    assert made([1.0], volatile={"time": "a"}).digest() == made([1.0], volatile={"time": "b"}).digest()
    assert made([1.0]).digest() != made([math.nextafter(1.0, 2.0)]).digest()


def test_a_changed_result_is_refused() -> None:
    whole = json.loads(made([0.25]).to_json())
    whole["canonical"]["values"]["variables"]["score"]["data"][0] = 0.75
    with pytest.raises(CorruptFile, match="changed after it was stored"):
        Result.from_json(json.dumps(whole))


def test_only_our_own_classes_are_opened() -> None:
    from hashlib import sha256

    from workbench.core.spec import canonical_json

    for name, words in (("os:system", "in one of workbench."), ("workbench.core.errors:AssayError", "a Result")):
        whole = json.loads(made([0.25]).to_json())
        whole["canonical"]["class"] = name
        whole["digest"] = sha256(canonical_json(whole["canonical"]).encode()).hexdigest()
        with pytest.raises(BadValue, match=words):
            Result.from_json(json.dumps(whole))


def test_frame_has_axes_first() -> None:
    assert list(made([1.0, 2.0]).to_frame().columns) == ["item", "score", "word"]
