"""The training loop.

One optimizer step at a time: rows by counter, forward and backward in micro-batches, one normalisation by the number of
predicted tokens over all of them, clipping, AdamW. Whatever is random is drawn from (seed, step, micro-batch), so a run that was
cut off and continued ends in the same weights, to the byte, as one that was not: same machine, same number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.blocks.digest import weights_digest
from workbench.core.batch import RowData, TokenBatch
from workbench.core.errors import BadValue, Changed, Diverged, MissingFile
from workbench.core.protocol import Beginning, Callback, Progress, silent
from workbench.training import checkpoint
from workbench.training.drawing import drawing as _drawing
from workbench.training.lock import held
from workbench.training.made_with import differences, in_words, made_with
from workbench.training.optimizer import adamw, decaying, restore, state_of
from workbench.training.order import row_order
from workbench.training.parallel.pipeline import Pipeline
from workbench.training.parallel.plan import layers_changed
from workbench.training.parallel.spec import ParallelSpec
from workbench.training.parallel.team import Team
from workbench.training.parallel.world import World, ended, joined
from workbench.training.precision import Precision, Scaler, computing
from workbench.training.recovery import explained, odd_weights, writing
from workbench.training.spec import TrainSpec
from workbench.training.stopping import GRACE, Agreed, Asked, stopping

RECORDS = 200
"""About how many points of the loss curve are kept."""
FINAL = checkpoint.FINAL
_WORDS = {"spec": "training spec", "data": "training data", "start": "untrained model", "validation": "validation data"}


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

    Events for ``callbacks``: ``step`` (``loss``, ``lr``, ``norm``, and ``record``, the point of the curve that this step ends, or None),
    ``checkpoint`` (``folder``), ``validation`` (``loss``), ``end`` (``history``); and ``changed`` (``words``) where a run goes on under
    other versions or on another processor than before, which its checkpoints then say as well. One that is ``Beginning`` is told before
    the first step too.
    History: ``steps``, ``tokens`` (predicted), ``record`` and ``validation`` (lists of step, loss …; nats a token), ``best``,
    ``stopped`` (steps or patience), ``weights`` (sha256), ``threads``, ``decaying``; and, not reproducible, ``seconds``, ``resumed_from``.
    Under fp16 ``scaler`` besides: ``scale``, and ``skipped``, the steps (from 0) whose gradients overflowed and that were not taken;
    a record of such a step has no ``norm``.

    With ``spec.parallel`` every process that ``torchrun`` started calls this with the same arguments, of which rank 0 alone reports
    (``callbacks``, ``progress``) and writes; ``out`` is a folder that all of them see. Afterwards each has the whole model.

    Ctrl-C and SIGTERM end the run after the step it is in, with a checkpoint of that step; a second one ends it at once. To one of several
    processes they end all of them after the same step.

    Raises BadValue (data), Changed (``out`` holds another run), Damaged (what it holds is not whole), Occupied (another process trains
    in it), Unwritable (a full or read-only disk), Diverged (a loss, gradient or weight that is not finite; nothing is written after
    it) and LostRank (another process ended).
    """
    if len(data) == 0:
        raise BadValue("the training data", "no rows", "at least one row")
    if spec.patience and (validation is None or len(validation) == 0):
        raise BadValue("patience", spec.patience, "0 without validation data")
    was_training, threads = model.training, torch.get_num_threads()
    try:
        with joined(spec.parallel) as world, ExitStack() as changes:
            run = _Run(model, data, spec, Path(out) if out is not None else None, validation, callbacks, progress)
            if world is not None:
                run.share(world)
                run.asked = changes.enter_context(stopping(ended, grace=GRACE))
            else:
                run.asked = changes.enter_context(stopping())
            try:
                with explained(run.out):
                    if not run.find(resume, changes):
                        run.arrange(changes)
                        run.go()
                    return run.history()
            except BaseException as error:
                lost = world.explained(error) if world is not None else None
                if lost is not None:
                    raise lost from error
                raise
    finally:
        model.train(was_training)
        torch.set_num_threads(threads)


def evaluate(model: Any, data: RowData, *, rows: int = 32, precision: Precision = "float32") -> tuple[float, int]:
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
        self.world: World | None = None
        self.team: Team | None = None
        self.first = True  # whether this process writes and reports
        self.trained = model  # what this process trains of it
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = adamw(model, spec)
        self.scaler = Scaler() if spec.precision == "fp16" else None
        self.step, self.tokens, self.bad = 0, 0, 0
        self.record: list[dict[str, Any]] = []
        self.validations: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.since: list[float] = [0.0, 0]  # loss sum and tokens since the last record
        self.stopped = ""
        self.asked, self.agreed = Asked(), False  # whether this process was asked to stop, and whether any of several was
        self.made_with, self.changes = made_with(self.device), list[dict[str, Any]]()
        self.threads = spec.threads or torch.get_num_threads()
        # How the work is divided is not part of what is trained: a run may go on with other processes, or alone.
        whole = spec.model_copy(update={"parallel": ParallelSpec()})
        self.identity = {"spec": whole.digest(), "data": data.digest(), "start": model.digest()}
        if validation is not None:
            self.identity["validation"] = validation.digest()
        self.start: checkpoint.Checkpoint | None = None  # what to continue from
        self.resumed_from: int | None = None
        self.kept_best: dict[str, Tensor] | None = None
        self.seconds = 0.0

    # --- several processes

    def share(self, world: World) -> None:
        """Be one of the processes of ``world``. Raises BadValue where they do not train the same."""
        self.world, self.first = world, world.first
        world.notes.about = lambda: (self.step, self.last())
        theirs = world.told(self.identity)
        if odd := [name for name in self.identity if theirs.get(name) != self.identity[name]]:
            raise BadValue(f"the {_WORDS[odd[0]]} of rank {world.rank}", self.identity[odd[0]][:12], "that of rank 0")

    def arrange(self, changes: ExitStack) -> None:
        """Make the model ready for its steps; what that changes in its layers is undone with ``changes``."""
        if self.world is not None:
            if self.spec.parallel.kind == "pipeline":
                self.team = Pipeline(self.model, self.spec, self.world, changes, self.data.batch([0]).to(self.device))
            else:
                self.team = Team(self.model, self.spec, self.world, changes)
            self.trained, self.parameters = self.team.model, self.team.parameters
            self.optimizer = adamw(self.trained, self.spec)
        else:
            changes.enter_context(layers_changed(self.model, self.spec.parallel))
        if self.start is None:
            return
        taken = self.step - (len(self.scaler.skipped) if self.scaler is not None else 0)
        if self.team is not None:
            self.team.load(self.start, self.optimizer, taken)
        else:
            restore(self.optimizer, self.model, self.start.optimizer or {}, taken, self.start.folder / "optimizer.safetensors")
        self.start = None

    def last(self) -> str:
        """The last whole checkpoint, or ''."""
        return str(checkpoint.pointed(self.out, checkpoint.LATEST) or "") if self.out is not None else ""

    # --- resuming

    def find(self, resume: Literal["auto", False], held_until: ExitStack) -> bool:
        """Continue from what ``out`` holds, which is this process's alone until ``held_until``; true where the run is already finished."""
        torch.set_num_threads(self.threads)
        if self.out is None:
            return False
        final = self.out / FINAL
        if self.first and not final.is_dir():
            held_until.enter_context(held(self.out))
            with writing("The run", self.out):
                checkpoint.clean(self.out)
        if self.world is not None:
            self.world.wait()
        last = final if final.is_dir() else checkpoint.pointed(self.out, checkpoint.LATEST)
        if last is None:
            return False
        if resume is False:
            raise BadValue(
                "out", str(self.out), "empty or new, since it holds a run", do="Give resume='auto' to continue it, or another folder."
            )
        found = checkpoint.read(last, tensors=self.world is None)
        self._same_run(found, last)
        if not found.cut or self.world is None:
            checkpoint.fill(self.model, found.weights, last / "model.safetensors")
        self._take(found.train_state)
        torch.set_num_threads(self.threads)
        self.start = found if last != final else None
        self.resumed_from = self.step
        if last != final and (changed := differences(found.train_state.get("made_with", {}), self.made_with)):
            self.changes.append({"step": self.step, "changed": changed})
            self._tell("changed", words=in_words(self.step, changed))
        return last == final

    def _same_run(self, found: checkpoint.Checkpoint, last: Path) -> None:
        stored = found.train_state.get("identity", {})
        for name in _WORDS:
            before, now = (facts.get(name, "none") for facts in (stored, self.identity))
            if before != now:
                raise Changed(self.out, _WORDS[name], before[:12], now[:12], last=str(last))

    def _state(self) -> dict[str, Any]:
        return {
            "identity": self.identity, "step": self.step, "tokens": self.tokens, "bad": self.bad, "record": self.record,
            "validation": self.validations, "best": self.best, "since": self.since, "stopped": self.stopped, "threads": self.threads,
            "made_with": self.made_with, **({"changes": self.changes} if self.changes else {}),
            **({"scaler": self.scaler.state()} if self.scaler is not None else {}),
        }  # fmt: skip

    def _take(self, state: Any) -> None:
        self.step, self.tokens, self.bad, self.record = state["step"], state["tokens"], state["bad"], list(state["record"])
        self.validations, self.best, self.since = list(state["validation"]), state["best"], list(state["since"])
        self.stopped, self.threads, self.changes = state["stopped"], state["threads"], list(state.get("changes", []))
        if self.scaler is not None:
            self.scaler.take(state["scaler"])

    # --- going

    def go(self) -> None:
        """Step until done, saving and validating where due; then leave the final model."""
        began, first, seen = time.perf_counter(), self.step, self.tokens
        fresh = self.resumed_from is None
        self._begin()
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
            words = _words(loss, self.seconds, self.step - first, self.tokens - seen, self.spec.steps - self.step)
            if self.first:
                self.progress(self.step, self.spec.steps, words)
            if (self.agreed if self.world is not None else self.asked.stop) and self.step < self.spec.steps:
                self._save()
                if self.world is not None:
                    self.world.wait()
                words = f"after step {self.step}" + (f", whose checkpoint is '{self.last()}'" if self.out else "")
                raise (KeyboardInterrupt if self.world is None else Agreed)(words)
        self._finish()

    def _due(self, *every: int) -> bool:
        return any(n and self.step % n == 0 for n in every)

    def _advance(self) -> float:
        spec = self.spec
        if not self.trained.training:
            self.trained.train()
        lr = spec.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        total, count = self._gradients()
        if self.team is not None:
            norm, asked = self.team.clip(spec.clip, asked=self.asked.stop)
        else:
            norm, asked = torch.nn.utils.clip_grad_norm_(self.parameters, spec.clip or math.inf, foreach=True), total.new_zeros(())
        loss, size, asking = torch.stack((total / count, norm.to(total.dtype), asked.to(total.dtype))).tolist()
        self.agreed = asking > 0
        # Scaling acts on gradients alone: a loss that is not finite, or gradients at the least scale, are no matter of it.
        taken = self.scaler is None or self.scaler.after(self.step, size)
        spent = self.scaler is None or self.scaler.spent
        if not math.isfinite(loss) or (spent and not math.isfinite(size)):
            raise Diverged(self.step, loss, size, last=self.last())
        if taken:
            self.optimizer.step()
        self.step, self.tokens = self.step + 1, self.tokens + count
        self.since = [self.since[0] + loss * count, self.since[1] + count]
        point: dict[str, Any] | None = None
        if self.step % max(1, spec.steps // RECORDS) == 0 or self.step == spec.steps:
            mean, seen = self.since[0] / self.since[1], size if taken else None
            point = {"step": self.step, "loss": mean, "lr": lr, "norm": seen, "tokens": self.tokens}
            self.record.append(point)
            self.since = [0.0, 0]
        self._tell("step", loss=loss, lr=lr, norm=size, record=point)
        return loss

    def _gradients(self) -> tuple[Tensor, int]:
        """The summed loss and the number of predicted tokens of this step's rows, with gradients of their quotient in place."""
        spec, team, scale = self.spec, self.team, self.scaler.scale if self.scaler is not None else 1.0
        later = spec.accumulate > 1 or team is not None
        rows = row_order(spec.seed, self.step, spec.batch_rows, len(self.data))
        size = spec.batch_rows // spec.accumulate
        total, count = torch.zeros((), device=self.device), 0
        if isinstance(team, Pipeline):
            total, count = team.flow(self.data, rows, self.step, scale)
        for micro in range(spec.accumulate if not isinstance(team, Pipeline) else 0):
            mine, drawn = rows[micro * size : (micro + 1) * size], (spec.seed, self.step, micro)
            if team is not None:
                mine, drawn = team.share(mine), drawn + team.drawn
            batch = self.data.batch(mine)
            if team is not None or not (self.model.moves and type(batch) is TokenBatch):
                batch = batch.to(self.device)
            with _drawing(self.device, *drawn), computing(spec.precision, self.device):
                part, n = self.model.loss(batch) if team is None else team.loss(batch, size, last=micro + 1 == spec.accumulate)
            # One micro-batch is normalised before the backward pass, several after it: their common count is known only then.
            normalised = part / max(n, 1) if not later else part
            (normalised if self.scaler is None else normalised * scale).backward()
            total, count = total + part.detach(), count + n
        if team is not None:
            total, count = team.summed(total, count)
        if count == 0:
            raise BadValue(f"the rows of step {self.step}", rows, "rows with at least one token to predict")
        if team is not None:
            team.settle(scale * count)
        elif later or scale != 1.0:
            divisor = scale * (count if later else 1)
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(divisor)
        return total, count

    def _save(self) -> None:
        if self.out is None:
            return
        self._sound()
        with writing(f"The checkpoint of step {self.step}", self.out):
            if self.team is not None:
                folder = self.team.save(self.out, self.optimizer, self._state(), self.spec.keep)
            else:
                folder = checkpoint.save(self.out, self.model, state_of(self.optimizer, self.model), self._state(), self.spec.keep)
        self._tell("checkpoint", folder=folder)

    def _sound(self) -> None:
        """Raise Diverged rather than keep weights or moments that are not finite: a step can spoil what its loss did not show."""
        if odd := odd_weights(self.trained, self.optimizer, self.world):
            raise Diverged(self.step, math.nan, math.nan, last=self.last(), found=odd)

    def _validate(self, data: RowData) -> None:
        rows = 4 * self.spec.batch_rows
        if self.team is not None:
            loss, count = self.team.evaluate(data, rows)
        else:
            loss, count = evaluate(self.model, data, rows=rows, precision=self.spec.precision)
        if not math.isfinite(loss):
            raise Diverged(self.step, loss, math.nan, last=self.last(), found=f"the validation loss is {loss}")
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
        if self.out is not None and self.first and self._due(self.spec.validate_every):
            with writing("The name of the best step", self.out):
                checkpoint.point(self.out, checkpoint.BEST, f"step-{self.step:08d}")
        if self.spec.patience and (self.out is None or not self._due(self.spec.validate_every)):
            self.kept_best = {name: value.detach().clone() for name, value in self.trained.state_dict().items()}

    def _finish(self) -> None:
        self.stopped = self.stopped or "steps"
        self._sound()
        if self.spec.patience and self.best is not None and self.best["step"] != self.step:
            self._recall()
        if self.team is not None:
            self.team.give_back()
        if self.out is not None and self.first:
            with writing("The final model", self.out):
                checkpoint.write(self.out / FINAL, self.model, None, self._state())
        if self.world is not None:
            self.world.wait()
        self._tell("end", history=self.history())

    def _recall(self) -> None:
        """Take the best weights back."""
        assert self.best is not None, "there was a validation"
        best = checkpoint.step_folder(self.out, self.best["step"]) if self.out is not None else None
        if best is not None and self.out is not None and checkpoint.pointed(self.out, checkpoint.BEST) != best:
            raise MissingFile(best, "checkpoint of the step that validated best")
        if best is not None and self.team is not None:
            self.team.load(checkpoint.read(best, tensors=False), None, 0)
            return
        weights = checkpoint.read(best).weights if best is not None else self.kept_best
        assert weights is not None, "the best weights were kept when they were found"
        checkpoint.fill(self.trained, weights, best or "memory")

    def history(self) -> dict[str, Any]:
        """What ``train`` returns."""
        return {
            "steps": self.step, "tokens": self.tokens, "record": self.record, "validation": self.validations, "best": self.best,
            "stopped": self.stopped, "weights": weights_digest(self.model.state_dict()), "threads": self.threads,
            "decaying": decaying(self.model), "seconds": self.seconds, "resumed_from": self.resumed_from, "changes": self.changes,
            **({"scaler": self.scaler.state()} if self.scaler is not None else {}),
        }  # fmt: skip

    def _begin(self) -> None:
        for callback in self.callbacks if self.first else ():
            if isinstance(callback, Beginning):
                callback.begin(self._public(data=self.data, validation=self.validation))

    def _tell(self, event: Any, **facts: Any) -> None:
        if self.callbacks and self.first:
            state = self._public(**facts)
            for callback in self.callbacks:
                callback(event, state)

    def _public(self, **facts: Any) -> dict[str, Any]:
        return {"model": self.trained, "spec": self.spec, "out": self.out, "step": self.step, "tokens": self.tokens, **facts}


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device


def _words(loss: float, seconds: float, steps: int, tokens: int, left: int) -> str:
    return f"loss {loss:.3f} · {tokens / max(seconds, 1e-9):,.0f} tokens/s · {_span(seconds / max(steps, 1) * left)} left"


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
