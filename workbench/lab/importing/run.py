"""Files of another program's samples as one run of the store, of kind ``import``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evals.imported import SUITE, ImportedResult, ImportedSpec, result_of
from workbench.core.errors import BadValue, MissingFile, UsageError
from workbench.core.finding import Finding
from workbench.core.result import Provenance
from workbench.core.spec import digest_of
from workbench.lab.importing import inspect_log, lm_eval
from workbench.lab.importing.read import Log
from workbench.lab.record import recorded
from workbench.store.runs import Store
from workbench.store.sink import checked_name

KIND = "import"
READERS = {".jsonl": lm_eval.read, ".eval": inspect_log.read, ".json": inspect_log.read}
"""By how a file's name ends."""
BATCH = 1000
"""Samples committed together."""


@dataclass(frozen=True)
class Import:
    """What an import made: the run, a result for each task, the findings, and what of the files was not taken over."""

    run: str
    model: str
    results: dict[str, ImportedResult]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def import_files(files: Sequence[str], *, store: Store, model: str = "", cluster: str = "", group: str = "") -> Import:
    """Read files of one model and keep them as a run. All are read before anything is written.

    ``model``: what to call it where the files do not say. ``cluster`` and ``group``: fields by which samples belong together, and are told
    apart. Raises MissingFile, CorruptFile (file and line), UnknownName (a field), and UsageError where the files are of several
    models or hold one task twice.
    """
    logs = [_read(Path(name), cluster, group) for name in files]
    tasks = [log.task for log in logs]
    if doubled := next((task for task in tasks if tasks.count(task) > 1), ""):
        raise UsageError(f"Two of the files hold task '{doubled}'. A run has each task once: import them apart.")
    models = sorted({log.model for log in logs if log.model})
    if not model and len(models) > 1:
        raise UsageError(
            f"The files are of {len(models)} models ({', '.join(models[:4])}). A run is of one: import them apart, or say --model."
        )
    named = model or (models[0] if models else "")
    specs = {log.task: ImportedSpec(form=log.form, task=log.task, file=log.digest, cluster=cluster, group=group) for log in logs}
    plan = {"imported": [specs[log.task].model_dump(mode="json") for log in logs], "model": named}
    facts = {"imported": {log.task: {"form": log.form, "version": log.version, "created": log.created} for log in logs}}
    with recorded(store, KIND, plan, named, provenance=facts) as run:
        results = {log.task: _kept(store, run, log, specs[log.task], named) for log in logs}
        findings = tuple(one for result in results.values() for one in SUITE.findings(result, subject=named or "the imported model"))
        store.put_findings(run, findings)
    return Import(run, named, results, findings, tuple(f"{log.task}: {note}" for log in logs for note in log.notes))


def _read(place: Path, cluster: str, group: str) -> Log:
    if not place.is_file():
        raise MissingFile(place, "file of samples", do="Name files, as a shell's * does.")
    if place.suffix not in READERS:
        raise BadValue(
            "the file", place.name, f"one that ends in {', '.join(READERS)}: samples of lm-evaluation-harness, or a log of Inspect"
        )
    log = READERS[place.suffix](place, cluster=cluster, group=group)
    for name in (log.task, *(one.sample for one in log.samples)):
        checked_name(f"a name in '{place.name}'", name)
    return log


def _kept(store: Store, run: str, log: Log, spec: ImportedSpec, model: str) -> ImportedResult:
    """The samples in the store, and their result beside them."""
    label = digest_of([log.form, log.task, log.digest])
    records = [
        {"sample": one.sample, "epoch": one.epoch, "of": label, "values": dict(one.values), "unscored": one.unscored,
         "cluster": one.cluster, "group": one.group, "apart": 0}
        for one in sorted(log.samples, key=lambda one: (one.sample, one.epoch))
    ]  # fmt: skip
    asked = {(one.sample, one.epoch): one.asked for one in log.samples}
    sink = store.sink(run, log.task)
    for first in range(0, len(records), BATCH):
        sink.put(records[first : first + BATCH])
    found = result_of(records, [asked[record["sample"], record["epoch"]] for record in records], spec, log.directions)
    data = digest_of(sorted(asked.values()))
    origin = Provenance.here(model=model, data=log.task, data_digest=data, dtype="", packages={log.form: log.version or "unknown"})
    result = replace(found, provenance=origin, notes=log.notes)
    store.put_result(run, log.task, result)
    return result
