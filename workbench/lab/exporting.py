"""A finished run in the dialects of other programs: read from the store, with the texts of its samples made again, and written as files.

The store keeps scores and no text. Where the data of a suite is at hand, what the model was asked is made again from it; the texts of a set
with a warning are masked unless they are asked for, and where the data is not here a sample has no text and the lines say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from evals import SUITES
from evals.imported import NAME as IMPORTED
from workbench.core.errors import AssayError, StoreError, UnknownName, UsageError
from workbench.core.measure import Generate, Loglikelihood, Moments, Request, Rolling, Sampled, Suite
from workbench.core.result import Result
from workbench.core.spec import digest_of
from workbench.lab.audit_subject import AUDITED
from workbench.lab.circumstances import read as read_circumstances
from workbench.lab.gating.gate import gate
from workbench.lab.samples import masked, suite_named, warning_of
from workbench.reports.exports import (
    csv_tables,
    every_eval_ever,
    inspect_log,
    junit,
    lm_eval,
    model_index,
    openmetrics,
    sarif,
)
from workbench.reports.exports.evaluated import Asked, Evaluated, Files, Part, Row, sha256
from workbench.store.records import RunRecord
from workbench.store.runs import Store

FORMATS: Mapping[str, Callable[[Evaluated], Files]] = {
    "lm-eval": lm_eval.files, "inspect": inspect_log.files, "every-eval-ever": every_eval_ever.files, "model-index": model_index.files,
    "junit": junit.files, "sarif": sarif.files, "openmetrics": openmetrics.files, "csv": csv_tables.files,
}  # fmt: skip
JUDGED = ("junit", "sarif")
"""Formats that can hold a gate's decisions, by a policy."""
KINDS = ("eval", "audit", "import")
SHOWN = ("lm-eval", "inspect")
"""Formats that hold texts."""


@dataclass(frozen=True)
class Written:
    """What was written: ``places``, and what a reader should know of it."""

    places: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def export(run: str, form: str, out: str = "", *, store: Store, texts: bool = False, policy: str = "") -> Written:
    """Write a run in ``form`` to the folder ``out`` (default: ``exports`` in the run's own).

    ``texts`` shows what is else masked. ``policy``: JUnit or SARIF of the gate it decides. Raises UnknownName (a format, a run),
    UsageError, and StoreError where the folder cannot be written to.
    """
    if form not in FORMATS:
        raise UnknownName("export format", form, FORMATS)
    if policy and form not in JUDGED:
        raise UsageError(f"A policy decides what passes, which '{form}' has no place for. It goes with {' and '.join(JUDGED)}.")
    record = store.runs.get(run)
    notes: list[str] = []
    if policy:
        found = _judged(record, form, policy, store)
    else:
        seen, notes = evaluated(record, store, texts=texts, asked=form in SHOWN)
        found = FORMATS[form](seen)
    folder = Path(out) if out else store.folder(record.id) / "exports"
    return Written(tuple(_written(folder, found)), tuple(notes))


def _judged(record: RunRecord, form: str, policy: str, store: Store) -> Files:
    held = gate(record.id, policy, store=store)
    text = junit.render(held) if form == "junit" else sarif.render(held, metadata.version("assay-workbench"))
    return {f"{record.id}.{'junit.xml' if form == 'junit' else 'sarif'}": text.encode("utf-8")}


def _written(folder: Path, files: Files) -> list[Path]:
    places = [folder / name for name in files]
    try:
        for place, content in zip(places, files.values(), strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    except OSError as error:
        raise StoreError(f"The export could not be written to '{folder}'", error.strerror or str(error)) from error
    return places


# --- from the store ---------------------------------------------------------------------------------------------


def evaluated(record: RunRecord, store: Store, *, texts: bool = False, asked: bool = True) -> tuple[Evaluated, list[str]]:
    """A run with its samples, and what to know of it. Of an audit it is the audited model; its reference is another export's.

    ``asked``: make the texts again. Raises UsageError for a run that asked no samples.
    """
    if record.kind not in KINDS:
        raise UsageError(f"Run {record.id} is a run of {record.kind}. Only runs of {', '.join(KINDS)} have samples to export.")
    model, digest, notes = record.ref, str(record.provenance.get("model_digest", "")), []
    labels = list(store.result_digests(record.id))
    if record.kind == "audit":
        subjects, _ = read_circumstances(store.folder(record.id))
        model, digest = subjects[0].ref, subjects[0].model_digest
        labels = [label for label in labels if label.endswith(f".{AUDITED}")]
    if record.status != "done":
        notes.append(f"The run is {record.status}: only suites that it finished are exported.")
    parts = [_part(store, record.id, label, texts, asked, notes) for label in labels]
    findings = tuple(one for one in store.findings(record.id) if one.subject == model or record.kind != "audit")
    packages = {name: str(version) for name, version in record.provenance.get("packages", {}).items()}
    seen = Evaluated(
        record.id, record.kind, record.status, model, digest, record.created, record.finished, metadata.version("assay-workbench"),
        tuple(part for part in parts if part is not None), findings, packages,
    )  # fmt: skip
    return seen, notes


def _part(store: Store, run: str, label: str, texts: bool, asked: bool, notes: list[str]) -> Part | None:
    """A suite's samples; None for a result that has none, an instrument's."""
    records = store.sink(run, label).read()
    if not records:
        return None
    stored = store.result(run, label)
    warning = warning_of(label)
    requests = _requests(stored.result, label, notes) if asked else {}
    show = texts or not warning
    if requests and not show:
        notes.append(f"The texts of {label} are masked ({warning}); --texts shows them.")
    rows = tuple(_row(record, requests.get(record["sample"], ()), show) for record in records)
    return Part(
        label, label if stored.result.kind == IMPORTED else suite_named(label), rows, dict(stored.result.spec), stored.result.summary(),
        stored.digest, stored.result.provenance.data_digest, warning,
    )  # fmt: skip


def _requests(result: Result, label: str, notes: list[str]) -> Mapping[str, tuple[Request, ...]]:
    """What each sample was asked; empty, with a note, where that cannot be made again here."""
    if result.kind == IMPORTED:
        notes.append(f"The texts of {label} stayed in the file that it was imported from.")
        return {}
    try:
        suite: Suite = SUITES.load(result.kind)
        spec = suite.spec.parse(result.spec, what=f"stored spec of '{label}'")
        samples = list(suite.samples(spec))
        if digest_of([[s.id, dict(s.facts), s.cluster, s.group] for s in samples]) != result.provenance.data_digest:
            notes.append(f"The samples of {label} have no texts: its data is not what it was when the run was made.")
            return {}
        asked = {sample.id: suite.request(sample, spec) for sample in samples}
    except AssayError as error:
        notes.append(f"The samples of {label} have no texts: {error}")
        return {}
    return {name: one if isinstance(one, tuple) else (one,) for name, one in asked.items()}


def _row(record: Mapping[str, Any], requests: tuple[Request, ...], show: bool) -> Row:
    asked = tuple(_asked(one) for one in requests)
    return Row(
        record["sample"], record["epoch"], record["values"], record["unscored"], record["cluster"], record["group"],
        asked if show else tuple(map(_masked, asked)),
    )  # fmt: skip


def _asked(request: Request) -> Asked:
    match request:
        case Loglikelihood(context, continuations):
            return Asked("loglikelihood", context, continuations, digest=sha256(context))
        case Rolling(text, context) | Moments(text, context):
            return Asked("text", context + text, digest=sha256(context + text))
        case Sampled(prompt):
            said = {
                "max_gen_toks": request.most,
                "do_sample": True,
                "top_p": request.nucleus,
                "temperature": 1.0,
                "repeats": request.copies,
            }
            return Asked("generate", prompt, settings=said, digest=sha256(prompt))
        case Generate(prompt):
            said = {"max_gen_toks": request.most, "until": list(request.until), "do_sample": False}
            return Asked("generate", prompt, settings=said, digest=sha256(prompt))


def _masked(asked: Asked) -> Asked:
    return replace(asked, context=masked(asked.context), continuations=tuple(map(masked, asked.continuations)))
