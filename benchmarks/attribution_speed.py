"""Input attribution beside captum on the same weights: ``python benchmarks/attribution_speed.py [--rounds N] [--small]``.

Three methods from the zero baseline on a few items of 32 tokens. Occlusion token by token and Shapley values from as many random orders
run on a random decoder of Llama's shape (4 layers, 256 wide, 8 heads, vocabulary 8,192): their cost is the same whatever the weights.
Integrated gradients at an equal completeness gap run on one trained here (a minute or two; the recipe ``gpt-town`` in Llama's shape, 4
layers, 128 wide) and on the town's own test sentences: how many steps a path takes depends on the weights, and on random ones neither
library gets along it. Each library runs in a process of its own, in turns, on two threads; a ratio is taken within a round, its interval
is a bootstrap of the median over rounds.

captum is given embeddings and a function that reads the last position's logit, and logits are computed at that position only. Its
defaults (one edited version a pass) stand over transformers' own model, which its user has, and over ours; its best number of versions a
pass over whichever model is faster. Integrated gradients take captum's best rule and the fewest steps (doubling from 8, at most 256) with
which every item's gap is within the tolerance, or, where there are none, the gap that 256 steps leave; finding that number costs captum
nothing here, while ours pays for every round of doubling. Positions are turned here and not added, so that a norm bends the answer sharply
near the zero embedding, where our points crowd; with learned positions, as GPT-2's, it does not, and both need few steps.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apart
import numpy as np
import torch
from torch import Tensor

THREADS, SEED, TOLERANCE, ORDERS = 2, 0, 0.02, 8
SHAPE: dict[str, Any] = {
    "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 8, "num_key_value_heads": 8,
    "vocab_size": 8192, "max_position_embeddings": 128,
}  # fmt: skip
SMALL: dict[str, Any] = {**SHAPE, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 172, "vocab_size": 997}
STEPS, TRAINED, PROMPTS = 400, "trained", "prompts.json"
FLOORS = {"occlusion": 3.0, "shapley": 3.0, "integrated gradients": 2.0}
VERSIONS = (1, 8, 32, 64)
"""Edited versions in one of captum's passes."""
RULES, MOST = ("gausslegendre", "riemann_middle"), 256
"""captum's rules of quadrature that are worth trying, and steps at most."""


def weights(folder: Path, shape: dict[str, Any]) -> None:
    """The model, in the published form, with weights large enough that tokens matter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    model = LlamaForCausalLM(LlamaConfig(**shape, bos_token_id=None, eos_token_id=None, pad_token_id=None))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.03)
        model.model.embed_tokens.weight.mul_(10)  # what is embedded outweighs what the layers add, as in a trained model
    model.save_pretrained(folder)


def trained(folder: Path, length: int) -> None:
    """A model of the town in the published form, and rows of the town's test sentences."""
    import workbench
    from workbench.adapters import hf
    from workbench.data.worlds.town import Town
    from workbench.store.runs import Store

    shape = {"norm": "rms", "act": "swiglu", "bias": False, "n_layers": 4, "d_model": 128}
    with tempfile.TemporaryDirectory() as home:
        made = workbench.train("gpt-town", settings={"train": {"steps": STEPS}, "model": shape}, store=Store.open(home))
    folder.mkdir()
    hf.save(made.model, folder, "llama")
    ids = made.model.tokenizer.encode("\n".join(Town().texts("test")[:100]))
    rows = [ids[at : at + length] for at in range(0, len(ids) - length, length)]
    (folder / PROMPTS).write_text(json.dumps(rows))


def items(folder: Path, told: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Token ids ``[batch, pos]`` and the id asked about after each: the likeliest, so that there is an answer to explain."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder).eval()
    if (folder / PROMPTS).exists():
        ids = torch.tensor(json.loads((folder / PROMPTS).read_text())[: told["items"]])
    else:
        ids = torch.randint(0, model.config.vocab_size, (told["items"], told["length"]), generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        return ids, model(ids).logits[:, -1].argmax(-1)


def clock(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """The fastest of ``repeats``, in seconds, and the last outcome."""
    best, out = float("inf"), None
    for _ in range(repeats):
        began = time.perf_counter()
        out = work()
        best = min(best, time.perf_counter() - began)
    return best, out


# --- theirs -----------------------------------------------------------------------------------------------------


def transformers_model(folder: Path) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()

    def forward(x: Tensor, targets: Tensor) -> Tensor:
        logits = model(inputs_embeds=x, logits_to_keep=1, use_cache=False).logits[:, -1]
        return logits.gather(1, targets[:, None])[:, 0]

    return forward, model.model.embed_tokens.weight.detach()


def our_model(folder: Path) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    from workbench.adapters import hf
    from workbench.core.protocol import Replace

    model = hf.load(folder)

    def forward(x: Tensor, targets: Tensor) -> Tensor:
        ids = torch.zeros(x.shape[:2], dtype=torch.long)
        logits = model.run(ids, edit=[Replace("hook_embed", value=x)], logits="last", grad=torch.is_grad_enabled()).logits
        assert logits is not None
        return logits[:, -1].gather(1, targets[:, None])[:, 0]

    return forward, model.weight("W_E").detach()


WAYS: dict[str, Callable[[Path], tuple[Callable[[Tensor, Tensor], Tensor], Tensor]]] = {
    "transformers": transformers_model,
    "ours": our_model,
}


def theirs(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each method with the chosen settings, and the attributions by token."""
    from captum.attr import FeatureAblation, IntegratedGradients, ShapleyValueSampling

    ids, targets = items(folder, told)
    out: dict[str, Any] = {}

    def note(name: str, seconds: float, found: Tensor, *, shared: bool) -> None:
        tokens = found[..., 0] if shared else found.sum(-1)
        out[name] = {"seconds": seconds, "values": tokens.detach().double().tolist()}

    for way, versions in [(way, 1) for way in WAYS] + [(told["way"], told["versions"])]:
        forward, embeddings = WAYS[way](folder)
        x = embeddings[ids]
        mask = torch.arange(ids.shape[1])[None, :, None].expand(1, ids.shape[1], x.shape[2]).contiguous()
        forward(x, targets)
        ablation = FeatureAblation(forward)
        seconds, found = clock(
            lambda v=versions, a=ablation, x=x, mask=mask: a.attribute(
                x, additional_forward_args=targets, feature_mask=mask, perturbations_per_eval=v
            ),
            2,
        )
        note(f"occlusion {versions}, {way}", seconds, found, shared=True)
        shapley = ShapleyValueSampling(forward)
        torch.manual_seed(SEED)
        seconds, found = clock(
            lambda v=versions, s=shapley, x=x, mask=mask: s.attribute(
                x, additional_forward_args=(targets,), feature_mask=mask, n_samples=ORDERS, perturbations_per_eval=v
            )
        )
        note(f"shapley {versions}, {way}", seconds, found, shared=True)
    rule, steps, size = told["rule"], told["steps"], told["size"]
    forward, embeddings = WAYS[told["trained way"]](folder / TRAINED)
    ids, targets = items(folder / TRAINED, told)
    x = embeddings[ids]
    forward(x, targets)
    seconds, found = clock(
        lambda: IntegratedGradients(forward).attribute(
            x, additional_forward_args=targets, n_steps=steps, method=rule, internal_batch_size=size
        )
    )
    note("integrated gradients", seconds, found, shared=False)
    with torch.no_grad():
        difference = (forward(x, targets) - forward(torch.zeros_like(x), targets)).double()
    gap = (found.sum((1, 2)).double() - difference).abs() / difference.abs()
    out["integrated gradients"]["gap"] = float(gap.max())
    return out


def chosen(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """captum's best: the model, versions a pass, and rule, steps and batch size of integrated gradients. Tried here, outside the clock."""
    from captum.attr import FeatureAblation, IntegratedGradients

    def passes_of(folder: Path) -> dict[str, float]:
        seconds: dict[str, float] = {}
        for way, make in WAYS.items():
            forward, embeddings = make(folder)
            ids, targets = items(folder, told)
            with torch.no_grad():
                forward(embeddings[ids], targets)
                seconds[way] = clock(lambda f=forward, x=embeddings[ids], t=targets: f(x, t), 5)[0]
        return seconds

    seconds = passes_of(folder)
    way = min(seconds, key=lambda one: seconds[one])
    forward, embeddings = WAYS[way](folder)
    ids, targets = items(folder, told)
    x = embeddings[ids]
    mask = torch.arange(ids.shape[1])[None, :, None].expand(1, ids.shape[1], x.shape[2]).contiguous()
    passes = {
        v: clock(
            lambda v=v: FeatureAblation(forward).attribute(x, additional_forward_args=targets, feature_mask=mask, perturbations_per_eval=v),
            2,
        )[0]
        for v in VERSIONS
    }
    inside = passes_of(folder / TRAINED)
    trained_way = min(inside, key=lambda one: inside[one])
    forward, embeddings = WAYS[trained_way](folder / TRAINED)
    ids, targets = items(folder / TRAINED, told)
    x = embeddings[ids]
    with torch.no_grad():
        difference = (forward(x, targets) - forward(torch.zeros_like(x), targets)).double()

    def gap(rule: str, steps: int) -> float:
        found = IntegratedGradients(forward).attribute(
            x, additional_forward_args=targets, n_steps=steps, method=rule, internal_batch_size=32 * told["items"]
        )
        return float(((found.sum((1, 2)).double() - difference).abs() / difference.abs()).max())

    needed: dict[str, tuple[int, float]] = {}
    for rule in RULES:
        steps = 8
        while (left := gap(rule, steps)) > TOLERANCE and steps < MOST:
            steps *= 2
        needed[rule] = (steps, left)
    rule = min(needed, key=lambda one: needed[one])
    sizes = {
        size: clock(
            lambda size=size: IntegratedGradients(forward).attribute(
                x, additional_forward_args=targets, n_steps=needed[rule][0], method=rule, internal_batch_size=size
            )
        )[0]
        for size in (told["items"], 4 * told["items"], 16 * told["items"])
    }
    return {
        "way": way, "trained way": trained_way, "versions": min(passes, key=lambda v: passes[v]), "rule": rule, "steps": needed[rule][0],
        "size": min(sizes, key=lambda s: sizes[s]), "needed": needed, "forward": seconds,
        "tolerance": max(TOLERANCE, needed[rule][1]),
    }  # fmt: skip


# --- ours -------------------------------------------------------------------------------------------------------


def ours(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each instrument (all of it but the digest of the weights, which is timed apart), and its attributions."""
    from probes import INSTRUMENTS
    from probes.quality_stability import Stood
    from workbench.adapters import hf
    from workbench.core.protocol import Inputs

    model, learned = hf.load(folder), hf.load(folder / TRAINED)
    ids, targets = items(folder, told)
    inputs, stood = Inputs(ids, targets=targets), Stood(model, "hook_embed")
    sentences, answers = items(folder / TRAINED, told)
    model.run(ids, logits="last")
    learned.run(sentences, logits="last")
    specs: dict[str, dict[str, Any]] = {
        "occlusion": {},
        "shapley": {"samples": ORDERS, "antithetic": False},
        "integrated gradients": {"tolerance": told["tolerance"], "steps": 8, "max_steps": MOST},
    }
    out: dict[str, Any] = {}
    for name, settings in specs.items():
        tool = INSTRUMENTS.load(name.replace(" ", "-"))
        spec = tool.spec.parse(settings)
        given = (Stood(learned, "hook_embed"), Inputs(sentences, targets=answers)) if name == "integrated gradients" else (stood, inputs)
        seconds, result = clock(lambda t=tool, s=spec, g=given: t(*g, s), 1 if name == "shapley" else 2)
        out[name] = {"seconds": seconds, "values": result.values.attribution.values.tolist()}
        if name == "integrated gradients":
            v = result.values
            out[name]["gap"] = float((v.gap / np.abs(v.value - v.baseline_value)).max())
            out[name]["steps"] = int(v.steps.max())
    out["digest"] = clock(model.digest)[0]
    if told["first"]:
        paired = INSTRUMENTS.load("shapley")
        errors = {
            kind: float(
                np.mean(paired(stood, inputs, paired.spec.parse({"samples": 4 * ORDERS, "antithetic": kind})).values.standard_error)
            )
            for kind in (True, False)
        }
        out["antithetic"] = errors[False] ** 2 / errors[True] ** 2
    return out


def reference(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Integrated gradients in float64 with steps doubled until no attribution moves by more than a thousandth of the largest."""
    from probes import INSTRUMENTS
    from workbench.adapters import hf
    from workbench.core.protocol import Inputs

    model = hf.load(folder / TRAINED).double()
    ids, targets = items(folder / TRAINED, told)
    tool = INSTRUMENTS.load("integrated-gradients")
    steps, before = 128, None
    while True:
        spec = tool.spec.parse({"steps": steps, "max_steps": steps, "tolerance": 1e-9})
        found = tool(model, Inputs(ids, targets=targets), spec).values.attribution.values
        moved = float("inf") if before is None else float(np.abs(found - before).max() / np.abs(found).max())
        if moved < 1e-3 or steps >= 4096:
            return {"values": found.tolist(), "steps": steps, "moved": moved}
        steps, before = 2 * steps, found


# --- side by side -------------------------------------------------------------------------------------------------


def alone(part: str, folder: Path, told: dict[str, Any]) -> Any:
    """One part in a process of its own."""
    return apart.alone(__file__, {"part": part, "folder": folder, "threads": told["threads"]}, told, threads=told["threads"])


def report(rounds: list[tuple[dict[str, Any], dict[str, Any]]], told: dict[str, Any]) -> None:
    """A line for each method: seconds, the ratio with its interval, its floor, and how far the attributions agree."""
    settings = [f"1, {way}" for way in WAYS] + [f"{told['versions']}, {told['way']}"]
    beside = {f"{method} {one}": method for method in ("occlusion", "shapley") for one in settings}
    for name, own in {**beside, "integrated gradients": "integrated gradients"}.items():
        slow, fast = ([side[key]["seconds"] for side in sides] for key, sides in zip((name, own), zip(*rounds, strict=True), strict=True))
        ratios = [a / b for a, b in zip(slow, fast, strict=True)]
        low, high = apart.interval(ratios)
        a, b = (np.array(side[key]["values"]) for key, side in zip((name, own), rounds[-1], strict=True))
        floor = f"; floor {FLOORS[own]:g}" if name in (f"occlusion {settings[0]}", f"shapley {settings[0]}", own) else ""
        print(f"{name:26} theirs {statistics.median(slow):8.3f} s, ours {statistics.median(fast):8.3f} s")
        print(f"    ratio {statistics.median(ratios):.1f} [{low:.1f}, {high:.1f}] over {len(ratios)} rounds{floor}; ", end="")
        print(f"correlation of the attributions {np.corrcoef(a.ravel(), b.ravel())[0, 1]:.6f}")
    gaps = [side["integrated gradients"] for side in rounds[-1]]
    print(
        f"integrated gradients: largest gap theirs {gaps[0]['gap']:.2g} at {told['steps']} steps ({told['rule']}), "
        f"ours {gaps[1]['gap']:.2g} at {gaps[1]['steps']}; asked for {told['tolerance']:.2g}"
    )
    if any(side["integrated gradients"]["gap"] > 1.01 * told["tolerance"] for _, side in rounds):
        print("    VOID: ours did not reach the gap asked for, so its ratio compares unlike work")
    whole = np.array(told["reference"]["values"])
    for side, one in zip(("theirs", "ours"), gaps, strict=True):
        found = np.array(one["values"])
        far = np.linalg.norm(found - whole) / np.linalg.norm(whole)
        alike = np.corrcoef(found.ravel(), whole.ravel())[0, 1]
        print(f"    {side}: {far:.3f} from the converged attributions (relative, Euclidean), correlation {alike:.3f}")
    print(f"    converged: float64, {told['reference']['steps']} steps, moved by {told['reference']['moved']:.1e} in the last doubling")
    print(f"antithetic orders make the variance {rounds[0][1]['antithetic']:.1f} times smaller at the same cost")
    print(f"the digest of the weights adds {statistics.median(b['digest'] for _, b in rounds):.2f} s a result")


def main() -> None:
    parser = argparse.ArgumentParser(description="Input attribution beside captum on the same weights.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=2)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--small", action="store_true", help="a model of 2 layers, to try the script")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--part", choices=["chosen", "reference", "theirs", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.part:
        parts: dict[str, Callable[[Path, dict[str, Any]], Any]] = {"chosen": chosen, "reference": reference, "theirs": theirs, "ours": ours}
        print(json.dumps(parts[given.part](given.folder, json.load(sys.stdin))))
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "captum", "transformers"))
    print(f"{versions}; {given.threads} threads; {given.items} items of {given.length} tokens, {ORDERS} orders", flush=True)
    told: dict[str, Any] = {"threads": given.threads, "items": given.items, "length": given.length}
    rounds: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights(folder, SMALL if given.small else SHAPE)
        trained(folder / TRAINED, given.length)
        told |= alone("chosen", folder, told)
        told["reference"] = alone("reference", folder, told)
        forward = ", ".join(f"{way} {1000 * seconds:.1f} ms" for way, seconds in told["forward"].items())
        print(
            f"captum's best: a pass {forward}; {told['versions']} versions a pass; steps and gap {told['needed']}, {told['size']} rows",
            flush=True,
        )
        for k in range(given.rounds):
            told["first"] = not k
            pair = [alone(part, folder, told) for part in (("theirs", "ours") if k % 2 else ("ours", "theirs"))]
            rounds.append((pair[0], pair[1]) if k % 2 else (pair[1], pair[0]))
    report(rounds, told)


if __name__ == "__main__":
    main()
