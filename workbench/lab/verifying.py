"""``workbench verify``: a bundle examined, its report derived again, and, with a model at hand, some of its samples asked again."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import SUITES
from evals.runner import Answer, answers
from workbench.core.errors import BadValue, CorruptFile, MissingData, MissingFile
from workbench.core.measure import Suite
from workbench.core.protocol import HookedModel, Progress, silent
from workbench.core.result import Result
from workbench.core.spec import digest_of
from workbench.lab.rederive import rederive
from workbench.lab.refs import load
from workbench.reports.evidence import keys
from workbench.reports.evidence.container import MOST_BYTES, Fault
from workbench.reports.evidence.samples import Row
from workbench.reports.evidence.verify import Check, Content, Verification, check, check_signature, examine
from workbench.store.runs import Store

CLOSE = 1e-4
"""Answers asked again in other company differ in their last bits (float32): numbers are the same within this, absolutely or relatively."""
COUNT = 20


def verify(
    place: str | Path, *, key: str = "", model: str = "", count: int = COUNT, seed: int | None = None, store: Store | None = None,
    progress: Progress = silent,
) -> Verification:  # fmt: skip
    """Check the bundle at ``place``. ``key`` is the file of the public key it must be signed by; without it the user's list of trusted
    keys decides. With ``model``, ``count`` samples of each suite, drawn by ``seed`` (default: by chance), are asked again.

    Raises MissingFile, and CorruptFile for a key that is none; everything that is wrong with the bundle itself is a broken check.
    """
    path = Path(place)
    if path.is_dir():
        raise CorruptFile(path, "an evidence bundle, which is one file", "it is a folder")
    if not path.is_file():
        raise MissingFile(path, "evidence bundle")
    if count < 1:
        raise BadValue("the number of samples to ask again", count, "at least 1")
    given = keys.read_public(key) if key else None
    if path.stat().st_size > 2 * MOST_BYTES:
        return Verification((check("container", [Fault(str(path), "it is larger than any bundle")], ""),))
    content, checks = examine(path.read_bytes())
    if content is None:
        return Verification(tuple(checks))
    signed, signer = check_signature(content.entries, given, keys.trusted(keys.folder()))
    checks.append(signed)
    progress(1, 2, "deriving the report again")
    checks += rederive(content)
    remarks: tuple[str, ...] = ()
    if model:
        seed = secrets.randbits(32) if seed is None else seed
        checks.append(_asked_again(content, load(model, store=store, progress=progress), count, seed, progress))
        remarks = (f"the samples asked again were drawn with --seed {seed}",)
    return Verification(tuple(checks), signer, remarks)


def _asked_again(content: Content, model: HookedModel, count: int, seed: int, progress: Progress) -> Check:
    """A random part of the samples of the part whose model this is, asked and scored again."""
    digest = model.digest()
    parts = {str(one["part"]): str(one["model_digest"]) for one in content.circumstances["subjects"]}
    for label, result in content.results.items():  # a mended model is a part of its own, and no subject
        if result.kind in SUITES:
            parts.setdefault(label.rpartition(".")[2], result.provenance.model_digest)
    mine = [part for part, stated in parts.items() if stated == digest]
    if not mine:
        stated = ", ".join(f"{part} {one[:12]}…" for part, one in parts.items())
        return check(
            "samples again", [Fault("model", f"it is none of those audited: its digest is {digest[:12]}…, theirs are {stated}")], ""
        )
    faults: list[Fault] = []
    missing: list[str] = []
    asked = 0
    for label, result in sorted(content.results.items()):
        if result.kind in SUITES and label.rpartition(".")[2] in mine:
            try:
                rows = random.Random(f"{seed} {label}").sample(content.samples[label], min(count, len(content.samples[label])))
                faults += _compared(label, result, rows, model)
                asked += len(rows)
            except MissingData as error:
                missing.append(f"{label} ({str(error).split('. ')[0]})")
            progress(asked, asked, f"asking {label} again")
    if missing and not faults:
        return Check("samples again", "not checked", f"{asked} hold, but the data of some is not here: {'; '.join(missing)}")
    of = f"the {mine[0]} model" if len(mine) == 1 else f"the models {', '.join(mine[:-1])} and {mine[-1]}"
    return check("samples again", faults, f"{asked} samples of {of}, asked again, are worth the same")


def _compared(label: str, result: Result, rows: Sequence[Row], model: HookedModel) -> Iterator[Fault]:
    suite: Suite = SUITES.load(result.kind)
    spec = suite.spec.parse(result.spec, what=f"stored spec of '{label}'")
    samples = {sample.id: sample for sample in suite.samples(spec)}
    known = []
    for row in rows:
        sample = samples.get(str(row.record["sample"]))
        if sample is None or digest_of([dict(sample.facts), sample.cluster, sample.group]) != row.facts:
            yield Fault(f"sample {label}/{row.record['sample']}", "the data set has no such item: what was asked was another")
        else:
            known.append((row, sample))
    step = int(getattr(suite, "most_at_once", 64))
    for first in range(0, len(known), step):
        chunk = known[first : first + step]
        found: list[Answer] = answers(suite, model, spec, [sample for _, sample in chunk])
        for (row, _), answer in zip(chunk, found, strict=True):
            if differs := next(_differing(row.record, answer), ""):
                yield Fault(f"sample {label}/{row.record['sample']}", f"asked again it is worth something else: {differs}")


def _differing(record: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    score = answer.score
    if record["unscored"] != score.unscored:
        yield f"unscored was {record['unscored']!r}, is {score.unscored!r}"
    values = record["values"]
    for name in sorted({*values, *score.values}):
        a, b = values.get(name), score.values.get(name)
        if not _close(a, b):
            yield f"{name} was {str(a)[:60]}, is {str(b)[:60]}"


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return set(a) == set(b) and all(_close(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_close, a, b))
    if isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool):
        return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)
    return a == b
