"""Log-likelihoods beside lm-evaluation-harness on six real tasks, on the same weights: ``python benchmarks/harness_parity.py``.

Six tasks are written as the harness's own YAML over files of the data mirror: BBQ (three answers), CrowS-Pairs, StereoSet (sentences in
context), BLiMP, WinoBias (type 1) and wikitext (rolling). A random model of four layers with a byte-level tokenizer is saved in the
published form. The harness evaluates it twice, through its own Hugging Face backend and through our adapter; and every text it asked
about is asked of our engine directly. What is compared is the log-likelihood of every request, divided by its number of tokens. The goal
is 1e-5 nats.

It needs a Python with lm-eval (the extra ``harness``), and goes nowhere near the network.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOAL, SEED, VOCABULARY, CONTEXT = 1e-5, 0, 4096, 256
LOGLIKELIHOOD = {
    "output_type": "multiple_choice", "test_split": "test", "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip


# --- the tasks ----------------------------------------------------------------------------------------------------


def bbq(data: Path) -> Iterator[dict[str, Any]]:
    for line in (data / "bbq/Age.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text = f"{row['context']}\n\nQ: {row['question']}\nA:"
        yield {"text": text, "choices": [f" {row[answer]}" for answer in ("ans0", "ans1", "ans2")], "label": row["label"]}


def crows_pairs(data: Path) -> Iterator[dict[str, Any]]:
    with (data / "crows-pairs/crows_pairs_anonymized.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {"text": "", "choices": [row["sent_more"], row["sent_less"]], "label": 0}


def stereoset(data: Path) -> Iterator[dict[str, Any]]:
    for row in json.loads((data / "stereoset/race_test.json").read_text(encoding="utf-8")):
        if sentences := [one["sentence"] for one in row.get("sentences", [])]:
            yield {"text": row["context"], "choices": [f" {sentence}" for sentence in sentences], "label": 0}


def blimp(data: Path) -> Iterator[dict[str, Any]]:
    with zipfile.ZipFile(data / "blimp/blimp.zip") as whole:
        for name in sorted(name for name in whole.namelist() if name.endswith(".jsonl"))[::9]:
            for line in whole.read(name).decode().splitlines()[::50]:
                row = json.loads(line)
                yield {"text": "", "choices": [row["sentence_good"], row["sentence_bad"]], "label": 0}


def winobias(data: Path) -> Iterator[dict[str, Any]]:
    sides = [(data / f"winobias/{side}_stereotyped_type1.txt.dev").read_text(encoding="utf-8").splitlines() for side in ("pro", "anti")]
    for pair in zip(*sides, strict=True):
        choices = [re.sub(r"^\d+ ", "", line).replace("[", "").replace("]", "") for line in pair]
        yield {"text": "", "choices": choices, "label": 0}


def wikitext(data: Path) -> Iterator[dict[str, Any]]:
    whole = (data / "wikitext-2/valid.txt").read_text(encoding="utf-8").split("\n = ")
    for section in whole[1:]:
        yield {"page": f" = {section}"[:6000]}


TASKS = {"bbq": bbq, "crows_pairs": crows_pairs, "stereoset": stereoset, "blimp": blimp, "winobias": winobias, "wikitext": wikitext}


def write(folder: Path, data: Path, limit: int) -> dict[str, list[dict[str, Any]]]:
    """The YAML of every task with its rows, ``limit`` of each drawn with a seed."""
    draw, out = random.Random(SEED), {}
    for name, rows in TASKS.items():
        held = list(rows(data))
        out[name] = draw.sample(held, min(limit if name != "wikitext" else max(1, limit // 10), len(held)))
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in out[name]), encoding="utf-8")
        told: dict[str, Any] = {"task": f"local_{name}", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}}
        if name == "wikitext":
            metrics = [{"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}]
            told |= {"output_type": "loglikelihood_rolling", "test_split": "test", "doc_to_text": "", "doc_to_target": "{{page}}"}
            told |= {"metric_list": metrics}
        else:
            told |= {**LOGLIKELIHOOD, "doc_to_text": "{{text}}", "doc_to_choice": "choices", "doc_to_target": "label"}
        (folder / f"{name}.yaml").write_text(json.dumps(told), encoding="utf-8")  # JSON is YAML
    return out


# --- the model ----------------------------------------------------------------------------------------------------


def save(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    """A random model with a tokenizer of its own, in the published form."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<s>"], show_progress=False, initial_alphabet=alphabet)
    engine.train_from_iterator(("".join(map(str, row.values())) for held in rows.values() for row in held), trainer)
    engine.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=engine, bos_token="<s>", eos_token="<s>").save_pretrained(folder)
    torch.manual_seed(SEED)
    shape = {"n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": engine.get_vocab_size(), "n_positions": CONTEXT}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for parameter in model.parameters():  # so that texts differ by nats
            parameter.add_(torch.randn(parameter.shape), alpha=0.05)
    model.save_pretrained(folder)


# --- side by side -------------------------------------------------------------------------------------------------


def evaluated(lm: Any, folder: Path, names: list[str]) -> dict[str, list[tuple[tuple[str, ...], float]]]:
    """Of each task every request's texts and log-likelihood, in the harness's order."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    tasks = [f"local_{name}" for name in names]
    done = lm_eval.simple_evaluate(model=lm, tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0)
    assert done is not None, "this process is the first of one"
    out: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for name in names:
        found = []
        for sample in sorted(done["samples"][f"local_{name}"], key=lambda one: one["doc_id"]):
            asked = [tuple(one.values()) if isinstance(one, dict) else tuple(one) for one in _list(sample["arguments"])]
            for texts, answers in zip(asked, sample["resps"], strict=True):
                value = answers[0]
                found.append((tuple(map(str, texts)), float(value[0] if isinstance(value, list | tuple) else value)))
        out[name] = found
    return out


def _list(arguments: Any) -> list[Any]:
    return list(arguments.values()) if isinstance(arguments, dict) else list(arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description="Log-likelihoods beside lm-evaluation-harness on six real tasks.")
    parser.add_argument("--limit", type=int, default=100, help="items a task")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WORKBENCH_DATA_MIRROR", "data")), help="folder of the data sets")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache"), "TQDM_DISABLE": "1"}
        worst = compare(folder, given.data, given.limit)
    print(f"largest difference of all: {worst:.1e} nats a token; goal {GOAL:.0e}: {'reached' if worst <= GOAL else 'MISSED'}")
    raise SystemExit(worst > GOAL)


def compare(folder: Path, data: Path, limit: int) -> float:
    """The largest difference a token over all tasks, printed task by task."""
    import torch
    from lm_eval.models.huggingface import HFLM

    from workbench.adapters import hf
    from workbench.adapters.lm_eval import harnessed
    from workbench.core.measure import Loglikelihood
    from workbench.data.pretrained import PretrainedTokenizer
    from workbench.engine.score import certify, loglikelihoods, rolling

    torch.set_grad_enabled(False)
    rows = write(folder, data, limit)
    save(folder, rows)
    model = hf.load(folder, PretrainedTokenizer.from_folder(folder))
    choices, pages_ = [name for name in TASKS if name != "wikitext"], ["wikitext"]
    make = lambda bos: HFLM(pretrained=str(folder), device="cpu", batch_size=16, add_bos_token=bos, dtype="float32")  # noqa: E731
    # With add_bos_token the harness's rolling windows also score the begin token, after itself; without it they begin with it all the same.
    theirs = evaluated(make(True), folder, choices) | evaluated(make(False), folder, pages_)
    ours = evaluated(harnessed(model), folder, list(TASKS))
    worst = 0.0
    for name in TASKS:
        pages = name == "wikitext"
        asked = [texts for texts, _ in theirs[name]]
        assert asked == [texts for texts, _ in ours[name]], "both were asked the same"
        requests = [Loglikelihood("", (texts[0],)) if pages else Loglikelihood(texts[0], (texts[1],)) for texts in asked]
        if pages:
            direct = [rolling(model, texts[0], stride=CONTEXT) for texts in asked]
        else:
            found = dict(loglikelihoods(model, requests))
            direct = [found[index][0] for index in range(len(requests))]
        gaps = {"adapter": 0.0, "engine": 0.0}
        for (
            _,
            theirs_,
        ), (_, ours_), tokens in zip(theirs[name], ours[name], direct, strict=True):
            gaps["adapter"] = max(gaps["adapter"], abs(theirs_ - ours_) / len(tokens))
            gaps["engine"] = max(gaps["engine"], abs(theirs_ - math.fsum(tokens)) / len(tokens))
        said = ", ".join(f"{way} {gap:.1e}" for way, gap in gaps.items())
        count = sum(map(len, direct))
        print(f"{name:12} {len(asked):5} requests, {count:7} scored tokens; largest difference a token: {said}", flush=True)
        worst = max(worst, *gaps.values())
        if not pages:
            print(f"{'':12} {certify(model, requests, share=0.05)}", flush=True)
    return worst


if __name__ == "__main__":
    main()
