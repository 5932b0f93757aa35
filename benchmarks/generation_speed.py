"""Decoding ragged prompts beside `transformers`' ``generate``, on the same weights: ``python benchmarks/generation_speed.py``.

Two random models: a small one (6 layers, 256 wide) and one of GPT-2 small's shape. 64 prompts of 4 to 64 tokens, which need 8 to 64 new
tokens each (32 for the larger model), greedy; how much a prompt needs is not known before, as where texts end by themselves. `transformers`
pads its prompts to the left and decodes each batch until its longest text is done; it runs at the batch size, of those tried, that is
fastest, with the prompts sorted by length. Ours lets rows come and go. Only the tokens that were needed count. Each side runs in a process
of its own, in turns, on two threads; ratios are taken within a round. Counted besides, and free of noise: tokens that pass the layers,
padding and finished rows included. The texts of both are compared.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import apart

ROOT = Path(__file__).resolve().parents[1]
THREADS, SEED, PROMPTS, SIZES, GOAL = 2, 0, 64, (8, 16, 32, 64), 3.0
SHAPES: dict[str, dict[str, Any]] = {
    "small": {"n_layer": 6, "n_embd": 256, "n_head": 4, "vocab_size": 8192, "n_positions": 256},
    "GPT-2 small's shape": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 256},
}
LONGEST = {"small": 64, "GPT-2 small's shape": 32}
"""New tokens at most."""


def peak() -> float:
    """MiB this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prompts(name: str) -> list[tuple[list[int], int]]:
    """(ids, how many new tokens) of each prompt; id 0 is kept for padding."""
    draw, vocabulary = random.Random(SEED), SHAPES[name]["vocab_size"]
    return [([draw.randrange(1, vocabulary) for _ in range(draw.randint(4, 64))], draw.randint(8, LONGEST[name])) for _ in range(PROMPTS)]


def save(folder: Path, shape: dict[str, Any]) -> None:
    """The model, in the published form, with weights large enough that the likeliest token is no near tie."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=None, eos_token_id=None))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.05)
    model.save_pretrained(folder)


# --- theirs -------------------------------------------------------------------------------------------------------


def theirs(folder: Path, rows: list[tuple[list[int], int]], size: int) -> dict[str, Any]:
    """One pass over the prompts in batches of ``size``."""
    import torch
    from transformers import GPT2LMHeadModel

    model, counted = GPT2LMHeadModel.from_pretrained(folder).eval(), [0]
    model.register_forward_pre_hook(
        lambda _, given, named: counted.__setitem__(0, counted[0] + (given[0] if given else named["input_ids"]).numel()), with_kwargs=True
    )
    order = sorted(range(len(rows)), key=lambda k: len(rows[k][0]))

    def decode(some: list[int]) -> dict[int, list[int]]:
        width, most = max(len(rows[k][0]) for k in some), max(rows[k][1] for k in some)
        ids, mask = torch.zeros(len(some), width, dtype=torch.long), torch.zeros(len(some), width, dtype=torch.long)
        for row, k in enumerate(some):
            ids[row, width - len(rows[k][0]) :] = torch.tensor(rows[k][0])
            mask[row, width - len(rows[k][0]) :] = 1
        out = model.generate(ids, attention_mask=mask, max_new_tokens=most, do_sample=False, pad_token_id=0)
        return {k: out[row, width : width + rows[k][1]].tolist() for row, k in enumerate(some)}

    decode(order[:2])
    counted[0] = 0
    found: dict[int, list[int]] = {}
    began, worked = time.perf_counter(), time.process_time()
    for first in range(0, len(order), size):
        found |= decode(order[first : first + size])
    took = {"wall": time.perf_counter() - began, "cpu": time.process_time() - worked}
    return took | {"tokens": counted[0], "texts": [found[k] for k in range(len(rows))], "peak": peak()}


# --- ours -------------------------------------------------------------------------------------------------------


class Ids:
    """A tokenizer of ids written as words, so that no time goes into text on either side."""

    bos_id = eos_id = pad_id = None

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))

    def pieces(self, ids: list[int]) -> list[str]:
        return [str(one) for one in ids]

    def digest(self) -> str:
        return "ids"


class Counted:
    """A model that counts the tokens that pass its layers."""

    def __init__(self, model: Any) -> None:
        self.model, self.tokens = model, 0
        for name in ("family", "config", "tokenizer", "abilities", "resumes", "sites", "weight"):
            setattr(self, name, getattr(model, name))

    def run(self, batch: Any, **options: Any) -> Any:
        self.tokens += batch.numel()
        return self.model.run(batch, **options)


def ours(folder: Path, rows: list[tuple[list[int], int]], _: int) -> dict[str, Any]:
    """One pass over the prompts."""
    from workbench.adapters import hf
    from workbench.core.measure import Generate
    from workbench.engine.generate import generations

    inner = hf.load(folder)
    inner.tokenizer = Ids(inner.config.d_vocab)
    requests = [Generate(" ".join(map(str, ids)), most) for ids, most in rows]
    dict(generations(inner, requests[:2]))
    began, worked = time.perf_counter(), time.process_time()
    found = dict(generations(inner, requests))
    took, top = {"wall": time.perf_counter() - began, "cpu": time.process_time() - worked}, peak()
    counted: Any = Counted(inner)  # a pass of its own: a wrapper is asked by runs, and takes the same steps
    again = dict(generations(counted, requests))
    assert again == found, "runs write what steps write"
    return took | {"tokens": counted.tokens, "texts": [[int(w) for w in found[k].split()] for k in range(len(rows))], "peak": top}


# --- side by side -------------------------------------------------------------------------------------------------


def alone(part: str, folder: Path, name: str, size: int) -> dict[str, Any]:
    """One part in a process of its own."""
    return apart.alone(__file__, {"part": part, "folder": folder, "shape": name, "size": size}, threads=THREADS)


def spread(values: list[float]) -> str:
    """The median with the least and the largest."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def report(name: str, size: int, rounds: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Medians over rounds, ratios with their range, what was counted, agreement and memory."""
    wanted = sum(most for _, most in prompts(name))
    print(f"\n{name}: {PROMPTS} prompts, {wanted} new tokens; transformers at batch size {size}")
    for side, label in enumerate(("transformers", "ours")):
        pace = statistics.median(wanted / one[side]["wall"] for one in rounds)
        memory = statistics.median(one[side]["peak"] for one in rounds)
        print(f"    {label:12} {pace:8.0f} new tokens/s, {rounds[-1][side]['tokens']:7} tokens read, peak {memory:,.0f} MiB")
    walls, works = ([a[clock] / b[clock] for a, b in rounds] for clock in ("wall", "cpu"))
    same = sum(a == b for a, b in zip(rounds[-1][0]["texts"], rounds[-1][1]["texts"], strict=True))
    print(f"    {spread(walls)} times as fast over {len(rounds)} rounds (of processor time {spread(works)}); goal {GOAL:g};")
    print(
        f"    {rounds[-1][0]['tokens'] / rounds[-1][1]['tokens']:.2f} times fewer tokens; {same} of {PROMPTS} texts are the same",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding ragged prompts beside transformers' generate on the same weights.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=list(SHAPES), help="only this model")
    parser.add_argument("--part", choices=["theirs", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        import torch

        torch.set_num_threads(THREADS)
        torch.set_grad_enabled(False)
        print(json.dumps({"theirs": theirs, "ours": ours}[given.part](given.folder, prompts(given.shape), given.size)))
        return
    for name in [given.shape] if given.shape else SHAPES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            save(folder, SHAPES[name])
            tried = {size: alone("theirs", folder, name, size)["wall"] for size in SIZES}
            size = min(tried, key=lambda one: tried[one])
            print("seconds by batch size: " + ", ".join(f"{one}: {seconds:.1f}" for one, seconds in tried.items()), flush=True)
            report(name, size, [(alone("theirs", folder, name, size), alone("ours", folder, name, 0)) for _ in range(given.rounds)])


if __name__ == "__main__":
    main()
