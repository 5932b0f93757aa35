"""Exports of a run, read by the programs they are written for: each that is installed opens its file and says what it found.

    workbench runs export RUN --to FORMAT --out FOLDER        (for each format)
    python benchmarks/dialects.py FOLDER                      (in each environment that has one of the programs)

Inspect (`inspect-ai`), lm-evaluation-harness (`lm-eval`), Every Eval Ever (`every-eval-ever`), the Hugging Face hub's client and
`prometheus-client` want versions of shared packages that do not all go together, so there may be several environments.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any


def by_inspect(place: Path) -> str:
    found = import_module("inspect_ai.log").read_eval_log(str(place))
    summaries = import_module("inspect_ai.log").read_eval_log_sample_summaries(str(place))
    scores = {name: score.value for name, score in (found.samples[0].scores or {}).items()}
    return (
        f"{found.eval.task} of {found.eval.model}: {found.status}, {len(found.samples)} samples, {len(summaries)} summaries, first {scores}"
    )


def by_harness(place: Path) -> str:
    made = import_module("lm_eval.utils").make_table(json.loads(place.read_text()))
    return f"a table of {len(made.splitlines()) - 2} lines\n{made}"


def by_record(place: Path) -> str:
    """The package's own check of a file, and the schema that comes with it."""
    root = Path(str(import_module("every_eval_ever").__file__)).parent
    (schema,) = [path for path in root.rglob("*eval.schema.json") if "instance" not in path.name]
    import_module("jsonschema").validate(json.loads(place.read_text()), json.loads(schema.read_text()))
    types = import_module("every_eval_ever.eval_types")
    found = types.EvaluationLog.model_validate_json(place.read_text())
    return f"valid by {schema.name}, {len(found.evaluation_results)} results"


def by_hub(place: Path) -> str:
    card = import_module("huggingface_hub").ModelCard.load(place)
    return f"{card.data.model_name}: {len(card.data.eval_results)} results, the first {card.data.eval_results[0].metric_value}"


def by_scraper(place: Path) -> str:
    families = list(import_module("prometheus_client.openmetrics.parser").text_string_to_metric_families(place.read_text()))
    return f"{sum(len(one.samples) for one in families)} samples in {len(families)} families"


READERS: tuple[tuple[str, str, Callable[[Path], str]], ...] = (
    ("*.eval", "inspect-ai", by_inspect),
    ("results_*.json", "lm-eval", by_harness),
    ("????????-????-4???-*.json", "every-eval-ever", by_record),
    ("README.md", "huggingface-hub", by_hub),
    ("*.openmetrics.txt", "prometheus-client", by_scraper),
)


def main(folder: str) -> int:
    wrong = 0
    for pattern, package, read in READERS:
        for place in sorted(Path(folder).rglob(pattern)):
            try:
                version = metadata.version(package)
            except metadata.PackageNotFoundError:
                print(f"{package}: not installed here, {place.name} is not read")
                continue
            try:
                print(f"{package} {version}: {place.name}: {read(place)}")
            except (Exception, zipfile.BadZipFile) as error:
                wrong += 1
                print(f"{package} {version}: {place.name}: REFUSED: {_short(error)}")
    return wrong


def _short(error: Any) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:600]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
