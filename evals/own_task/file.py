"""A task file: YAML that says where the rows are, how one becomes a question, and what the answers are worth.

The fields are those of lm-evaluation-harness where it has them, and a safe part of its files runs unchanged: four output types, Jinja in a
sandbox, metrics that are a mean or a perplexity. What would run code, fetch something or score in a way that is not rebuilt here is refused
by name, never left out. Own fields: ``data`` (files or a folder beside the task file), ``cluster`` and ``subgroup`` (columns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt

from workbench.core.errors import BadValue, CorruptFile, MissingFile, UnknownName
from workbench.core.spec import Spec
from workbench.core.written import held

Output = Literal["multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"]
METRICS: Mapping[str, Mapping[str, str]] = {
    "multiple_choice": {"acc": "mean", "acc_norm": "mean"},
    "loglikelihood": {"perplexity": "perplexity"},
    "loglikelihood_rolling": {
        "word_perplexity": "weighted_perplexity", "byte_perplexity": "weighted_perplexity", "bits_per_byte": "bits_per_byte",
    },
    "generate_until": {"exact_match": "mean"},
}  # fmt: skip
"""The metrics of each output type, and how each is taken over items."""
NO_EFFECT = ("task_alias", "tag", "metadata", "should_decontaminate", "doc_to_decontamination_query")
CODE, TEXTS, OTHERS = "it runs code", "questions here are texts", "it names other tasks"
REFUSED = {
    "process_docs": CODE, "process_results": CODE, "custom_dataset": CODE, "unsafe_code": CODE,
    "use_prompt": "it fetches prompts from another package", "doc_to_image": TEXTS, "doc_to_audio": TEXTS,
    "filter_list": "answers are compared as they are", "gen_prefix": "it is not rebuilt here", "group": OTHERS,
    "aggregate_metric_list": OTHERS, "dataset_name": "rows are read from files beside the task",
}  # fmt: skip
SPLITS = ("test_split", "validation_split", "training_split")


class TaskFile(Spec):
    """A task, read. ``data`` and ``fewshot_data`` are absolute paths; ``shots`` are the first so many rows of the latter; where
    both are the same, the first so many other rows."""

    task: str = Field(min_length=1, max_length=200)
    output_type: Output = "multiple_choice"
    data: tuple[str, ...] = Field(min_length=1)
    fewshot_data: tuple[str, ...] = ()
    doc_to_text: str = ""
    doc_to_target: str | int
    doc_to_choice: str | tuple[str, ...] = ()
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    description: str = ""
    shots: NonNegativeInt = 0
    metrics: tuple[str, ...] = Field(min_length=1)
    until: tuple[str, ...] = ()
    most: PositiveInt = 256
    ignore_case: bool = False
    ignore_punctuation: bool = False
    cluster: str = ""
    subgroup: str = ""


class _Loader(yaml.SafeLoader):
    """YAML without tags that make objects; ``!function`` is named for what it is."""


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(None, None, "'!function' runs code, which a task file may not do here", node.start_mark)


_Loader.add_constructor("!function", _function)


def read(path: Path) -> TaskFile:
    """The task of a file. Raises MissingFile, CorruptFile (no YAML mapping), UnknownName (a field) and BadValue (what a field holds)."""
    values = _values(path)
    where = f"task file '{path.name}'"
    for name, why in REFUSED.items():
        if values.get(name) not in (None, False, [], {}, ""):
            raise BadValue(
                f"{name} of {where}", "given", f"left out: {why}", do="Rewrite the task without it, or run it where it was made."
            )
    for name in (*NO_EFFECT, *REFUSED):
        values.pop(name, None)
    output = str(values.get("output_type", "multiple_choice"))
    if output not in METRICS:
        raise UnknownName("output_type", output, METRICS)
    pool = _pool(values)
    made = {
        **_sources(values, path, where), **_shots(values, path, where, pool), **_metrics(values, output, where),
        **_generation(values, where),
        "output_type": output,
    }  # fmt: skip
    choice = values.get("doc_to_choice")
    if isinstance(choice, list):
        values["doc_to_choice"] = tuple(str(one) for one in choice)
    elif isinstance(choice, dict):
        values["doc_to_choice"] = tuple(str(one) for one in choice.values())
    if output == "multiple_choice" and not choice:
        raise BadValue(f"doc_to_choice of {where}", choice, "a list of choices, a column that holds one, or a template that gives one")
    if "doc_to_target" not in values:
        raise BadValue(f"doc_to_target of {where}", None, "the right answer: a column, a template, or the number of a choice (from 0)")
    return TaskFile.parse({**values, **made}, what=where)


def _values(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's fields, over those of the file that it includes. A file includes others of its own folder only, and not itself."""
    if not path.is_file():
        raise MissingFile(path, "task file", do="Give a YAML file; docs/suites/own-task.md shows one of ten lines.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # of plain values only
    except UnicodeDecodeError as error:
        raise CorruptFile(path, "UTF-8 text", f"byte {error.start} is not") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise CorruptFile(path, "a YAML file", " ".join(str(error).split())[:200]) from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise CorruptFile(path, "a YAML mapping of a task's fields", held(values))
    included = values.pop("include", None)
    if included is None:
        return values
    other = (path.parent / str(included)).resolve()
    if other.parent != path.parent.resolve() or other in (*seen, path.resolve()):
        raise BadValue(f"include of task file '{path.name}'", str(included), "another task file of the same folder")
    return {**_values(other, (*seen, path.resolve())), **values}


def _sources(values: dict[str, Any], path: Path, where: str) -> dict[str, Any]:
    """Where the rows are: ``data``, or the files of a ``csv`` or ``json`` data set by split."""
    kind, kwargs = values.pop("dataset_path", None), values.pop("dataset_kwargs", None) or {}
    splits = {name: values.pop(name, None) for name in SPLITS}
    if "data" in values:
        if kind is not None:
            raise BadValue(f"dataset_path of {where}", kind, "left out where there is `data`")
        return {"data": _paths(values.pop("data"), path, f"data of {where}")}
    if kind not in ("csv", "json"):
        raise BadValue(f"dataset_path of {where}", kind, "csv or json: a task reads files, and fetches none",
                       do="Name the rows' files with `data`.")  # fmt: skip
    files = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    if isinstance(files, Mapping):
        split = next((split for split in splits.values() if split), None)
        if split not in files:
            raise UnknownName("split", str(split), [str(name) for name in files], hint=f"{where} asks {', '.join(SPLITS)} in this order.")
        files = files[split]
    return {"data": _paths(files, path, f"dataset_kwargs.data_files of {where}")}


def _paths(value: Any, path: Path, field: str) -> tuple[str, ...]:
    """Paths relative to the task file."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) and name for name in names):
        raise BadValue(field, value, "the path of a file or folder, or a list of them")
    if remote := [name for name in names if "://" in name]:
        raise BadValue(field, remote[0], "a path: nothing is fetched")
    return tuple(str((path.parent / name).resolve()) for name in names)


def _pool(values: Mapping[str, Any]) -> Any:
    """The files of the split that examples come from: the one that is named, else the first of training, validation and test that a task
    has, as in lm-evaluation-harness. None where the rows are in no splits."""
    kwargs = values.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    named = (values.get("fewshot_split"), *(values.get(name) for name in reversed(SPLITS)))
    split = next((name for name in named if name), None)
    if not isinstance(files, Mapping) or not values.get("num_fewshot"):
        return files
    if split not in files:
        raise UnknownName("split", str(split), [str(name) for name in files], hint="Examples come from fewshot_split.")
    return files[split]


def _shots(values: dict[str, Any], path: Path, where: str, pool: Any) -> dict[str, Any]:
    """Answered examples before each question: the first rows of a file of their own, or of a split."""
    count, how = values.pop("num_fewshot", 0) or 0, values.pop("fewshot_config", None) or {}
    values.pop("fewshot_split", None)
    given = values.pop("fewshot_data", None) or pool
    if not count:
        return {}
    if how.get("sampler") != "first_n":
        raise BadValue(
            f"fewshot_config.sampler of {where}", how.get("sampler", "default"), "first_n: another program's draw is not repeated"
        )
    if given is None:
        raise BadValue(
            f"fewshot_data of {where}", None, "a file of the examples, apart from the rows that are asked, or a split of data_files"
        )
    return {"shots": count, "fewshot_data": _paths(given, path, f"fewshot_data of {where}")}


def _metrics(values: dict[str, Any], output: str, where: str) -> dict[str, Any]:
    """The metrics by name, with what is left out before an answer is compared."""
    known, listed = METRICS[output], values.pop("metric_list", None)
    if listed is None:
        return {"metrics": tuple(known)}
    names: list[str] = []
    out: dict[str, Any] = {}
    for one in listed if isinstance(listed, list) else [None]:
        if not isinstance(one, Mapping) or one.get("metric") not in known:
            raise UnknownName(f"metric of {where}", str(one.get("metric") if isinstance(one, Mapping) else one), known)
        names.append(one["metric"])
        if one.get("aggregation", known[names[-1]]) != known[names[-1]]:
            raise BadValue(f"aggregation of {names[-1]} in {where}", one["aggregation"], known[names[-1]])
        if one.get("regexes_to_ignore"):
            raise BadValue(f"regexes_to_ignore of {where}", "given", "left out: answers are compared as they are")
        out |= {name: bool(one[name]) for name in ("ignore_case", "ignore_punctuation") if name in one}
    return {**out, "metrics": tuple(dict.fromkeys(names))}


def _generation(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Greedy continuation: up to which words and how many tokens."""
    how = dict(values.pop("generation_kwargs", None) or {})
    if how.pop("do_sample", False) or float(how.pop("temperature", 0.0) or 0.0) > 0:
        raise BadValue(f"generation_kwargs of {where}", "sampling", "greedy: do_sample false, temperature 0")
    if values.pop("repeats", 1) != 1:
        raise BadValue(f"repeats of {where}", "above 1", "1: a greedy answer is the same each time")
    until, most = how.pop("until", ("\n\n",)), how.pop("max_gen_toks", 256)
    if how:
        raise UnknownName(f"field of generation_kwargs of {where}", next(iter(how)), ["until", "max_gen_toks", "do_sample", "temperature"])
    return {"until": (until,) if isinstance(until, str) else tuple(until), "most": most}
