"""Training a dictionary on a stream of activations, so that a training cut off anywhere goes on to the same bits.

Each step: gradients in closed form, a clipped norm, Adam (fused), decoder rows moved along the sphere and put back to length 1. Of dead
features, those that have not fired for ``dead_after`` rows, topk and batch-topk take an auxiliary loss on what is left over; jumprelu and
gated dictionaries draw them anew: read and write the residual of a row drawn by its squared loss, at a fifth of the others' length (after
Bricken et al., Towards Monosemanticity, 2023, who take the row itself). jumprelu's and gated's price of a feature follows the number of
active features towards ``k``, where published recipes fix it: price *= exp(steer * (active / k - 1)).

jumprelu's threshold is the parameter itself, kept at 0 or above, not its logarithm: Adam moves a logarithm by a share of the threshold a
step, and in a short training hardly at all.

Nothing on the way waits for the device but a look every ``check_every`` steps: at the loss (NaN ends the training there, before anything is
kept) and at which features are dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.dictionaries.dictionary import Dictionary, unit
from probes.dictionaries.files import HEAD, load, save
from probes.dictionaries.gradients import Step, auxiliary, gradients
from probes.dictionaries.normalisation import finite, measured
from probes.dictionaries.spec import TrainingSpec
from workbench.core.errors import BadValue
from workbench.core.protocol import Progress, silent

Rows = Tensor | tuple[Tensor, Tensor]
Stream = Callable[[int], Iterator[Rows]]
"""``stream(first)``: batches of raw rows from batch ``first`` on, batch i always the same; pairs (input, output) for a transcoder."""

ANEW = 0.2
"""Length of a redrawn encoder row, as a share of the mean length of the others."""
EMA = 0.01
"""Share of a batch in batch-topk's running threshold."""
BETAS = (0.9, 0.999)


@dataclass
class Trainer:
    """A dictionary in training. ``take`` makes one step."""

    dictionary: Dictionary
    spec: TrainingSpec
    step: int = 0
    rows: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        d, spec = self.dictionary, self.spec
        device = d.decoder.device
        fixed = {id(d.decoder)} if spec.frozen else set()
        self.trained = [p for p in d.parameters() if id(p) not in fixed]
        fused = all(p.is_floating_point() and p.dtype != torch.bfloat16 for p in self.trained)
        self.optimizer = torch.optim.Adam(self.trained, lr=spec.rate(d.spec.d_sae), betas=BETAS, fused=fused)
        self.fired = torch.zeros(d.spec.d_sae, dtype=torch.long, device=device)
        self.price = torch.tensor(spec.penalty, dtype=torch.float64, device=device)
        self.draw = torch.Generator().manual_seed(spec.seed + 1)
        self.dead = torch.zeros(0, dtype=torch.long, device=device)
        self.way = spec.revives(d.spec.kind)
        if d.spec.kind not in ("topk", "batch-topk") and self.way == "auxiliary":
            raise BadValue("revive", self.way, f"resample or none: {d.spec.kind} has no largest features to choose among the dead")
        self._room: Tensor | None = None

    # --- one step -----------------------------------------------------------------------------------------------

    def take(self, given: Rows) -> Step:
        """One step on a batch of raw rows."""
        d, spec = self.dictionary, self.spec
        x, y = _pair(given, d)
        z = d.input(x)
        target = z if y is None else d.output(y)
        if self._room is None or self._room.shape[0] != len(z) or self._room.dtype != z.dtype:
            self._room = torch.empty(len(z), d.spec.d_sae, dtype=z.dtype, device=z.device)
        guess = 0.8 * float(d.threshold) if d.spec.kind == "batch-topk" else 0.0
        found = gradients(d, z, target, spec, self.price.to(z.dtype), guess=guess, room=self._room)
        extra = None
        if self.way == "auxiliary" and len(self.dead):
            extra = auxiliary(d, z, found.residual, self.dead, spec)
        self.step, self.rows = self.step + 1, self.rows + len(z)
        with torch.no_grad():
            self._note(found)
            self._move()
            if self.step % spec.check_every == 0 or self.step == spec.steps:
                self._look(found, extra)
            if self.way == "resample" and self.step % spec.resample_every == 0 and self.step < (1 - spec.decay) * spec.steps:
                self._anew(z, found)
        return found

    def _move(self) -> None:
        """Along the gradient, the decoder on its sphere."""
        d, spec = self.dictionary, self.spec
        w = d.decoder
        if w.grad is not None:
            w.grad.sub_((w.grad * w).sum(1, keepdim=True) * w)
        torch.nn.utils.clip_grad_norm_(self.trained, spec.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = spec.rate_at(self.step - 1, d.spec.d_sae)
        self.optimizer.step()
        if not spec.frozen:
            w.div_(w.norm(dim=1, keepdim=True))
        if d.spec.kind == "jumprelu":
            d.threshold.clamp_(min=0)

    def _note(self, found: Step) -> None:
        """Which features fired; the running threshold or price."""
        d, spec = self.dictionary, self.spec
        now = (found.value > 0).long() * self.rows
        self.fired.scatter_reduce_(0, found.entries.feature, now, "amax")
        if d.spec.kind == "batch-topk":
            positive = torch.where(found.value > 0, found.value, torch.inf)
            least = positive.min() if len(positive) else d.threshold
            least = torch.where(least.isfinite(), least, d.threshold)
            d.threshold.copy_(least if self.step == 1 else (1 - EMA) * d.threshold + EMA * least)
        elif d.spec.kind != "topk" and spec.steer:
            off = (found.active.double() / d.spec.k - 1).clamp(-1, 1)
            self.price.mul_((spec.steer * off).exp())

    def _look(self, found: Step, extra: Tensor | None) -> None:
        """Raises BadValue where the loss is not finite."""
        loss = float(found.loss)
        if not torch.isfinite(found.loss):
            raise BadValue(f"the loss at step {self.step}", loss, "finite", do="Lower lr, or look at the activations.")
        self.dead = (self.fired < self.rows - self.spec.dead_after).nonzero()[:, 0]
        note = {"step": self.step, "loss": loss, "active": float(found.active), "dead": len(self.dead), "price": float(self.price)}
        self.history.append({**note, "auxiliary": float(extra) if extra is not None else 0.0})

    def look(self) -> None:
        """Raises BadValue where a weight is not finite: what is kept is whole."""
        for name, parameter in self.dictionary.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise BadValue(f"'{name}' after step {self.step}", "NaN or infinity", "finite", do="Lower lr, or look at the activations.")

    def _anew(self, z: Tensor, found: Step) -> None:
        """Draw the dead features anew from rows that are rebuilt badly."""
        d, dead = self.dictionary, (self.fired < self.rows - self.spec.dead_after).nonzero()[:, 0]
        if not len(dead):
            return
        odds = found.residual.square().sum(1).square().cpu()
        row = torch.multinomial(odds, len(dead), replacement=len(dead) > len(odds), generator=self.draw).to(z.device)
        gives = unit(found.residual[row])
        reads = unit(d.centred(z)[row]) if d.spec.transcoder else gives
        alive = torch.ones(d.spec.d_sae, dtype=torch.bool, device=z.device).index_fill(0, dead, False)
        length = d.encoder[alive].norm(dim=1).mean() if bool(alive.any()) else torch.ones((), dtype=z.dtype, device=z.device)
        d.encoder[dead] = ANEW * length * reads
        if not self.spec.frozen:
            d.decoder[dead] = gives
        for parameter in self.trained:
            if parameter is d.decoder_bias:
                continue
            if parameter.ndim == 1:
                parameter[dead] = self.spec.threshold if parameter is getattr(d, "threshold", None) else 0.0
            state = self.optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                state[name][dead] = 0.0
        self.fired[dead] = self.rows

    # --- what a checkpoint holds ----------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Everything a training needs to go on, besides the dictionary and ``facts``."""
        names = {id(p): name for name, p in self.dictionary.named_parameters()}
        out = {"fired": self.fired, "price": self.price, "draw": self.draw.get_state(), "dead": self.dead}
        for parameter in self.trained:
            for key, value in self.optimizer.state[parameter].items():
                out[f"adam.{names[id(parameter)]}.{key}"] = value
        return out

    def facts(self) -> dict[str, Any]:
        """The rest of it, as JSON."""
        return {"step": self.step, "rows": self.rows, "history": self.history, "spec": self.spec.model_dump(mode="json")}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from what ``tensors`` and ``facts`` say. Raises BadValue where they are of another training."""
        if (then := TrainingSpec.parse(facts["spec"])) != self.spec:
            fields = [name for name in type(then).model_fields if getattr(then, name) != getattr(self.spec, name)]
            found = {name: getattr(self.spec, name) for name in fields}
            raise BadValue("the training's spec", found, f"as it was begun: { {name: getattr(then, name) for name in fields} }",
                           do="Go on with that spec, or train into another folder.")  # fmt: skip
        self.step, self.rows, self.history = facts["step"], facts["rows"], list(facts["history"])
        for parameter in self.trained:  # the state of a parameter is made by its first step
            name = next(n for n, p in self.dictionary.named_parameters() if p is parameter)
            prefix = f"adam.{name}."
            self.optimizer.state[parameter] = {k.removeprefix(prefix): v.clone() for k, v in tensors.items() if k.startswith(prefix)}
        self.fired, self.price, self.dead = (tensors[name].clone() for name in ("fired", "price", "dead"))
        self.draw.set_state(tensors["draw"])


def _pair(given: Rows, d: Dictionary) -> tuple[Tensor, Tensor | None]:
    """The rows of a batch, checked. Raises BadValue for other widths, NaN, and pairs where there should be none."""
    if isinstance(given, Tensor) == d.spec.transcoder:
        found = "rows of one site" if d.spec.transcoder else "pairs of rows"
        raise BadValue("a batch of the stream", found, "pairs (input, output) for a transcoder, rows of one site for an autoencoder")
    parts = (given,) if isinstance(given, Tensor) else given
    for part, width, what in zip(parts, (d.spec.d_in, d.spec.width_out), ("the input's rows", "the output's rows"), strict=False):
        finite(part, width, what)
    if len(parts) == 2 and len(parts[0]) != len(parts[1]):
        raise BadValue("the rows of a pair", [len(part) for part in parts], "equally many")
    moved = [part.to(d.decoder.device, d.decoder.dtype) for part in parts]
    return moved[0], moved[1] if len(moved) == 2 else None


def prepare(dictionary: Dictionary, stream: Stream, spec: TrainingSpec, rows: int = 8192) -> None:
    """Normalise by the first rows of the stream and set the kind's first threshold."""
    sample: list[tuple[Tensor, ...]] = []
    for given in stream(0):
        x, y = _pair(given, dictionary)
        sample.append((x,) if y is None else (x, y))
        if sum(len(part[0]) for part in sample) >= rows:
            break
    if not sample:
        raise BadValue("the stream", "empty", "of at least one batch of rows")
    found = [measured(torch.cat([part[side] for part in sample]), spec.normalise) for side in range(len(sample[0]))]
    with torch.no_grad():
        dictionary.normalise(*found)
        if dictionary.spec.kind == "jumprelu":
            dictionary.threshold.fill_(spec.threshold)


def train(
    dictionary: Dictionary,
    stream: Stream,
    spec: TrainingSpec,
    *,
    folder: Path | None = None,
    save_every: int = 0,
    progress: Progress = silent,
) -> Trainer:
    """Train to the last step, keeping it in ``folder`` every ``save_every`` steps and at the end, and going on from what is kept there.

    Raises BadValue for a stream that ends early, for rows that cannot be meant and for a loss that is not finite, and where ``folder``
    holds another training or another dictionary.
    """
    trainer, begun = _begun(dictionary, spec, folder)
    if not begun:
        prepare(dictionary, stream, spec)
    for given in stream(trainer.step) if trainer.step < spec.steps else ():
        trainer.take(given)
        progress(trainer.step, spec.steps, "steps")
        last = trainer.step == spec.steps
        if folder is not None and (last or (save_every and trainer.step % save_every == 0)):
            trainer.look()
            save(folder, dictionary, tensors=trainer.tensors(), facts=trainer.facts())
        if last:
            break
    if trainer.step < spec.steps:
        raise BadValue("the batches of the stream", trainer.step, f"{spec.steps}, one a step", do="Give more rows, or ask for fewer steps.")
    return trainer


def _begun(dictionary: Dictionary, spec: TrainingSpec, folder: Path | None) -> tuple[Trainer, bool]:
    """A trainer at its first step, or at the last one kept in ``folder``."""
    trainer = Trainer(dictionary, spec)
    if folder is None or not (Path(folder) / HEAD).is_file():
        return trainer, False
    kept = load(folder)
    if kept.tensors is None or kept.facts is None:
        raise BadValue(
            "folder", str(folder), "of a training that can go on, or empty", do="It holds a dictionary alone: use another folder."
        )
    for word, then, now in (
        ("shape", kept.dictionary.spec, dictionary.spec), ("origin", kept.dictionary.origin, dictionary.origin),
    ):  # fmt: skip
        if then != now:
            raise BadValue(f"the {word} of the dictionary", now.canonical(), f"as it was begun in '{folder}': {then.canonical()}")
    dictionary.load_state_dict(kept.dictionary.state_dict())
    trainer.restore(kept.tensors, kept.facts)
    return trainer, True
