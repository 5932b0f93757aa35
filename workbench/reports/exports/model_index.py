"""A run's findings as the ``model-index`` of a model card: the front matter of a README that the Hugging Face hub reads."""

from __future__ import annotations

import yaml

from workbench.reports import phrases
from workbench.reports.exports.evaluated import Evaluated, Files
from workbench.reports.render.card import index_entry, plain


def files(run: Evaluated) -> Files:
    """A README of front matter and one line; findings without a value are left out. Equal runs, equal bytes."""
    name = " ".join(phrases.clipped(run.model).split()) or "model"
    results = [index_entry(finding) for finding in run.findings if finding.effect is not None]
    front = {"library_name": "assay", "tags": ["assay"], "model-index": [{"name": name, "results": results}]}
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=10_000)
    return {"README.md": f"---\n{head}---\n\nEvaluated by Assay {plain(run.version)}, run {plain(run.run)}.\n".encode()}
