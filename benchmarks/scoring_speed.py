"""Log-likelihoods beside lm-evaluation-harness's Hugging Face backend, on the same weights: ``python benchmarks/scoring_speed.py``.

Two random models, one of GPT-2 small's shape (12 layers, 768 wide, vocabulary 50,257) and a small one (6 layers, 256 wide, vocabulary
8,192), saved in the published form and loaded by both. Workloads from real files: BBQ with its three answers after the question (items
in file order, four stretches of neighbours, as a run of the suite meets them), CrowS-Pairs (both sentences whole), and what the suites
``stereoset``, ``winobias`` and ``group-fairness`` (rows of ``adult``, each with every sex and race written in) ask, in such stretches too.
Both sides are handed the same token ids of one byte-level tokenizer, so encoding is in neither's time. The peer runs at the batch size, of
those tried, that is fastest for each model and workload. Ours runs in certified mode (scores whose bits do not depend on the batch) and in
packed mode. Each side runs in a process of its own, in turns, on two threads; ratios are taken within a round. Also counted, and free of
noise: the tokens that pass the layers and the rows of logits that are made, padding included.

lm-evaluation-harness comes with the extra ``harness``, in an environment without captum; or give a Python that has it with ``--peer``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apart

ROOT = Path(__file__).resolve().parents[1]
THREADS, SEED, SIZES = 2, 0, (1, 4, 8, 16, 32)
SHAPES: dict[str, dict[str, Any]] = {
    "GPT-2 small's shape": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024},
    "small": {"n_layer": 6, "n_embd": 256, "n_head": 4, "vocab_size": 8192, "n_positions": 1024},
}
COUNTS = {
    "GPT-2 small's shape": {"bbq": 32, "crows": 48, "stereoset": 48, "winobias": 24, "group-fairness": 8},
    "small": {"bbq": 160, "crows": 200, "stereoset": 480, "winobias": 300, "group-fairness": 120},
}
"""Samples of each workload."""
FLOORS = {"bbq": 5.0, "crows": 1.5}
TOKENIZERS = (("bbq", "crows"), ("stereoset", "winobias", "group-fairness"))
"""Workloads whose texts make one tokenizer."""
WORKLOADS = tuple(name for some in TOKENIZERS for name in some)
EVENLY, TOGETHER = ("crows",), {"bbq": 4}
"""Workloads whose samples are taken evenly from the whole file; and how many neighbours begin a stretch together."""
MODES, CHUNK = ("certified", "packed"), 64
Rows = list[tuple[list[int], list[list[int]]]]
Texts = dict[str, list[list[tuple[str, list[str]]]]]
"""By workload, the (context, continuations) of each sample."""


def peak() -> float:
    """MiB this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- what both are given ------------------------------------------------------------------------------------------


def texts(data: Path) -> Texts:
    """What each workload asks, in file order."""
    questions = [json.loads(line) for name in ("Age", "Religion") for line in (data / f"bbq/{name}.jsonl").read_text().splitlines()]
    bbq = [[(f"{q['context']}\n\nQ: {q['question']}\nA:", [f" {q[a]}" for a in ("ans0", "ans1", "ans2")])] for q in questions]
    import csv

    with (data / "crows-pairs/crows_pairs_anonymized.csv").open(newline="") as file:
        crows = [[("", [row["sent_more"], row["sent_less"]])] for row in csv.DictReader(file)]
    return {
        "bbq": bbq, "crows": crows, "stereoset": requests("stereoset", {"files": [str(data / "stereoset/race_test.json")]}),
        "winobias": requests("winobias", {"folder": str(data / "winobias")}),
        "group-fairness": requests("group-fairness", adult(data)),
    }  # fmt: skip


def adult(data: Path) -> dict[str, Any]:
    """What ``group-fairness`` is told of the public table: its test rows, each with the other sex and races written in."""
    from adult_fairness import ANSWERS, COLUMNS, TEXT

    told = {"columns": COLUMNS, "text": TEXT, "answers": ANSWERS, "label": "income", "positive": ">50K.", "groups": ("sex", "race")}
    return {**told, "file": str(data / "adult/adult-test.csv"), "rows": 2_000}


def requests(name: str, fields: dict[str, Any]) -> list[list[tuple[str, list[str]]]]:
    """What a suite asks about each of its samples."""
    from evals import SUITES

    suite = SUITES.load(name)
    spec, out = suite.spec.parse(fields), []
    for sample in suite.samples(spec):
        asked_of = suite.request(sample, spec)
        each = asked_of if isinstance(asked_of, tuple) else (asked_of,)
        out.append([(one.context, list(one.continuations)) for one in each])
    return out


def tokenizer_of(some: list[list[list[tuple[str, list[str]]]]], size: int) -> Any:
    """A byte-level tokenizer of ``size`` entries at most, from the texts of some workloads; its entry 0 begins a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    rows = (row for samples in some for sample in samples for row in sample)
    tokenizer.train_from_iterator((context + "".join(ends) for context, ends in rows), trainer)
    return tokenizer


def workloads(data: Path, size: int, counts: dict[str, int]) -> dict[str, Rows]:
    """The requests in ids: four stretches of neighbouring samples, or evenly from the whole file."""
    held = texts(data)
    tokenizers = {
        name: tokenizer for some in TOKENIZERS for tokenizer in [tokenizer_of([held[one] for one in some], size)] for name in some
    }
    draw, out = random.Random(SEED), {}
    for name, samples in held.items():
        if name in EVENLY:
            chosen = samples[:: len(samples) // counts[name]][: counts[name]]
        else:
            run, together = counts[name] // 4, TOGETHER.get(name, 1)
            firsts = sorted(draw.randrange(0, len(samples) - run) // together * together for _ in range(4))
            chosen = [samples[first + k] for first in firsts for k in range(run)]
        ids = lambda text, of=tokenizers[name]: of.encode(text).ids  # noqa: E731
        rows = [row for sample in chosen for row in sample]
        out[name] = [([0, *ids(context)] if context else [0], [ids(end) for end in ends]) for context, ends in rows]
    return out


def save(folder: Path, shape: dict[str, Any]) -> None:
    """The model, in the published form."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.02)
    model.save_pretrained(folder)


# --- theirs -------------------------------------------------------------------------------------------------------


def harness(folder: Path) -> Any:
    """Their backend on the model, with a counter of what passes its layers."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<|endoftext|>": 0}, unk_token="<|endoftext|>")), eos_token="<|endoftext|>"
    )
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu", backend="causal")
    lm.counted = {"tokens": 0, "logits": 0}
    inner = lm._model_call

    def call(inps: Any, *more: Any, **named: Any) -> Any:
        lm.counted["tokens"] += inps.numel()
        lm.counted["logits"] += inps.numel()
        return inner(inps, *more, **named)

    lm._model_call = call
    return lm


def asked(lm: Any, rows: Rows, size: int) -> tuple[dict[str, float], list[list[float]]]:
    """One pass over the requests at batch size ``size``."""
    lm.batch_size_per_gpu, lm.counted["tokens"], lm.counted["logits"] = size, 0, 0
    requests = [((str(i), str(c)), context, end) for i, (context, ends) in enumerate(rows) for c, end in enumerate(ends)]
    began, worked = time.perf_counter(), time.process_time()
    flat = iter([value for value, _ in lm._loglikelihood_tokens(requests, disable_tqdm=True)])
    took = {"wall": time.perf_counter() - began, "cpu": time.process_time() - worked, **lm.counted, "requests": len(requests)}
    return took, [[next(flat) for _ in ends] for _, ends in rows]


def theirs(folder: Path, rows: Rows, size: int) -> dict[str, Any]:
    lm = harness(folder)
    asked(lm, rows[:2], size)
    took, values = asked(lm, rows, size)
    return took | {"values": values, "peak": peak()}


def probe(folder: Path, rows: Rows, size: int) -> dict[str, float]:
    """Seconds by batch size, on as many rows as make two batches of the largest."""
    lm = harness(folder)
    ends = len(rows[0][1])
    few = rows[: max(1, 2 * size // ends)]
    asked(lm, rows[:2], 4)
    return {str(one): asked(lm, few, one)[0]["wall"] for one in SIZES}


# --- ours -------------------------------------------------------------------------------------------------------


class Counted:
    """A model that counts the tokens that pass its layers and the rows of logits it makes."""

    def __init__(self, model: Any) -> None:
        self.model, self.tokens, self.logits = model, 0, 0
        for name in ("family", "config", "tokenizer", "abilities", "resumes", "sites", "weight"):
            setattr(self, name, getattr(model, name))

    def run(self, batch: Any, **options: Any) -> Any:
        trace = self.model.run(batch, **options)
        self.tokens += 0 if batch is None else batch.numel()
        self.logits += 0 if trace.logits is None else trace.logits.shape[0] * trace.logits.shape[1]
        return trace


def ours(folder: Path, rows: Rows, _: Any) -> dict[str, Any]:
    """One pass over the requests in each mode; the memory is what the certified one took."""
    from workbench.adapters import hf

    model, out = Counted(hf.load(folder)), {}
    for mode in MODES:
        scored(model, rows[:2], mode)
        model.tokens = model.logits = 0
        out[mode] = scored(model, rows, mode) | {"tokens": model.tokens, "logits": model.logits, "peak": peak()}
    return out


def scored(model: Any, rows: Rows, mode: Any) -> dict[str, Any]:
    """Every request's log-likelihoods, ``CHUNK`` items at a time as the runner of suites hands them over."""
    from workbench.engine.score import loglikelihoods
    from workbench.engine.tokens import Encoded

    requests, values = [Encoded(tuple(context), tuple(map(tuple, ends))) for context, ends in rows], []
    began, worked = time.perf_counter(), time.process_time()
    for first in range(0, len(requests), CHUNK):
        some = requests[first : first + CHUNK]
        found = dict(loglikelihoods(model, some, mode=mode))
        values += [[sum(tokens) for tokens in found[index]] for index in range(len(some))]
    took = {"wall": time.perf_counter() - began, "cpu": time.process_time() - worked}
    return took | {"requests": sum(len(ends) for _, ends in rows), "values": values}


# --- side by side -------------------------------------------------------------------------------------------------


def alone(python: str, part: str, folder: Path, workload: str, told: Any = None) -> Any:
    """One part in a process of its own."""
    words = {"part": part, "folder": folder, "workload": workload}
    failed = f"'{part}' failed. If lm_eval is missing, give a Python that has it with --peer."
    return apart.alone(__file__, words, told, threads=THREADS, python=python, more={"LOGLEVEL": "ERROR"}, failed=failed)


def run_part(given: argparse.Namespace) -> Any:
    import torch

    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    told = json.load(sys.stdin)
    rows = json.loads((given.folder / "requests.json").read_text())[given.workload]
    parts = {"probe": probe, "theirs": theirs, "ours": ours}
    return parts[given.part](given.folder, rows, told)


def spread(values: list[float]) -> str:
    """The median with the least and the largest."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def report(name: str, workload: str, size: int, rounds: list[dict[str, dict[str, Any]]], rows: Rows) -> None:
    """Medians over rounds, ratios with their range, what was counted, agreement and memory."""
    tokens, last = sum(len(end) for _, ends in rows for end in ends), rounds[-1]
    goal = f"goal {FLOORS[workload]:g}, certified; " if workload in FLOORS else ""
    print(f"\n{name}, {workload}: {last['theirs']['requests']} requests, {tokens} scored tokens; lm-eval at batch size {size}")
    for side in ("theirs", *MODES):
        pace = statistics.median(one[side]["requests"] / one[side]["wall"] for one in rounds)
        print(f"    {side:10} {pace:8.1f} requests/s, {last[side]['tokens']:8} tokens, {last[side]['logits']:8} rows of logits")
    for side in MODES:
        walls, works = ([one["theirs"][clock] / one[side][clock] for one in rounds] for clock in ("wall", "cpu"))
        gaps = [
            abs(a - b) / len(end)
            for (_, ends), mine, other in zip(rows, last[side]["values"], last["theirs"]["values"], strict=True)
            for end, a, b in zip(ends, mine, other, strict=True)
        ]
        counted = last["theirs"]["tokens"] / last[side]["tokens"]
        print(f"    {side:10} {spread(walls)} times as fast over {len(rounds)} rounds (of processor time {spread(works)}),")
        print(f"    {'':10} {counted:.2f} times fewer tokens; {goal}largest gap {max(gaps):.1e} a token")
    tops = ", ".join(f"{side} {statistics.median(one[side]['peak'] for one in rounds):,.0f} MiB" for side in ("theirs", "certified"))
    print(f"    peak memory of the process: {tops}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Log-likelihoods beside lm-evaluation-harness on the same weights.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=list(SHAPES), action="append", help="only this model")
    parser.add_argument("--workload", choices=WORKLOADS, action="append", help="only this workload")
    parser.add_argument("--peer", default=sys.executable, help="a Python that has lm_eval")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WORKBENCH_DATA_MIRROR", "data")), help="folder of the data sets")
    parser.add_argument("--part", choices=["probe", "theirs", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        (given.workload,) = given.workload
        print(json.dumps(run_part(given)))
        return
    for name in given.shape or SHAPES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            save(folder, SHAPES[name])
            held = workloads(given.data, SHAPES[name]["vocab_size"], COUNTS[name])
            (folder / "requests.json").write_text(json.dumps(held))
            for workload in given.workload or WORKLOADS:
                tried = alone(given.peer, "probe", folder, workload, 32 if name == "small" else 16)
                size = int(min(tried, key=lambda one: tried[one]))
                print("seconds by batch size: " + ", ".join(f"{one}: {seconds:.1f}" for one, seconds in tried.items()), flush=True)
                rounds = []
                for _ in range(given.rounds):
                    one = {"theirs": alone(given.peer, "theirs", folder, workload, size)}
                    rounds.append(one | alone(sys.executable, "ours", folder, workload))
                report(name, workload, size, rounds, held[workload])


if __name__ == "__main__":
    main()
