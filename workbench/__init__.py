"""Assay: audit transformers with instruments that are scored on planted truth.

    load(ref) → model                        probe(instrument, ref_or_model, inputs, **spec) → Result
    evaluate(suites, ref_or_model, **spec)   train(recipe) → Training       audit(plan) → Audit

Nothing is imported before it is used: `import workbench` costs nothing and imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.core.errors import AssayError
    from workbench.core.finding import Finding, Plan, Verdict
    from workbench.core.protocol import HookedModel, Inputs
    from workbench.core.result import Result
    from workbench.lab.audit import audit
    from workbench.lab.compare import compare
    from workbench.lab.recompute import recompute
    from workbench.lab.refs import load
    from workbench.lab.run import evaluate, probe, train
    from workbench.store.runs import Store

_HOME = {
    "AssayError": "workbench.core.errors",
    "Finding": "workbench.core.finding",
    "HookedModel": "workbench.core.protocol",
    "Inputs": "workbench.core.protocol",
    "Plan": "workbench.core.finding",
    "Result": "workbench.core.result",
    "Store": "workbench.store.runs",
    "Verdict": "workbench.core.finding",
    "audit": "workbench.lab.audit",
    "compare": "workbench.lab.compare",
    "evaluate": "workbench.lab.run",
    "load": "workbench.lab.refs",
    "probe": "workbench.lab.run",
    "recompute": "workbench.lab.recompute",
    "train": "workbench.lab.run",
}

__all__ = [
    "AssayError", "Finding", "HookedModel", "Inputs", "Plan", "Result", "Store", "Verdict",
    "audit", "compare", "evaluate", "load", "probe", "recompute", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
