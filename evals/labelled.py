"""Suites whose samples have answers to choose from, of which some are right: what each answer's probability was.

One function a suite, from a sample and the responses to its requests to (nats of each answer, places of the right ones), or None where
the sample is no question. Probabilities are of the answers among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.metrics import mean_logprob, total
from workbench.core.errors import BadValue, UnknownName
from workbench.core.measure import Sample

Chosen = tuple[list[float], list[int]] | None
Reader = Callable[[Sample, Any, Any], Chosen]


def _own_task(sample: Sample, response: Any, spec: Any) -> Chosen:
    f = sample.facts
    if f["task"]["output_type"] != "multiple_choice":
        raise BadValue("the task's output_type", f["task"]["output_type"], "multiple_choice")
    return None if f["unscored"] else ([total(one) for one in response], [int(place) for place in f["right"]])


def _letters(sample: Sample, response: Any, spec: Any) -> Chosen:
    return [total(one) for one in response], [int(sample.facts["answer"])]


def _bbq(sample: Sample, response: Any, spec: Any) -> Chosen:
    """By the first form asked: answers as texts by their mean log p, or as letters."""
    of = mean_logprob if spec.forms[0] == "text" else total
    return [of(one) for one in response[0]], [int(sample.facts["label"])]


def _pair(sample: Sample, response: Any, spec: Any) -> Chosen:
    f = sample.facts
    return None if f["good"] == f["bad"] else ([total(one) for one in response], [0])


def _decision(sample: Sample, response: Any, spec: Any) -> Chosen:
    return [total(one) for one in response[0]], [0 if sample.facts["label"] == spec.positive else 1]


LABELLED: Mapping[str, Reader] = {
    "own-task": _own_task,
    "hazardous-knowledge": _letters,
    "bbq": _bbq,
    "blimp": _pair,
    "group-fairness": _decision,
}


def reader_of(name: str) -> Reader:
    """Raises UnknownName for a suite without answers to choose from."""
    if name not in LABELLED:
        raise UnknownName("suite of labelled questions", name, LABELLED)
    return LABELLED[name]


def probabilities(nats: Sequence[float]) -> NDArray[np.float64]:
    """Of the answers among themselves."""
    x = np.asarray(nats, dtype=np.float64)
    found = np.exp(x - x.max())
    return found / found.sum()
