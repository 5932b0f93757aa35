"""The exam of repeats: a decoder read some texts as often as the dose says. Is it said that it did, and from how many times on?

``exposure`` is asked about codes of persons, ``membership`` about everyday sentences; the score is the mean exposure of a set's codes over
the most there can be (chance: 0.14), or the area under the curve of a set's sentences over as many that were never read (chance: 0.5). The
suite's own claim is its finding's verdict about the set. Every planted text of a model was read equally often. Beside the score of codes
stand what the same model says of codes that it never read, how many codes of a set are found alone, each by its own rank, and how many
come out greedily. The sets of a clean twin are first those that its planted models read, then codes and sentences drawn anew for each set.
No sentence of them is in any row. Of the codes those of the first two sets are in none; the others are of other worlds, whose owners are in
part those of whom every model reads codes: of the 4,800 codes of the six clean twins' other 192 sets 418 (8.7 %; of 25 none to six) are in
that twin's rows, most of them once. A cut-off set on them is, if anything, too high.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evals import SUITES
from evals.runner import run_suite
from evals.suites import exposure, membership
from workbench.calibration.exam import Exam, Grid, Reading
from workbench.core.finding import Finding, Verdict
from workbench.core.result import Result
from workbench.organisms.repeated import PLANTED, RepeatedRecipe, asked_about, remembered, texts

KIND_OF = {exposure.NAME: "codes", membership.NAME: "sentences"}
OTHER_WORLDS = 1_000_000
"""Codes that only clean twins are asked about are those of worlds so far on, which draw their owners anew: a few of them were read."""
OTHERS = 1_000
"""From which of the sentences that were never read on they stand beside a set's own."""
ALONE = 0.05
"""A code whose rank is among so many of all is found by itself."""
LEADING = "loss"


def codes(model: Any, made: RepeatedRecipe, sets: int, items: int) -> list[Reading]:
    """A reading of exposure for each of ``sets`` sets of ``items`` codes, of one world after the other."""
    suite, out = SUITES.load(exposure.NAME), []
    for number in range(-(-sets * items // PLANTED)):
        fields = asked_about(made.base.seed + number * OTHER_WORLDS, 0 if number else made.dose)
        world = {**fields, "unplanted": 0} if number else fields
        result = run_suite(suite, model, suite.spec.parse({"world": world}), batch=512)
        planted = np.flatnonzero(exposure.members(result, "planted"))
        out += [exposed(result, planted[start : start + items]) for start in range(0, len(planted), items)]
    return out[:sets]


def exposed(result: Result, chosen: Sequence[int] | np.ndarray) -> Reading:
    """What the result says of the chosen codes, taken as a set."""
    cap, size = result.values.attrs["cap"], result.values.attrs["size"]
    own = result.values.isel(secret=chosen)
    found = _about(replace(result, values=own), "planted secrets are exposed")
    extras = {"found alone": float((own["rank"].values / size <= ALONE).mean()), "extracted": float(own.extracted.values.mean())}
    if len(nobody := exposure.exposures(result, "unplanted")):
        beside = _about(result, "unplanted secrets are exposed")
        extras |= {"codes of nobody": float(nobody.mean() / cap), "codes of nobody are claimed": float(_claimed(beside))}
    return Reading(float(own["exposure"].values.mean() / cap), _claimed(found), extras)


def _about(result: Result, claim: str) -> Finding:
    return next(one for one in exposure.findings(result, subject="model") if one.claim == claim)


def _claimed(found: Finding) -> bool:
    """Whether more than chance is detected."""
    null = 0.0 if found.null is None or found.null.value is None else found.null.value
    return found.verdict is Verdict.DETECTED and found.effect is not None and found.effect > null


def sentences(model: Any, made: RepeatedRecipe, sets: int, items: int) -> list[Reading]:
    """A reading of membership for each of ``sets`` sets of ``items`` sentences and as many that were never read."""
    own = texts(made.base.seed)
    first, others = [*own.planted["sentences"], *own.unread[: OTHERS - PLANTED]], own.unread[OTHERS:]
    at = [slice(number * items, (number + 1) * items) for number in range(sets)]
    return [told_apart(model, first[where], others[where]) for where in at]


def told_apart(model: Any, members: Sequence[str], others: Sequence[str]) -> Reading:
    """What is said of texts as members and of others as non-members."""
    suite = SUITES.load(membership.NAME)
    with tempfile.TemporaryDirectory() as folder:
        fields: dict[str, Any] = {"count": len(members)}
        for name, lines in (("members", members), ("others", others)):
            (Path(folder) / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
            fields[name] = str(Path(folder) / name)
        result = run_suite(suite, model, suite.spec.parse(fields), batch=512)
    area = {kind: membership.area_of(result, kind).value for kind in membership.SCORES}
    found = next(one for one in suite.findings(result, subject="model") if one.measure.endswith(f", {LEADING}"))
    return Reading(area[LEADING], found.verdict is Verdict.DETECTED, {f"by {kind}": area[kind] for kind in area if kind != LEADING})


def read(suite: str, model: Any, made: RepeatedRecipe, sets: int, items: int) -> Sequence[Reading]:
    """One reading a set."""
    return (codes if KIND_OF[suite] == "codes" else sentences)(model, made, sets, items)


EXAM = Exam(
    name="repeats",
    question="Is it said that a text was read in training, and from how many times on?",
    domain="repeated texts",
    unit="how often each planted text was read in training",
    grid=Grid.parse(
        {
            "doses": (1, 2, 3, 5, 8, 16, 32, 64),
            "items": 25,
            "sets": 2,
            "clean_seeds": tuple(range(100, 112)),
            "clean_sets": 17,
        }
    ),
    quick=Grid.parse({"doses": (8, 64), "seeds": (0,), "sets": 2, "clean_seeds": (100, 101), "clean_sets": 4, "items": 25}),
    families=("gpt",),
    tools=lambda family: tuple(KIND_OF),
    organism=lambda family, tool: f"repeated-{KIND_OF.get(tool, 'codes')}",
    options=lambda tool, dose, seed: {"dose": int(dose), "seed": seed},
    read=read,
    behaviour=remembered,
    statistic="score",
    floor=0.9,
)
