"""What a suite's aggregate reads of its data beyond what each sample was worth, kept so that a result follows from its bundle alone.

A suite says it itself where it has ``told(spec)`` and ``aggregate_told(scores, spec, told)``. For any other the fields of its samples that
its aggregate looks at are found by watching it, and kept as columns in the samples' order. Texts are not copied: a column whose values
differ from sample to sample is kept with the letters of each text in alphabetical order, which has the same bytes in number and cannot be
read. Where that gives another result, the suite needs the words themselves, and they stay with the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals import SUITES
from workbench.core.errors import AssayError
from workbench.core.measure import Sample, Score, Suite
from workbench.core.result import Result
from workbench.core.spec import Spec, digest_of

Told = Mapping[str, Any]
_FEW = 10


def told_name(result: Result) -> str:
    """The name under which it is kept: one for all models that were asked the same of the same data."""
    return f"{result.kind}-{digest_of([result.provenance.data_digest, dict(result.spec)])[:16]}"


def told_of(result: Result, samples: Sequence[Sample], scores: Sequence[Score]) -> dict[str, Any]:
    """What aggregating ``result`` reads of its ``samples``, in the order of ``scores``; nothing where it reads nothing, or words."""
    suite, spec = _suite(result)
    own: Any = suite
    if hasattr(own, "told"):
        given = own.told(spec)
        return {"given": given} if given else {}
    watched = _Watched(suite, samples)
    watched.aggregated(scores, spec)
    if not watched.names:
        return {}
    columns = {name: [sample.facts[name] for sample in samples] for name in sorted(watched.names)}
    kept = json.loads(json.dumps({"columns": {name: _unread(column) for name, column in columns.items()}}))
    try:
        again = aggregated(result, scores, kept)
    except (AssayError, ArithmeticError, LookupError, TypeError, ValueError):
        return {}
    return kept if _values(again) == _values(result) else {}


def aggregated(result: Result, scores: Sequence[Score], told: Told | None = None) -> Result:
    """The suite's result from its scores; with ``told`` no data are read. Raises MissingData or MissingFile where they must be."""
    suite, spec = _suite(result)
    if not told:
        found = suite.aggregate(scores, spec)
    elif "given" in told:
        own: Any = suite
        found = own.aggregate_told(scores, spec, told["given"])
    else:
        columns = told["columns"]
        if wrong := sorted(name for name, column in columns.items() if len(column) != len(scores)):
            raise ValueError(f"column '{wrong[0]}' has {len(columns[wrong[0]])} entries for {len(scores)} samples")
        samples = [
            Sample(s.sample, {name: column[place] for name, column in columns.items()}, cluster=s.cluster, group=s.group)
            for place, s in enumerate(scores)
        ]
        found = _Stand(suite, samples).aggregated(scores, spec)
    return replace(found, kind=result.kind, spec=result.spec)


def _suite(result: Result) -> tuple[Suite, Spec]:
    suite: Suite = SUITES.load(result.kind)
    return suite, suite.spec.parse(result.spec, what=f"stored spec of '{result.kind}'")


def _values(result: Result) -> Any:
    return json.loads(result.canonical())["values"]


class _Stand:
    """A suite in everything but where its samples come from."""

    def __init__(self, suite: Suite, samples: Sequence[Sample]) -> None:
        self._suite, self._samples = suite, samples

    def __getattr__(self, name: str) -> Any:
        return getattr(self._suite, name)

    def samples(self, spec: Any) -> Iterator[Sample]:
        return iter(self._samples)

    def aggregated(self, scores: Sequence[Score], spec: Spec) -> Result:
        way: Any = type(self._suite).aggregate
        return way(self, scores, spec)


class _Watched(_Stand):
    """The same, which notes the fields that are looked at."""

    def __init__(self, suite: Suite, samples: Sequence[Sample]) -> None:
        self.names: set[str] = set()
        super().__init__(suite, [replace(sample, facts=_Facts(sample.facts, self.names)) for sample in samples])


class _Facts(Mapping[str, Any]):
    def __init__(self, facts: Mapping[str, Any], names: set[str]) -> None:
        self._facts, self._names = facts, names

    def __getitem__(self, name: str) -> Any:
        self._names.add(name)
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        self._names.update(self._facts)
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def _unread(column: Sequence[Any]) -> list[Any]:
    """The column as it is where its texts are labels; of texts that differ from sample to sample the letters in order."""
    texts = [text for value in column for text in _texts(value)]
    labels = len(texts) >= _FEW and 2 * len(set(texts)) <= len(texts)
    return list(column) if labels else [_in_order(value) for value in column]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for part in parts for text in _texts(part)]


def _in_order(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(sorted(value))
    if isinstance(value, Mapping):
        return {name: _in_order(part) for name, part in value.items()}
    return [_in_order(part) for part in value] if isinstance(value, list | tuple) else value
