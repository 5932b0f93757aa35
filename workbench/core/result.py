"""Results as values: labelled arrays with their spec and their origin, in a canonical JSON form.

The canonical part (values, spec, digests) has the same bytes whenever the same thing is computed again on one
machine; the volatile part (times, host) stands beside it and outside its hash. A result's type never depends on a flag.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import xarray as xr

from workbench.core.errors import BadValue, CorruptFile
from workbench.core.spec import canonical_json

FORMAT = "assay-result/1"
_TRUSTED = ("workbench.", "probes.", "evals.", "tests.")
_PACKAGES = ("torch", "numpy", "tokenizers", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Provenance:
    """Where a number comes from. ``volatile`` (times, host) is not part of the canonical form."""

    model: str = ""
    model_digest: str = ""
    data: str = ""
    data_digest: str = ""
    seed: int | None = None
    dtype: str = "float32"
    code: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    volatile: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls, **facts: Any) -> Provenance:
        """Provenance of something computed now in this process, with versions filled in."""
        facts.setdefault("code", _version("assay-workbench"))
        facts.setdefault("packages", {name: _version(name) for name in _PACKAGES})
        facts.setdefault(
            "volatile",
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "machine": platform.machine(),
                "python": platform.python_version(),
            },
        )
        return cls(**facts)

    def canonical(self) -> dict[str, Any]:
        return {name: value if not isinstance(value, Mapping) else dict(value) for name, value in vars(self).items() if name != "volatile"}


@cache
def _version(package: str) -> str:  # ten milliseconds of reading files for a result's packages
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


STOPPED_EARLY = "stopped_early"
"""The attribute of ``values`` by which an instrument says that it was stopped."""


@dataclass(frozen=True)
class Result:
    """What an instrument or suite returns.

    ``values`` is an xarray Dataset with named axes; ``artifacts`` maps names to content digests in the store.
    Subclasses override ``summary`` (sentences) and ``plot`` (an Altair chart) and nothing else.
    """

    kind: str
    values: xr.Dataset
    spec: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    aside: ClassVar[tuple[str, ...]] = ()
    """Axes of what is kept for the chart alone (a picture); a table has none of them."""

    @property
    def stopped_early(self) -> bool:
        """Whether Ctrl-C came before all was computed: ``values`` hold what there was, and a note says how much."""
        return bool(self.values.attrs.get(STOPPED_EARLY, False))

    def summary(self) -> str:
        """What was found, in plain sentences."""
        shapes = ", ".join(f"{name} {dict(zip(v.dims, v.shape, strict=True))}" for name, v in self.values.data_vars.items())
        return f"{self.kind}: {shapes}"

    def plot(self) -> Any:
        """The result's own chart (an ``altair`` chart); overridden by every instrument."""
        raise NotImplementedError(f"{type(self).__name__} has no chart of its own")

    def to_frame(self) -> pd.DataFrame:
        """One tidy row a cell: axis columns first, then one column a variable."""
        return self.values.drop_dims(self.aside, errors="ignore").to_dataframe().reset_index()

    def canonical(self) -> str:
        """The canonical part as JSON: byte-identical when the same thing is computed again on one machine."""
        return canonical_json(
            {
                "format": FORMAT,
                "class": f"{type(self).__module__}:{type(self).__qualname__}",
                "kind": self.kind,
                "spec": dict(self.spec),
                "values": encode_dataset(self.values),
                "artifacts": dict(self.artifacts),
                "notes": list(self.notes),
                "provenance": self.provenance.canonical(),
            }
        )

    def digest(self) -> str:
        """sha256 (hex) of the canonical part."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical part, its digest, and the volatile part."""
        whole = {"canonical": json.loads(self.canonical()), "digest": self.digest(), "volatile": dict(self.provenance.volatile)}
        return canonical_json(whole)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The result a ``to_json`` text describes, as its own class. Raises CorruptFile if the digest does not match."""
        whole = json.loads(text)
        part = whole["canonical"]
        if part.get("format") != FORMAT:
            raise CorruptFile("result", f"in format {FORMAT}", f"its format is {part.get('format')!r}")
        found = hashlib.sha256(canonical_json(part).encode()).hexdigest()
        if found != whole["digest"]:
            raise CorruptFile(
                "result",
                f"of digest {whole['digest'][:12]}…",
                f"its content has digest {found[:12]}…",
                do="It was changed after it was stored; compute it again.",
            )
        kind = _class_named(part["class"])
        result = kind(
            kind=part["kind"], values=decode_dataset(part["values"]), spec=part["spec"],
            provenance=Provenance(**part["provenance"], volatile=whole["volatile"]),
            artifacts=part["artifacts"], notes=tuple(part["notes"]),
        )  # fmt: skip
        if not isinstance(result, cls):
            raise BadValue("the stored result's class", part["class"], f"{cls.__name__} or a subclass")
        return result

    def with_notes(self, *notes: str) -> Self:
        """A copy with notes appended."""
        return replace(self, notes=(*self.notes, *notes))


def _class_named(path: str) -> type[Result]:
    module, _, name = path.partition(":")
    if not module.startswith(_TRUSTED):
        raise BadValue("the stored result's class", path, f"in one of {', '.join(_TRUSTED)}")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, Result)):
        raise BadValue("the stored result's class", path, "a Result")
    return found


def _encode_number(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)  # 'nan', 'inf', '-inf': explicit, since JSON has none


def encode_array(array: Any) -> dict[str, Any]:
    """A numpy array as JSON values: dtype, shape and a flat list; non-finite floats as strings."""
    array = np.asarray(array)
    flat: list[Any]
    if array.dtype.kind == "f":
        flat = [_encode_number(float(v)) for v in array.ravel()]
    elif array.dtype.kind in "iub":
        flat = array.ravel().tolist()
    elif array.dtype.kind in "UO":
        flat = [None if v is None else str(v) for v in array.ravel()]
    else:
        raise BadValue("a result's array", str(array.dtype), "of floats, integers, booleans or strings")
    return {"dtype": "str" if array.dtype.kind in "UO" else str(array.dtype), "shape": list(array.shape), "data": flat}


def decode_array(part: Mapping[str, Any]) -> np.ndarray:
    """The inverse of ``encode_array``."""
    if part["dtype"] == "str":
        return np.array(part["data"], dtype=object).reshape(part["shape"])
    data: Sequence[Any] = part["data"]
    if part["dtype"].startswith("float"):
        data = [float(v) for v in data]
    return np.array(data, dtype=part["dtype"]).reshape(part["shape"])


def encode_dataset(values: xr.Dataset) -> dict[str, Any]:
    """An xarray Dataset as JSON values: variables and coordinates with their dimensions, and plain attributes."""
    pack = lambda arrays: {str(name): {"dims": [str(d) for d in a.dims], **encode_array(a.values)} for name, a in arrays.items()}  # noqa: E731
    return {"variables": pack(values.data_vars), "coords": pack(values.coords), "attrs": {str(k): v for k, v in values.attrs.items()}}


def decode_dataset(part: Mapping[str, Any]) -> xr.Dataset:
    """The inverse of ``encode_dataset``."""
    unpack = lambda arrays: {name: (a["dims"], decode_array(a)) for name, a in arrays.items()}  # noqa: E731
    return xr.Dataset(unpack(part["variables"]), coords=unpack(part["coords"]), attrs=part["attrs"])
