"""The contestants of ``training_speed.py``: the same decoder here, in transformers and in x-transformers, each under its own loop.

Same parameters, activation (exact GELU: its tanh form takes four times as long on a CPU), batch, clipping, optimizer (fused AdamW), threads
and autocast. transformers' GPT-2 has biases and is beside ours with biases; x-transformers' decoder has none and is beside ours without.
Every loop looks at its loss once a step, as whoever watches a training does; on a GPU the peers' look at theirs only at the end.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.core.protocol import Callback
from workbench.data.corpora import tinyshakespeare
from workbench.data.text import CharTokenizer, ContiguousRows
from workbench.families.gpt import GPT, GPTConfig
from workbench.training.loop import train
from workbench.training.spec import TrainSpec

VOCABULARY = 65
BETAS, DECAY, RATE = (0.9, 0.99), 0.1, 1e-3
PAIRS = {"transformers": "ours", "x-transformers": "ours without biases"}
"""Each peer, and which of ours has its parameters."""


@dataclass(frozen=True)
class Shape:
    """A setting: the model's sizes and how many rows of how many tokens a step has."""

    layers: int
    width: int
    heads: int
    length: int
    rows: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length


SHAPES = {"small": Shape(4, 128, 4, 64, 12), "large": Shape(6, 384, 6, 256, 16)}


@dataclass(frozen=True)
class How:
    """What all contestants of one measurement share."""

    shape: Shape
    dtype: str
    device: str
    threads: int
    compile: bool = False
    clock: str = "wall"

    def autocast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bf16")


def text() -> tuple[np.ndarray, np.ndarray]:
    """Training and validation ids of tinyshakespeare, by character."""
    split = tinyshakespeare()
    tokenizer = CharTokenizer.of(split["train"] + split["validation"])
    assert tokenizer.vocab_size == VOCABULARY
    return tuple(np.asarray(tokenizer.encode(split[part]), np.int32) for part in ("train", "validation"))  # type: ignore[return-value]  # two


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
"""Seconds that pass, and seconds that this process was computing: on one thread of a busy machine the fairer of the two."""


class Clock:
    """When steps ended. On a GPU the queue is emptied before the first and after the last look alone."""

    def __init__(self, how: How, warm: int) -> None:
        self.device, self.now, self.warm, self.ends = how.device, CLOCKS[how.clock], warm, list[float]()

    def tick(self) -> None:
        if self.device == "cuda" and len(self.ends) == self.warm:
            torch.cuda.synchronize()
        self.ends.append(self.now())

    def seconds(self) -> float:
        """Of a step: the median, or on a GPU the mean over all after the warm ones."""
        if self.device == "cuda":
            torch.cuda.synchronize()
            return (self.now() - self.ends[self.warm]) / (len(self.ends) - 1 - self.warm)
        return statistics.median(b - a for a, b in zip(self.ends[self.warm :], self.ends[self.warm + 1 :]))


# --- ours


def our_model(shape: Shape, *, bias: bool, seed: int = 0) -> GPT:
    """The family under test, with learned positions as its peers have."""
    fields = {"n_layers": shape.layers, "d_model": shape.width, "n_heads": shape.heads, "n_ctx": shape.length, "positions": "learned"}
    return GPT(GPTConfig.parse({**fields, "d_vocab": VOCABULARY, "act": "gelu", "tied": True, "bias": bias}), seed=seed)


def our_spec(how: How, steps: int) -> TrainSpec:
    fields = {"steps": steps, "batch_rows": how.shape.rows, "lr": RATE, "beta1": BETAS[0], "beta2": BETAS[1], "weight_decay": DECAY}
    more = {"precision": how.dtype, "threads": how.threads, "parallel": {"compile": how.compile}}
    return TrainSpec.parse({**fields, **more})


def ours(how: How, ids: np.ndarray, steps: int, warm: int, *, bias: bool) -> tuple[float, int]:
    """Seconds a step, and the number of parameters."""
    model = our_model(how.shape, bias=bias).to(how.device)
    rows = ContiguousRows(ids, how.shape.length, rows=(steps + warm) * how.shape.rows, seed=0)
    clock = Clock(how, warm)
    tick: Callback = lambda event, state: clock.tick() if event == "step" else None  # noqa: E731
    train(model, rows, our_spec(how, steps + warm), callbacks=[tick])
    return clock.seconds(), sum(p.numel() for p in model.parameters())


# --- peers


def gpt2(shape: Shape) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """transformers' GPT-2 and what gives its logits. Its default activation, a tanh written out in parts, would be slower."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import GPT2Config, GPT2LMHeadModel

    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) | dict.fromkeys(("bos_token_id", "eos_token_id"), None)
    sizes = {"n_positions": shape.length, "n_embd": shape.width, "n_layer": shape.layers, "n_head": shape.heads}
    kinds: dict[str, Any] = {"activation_function": "gelu", "use_cache": False, "attn_implementation": "sdpa"}
    config = GPT2Config(vocab_size=VOCABULARY, **sizes, **off, **kinds)
    model = GPT2LMHeadModel(config)
    return model, lambda tokens: model(tokens, use_cache=False).logits


def x_decoder(shape: Shape) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """x-transformers' decoder, which is without biases where its feed-forward part is told so."""
    sys.path.append(os.environ["ASSAY_PEERS"])
    from x_transformers import Decoder, TransformerWrapper  # type: ignore[import-not-found]  # in a folder of its own

    sizes = {"dim": shape.width, "depth": shape.layers, "heads": shape.heads, "attn_dim_head": shape.width // shape.heads}
    layers = Decoder(**sizes, attn_flash=True, ff_no_bias=True)
    model = TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=shape.length, tie_embedding=True, attn_layers=layers)
    return model, model


PEERS = {"transformers": gpt2, "x-transformers": x_decoder}


def drawn(ids: np.ndarray, how: How, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random windows and what follows each token."""
    starts = draw.integers(0, len(ids) - how.shape.length - 1, how.shape.rows)
    window = torch.from_numpy(ids[starts[:, None] + np.arange(how.shape.length + 1)].astype(np.int64))
    window = window.pin_memory().to(how.device, non_blocking=True) if how.device == "cuda" else window
    return window[:, :-1], window[:, 1:]


def nll(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean loss, in float32."""
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1))


class Loop:
    """A peer's loop: as plain as they come, with nothing in it that costs more than it must."""

    def __init__(self, name: str, how: How, ids: np.ndarray, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.how, self.ids, self.draw = how, ids, np.random.default_rng(seed)
        self.model, self.logits = PEERS[name](how.shape)
        self.model.to(how.device).train()
        if how.compile:
            self.model.compile()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)

    def step(self) -> Tensor:
        """One step; the loss."""
        tokens, targets = drawn(self.ids, self.how, self.draw)
        with self.how.autocast():
            loss = nll(self.logits(tokens), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        return loss.detach()


def peer(name: str, how: How, ids: np.ndarray, steps: int, warm: int) -> tuple[float, int]:
    """Seconds a step, and the number of parameters."""
    torch.set_num_threads(how.threads)
    loop, clock = Loop(name, how, ids), Clock(how, warm)
    for _ in range(steps + warm):
        loss = loop.step()
        if how.device == "cpu":
            loss.item()
        clock.tick()
    return clock.seconds(), sum(p.numel() for p in loop.model.parameters())


def measured(name: str, how: How, ids: np.ndarray, steps: int, warm: int) -> dict[str, float]:
    """One contestant in one setting."""
    if name in PEERS:
        seconds, count = peer(name, how, ids, steps, warm)
    else:
        seconds, count = ours(how, ids, steps, warm, bias=name == "ours")
    return {"seconds": seconds, "parameters": count, "tokens": how.shape.tokens / seconds}
