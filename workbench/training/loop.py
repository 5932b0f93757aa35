"""The training loop.

One optimizer step at a time: rows by counter, forward and backward in micro-batches, one normalisation by the number of
predicted tokens over all of them, clipping, AdamW. Whatever is random is drawn from (seed, step, micro-batch), so a run that was
cut off and continued ends in the same weights, to the byte, as one that was not: same machine, same number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.blocks.digest import weights_digest
from workbench.blocks.init import generator_of
from workbench.core.batch import RowData
from workbench.core.errors import BadValue, Diverged
from workbench.core.protocol import Callback, Progress, silent
from workbench.training import checkpoint
from workbench.training.optimizer import adamw, decaying, restore, state_of
from workbench.training.order import row_order
from workbench.training.precision import computing
from workbench.training.spec import TrainSpec

RECORDS = 200
"""About how many points of the loss curve are kept."""
FINAL = "final"


def train(
    model: Any,
    data: RowData,
    spec: TrainSpec,
    *,
    out: Path | str | None = None,
    validation: RowData | None = None,
    callbacks: Sequence[Callback] = (),
    progress: Progress = silent,
    resume: Literal["auto", False] = "auto",
) -> dict[str, Any]:
    """Train ``model`` in place and return its history; with ``out``, leave checkpoints there and the model in ``out/final``.

    ``model`` is a family's module (``loss(batch) -> (sum, count)``, ``config``, ``tokenizer``). A step's checkpoint is written before
    it is validated. With ``patience`` the run stops after that many validations without improvement, and the weights that
    validated best are the final ones. ``resume="auto"`` continues from the last checkpoint in ``out`` where there is one, and
    returns at once where ``out/final`` is there; ``False`` wants an empty ``out``.

    Events for ``callbacks``: ``step``, ``checkpoint`` (``folder``), ``validation`` (``loss``), ``end`` (``history``).
    History: ``steps``, ``tokens`` (predicted), ``record`` and ``validation`` (lists of step, loss …; nats a token), ``best``,
    ``stopped`` (steps or patience), ``weights`` (sha256), ``threads``, ``decaying``; and, not reproducible, ``seconds``, ``resumed_from``.

    Raises BadValue (data, or an ``out`` that holds another run) and Diverged (a loss or gradient that is not finite; nothing is
    written after it).
    """
    if len(data) == 0:
        raise BadValue("the training data", "no rows", "at least one row")
    if spec.patience and (validation is None or len(validation) == 0):
        raise BadValue("patience", spec.patience, "0 without validation data")
    run = _Run(model, data, spec, Path(out) if out is not None else None, validation, callbacks, progress)
    was_training, threads = model.training, torch.get_num_threads()
    try:
        if not run.find(resume):
            run.go()
        return run.history()
    finally:
        model.train(was_training)
        torch.set_num_threads(threads)


def evaluate(model: Any, data: RowData, *, rows: int = 32, precision: Literal["float32", "bf16"] = "float32") -> tuple[float, int]:
    """The mean loss (nats a predicted token) over all rows, without dropout, and how many tokens that is."""
    if len(data) == 0:
        raise BadValue("the validation data", "no rows", "at least one row")
    device, was_training = _device(model), model.training
    model.eval()
    total, count = 0.0, 0
    try:
        with torch.no_grad():
            for first in range(0, len(data), rows):
                batch = data.batch(range(first, min(first + rows, len(data)))).to(device)
                with computing(precision, device):
                    part, n = model.loss(batch)
                total, count = total + part.item(), count + n
    finally:
        model.train(was_training)
    if count == 0:
        raise BadValue("the validation data", "no targets", "at least one token to predict")
    return total / count, count


class _Run:
    """One call of ``train``: what changes from step to step, and the moves that change it."""

    def __init__(
        self,
        model: Any,
        data: RowData,
        spec: TrainSpec,
        out: Path | None,
        validation: RowData | None,
        callbacks: Sequence[Callback],
        progress: Progress,
    ) -> None:
        self.model, self.data, self.spec, self.out, self.validation = model, data, spec, out, validation
        self.callbacks, self.progress, self.device = callbacks, progress, _device(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = adamw(model, spec)
        self.step, self.tokens, self.bad = 0, 0, 0
        self.record: list[dict[str, Any]] = []
        self.validations: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.since: list[float] = [0.0, 0]  # loss sum and tokens since the last record
        self.stopped = ""
        self.threads = spec.threads or torch.get_num_threads()
        self.identity = {"spec": spec.digest(), "data": data.digest(), "start": model.digest()}
        if validation is not None:
            self.identity["validation"] = validation.digest()
        self.resumed_from: int | None = None
        self.kept_best: dict[str, Tensor] | None = None
        self.seconds = 0.0

    # --- resuming

    def find(self, resume: Literal["auto", False]) -> bool:
        """Continue from what ``out`` holds; true where the run is already finished."""
        torch.set_num_threads(self.threads)
        if self.out is None:
            return False
        self.out.mkdir(parents=True, exist_ok=True)
        checkpoint.clean(self.out)
        final = self.out / FINAL
        last = final if final.is_dir() else checkpoint.pointed(self.out, checkpoint.LATEST)
        if last is None:
            return False
        if resume is False:
            raise BadValue(
                "out", str(self.out), "empty or new, since it holds a run", do="Give resume='auto' to continue it, or another folder."
            )
        found = checkpoint.read(last)
        self._same_run(found)
        checkpoint.fill(self.model, found.weights, last / "model.safetensors")
        self._take(found.train_state)
        torch.set_num_threads(self.threads)
        if last != final:
            restore(self.optimizer, self.model, found.optimizer or {}, self.step, last / "optimizer.safetensors")
        self.resumed_from = self.step
        return last == final

    def _same_run(self, found: checkpoint.Checkpoint) -> None:
        stored = found.train_state.get("identity", {})
        for name, value in self.identity.items():
            if stored.get(name) != value:
                words = {"spec": "training spec", "data": "training data", "start": "untrained model", "validation": "validation data"}[
                    name
                ]
                raise BadValue(
                    "out", str(self.out), f"a folder of this run, and it holds one with another {words}", do="Give another folder."
                )

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self.identity, "step": self.step, "tokens": self.tokens, "bad": self.bad, "record": self.record,
            "validation": self.validations, "best": self.best, "since": self.since, "stopped": self.stopped, "threads": self.threads,
        }  # fmt: skip

    def _take(self, state: Any) -> None:
        self.step, self.tokens, self.bad, self.record = state["step"], state["tokens"], state["bad"], list(state["record"])
        self.validations, self.best, self.since = list(state["validation"]), state["best"], list(state["since"])
        self.stopped, self.threads = state["stopped"], state["threads"]

    # --- going

    def go(self) -> None:
        """Step until done, saving and validating where due; then leave the final model."""
        began, first, seen = time.perf_counter(), self.step, self.tokens
        fresh = self.resumed_from is None
        while True:
            if self.step and fresh and self._due(self.spec.save_every, self.spec.validate_every):
                self._save()
            fresh = True
            if self.validation is not None and self.step and (self._due(self.spec.validate_every) or self.step == self.spec.steps):
                self._validate(self.validation)
            if self.stopped or self.step == self.spec.steps:
                break
            loss = self._advance()
            self.seconds = time.perf_counter() - began
            self.progress(
                self.step, self.spec.steps, _words(loss, self.seconds, self.step - first, self.tokens - seen, self.spec.steps - self.step)
            )
        self._finish()

    def _due(self, *every: int) -> bool:
        return any(n and self.step % n == 0 for n in every)

    def _advance(self) -> float:
        spec = self.spec
        if not self.model.training:
            self.model.train()
        lr = spec.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        total, count = self._gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, spec.clip or math.inf, foreach=True)
        loss, size = torch.stack((total / count, norm.to(total.dtype))).tolist()
        if not (math.isfinite(loss) and math.isfinite(size)):
            raise Diverged(self.step, loss, size, last=str(checkpoint.pointed(self.out, checkpoint.LATEST) or "") if self.out else "")
        self.optimizer.step()
        self.step, self.tokens = self.step + 1, self.tokens + count
        self.since = [self.since[0] + loss * count, self.since[1] + count]
        if self.step % max(1, spec.steps // RECORDS) == 0 or self.step == spec.steps:
            self.record.append({"step": self.step, "loss": self.since[0] / self.since[1], "lr": lr, "norm": size, "tokens": self.tokens})
            self.since = [0.0, 0]
        self._tell("step", loss=loss, lr=lr, norm=size)
        return loss

    def _gradients(self) -> tuple[Tensor, int]:
        """The summed loss and the number of predicted tokens of this step's rows, with gradients of their quotient in place."""
        spec = self.spec
        rows = row_order(spec.seed, self.step, spec.batch_rows, len(self.data))
        size = spec.batch_rows // spec.accumulate
        total, count = torch.zeros((), device=self.device), 0
        for micro in range(spec.accumulate):
            batch = self.data.batch(rows[micro * size : (micro + 1) * size]).to(self.device)
            with _drawing(self.device, spec.seed, self.step, micro), computing(spec.precision, self.device):
                part, n = self.model.loss(batch)
            # One micro-batch is normalised before the backward pass, several after it: their common count is known only then.
            (part / max(n, 1) if spec.accumulate == 1 else part).backward()
            total, count = total + part.detach(), count + n
        if count == 0:
            raise BadValue(f"the rows of step {self.step}", rows, "rows with at least one token to predict")
        if spec.accumulate > 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(count)
        return total, count

    def _save(self) -> None:
        if self.out is None:
            return
        folder = checkpoint.save(self.out, self.model, state_of(self.optimizer, self.model), self._state(), self.spec.keep)
        self._tell("checkpoint", folder=folder)

    def _validate(self, data: RowData) -> None:
        loss, count = evaluate(self.model, data, rows=4 * self.spec.batch_rows, precision=self.spec.precision)
        if not math.isfinite(loss):
            raise Diverged(self.step, loss, math.nan, last=str(checkpoint.pointed(self.out, checkpoint.LATEST) or "") if self.out else "")
        self.validations.append({"step": self.step, "loss": loss, "tokens": count})
        if self.best is None or loss < self.best["loss"]:
            self.best, self.bad = {"step": self.step, "loss": loss}, 0
            self._remember()
        else:
            self.bad += 1
        if self.spec.patience and self.bad >= self.spec.patience:
            self.stopped = "patience"
        self._tell("validation", loss=loss)

    def _remember(self) -> None:
        """Keep the best weights: as a pointer where this step has a checkpoint, else (no ``out``) in memory."""
        if self.out is not None and self._due(self.spec.validate_every):
            checkpoint.point(self.out, checkpoint.BEST, f"step-{self.step:08d}")
        if self.spec.patience and (self.out is None or not self._due(self.spec.validate_every)):
            self.kept_best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _finish(self) -> None:
        self.stopped = self.stopped or "steps"
        if self.spec.patience and self.best is not None and self.best["step"] != self.step:
            best = checkpoint.pointed(self.out, checkpoint.BEST) if self.out is not None else None
            weights = checkpoint.read(best).weights if best is not None else self.kept_best
            assert weights is not None, "the best weights were kept when they were found"
            checkpoint.fill(self.model, weights, best or "memory")
        if self.out is not None:
            checkpoint.write(self.out / FINAL, self.model, None, self._state())
        self._tell("end", history=self.history())

    def history(self) -> dict[str, Any]:
        """What ``train`` returns."""
        return {
            "steps": self.step, "tokens": self.tokens, "record": self.record, "validation": self.validations, "best": self.best,
            "stopped": self.stopped, "weights": weights_digest(self.model.state_dict()), "threads": self.threads,
            "decaying": decaying(self.model), "seconds": self.seconds, "resumed_from": self.resumed_from,
        }  # fmt: skip

    def _tell(self, event: Any, **facts: Any) -> None:
        if self.callbacks:
            state = {"model": self.model, "spec": self.spec, "out": self.out, "step": self.step, "tokens": self.tokens, **facts}
            for callback in self.callbacks:
                callback(event, state)


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _drawing(device: torch.device, *parts: int) -> Iterator[None]:
    """Randomness (dropout) from ``parts`` alone; the global state is as before afterwards.

    The generators are set themselves: ``torch.manual_seed`` would also queue a call, with a stack trace, for every absent device.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index if device.index is not None else torch.cuda.current_device()])
    states = [generator.get_state() for generator in generators]
    seed = generator_of("dropout", *parts).initial_seed()
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states):
            generator.set_state(state)


def _words(loss: float, seconds: float, steps: int, tokens: int, left: int) -> str:
    return f"loss {loss:.3f} · {tokens / max(seconds, 1e-9):,.0f} tokens/s · {_span(seconds / max(steps, 1) * left)} left"


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
